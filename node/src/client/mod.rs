//! A client of nodes, for whoever writes a program in Rust: what the hub's interface can't say (evidence, recalls, verification of what
//! was downloaded), and everything else that a node answers, in the types of [`crate::api::types`]. The command line uses it too.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use node::client::{Client, snapshot};
//!
//! let node = Client::at("http://127.0.0.1:4800")?;
//! let release = node.resolve("alba/smollm2").await?.release;
//! let evidence = node.evidence(&release).await?;
//! // Anywhere, without a network: the fingerprint is what alba's people told.
//! let root = "b3:0000000000000000000000000000000000000000000000000000000000000000".parse()?;
//! let report = snapshot::verify("smollm2".as_ref(), &evidence, &[root], &snapshot::Demands::default())?;
//! println!("{} files are what {} signed", report.files, report.release.model.nation);
//! # Ok(())
//! # }
//! ```
//!
//! `tests/src/example.rs` is the example of `docs/clients.md`, and is run by a test.

pub mod http;
pub mod snapshot;
pub mod sse;

use std::collections::BTreeSet;
use std::path::PathBuf;

use hyper::Method;
use registry::Digest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::http::{Answer, Pieces};
use crate::api::text::encode;
use crate::api::types::{
    Event, Evidence, ModelEntry, NationEntry, RecallEntry, ReleaseDetail, Resolved, SignedEntry, Status,
};
use crate::error::Problem;
use crate::fetch_http::{self, FetchError};

/// Why a node could not be asked, or what it refused.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers.
    #[error("{what} does not answer: {why}")]
    Connect {
        /// Who.
        what: String,
        /// What the system said.
        why: String,
    },
    /// The connection broke.
    #[error("the connection broke off: {0}")]
    Broken(String),
    /// The node refused; its own words.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// It refused without words.
    #[error("the node answered {0}")]
    Status(u16),
    /// Not the JSON that is expected.
    #[error("the node's answer is not understood: {0}")]
    Malformed(serde_json::Error),
    /// More than any node answers.
    #[error("the answer is over {0} bytes")]
    TooLarge(usize),
    /// A server somewhere.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

#[derive(Debug, Clone)]
enum Way {
    Unix(PathBuf),
    Web(fetch_http::Client, String),
}

/// The way to a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client(Way);

impl Client {
    /// The node at `http://host:port` or `https://…`, which answers what may be read; or at `unix:/path/to/steelyard.sock` on this machine,
    /// which answers everything.
    pub fn at(address: &str) -> Result<Self, ClientError> {
        if let Some(path) = address.strip_prefix("unix:") {
            return Ok(Self::unix(path));
        }
        Ok(Self(Way::Web(fetch_http::Client::new()?, address.trim_end_matches('/').to_owned())))
    }

    /// The node on this machine that listens on this socket.
    pub fn unix(socket: impl Into<PathBuf>) -> Self {
        Self(Way::Unix(socket.into()))
    }

    /// Sends a request and reads the answer's head. A body, where there is one, is JSON.
    pub async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Answer, ClientError> {
        match &self.0 {
            Way::Unix(socket) => http::unix(socket, method, path, body).await,
            Way::Web(client, base) => {
                let url = format!("{base}{path}");
                let answer = match method {
                    Method::GET => client.get(&url, &[]).await?,
                    _ => client.send(method, &url, "application/json", body).await?,
                };
                Ok(Answer::fetched(answer))
            }
        }
    }

