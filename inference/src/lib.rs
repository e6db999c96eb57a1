//! What it is for: the worker process that serves admitted weights.
//!
//! The node starts [`worker::main`] as a process of its own and talks to it in JSON lines
//! (`registry::serving`). The worker opens only what was admitted, hashes it again ([`gate`]), gives the very
//! descriptor that it hashed to an [`engine`], and serves OpenAI's interface ([`openai`]).

pub mod calls;
pub mod direct;
pub mod engine;
pub mod gate;
pub mod halt;
pub mod lease;
pub mod openai;
pub mod prompt;
mod report;
mod server;
pub mod template;
pub mod text;
pub mod worker;

#[cfg(test)]
mod tiny;
