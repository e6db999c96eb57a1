//! candle: safetensors on the CPU, or on the GPU of a build with CUDA, for the architectures on a list ([`config`]), each with golden tests against `transformers`.
//!
//! Everything is read through the descriptors that the gate verified; weights are computed with in F32, whatever they
//! are stored in, as the reference values are.

mod bert;
mod cache;
mod config;
mod decoder;
mod files;
mod lora;
mod pooling;
mod serve;
mod settings;
mod tokens;
mod weights;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
pub(crate) mod golden;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod hostile;

use std::collections::BTreeSet;
use std::time::Instant;

use registry::serving::Options;

use self::bert::Encoder;
use self::cache::BLOCK;
use self::config::{Config, DecoderConfig};
use self::decoder::Decoder;
use self::files::{FilesError, Opened};
use self::lora::Lora;
use self::pooling::{Pooling, PoolingError};
use self::serve::{DEFAULT_PARALLEL, MAX_PARALLEL, PROMPT_PART, Serving};
use self::settings::Settings;
use self::tokens::{Tokens, TokensError};
use self::weights::{Weights, WeightsError};
use super::grammar::Words;
use super::plan::Memory;
use super::{Card, Engine, EngineError, Failure, Files, Queue, Special, Token, gpu};
use crate::halt::Halt;

pub(crate) use self::config::shown;
pub(crate) use self::files::{CONFIG, is_weights, wanted};
pub(crate) use self::lora::adapter_files;
pub(crate) use self::weights::parameters;

/// The engine's name.
pub(super) const NAME: &str = "candle";
/// Memory that the caches of all answers may take together, unless a single context takes more.
const CACHE_MEMORY: u64 = 1024 * 1024 * 1024;
/// Bytes of a number as it is computed with.
const NUMBER: u64 = 4;

/// A model that generates text.
struct Speaker {
    decoder: Decoder,
    /// In the order in which requests name them, from 1 on.
    adapters: Vec<Lora>,
    tokens: Tokens,
    ends: BTreeSet<u32>,
    context: usize,
    /// Positions of all caches together.
    cells: usize,
    /// Answers that are computed at once.
    parallel: usize,
}

/// What was loaded.
enum Model {
    Speaker(Speaker),
    Encoder { encoder: Encoder, tokens: Tokens },
}

/// A safetensors model loaded by candle.
pub struct Candle {
    model: Model,
    card: Card,
}

