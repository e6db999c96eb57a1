//! The walls around a worker, weights that change, and workers that die.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use registry::serving::{Attempt, Proving};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tests::net::Settings;
use tests::{Daemon, Home, Http, Net, generate, until};

/// Set in the environment of a process that is to make the attempts without walls.
const ROLE: &str = "STEELYARD_TEST_UNSEALED";

/// A nation that has published the smallest model.
fn publisher(net: &Net, more: &str) -> Home {
    let home = net.nation("alba");
    let folder = net.folder("tiny");
    fs::write(folder.join("tiny.gguf"), generate::tiny_gguf()).unwrap();
    home.publish(&folder, "tiny", "1", &["--releasable-to", "all"]);
    home.configure(&Settings { more: more.to_owned(), ..Settings::default() });
    home
}

fn worker(node: &Daemon) -> Value {
    node.http.get("/v1/workers").as_array().unwrap().last().cloned().unwrap()
}

fn state(node: &Daemon, wanted: &str) -> Value {
    until(&format!("the worker to be {wanted}"), || {
        let worker = worker(node);
        (worker["state"] == wanted).then_some(worker)
    })
}

/// The file of the weights' blob: the largest in the store.
fn weights(home: &Home) -> PathBuf {
    let largest = home.listing().into_iter().max_by_key(|(_, size)| *size).unwrap();
    largest.0
}

/// Changes one bit in the middle of the weights, whoever reads them.
fn flip(path: &PathBuf) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let (mut byte, at) = ([0], 100_000);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn answers(address: &str) {
    let body = json!({ "prompt": "Once", "temperature": 0, "max_tokens": 4 });
    let reply = Http::tcp(address).request("POST", "/v1/completions", Some(&body));
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// Errors that only a wall gives. A name that can't be looked up has none.
fn is_by_a_wall(attempt: &Attempt) -> bool {
    let refused = attempt.refused.as_deref().unwrap();
    matches!(refused, "EPERM" | "EACCES" | "ENOENT") || attempt.what.contains("DNS")
}

#[test]
fn every_attempt_is_refused_in_a_live_worker() {
    let net = Net::new();
    let home = publisher(&net, "");
    let node = home.start();
    let ready = node.serve("alba/tiny").unwrap();
    let walls = ready["walls"].as_array().unwrap();
    assert!(walls.len() == 4 && walls.iter().all(|wall| wall["stands"] == true), "{ready}");

    let said = home.json(&["serve", "alba/tiny", "--prove-sealed"]);
    assert_eq!(said["worker"]["pid"], ready["pid"], "another worker was asked: {said}");
    let attempts: Vec<Attempt> = serde_json::from_value(said["attempts"].clone()).unwrap();
    assert!(attempts.len() > 50, "{} attempts", attempts.len());
    for attempt in &attempts {
        assert!(attempt.refused.is_some(), "it succeeded: {}", attempt.what);
        assert!(is_by_a_wall(attempt), "{attempt:?}");
    }
    for what in
        ["peer.key", "/etc/passwd", "/proc/1/environ", "io_uring", "ptrace", "execve", "192.0.2.1", "DNS"]
    {
        assert!(attempts.iter().any(|attempt| attempt.what.contains(what)), "{what} was not tried");
    }
    // It goes on serving, and is shown to people.
    answers(ready["address"].as_str().unwrap());
    home.ok(&["serve", "alba/tiny", "--prove-sealed"])
        .expect(0, &["landlock", "stands", "refused", "EPERM", "each refused"]);
    assert_eq!(worker(&node)["pid"], ready["pid"]);
    assert!(home.listing().iter().all(|(path, _)| !path.to_string_lossy().contains("steelyard-proof")));
}

/// Not a test by itself: what the process below runs.
#[test]
fn unsealed_process() {
    if let Ok(proving) = std::env::var(ROLE) {
        let proving: Proving = serde_json::from_str(&proving).unwrap();
        let attempts = inference::sealed::probe::run(&proving);
        println!("attempts{}", serde_json::to_string(&attempts).unwrap());
    }
}

#[test]
fn without_walls_the_same_attempts_succeed() {
    let net = Net::new();
    fs::write(net.path().join("secret"), "key").unwrap();
    let mut victim = Command::new("sleep").arg("60").spawn().unwrap();
    let proving = Proving {
        id: 1,
        node: victim.id(),
        connect: Vec::new(),
        read: vec![net.path().join("secret")],
        write: net.path().to_owned(),
    };
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "unsealed_process", "--nocapture"])
        .env(ROLE, serde_json::to_string(&proving).unwrap())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    victim.kill().unwrap();
    victim.wait().unwrap();
    let said = String::from_utf8(run.stdout).unwrap();
    let line = said.lines().find_map(|line| line.split_once("attempts").map(|(_, rest)| rest)).unwrap();
    let attempts: Vec<Attempt> = serde_json::from_str(line).unwrap();
    let anybody = [
        "connect to a loopback address",
        "send a UDP datagram",
        "look a name up",
        "socket(AF_UNIX)",
        "socket(AF_INET)",
        "socketpair",
        "bind a socket",
        "connect a socket that it has",
        "read /etc/passwd",
        "secret",
        "list the root folder",
        "steelyard-proof",
        "make a folder",
        "make a link",
        "a file in memory",
        "start /bin/true",
        "send the node a signal",
        "hold the node",
        "both writable and code",
        "become dumpable",
        "raise its own limits",
    ];
    let root = [
        "mount a file system",
        "make a network namespace",
        "trace the node",
        "read the node's memory",
        "change its root",
    ];
    let expected = anybody.iter().chain(root.iter().filter(|_| rustix::process::getuid().is_root()));
    for what in expected {
        let found: Vec<_> = attempts.iter().filter(|attempt| attempt.what.contains(what)).collect();
        assert!(!found.is_empty() && found.iter().all(|it| it.refused.is_none()), "{what}: {found:?}");
    }
}

