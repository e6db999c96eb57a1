//! `make bench-inference`: what serving costs.
//!
//! ```text
//! bench-inference [PART…]         all parts without an argument
//!
//!   adapters   answers with adapters beside answers without, several at once
//!   load       verified loading over hashing's own floor, and a real model's load with and without it
//!   cold-start a model that is not here, over a narrow link: to the first token, beside the transfer alone
//!   pool       a pool's front beside the worker itself, and a model loaded in another's place beside a start
//!   throughput tokens a second at 1, 4 and 16 requests, beside the engine alone
//!
//! STEELYARD_BENCH_ROUNDS          how often each is measured (3); TOKENS and WORDS: how long answers and prompts are
//! STEELYARD_BENCH_LOAD_MIB        how large the generated weights are (1024)
//! STEELYARD_BENCH_DIR             where they lie (/dev/shm)
//! STEELYARD_BENCH_RATE            bytes a second of the narrow link (5000000)
//! STEELYARD_WEIGHTS               a real GGUF file, for the rows that load one
//! ```
//!
//! It ends with lines `bar NAME VALUE LIMIT ok|short` and with exit 1 when one is short.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::ExitCode;

use tests::bench::parts::{self, CannotRun, Part};
use tests::bench::{adapters, cold_start, load, pool, throughput};

const PARTS: &[(&str, Part)] = &[
    ("adapters", adapters::part),
    ("load", load::part),
    ("cold-start", cold_start::part),
    ("pool", pool::part),
    ("throughput", throughput::part),
];

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    parts::run("bench-inference", PARTS, &asked, CannotRun::Fails)
}
