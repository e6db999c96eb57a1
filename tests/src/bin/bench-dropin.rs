//! `make bench-dropin`: what the hub interface costs its clients and the node.
//!
//! ```text
//! bench-dropin [PART…]            all parts without an argument
//!
//!   cold        heads and first bytes of models that are not here, over a capped link
//!   throughput  one file to one client, beside nginx by turns
//!   clients     many clients that read one file at once
//!
//! STEELYARD_BENCH_MODELS          how many models are asked for cold (100)
//! STEELYARD_BENCH_DROPIN_MIB      the large file (4096)
//! STEELYARD_BENCH_RUNS            runs beside nginx (5)
//! STEELYARD_BENCH_CLIENTS         how many clients at once (200)
//! STEELYARD_BENCH_DIR             where the nodes' folders lie (/dev/shm)
//! ```
//!
//! It ends with lines `bar NAME VALUE LIMIT ok|short` and with exit 1 when one is short.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::ExitCode;

use tests::bench::{dropin, guard, options, report::Bar};

/// A part that could not run, or no part has that name.
const NOT_RUN: u8 = 2;

type Part = fn(&Path) -> Result<Vec<Bar>, String>;
const PARTS: &[(&str, Part)] =
    &[("cold", dropin::cold), ("throughput", dropin::throughput), ("clients", dropin::clients)];

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = asked.iter().find(|name| PARTS.iter().all(|(part, _)| part != name)) {
        let known: Vec<_> = PARTS.iter().map(|(part, _)| *part).collect();
        eprintln!("bench-dropin has no part `{unknown}`; it has {}", known.join(", "));
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
