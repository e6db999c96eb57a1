//! llama.cpp, embedded: GGUF on CPU, and on CUDA where the feature `cuda` is built.
//!
//! `new_context` of the wrapper crate is unsound when it is called concurrently; here only the engine's own
//! thread calls it. Models that generate are served by [`batch`], those that embed by [`embed`].

mod batch;
mod embed;
mod lora;

use std::num::NonZeroU32;
use std::sync::{Mutex, OnceLock, PoisonError};

use llama_cpp_2::LlamaBackendDeviceType;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::model::{LlamaLoraAdapter, LlamaModel};
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token_type::LlamaTokenAttr;
use registry::format::gguf;
use registry::serving::Options;

use super::grammar::Words;
use super::schedule::{Limits, Schedule};
use super::{Card, Engine, EngineError, Files, Queue, Special, Token, logs};
use crate::gate::VerifiedFile;
use crate::halt::Halt;

/// The engine's name.
pub(super) const NAME: &str = "llama.cpp";
/// Most tokens computed in one go; between two goes a cancel is noticed. It is llama.cpp's own default,
/// because another number rounds otherwise, and answers would differ from those of llama.cpp itself.
pub(super) const BATCH: usize = 512;
/// Most prompt tokens in a go in which answers go on: those wait for all of it.
const MIXED: usize = 128;
/// Answers computed at once when nobody asks for a number: on a CPU more give no more tokens a second, only later ones.
const DEFAULT_PARALLEL: u32 = 8;
/// Most answers that can be asked to be computed at once, with as many ended ones kept beside them: llama.cpp has room for
/// 256 sequences.
pub(super) const MAX_PARALLEL: u32 = 64;
/// Ended answers whose tokens are kept for those that begin alike, at least; they share the cells with all others.
const MIN_KEPT: u32 = 16;

/// Architectures in GGUF files that turn a text into one vector.
const ENCODERS: [&str; 9] = [
    "bert",
    "modern-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "neo-bert",
    "jina-bert-v2",
    "jina-bert-v3",
    "eurobert",
    "gemma-embedding",
];
/// Architectures that are of no use here by themselves; llama.cpp would abort on them later.
const NOT_SERVED: [&str; 5] = ["t5", "t5encoder", "clip", "wavtokenizer-dec", "mmproj"];

/// llama.cpp's process-wide state, made at its first use and kept to the end.
pub(crate) fn backend() -> &'static LlamaBackend {
    static BACKEND: OnceLock<LlamaBackend> = OnceLock::new();
    BACKEND.get_or_init(|| {
        // The only failure is a second initialisation, which the `OnceLock` excludes; the value carries no
        // data.
        logs::caught(LlamaBackend::init).0.unwrap_or(LlamaBackend {})
    })
}

/// A GGUF model loaded by llama.cpp.
#[derive(Debug)]
pub struct Llama {
    model: LlamaModel,
    /// Freed with the model. The loop that serves has them.
    adapters: Mutex<Vec<LlamaLoraAdapter>>,
    card: Card,
    context: NonZeroU32,
    limits: Limits,
    purpose: Purpose,
    threads: i32,
    path: String,
    /// Keeps the descriptor whose bytes are mapped.
    _weights: VerifiedFile,
}

impl Llama {
    /// Loads one GGUF file, and one for each adapter.
    pub fn load(files: Files, options: &Options, halt: &Halt) -> Result<Self, EngineError> {
        let Files { model: files, adapters } = files;
        let Ok([weights]) = <[VerifiedFile; 1]>::try_from(files) else {
            return Err(EngineError::Unsupported("llama.cpp needs exactly one GGUF file".to_owned()));
        };
        let refused =
            |reason: String| EngineError::Load { engine: NAME, path: weights.path().to_owned(), reason };
        // Our own reader knows what a hostile header may ask for, so it looks before C++ does.
        let (_, header) =
            gguf::read(weights.reader(), weights.size()).map_err(|error| refused(error.to_string()))?;
        if let Some(length) = header.context_length.filter(|length| i32::try_from(*length).is_err()) {
            return Err(refused(format!("it claims a context of {length} tokens")));
        }
        let asked = halt.clone();
        let params = LlamaModelParams::default().with_progress_callback(move |_| !asked.is_set());
        let backend = backend();
        let (loaded, complaints) =
            logs::caught(|| LlamaModel::load_from_file(backend, weights.engine_path(), &params));
        let mut model = match loaded {
            Ok(model) => model,
            Err(_) if halt.is_set() => return Err(EngineError::Halted),
            // Its words name the file as it knows it.
            Err(_) => {
                let path = weights.engine_path();
                return Err(refused(complaints.replace(&*path.to_string_lossy(), weights.path())));
            }
        };
        let purpose = purpose(&model, weights.path())?;
        if !adapters.is_empty() && purpose != Purpose::Generate {
            return Err(refused(
                "it makes vectors, and adapters go with models that generate text".to_owned(),
            ));
        }
        let adapters =
            adapters.iter().map(|adapter| lora::load(&mut model, adapter)).collect::<Result<_, _>>()?;
        let mut context = super::context(options, model.n_ctx_train());
        if let Purpose::Embed { .. } = purpose {
            context = embed::context(context, options);
        }
        let threads = super::threads(options);
        let card = card(&model, context, threads, purpose);
        let limits = limits(&model, context, options);
        let path = weights.path().to_owned();
        Ok(Self {
            model,
            adapters: Mutex::new(adapters),
            card,
            context,
            limits,
            purpose,
            threads: i32::try_from(threads).unwrap_or(1),
            path,
            _weights: weights,
        })
    }

