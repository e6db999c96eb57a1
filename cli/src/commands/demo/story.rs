//! The story, step by step. Each step checks that what it shows is true.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use registry::Digest;
use serde_json::Value;

use super::nation::World;
use super::say::{self, Margin, Show};
use super::{NAMES, field};
use crate::failure::{Exit, Failure};
use crate::human;
use crate::output::{self, BAD, BOLD, DIM, GOOD, paint};

/// Bytes that the bad disk changes, spread over the file: so many that some reach cora whichever chunks it asks borea for.
const BAD_BYTES: u64 = 12;
/// How long a worker may take to come up.
const SERVE: Duration = Duration::from_secs(300);
/// How long a recall may take from one nation's operator to another's worker. Seconds are promised; this fails the demo.
const RECALL: Duration = Duration::from_secs(20);
/// How long the nodes may take to find each other.
const MEET: Duration = Duration::from_secs(30);
const QUESTION: &str = "What is gravity?";
const REASON: &str = "it repeats private letters from its training data";

fn untrue(what: &str) -> Failure {
    Failure::new(Exit::Other, format!("the demo did not go as it should: {what}"))
}

fn ensure(truth: bool, what: &str) -> Result<(), Failure> {
    if truth { Ok(()) } else { Err(untrue(what)) }
}

/// What later steps need from earlier ones.
struct Model {
    reference: String,
    version: String,
    release: String,
}

/// Tells all of it.
pub(super) async fn tell(world: &mut World, weights: &Path) -> Result<(), Failure> {
    let started = Instant::now();
    output::line(format!(
        "\n{}",
        paint(BOLD, "Steelyard: nations share models that each verifies, serves and can stop by itself.")
    ))?;
    output::line(paint(
        DIM,
        "Everything below is real: three nodes, each with its own process, keys and folder, on this machine.",
    ))?;
    nations(world).await?;
    let model = publish(world, weights).await?;
    mirror(world, &model).await?;
    caught(world, &model).await?;
    serve(world, &model).await?;
    let recall = recall(world, &model).await?;
    output::line(format!(
        "\n{} {}",
        paint(GOOD.bold(), "✓"),
        paint(BOLD, format!("That was all of it, in {}.", human::duration(started.elapsed())))
    ))?;
    say::sentence(
        "Signed by its maker, fetched from several allies at once, every byte verified, damage named and healed,",
    )?;
    say::sentence(&format!(
        "served by a process that opens only what was admitted, and stopped {} after the recall was known.",
        paint(BOLD, recall)
    ))
}

async fn nations(world: &mut World) -> Result<(), Failure> {
    say::title(1, "Three nations, and no authority above them")?;
    say::sentence(
        "Each makes its own keys. A nation is known by its fingerprint, which people compare by voice or on paper.",
    )?;
    for name in NAMES {
        let (p2p, http) = world.ports(name)?;
        let (listen, http) = (format!("/ip4/127.0.0.1/tcp/{p2p}"), format!("127.0.0.1:{http}"));
        let words = ["init", "--nation", name, "--listen", &listen, "--http", &http];
        world.expect(name, &words, if name == "alba" { Show::First(5) } else { Show::First(1) }).await?;
    }
    let mut fingerprints = Vec::new();
    for name in NAMES {
        let status = world.ask(name, &["status"]).await?;
        fingerprints.push(field(&status, "fingerprint")?.as_str().unwrap_or_default().to_owned());
    }
    for name in NAMES {
        for (other, fingerprint) in NAMES.iter().zip(&fingerprints).filter(|(other, _)| **other != name) {
            let file = format!("{other}/nation.json");
            world
                .expect(name, &["trust", "add", &file, "--fingerprint", fingerprint], Show::First(1))
                .await?;
        }
    }
    for name in NAMES {
        say::command(name, &["node".to_owned()])?;
        world.start(name).await?;
    }
    meet(world).await?;
    output::line("")?;
    say::sentence(
        "All three nodes are up and connected. Nobody else is let in: a stranger is turned away before a word is said.",
    )
}

