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

use std::process::ExitCode;

use tests::bench::dropin;
use tests::bench::parts::{self, CannotRun, Part};

const PARTS: &[(&str, Part)] =
    &[("cold", dropin::cold), ("throughput", dropin::throughput), ("clients", dropin::clients)];

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    parts::run("bench-dropin", PARTS, &asked, CannotRun::Fails)
}