    fn new_context(&self) -> Result<LlamaContext<'_>, EngineError> {
        let params =
            LlamaContextParams::default().with_n_threads(self.threads).with_n_threads_batch(self.threads);
        let tokens = u32::try_from(self.limits.cells).unwrap_or(u32::MAX);
        let params = match self.purpose {
            Purpose::Generate => params
                .with_n_ctx(NonZeroU32::new(tokens))
                .with_n_batch(BATCH as u32)
                .with_n_ubatch(BATCH as u32)
                .with_n_seq_max(u32::try_from(Schedule::sequences(&self.limits)).unwrap_or(1))
                // One pool of cells, so that sequences can share what they have in common.
                .with_kv_unified(true),
            Purpose::Embed { pooling, .. } => embed::params(params, self.context, pooling),
        };
        let (context, complaints) = logs::caught(|| self.model.new_context(backend(), params));
        context.map_err(|_| EngineError::Context { engine: NAME, context: tokens, reason: complaints })
    }

    fn piece(&self, token: Token) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.model.vocab().token_to_piece_into(LlamaToken(token), &mut bytes, false, None);
        bytes
    }
}

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// It generates text.
    Generate,
    /// It turns a text into a vector.
    Embed {
        /// How the vectors of the tokens become one.
        pooling: llama_cpp_2::context::params::LlamaPoolingType,
        /// Whether it reads the whole text at once.
        encoder: bool,
    },
}

fn purpose(model: &LlamaModel, path: &str) -> Result<Purpose, EngineError> {
    let architecture = model.meta_val_str("general.architecture").unwrap_or_default();
    let tokeniser = model.meta_val_str("tokenizer.ggml.model").unwrap_or_default();
    let refused = |why: String| Err(EngineError::Unsupported(format!("`{path}` {why}")));
    if NOT_SERVED.contains(&architecture.as_str()) || matches!(tokeniser.as_str(), "" | "no_vocab" | "none") {
        return refused(format!(
            "is a `{architecture}` model, which generates no text and embeds none; completions and chat need a causal language model"
        ));
    }
    let encoder = ENCODERS.contains(&architecture.as_str());
    let pooling = model.meta_val_str(&format!("{architecture}.pooling_type")).unwrap_or_default();
    match embed::pooling(&pooling, encoder) {
        Ok(Some(pooling)) => Ok(Purpose::Embed { pooling, encoder }),
        Ok(None) if tokeniser == "bert" => {
            refused(format!("is a `{architecture}` model, which generates no text"))
        }
        Ok(None) => Ok(Purpose::Generate),
        Err(why) => refused(why),
    }
}

/// What the schedule may do with this model.
fn limits(model: &LlamaModel, context: NonZeroU32, options: &Options) -> Limits {
    let running = options.parallel.unwrap_or(DEFAULT_PARALLEL).clamp(1, MAX_PARALLEL);
    let cells = options.cache.unwrap_or(0).clamp(context.get(), super::MAX_CONTEXT);
    Limits {
        cells: cells as usize,
        running: running as usize,
        kept: running.max(MIN_KEPT) as usize,
        batch: BATCH,
        mixed: MIXED,
        share: !model.is_recurrent() && !model.is_hybrid(),
        // One adapter is applied to all that a step computes.
        apart: true,
    }
}

impl Engine for Llama {
    fn card(&self) -> &Card {
        &self.card
    }