    /// What a route answers.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, Vec::new()).await?.json().await
    }

    /// What a route answers to `body`.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(ClientError::Malformed)?;
        self.send(Method::POST, path, body).await?.json().await
    }

    /// The node at a glance.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// Every model known there.
    pub async fn models(&self) -> Result<Vec<ModelEntry>, ClientError> {
        self.get("/v1/models").await
    }

    /// One release.
    pub async fn release(&self, release: &Digest) -> Result<ReleaseDetail, ClientError> {
        self.get(&format!("/v1/releases/{release}")).await
    }

    /// The release that `nation/name`, with a channel or a version, or a digest means there.
    pub async fn resolve(&self, reference: &str) -> Result<Resolved, ClientError> {
        self.get(&format!("/v1/resolve?ref={}", encode(reference))).await
    }

    /// The nations that the node pinned.
    pub async fn nations(&self) -> Result<Vec<NationEntry>, ClientError> {
        self.get("/v1/nations").await
    }

    /// Every recall known there, the newest first.
    pub async fn recalls(&self) -> Result<Vec<RecallEntry>, ClientError> {
        self.get("/v1/recalls").await
    }

    /// Everything signed about a release, with the roots of every nation that the node pinned: they say who witnessed.
    pub async fn evidence(&self, release: &Digest) -> Result<Evidence, ClientError> {
        let mut found: Evidence = self.get(&format!("/v1/releases/{release}/evidence")).await?;
        let mut known: BTreeSet<Digest> = found.statements.iter().map(|one| one.digest).collect();
        for NationEntry { nation, .. } in self.nations().await? {
            let roots: Vec<Value> = self.get(&format!("/v1/nations/{nation}/roots")).await?;
            for envelopes in roots {
                // What it is called is looked up by whoever believes it.
                let Some(digest) = snapshot::digest_of(&envelopes) else { continue };
                if known.insert(digest) {
                    let kind = registry::statement::Kind::Root;
                    found.statements.push(SignedEntry {
                        digest,
                        kind,
                        nation: nation.clone(),
                        envelopes,
                        proof: None,
                    });
                }
            }
        }
        Ok(found)
    }

    /// What happens in the node from now on, of these kinds, separated by commas.
    pub async fn events(&self, kinds: &str) -> Result<Events, ClientError> {
        let answer =
            self.send(Method::GET, &format!("/v1/events?kinds={kinds}"), Vec::new()).await?.good().await?;
        Ok(Events(sse::Reader::new(answer.pieces)))
    }

    /// Every recall that the node knows and then each as it arrives. `known` are those that are not told.
    pub async fn recall_feed(&self, known: BTreeSet<Digest>) -> Result<RecallFeed, ClientError> {
        // Opened before the list is read: what comes in between is in one of them.
        let events = self.events("recall").await?;
        Ok(RecallFeed { client: self.clone(), events, known, waiting: Vec::new(), look: true })
    }
}

/// Live events.
pub struct Events(sse::Reader<Pieces>);

/// An event, or that some were missed.
#[derive(Debug)]
pub enum Happened {
    /// Something happened.
    Event(Box<Event>),
    /// The reader was too slow for some events.
    Missed,
}

impl Events {
    /// Over the body of an answer.
    pub fn of(answer: Answer) -> Self {
        Self(sse::Reader::new(answer.pieces))
    }

    /// The next one; `None` when the node stops.
    pub async fn next(&mut self) -> Result<Option<Happened>, ClientError> {
        let Some(event) = self.0.next().await? else { return Ok(None) };
        if event.name == "lagged" {
            return Ok(Some(Happened::Missed));
        }
        let event = serde_json::from_str(&event.data).map_err(ClientError::Malformed)?;
        Ok(Some(Happened::Event(Box::new(event))))
    }
}

/// Recalls as they arrive.
pub struct RecallFeed {
    client: Client,
    events: Events,
    known: BTreeSet<Digest>,
    /// To be told, the oldest last.
    waiting: Vec<RecallEntry>,
    look: bool,
}

impl RecallFeed {
    /// The next recall; `None` when the node stops. Whoever opens another feed gives [`Self::known`] to it and misses nothing.
    pub async fn next(&mut self) -> Result<Option<RecallEntry>, ClientError> {
        loop {
            if let Some(recall) = self.waiting.pop() {
                self.known.insert(recall.recall);
                return Ok(Some(recall));
            }
            if std::mem::take(&mut self.look) {
                let mut all = self.client.recalls().await?;
                all.retain(|recall| !self.known.contains(&recall.recall));
                self.waiting = all;
                continue;
            }
            // Whatever it is, and however many were missed: the list says which are new.
            if self.events.next().await?.is_none() {
                return Ok(None);
            }
            self.look = true;
        }
    }

    /// The recalls that were told.
    pub fn known(&self) -> &BTreeSet<Digest> {
        &self.known
    }
}