/// A worker's program that finds no user namespaces left.
const NO_NAMESPACES: &str = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$0\" worker";

#[test]
fn a_wall_that_can_not_be_built_is_done_without_by_name_alone() {
    let net = Net::new();
    let program = tests::binary::steelyard();
    let command =
        json!(["/usr/bin/unshare", "--user", "--map-root-user", "/bin/sh", "-c", NO_NAMESPACES, program]);
    let home = publisher(&net, "");
    let config = fs::read_to_string(home.path.join("config.toml")).unwrap();
    let config = config.replace("threads = 2", &format!("threads = 2\ncommand = {command}"));
    fs::write(home.path.join("config.toml"), config).unwrap();
    let node = home.start();
    let problem = node.serve("alba/tiny").unwrap_err().to_string();
    for word in ["namespaces", "max_user_namespaces", "--allow-missing namespaces"] {
        assert!(problem.contains(word), "{problem}");
    }
    let args = ["serve", "alba/tiny", "--detach", "--allow-missing", "namespaces"];
    home.run(&args).expect(1, &["mounts", "--allow-missing mounts"]);
    home.run(&[&args[..], &["--allow-missing", "moat"]].concat()).expect(2, &["moat", "landlock"]);
    home.ok(&[&args[..], &["--allow-missing", "mounts"]].concat()).expect(0, &["without namespaces, mounts"]);
    // What is left holds by itself.
    let said = home.json(&["serve", "alba/tiny", "--prove-sealed"]);
    let refused = |attempt: &Value| attempt["refused"].is_string();
    assert!(said["attempts"].as_array().unwrap().iter().all(refused), "{said}");
}

#[test]
fn a_bit_flipped_on_disk_stops_the_load_and_is_named() {
    let net = Net::new();
    let home = publisher(&net, "");
    let node = home.start();
    flip(&weights(&home));
    let problem = node.serve("alba/tiny").unwrap_err().to_string();
    for word in ["tiny.gguf", "chunk ", "from byte ", "steelyard verify"] {
        assert!(problem.contains(word), "{problem}");
    }
}