    fn tokenise(&self, text: &str, special: Special) -> Vec<Token> {
        // llama.cpp would count the bytes as i32.
        if text.is_empty() || i32::try_from(text.len()).is_err() {
            return Vec::new();
        }
        let tokens = self.model.vocab().tokenize(text.as_bytes(), false, special == Special::Parse);
        tokens.into_iter().map(|token| token.0).collect()
    }

    fn words(&self) -> Option<Words> {
        let vocab = self.model.vocab();
        let mut words = Words { words: Vec::new(), steering: Vec::new(), ends: Vec::new() };
        for token in vocab.tokens() {
            let text = self.piece(token.0);
            let steers = text.is_empty();
            words.words.push(if steers { vocab.token_to_piece(token, true, None) } else { text });
            words.steering.push(steers);
            if vocab.is_eog(token) {
                words.ends.push(token.0);
            }
        }
        Some(words)
    }

    fn serve(&self, queue: &Queue, halt: &Halt, ready: &mut dyn FnMut()) -> Result<(), EngineError> {
        let context = self.new_context()?;
        tracing::debug!(path = self.path, engine = self.card.engine, "the engine is ready");
        ready();
        match self.purpose {
            Purpose::Generate => {
                let mut adapters = self.adapters.lock().unwrap_or_else(PoisonError::into_inner);
                batch::serve(self, context, &mut adapters, queue, halt);
            }
            Purpose::Embed { encoder, .. } => embed::serve(self, context, encoder, queue, halt),
        }
        Ok(())
    }
}

fn card(model: &LlamaModel, context: NonZeroU32, threads: u32, purpose: Purpose) -> Card {
    let vocab = model.vocab();
    let text = |token: LlamaToken| vocab.text(token)?.to_str().ok().map(str::to_owned);
    // Absent tokens are -1.
    let known = |token: LlamaToken| (0..vocab.n_tokens()).contains(&token.0).then_some(token);
    let mut specials = Vec::new();
    let mut longest_token = 1;
    for token in vocab.tokens() {
        let steers = vocab.is_control(token) || vocab.attr(token).contains(LlamaTokenAttr::Unknown);
        let text = text(token).unwrap_or_default();
        longest_token = longest_token.max(text.len());
        if steers && !text.is_empty() {
            specials.push(text);
        }
    }
    // Encoders end a text with what separates two.
    let separator = known(vocab.sep()).filter(|_| vocab.should_add_sep());
    let end = known(vocab.eos()).filter(|_| vocab.should_add_eos()).or(separator);
    Card {
        engine: describe(threads),
        context: context.get(),
        vocabulary: u32::try_from(vocab.n_tokens()).unwrap_or_default(),
        longest_token,
        template: model.chat_template(None).ok().and_then(|template| template.to_string().ok()),
        bos: known(vocab.bos()).and_then(text),
        eos: known(vocab.eos()).and_then(text),
        begin: known(vocab.bos()).filter(|_| vocab.should_add_bos()).map(|token| token.0),
        end: end.map(|token| token.0),
        specials,
        embedding: match purpose {
            Purpose::Generate => None,
            Purpose::Embed { .. } => u32::try_from(model.n_embd_out()).ok(),
        },
    }
}

fn describe(threads: u32) -> String {
    let gpus: Vec<_> = gpus().into_iter().map(|device| device.description).collect();
    if gpus.is_empty() {
        let plural = if threads == 1 { "" } else { "s" };
        format!("{NAME} on CPU, {threads} thread{plural}")
    } else {
        format!("{NAME} on {}", gpus.join(", "))
    }
}

/// The memory of the devices that compute, for Prometheus; nothing where only the CPU does.
pub(crate) fn devices() -> String {
    let mut text = String::new();
    for (number, device) in gpus().into_iter().enumerate() {
        for (name, value) in [("total", device.memory_total), ("free", device.memory_free)] {
            text.push_str(&format!(
                "steelyard_worker_device_memory_{name}_bytes{{device=\"{number}\"}} {value}\n"
            ));
        }
    }
    text
}

fn gpus() -> Vec<llama_cpp_2::LlamaBackendDevice> {
    let is_gpu = |device: &llama_cpp_2::LlamaBackendDevice| {
        matches!(device.device_type, LlamaBackendDeviceType::Gpu | LlamaBackendDeviceType::IntegratedGpu)
    };
    llama_cpp_2::list_llama_ggml_backend_devices().into_iter().filter(is_gpu).collect()
}
