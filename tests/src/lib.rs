//! The harness of the whole-system tests: real nations, real processes of the real binary, real sockets.
//!
//! ```text
//! Net       a temporary folder in which nations live; everything is stopped and removed when it goes
//! Home      one nation's data folder: runs commands of `steelyard` on it
//! Daemon    a running `steelyard node`, in its own process group, killed on drop
//! http      a client for the Unix socket and for TCP, with server-sent events
//! netns     namespaces on a public segment, some behind routers that translate addresses
//! example   what a program does with the client, as the documentation shows it
//! craft     nations that no command would make
//! hub       the stock clients of the Hugging Face Hub
//! issuer    an issuer of OpenID Connect that lies on demand
//! hostile   a libp2p peer that misbehaves on the wire
//! generate  files of weights of any size, and header bombs
//! meter     CPU time and memory of processes
//! standin   an HTTP server that says what it is told to
//! bench     samples, their table, and the yardsticks to compare with
//! ```
//!
//! Nothing here sleeps for luck: [`wait::until`] polls a condition up to a limit and says what it waited for.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod bench;
pub mod binary;
pub mod containers;
pub mod craft;
pub mod example;
pub mod generate;
pub mod hostile;
pub mod http;
pub mod hub;
pub mod issuer;
pub mod meter;
pub mod net;
pub mod netns;
pub mod python;
pub mod standin;
/// The smallest model that can be served, as the worker's own tests use it.
#[path = "../../inference/src/tiny.rs"]
#[allow(dead_code, missing_docs)]
mod tiny;
pub mod wait;

pub use http::{Http, Reply};
pub use net::{Daemon, Home, Net, Run};
pub use wait::until;
