//! A model that is not here is served when its last byte came: what is checked meanwhile, and what becomes of it when something goes
//! wrong on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use registry::serving::Attempt;
use serde_json::{Value, json};
use tests::http::Events;
use tests::net::Settings;
use tests::{Daemon, Home, Http, Net, binary, generate, until, wait};

/// A worker that must go goes within this, on a busy machine.
const GONE: Duration = Duration::from_secs(5);
/// The real weights over the slowest link of these tests.
const LIMIT: Duration = Duration::from_secs(180);

/// The settings of a node that sends so many bytes a second.
fn capped(home: &Home, rate: u64) {
    let more = format!("[transfer]\nbandwidth = {{ up = {rate} }}\n");
    home.configure(&Settings { more, ..Settings::default() });
}

/// alba has published the real weights and sends so many bytes a second; cora knows of them and has nothing.
fn far_away(net: &Net, rate: u64) -> ([Home; 2], Daemon, Daemon) {
    let [alba, cora] = net.allies(["alba", "cora"]);
    alba.publish(binary::weights(), "smollm2", "1.0.0", &["--releasable-to", "all"]);
    capped(&alba, rate);
    let (a, c) = (alba.start(), cora.start());
    c.connect(&a);
    ([alba, cora], a, c)
}

fn begin(node: &Daemon) -> Events {
    let body = json!({ "reference": "alba/smollm2", "listen": "127.0.0.1:0" });
    node.http.events("POST", "/v1/workers", Some(&body))
}

fn worker(node: &Daemon) -> Value {
    node.http.get("/v1/workers").as_array().unwrap().last().cloned().unwrap_or_default()
}

/// Waits until the worker has checked so many bytes of what comes.
fn midway(node: &Daemon, bytes: u64) -> Value {
    wait::within(LIMIT, "a worker in the middle of its transfer", || {
        let worker = worker(node);
        assert_ne!(worker["state"], "failed", "{worker}");
        (worker["state"] == "fetching" && worker["bytes_done"].as_u64()? > bytes).then_some(worker)
    })
}

/// The worker is over, and its process with it.
fn gone(node: &Daemon, pid: &Value) -> Value {
    let over = wait::within(GONE, "the worker to be over", || {
        let worker = worker(node);
        (worker["state"] == "stopped" || worker["state"] == "failed").then_some(worker)
    });
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "its process goes on: {over}");
    over
}

fn ask(address: &Value) -> Value {
    let body = json!({ "prompt": "Once upon a time", "temperature": 0, "max_tokens": 12 });
    Http::tcp(address.as_str().unwrap()).post("/v1/completions", &body)["choices"][0]["text"].clone()
}

#[test]
fn a_model_that_is_not_here_answers_when_it_has_come_as_one_that_was() {
    let net = Net::new();
    let ([_, cora], a, c) = far_away(&net, 20_000_000);
    let mut job = begin(&c);
    let (mut fetching, mut checked) = (0, 0);
    let ready = loop {
        let event = job.next(LIMIT).expect("the job's end");
        let info = event.json();
        match event.name.as_str() {
            "progress" if info["state"] == "fetching" => {
                fetching = info["transfer"]["bytes_done"].as_u64().unwrap_or(fetching);
                checked = info["bytes_done"].as_u64().unwrap();
            }
            "progress" => {}
            "done" => break info,
            _ => panic!("{info}"),
        }
    };
    // It was seen coming, by the node and by the worker.
    assert!(fetching > 1 << 20 && checked > 1 << 20, "{fetching} and {checked} bytes were seen");
    let walls = ready["walls"].as_array().unwrap();
    assert!(walls.len() == 4 && walls.iter().all(|wall| wall["stands"] == true), "{ready}");
    let streamed = ask(&ready["address"]);
    assert!(streamed.as_str().unwrap().len() > 5, "{streamed}");

    // The walls hold around one that copies what comes, too.
    let said = cora.json(&["serve", "alba/smollm2", "--prove-sealed"]);
    assert_eq!(said["worker"]["pid"], ready["pid"], "another worker was asked");
    let attempts: Vec<Attempt> = serde_json::from_value(said["attempts"].clone()).unwrap();
    assert!(attempts.len() > 50 && attempts.iter().all(|attempt| attempt.refused.is_some()), "{said}");

    // All of it is admitted in the end, and served from the disk it answers the same.
    until("the release to be admitted", || {
        (c.http.get("/v1/models/alba/smollm2")["releases"][0]["admitted"] == true).then_some(())
    });
    c.http.request("DELETE", &format!("/v1/workers/{}", ready["id"]), None);
    drop(a);
    let local = c.serve("alba/smollm2").unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!(ask(&local["address"]), streamed);
    assert_eq!(worker(&c)["transfer"], Value::Null);
}

