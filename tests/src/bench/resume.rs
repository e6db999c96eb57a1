//! What is fetched twice after the puller was killed, and what a peer with rotten bytes costs.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::options;
use super::pull::largest_file;
use super::report::{Bar, Side, Table};
use crate::http::Events;
use crate::wait::within;
use crate::{Daemon, Home, Net, generate};

/// The puller is killed when it has so much of the whole, in each life once.
const KILLS: [f64; 3] = [0.25, 0.5, 0.75];
/// What may be fetched again after one kill, in percent of the whole.
const MOST_AGAIN: f64 = 1.0;
/// Chunks that a peer with rotten bytes may cost.
const MOST_ROTTEN: f64 = 1.0;
/// No pull here takes longer.
const LIMIT: Duration = Duration::from_secs(300);
/// Every so many bytes one is flipped: more often than any chunk is long.
const ROT: u64 = 32 << 10;

/// Runs it in `folder`.
///
/// # Errors
/// Nothing that a machine may lack; other parts do.
pub fn run(folder: &Path) -> Result<Vec<Bar>, String> {
    let size = options::size("RESUME", 1024);
    let mut bars = killed(folder, size);
    bars.extend(rotten(folder, size / 8));
    Ok(bars)
}

fn publish(net: &Net, home: &Home, size: u64) -> u64 {
    let model = net.folder("model");
    let file = model.join("model.safetensors");
    generate::safetensors(&file, size, 3).expect("generate the model");
    let size = file.metadata().expect("the model").len();
    home.publish(&model, "model", "1", &["--releasable-to", "all"]);
    fs::remove_dir_all(model).expect("remove the original");
    size
}

fn begin(node: &Daemon) -> Events {
    node.http.events("POST", "/v1/pull", Some(&json!({ "reference": "alba/model" })))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// Content bytes that the node has received from its peers since it started.
fn received(node: &Daemon) -> u64 {
    let peers = node.http.get("/v1/peers");
    peers.as_array().into_iter().flatten().map(|peer| number(&peer["received_bytes"])).sum()
}

fn newest(node: &Daemon) -> Option<Value> {
    let transfers = node.http.get("/v1/transfers");
    transfers.as_array()?.iter().max_by_key(|transfer| transfer["id"].as_u64()).cloned()
}

/// Waits until the transfer has fetched so many bytes in all; answers what it had when it began, and what it received since.
/// The answer is as old as the last request: the kill comes right after it.
fn watch(node: &Daemon, bytes: f64) -> (u64, u64) {
    within(LIMIT, "a transfer in its middle", || {
        let transfer = newest(node).filter(|transfer| transfer["state"] == "fetching")?;
        let resumed = number(&transfer["bytes_resumed"]);
        let done = transfer["bytes_done"].as_u64()?;
        (done as f64 >= bytes).then(|| (resumed, received(node)))
    })
}

fn killed(folder: &Path, size: u64) -> Vec<Bar> {
    eprintln!("resume: {} MiB, killed {} times", size >> 20, KILLS.len());
    let net = Net::under(folder);
    let [alba, borea] = net.allies(["alba", "borea"]);
    let size = publish(&net, &alba, size);
    let a = alba.start();
    let head = [
        "killed at",
        "had before, MiB",
        "received, MiB",
        "had again, MiB",
        "fetched again, MiB",
        "% of the whole",
        "s to resume",
    ];
    let mut table = Table::new(&head);
    let mut worst = f64::NEG_INFINITY;
    let mut last: Option<(f64, u64, u64)> = None;
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    for at in KILLS.map(Some).into_iter().chain([None]) {
        let start = Instant::now();
        let b = borea.start();
        b.connect(&a);
        let pull = begin(&b);
        // How much was there again when this life's transfer began.
        let first = within(LIMIT, "the transfer to begin", || {
            // What was written without a sync is hashed first; nothing counts as here before that.
            newest(&b).filter(|transfer| transfer["bytes_done"].as_u64().is_some_and(|done| done > 0))
        });
        let resumed = number(&first["bytes_resumed"]);
        if let Some((killed, had, got)) = last {
            let again = (had + got).saturating_sub(resumed);
            let percent = again as f64 / size as f64 * 100.0;
            worst = worst.max(percent);
            let took = format!("{:.2}", start.elapsed().as_secs_f64());
            let killed = format!("{:.0}%", killed * 100.0);
            table.row(&[
                &killed,
                &mib(had),
                &mib(got),
                &mib(resumed),
                &mib(again),
                &format!("{percent:.2}"),
                &took,
            ]);
        }
        match at {
            Some(at) => {
                let (had, got) = watch(&b, at * size as f64);
                b.kill();
                drop(pull);
                last = Some((at, had, got));
            }
            None => {
                let done = pull.outcome(LIMIT).unwrap_or_else(|problem| panic!("{problem}"));
                assert_eq!(done["transfer"]["bytes_done"], done["transfer"]["bytes_total"], "{done}");
            }
        }
    }
    println!("### Resume\n");
    println!("{} MiB over loopback; the puller is killed (SIGKILL) and started again.\n", size >> 20);
    println!("{table}");
    vec![Bar::new("resume-refetch-percent", worst, Side::AtMost, MOST_AGAIN)]
}

fn rotten(folder: &Path, size: u64) -> Vec<Bar> {
    eprintln!("resume: a peer with rotten bytes");
    let net = Net::under(folder);
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    let size = publish(&net, &alba, size);
    let (a, b) = (alba.start(), borea.start());
    b.connect(&a);
    b.pull("alba/model").unwrap_or_else(|problem| panic!("{problem}"));
    let liar = b.peer_id();
    b.stop();
    rot(&largest_file(&borea.path.join("store/blobs")));
    let (b, c) = (borea.start(), cora.start());
    c.connect(&b);
    c.connect(&a);
    let before = received(&c);
    let done = c.pull("alba/model").unwrap_or_else(|problem| panic!("{problem}"));
    let transfer = &done["transfer"];
    let wasted = received(&c).max(size + before) - size - before;
    let shares = transfer["peers"].as_array().cloned().unwrap_or_default();
    let share = shares.iter().find(|share| share["peer_id"] == *liar);
    let bad = share.map_or(f64::NAN, |share| number(&share["bad_chunks"]) as f64);
    let banned = share.is_some_and(|share| share["banned"] == true);
    let mut table = Table::new(&[
        "bad chunks taken from it",
        "banned",
        "good bytes of it kept",
        "received beyond the model, MiB",
    ]);
    let kept = share.map_or(0, |share| number(&share["bytes"]));
    table.row(&[
        &bad,
        &if banned { "yes" } else { "no" },
        &kept,
        &format!("{:.1}", wasted as f64 / f64::from(1 << 20)),
    ]);
    println!("### A peer with rotten bytes\n");
    println!("{} MiB from two peers, of which one has a wrong byte in every chunk.\n", size >> 20);
    println!("{table}");
    cora.ok(&["verify", "alba/model"]);
    vec![
        Bar::new("corrupt-chunks", bad, Side::AtMost, MOST_ROTTEN),
        Bar::new("corrupt-peer-banned", f64::from(u8::from(banned)), Side::AtLeast, 1.0),
    ]
}

fn rot(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("make the blob writable");
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("open the blob");
    let size = file.metadata().expect("the blob").len();
    for at in (0..size).step_by(usize::try_from(ROT).unwrap_or(usize::MAX)) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("read a byte");
        file.write_all_at(&[byte[0] ^ 0x40], at).expect("flip a bit");
    }
}
