//! Nations, their data folders, and their running nodes.

use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binary;
use crate::http::Http;
use crate::wait::{self, until};

/// A command that does not end by then hangs.
const COMMAND_LIMIT: Duration = Duration::from_secs(180);
/// A node starts by then: it opens its store and its sockets.
const START_LIMIT: Duration = Duration::from_secs(30);
/// A node that was asked to ends by then.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A temporary folder in which nations live.
#[derive(Debug)]
pub struct Net {
    dir: TempDir,
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}

impl Net {
    /// An empty folder in the system's place for temporary files.
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("steelyard-").tempdir().expect("a temporary folder") }
    }

    /// An empty folder below `parent`.
    pub fn under(parent: &Path) -> Self {
        Self {
            dir: tempfile::Builder::new()
                .prefix("steelyard-")
                .tempdir_in(parent)
                .expect("a temporary folder"),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A folder in it, made.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(&path).expect("a folder");
        path
    }

    /// A nation with its first node, initialised and set to loopback with ports that the system chooses.
    pub fn nation(&self, name: &str) -> Home {
        let home =
            Home { nation: name.to_owned(), path: self.path().join(name), env: Vec::new(), netns: None };
        home.ok(&["init", "--nation", name]);
        home.configure(&Settings::default());
        home
    }

    /// Nations that all pin each other.
    pub fn allies<const N: usize>(&self, names: [&str; N]) -> [Home; N] {
        let homes = names.map(|name| self.nation(name));
        for one in &homes {
            for other in &homes {
                if one.nation != other.nation {
                    one.trust(other);
                }
            }
        }
        homes
    }
}