/// The small Llama of the golden files, and the greedy answer to its text.
fn tiny(net: &Net) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../inference/tests/golden");
    let folder = net.folder("safetensors");
    for file in ["llama/config.json", "llama/model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        let from = golden.join(file);
        fs::copy(&from, folder.join(from.file_name().unwrap())).unwrap();
    }
    folder
}

#[test]
fn safetensors_come_and_are_served_by_candle() {
    let net = Net::new();
    let [alba, cora] = net.allies(["alba", "cora"]);
    alba.publish(&tiny(&net), "tiny", "1", &["--releasable-to", "all"]);
    let (a, c) = (alba.start(), cora.start());
    c.connect(&a);
    let here = a.serve("alba/tiny").unwrap_or_else(|problem| panic!("{problem}"));
    let there = c.serve("alba/tiny").unwrap_or_else(|problem| panic!("{problem}"));
    assert!(there["engine"].as_str().unwrap().starts_with("candle"), "{there}");
    assert_eq!(ask(&there["address"]), ask(&here["address"]));
}

#[test]
fn what_is_not_computed_on_comes_after_the_answer() {
    let net = Net::new();
    let [alba, cora] = net.allies(["alba", "cora"]);
    let folder = tiny(&net);
    // More files than a transfer has open at once, so that some are handed in before it comes to them.
    fs::create_dir(folder.join("more")).unwrap();
    for number in 0..24 {
        generate::safetensors(&folder.join(format!("more/{number}.safetensors")), 2 << 20, number).unwrap();
    }
    alba.publish(&folder, "tiny", "1", &["--releasable-to", "all"]);
    // All of it takes twelve seconds.
    capped(&alba, 4 << 20);
    let (a, c) = (alba.start(), cora.start());
    c.connect(&a);
    let ready = c.serve("alba/tiny").unwrap_or_else(|problem| panic!("{problem}"));
    assert!(!ask(&ready["address"]).as_str().unwrap().is_empty());
    let admitted = || c.http.get("/v1/models/alba/tiny")["releases"][0]["admitted"] == true;
    assert!(!admitted(), "the rest came before the answer");
    assert_eq!(worker(&c)["transfer"]["state"], "fetching");
    wait::within(LIMIT, "the rest to come", || admitted().then_some(()));
    until("the transfer to be shown no longer", || worker(&c)["transfer"].is_null().then_some(()));
    assert!(!ask(&ready["address"]).as_str().unwrap().is_empty());
}

#[test]
fn what_no_engine_serves_is_refused_before_it_came() {
    let net = Net::new();
    let [alba, cora] = net.allies(["alba", "cora"]);
    let folder = tiny(&net);
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    fs::write(folder.join("config.json"), config.replace("LlamaForCausalLM", "PhiForCausalLM")).unwrap();
    generate::safetensors(&folder.join("model.safetensors"), 48 << 20, 5).unwrap();
    alba.publish(&folder, "odd", "1", &["--releasable-to", "all"]);
    // All of it would take half a minute.
    capped(&alba, 1_600_000);
    let (a, c) = (alba.start(), cora.start());
    c.connect(&a);
    let begun = Instant::now();
    let problem = c.serve("alba/odd").unwrap_err();
    assert!(problem.to_string().contains("PhiForCausalLM"), "{problem}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    until("the transfer to end with it", || {
        let transfers = c.http.get("/v1/transfers");
        transfers.as_array()?.iter().all(|transfer| transfer["state"] == "cancelled").then_some(())
    });
}

