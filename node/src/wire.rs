//! What travels between nodes and how much of it: protocol names, frames, and every limit (`specs/05`, `specs/06`).
//!
//! A frame is one type byte, a 4-byte little-endian length and so many bytes. A stream carries one protocol; requests on
//! it may be sent ahead and are answered in order. Nothing is allocated for a length before its bytes arrive.

mod blob;
mod have;
mod hello;
mod log;
mod sync;

pub use blob::{Answer, Order, Refusal, Request, range};
pub use have::{Have, MAX_RUNS, News};
pub use hello::{HELLO_HEADER, Hello, Verdict};
pub use log::{
    ENTRY_LEN, LogAnswer, LogRefusal, LogRequest, MAX_ADD_CHECKPOINT, MAX_CHECKPOINT, MAX_COSIGNATURES,
    MAX_ENTRIES, MAX_EVIDENCE, MAX_HEADS, MAX_PROOF, log_answer_limit, log_request_limit,
};
pub(crate) use sync::ENTRY;
pub use sync::{FeedPage, FeedRequest};

use std::io;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Statements, in the order in which they arrived at the one who is asked.
pub const SYNC_PROTOCOL: &str = "/steelyard/sync/1";
/// Chunk maps and chunks.
pub const BLOB_PROTOCOL: &str = "/steelyard/blob/1";
/// What is known of nations' logs, and cosignatures.
pub const LOG_PROTOCOL: &str = "/steelyard/log/1";
/// Who has which release.
pub const KAD_PROTOCOL: &str = "/steelyard/kad/1";
/// What peers call this family of protocols when they identify themselves.
pub const IDENTIFY_PROTOCOL: &str = "/steelyard/1";
/// The one gossip topic.
pub const ANNOUNCE_TOPIC: &str = "steelyard/announce/1";

/// Longest time for both sides to show their certificates: some round trips on a bad link, no more, because the other
/// side is not known yet.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest node certificate, in bytes: about one kilobyte for each signer, and a role has at most 32.
pub const MAX_CERTIFICATE: usize = 64 * 1024;
/// Longest request frame, in bytes: the longest is an [`Request::Open`] of 32.
pub const MAX_REQUEST: usize = 64;
/// Most bytes asked for by one chunk request: four of the longest chunks. Larger would only lengthen what a lost peer
/// costs; much smaller would cost a round trip each.
pub const MAX_RANGE: u64 = 4 * 1024 * 1024;
/// Most chunks asked for by one request: [`MAX_RANGE`] in chunks of the usual shortest length, 64 KiB, with room.
pub const MAX_RANGE_CHUNKS: u32 = 256;
/// Longest availability bitmap, in bytes: a bit for each chunk of the longest chunk map.
pub const MAX_BITMAP: usize = registry::chunk::MAX_CHUNKS / 8;
/// Chunks that any file's map may list, however small the file.
pub const BASE_CHUNKS: u64 = 4096;
/// Beyond [`BASE_CHUNKS`], chunks must have this many bytes on average: a map is then under 1% of its file, and a
/// publisher can't make a receiver hold a large map for a small file.
pub const MIN_MEAN_CHUNK: u64 = 4096;
/// Bytes that a server reads from its disk at a time. It holds two such pieces for each stream.
pub const SERVE_PIECE: usize = 256 * 1024;
/// Most statements of one page of the feed.
pub const MAX_PAGE: u16 = 256;
/// Bytes after which a page of the feed ends; a single longer statement still goes alone.
pub const PAGE_BYTES: usize = 2 * 1024 * 1024;
/// Most pages asked for in one synchronisation: a peer that never ends is left.
pub const MAX_PAGES: usize = 4096;
/// Longest statement in a feed, in bytes.
pub const MAX_STATEMENT: usize = registry::envelope::MAX_SIGNED;
/// Longest gossiped message, in bytes. A recall's reason has at most 4 KiB, so its envelopes fit a small threshold.
pub const MAX_GOSSIP: usize = 48 * 1024;
/// How long a server waits for the next request on an open stream: longer than a client's slowest disk.
pub const IDLE: Duration = Duration::from_secs(120);
/// Slowest rate at which a chunk map may come, in bytes a second, beyond [`ANSWER_TIMEOUT`].
pub const MIN_MAP_RATE: u64 = 16 * 1024;
/// How long one piece may take to be taken or brought by the other side: 256 KiB in a minute is 35 kbit/s.
pub const PIECE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the answer to a small request may take: a round trip and a look into an index, with a busy disk.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Served blob streams of one peer: several transfers of a few streams each.
pub const MAX_BLOB_STREAMS: usize = 64;
/// Served feed streams of one peer: one is enough, a second may still be closing.
pub const MAX_SYNC_STREAMS: usize = 4;
/// Served log streams of one peer: one that follows, one that asks for cosignatures, and what is closing of both.
pub const MAX_LOG_STREAMS: usize = 6;

/// Bytes of a frame's header: type and length.
pub const HEADER: usize = 5;
/// First allocation for a frame's body; it grows as bytes arrive.
const FIRST_READ: usize = 64 * 1024;

