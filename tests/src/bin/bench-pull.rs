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

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use tests::bench::{self, Row, Sample};
use tests::{Daemon, Home, Net, generate, meter};

/// Most memory that a node may have resident while it pulls or serves a model of any size, in MiB.
const MAX_RESIDENT_MIB: u64 = 300;

fn main() -> ExitCode {
    if let Some(code) = bench::run_role() {
        return code;
    }
    let mib = setting("STEELYARD_BENCH_MIB", 4096);
    let runs = usize::try_from(setting("STEELYARD_BENCH_RUNS", 3)).unwrap_or(3).max(1);
    let parent =
        std::env::var_os("STEELYARD_BENCH_DIR").map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from);
    let size = mib << 20;
    // The publisher's blob, one receiver's copy, and what is generated before it is ingested.
    bench::require_space(&parent, size * 2 + size / 8 + (256 << 20));

    let net = Net::under(&parent);
    let model = net.folder("model");
    let file = model.join("model.safetensors");
    eprintln!("generating {mib} MiB");
    generate::safetensors(&file, size, 1).expect("generate the model");
    let size = file.metadata().expect("the model").len();

    let [alba, borea] = net.allies(["alba", "borea"]);
    eprintln!("publishing");
    let publish = Instant::now();
    alba.publish(&model, "bench", "1", &["--releasable-to", "all"]);
    let publish = publish.elapsed().as_secs_f64();
    std::fs::remove_dir_all(&model).expect("remove the original");
    let blob = largest_file(&alba.path.join("store/blobs"));

    let mut rows = Vec::new();
    for run in 0..runs {
        eprintln!("run {} of {runs}", run + 1);
        bench::add(&mut rows, "plain TCP", bench::plain_tcp(&blob, &net.path().join("copy")));
        let (server, sample) = bench::static_http(&blob, &net.path().join("copy"));
        bench::add(&mut rows, server, sample);
        bench::add(&mut rows, "steelyard pull", pull(&alba, &borea, size));
        std::fs::remove_dir_all(&borea.path).expect("remove the puller's folder");
        let fresh = net.nation("borea");
        fresh.trust(&alba);
        alba.ok(&["trust", "rm", "borea"]);
        alba.trust(&fresh);
    }
    report(&rows, size, runs, publish)
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn largest_file(folder: &Path) -> PathBuf {
    let mut found: Option<(u64, PathBuf)> = None;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, size) = (entry.path(), entry.metadata().map_or(0, |meta| meta.len()));
            if path.is_dir() {
                folders.push(path);
            } else if found.as_ref().is_none_or(|(largest, _)| size > *largest) {
                found = Some((size, path));
            }
        }
    }
    found.expect("a blob").1
}

/// One pull between two fresh processes: from the request until the release is admitted.
fn pull(from: &Home, to: &Home, size: u64) -> Sample {
    let (sender, receiver): (Daemon, Daemon) = (from.start(), to.start());
    receiver.connect(&sender);
    meter::reset_peak(sender.pid());
    meter::reset_peak(receiver.pid());
    let before = (meter::cpu_seconds(sender.pid()), meter::cpu_seconds(receiver.pid()));
    let start = Instant::now();
    let done = receiver.pull(&format!("{}/bench", from.nation)).unwrap_or_else(|problem| panic!("{problem}"));
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(done["transfer"]["bytes_done"].as_u64(), Some(size), "{done}");
    let sample = Sample {
        seconds,
        sender_cpu: meter::cpu_seconds(sender.pid()) - before.0,
        receiver_cpu: meter::cpu_seconds(receiver.pid()) - before.1,
        sender_peak: meter::peak_resident(sender.pid()),
        receiver_peak: meter::peak_resident(receiver.pid()),
    };
    receiver.stop();
    sender.stop();
    sample
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