#[test]
fn wrong_bytes_never_reach_an_answer_and_the_right_ones_go_on() {
    let net = Net::new();
    let ([alba, _], a, c) = far_away(&net, 60_000_000);
    // The publisher's disk flips a bit near the end, so that most of it comes first.
    let (blob, size) = alba.listing().into_iter().max_by_key(|(_, size)| *size).unwrap();
    fs::set_permissions(&blob, fs::Permissions::from_mode(0o644)).unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(&blob).unwrap();
    let flip = || {
        let mut byte = [0];
        file.read_exact_at(&mut byte, size - 1_000_000).unwrap();
        file.write_all_at(&[byte[0] ^ 1], size - 1_000_000).unwrap();
    };
    flip();
    let problem = begin(&c).outcome(LIMIT).unwrap_err();
    assert_eq!(problem["code"], "network", "{problem}");
    let said = problem["detail"].as_str().unwrap();
    assert!(said.contains("did not come") && said.contains("goes on with it"), "{said}");
    let over = worker(&c);
    assert_eq!((&over["state"], &over["address"]), (&json!("failed"), &Value::Null), "{over}");
    assert_eq!(over["pid"], Value::Null);
    assert!(c.log().contains("wrong") || over["transfer"].to_string().contains("\"bad_chunks\":1"), "{over}");

    // What came before is not fetched again. The publisher's node comes back, since it was banned.
    flip();
    a.stop();
    let a = alba.start();
    c.connect(&a);
    let ready = begin(&c).outcome(LIMIT).unwrap_or_else(|problem| panic!("{problem}"));
    assert!(!ask(&ready["address"]).as_str().unwrap().is_empty());
    let transfers = c.http.get("/v1/transfers");
    let resumed = transfers[0]["bytes_resumed"].as_u64().unwrap();
    assert!(resumed > size / 2, "{resumed} of {size} bytes were kept: {}", transfers[0]);
}

#[test]
fn a_recall_ends_it_in_the_middle() {
    let net = Net::new();
    let ([alba, _], _a, c) = far_away(&net, 8_000_000);
    let job = begin(&c);
    let before = midway(&c, 8 << 20);
    let pid = before["pid"].clone();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    alba.recall("alba/smollm2@1.0.0", "it rots", "high");
    let problem = job.outcome(LIMIT).unwrap_err();
    assert_eq!(problem["code"], "policy_refused", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("it rots"), "{problem}");
    let over = gone(&c, &pid);
    assert_eq!(over["stop"]["cause"], "recalled", "{over}");
    until("the transfer to end", || {
        let transfers = c.http.get("/v1/transfers");
        transfers.as_array()?.iter().all(|it| it["state"] != "fetching").then_some(())
    });
    assert_eq!(begin(&c).outcome(LIMIT).unwrap_err()["code"], "policy_refused");
}

#[test]
fn it_is_left_and_cut_and_goes_on() {
    let net = Net::new();
    let [alba, cora] = net.allies(["alba", "cora"]);
    alba.publish(binary::weights(), "smollm2", "1.0.0", &["--releasable-to", "all"]);
    let cap = "[transfer]\nbandwidth = { up = 12000000 }\n";
    let (a, c) = (alba.start_with_fixed_ports(cap), cora.start());
    c.connect(&a);

    // Whoever asked leaves: the worker goes, what came stays.
    let job = begin(&c);
    let before = midway(&c, 16 << 20);
    drop(job);
    let over = gone(&c, &before["pid"]);
    assert_eq!(over["stop"]["cause"], "requested", "{over}");

    // The link is cut in the middle, and comes back.
    let job = begin(&c);
    midway(&c, 40 << 20);
    a.kill();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(worker(&c)["state"], "fetching");
    let a = alba.start();
    c.connect(&a);
    let ready = job.outcome(LIMIT).unwrap_or_else(|problem| panic!("{problem}"));
    assert!(!ask(&ready["address"]).as_str().unwrap().is_empty());
    let transfers = c.http.get("/v1/transfers");
    assert!(transfers[0]["bytes_resumed"].as_u64().unwrap() > 8 << 20, "{}", transfers[0]);
    assert_eq!((a.stop(), c.stop()), (0, 0));
}

#[test]
fn a_command_by_itself_shows_it_and_one_that_may_not_says_so() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    let folder = net.folder("tiny");
    fs::write(folder.join("tiny.gguf"), generate::tiny_gguf()).unwrap();
    alba.publish(&folder, "tiny", "1", &["--releasable-to", "cora"]);
    let (a, b, c) = (alba.start(), borea.start(), cora.start());
    b.connect(&a);
    c.connect(&a);
    cora.ok(&["serve", "alba/tiny", "--detach"]).expect(0, &["is served at", "verified in"]);
    // It is not told to those who may not have it.
    borea.run(&["serve", "alba/tiny", "--detach"]).expect(3, &["not known here"]);
    drop(b);
}
