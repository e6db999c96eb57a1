//! A worker's process: how it is started, and the lines on its pipes.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Pair;
use std::process::Stdio;
use std::time::Duration;

use registry::serving::hand::Hand;
use registry::serving::{MAX_LINE, Report};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::ServingError;

/// Longest line of a worker's log that is kept.
const MAX_LOG_LINE: u64 = 8 * 1024;
/// A worker that does not take a line within this has other troubles.
const LINE_TIMEOUT: Duration = Duration::from_secs(1);

/// A started worker.
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) orders: Orders,
    pub(super) reports: BufReader<ChildStdout>,
}

/// The way of the node's lines to a worker: its standard input.
pub(super) struct Orders(UnixStream);

/// Starts the program with nothing of this process's environment, in a process group of its own, so that a Ctrl-C in the
/// node's terminal reaches the node alone. What it is handed waits in its standard input; its log goes to ours, as `id`'s.
pub(super) fn spawn(command: &[String], hand: &Hand, id: u64) -> Result<Process, ServingError> {
    let (program, arguments) = match command {
        [program, arguments @ ..] => (OsString::from(program), arguments.to_vec()),
        [] => {
            let own = std::env::current_exe()
                .map_err(|source| ServingError::Spawn { program: "this program".to_owned(), source })?;
            (own.into_os_string(), vec!["worker".to_owned()])
        }
    };
    let start = || {
        let (ours, theirs) = Pair::pair()?;
        hand.send(&ours)?;
        ours.set_nonblocking(true)?;
        let mut child = Command::new(&program)
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(io::Error::other("its pipes could not be opened"));
        };
        tokio::spawn(log(id, stderr));
        Ok(Process { child, orders: Orders(UnixStream::from_std(ours)?), reports: BufReader::new(stdout) })
    };
    start().map_err(|source| ServingError::Spawn { program: program.to_string_lossy().into_owned(), source })
}

/// Bytes of memory that a process has at the moment, files that it maps included.
pub(super) fn memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

impl Orders {
    /// Writes a line, however long that takes.
    pub(super) async fn send(&mut self, line: &impl serde::Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.0.write_all(&text).await?;
        self.0.flush().await
    }

    /// Writes a line, or gives up on a worker that does not take it.
    pub(super) async fn send_soon(&mut self, line: &impl serde::Serialize) -> io::Result<()> {
        tokio::time::timeout(LINE_TIMEOUT, self.send(line)).await?
    }
}

/// One line of at most `limit` bytes; `None` at the end.
async fn line(reader: &mut (impl AsyncBufRead + Unpin), limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    (&mut *reader).take(limit).read_until(b'\n', &mut text).await?;
    match text.last() {
        None => Ok(None),
        Some(b'\n') => {
            text.pop();
            Ok(Some(text))
        }
        Some(_) if text.len() as u64 == limit => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"))
        }
        Some(_) => Ok(Some(text)),
    }
}

/// The next report. Cancelled between two lines at most: a half-read line is lost only when the worker is stopped.
pub(super) async fn next(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Report>> {
    match line(reader, MAX_LINE as u64).await? {
        Some(text) => Ok(Some(serde_json::from_slice(&text)?)),
        None => Ok(None),
    }
}

/// Takes a worker's standard error into the node's log.
async fn log(id: u64, stderr: ChildStderr) {
    let mut reader = BufReader::new(stderr);
    loop {
        match line(&mut reader, MAX_LOG_LINE).await {
            Ok(Some(text)) => {
                tracing::info!(target: "worker", worker = id, "{}", String::from_utf8_lossy(&text).trim_end());
            }
            Ok(None) => return,
            // Too long a line is dropped in pieces.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
            Err(_) => return,
        }
    }
}