/// Whether a process computes no more, though its parent may not have noticed.
fn is_dead(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    // The state follows on the name, which may hold anything.
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

#[test]
fn a_writer_waits_until_the_worker_has_stopped() {
    let net = Net::new();
    let home = publisher(&net, "");
    let node = home.start();
    let ready = node.serve("alba/tiny").unwrap();
    let pid = Pid::from_raw(ready["pid"].as_i64().unwrap() as i32).unwrap();
    let begun = Instant::now();
    flip(&weights(&home));
    // When the file could be opened for writing, nobody computed on it any more.
    let took = begun.elapsed();
    let gone = is_dead(pid) || worker(&node)["state"] != "ready";
    assert!(gone && took < Duration::from_secs(5), "the writer waited for {took:?}");
    let stopped = state(&node, "stopped");
    assert_eq!(stopped["stop"]["cause"], "damaged", "{stopped}");
    let reason = stopped["stop"]["reason"].as_str().unwrap();
    assert!(reason.contains("tiny.gguf") && reason.contains("for writing"), "{reason}");
    // And while somebody has it open for writing, nothing is served from it.
    let _writer = OpenOptions::new().write(true).open(weights(&home)).unwrap();
    let problem = node.serve("alba/tiny").unwrap_err().to_string();
    assert!(problem.contains("open for writing by another process"), "{problem}");
}

#[test]
fn weights_that_rot_while_they_are_served_are_found() {
    // Whoever owns the file may have a lease on it, so a file that belongs to somebody else has none; as root only.
    if !rustix::process::getuid().is_root() {
        eprintln!("needs root");
        return;
    }
    let net = Net::new();
    let home = publisher(&net, "");
    let config = fs::read_to_string(home.path.join("config.toml")).unwrap();
    fs::write(home.path.join("config.toml"), config.replace("threads = 2", "threads = 2\nrehash_secs = 1"))
        .unwrap();
    let node = home.start();
    std::os::unix::fs::chown(weights(&home), Some(54_321), None).unwrap();
    let ready = node.serve("alba/tiny").unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    answers(ready["address"].as_str().unwrap());
    flip(&weights(&home));
    let stopped = state(&node, "stopped");
    assert_eq!(stopped["stop"]["cause"], "damaged", "{stopped}");
    let reason = stopped["stop"]["reason"].as_str().unwrap();
    for word in ["tiny.gguf", "chunk ", "from byte "] {
        assert!(reason.contains(word), "{reason}");
    }
}

fn kill(worker: &Value) {
    let pid = Pid::from_raw(worker["pid"].as_i64().unwrap() as i32).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

#[test]
fn a_killed_worker_is_started_again_and_given_up_at_last() {
    let net = Net::new();
    let home = publisher(&net, "");
    let node = home.start();
    let ready = node.serve("alba/tiny").unwrap();
    let address = ready["address"].as_str().unwrap().to_owned();
    let mut last = ready.clone();
    for times in 1..=5 {
        kill(&last);
        // Whoever connects meanwhile waits, and is answered; only what the dead process had accepted already is lost.
        until("an answer", || Http::tcp(&address).try_request("GET", "/v1/models", None).ok());
        last = until("the worker to be back", || {
            let worker = worker(&node);
            (worker["state"] == "ready" && worker["restarts"] == times).then_some(worker)
        });
        assert_eq!(last["address"], ready["address"], "{last}");
        assert_ne!(last["pid"], ready["pid"], "{last}");
        assert!(last["error"].as_str().unwrap().contains("signal: 9"), "{last}");
    }
    home.ok(&["status"]).expect(0, &["5 restarts after its process died"]);
    kill(&last);
    let failed = state(&node, "failed");
    assert!(failed["error"].as_str().unwrap().contains("is not started again"), "{failed}");
    assert!(Http::tcp(&address).try_request("GET", "/health", None).is_err(), "somebody answers still");
    // The node never noticed more than that.
    let again = node.serve("alba/tiny").unwrap();
    answers(again["address"].as_str().unwrap());
}

#[test]
fn a_worker_holds_nothing_of_its_node() {
    let net = Net::new();
    let home = publisher(&net, "");
    let node = home.start();
    let ready = node.serve("alba/tiny").unwrap();
    let proc = PathBuf::from(format!("/proc/{}", ready["pid"]));
    if !rustix::process::getuid().is_root() {
        eprintln!("needs root");
        return;
    }
    assert_eq!(fs::read(proc.join("environ")).unwrap(), b"", "an environment");
    let status = fs::read_to_string(proc.join("status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    assert_eq!((field("Seccomp:"), field("NoNewPrivs:")), ("2", "1"));
    assert_eq!((field("CapEff:"), field("CapPrm:")), ("0000000000000000", "0000000000000000"));
    for thread in fs::read_dir(proc.join("task")).unwrap().flatten() {
        let status = fs::read_to_string(thread.path().join("status")).unwrap();
        assert!(status.contains("Seccomp:\t2"), "a thread without a filter: {status}");
    }
    for space in ["user", "net", "ipc", "uts", "mnt"] {
        let theirs = fs::read_link(proc.join("ns").join(space)).unwrap();
        assert_ne!(theirs, fs::read_link(format!("/proc/self/ns/{space}")).unwrap(), "{space}");
    }
    // Its root holds nothing but the way to its own descriptors.
    let seen: Vec<_> =
        fs::read_dir(proc.join("root")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(seen, ["proc"]);
    assert!(File::open(proc.join("root/etc/passwd")).is_err());
    // Of files it has the weights and their map, of sockets the listener, its input and what its runtime made.
    let mut files = Vec::new();
    for descriptor in fs::read_dir(proc.join("fd")).unwrap().flatten() {
        let target = fs::read_link(descriptor.path()).unwrap_or_default().to_string_lossy().into_owned();
        if target.starts_with('/') {
            files.push(target);
        }
    }
    assert!(files.iter().all(|file| file.contains("/blobs/")), "{files:?}");
}

#[test]
fn a_receipt_is_verified_offline_and_says_nothing_of_another_answer() {
    let net = Net::new();
    let home = publisher(&net, "");
    let borea = net.nation("borea");
    borea.trust(&home);
    let node = home.start();
    let ready = node.serve("alba/tiny").unwrap();
    let api = Http::tcp(ready["address"].as_str().unwrap());
    let at = |name: &str| net.path().join(name).to_string_lossy().into_owned();
    let asks = [("steelyard-receipt", "yes")];
    let body = json!({ "prompt": "Once", "temperature": 0, "seed": 7, "max_tokens": 4 });
    let whole = api.try_request_with("POST", "/v1/completions", &asks, Some(&body)).unwrap();
    let receipt = whole.header("steelyard-receipt").unwrap().to_owned();
    fs::write(at("question"), body.to_string()).unwrap();
    fs::write(at("answer"), &whole.body).unwrap();
    fs::write(at("head"), format!("HTTP/1.1 200 OK\r\nsteelyard-receipt: {receipt}\r\n\r\n")).unwrap();
    fs::write(at("receipt"), &receipt).unwrap();
    let ours =
        ["verify", "--receipt", &at("head"), "--request", &at("question"), "--response", &at("answer")];
    home.ok(&ours).expect(0, &["alba/tiny@1", "claims", "seed 7", "as given", "proves nothing"]);
    // An ally without a node needs nothing but its folder.
    let said = borea.json(&ours);
    assert_eq!((&said["release"], &said["nation"]), (&ready["release"], &json!("alba")), "{said}");
    let stranger = net.nation("cora");
    stranger.run(&ours).expect(3, &["not pinned"]);
    fs::write(at("other"), body.to_string() + " ").unwrap();
    borea
        .run(&["verify", "--receipt", &at("receipt"), "--request", &at("other")])
        .expect(4, &["not about this request"]);
    borea
        .run(&["verify", "--receipt", &at("receipt"), "--response", &at("other")])
        .expect(4, &["not about this response"]);
    let altered = receipt.replacen("\"sig\":\"", "\"sig\":\"AA", 1);
    fs::write(at("altered"), altered).unwrap();
    assert_eq!(borea.run(&["verify", "--receipt", &at("altered")]).code, 4);

    // A stream carries it in its last event but one.
    let body = json!({ "messages": [{ "role": "user", "content": "Hi" }], "max_tokens": 4, "stream": true });
    let stream = api.try_request_with("POST", "/v1/chat/completions", &asks, Some(&body)).unwrap();
    let text = stream.text();
    let events: Vec<&str> = text.split("\n\n").filter(|event| !event.is_empty()).collect();
    assert_eq!(events.last(), Some(&"data: [DONE]"), "{text}");
    assert!(events[events.len() - 2].starts_with("data: {\"steelyard_receipt\":"), "{text}");
    fs::write(at("stream"), &stream.body).unwrap();
    fs::write(at("question"), body.to_string()).unwrap();
    borea.ok(&[
        "verify",
        "--receipt",
        &at("stream"),
        "--request",
        &at("question"),
        "--response",
        &at("stream"),
    ]);
    let cut = text.replacen(events[1], "data: {}", 1);
    fs::write(at("cut"), cut).unwrap();
    borea
        .run(&["verify", "--receipt", &at("stream"), "--response", &at("cut")])
        .expect(4, &["not about this response"]);

    // Nobody gets one who did not ask, nor for what was no answer.
    let plain = api.request("POST", "/v1/completions", Some(&json!({ "prompt": "Once", "max_tokens": 1 })));
    assert!(plain.header("steelyard-receipt").is_none());
    let wrong =
        api.try_request_with("POST", "/v1/completions", &asks, Some(&json!({ "prompt": 7 }))).unwrap();
    assert!(wrong.status == 400 && wrong.header("steelyard-receipt").is_none());
}