/// Why loading failed, with the file that it is about.
struct Refused(&'static str, String);

macro_rules! refused_in {
    ($($error:ty => $file:expr),* $(,)?) => {
        $(impl From<$error> for Refused {
            fn from(error: $error) -> Self {
                Self($file, error.to_string())
            }
        })*
    };
}

refused_in! {
    FilesError => "the release",
    WeightsError => "model.safetensors",
    TokensError => files::TOKENIZER,
    PoolingError => files::MODULES,
}

impl From<Refused> for EngineError {
    fn from(Refused(path, reason): Refused) -> Self {
        Self::Load { engine: NAME, path: path.to_owned(), reason }
    }
}

impl Candle {
    /// Loads the files that [`wanted`] names, and those that [`adapter_files`] does.
    pub fn load(files: Files, options: &Options, halt: &Halt) -> Result<Self, EngineError> {
        let Files { model: files, adapters } = files;
        let opened = Opened::new(files);
        let bytes = opened.required(files::CONFIG).map_err(Refused::from)?;
        // An architecture that is not on the list, or a field that is not understood, is the format's fault.
        let config =
            Config::read(&bytes).map_err(|error| EngineError::Unsupported(format!("{NAME}: {error}")))?;
        let settings = Settings::read(&opened).map_err(Refused::from)?;
        let tokenizer = opened.required(files::TOKENIZER).map_err(Refused::from)?;
        let index = opened.json(files::INDEX).map_err(Refused::from)?;
        match config {
            Config::Decoder(config) => {
                let tokens = Tokens::read(&tokenizer, config.vocabulary, true).map_err(Refused::from)?;
                let mut weights = weights(opened, &index)?;
                let adapters = adapters
                    .into_iter()
                    .map(|adapter| Lora::load(&config, adapter))
                    .collect::<Result<_, _>>()?;
                Self::speaker(config, settings, tokens, &mut weights, adapters, options, halt)
            }
            Config::Bert(_) if !adapters.is_empty() => Err(EngineError::Unsupported(
                "this model makes vectors, and adapters go with models that generate text".to_owned(),
            )),
            Config::Bert(config) => {
                let modules = opened.json(files::MODULES).map_err(Refused::from)?;
                let chosen = opened.json(files::POOLING).map_err(Refused::from)?;
                let pooling = Pooling::read(&modules, &chosen, config.hidden).map_err(Refused::from)?;
                let tokens = Tokens::read(&tokenizer, config.vocabulary, false).map_err(Refused::from)?;
                let context = settings.longest.unwrap_or(config.positions).min(config.positions);
                let mut card = card(&tokens, &settings, context, config.vocabulary, options);
                card.embedding = u32::try_from(config.hidden).ok();
                let mut weights = weights(opened, &index)?;
                let encoder =
                    Encoder::load(&config, pooling, &mut weights, &gpu::device()).map_err(Refused::from)?;
                Ok(Self { model: Model::Encoder { encoder, tokens }, card })
            }
        }
    }

    fn speaker(
        config: DecoderConfig,
        settings: Settings,
        tokens: Tokens,
        weights: &mut Weights,
        adapters: Vec<Lora>,
        options: &Options,
        halt: &Halt,
    ) -> Result<Self, EngineError> {
        let trained = u32::try_from(config.positions).unwrap_or(u32::MAX);
        let context = super::context(options, trained).get() as usize;
        let mut ends: BTreeSet<u32> = config.ends.iter().chain(&settings.ends).copied().collect();
        ends.extend(settings.eos.as_deref().and_then(|eos| tokens.number(eos)));
        let (cells, parallel) = (cells(&config, context, options), parallel(options));
        let card = card(&tokens, &settings, context, config.vocabulary, options);
        let loaded = Decoder::load(config, weights, context, &gpu::device(), &|| halt.is_set());
        let decoder = loaded.map_err(Refused::from)?.ok_or(EngineError::Halted)?;
        Ok(Self {
            model: Model::Speaker(Speaker { decoder, adapters, tokens, ends, context, cells, parallel }),
            card,
        })
    }

    /// The vector of a text's tokens, those that begin and end it included; `None` if the model makes no vectors.
    pub fn embed(&self, tokens: &[Token]) -> Option<Result<Vec<f32>, Failure>> {
        let Model::Encoder { encoder, .. } = &self.model else { return None };
        let numbers: Vec<u32> = tokens.iter().map(|token| token.unsigned_abs()).collect();
        let vector = encoder.embed(&numbers);
        Some(match vector {
            Ok(vector) if vector.iter().all(|value| value.is_finite()) => Ok(vector),
            Ok(_) => Err(Failure::Engine(
                "the model computed no finite numbers; its weights are broken".to_owned(),
            )),
            Err(error) => Err(Failure::Engine(format!("candle could not compute the vector: {error}"))),
        })
    }

    fn tokens(&self) -> &Tokens {
        match &self.model {
            Model::Speaker(Speaker { tokens, .. }) | Model::Encoder { tokens, .. } => tokens,
        }
    }
}

impl Engine for Candle {
    fn card(&self) -> &Card {
        &self.card
    }

    fn tokenise(&self, text: &str, special: Special) -> Vec<Token> {
        self.tokens().encode(text, special)
    }

    fn words(&self) -> Option<Words> {
        let Model::Speaker(speaker) = &self.model else { return None };
        Some(speaker.tokens.words(&speaker.ends))
    }

    fn serve(&self, queue: &Queue, halt: &Halt, ready: &mut dyn FnMut()) -> Result<(), EngineError> {
        match &self.model {
            Model::Speaker(speaker) => {
                let serving = Serving::new(speaker, halt);
                let mut serving = serving.map_err(|error| EngineError::Context {
                    engine: NAME,
                    context: self.card.context,
                    reason: error.to_string(),
                })?;
                ready();
                serving.run(queue);
            }
            Model::Encoder { .. } => {
                ready();
                self.serve_vectors(queue, halt);
            }
        }
        Ok(())
    }
}

impl Candle {
    /// One text after the other: an encoder gains little from more at once.
    fn serve_vectors(&self, queue: &Queue, halt: &Halt) {
        while let Some(job) = queue.pop() {
            queue.metrics().now(1, queue.len().saturating_sub(1), 0, 0);
            let vector = if job.embed { self.embed(&job.prompt) } else { None };
            let failure = match (vector, halt.cause()) {
                (_, Some(cause)) => Failure::Halted(cause),
                _ if job.is_late(Instant::now()) => Failure::Late,
                (None, None) => Failure::Engine("this model makes vectors and generates no text".to_owned()),
                (Some(Ok(vector)), None) => {
                    queue.metrics().step(job.prompt.len(), job.prompt.len());
                    queue.metrics().finished();
                    job.embedded(vector);
                    continue;
                }
                (Some(Err(failure)), None) => failure,
            };
            queue.metrics().failed();
            job.fail(failure);
        }
    }
}

fn weights(opened: Opened, index: &serde_json::Value) -> Result<Weights, Refused> {
    Ok(Weights::open(&opened.into_weights(), index, &gpu::device())?)
}

/// What a model of this configuration and so many parameters needs, before it is loaded.
pub(crate) fn memory(config: &[u8], parameters: u64, options: &Options) -> Result<Memory, EngineError> {
    let bytes =
        |sizes: &[usize]| sizes.iter().fold(NUMBER, |product, size| product.saturating_mul(*size as u64));
    let config = Config::read(config).map_err(unsupported)?;
    let weights = parameters.saturating_mul(NUMBER);
    Ok(match &config {
        Config::Decoder(config) => {
            let trained = u32::try_from(config.positions).unwrap_or(u32::MAX);
            let context = super::context(options, trained).get();
            let positions = context as usize;
            let scores = bytes(&[3, config.heads, PROMPT_PART, positions]);
            let parallel = parallel(options);
            let wide = bytes(&[PROMPT_PART + parallel, 3 * config.intermediate + 8 * config.hidden]);
            let logits = bytes(&[2 * parallel, config.vocabulary]);
            let turns = bytes(&[positions, 2 * config.head_dim]);
            let working = [scores, wide, logits, turns].into_iter().fold(0, u64::saturating_add);
            // Each cache has a block that is not full.
            let cells = (cells(config, positions, options) + parallel * BLOCK) as u64;
            Memory { weights, cache: position_bytes(config).saturating_mul(cells), working, context }
        }
        Config::Bert(config) => {
            let scores = bytes(&[3, config.heads, config.positions, config.positions]);
            let wide = bytes(&[config.positions, 2 * config.intermediate + 8 * config.hidden]);
            let context = u32::try_from(config.positions).unwrap_or(u32::MAX);
            Memory { weights, cache: 0, working: scores.saturating_add(wide), context }
        }
    })
}

/// An architecture that is not on the list, or a field that is not understood, is the format's fault.
fn unsupported(error: config::ConfigError) -> EngineError {
    EngineError::Unsupported(format!("{NAME}: {error}"))
}

/// Bytes that one position takes in the caches of all layers.
fn position_bytes(config: &DecoderConfig) -> u64 {
    2 * NUMBER
        * [config.layers, config.kv_heads, config.head_dim].map(|size| size as u64).iter().product::<u64>()
}

/// Answers that are computed at once.
fn parallel(options: &Options) -> usize {
    options.parallel.unwrap_or(DEFAULT_PARALLEL).clamp(1, MAX_PARALLEL) as usize
}

/// Positions that all caches may have together: as asked for, else what memory allows and several can use; one context at
/// least.
fn cells(config: &DecoderConfig, context: usize, options: &Options) -> usize {
    if let Some(cells) = options.cache {
        return (cells.min(super::MAX_CONTEXT) as usize).max(context);
    }
    let affordable = usize::try_from(CACHE_MEMORY / position_bytes(config).max(1)).unwrap_or(usize::MAX);
    affordable.clamp(context, context.saturating_mul(parallel(options)))
}

fn card(tokens: &Tokens, settings: &Settings, context: usize, vocabulary: usize, options: &Options) -> Card {
    let signed = |token: u32| Token::try_from(token).ok();
    let (begin, end) = tokens.around();
    Card {
        engine: describe(options),
        context: u32::try_from(context).unwrap_or(u32::MAX),
        vocabulary: u32::try_from(vocabulary).unwrap_or(u32::MAX),
        longest_token: tokens.longest(),
        template: settings.template.clone(),
        bos: settings.bos.clone(),
        eos: settings.eos.clone(),
        begin: begin.and_then(signed),
        end: end.and_then(signed),
        specials: tokens.specials().to_vec(),
        embedding: None,
    }
}

fn describe(_: &Options) -> String {
    if !gpu::device().is_cpu() {
        return format!("{NAME} on CUDA, the first GPU");
    }
    let threads = candle_core::utils::get_num_threads();
    let plural = if threads == 1 { "" } else { "s" };
    format!("{NAME} on CPU, {threads} thread{plural}")
}
