//! Faults: a source dies, the puller dies, bytes rot, garbage is collected meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tests::http::Events;
use tests::net::Settings;
use tests::{Daemon, Home, Net, generate, until, wait};

/// Large enough that a transfer can be caught in the middle.
const SIZE: u64 = 512 << 20;
/// What a killed puller may fetch again: the bytes since its journal was last written, and what was on its way.
const REFETCHED: u64 = 96 << 20;
/// A transfer of [`SIZE`] on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// alba has published a model of `size` bytes as `alba/big`.
fn publish(net: &Net, alba: &Home, size: u64) {
    let folder = net.folder("big");
    generate::safetensors(&folder.join("model.safetensors"), size, 7).unwrap();
    alba.publish(&folder, "big", "1", &["--releasable-to", "all"]);
    fs::remove_dir_all(folder).unwrap();
}

fn begin(node: &Daemon) -> Events {
    node.http.events("POST", "/v1/pull", Some(&json!({ "reference": "alba/big" })))
}

/// Waits until the newest transfer has between a fifth and four fifths of its bytes; answers how many.
fn midway(node: &Daemon) -> u64 {
    wait::within(LIMIT, "a transfer in its middle", || {
        let transfers = node.http.get("/v1/transfers");
        let transfer = transfers.as_array()?.iter().find(|t| t["state"] == "fetching")?;
        let done = transfer["bytes_done"].as_u64()?;
        (done > SIZE / 5).then_some(done)
    })
}

fn shares(transfer: &Value) -> Vec<Value> {
    transfer["peers"].as_array().unwrap_or_else(|| panic!("no peers in {transfer}")).clone()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// The largest blob of a home, made writable.
fn largest_blob(home: &Home) -> PathBuf {
    let (path, _) = home.listing().into_iter().max_by_key(|(_, size)| *size).expect("a blob");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    path
}

fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
}

#[test]
fn one_of_two_sources_dies() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    publish(&net, &alba, SIZE);
    let (a, b, c) = (alba.start(), borea.start(), cora.start());
    b.connect(&a);
    b.pull("alba/big").unwrap_or_else(|problem| panic!("{problem}"));
    c.connect(&a);
    c.connect(&b);
    let pull = begin(&c);
    let before = midway(&c);
    b.kill();
    let done = pull.outcome(LIMIT).unwrap_or_else(|problem| panic!("{problem}"));
    let transfer = &done["transfer"];
    assert_eq!(transfer["bytes_done"], transfer["bytes_total"], "{transfer}");
    println!("borea died at {before} of {} bytes; {}", transfer["bytes_total"], json!(shares(transfer)));
    assert!(shares(transfer).iter().all(|share| share["banned"] == false), "dying is no lie: {transfer}");
    cora.ok(&["verify", "alba/big"]);
}

#[test]
fn the_puller_is_killed_and_resumes() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    publish(&net, &alba, SIZE);
    let a = alba.start_with_fixed_ports("");
    let b = borea.start();
    b.connect(&a);
    let pull = begin(&b);
    let before = midway(&b);
    b.kill();
    drop(pull);

    let b = borea.start();
    b.connect(&a);
    let done = begin(&b).outcome(LIMIT).unwrap_or_else(|problem| panic!("{problem}"));
    let transfer = &done["transfer"];
    let (total, resumed) = (number(&transfer["bytes_total"]), number(&transfer["bytes_resumed"]));
    let fetched: u64 = shares(transfer).iter().map(|share| number(&share["bytes"])).sum();
    println!("killed at {before} of {total} bytes; resumed with {resumed}, fetched {fetched}");
    assert!(resumed + REFETCHED >= before, "resumed with {resumed} of the {before} that were there");
    assert_eq!(resumed + fetched, total, "nothing was fetched twice: {transfer}");
    borea.ok(&["verify", "alba/big"]);
}

#[test]
fn a_node_that_holds_corrupted_bytes_is_caught() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    publish(&net, &alba, 64 << 20);
    let (a, b) = (alba.start(), borea.start());
    b.connect(&a);
    b.pull("alba/big").unwrap_or_else(|problem| panic!("{problem}"));
    let peer = b.peer_id();
    b.stop();
    // Every chunk is rotten, so that whichever is asked for first tells.
    let blob = largest_blob(&borea);
    let size = blob.metadata().unwrap().len();
    for at in (0..size).step_by(32 << 10) {
        flip(&blob, at);
    }
    let (b, c) = (borea.start(), cora.start());
    let mut alerts = c.http.events("GET", "/v1/events?kinds=alert", None);
    c.connect(&b);
    c.connect(&a);
    let done = c.pull("alba/big").unwrap_or_else(|problem| panic!("{problem}"));
    let liar = shares(&done["transfer"]).into_iter().find(|share| share["peer_id"] == *peer);
    let liar = liar.unwrap_or_else(|| panic!("borea was not asked: {done}"));
    assert_eq!(liar["banned"], true, "{liar}");
    assert!(number(&liar["bad_chunks"]) >= 1, "{liar}");
    assert_eq!(number(&liar["bytes"]), 0, "nothing of it was kept: {liar}");
    let alert = alerts
        .find(Duration::from_secs(10), "an alert about borea", |event| event.json()["nation"] == "borea");
    println!("{}", alert.json()["message"]);
    cora.ok(&["verify", "alba/big"]);

    // Its own operator finds the damage, gets it named, and repairs it from an ally.
    let found = borea.run(&["verify", "alba/big"]);
    found.expect(4, &["model.safetensors"]);
}

