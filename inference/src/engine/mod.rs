//! Engines behind one trait.
//!
//! An [`Engine`] is weights that are loaded: immutable, shared by all threads. Its computing happens in
//! [`Engine::serve`], on one thread of its own ([`start`]), which takes [`Job`]s from a [`Queue`] and decides
//! itself how many it works on at once: llama.cpp's computes many together (`schedule`). What is common to all engines is
//! here too: how a token is chosen (`sampler`), and what an answer must look like ([`grammar`]).

mod adapter;
pub(crate) mod candle;
pub(crate) mod gpu;
pub mod grammar;
mod job;
mod llama;
mod logs;
mod metrics;
mod plan;
mod queue;
mod sampler;
mod schedule;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use registry::serving::{FailCode, Options};

pub use adapter::{AdapterFiles, Files};
pub use candle::Candle;
use grammar::Words;
use job::Over;
pub use job::{Caller, Done, Event, Failure, Finish, Job, Likelihood, Next, Piece};
pub use llama::Llama;
pub(crate) use llama::{backend, devices};
pub use metrics::Metrics;
pub use plan::{Considered, Explanation, Memory, Plan, Verdict, available_memory, explain};
pub(crate) use plan::{Source, check, estimate, memory_at_start, needs};
pub use queue::{PushError, Queue};

use crate::halt::Halt;

/// A token's number in the model's vocabulary.
pub type Token = i32;

/// Tokens of context when nobody asks for a number and the model could do more: the key-value cache of a
/// large model at its full length would not fit into most machines' memory.
pub const DEFAULT_CONTEXT_LIMIT: u32 = 8192;
/// Most tokens of context that can be asked for: beyond any model of today, below any overflow in an engine.
pub const MAX_CONTEXT: u32 = 1 << 20;
/// Most compute threads that can be asked for; engines on CPU only lose by more.
pub const MAX_THREADS: u32 = 256;

/// Why an engine can't load or can't go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The release is not of a kind that an engine here serves.
    #[error("{0}")]
    Unsupported(String),
    /// The engine refused the weights.
    #[error("{engine} can't load `{path}`: {reason}")]
    Load {
        /// The engine.
        engine: &'static str,
        /// Path in the release.
        path: String,
        /// The engine's own words.
        reason: String,
    },
    /// There is no room for the context.
    #[error(
        "{engine} can't make a context of {context} tokens: {reason}. Ask for a smaller one with `--context`, or free memory"
    )]
    Context {
        /// The engine.
        engine: &'static str,
        /// Tokens asked for.
        context: u32,
        /// The engine's own words.
        reason: String,
    },
    /// It does not fit into this machine.
    #[error(
        "the model needs about {} of memory ({} for the weights, {} for a context of {} tokens, {} for computing), and this \
         machine has {} to give. Ask for a smaller context with `--context`, free memory, or serve a smaller quantisation",
        plan::readable(memory.total()),
        plan::readable(memory.weights),
        plan::readable(memory.cache),
        memory.context,
        plan::readable(memory.working),
        plan::readable(*available)
    )]
    Memory {
        /// What it needs.
        memory: Memory,
        /// Bytes that there are.
        available: u64,
    },
    /// It does not fit into what it may have.
    #[error(
        "the model needs about {} of memory ({} for the weights, {} for a context of {} tokens, {} for computing), and it may \
         have {} at most, by `--memory` or by what its pool has left. Raise that, ask for a smaller context with `--context`, or \
         serve a smaller quantisation",
        plan::readable(memory.total()),
        plan::readable(memory.weights),
        plan::readable(memory.cache),
        memory.context,
        plan::readable(memory.working),
        plan::readable(*limit)
    )]
    Limit {
        /// What it needs.
        memory: Memory,
        /// Bytes that it may have.
        limit: u64,
    },
    /// The engine's thread ended without a word.
    #[error("the engine died; the log above says more")]
    Died,
    /// The worker was told to stop meanwhile.
    #[error("stopped while loading")]
    Halted,
}

impl EngineError {
    /// What the supervisor is told.
    pub fn code(&self) -> FailCode {
        match self {
            Self::Unsupported(_) => FailCode::UnsupportedFormat,
            Self::Memory { .. } | Self::Limit { .. } => FailCode::Memory,
            Self::Load { .. } | Self::Context { .. } | Self::Died | Self::Halted => FailCode::Engine,
        }
    }
}

/// What is known of loaded weights.
#[derive(Debug, Clone)]
pub struct Card {
    /// The engine and what it runs on, for people.
    pub engine: String,
    /// Tokens that prompt and answer may have together.
    pub context: u32,
    /// Tokens in the vocabulary.
    pub vocabulary: u32,
    /// Most bytes of text that one token stands for; `context` times this bounds a prompt before it is
    /// tokenised.
    pub longest_token: usize,
    /// The chat template (Jinja), if the weights carry one.
    pub template: Option<String>,
    /// Text of the token that begins a sequence, if there is one.
    pub bos: Option<String>,
    /// Text of the token that ends a sequence, if there is one.
    pub eos: Option<String>,
    /// The token that must begin each prompt, if the weights say so.
    pub begin: Option<Token>,
    /// The token that must end each prompt, if the weights say so.
    pub end: Option<Token>,
    /// Texts of the tokens that steer the model. In what a user writes they are only text.
    pub specials: Vec<String>,
    /// Numbers of a vector, if the model turns texts into vectors; it generates no text then.
    pub embedding: Option<u32>,
}

