//! The processes of the demo: three nodes, and the commands that their operators run.

use std::fs::File;
use std::io::{IsTerminal, Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use super::say::{self, Margin, Show};
use super::{NAMES, STOP};
use crate::failure::{Exit, Failure};
use crate::output::{self, BAD, DIM, paint};

/// How long a node may take to come up.
const START: Duration = Duration::from_secs(30);
/// Bytes of a log that are shown after a failure.
const TAIL: u64 = 3000;

/// A process group that ends with its owner.
struct Process {
    child: Child,
    group: Option<Pid>,
}

impl Process {
    fn new(child: Child) -> Self {
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Self { child, group }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, signal);
        }
    }

    /// Asks it to end, and kills it if it does not.
    async fn stop(&mut self) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(STOP, self.child.wait()).await.is_err() {
            self.signal(Signal::KILL);
            let _ = self.child.wait().await;
        }
        self.group = None;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.signal(Signal::KILL);
        }
    }
}

/// One nation's node and folder.
struct Nation {
    name: &'static str,
    home: PathBuf,
    p2p: u16,
    http: u16,
    node: Option<Process>,
}

/// The three nations.
pub(super) struct World {
    dir: PathBuf,
    program: PathBuf,
    nations: Vec<Nation>,
    /// A command in the background, such as `serve`.
    background: Option<(Process, PathBuf)>,
}

/// How a command ended.
pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) output: String,
    pub(super) took: Duration,
}

impl World {
    pub(super) fn new(dir: &Path) -> Result<Self, Failure> {
        // All are held at once, so that no two are the same; let go just before the nodes take them.
        let holders: Vec<TcpListener> =
            (0..2 * NAMES.len()).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let ports: Vec<u16> = holders
            .iter()
            .map(|holder| holder.local_addr().map(|address| address.port()))
            .collect::<Result<_, _>>()?;
        let nations = NAMES
            .into_iter()
            .zip(ports.chunks(2))
            .map(|(name, pair)| Nation {
                name,
                home: dir.join(name),
                p2p: pair[0],
                http: pair[1],
                node: None,
            })
            .collect();
        Ok(Self { dir: dir.to_owned(), program: std::env::current_exe()?, nations, background: None })
    }

    fn nation(&self, name: &str) -> Result<&Nation, Failure> {
        let found = self.nations.iter().find(|nation| nation.name == name);
        found.ok_or_else(|| Failure::new(Exit::Other, format!("there is no nation {name} in this demo")))
    }

    pub(super) fn home(&self, name: &str) -> Result<PathBuf, Failure> {
        Ok(self.nation(name)?.home.clone())
    }

    pub(super) fn ports(&self, name: &str) -> Result<(u16, u16), Failure> {
        let nation = self.nation(name)?;
        Ok((nation.p2p, nation.http))
    }

