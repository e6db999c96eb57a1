//! Answers peers' questions about logs. Every pinned nation's log is served to every admitted peer: an entry is only a
//! digest, and a log should outlive its owner's absence.

use std::time::Instant;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::PeerId;
use registry::store::StoreError;

use super::{book, witness};
use crate::node::{Node, blocking};
use crate::swarm::streams::Inbound;
use crate::wire::{
    IDLE, LogAnswer, LogRefusal, LogRequest, MAX_ENTRIES, PIECE_TIMEOUT, WireError, log_request_limit,
    read_body, read_header, within, write_all,
};

/// Serves a stream until its other end closes it.
pub(crate) async fn serve(node: Node, inbound: Inbound) {
    let Inbound { peer, stream, slot } = inbound;
    let (mut reader, mut writer) = stream.split();
    if let Err(error) = answer_all(&node, &peer, &mut reader, &mut writer).await {
        match error {
            WireError::Io(_) | WireError::Timeout { .. } | WireError::Truncated { .. } => {
                tracing::debug!(%peer, "a log stream ended: {error}");
            }
            error => node.fault(&peer, "protocol", &format!("peer {peer}: {error}")).await,
        }
    }
    drop(slot);
}

async fn answer_all<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    node: &Node,
    peer: &PeerId,
    reader: &mut R,
    writer: &mut W,
) -> Result<(), WireError> {
    const WHAT: &str = "log request";
    loop {
        let Some((kind, len)) = within(IDLE, "its next request", read_header(reader)).await? else {
            return within(PIECE_TIMEOUT, "closing", async { Ok(writer.close().await?) }).await;
        };
        let limit = log_request_limit(kind) as u64;
        let body = within(PIECE_TIMEOUT, WHAT, read_body(reader, WHAT, len.into(), limit)).await?;
        let request = LogRequest::decode(kind, &body)?;
        let Some(_permit) = node.feed_permit().await else { return Ok(()) };
        let answers = if node.logs().allow(peer, cost(&request), Instant::now()) {
            match answer(node, peer, request).await {
                Ok(answers) => answers,
                Err(error) => {
                    tracing::error!("a log could not be read: {error}");
                    vec![refused(LogRefusal::Busy)]
                }
            }
        } else {
            vec![refused(LogRefusal::Busy)]
        };
        for answer in answers {
            write_all(writer, &answer.encode()).await?;
        }
    }
}

/// What a request costs of a peer's allowance: looking is cheap, a cosignature is a write to the disk.
fn cost(request: &LogRequest) -> f64 {
    match request {
        LogRequest::Heads | LogRequest::Checkpoint(_) | LogRequest::Entries { .. } => 1.0,
        LogRequest::Proof { .. } => 2.0,
        LogRequest::AddCheckpoint(_) => 4.0,
    }
}

fn refused(why: LogRefusal) -> LogAnswer {
    LogAnswer::Refused { why, size: 0 }
}

async fn answer(node: &Node, peer: &PeerId, request: LogRequest) -> Result<Vec<LogAnswer>, StoreError> {
    if let LogRequest::AddCheckpoint(body) = request {
        let answer = match witness::cosign(node, Some(*peer), body).await? {
            Ok(lines) => LogAnswer::Cosignatures(lines),
            Err((why, size)) => LogAnswer::Refused { why, size },
        };
        return Ok(vec![answer]);
    }
    let node = node.clone();
    blocking(move || {
        let store = node.store();
        Ok(match request {
            LogRequest::Heads => {
                let heads = node.logs().heads(store)?;
                std::iter::once(LogAnswer::Heads(heads.len() as u16)).chain(heads.iter().cloned()).collect()
            }
            LogRequest::Checkpoint(nation) => {
                vec![book::shown(store, &nation)?.unwrap_or(refused(LogRefusal::Unknown))]
            }
            LogRequest::Entries { nation, from, to } => {
                let to = to.min(from.saturating_add(MAX_ENTRIES as u64));
                let entries = book::entries(store, &nation, from, to)?;
                let known = if entries.is_empty() {
                    refused(LogRefusal::Unknown)
                } else {
                    LogAnswer::Entries { from, entries }
                };
                vec![known]
            }
            LogRequest::Proof { nation, old, new } => {
                let proof = book::proof(store, &nation, old, new)?;
                let known = |(root, hashes)| LogAnswer::Proof { root, hashes };
                vec![proof.map_or(refused(LogRefusal::Unknown), known)]
            }
            // Answered above.
            LogRequest::AddCheckpoint(_) => vec![refused(LogRefusal::Malformed)],
        })
    })
    .await
}
