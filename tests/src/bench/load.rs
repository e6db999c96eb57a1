//! What hashing adds to loading: weights are hashed on the way from the disk, by several threads, and an engine gets the very
//! descriptor that was hashed.
//!
//! The floor is the hashing alone: as many threads that read the same bytes in blocks of the same length and hash them, with no
//! descriptor checked, no tree of hashes, nobody told. What the gate takes more than that is what its promises cost.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use inference::engine::{self, Plan, Queue};
use inference::gate;
use inference::halt::Halt;
use registry::Digest;
use registry::admitted::{Admitted, AdmittedFile, Handoff};
use registry::serving::Options;

use super::report::{Bar, Side, Table};
use super::{options, require_space};

/// The gate may take so much more than hashing alone.
const LIMIT: f64 = 1.05;
/// Bytes that the floor reads and hashes at a time.
const BLOCK: u64 = 1 << 20;
/// Each way is measured so often, one after the other in turn; the fastest counts, since other work on the machine only slows.
const ROUNDS: usize = 7;

/// The part of `bench-inference`.
pub fn part(folder: &Path) -> Result<Vec<Bar>, String> {
    let size = options::size("LOAD", 1024);
    require_space(folder, size + (size >> 3));
    let file = generated(folder, size);
    let (mut floor, mut gated) = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        floor = floor.min(seconds(|| hash_alone(&file)));
        gated = gated.min(seconds(|| drop(verified(&[&file]))));
    }
    let mut table = Table::new(&["what", "seconds", "MB/s", "over its floor"]);
    let rate = |size: u64, seconds: f64| format!("{:.0}", size as f64 / 1e6 / seconds);
    let mib = size >> 20;
    table.row(&[&format!("{mib} MiB: hashing alone"), &format!("{floor:.3}"), &rate(size, floor), &"1.000"]);
    table.row(&[
        &format!("{mib} MiB: the gate"),
        &format!("{gated:.3}"),
        &rate(size, gated),
        &format!("{:.3}", gated / floor),
    ]);
    let mut bars = vec![Bar::new("verified-load", gated / floor, Side::AtMost, LIMIT)];
    if let Some(weights) = std::env::var_os("STEELYARD_WEIGHTS") {
        bars.push(real(&mut table, Path::new(&weights))?);
    }
    println!("## Verified loading\n\n{table}");
    fs::remove_file(&file.location).map_err(|error| error.to_string())?;
    Ok(bars)
}

/// A real model: mapped and loaded as it is, its hashing alone, and both as a worker does it.
fn real(table: &mut Table, weights: &Path) -> Result<Bar, String> {
    let file = named(weights, "model.gguf");
    let handoff = handoff(&file);
    let admitted = Admitted::receive(handoff);
    let plan = Plan::for_release(&admitted, None).map_err(|error| error.to_string())?;
    let wanted = plan.files();
    let (mut plain, mut floor, mut whole) = (f64::MAX, f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        // What was verified outside the clock is mapped and loaded within it.
        let files = verified(&wanted);
        plain = plain.min(seconds(|| load(&plan, files)));
        floor = floor.min(seconds(|| hash_alone(&file)));
        whole = whole.min(seconds(|| load(&plan, verified(&wanted))));
    }
    let own = plain + floor;
    for (what, time, over) in [
        ("a real model: mapped and loaded, not hashed", plain, String::new()),
        ("a real model: hashing alone", floor, String::new()),
        ("a real model: hashed, mapped and loaded", whole, format!("{:.3}", whole / own)),
    ] {
        let rate = format!("{:.0}", file.size as f64 / 1e6 / time);
        table.row(&[&what, &format!("{time:.3}"), &rate, &over]);
    }
    Ok(Bar::new("verified-load-model", whole / own, Side::AtMost, LIMIT))
}

fn seconds(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}

fn verified(files: &[&AdmittedFile]) -> Vec<gate::VerifiedFile> {
    gate::open_all(files, &|_| {}, &Halt::default()).expect("the weights are as they were written")
}

/// Loads and lets go again.
fn load(plan: &Plan<'_>, files: Vec<gate::VerifiedFile>) {
    let queue = std::sync::Arc::new(Queue::new(1));
    let running =
        engine::start(plan, files, Options::default(), std::sync::Arc::clone(&queue), Halt::default())
            .expect("the engine loads");
    queue.close(&engine::Failure::Engine("measured".to_owned()));
    running.thread.join().expect("the engine's thread").expect("the engine's end");
}

/// Every thread takes the next block until none is left.
fn hash_alone(file: &AdmittedFile) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (opened, next) = (File::open(&file.location).expect("the weights"), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut block = vec![0; BLOCK as usize];
                loop {
                    let at = next.fetch_add(BLOCK, Ordering::Relaxed);
                    if at >= file.size {
                        return;
                    }
                    let part = &mut block[..BLOCK.min(file.size - at) as usize];
                    opened.read_exact_at(part, at).expect("read");
                    std::hint::black_box(blake3::hash(part));
                }
            });
        }
    });
}

/// Weights that nothing compresses.
fn generated(folder: &Path, size: u64) -> AdmittedFile {
    let path = folder.join("weights");
    let mut out = File::create(&path).expect("a file for the weights");
    let mut noise = blake3::Hasher::new().update(b"weights").finalize_xof();
    let mut block = vec![0; BLOCK as usize];
    for _ in 0..size.div_ceil(BLOCK) {
        noise.fill(&mut block);
        out.write_all(&block).expect("write the weights");
    }
    named(&path, "weights.gguf")
}

fn named(location: &Path, path: &str) -> AdmittedFile {
    let size = location.metadata().expect("the weights").len();
    let blob = registry::digest::blake3_file(File::open(location).expect("the weights")).expect("read");
    AdmittedFile {
        path: path.to_owned(),
        blob,
        size,
        media_type: "application/octet-stream".to_owned(),
        chunk_map: Digest::of(b"no map is needed where nothing is damaged"),
        location: PathBuf::from(location),
    }
}

fn handoff(file: &AdmittedFile) -> Handoff {
    serde_json::from_value(serde_json::json!({
        "release": Digest::of(b"release"), "model": "alba/measured", "version": "1.0.0", "format": "gguf",
        "admitted": "2026-11-01T00:00:00Z", "files": [file],
    }))
    .expect("a hand-off")
}
