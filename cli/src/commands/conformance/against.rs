//! Another implementation, spoken to over its standard input and output, one JSON object a line.

use std::io::ErrorKind;
use std::process::Stdio;
use std::time::Duration;

use registry::conformance::{Outcome, Vector};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::failure::{Exit, Failure};

/// How long an implementation may take over one vector: a slow language and the longest input (48 MiB).
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest answer, in bytes: the values of the largest vector, many times over.
const MAX_ANSWER: u64 = 4 * 1024 * 1024;

#[derive(Serialize)]
struct Request<'a> {
    id: usize,
    kind: &'a str,
    input: &'a Value,
}

#[derive(Deserialize)]
struct Answer {
    id: usize,
    #[serde(default)]
    ok: Option<Value>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    unsupported: bool,
}

/// The other implementation.
pub(super) struct Other {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    asked: usize,
}

impl Other {
    /// Starts `command` with the shell.
    pub(super) fn start(command: &str) -> Result<Self, Failure> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::new(Exit::Other, format!("could not start `{command}`: {error}")))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => {
                Ok(Self { child, input, output: BufReader::new(output), asked: 0 })
            }
            _ => Err(Failure::new(Exit::Other, "its standard input and output can't be had")),
        }
    }

    /// Its answer; nothing when it does not support the kind.
    pub(super) async fn ask(&mut self, vector: &Vector) -> Result<Option<Outcome>, Failure> {
        self.asked += 1;
        let request = Request { id: self.asked, kind: &vector.kind, input: &vector.input };
        let mut line = serde_json::to_vec(&request).map_err(|error| Failure::new(Exit::Other, error))?;
        line.push(b'\n');
        let exchange = async {
            self.input.write_all(&line).await?;
            self.input.flush().await?;
            let mut answer = Vec::new();
            (&mut self.output).take(MAX_ANSWER).read_until(b'\n', &mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let wrong = |why: String| {
            let message = format!("the other implementation, asked about “{}”: {why}", vector.title);
            Failure::new(Exit::Verification, message)
                .help("it must answer each line of its input with one line; specs/vectors/README.md says how")
        };
        let answer = match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(Ok(answer)) if answer.is_empty() => return Err(wrong("it ended".to_owned())),
            Ok(Ok(answer)) => answer,
            // It had ended before it was asked.
            Ok(Err(error)) if error.kind() == ErrorKind::BrokenPipe => {
                return Err(wrong("it ended".to_owned()));
            }
            Ok(Err(error)) => return Err(wrong(error.to_string())),
            Err(_) => return Err(wrong(format!("no answer within {} s", PATIENCE.as_secs()))),
        };
        let answer: Answer = serde_json::from_slice(&answer)
            .map_err(|error| wrong(format!("its answer can't be read: {error}")))?;
        if answer.id != self.asked {
            return Err(wrong(format!("it answered {} when {} was asked", answer.id, self.asked)));
        }
        match (answer.ok, answer.error, answer.unsupported) {
            (None, None, true) => Ok(None),
            (Some(ok), None, false) => Ok(Some(Ok(ok))),
            (None, Some(error), false) => Ok(Some(Err(error))),
            _ => Err(wrong("exactly one of `ok`, `error` and `unsupported` is expected".to_owned())),
        }
    }

    /// Lets it end.
    pub(super) async fn close(mut self) {
        drop(self.input);
        let _ = tokio::time::timeout(Duration::from_secs(2), self.child.wait()).await;
    }
}