/// What a text's special tokens are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Tokens of their own: the text comes from the template, or from a caller who writes the whole prompt.
    Parse,
    /// Only text.
    Literal,
}

/// How tokens are chosen. The fields are OpenAI's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token each time.
    pub temperature: f32,
    /// Only the likeliest tokens that make up this share are chosen from.
    pub top_p: f32,
    /// The same seed, prompt and weights on the same machine give the same answer.
    pub seed: u32,
    /// Makes a token less likely each time it occurred in the answer.
    pub frequency_penalty: f32,
    /// Makes a token less likely once it occurred in the answer.
    pub presence_penalty: f32,
}

impl Sampling {
    /// The likeliest token each time.
    pub const GREEDY: Self =
        Self { temperature: 0.0, top_p: 1.0, seed: 0, frequency_penalty: 0.0, presence_penalty: 0.0 };
}

/// Loaded weights.
pub trait Engine: Send + Sync {
    /// What is known of them.
    fn card(&self) -> &Card;

    /// The tokens of `text`, without those that begin and end a prompt. Any thread may call it. It needs a
    /// deep stack: see [`crate::prompt::TOKENISER_STACK`].
    fn tokenise(&self, text: &str, special: Special) -> Vec<Token>;

    /// The vocabulary's bytes, for answers that are kept to a form; nothing where the engine can't do that.
    fn words(&self) -> Option<Words> {
        None
    }

    /// Answers the queue's jobs until the queue is closed or the worker halts. Called once, on the engine's
    /// own thread. `ready` is called when everything that can fail at the start has succeeded.
    fn serve(&self, queue: &Queue, halt: &Halt, ready: &mut dyn FnMut()) -> Result<(), EngineError>;
}

/// Compute threads: as asked for, else one fewer than the cores, because llama.cpp collapses when something
/// else wants the last one.
pub fn threads(options: &Options) -> u32 {
    let cores = u32::try_from(crate::cores()).unwrap_or(1);
    options.threads.unwrap_or(cores.saturating_sub(1)).clamp(1, MAX_THREADS)
}

/// Tokens of context: as asked for, never more than the model was trained on, where its answers would decay.
fn context(options: &Options, trained: u32) -> NonZeroU32 {
    let wanted = options.context.unwrap_or(DEFAULT_CONTEXT_LIMIT).min(MAX_CONTEXT);
    NonZeroU32::new(wanted.min(trained)).unwrap_or(NonZeroU32::MIN)
}

/// An engine at work on its own thread.
pub struct Running {
    /// The weights.
    pub engine: Arc<dyn Engine>,
    /// Ends when the queue is closed.
    pub thread: JoinHandle<Result<(), EngineError>>,
}

/// Loads verified files and starts the engine's thread; returns when it is ready for jobs. Blocks for as long as loading takes.
pub fn start(
    plan: &Plan<'_>,
    files: impl Into<Files>,
    options: Options,
    queue: Arc<Queue>,
    halt: Halt,
) -> Result<Running, EngineError> {
    let files = files.into();
    let memory = plan::needs(plan, &files, &options)?;
    start_within(plan, files, memory, options, queue, halt)
}

/// The same where it was reckoned already what `memory` the files need.
pub(crate) fn start_within(
    plan: &Plan<'_>,
    files: Files,
    memory: Memory,
    options: Options,
    queue: Arc<Queue>,
    halt: Halt,
) -> Result<Running, EngineError> {
    plan::check(memory, &options, plan.memory_from(memory_at_start()))?;
    let engine = plan.engine();
    let load = plan.loader();
    let (ready, loaded) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            let _close = CloseOnExit(Arc::clone(&queue), halt.clone());
            let engine = load(files, &options, &halt)?;
            engine.serve(&queue, &halt, &mut || {
                // Nobody waits any more if the worker gave up; the halt ends this thread then.
                let _ = ready.send(Arc::clone(&engine));
            })
        })
        .map_err(|error| EngineError::Load { engine, path: String::new(), reason: error.to_string() })?;
    match loaded.recv() {
        Ok(engine) => Ok(Running { engine, thread }),
        // The sender was dropped before it was ready: the thread has ended or is about to.
        Err(mpsc::RecvError) => Err(match thread.join() {
            Ok(Err(error)) => error,
            Ok(Ok(())) => EngineError::Halted,
            Err(_) => EngineError::Died,
        }),
    }
}

/// An engine that ends, even by a panic, leaves nobody waiting.
struct CloseOnExit(Arc<Queue>, Halt);

impl Drop for CloseOnExit {
    fn drop(&mut self) {
        let failure =
            self.1.cause().map_or_else(|| Failure::Engine("the engine ended".to_owned()), Failure::Halted);
        self.0.close(&failure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_and_threads_stay_in_bounds() {
        let with = |context, threads| Options { context, threads, ..Options::default() };
        assert_eq!(context(&with(None, None), 131_072).get(), DEFAULT_CONTEXT_LIMIT);
        assert_eq!(context(&with(Some(u32::MAX), None), u32::MAX).get(), MAX_CONTEXT);
        assert_eq!(context(&with(Some(4096), None), 2048).get(), 2048);
        assert_eq!(context(&with(Some(0), None), 2048).get(), 1);
        assert_eq!(threads(&with(None, Some(0))), 1);
        assert_eq!(threads(&with(None, Some(u32::MAX))), MAX_THREADS);
        assert!(threads(&with(None, None)) >= 1);
    }
}
