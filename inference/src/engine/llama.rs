//! llama.cpp, embedded: GGUF on CPU, and on CUDA where the feature `cuda` is built.
//!
//! `new_context` of the wrapper crate is unsound when it is called concurrently; here only the engine's own
//! thread calls it. One job is computed at a time, in the order in which they came.

use std::num::NonZeroU32;
use std::sync::OnceLock;

use llama_cpp_2::LlamaBackendDeviceType;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token_type::LlamaTokenAttr;
use llama_cpp_2::vocab::LlamaVocab;
use registry::format::gguf;
use registry::serving::Options;

use super::{Card, Engine, EngineError, Failure, Finish, Job, Next, Queue, Sampling, Special, Token, logs};
use crate::gate::VerifiedFile;
use crate::halt::Halt;

/// The engine's name.
pub(super) const NAME: &str = "llama.cpp";
/// Prompt tokens computed in one go; between two goes a cancel is noticed. It is llama.cpp's own default,
/// because another number rounds otherwise, and answers would differ from those of llama.cpp itself.
pub(super) const BATCH: usize = 512;
/// Below this a temperature is taken as 0: dividing by it would only overflow.
const GREEDY_BELOW: f32 = 1e-4;
/// The sampler's number that means "any seed".
const ANY_SEED: u32 = u32::MAX;
/// The only sequence in the context.
const SEQUENCE: i32 = 0;

/// Architectures in GGUF files that generate no text token by token; llama.cpp would abort on them later.
const NOT_GENERATIVE: [&str; 14] = [
    "bert",
    "modern-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "neo-bert",
    "jina-bert-v2",
    "jina-bert-v3",
    "eurobert",
    "gemma-embedding",
    "t5",
    "t5encoder",
    "clip",
    "wavtokenizer-dec",
    "mmproj",
];

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
    card: Card,
    context: NonZeroU32,
    threads: i32,
    path: String,
    /// Keeps the descriptor whose bytes are mapped.
    _weights: VerifiedFile,
}

impl Llama {
    /// Loads one GGUF file.
    pub fn load(files: Vec<VerifiedFile>, options: &Options, halt: &Halt) -> Result<Self, EngineError> {
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
        let model = match loaded {
            Ok(model) => model,
            Err(_) if halt.is_set() => return Err(EngineError::Halted),
            // Its words name the file as it knows it.
            Err(_) => {
                let path = weights.engine_path();
                return Err(refused(complaints.replace(&*path.to_string_lossy(), weights.path())));
            }
        };
        let architecture = model.meta_val_str("general.architecture").unwrap_or_default();
        let tokeniser = model.meta_val_str("tokenizer.ggml.model").unwrap_or_default();
        if NOT_GENERATIVE.contains(&architecture.as_str())
            || matches!(tokeniser.as_str(), "" | "no_vocab" | "none" | "bert")
        {
            return Err(EngineError::Unsupported(format!(
                "`{}` is a `{architecture}` model, which generates no text; completions and chat need a causal language model",
                weights.path(),
            )));
        }
        let context = super::context(options, model.n_ctx_train());
        let threads = super::threads(options);
        let card = card(&model, context, threads);
        let path = weights.path().to_owned();
        Ok(Self {
            model,
            card,
            context,
            threads: i32::try_from(threads).unwrap_or(1),
            path,
            _weights: weights,
        })
    }

