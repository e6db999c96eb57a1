//! `make bench-transfer`: what moving weights costs, beside real peers in the same run.
//!
//! ```text
//! bench-transfer [PART…]          all parts without an argument
//!
//!   swarm      1 seed and 3, 7, 15 leechers, 100 Mbit/s up each: makespan and what the seed sent   (128 MiB; root)
//!   providers  one blob from 1 to 4 providers, 50 Mbit/s up each: times faster than from one      (128 MiB; root)
//!   cpu        CPU-seconds per GiB over loopback, verified, both ends                            (2048 MiB)
//!   resume     what is fetched again after SIGKILL; what a peer with rotten bytes costs          (1024 MiB)
//!   memory     what is resident while one node serves four at once from a disk                   (4096 MiB each)
//!   growth     1 to 1000 releases in the store; 4 to 64 peers
//!
//! STEELYARD_BENCH_MIB             size of every part, in MiB; each part has its own default
//! STEELYARD_BENCH_<PART>_MIB      size of one part
//! STEELYARD_BENCH_PEERS=0         steelyard alone
//! STEELYARD_BENCH_DIR             where the files lie (/dev/shm)
//! STEELYARD_BENCH_DISK            where the blobs of `memory` lie (/var/tmp)
//! STEELYARD_BENCH_SWARM           leechers of each swarm ("3 7 15")
//! STEELYARD_BENCH_RUNS            runs of each row of `cpu`; the median is shown (3)
//! STEELYARD_BENCH_RELEASES        how many releases (1 10 100 1000)
//! STEELYARD_BENCH_NODES           how many peers (4 16 64)
//! STEELYARD_BENCH_IROH            the program that tests/peers/iroh builds
//! STEELYARD_BENCH_PYTHON          a Python that has libtorrent 2
//! ```
//!
//! It ends with lines `bar NAME VALUE LIMIT ok|short` and with exit 1 when one is short. A part that the machine can't run
//! (network namespaces need root) is told and left out; asked for by name, it is a failure with exit 2.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::ExitCode;

use tests::bench::parts::{self, CannotRun, Part};
use tests::bench::{self, cpu, growth, memory, providers, resume, swarm};

const PARTS: &[(&str, Part)] = &[
    ("swarm", swarm::run),
    ("providers", providers::run),
    ("cpu", cpu::run),
    ("resume", resume::run),
    ("memory", memory::run),
    ("growth", growth::run),
];

fn main() -> ExitCode {
    if let Some(code) = bench::run_role() {
        return code;
    }
    let asked: Vec<String> = std::env::args().skip(1).collect();
    parts::run("bench-transfer", PARTS, &asked, CannotRun::IsLeftOut)
}
