//! What it is for: the worker process that serves admitted weights.
//!
//! The node starts [`worker::main`] as a process of its own and talks to it in JSON lines
//! (`registry::serving`). The worker builds walls around itself ([`sealed`]), hashes what the node handed in ([`gate`]),
//! gives the very descriptor that it hashed to an [`engine`], and serves OpenAI's interface ([`openai`]).

pub mod calls;
pub mod direct;
pub mod engine;
pub mod gate;
pub mod halt;
pub mod lease;
pub mod openai;
pub mod prompt;
mod receipts;
mod report;
pub mod sealed;
mod server;
pub mod template;
pub mod text;
pub mod vllm;
pub mod worker;

/// Processors that this process may use, as it was when that was asked first: a sealed worker can't read the files of
/// control groups any more.
pub(crate) fn cores() -> usize {
    static CORES: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

#[cfg(test)]
mod tiny;
