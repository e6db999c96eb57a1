//! `make bench-inference`: what serving costs.
//!
//! ```text
//! bench-inference [PART…]         all parts without an argument
//!
//!   load       verified loading over hashing's own floor, and a real model's load with and without it
//!   cold-start a model that is not here, over a narrow link: to the first token, beside the transfer alone
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

use std::path::Path;
use std::process::ExitCode;

use tests::bench::{cold_start, guard, load, options, report::Bar, throughput};

/// A part that could not run, or no part has that name.
const NOT_RUN: u8 = 2;

type Part = fn(&Path) -> Result<Vec<Bar>, String>;
const PARTS: &[(&str, Part)] =
    &[("load", load::part), ("cold-start", cold_start::part), ("throughput", throughput::part)];

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = asked.iter().find(|name| PARTS.iter().all(|(part, _)| part != name)) {
        let known: Vec<_> = PARTS.iter().map(|(part, _)| *part).collect();
        eprintln!("bench-inference has no part `{unknown}`; it has {}", known.join(", "));
        return ExitCode::from(NOT_RUN);
    }
    let folder = match guard::supervised(&options::folder()) {
        Ok(folder) => folder,
        Err(code) => return code,
    };
    let mut bars = Vec::new();
    let mut failed = false;
    for (name, part) in PARTS {
        if !asked.is_empty() && asked.iter().all(|asked| asked != name) {
            continue;
        }
        match part(&folder) {
            Ok(found) => bars.extend(found),
            Err(why) => {
                println!("{name} failed: {why}\n");
                failed = true;
            }
        }
    }
    let short = bars.iter().any(|bar| !bar.is_kept());
    bars.iter().for_each(|bar| println!("{bar}"));
    match (failed, short) {
        (true, _) => ExitCode::from(NOT_RUN),
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::SUCCESS,
    }
}
