//! The store and what stands on it, through its public interface and on real files.
#![cfg(feature = "store")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admission;
mod audiences;
mod bundles;
mod carried;
mod collecting;
mod crashes;
mod dedup;
mod doors;
mod help;
mod lifecycle;
mod log_faults;
mod log_forks;
mod log_limits;
mod logs;
mod mirroring;
mod partials;
mod proofs;
mod publishing;
mod rereading;
mod rotation;
mod statements;