    fn command(&self, name: &str, words: &[String]) -> Result<Command, Failure> {
        let mut command = Command::new(&self.program);
        let colour = if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
            "always"
        } else {
            "never"
        };
        command
            .args(words)
            .args(["--color", colour])
            .current_dir(&self.dir)
            .env("STEELYARD_HOME", &self.nation(name)?.home)
            // The operators of this world have no settings of their own.
            .env_remove("STEELYARD_CONFIG")
            .env_remove("STEELYARD_LISTEN")
            .env_remove("STEELYARD_HTTP")
            .env_remove("STEELYARD_PEERS")
            .env_remove("STEELYARD_EXTERNAL")
            .env_remove("STEELYARD_KEYS")
            .env_remove("STEELYARD_WEIGHTS")
            .stdin(Stdio::null())
            .process_group(0);
        Ok(command)
    }

    /// Runs a command of an operator, printing it and what it says as it says it.
    pub(super) async fn run(&self, name: &str, words: &[&str], show: Show) -> Result<Ended, Failure> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        say::command(name, &words)?;
        let started = Instant::now();
        let mut command = self.command(name, &words)?;
        let mut process = Process::new(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
        let (Some(mut stdout), Some(mut stderr)) = (process.child.stdout.take(), process.child.stderr.take())
        else {
            return Err(Failure::new(Exit::Other, "a command's output could not be read"));
        };
        let (mut margin, mut whole) = (Margin::new(show), Vec::new());
        let (mut out, mut err) = (vec![0; 8192], vec![0; 8192]);
        let (mut out_open, mut err_open) = (true, true);
        // A character may be cut at the end of a piece: it waits for its rest.
        let mut pending: Vec<u8> = Vec::new();
        while out_open || err_open {
            let piece: &[u8] = tokio::select! {
                n = stdout.read(&mut out), if out_open => { let n = n?; out_open = n > 0; &out[..n] }
                n = stderr.read(&mut err), if err_open => { let n = n?; err_open = n > 0; &err[..n] }
            };
            whole.extend_from_slice(piece);
            pending.extend_from_slice(piece);
            let good = match std::str::from_utf8(&pending) {
                Ok(text) => text.len(),
                Err(error) => error.valid_up_to(),
            };
            let rest = pending.split_off(good);
            margin.write(&String::from_utf8_lossy(&pending))?;
            pending = rest;
        }
        margin.end()?;
        let status = process.child.wait().await?;
        process.group = None;
        Ok(Ended {
            code: status.code().unwrap_or(-1),
            output: String::from_utf8_lossy(&whole).into_owned(),
            took: started.elapsed(),
        })
    }

    /// Runs a command that must succeed.
    pub(super) async fn expect(&self, name: &str, words: &[&str], show: Show) -> Result<Ended, Failure> {
        let ended = self.run(name, words, show).await?;
        if ended.code == 0 {
            return Ok(ended);
        }
        let said =
            if matches!(show, Show::All) { String::new() } else { format!(": {}", ended.output.trim()) };
        Err(Failure::new(
            Exit::Other,
            format!("`steelyard {}` at {name} ended with exit code {}{said}", words.join(" "), ended.code),
        ))
    }

    /// Asks silently for a JSON document.
    pub(super) async fn ask(&self, name: &str, words: &[&str]) -> Result<Value, Failure> {
        let mut all: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        all.push("--json".to_owned());
        let output = self.command(name, &all)?.stderr(Stdio::null()).output().await?;
        serde_json::from_slice(&output.stdout).map_err(|error| {
            Failure::new(Exit::Other, format!("`steelyard {}` at {name}: {error}", all.join(" ")))
        })
    }

    /// Starts a nation's node and waits until it is up.
    pub(super) async fn start(&mut self, name: &str) -> Result<(), Failure> {
        let words = vec!["--json".to_owned(), "node".to_owned()];
        let (out, log) = (self.dir.join(format!("{name}.out")), self.dir.join(format!("{name}.log")));
        let mut command = self.command(name, &words)?;
        let child = command.stdout(File::create(&out)?).stderr(File::create(&log)?).spawn()?;
        if let Some(nation) = self.nations.iter_mut().find(|nation| nation.name == name) {
            nation.node = Some(Process::new(child));
        }
        let started = Instant::now();
        loop {
            let text = std::fs::read_to_string(&out).unwrap_or_default();
            if text.lines().next().is_some_and(|line| serde_json::from_str::<Value>(line).is_ok()) {
                return Ok(());
            }
            let gone = self.nations.iter_mut().filter(|nation| nation.name == name).any(|nation| {
                nation.node.as_mut().is_none_or(|node| !matches!(node.child.try_wait(), Ok(None)))
            });
            if gone || started.elapsed() > START {
                return Err(Failure::new(Exit::Other, format!("the node of {name} did not come up")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts a command in the background.
    pub(super) fn background(&mut self, name: &str, words: &[&str]) -> Result<(), Failure> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        say::command(name, &words)?;
        let path = self.dir.join(format!("{name}-background.out"));
        let file = File::create(&path)?;
        let child = self.command(name, &words)?.stdout(file.try_clone()?).stderr(file).spawn()?;
        self.background = Some((Process::new(child), path));
        Ok(())
    }

    /// What the background command has said so far.
    pub(super) fn said(&self) -> String {
        let path = self.background.as_ref().map(|(_, path)| path.clone());
        path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
    }

    /// Whether the background command is over.
    pub(super) fn background_is_over(&mut self) -> Option<i32> {
        let (process, _) = self.background.as_mut()?;
        match process.child.try_wait() {
            Ok(Some(status)) => {
                process.group = None;
                Some(status.code().unwrap_or(-1))
            }
            _ => None,
        }
    }

    /// Lets the nodes live on after this command.
    pub(super) fn leave(&mut self) {
        for nation in &mut self.nations {
            if let Some(mut process) = nation.node.take() {
                // Without a group, dropping it signals nobody.
                process.group = None;
            }
        }
    }

    /// Stops everything.
    pub(super) async fn stop(&mut self) {
        if let Some((mut process, _)) = self.background.take() {
            process.stop().await;
        }
        let nodes = self.nations.iter_mut().filter_map(|nation| nation.node.take());
        let stops = nodes.map(|mut process| async move { process.stop().await });
        futures::future::join_all(stops).await;
    }

    /// Prints the ends of the nodes' logs.
    pub(super) fn show_logs(&self) {
        for nation in &self.nations {
            let path = self.dir.join(format!("{}.log", nation.name));
            let tail = tail(&path).unwrap_or_default();
            if !tail.trim().is_empty() {
                output::note(format!(
                    "\n{} {}\n{}",
                    paint(BAD, "log of"),
                    nation.name,
                    paint(DIM, tail.trim_end())
                ));
            }
        }
    }
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