/// A file system of a few MiB, where the system lets us make one.
struct Small(PathBuf);

impl Small {
    fn new(folder: PathBuf, megabytes: u32) -> Option<Self> {
        let options = format!("size={megabytes}m");
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&folder).stderr(std::process::Stdio::null());
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Self(folder));
        }
        println!("skipped: mounting a file system needs more rights than this test has");
        None
    }

    /// Takes all room but so many bytes.
    fn fill(&self, but: u64) -> PathBuf {
        let disk = rustix::fs::statvfs(&self.0).unwrap();
        let hog = self.0.join("hog");
        let file = fs::File::create(&hog).unwrap();
        let len = (disk.f_bavail * disk.f_frsize).saturating_sub(but);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len).unwrap();
        hog
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_pauses_a_pull_and_it_goes_on_when_there_is_room() {
    let net = Net::new();
    let Some(small) = Small::new(net.folder("small"), 160) else { return };
    let alba = net.nation("alba");
    let borea = Home { nation: "borea".to_owned(), path: small.0.join("borea"), ..alba.clone() };
    borea.ok(&["init", "--nation", "borea"]);
    borea.configure(&Settings::default());
    alba.trust(&borea);
    borea.trust(&alba);
    let folder = net.folder("big");
    for (seed, name) in (0..).zip(["one.safetensors", "two.safetensors"]) {
        generate::safetensors(&folder.join(name), 32 << 20, seed).unwrap();
    }
    alba.publish(&folder, "big", "1", &["--releasable-to", "all"]);
    let (a, b) = (alba.start(), borea.start());
    b.connect(&a);
    // Room for one of the two files.
    let hog = small.fill(48 << 20);
    let pull = begin(&b);
    let newest = || b.http.get("/v1/transfers").as_array().and_then(|all| all.first().cloned());
    let paused = wait::within(LIMIT, "a transfer that waits for room", || {
        newest().filter(|transfer| transfer["error"].is_string())
    });
    println!("{}", paused["error"]);
    assert!(paused["error"].as_str().unwrap().contains("waits for room on the disk"), "{paused}");
    assert_eq!(paused["state"], "fetching", "a pause is no end: {paused}");
    // Longer than the node waits between two looks: nothing has changed.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(newest().unwrap()["error"], paused["error"]);
    fs::remove_file(hog).unwrap();
    let done = pull.outcome(LIMIT).unwrap_or_else(|problem| panic!("{problem}"));
    let transfer = &done["transfer"];
    assert_eq!(transfer["bytes_done"], transfer["bytes_total"], "{transfer}");
    assert!(transfer["error"].is_null(), "{transfer}");
    b.stop();
    borea.ok(&["verify", "alba/big"]);
}

#[test]
fn garbage_is_collected_during_a_pull() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    publish(&net, &alba, SIZE);
    let (a, b) = (alba.start(), borea.start());
    b.connect(&a);
    let pull = begin(&b);
    midway(&b);
    for _ in 0..5 {
        b.http.post("/v1/gc", &json!({}));
    }
    let done = pull.outcome(LIMIT).unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!(done["transfer"]["bytes_done"], done["transfer"]["bytes_total"]);
    let collected = b.http.post("/v1/gc", &json!({}));
    assert_eq!(collected["blobs_removed"], 0, "what was just pulled is kept: {collected}");
    borea.ok(&["verify", "alba/big"]);
}

#[test]
fn a_worker_refuses_bytes_that_changed_after_admission() {
    let net = Net::new();
    let [alba] = net.allies(["alba"]);
    alba.publish(tests::binary::weights(), "smollm2", "1.0.0", &[]);
    let blob = largest_blob(&alba);
    flip(&blob, blob.metadata().unwrap().len() / 2);
    let a = alba.start();
    let problem = a.serve("alba/smollm2").unwrap_err();
    let text = problem.to_string();
    assert!(problem["code"] == "verification_failed" || problem["code"] == "worker", "{problem}");
    assert!(text.contains("gguf"), "the file is named: {problem}");
    until("no worker to be left", || {
        let workers = a.http.get("/v1/workers");
        workers.as_array()?.iter().all(|worker| worker["state"] == "failed").then_some(())
    });
}
