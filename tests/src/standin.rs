//! A small HTTP server that says what a test tells it to, truth or not, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// Most headers of a request that are read.
const MAX_HEADERS: usize = 64;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Path and query.
    pub target: String,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
}

impl Asked {
    /// Where the range that was asked for begins; 0 without one.
    pub fn from(&self) -> usize {
        let range = self.headers.get("range").map(String::as_str).unwrap_or_default();
        let first = range.strip_prefix("bytes=").and_then(|range| range.split('-').next());
        first.and_then(|first| first.parse().ok()).unwrap_or(0)
    }
}

/// What is answered.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// The status.
    pub status: u16,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// After so many bytes of the body the connection is closed.
    pub cut: Option<usize>,
}

impl Said {
    /// A success with this body.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    /// Another status.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// `body` from where it was asked for.
    pub fn range(body: &[u8], asked: &Asked) -> Self {
        match asked.from() {
            0 => Self::ok(body),
            from => Self { status: 206, body: body[from..].to_vec(), ..Self::default() }
                .with("content-range", &format!("bytes {from}-{}/{}", body.len() - 1, body.len())),
        }
    }

    /// With a header more.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// The server. Its thread ends with the test's process.
#[derive(Debug)]
pub struct Standin {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Standin {
    /// Answers with what `say` says, one connection after the other.
    pub fn start(say: impl Fn(&Asked) -> Said + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let remembered = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &say, &remembered);
            }
        });
        Self { port, asked }
    }

    /// Its address by number.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its address by name: to clients another host.
    pub fn other_url(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it was asked so far, and forgets it.
    pub fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn answer(
    stream: TcpStream,
    say: &impl Fn(&Asked) -> Said,
    remembered: &Mutex<Vec<Asked>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let target = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    for _ in 0..MAX_HEADERS {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let asked = Asked { target, headers };
    remembered.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
    let said = say(&asked);
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {} X\r\ncontent-length: {}\r\nconnection: close\r\n",
        said.status,
        said.body.len()
    )?;
    for (name, value) in &said.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    stream.write_all(&said.body[..said.cut.unwrap_or(said.body.len())])?;
    stream.flush()
}