    fn new_context(&self) -> Result<LlamaContext<'_>, EngineError> {
        let params = LlamaContextParams::default()
            .with_n_ctx(Some(self.context))
            .with_n_batch(BATCH as u32)
            .with_n_ubatch(BATCH as u32)
            .with_n_threads(self.threads)
            .with_n_threads_batch(self.threads);
        let (context, complaints) = logs::caught(|| self.model.new_context(backend(), params));
        context.map_err(|_| EngineError::Context {
            engine: NAME,
            context: self.context.get(),
            reason: complaints,
        })
    }

    /// Computes one job to its end, whichever that is.
    fn answer(&self, context: &mut LlamaContext<'_>, mut job: Job, halt: &Halt) {
        match self.generate(context, &mut job, halt) {
            Ok(Some(finish)) => job.finish(finish),
            Ok(None) => {}
            Err(failure) => job.fail(failure),
        }
    }

    /// `None` when nobody listens any more.
    fn generate(
        &self,
        context: &mut LlamaContext<'_>,
        job: &mut Job,
        halt: &Halt,
    ) -> Result<Option<Finish>, Failure> {
        // Positions are forgotten; what the last request left in the cache's memory is never read again.
        // Models with a recurrent state have nothing to forget piece by piece.
        if !matches!(context.clear_kv_cache_seq(None, None, None), Ok(true)) {
            context.clear_kv_cache();
        }
        let vocab = self.model.vocab();
        let mut batch = LlamaBatch::new(BATCH, 1);
        let last = job.prompt.len().saturating_sub(1);
        let mut position = 0;
        for (index, part) in job.prompt.chunks(BATCH).enumerate() {
            if job.is_cancelled() {
                return Ok(None);
            }
            batch.clear();
            for (offset, token) in part.iter().enumerate() {
                let is_last = index * BATCH + offset == last;
                add(&mut batch, LlamaToken(*token), position, is_last)?;
                position += 1;
            }
            decode(context, &mut batch, halt)?;
        }
        let mut sampler = sampler(&vocab, &job.sampling, self.context.get());
        let mut piece = Vec::new();
        loop {
            let token = sampler.sample(context, -1);
            if vocab.is_eog(token) {
                return Ok(Some(Finish::Stop));
            }
            piece.clear();
            vocab.token_to_piece_into(token, &mut piece, false, None);
            match job.token(&piece) {
                Next::Continue => {}
                Next::Finished(finish) => return Ok(Some(finish)),
                Next::Cancelled => return Ok(None),
            }
            if u32::try_from(position).is_ok_and(|position| position >= self.context.get()) {
                return Ok(Some(Finish::Length));
            }
            batch.clear();
            add(&mut batch, token, position, true)?;
            position += 1;
            decode(context, &mut batch, halt)?;
        }
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

    fn serve(&self, queue: &Queue, halt: &Halt, ready: &mut dyn FnMut()) -> Result<(), EngineError> {
        let mut context = self.new_context()?;
        tracing::debug!(path = self.path, engine = self.card.engine, "the engine is ready");
        ready();
        while let Some(job) = queue.pop() {
            let ((), _) = logs::caught(|| self.answer(&mut context, job, halt));
        }
        Ok(())
    }
}

fn add(batch: &mut LlamaBatch<'_>, token: LlamaToken, position: i32, logits: bool) -> Result<(), Failure> {
    batch
        .add(token, position, &[SEQUENCE], logits)
        .map_err(|error| Failure::Engine(format!("llama.cpp's batch is full: {error}")))
}

fn decode(context: &mut LlamaContext<'_>, batch: &mut LlamaBatch<'_>, halt: &Halt) -> Result<(), Failure> {
    if let Some(cause) = halt.cause() {
        return Err(Failure::Halted(cause));
    }
    context.decode(batch).map_err(|error| Failure::Engine(format!("llama.cpp could not go on: {error}")))
}

/// Temperature before nucleus, as OpenAI's and vLLM's `top_p` mean it.
fn sampler(vocab: &LlamaVocab<'_>, sampling: &Sampling, context: u32) -> LlamaSampler {
    let mut chain = Vec::with_capacity(4);
    if sampling.frequency_penalty != 0.0 || sampling.presence_penalty != 0.0 {
        // Over the whole answer, which the context bounds; 1.0 is no penalty on repetition as such.
        let window = i32::try_from(context).unwrap_or(i32::MAX);
        let (frequency, presence) = (sampling.frequency_penalty, sampling.presence_penalty);
        chain.push(LlamaSampler::penalties(vocab.n_tokens(), window, 1.0, frequency, presence));
    }
    if sampling.temperature < GREEDY_BELOW {
        chain.push(LlamaSampler::greedy());
    } else {
        chain.push(LlamaSampler::temp(sampling.temperature));
        if sampling.top_p < 1.0 {
            chain.push(LlamaSampler::top_p(sampling.top_p, 1));
        }
        let seed = if sampling.seed == ANY_SEED { ANY_SEED - 1 } else { sampling.seed };
        chain.push(LlamaSampler::dist(seed));
    }
    LlamaSampler::chain(chain, true)
}

fn card(model: &LlamaModel, context: NonZeroU32, threads: u32) -> Card {
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
    Card {
        engine: describe(threads),
        context: context.get(),
        vocabulary: u32::try_from(vocab.n_tokens()).unwrap_or_default(),
        longest_token,
        template: model.chat_template(None).ok().and_then(|template| template.to_string().ok()),
        bos: known(vocab.bos()).and_then(text),
        eos: known(vocab.eos()).and_then(text),
        begin: known(vocab.bos()).filter(|_| vocab.should_add_bos()).map(|token| token.0),
        end: known(vocab.eos()).filter(|_| vocab.should_add_eos()).map(|token| token.0),
        specials,
    }
}

fn describe(threads: u32) -> String {
    let gpus: Vec<_> = llama_cpp_2::list_llama_ggml_backend_devices()
        .into_iter()
        .filter(|device| {
            matches!(device.device_type, LlamaBackendDeviceType::Gpu | LlamaBackendDeviceType::IntegratedGpu)
        })
        .map(|device| device.description)
        .collect();
    if gpus.is_empty() {
        let plural = if threads == 1 { "" } else { "s" };
        format!("{NAME} on CPU, {threads} thread{plural}")
    } else {
        format!("{NAME} on {}", gpus.join(", "))
    }
}