/// What a test may set in a node's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Multiaddr to listen on for peers.
    pub p2p: String,
    /// Peers to stay connected with, as multiaddrs that end in `/p2p/ID`.
    pub peers: Vec<String>,
    /// Address of the read-only HTTP interface.
    pub http: String,
    /// Further lines of TOML.
    pub more: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            p2p: "/ip4/127.0.0.1/tcp/0".to_owned(),
            peers: Vec::new(),
            http: "127.0.0.1:0".to_owned(),
            more: String::new(),
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Run {
    /// What was run, for messages.
    pub command: String,
    /// The exit code; 128 and the signal's number when a signal ended it.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Run {
    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }

    /// Panics unless the command ended with `code` and said each of `words` on standard error or output.
    #[track_caller]
    pub fn expect(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, code, "{self}");
        for word in words {
            assert!(
                self.stderr.contains(word) || self.stdout.contains(word),
                "`{word}` was not said by {self}"
            );
        }
        assert!(!self.stderr.contains("panicked"), "{self}");
        self
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, code, stdout, stderr, .. } = self;
        write!(f, "`{command}` ended with {code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// One nation's data folder.
#[derive(Debug, Clone)]
pub struct Home {
    /// The nation.
    pub nation: String,
    /// The folder.
    pub path: PathBuf,
    /// Further environment of its processes.
    pub env: Vec<(String, String)>,
    /// The network namespace that its processes run in (`ip netns exec`); the caller's own where there is none.
    pub netns: Option<String>,
}

impl Home {
    /// A command of `steelyard` on this folder, with an environment that holds nothing of the caller's settings.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match &self.netns {
            None => Command::new(binary::steelyard()),
            // `ip` becomes the program that it runs, so that the process identifier is the program's own.
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(binary::steelyard());
                command
            }
        };
        command.args(args).stdin(Stdio::null()).current_dir(self.path.parent().expect("a parent"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.path.parent().expect("a parent")).env("STEELYARD_HOME", &self.path);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Run {
        run(self.command(args), COMMAND_LIMIT)
    }

    /// Recalls a release.
    #[track_caller]
    pub fn recall(&self, what: &str, reason: &str, severity: &str) -> Run {
        self.ok(&["recall", what, "--reason", reason, "--severity", severity, "--yes"])
    }

    /// Runs a command that must succeed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> Run {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{run}");
        run
    }

    /// Runs a command with `--json` that must succeed, and reads what it says.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.push("--json");
        self.ok(&all).json()
    }

    /// Writes `config.toml`.
    pub fn configure(&self, settings: &Settings) {
        let Settings { p2p, peers, http, more } = settings;
        let text = format!(
            "[p2p]\nlisten = [\"{p2p}\"]\npeers = {peers:?}\nredial_secs = 1\nsync_secs = 2\n\n[http]\nlisten = \"{http}\"\n\n\
             [worker]\nlisten = \"127.0.0.1:0\"\nthreads = 2\n\n{more}"
        );
        fs::write(self.path.join("config.toml"), text).expect("write config.toml");
    }

    /// The file that other nations are given.
    pub fn nation_file(&self) -> PathBuf {
        self.path.join("nation.json")
    }

    /// The fingerprint of the nation's root: `b3:` and its payload's digest.
    pub fn fingerprint(&self) -> String {
        let text = fs::read(self.path.join("root.json")).expect("root.json");
        registry::Signed::parse(&text).expect("a signed root").digest().to_string()
    }

    /// Pins `other` by its fingerprint.
    #[track_caller]
    pub fn trust(&self, other: &Home) {
        let file = other.nation_file();
        self.ok(&["trust", "add", file.to_str().expect("UTF-8"), "--fingerprint", &other.fingerprint()]);
    }

    /// Publishes `folder` as `name` version `version` with further arguments; answers the release's digest.
    #[track_caller]
    pub fn publish(&self, folder: &Path, name: &str, version: &str, more: &[&str]) -> String {
        let model = format!("{}/{name}", self.nation);
        let mut args = vec![
            "publish",
            folder.to_str().expect("UTF-8"),
            "--as",
            &model,
            "--version",
            version,
            "--licence",
            "Apache-2.0",
        ];
        args.extend(more);
        let said = self.json(&args);
        said["release"].as_str().unwrap_or_else(|| panic!("no release in {said}")).to_owned()
    }

    /// Starts the node and waits until it is ready.
    #[track_caller]
    pub fn start(&self) -> Daemon {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path.with_extension("log"))
            .expect("a log file");
        let mut command = self.command(&["node"]);
        command.stdout(log.try_clone().expect("the log file")).stderr(log).process_group(0);
        let child = command.spawn().expect("start a node");
        let mut daemon = Daemon { home: self.clone(), child, http: Http::of_home(&self.path), tcp: None };
        let start = Instant::now();
        loop {
            if let Some(status) = daemon.child.try_wait().expect("the node's state") {
                panic!("the node of {} ended with {status}:\n{}", self.nation, daemon.log());
            }
            if daemon.http.try_request("GET", "/readyz", None).is_ok_and(|reply| reply.status == 200) {
                break;
            }
            assert!(start.elapsed() < START_LIMIT, "{} is not ready:\n{}", self.nation, daemon.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        daemon.tcp = daemon.status()["http"].as_str().map(Http::tcp);
        daemon
    }

    /// Starts the node and keeps the ports that it got for its next start.
    #[track_caller]
    pub fn start_with_fixed_ports(&self, more: &str) -> Daemon {
        self.configure(&Settings { more: more.to_owned(), ..Settings::default() });
        let daemon = self.start();
        let address = daemon.address();
        let p2p = address.split_once("/p2p/").map_or(address.as_str(), |(front, _)| front).to_owned();
        let http = match daemon.public() {
            Http::Tcp(address) => address.clone(),
            Http::Unix(_) => "127.0.0.1:0".to_owned(),
        };
        self.configure(&Settings { p2p, http, more: more.to_owned(), ..Settings::default() });
        daemon
    }

    /// What lies in the folder, by name and size, without what changes by itself: to show that nothing changed.
    pub fn listing(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut folders = vec![self.path.join("store/blobs"), self.path.join("store/partial")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push((path.clone(), path.metadata().map_or(0, |meta| meta.len())));
                }
            }
        }
        found.sort();
        found
    }
}

