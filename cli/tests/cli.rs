//! The command line as a process: help, exit codes, JSON, all-or-nothing, closed pipes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A folder of this test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("steelyard-cli-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn steelyard(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steelyard"));
    command.env_clear().env("HOME", home).env("STEELYARD_HOME", home).stdin(Stdio::null());
    command
}

fn run(home: &Path, words: &[&str]) -> Output {
    steelyard(home).args(words).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(home: &Path, words: &[&str]) -> Value {
    let mut all = vec!["--json"];
    all.extend(words);
    let output = run(home, &all);
    assert_eq!(code(&output), 0, "{words:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A nation whose node would listen on ports that the system chooses.
fn nation(home: &Path, name: &str) -> Value {
    json(home, &["init", "--nation", name, "--listen", "/ip4/127.0.0.1/tcp/0", "--http", "127.0.0.1:0"])
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let folder = Folder::new("help");
    let commands = [
        "init",
        "node",
        "publish",
        "pull",
        "ls",
        "show",
        "verify",
        "serve",
        "chat",
        "recall",
        "pin",
        "unpin",
        "gc",
        "export",
        "import",
        "status",
        "peers",
        "transfers",
        "doctor",
        "demo",
        "completion",
    ];
    for command in commands {
        let output = run(&folder.0, &["help", command]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(code(&output), 0, "{command}");
        assert!(
            text.contains("Example") && text.contains(&format!("steelyard {command}")),
            "{command}: {text}"
        );
        assert!(text.contains("Usage:") && text.contains("--json"), "{command}: {text}");
    }
    for action in ["add", "ls", "show", "rm"] {
        let output = run(&folder.0, &["help", "trust", action]);
        assert!(
            String::from_utf8_lossy(&output.stdout).contains(&format!("steelyard trust {action}")),
            "{action}"
        );
    }
    let codes = run(&folder.0, &["help", "exit-codes"]);
    assert!(String::from_utf8_lossy(&codes.stdout).contains("  5  refused by policy"));
}

#[test]
fn exit_codes_tell_failures_apart() {
    let folder = Folder::new("codes");
    let home = folder.0.join("alba");
    assert_eq!(code(&run(&home, &["pull", "not a reference"])), 2);
    assert_eq!(code(&run(&home, &["frobnicate"])), 2);
    let unfinished = run(&home, &["pull"]);
    assert_eq!(code(&unfinished), 2);
    let told = run(&home, &["--json", "pull"]);
    let problem: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((code(&told), problem["code"].as_str()), (2, Some("usage")));
    assert!(problem["detail"].as_str().unwrap().contains("<REFERENCE>"), "{problem}");
    // What the environment gives is not asked for.
    assert!(stderr(&unfinished).contains("Usage: steelyard pull") && !stderr(&unfinished).contains("--home"));
    let none = run(&home, &["ls"]);
    assert_eq!(code(&none), 3);
    assert!(stderr(&none).contains("help: make one with `steelyard init"), "{}", stderr(&none));
    nation(&home, "alba");
    assert_eq!(code(&run(&home, &["show", "alba/nothing"])), 3);
    assert_eq!(code(&run(&home, &["pin", "alba/nothing"])), 3);
    assert_eq!(code(&run(&home, &["peers"])), 6);
    assert_eq!(code(&run(&home, &["init", "--nation", "alba"])), 7);
    assert_eq!(code(&run(&home, &["trust", "rm", "alba"])), 2);
    assert_eq!(code(&run(&home, &["trust", "rm", "borea"])), 3);

    // What runs code when it is loaded is refused, and what has no licence is asked about.
    let weights = folder.0.join("weights");
    std::fs::create_dir(&weights).unwrap();
    std::fs::write(weights.join("model.bin"), b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.").unwrap();
    let publish = ["publish", weights.to_str().unwrap(), "--as", "alba/m", "--version", "1"];
    assert_eq!(code(&run(&home, &publish)), 5, "{}", stderr(&run(&home, &publish)));
    std::fs::remove_file(weights.join("model.bin")).unwrap();
    std::fs::write(weights.join("notes.txt"), b"hello").unwrap();
    let unlicensed = run(&home, &publish);
    assert_eq!(code(&unlicensed), 2);
    assert!(stderr(&unlicensed).contains("--licence"));
    let foreign =
        ["publish", weights.to_str().unwrap(), "--as", "borea/m", "--version", "1", "--licence", "MIT"];
    assert_eq!(code(&run(&home, &foreign)), 2);
}

#[test]
fn a_machine_reads_every_answer() {
    let folder = Folder::new("json");
    let home = folder.0.join("alba");
    let made = nation(&home, "alba");
    assert_eq!(made["nation"], "alba");
    let weights = folder.0.join("weights");
    std::fs::create_dir(&weights).unwrap();
    std::fs::write(weights.join("notes.txt"), b"hello").unwrap();
    let path = weights.to_str().unwrap();
    let published = json(&home, &["publish", path, "--as", "alba/m", "--version", "1", "--licence", "MIT"]);
    assert_eq!((&published["sequence"], &published["announced"]), (&1.into(), &false.into()));
    assert_eq!(json(&home, &["ls"])[0]["model"], "alba/m");
    assert_eq!(json(&home, &["show", "alba/m"])["release"], published["release"]);
    assert_eq!(json(&home, &["status"])["fingerprint"], made["fingerprint"]);
    assert_eq!(json(&home, &["verify", "alba/m@1"])["sound"], true);
    assert_eq!(json(&home, &["trust", "ls"])[0]["own"], true);
    assert_eq!(json(&home, &["trust", "show", "alba"])["nation"], "alba");
    assert_eq!(json(&home, &["pin", "alba/m", "--reason", "why not"])["reason"], "why not");
    assert_eq!(json(&home, &["unpin", "alba/m"])["release"], published["release"]);
    let gc = json(&home, &["gc", "--dry-run"]);
    assert_eq!((&gc["dry_run"], &gc["releases"]), (&true.into(), &serde_json::json!([])));
    assert!(json(&home, &["doctor"]).is_array());
    let bundle = folder.0.join("m.steelyard");
    json(&home, &["export", "alba/m", bundle.to_str().unwrap()]);
    assert_eq!(json(&home, &["import", bundle.to_str().unwrap()])["decision"]["allowed"], true);
    let recall = json(&home, &["recall", "alba/m", "--reason", "a test", "--yes"]);
    assert_eq!((&recall["sequence"], &recall["binds_allies"]), (&1.into(), &true.into()));
    assert_eq!(json(&home, &["show", "alba/m"])["decision"]["allowed"], false);
    let refused = run(&home, &["--json", "serve", "alba/m"]);
    let problem: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!((code(&refused), problem["code"].as_str()), (5, Some("policy_refused")));
    // A version is never reused.
    let again = run(&home, &["publish", path, "--as", "alba/m", "--version", "1", "--licence", "MIT"]);
    assert_eq!(code(&again), 7);
}

#[test]
fn noise_is_refused_without_being_repeated() {
    let folder = Folder::new("noise");
    let home = folder.0.join("alba");
    nation(&home, "alba");
    let noise = folder.0.join("noise.steelyard");
    let bytes: Vec<u8> = (0u32..4096).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80).collect();
    std::fs::write(&noise, bytes).unwrap();
    let refused = run(&home, &["import", noise.to_str().unwrap()]);
    let said = stderr(&refused);
    assert_eq!(code(&refused), 4, "{said}");
    assert!(
        said.contains("`steelyard export`") && said.chars().all(|c| c == '\n' || !c.is_control()),
        "{said}"
    );
    assert!(said.is_ascii(), "{said}");
}

#[test]
fn init_makes_all_or_nothing() {
    let folder = Folder::new("init");
    let home = folder.0.join("alba");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("mine.txt"), "mine").unwrap();
    assert_eq!(code(&run(&home, &["init", "--nation", "alba"])), 7);
    let left: Vec<_> = std::fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["mine.txt"]);
    std::fs::remove_file(home.join("mine.txt")).unwrap();
    assert_eq!(code(&run(&home, &["init", "--nation", "alba", "--listen", "nonsense"])), 2);
    assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0);
    nation(&home, "alba");
    use std::os::unix::fs::PermissionsExt;
    for (path, mode) in [("keys", 0o700), ("keys/root.key", 0o600), ("keys/peer.key", 0o600)] {
        assert_eq!(std::fs::metadata(home.join(path)).unwrap().permissions().mode() & 0o777, mode, "{path}");
    }
    let beside: Vec<_> =
        std::fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside, ["alba"]);

    // A further node of the nation has the same fingerprint, another peer, and none of the nation's keys.
    let second = folder.0.join("alba-2");
    let joined =
        json(&second, &["init", "--join", home.to_str().unwrap(), "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let first = json(&home, &["status"]);
    assert_eq!(joined["fingerprint"], first["fingerprint"]);
    assert_ne!(joined["peer_id"], first["peer_id"]);
    assert!(!second.join("keys/root.key").exists() && second.join("keys/peer.key").exists());
}

#[test]
fn trust_is_not_given_by_a_script_that_compared_nothing() {
    let folder = Folder::new("trust");
    let (alba, borea) = (folder.0.join("alba"), folder.0.join("borea"));
    nation(&alba, "alba");
    let fingerprint = nation(&borea, "borea")["fingerprint"].as_str().unwrap().to_owned();
    let file = borea.join("nation.json").display().to_string();
    let unasked = run(&alba, &["trust", "add", &file]);
    assert_eq!(code(&unasked), 2);
    assert!(stderr(&unasked).contains(&fingerprint));
    let wrong = format!("b3:{}", "0".repeat(64));
    assert_eq!(code(&run(&alba, &["trust", "add", &file, "--fingerprint", &wrong])), 4);
    assert_eq!(json(&alba, &["trust", "ls"]).as_array().unwrap().len(), 1);
    let spaced = fingerprint
        .replace("b3:", "")
        .as_bytes()
        .chunks(4)
        .fold(String::new(), |text, group| text + std::str::from_utf8(group).unwrap() + " ");
    assert_eq!(json(&alba, &["trust", "add", &file, "--fingerprint", &spaced])["nation"], "borea");
    assert_eq!(json(&alba, &["trust", "ls"]).as_array().unwrap().len(), 2);
    let gone = json(&alba, &["trust", "rm", "borea"]);
    assert_eq!((&gone["nation"], &gone["fingerprint"]), (&"borea".into(), &fingerprint.as_str().into()));
    assert_eq!(json(&alba, &["trust", "ls"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let folder = Folder::new("pipe");
    for words in [&["completion", "bash"][..], &["help", "exit-codes"], &["help", "pull"]] {
        let mut child =
            steelyard(&folder.0).args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.code(), said.as_str()), (Some(0), ""), "{words:?}");
    }
}
