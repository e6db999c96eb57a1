//! `make bench-pull`: pulls a generated model between two local nodes, beside plain TCP and a static HTTP server in the
//! same run. All files lie on tmpfs, so that the disk is not what is measured.
//!
//! ```text
//! STEELYARD_BENCH_MIB    size of the model (4096)
//! STEELYARD_BENCH_RUNS   runs of each row; the median is shown (3)
//! STEELYARD_BENCH_DIR    where the files lie (/dev/shm)
//! ```
//!
//! It ends with lines `bar NAME VALUE LIMIT ok|short` and with exit 1 when one is short.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::ExitCode;

use tests::Net;
use tests::bench::pull::Pair;
use tests::bench::{self, Row, options};

/// Most memory that a node may have resident while it pulls or serves a model of any size, in MiB.
const MAX_RESIDENT_MIB: u64 = 300;

fn main() -> ExitCode {
    if let Some(code) = bench::run_role() {
        return code;
    }
    let mib = options::number("STEELYARD_BENCH_MIB", 4096);
    let runs = usize::try_from(options::number("STEELYARD_BENCH_RUNS", 3)).unwrap_or(3).max(1);
    let parent = options::folder();
    let size = mib << 20;
    // The publisher's blob, one receiver's copy, and what is generated before it is ingested.
    bench::require_space(&parent, size * 2 + size / 8 + (256 << 20));

    let net = Net::under(&parent);
    eprintln!("generating and publishing {mib} MiB");
    let mut pair = Pair::new(&net, size);

    let mut rows = Vec::new();
    for run in 0..runs {
        eprintln!("run {} of {runs}", run + 1);
        bench::add(&mut rows, "plain TCP", bench::plain_tcp(&pair.blob, &net.path().join("copy")));
        let (server, sample) = bench::static_http(&pair.blob, &net.path().join("copy"));
        bench::add(&mut rows, server, sample);
        bench::add(&mut rows, "steelyard pull", pair.pull());
        pair.forget(&net);
    }
    report(&rows, pair.size, runs, pair.published)
}

fn report(rows: &[Row], size: u64, runs: usize, publish: f64) -> ExitCode {
    let mib = size as f64 / f64::from(1 << 20);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{mib:.0} MiB, {cores} cores, median of {runs} runs (fastest to slowest in brackets)");
    println!();
    println!("| how | MB/s | CPU-s/GiB, both ends | sender | receiver | peak RSS sender, MiB | receiver |");
    println!("|---|---|---|---|---|---|---|");
    for row in rows {
        println!("{}", row.line(size));
    }
    println!();
    println!("publish (read, hash, cut, copy): {:.0} MB/s", size as f64 / 1e6 / publish);
    println!();
    let pull = rows.iter().find(|row| row.name == "steelyard pull").expect("the pull's row");
    let bars = [
        ("pull-rss-mib", pull.samples.iter().map(|s| s.receiver_peak).max().unwrap_or(0) >> 20),
        ("serve-rss-mib", pull.samples.iter().map(|s| s.sender_peak).max().unwrap_or(0) >> 20),
    ];
    let mut short = false;
    for (name, value) in bars {
        let fits = value > 0 && value <= MAX_RESIDENT_MIB;
        short |= !fits;
        println!("bar {name} {value} {MAX_RESIDENT_MIB} {}", if fits { "ok" } else { "short" });
    }
    if short { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