async fn meet(world: &World) -> Result<(), Failure> {
    let started = Instant::now();
    loop {
        let mut connected = 0;
        for name in NAMES {
            let peers = world.ask(name, &["peers"]).await?;
            connected += usize::from(peers.as_array().is_some_and(|peers| peers.len() >= NAMES.len() - 1));
        }
        if connected == NAMES.len() {
            return Ok(());
        }
        ensure(started.elapsed() < MEET, "the nodes did not find each other")?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn publish(world: &World, weights: &Path) -> Result<Model, Failure> {
    say::title(2, &format!("{} publishes a model", say::nation("alba")))?;
    say::sentence(
        "One pass over the files: hashed, cut into chunks at tensor boundaries, signed with alba's release key.",
    )?;
    let (folder, licence) = source(weights);
    let folder = folder.display().to_string();
    let name = if folder.to_lowercase().contains("smollm2") { "smollm2" } else { "model" };
    let reference = format!("alba/{name}");
    let version = "1.0.0".to_owned();
    let mut words = vec!["publish", &folder, "--as", &reference, "--version", &version];
    words.extend(licence);
    world.expect("alba", &words, Show::All).await?;
    let shown = world.ask("alba", &["show", &reference]).await?;
    let release = field(&shown, "release")?.as_str().unwrap_or_default().to_owned();
    ensure(shown["decision"]["allowed"] == true, "alba's own policy refuses the release")?;
    Ok(Model { reference, version, release })
}

/// What to publish: the weights' folder where it has a model card, else the file alone, whose licence nobody said.
fn source(weights: &Path) -> (PathBuf, &'static [&'static str]) {
    match weights.parent().filter(|folder| folder.join("README.md").is_file()) {
        Some(folder) => (folder.to_owned(), &[]),
        None => (weights.to_owned(), &["--licence", "NOASSERTION"]),
    }
}

async fn mirror(world: &World, model: &Model) -> Result<(), Failure> {
    say::title(3, &format!("{} mirrors it", say::nation("borea")))?;
    say::sentence(
        "borea's own policy is asked before any byte moves. Then each chunk is verified before it is kept.",
    )?;
    world.expect("borea", &["pull", &model.reference], Show::All).await?;
    let transfer = last_transfer(world, "borea").await?;
    ensure(
        share(&transfer, "alba").is_some_and(|share| share["bytes"].as_u64() > Some(0)),
        "no bytes came from alba",
    )
}

async fn last_transfer(world: &World, name: &str) -> Result<Value, Failure> {
    let transfers = world.ask(name, &["transfers"]).await?;
    let newest = transfers.as_array().and_then(|list| list.iter().max_by_key(|t| t["id"].as_u64()).cloned());
    newest.ok_or_else(|| untrue("the node knows of no transfer"))
}

fn share<'a>(transfer: &'a Value, nation: &str) -> Option<&'a Value> {
    transfer["peers"].as_array()?.iter().find(|peer| peer["nation"] == nation)
}

/// A bad disk at borea; cora fetches from both and catches it; borea finds and heals it.
async fn caught(world: &World, model: &Model) -> Result<(), Failure> {
    say::title(
        4,
        &format!("{} fetches from both, and {} has a bad disk", say::nation("cora"), say::nation("borea")),
    )?;
    let path = damage(world, model).await?;
    say::sentence(&format!(
        "{BAD_BYTES} bytes of the weights just changed on borea's disk, behind its back:"
    ))?;
    say::sentence(&paint(DIM, path.display()))?;
    say::sentence(
        "cora does not need to trust borea's disk, or borea: it checks each chunk against what alba signed.",
    )?;
    world.expect("cora", &["pull", &model.reference], Show::All).await?;
    let transfer = last_transfer(world, "cora").await?;
    let (alba, borea) = (share(&transfer, "alba"), share(&transfer, "borea"));
    let (Some(alba), Some(borea)) = (alba, borea) else { return Err(untrue("cora did not fetch from both")) };
    let number = |share: &Value, name: &str| share[name].as_u64().unwrap_or(0);
    ensure(
        number(borea, "bad_chunks") > 0 && borea["banned"] == true,
        "borea's wrong bytes were not caught",
    )?;
    ensure(number(alba, "bytes") > 0 && number(alba, "bad_chunks") == 0, "alba's bytes are missing")?;
    output::line("")?;
    say::sentence(&format!(
        "borea's first wrong chunk was thrown away, borea was {} for this transfer, and alba gave the rest.",
        paint(BAD, "banned")
    ))?;
    say::sentence(
        "cora has every byte that alba signed. borea can find its own damage, and heal it from its allies:",
    )?;
    world.expect("borea", &["verify", &model.reference, "--repair"], Show::All).await?;
    let again = world.ask("borea", &["verify", &model.reference]).await?;
    ensure(again["sound"] == true, "borea's damage was not healed")
}

/// Changes single bytes of the largest file in borea's store, spread evenly.
async fn damage(world: &World, model: &Model) -> Result<PathBuf, Failure> {
    let shown = world.ask("borea", &["show", &model.reference]).await?;
    let files = field(&shown, "file_list")?.as_array().cloned().unwrap_or_default();
    let largest = files
        .iter()
        .max_by_key(|file| file["size"].as_u64())
        .ok_or_else(|| untrue("the release is empty"))?;
    let blob: Digest = field(largest, "blake3")?
        .as_str()
        .unwrap_or_default()
        .parse()
        .map_err(|_| untrue("a blob has no digest"))?;
    let hex = blob.to_hex();
    let path = world.home("borea")?.join("store/blobs").join(&hex[..2]).join(&hex);
    let wrong = |error: std::io::Error| untrue(&format!("{}: {error}", path.display()));
    let mode = fs::metadata(&path).map_err(wrong)?.permissions();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(wrong)?;
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(wrong)?;
    let size = file.metadata().map_err(wrong)?.len();
    for n in 0..BAD_BYTES {
        let offset = size * (2 * n + 1) / (2 * BAD_BYTES);
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).map_err(wrong)?;
        file.write_all_at(&[!byte[0]], offset).map_err(wrong)?;
    }
    file.sync_all().map_err(wrong)?;
    fs::set_permissions(&path, mode).map_err(wrong)?;
    Ok(path)
}