/// Runs `command` to its end, for at most `limit`.
pub fn run(mut command: Command, limit: Duration) -> Run {
    let name =
        Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let text = format!("{name} {}", args.join(" "));
    let start = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    let stdout = collect(child.stdout.take().expect("a pipe"));
    let stderr = collect(child.stderr.take().expect("a pipe"));
    let status = loop {
        if let Some(status) = child.try_wait().expect("the command's state") {
            break status;
        }
        if start.elapsed() > limit {
            kill_group(&child, Signal::KILL);
            let _ = child.wait();
            panic!("`{text}` did not end within {limit:?}\n{}", stderr.join().unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    let stdout = stdout.join().unwrap_or_default();
    let stderr = stderr.join().unwrap_or_default();
    Run { command: text, code, stdout, stderr, took: start.elapsed() }
}

fn collect(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn kill_group(child: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, signal);
    }
}

/// A running node in its own process group; it and its workers are killed when it goes.
#[derive(Debug)]
pub struct Daemon {
    /// Whose node it is.
    pub home: Home,
    /// The socket that may do everything.
    pub http: Http,
    /// The read-only interface.
    pub tcp: Option<Http>,
    child: Child,
}

impl Daemon {
    /// Its process identifier.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `GET /v1/status`.
    pub fn status(&self) -> Value {
        self.http.get("/v1/status")
    }

    /// The read-only interface; panics when there is none.
    pub fn public(&self) -> &Http {
        self.tcp.as_ref().expect("a read-only interface")
    }

    /// The first address on which it listens for peers, with `/p2p/ID`.
    pub fn address(&self) -> String {
        until("an address to listen on", || Some(self.status()["addresses"].get(0)?.as_str()?.to_owned()))
    }

    /// Its libp2p identifier.
    pub fn peer_id(&self) -> String {
        self.status()["peer_id"].as_str().expect("a peer identifier").to_owned()
    }

    /// Dials `other` and waits until both know each other.
    #[track_caller]
    pub fn connect(&self, other: &Daemon) {
        self.http.post("/v1/peers", &json!({ "address": other.address() }));
        let (me, them) = (self.peer_id(), other.peer_id());
        until("two nodes to know each other", || (self.knows(&them) && other.knows(&me)).then_some(()));
    }

    /// Pins `other` at this node while it runs, as `trust add` does.
    #[track_caller]
    pub fn pin(&self, other: &Home) {
        let file: Value = serde_json::from_slice(&fs::read(other.nation_file()).expect("a nation file"))
            .expect("a nation file in JSON");
        self.http.post("/v1/nations", &json!({ "file": file, "fingerprint": other.fingerprint() }));
    }

    /// Whether a peer is connected.
    pub fn knows(&self, peer: &str) -> bool {
        let peers = self.http.get("/v1/peers");
        peers.as_array().is_some_and(|list| list.iter().any(|entry| entry["peer_id"] == peer))
    }

    /// Dials `other`, which must not be let in or must not let us in.
    #[track_caller]
    pub fn connect_refused(&self, other: &Daemon) {
        let reply = self.http.request("POST", "/v1/peers", Some(&json!({ "address": other.address() })));
        assert!(reply.status >= 400, "{}", reply.text());
        assert!(!self.knows(&other.peer_id()));
    }

    /// Pulls by the HTTP interface: what `done` said, or the problem.
    pub fn pull(&self, reference: &str) -> Result<Value, Value> {
        self.http
            .events("POST", "/v1/pull", Some(&json!({ "reference": reference })))
            .outcome(Duration::from_secs(300))
    }

    /// Starts a worker and waits until it is ready: what `done` said, or the problem.
    pub fn serve(&self, reference: &str) -> Result<Value, Value> {
        let body = json!({ "reference": reference, "listen": "127.0.0.1:0" });
        self.http.events("POST", "/v1/workers", Some(&body)).outcome(Duration::from_secs(180))
    }

    /// The newest lines of its log.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.home.path.with_extension("log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// Ends it as a power cut would end the process: SIGKILL, to its workers too.
    pub fn kill(mut self) {
        kill_group(&self.child, Signal::KILL);
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM) and waits; answers its exit code.
    pub fn stop(mut self) -> i32 {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process");
        let _ = rustix::process::kill_process(pid, Signal::TERM);
        let child = &mut self.child;
        let status =
            wait::within(STOP_LIMIT, "the node to end", || child.try_wait().expect("the node's state"));
        status.code().unwrap_or(-1)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        kill_group(&self.child, Signal::KILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.home.nation, self.log());
        }
    }
}
