//! `make bench-trust`: how soon a bad model stops everywhere, and what trust costs.
//!
//! ```text
//! bench-trust [PART…]             all parts without an argument
//!
//!   recall     ten nodes of four nations, each with a worker: from the recall to the last worker gone, p99
//!   lease      a node that is cut off: from the end of its lease to its worker gone
//!   admission  releases a second, with full evidence, beside python tuf
//!
//! STEELYARD_BENCH_RECALLS         how many recalls (100)
//! STEELYARD_BENCH_LEASES          how many partitions (10)
//! STEELYARD_BENCH_ADMISSIONS      how many releases (1000)
//! STEELYARD_BENCH_TUF             a Python that has tuf, for the row beside ours
//! STEELYARD_BENCH_DIR             where the nodes' folders lie (/dev/shm)
//! ```
//!
//! It ends with lines `bar NAME VALUE LIMIT ok|short` and with exit 1 when one is short.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::ExitCode;

use tests::bench::parts::{self, CannotRun, Part};
use tests::bench::{admission, trust};

const PARTS: &[(&str, Part)] =
    &[("recall", trust::recalls), ("lease", trust::leases), ("admission", admission::part)];

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if let [admission::ADMIT, home] = &asked.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        println!("{}", serde_json::to_string(&admission::admit_all(Path::new(home))).unwrap());
        return ExitCode::SUCCESS;
    }
    parts::run("bench-trust", PARTS, &asked, CannotRun::Fails)
}
