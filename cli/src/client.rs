//! The way to a node: the running one over its Unix socket, or, where none runs, the same router in this process.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Method;
use node::client::http::{self, Answer};
use node::client::{Events, sse};
use node::error::Problem;
use node::host::Host;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::failure::{Exit, Failure};

/// What a command needs when no node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The folder alone.
    Folder,
    /// The allies too.
    Network,
}

/// How long a command waits for the first peer before it goes on without.
const FIRST_PEER: Duration = Duration::from_secs(5);
/// Then so long for the others.
const MORE_PEERS: Duration = Duration::from_millis(400);

/// The way to a node.
pub(crate) enum Client {
    Node(PathBuf),
    InProcess(Box<Host>),
}

impl Client {
    /// Finds the running node of this home, or becomes one for as long as the command takes.
    pub(crate) async fn open(context: &Context, need: Need) -> Result<Self, Failure> {
        if let Some(client) = Self::running(context) {
            return Ok(client);
        }
        let mut config = context.config()?;
        config.offline = need == Need::Folder;
        // Nobody dials a command; it only dials.
        config.p2p.listen = Vec::new();
        config.p2p.external = Vec::new();
        let host = Host::in_process(config).await.map_err(|error| {
            Failure::from(error).or_help(
                "a node that is just starting or another command holds the folder; try again in a moment",
            )
        })?;
        if need == Need::Network {
            meet(&host).await;
        }
        Ok(Self::InProcess(Box::new(host)))
    }

    /// The running node of this home, if there is one. A socket that nobody listens on is a dead node's.
    pub(crate) fn running(context: &Context) -> Option<Self> {
        let socket = context.layout.socket();
        http::connect_unix(&socket).ok().map(|_| Self::Node(socket))
    }

    /// Whether a node runs that stays after this command.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self, Self::Node(_))
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Answer, Failure> {
        match self {
            Self::Node(socket) => Ok(http::unix(socket, method, path, body).await?),
            Self::InProcess(host) => Ok(Answer::new(host.request(method, path, body).await)),
        }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        Ok(self.send(Method::GET, path, Vec::new()).await?.json().await?)
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        Ok(self.send(Method::POST, path, encode(body)?).await?.json().await?)
    }

    /// Posts bytes that are JSON already: what was signed must arrive as it is.
    pub(crate) async fn post_raw<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, Failure> {
        Ok(self.send(Method::POST, path, body).await?.json().await?)
    }

    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        Ok(self.send(Method::PUT, path, encode(body)?).await?.json().await?)
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        Ok(self.send(Method::DELETE, path, Vec::new()).await?.json().await?)
    }

    /// Runs a job, telling `progress` how far it is.
    pub(crate) async fn job<P: DeserializeOwned, D: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        mut progress: impl FnMut(P),
    ) -> Result<D, Failure> {
        let answer = self.send(Method::POST, path, encode(body)?).await?.good().await?;
        let mut events = sse::Reader::new(answer.pieces);
        while let Some(event) = events.next().await? {
            match event.name.as_str() {
                "done" => return decode(&event.data),
                "error" => return Err(decode::<Problem>(&event.data)?.into()),
                "progress" => progress(decode(&event.data)?),
                _ => {}
            }
        }
        Err(Failure::new(Exit::Network, "the node stopped before the job was done")
            .help("`steelyard status` shows whether it runs again; what was done is kept"))
    }

    /// What happens in the node, of these kinds.
    pub(crate) async fn events(&self, kinds: &str) -> Result<Events, Failure> {
        let answer =
            self.send(Method::GET, &format!("/v1/events?kinds={kinds}"), Vec::new()).await?.good().await?;
        Ok(Events::of(answer))
    }

    /// Lets go of the node; one in this process is stopped.
    pub(crate) async fn close(self) {
        if let Self::InProcess(host) = self {
            host.stop().await;
        }
    }
}

fn encode(body: &impl Serialize) -> Result<Vec<u8>, Failure> {
    Ok(serde_json::to_vec(body).map_err(anyhow::Error::from)?)
}

fn decode<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::new(Exit::Other, format!("the node's answer is not understood: {error}")))
}

/// Waits until the peers that the settings and the nation files name are there, or it is clear that they are not.
async fn meet(host: &Host) {
    let wanted = host.node().config().p2p.peers.len();
    let started = std::time::Instant::now();
    let mut first: Option<std::time::Instant> = None;
    while started.elapsed() < FIRST_PEER && wanted > 0 {
        let met = host.node().peers().len();
        if met > 0 {
            let since = *first.get_or_insert_with(std::time::Instant::now);
            if met >= wanted || since.elapsed() > MORE_PEERS {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// `text` as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
