//! One stream of `/steelyard/log/1` to a peer: questions and their answers.

use futures::AsyncWriteExt;
use libp2p::{PeerId, Stream};
use registry::Nation;

use crate::node::Node;
use crate::swarm::streams::{OpenError, Protocol};
use crate::wire::{
    ANSWER_TIMEOUT, ENTRY_LEN, LogAnswer, LogRefusal, LogRequest, PIECE_TIMEOUT, WireError, log_answer_limit,
    read_body, read_header, within, write_all,
};

/// Most entries taken from one peer in one go: more than a nation may have statements, and 35 MiB of memory.
pub(crate) const MAX_FETCH: u64 = 1 << 20;

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// No stream, which is nobody's fault.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The stream broke, or what came is not allowed.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The peer said no.
    #[error("it refused: {}", .why.as_str())]
    Refused {
        /// Why.
        why: LogRefusal,
        /// The size that it cosigned last, with a conflict.
        size: u64,
    },
}

impl AskError {
    /// Whether no honest peer does that.
    pub(crate) fn blames_peer(&self) -> bool {
        match self {
            Self::Wire(error) => {
                !matches!(error, WireError::Io(_) | WireError::Timeout { .. } | WireError::Truncated { .. })
            }
            Self::Open(_) | Self::Refused { .. } => false,
        }
    }
}

/// What a peer has of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// Its newest checkpoint: a note.
    Checkpoint(Vec<u8>),
    /// Evidence in its place.
    Evidence(Vec<u8>),
}

/// An open stream.
pub(crate) struct Client {
    stream: Stream,
}

impl Client {
    /// Opens one to a connected peer.
    pub(crate) async fn open(node: &Node, peer: PeerId) -> Result<Self, AskError> {
        let Some(network) = node.network() else { return Err(OpenError::NotConnected(peer).into()) };
        Ok(Self { stream: network.streams.open(peer, Protocol::Log).await? })
    }

    /// Everything that the peer knows the head of.
    pub(crate) async fn heads(&mut self) -> Result<Vec<Told>, AskError> {
        let LogAnswer::Heads(count) = self.ask(&LogRequest::Heads).await? else { return Err(unexpected()) };
        let mut heads = Vec::new();
        for _ in 0..count {
            heads.push(told(self.answer().await?)?);
        }
        Ok(heads)
    }

    /// What the peer knows of one log; nothing when it knows none.
    pub(crate) async fn checkpoint(&mut self, nation: Nation) -> Result<Option<Told>, AskError> {
        match self.ask(&LogRequest::Checkpoint(nation)).await {
            Ok(answer) => told(answer).map(Some),
            Err(AskError::Refused { why: LogRefusal::Unknown, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The entries from one number to another, that one excluded.
    pub(crate) async fn entries(
        &mut self,
        nation: &Nation,
        from: u64,
        to: u64,
    ) -> Result<Vec<[u8; ENTRY_LEN]>, AskError> {
        let to = to.min(from.saturating_add(MAX_FETCH));
        let mut out = Vec::new();
        // Each answer brings at least one entry, and no more than were asked for.
        while from + (out.len() as u64) < to {
            let at = from + out.len() as u64;
            let request = LogRequest::Entries { nation: nation.clone(), from: at, to };
            let LogAnswer::Entries { from: begins, entries } = self.ask(&request).await? else {
                return Err(unexpected());
            };
            if begins != at || entries.len() as u64 > to - at {
                let rule = "they are those asked for";
                return Err(WireError::Value { what: "log entries", rule }.into());
            }
            out.extend(entries);
        }
        Ok(out)
    }

    /// The root hash that the peer's tree had at size `old`, with the proof that the one of size `new` continues it.
    pub(crate) async fn proof(
        &mut self,
        nation: &Nation,
        old: u64,
        new: u64,
    ) -> Result<([u8; 32], Vec<[u8; 32]>), AskError> {
        match self.ask(&LogRequest::Proof { nation: nation.clone(), old, new }).await? {
            LogAnswer::Proof { root, hashes } => Ok((root, hashes)),
            _ => Err(unexpected()),
        }
    }

    /// Asks for a cosignature; answers the lines of the witness.
    pub(crate) async fn cosign(&mut self, body: Vec<u8>) -> Result<Vec<u8>, AskError> {
        match self.ask(&LogRequest::AddCheckpoint(body)).await? {
            LogAnswer::Cosignatures(lines) => Ok(lines),
            _ => Err(unexpected()),
        }
    }

    /// Ends the stream in order.
    pub(crate) async fn close(mut self) {
        let _ = within(ANSWER_TIMEOUT, "closing", async { Ok(self.stream.close().await?) }).await;
    }

    async fn ask(&mut self, request: &LogRequest) -> Result<LogAnswer, AskError> {
        write_all(&mut self.stream, &request.encode()).await?;
        match self.answer().await? {
            LogAnswer::Refused { why, size } => Err(AskError::Refused { why, size }),
            answer => Ok(answer),
        }
    }

    async fn answer(&mut self) -> Result<LogAnswer, WireError> {
        const WHAT: &str = "log answer";
        let header = within(ANSWER_TIMEOUT, WHAT, read_header(&mut self.stream)).await?;
        let (kind, len) = header.ok_or(WireError::Truncated { what: WHAT })?;
        let limit = log_answer_limit(kind).ok_or(WireError::Type(kind))?;
        let body = within(PIECE_TIMEOUT, WHAT, read_body(&mut self.stream, WHAT, len.into(), limit as u64));
        LogAnswer::decode(kind, &body.await?)
    }
}

fn told(answer: LogAnswer) -> Result<Told, AskError> {
    match answer {
        LogAnswer::Checkpoint(note) => Ok(Told::Checkpoint(note)),
        LogAnswer::Evidence(json) => Ok(Told::Evidence(json)),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> AskError {
    WireError::Value { what: "log answer", rule: "it is one to the question asked" }.into()
}