/// What can be wrong with what a peer sends.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// It ended inside a frame.
    #[error("the peer's {what} was cut short")]
    Truncated {
        /// Which part.
        what: &'static str,
    },
    /// A length over its limit.
    #[error("the peer's {what} has {len} bytes, over the limit of {limit}")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its announced length.
        len: u64,
        /// The limit.
        limit: u64,
    },
    /// A length that this kind of frame can't have.
    #[error("the peer's {what} has {len} bytes, which it can't have")]
    Length {
        /// Which part.
        what: &'static str,
        /// Its length.
        len: u64,
    },
    /// A frame type that does not belong here.
    #[error("the peer sent a frame of type {0:#04x}, which is not expected here")]
    Type(u8),
    /// A value out of its range.
    #[error("the peer's {what} is refused: {rule}")]
    Value {
        /// Which part.
        what: &'static str,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// Too slow.
    #[error("the peer took over {} s for {what}", .limit.as_secs())]
    Timeout {
        /// For what.
        what: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The connection broke.
    #[error("the stream to the peer broke: {0}")]
    Io(#[from] io::Error),
}

impl WireError {
    /// A short stable name of the defect, as the test vectors in `specs/vectors` use it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::TooLarge { .. } => "too-large",
            Self::Length { .. } => "length",
            Self::Type(_) => "type",
            Self::Value { .. } => "value",
            Self::Timeout { .. } => "timeout",
            Self::Io(_) => "io",
        }
    }
}

/// Most chunks that the map of a file of `size` bytes may list here.
pub fn max_chunks(size: u64) -> u64 {
    (BASE_CHUNKS + size / MIN_MEAN_CHUNK).min(registry::chunk::MAX_CHUNKS as u64)
}

/// Longest encoded map, in bytes, that is accepted for a file of `size` bytes.
pub fn max_map(size: u64) -> u64 {
    registry::chunk::HEADER_LEN as u64 + max_chunks(size) * registry::chunk::ENTRY_LEN as u64
}

/// A frame's header.
pub fn header(kind: u8, len: u32) -> [u8; HEADER] {
    let [a, b, c, d] = len.to_le_bytes();
    [kind, a, b, c, d]
}

/// A whole frame.
pub fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + body.len());
    // Every body made here is far below 4 GiB: each kind has its limit.
    out.extend_from_slice(&header(kind, body.len() as u32));
    out.extend_from_slice(body);
    out
}

/// Splits a whole frame into its type and body; refuses anything before, between or after.
pub fn split_frame(bytes: &[u8], limit: usize) -> Result<(u8, &[u8]), WireError> {
    let Some((head, body)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(WireError::Truncated { what: "frame header" });
    };
    let [kind, len @ ..] = *head;
    let len = u32::from_le_bytes(len) as usize;
    if len > limit {
        return Err(WireError::TooLarge { what: "frame", len: len as u64, limit: limit as u64 });
    }
    match body.len() {
        have if have < len => Err(WireError::Truncated { what: "frame" }),
        have if have > len => Err(WireError::Length { what: "frame", len: have as u64 }),
        _ => Ok((kind, body)),
    }
}

/// Reads a frame's header; `None` when the stream ended before it.
pub async fn read_header<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Option<(u8, u32)>, WireError> {
    let mut head = [0; HEADER];
    let mut have = 0;
    while have < HEADER {
        match reader.read(&mut head[have..]).await? {
            0 if have == 0 => return Ok(None),
            0 => return Err(WireError::Truncated { what: "frame header" }),
            n => have += n,
        }
    }
    let [kind, len @ ..] = head;
    Ok(Some((kind, u32::from_le_bytes(len))))
}

/// Reads a body of `len` bytes, at most `limit`; memory grows with what arrives, not with what is announced.
pub async fn read_body<R: AsyncRead + Unpin>(
    reader: &mut R,
    what: &'static str,
    len: u64,
    limit: u64,
) -> Result<Vec<u8>, WireError> {
    if len > limit {
        return Err(WireError::TooLarge { what, len, limit });
    }
    let len = usize::try_from(len).map_err(|_| WireError::TooLarge { what, len, limit })?;
    let mut body = Vec::new();
    while body.len() < len {
        let have = body.len();
        body.resize(len.min((have * 2).max(FIRST_READ)), 0);
        let mut at = have;
        while at < body.len() {
            match within(PIECE_TIMEOUT, what, async { Ok(reader.read(&mut body[at..]).await?) }).await? {
                0 => return Err(WireError::Truncated { what }),
                n => at += n,
            }
        }
    }
    Ok(body)
}

/// Reads one frame of at most `limit` bytes; `None` when the stream ended before it.
pub async fn read_frame<R: AsyncRead + Unpin>(
    reader: &mut R,
    what: &'static str,
    limit: usize,
) -> Result<Option<(u8, Vec<u8>)>, WireError> {
    match read_header(reader).await? {
        None => Ok(None),
        Some((kind, len)) => Ok(Some((kind, read_body(reader, what, len.into(), limit as u64).await?))),
    }
}

/// Writes everything and flushes, within [`PIECE_TIMEOUT`].
pub async fn write_all<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8]) -> Result<(), WireError> {
    within(PIECE_TIMEOUT, "taking what was sent", async {
        writer.write_all(bytes).await?;
        Ok(writer.flush().await?)
    })
    .await
}

/// The result of `future`, or [`WireError::Timeout`] after `limit`.
pub async fn within<T>(
    limit: Duration,
    what: &'static str,
    future: impl Future<Output = Result<T, WireError>>,
) -> Result<T, WireError> {
    match tokio::time::timeout(limit, future).await {
        Ok(result) => result,
        Err(_) => Err(WireError::Timeout { what, limit }),
    }
}

/// Takes the next `N` bytes off `input`.
fn take<const N: usize>(input: &mut &[u8], what: &'static str) -> Result<[u8; N], WireError> {
    let (head, rest) = input.split_first_chunk().ok_or(WireError::Truncated { what })?;
    *input = rest;
    Ok(*head)
}

/// Nothing may follow a frame's last field.
fn end(input: &[u8], what: &'static str) -> Result<(), WireError> {
    if input.is_empty() { Ok(()) } else { Err(WireError::Length { what, len: input.len() as u64 }) }
}
