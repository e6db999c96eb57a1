//! A blocking HTTP client for the node's Unix socket and for TCP, with server-sent events.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::runtime::Runtime;

/// One answer may take this long: a command on a busy machine, not a transfer.
const TIMEOUT: Duration = Duration::from_secs(60);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
});

/// The runtime on which the harness does its own I/O.
pub fn runtime() -> &'static Runtime {
    &RUNTIME
}

/// Where to ask.
#[derive(Debug, Clone)]
pub enum Http {
    /// A Unix socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// The body as JSON; panics with the body when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first header of that name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Why there was no answer.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Http {
    /// The socket of the node whose home folder this is.
    pub fn of_home(home: &Path) -> Self {
        Self::Unix(home.join("steelyard.sock"))
    }

    /// The interface at `host:port` or `http://host:port/…`.
    pub fn tcp(address: &str) -> Self {
        let bare = address.strip_prefix("http://").unwrap_or(address);
        Self::Tcp(bare.split('/').next().unwrap_or(bare).to_owned())
    }

    async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<hyper::Response<Incoming>, Failure> {
        let host = match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Tcp(address) => address.clone(),
        };
        let mut request = hyper::Request::builder().method(method).uri(path).header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map(|value| Bytes::from(value.to_string())).unwrap_or_default();
        let request = request.body(Full::new(body))?;
        macro_rules! send {
            ($stream:expr) => {{
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new($stream)).await?;
                tokio::spawn(connection);
                Ok(sender.send_request(request).await?)
            }};
        }
        match self {
            Self::Unix(socket) => send!(tokio::net::UnixStream::connect(socket).await?),
            Self::Tcp(address) => send!(tokio::net::TcpStream::connect(address).await?),
        }
    }

    /// Asks and reads the whole answer.
    pub fn try_request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Reply, Failure> {
        self.try_request_with(method, path, &[], body)
    }

    /// Asks with further headers and reads the whole answer.
    pub fn try_request_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Reply, Failure> {
        runtime().block_on(async {
            tokio::time::timeout(TIMEOUT, async {
                let response = self.open(method, path, headers, body).await?;
                let status = response.status().as_u16();
                let headers = response
                    .headers()
                    .iter()
                    .map(|(name, value)| {
                        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                    })
                    .collect();
                let body = response.into_body().collect().await?.to_bytes();
                Ok(Reply { status, headers, body })
            })
            .await
            .map_err(|_| Failure::from(format!("no answer to {method} {path} within {TIMEOUT:?}")))?
        })
    }

    /// Asks; panics when there is no answer at all.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        self.try_request(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// `GET`; panics unless the answer is 200 and JSON.
    pub fn get(&self, path: &str) -> Value {
        let reply = self.request("GET", path, None);
        assert_eq!(reply.status, 200, "GET {path}: {}", reply.text());
        reply.json()
    }

    /// `POST`; panics unless the answer is a success and JSON.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let reply = self.request("POST", path, Some(body));
        assert!(reply.status < 300, "POST {path}: {} {}", reply.status, reply.text());
        reply.json()
    }

    /// Opens a stream of server-sent events; panics unless the answer is 200.
    pub fn events(&self, method: &str, path: &str, body: Option<&Value>) -> Events {
        let response = runtime().block_on(async {
            let opened = tokio::time::timeout(TIMEOUT, self.open(method, path, &[], body)).await;
            opened.expect("an answer in time").unwrap_or_else(|error| panic!("{method} {path}: {error}"))
        });
        assert_eq!(response.status(), 200, "{method} {path}");
        Events { body: response.into_body(), buffer: Vec::new() }
    }
}

/// A stream of server-sent events. Dropping it closes the connection.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    buffer: Vec<u8>,
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentEvent {
    /// Its name; `message` where the stream gives none.
    pub name: String,
    /// Its data.
    pub data: String,
}

impl SentEvent {
    /// The data as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.data))
    }
}

impl Events {
    /// The next event, or `None` at the stream's end; panics when neither comes within `limit`.
    pub fn next(&mut self, limit: Duration) -> Option<SentEvent> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(event) = read_event(&String::from_utf8_lossy(&block)) {
                    return Some(event);
                }
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = runtime().block_on(async { tokio::time::timeout(left, self.body.frame()).await });
            match frame.unwrap_or_else(|_| panic!("no event within {limit:?}")) {
                None | Some(Err(_)) => return None,
                Some(Ok(frame)) => self.buffer.extend(frame.data_ref().into_iter().flatten()),
            }
        }
    }

    /// Reads on until an event satisfies `wanted`; panics when the stream ends before or `limit` passes.
    pub fn find(
        &mut self,
        limit: Duration,
        what: &str,
        mut wanted: impl FnMut(&SentEvent) -> bool,
    ) -> SentEvent {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.next(left).unwrap_or_else(|| panic!("the stream ended before: {what}"));
            if wanted(&event) {
                return event;
            }
        }
    }

    /// Reads a job's stream to its end: what `done` said, or the problem of `error`.
    pub fn outcome(mut self, limit: Duration) -> Result<Value, Value> {
        let last = self.find(limit, "the job's end", |event| event.name == "done" || event.name == "error");
        if last.name == "done" { Ok(last.json()) } else { Err(last.json()) }
    }
}

fn read_event(block: &str) -> Option<SentEvent> {
    let mut name = "message".to_owned();
    let mut data: Vec<&str> = Vec::new();
    for line in block.lines() {
        if let Some(value) = line.strip_prefix("event:") {
            name = value.trim_start().to_owned();
        } else if let Some(value) = line.strip_prefix("data:") {
            data.push(value.strip_prefix(' ').unwrap_or(value));
        }
    }
    (!data.is_empty()).then(|| SentEvent { name, data: data.join("\n") })
}