async fn serve(world: &mut World, model: &Model) -> Result<(), Failure> {
    say::title(5, &format!("{} serves it and asks it something", say::nation("cora")))?;
    say::sentence(
        "A worker process opens only the admitted files, hashes them once more, and speaks the OpenAI interface.",
    )?;
    world.background("cora", &["serve", &model.reference, "--listen", "127.0.0.1:0"])?;
    let started = Instant::now();
    while !world.said().contains("Stop with Ctrl-C") {
        if let Some(code) = world.background_is_over() {
            return Err(untrue(&format!("serving ended with exit code {code}: {}", world.said().trim())));
        }
        ensure(started.elapsed() < SERVE, "the worker did not come up")?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut margin = Margin::new(Show::First(2));
    margin.write(&world.said())?;
    margin.end()?;
    let asked = ["chat", &model.reference, QUESTION, "--temperature", "0", "--max-tokens", "48"];
    let answered = world.expect("cora", &asked, Show::All).await?;
    ensure(!answered.output.trim().is_empty(), "the model said nothing")
}

/// alba recalls; how long cora's worker took, for people.
async fn recall(world: &mut World, model: &Model) -> Result<String, Failure> {
    say::title(6, &format!("{} recalls it", say::nation("alba")))?;
    say::sentence(
        "Something is wrong with the model. alba signs a recall; allies learn of it and stop serving by themselves.",
    )?;
    let reference = format!("{}@{}", model.reference, model.version);
    let before = world.said().len();
    let words = ["recall", &reference, "--reason", REASON, "--severity", "high", "--yes"];
    let pressed = Instant::now();
    let signed = world.expect("alba", &words, Show::All).await?;
    let code = loop {
        if let Some(code) = world.background_is_over() {
            break code;
        }
        ensure(pressed.elapsed() < RECALL, "cora's worker did not stop")?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let whole = pressed.elapsed().max(signed.took);
    output::line("")?;
    say::sentence(&format!(
        "Meanwhile the command `serve` at {} ended with exit code {code}:",
        say::nation("cora")
    ))?;
    let said = world.said();
    let mut margin = Margin::new(Show::All);
    margin.write(said.get(before..).unwrap_or(&said))?;
    margin.end()?;
    ensure(code == 5, "serving should have ended with exit code 5")?;

    let shown = world.ask("cora", &["show", &model.release]).await?;
    ensure(
        shown["recalled"] == true && shown["decision"]["allowed"] == false,
        "cora still admits the release",
    )?;
    let refused = world.run("cora", &["serve", &model.reference], Show::First(1)).await?;
    ensure(refused.code == 5, "cora serves what was recalled")?;
    let took = stop_time(&said).ok_or_else(|| untrue("the worker's end has no time"))?;
    output::line("")?;
    say::sentence(&format!(
        "cora's worker was gone {} after its node knew, {} after alba's operator pressed Enter.",
        paint(BOLD, &took),
        paint(BOLD, human::duration(whole))
    ))?;
    Ok(took)
}

/// `188 ms` from the line `stopped at …, 188 ms after this node knew`.
fn stop_time(said: &str) -> Option<String> {
    let plain = anstream::adapter::strip_str(said).to_string();
    let (before, _) = plain.split_once(" after this node knew")?;
    Some(before.rsplit_once(", ")?.1.to_owned())
}

/// What to do with three nodes that stay up.
pub(super) fn how_to_play(dir: &Path, weights: &Path) -> Result<(), Failure> {
    let program = std::env::current_exe()?;
    output::line(format!("\n{}", paint(BOLD, "The three nodes stay up. Play with them:")))?;
    let folder = program.parent().unwrap_or(&program).display();
    let lines = [
        format!("export PATH={folder}:$PATH"),
        format!("export STEELYARD_HOME={}   # or alba, borea", dir.join("cora").display()),
        "steelyard status".to_owned(),
        "steelyard ls".to_owned(),
        "steelyard show alba/smollm2@1.0.0".to_owned(),
        format!(
            "steelyard --home {} publish {} --as alba/again --version 1 --licence NOASSERTION",
            dir.join("alba").display(),
            weights.display()
        ),
        "steelyard pull alba/again".to_owned(),
        "steelyard chat alba/again".to_owned(),
    ];
    for line in lines {
        output::line(format!("  {line}"))?;
    }
    let default =
        if dir.ends_with("steelyard/demo") { String::new() } else { format!(" --dir {}", dir.display()) };
    output::line(format!(
        "Stop them and remove their folders:\n  {} demo --clean{default}",
        program.display()
    ))
}
