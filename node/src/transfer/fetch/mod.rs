//! One peer's part of a transfer: a stream on which it tells what it has, and a few long-lived ones on which requests are
//! sent ahead.

mod keep;
mod stream;

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{AsyncRead, AsyncReadExt};
use libp2p::{PeerId, Stream};
use registry::statement::Release;
use registry::store::{Partial, StoreError};
use registry::{Digest, Nation};
use tokio::sync::{mpsc, watch};

use super::cache::EncodedChunks;
use super::limit::Limiter;
use super::plan::{FileKey, PeerKey, RequestId};
use super::serve::Source;
use crate::peers::Counters;
use crate::swarm::streams::{Control, Protocol};
use crate::wire::{
    ANSWER_TIMEOUT, Answer, Have, News, Refusal, Request, WireError, max_chunks, read_body, read_header,
    within, write_all,
};

/// What a peer is asked.
pub(super) enum Job {
    /// A file's chunk map; the file has so many bytes.
    Map { file: FileKey, size: u64 },
    /// Chunks.
    Chunks { request: RequestId, file: FileKey, first: u32, count: u32, partial: Partial },
}

/// What a peer's part tells the transfer.
pub(super) enum Told {
    /// The release may be asked for; whether all of it is there.
    Joined { key: PeerKey, seed: bool },
    /// A chunk map's bytes, not verified yet.
    Map { key: PeerKey, file: FileKey, bytes: Vec<u8> },
    /// It does not have that map.
    NoMap { key: PeerKey, file: FileKey },
    /// What it has.
    News { key: PeerKey, news: News },
    /// Verified and kept.
    Kept { key: PeerKey, file: FileKey, chunks: Vec<(u32, u32)> },
    /// A request was answered to its end.
    Finished { request: RequestId },
    /// It does not have these chunks.
    Refused { request: RequestId },
    /// A chunk's bytes were not those asked for.
    Corrupt { key: PeerKey, file: FileKey, index: u32, why: String },
    /// Our own store failed.
    Disk { error: StoreError },
    /// The peer's part ended.
    Gone { key: PeerKey, why: Gone },
}

/// Why a peer's part ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Gone {
    /// It refuses.
    #[error("{}", refusal(.0))]
    Refused(Refusal),
    /// It broke the protocol, or was too slow to answer.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// No stream to it.
    #[error(transparent)]
    Open(#[from] crate::swarm::streams::OpenError),
    /// The transfer is over.
    #[error("the transfer is over")]
    Over,
}

fn refusal(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::NotFound => "it does not have the release, or may not give it to our nation",
        Refusal::Recalled => "it does not serve the release any more: it was recalled",
        Refusal::Busy => "it serves too many others at the moment",
        Refusal::Missing => "it does not have what was asked for",
        Refusal::NotAllowed => "this node's certificate does not allow fetching",
        Refusal::Cancelled => "it takes requests for cancelled that were not",
    }
}

/// Requests that were taken back.
#[derive(Debug, Clone)]
pub(super) struct Cancels {
    ids: Arc<Mutex<HashSet<RequestId>>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Default for Cancels {
    fn default() -> Self {
        Self { ids: Arc::default(), changed: Arc::new(watch::Sender::new(0)) }
    }
}

impl Cancels {
    /// A request is not needed any more.
    pub(super) fn add(&self, request: RequestId) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(request);
        self.changed.send_modify(|version| *version += 1);
    }

    fn has(&self, request: RequestId) -> bool {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).contains(&request)
    }

    fn remove(&self, request: RequestId) -> bool {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).remove(&request)
    }
}

/// One peer of one transfer.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) key: PeerKey,
    pub(super) peer: PeerId,
    pub(super) nation: Nation,
    pub(super) release: Digest,
    pub(super) content: Arc<Release>,
    pub(super) control: Control,
    pub(super) told: mpsc::Sender<Told>,
    pub(super) jobs: Arc<tokio::sync::Mutex<mpsc::Receiver<Job>>>,
    pub(super) cancels: Cancels,
    /// Bytes that came, verified or not: tells a slow peer from a silent one.
    pub(super) received: Arc<AtomicU64>,
    pub(super) counters: Arc<Counters>,
    pub(super) limiter: Arc<Limiter>,
    /// Who asks us for what comes.
    pub(super) source: Arc<Source>,
    /// What came encoded, to be passed on so.
    pub(super) encoded: Arc<EncodedChunks>,
    pub(super) streams: usize,
    /// Requests sent ahead on each stream.
    pub(super) ahead: usize,
}

impl Session {
    /// Runs until the peer is lost or the transfer drops it.
    pub(super) async fn run(self) {
        let told = self.told.clone();
        let key = self.key;
        let why = match self.talk().await {
            Ok(()) => Gone::Over,
            Err(why) => why,
        };
        // Nobody listens when the transfer has ended.
        let _ = told.send(Told::Gone { key, why }).await;
    }

    async fn tell(&self, told: Told) -> Result<(), Gone> {
        self.told.send(told).await.map_err(|_| Gone::Over)
    }

    /// Streams come and go together: one that breaks means that the connection does.
    async fn talk(&self) -> Result<(), Gone> {
        let (first, seed) = self.open().await?;
        self.tell(Told::Joined { key: self.key, seed }).await?;
        let watch = async {
            let (stream, _) = self.open().await?;
            self.watch(stream).await
        };
        let more = async {
            // One after the other: a burst of opens can be reset by a peer at its limit.
            let mut more = Vec::new();
            for _ in 1..self.streams {
                match self.open().await {
                    Ok((stream, _)) => more.push(stream),
                    Err(why) => {
                        tracing::debug!(peer = %self.peer, "fewer streams than wanted: {why}");
                        break;
                    }
                }
            }
            futures::future::try_join_all(more.into_iter().map(|stream| self.stream(stream))).await
        };
        tokio::try_join!(self.stream(first), watch, more).map(|_| ())
    }

    /// A stream on which the release is open, and whether the peer has all of it.
    async fn open(&self) -> Result<(Stream, bool), Gone> {
        let mut stream = self.control.open(self.peer, Protocol::Blob).await?;
        write_all(&mut stream, &Request::Open { release: self.release }.encode()).await?;
        match within(ANSWER_TIMEOUT, "opening a release", answer(&mut stream)).await? {
            Answer::Opened { complete } => Ok((stream, complete)),
            Answer::Refused(refusal) => Err(Gone::Refused(refusal)),
            _ => Err(unexpected()),
        }
    }

    /// Listens to what the peer has. It may be silent for as long as nothing changes.
    async fn watch(&self, stream: Stream) -> Result<(), Gone> {
        let (mut reader, mut writer) = stream.split();
        write_all(&mut writer, &Request::Watch.encode()).await?;
        loop {
            match answer(&mut reader).await? {
                Answer::News(news) => {
                    self.check(&news)?;
                    self.tell(Told::News { key: self.key, news }).await?;
                }
                Answer::Refused(refusal) => return Err(Gone::Refused(refusal)),
                _ => return Err(unexpected()),
            }
        }
    }

    /// Whether the news can be about this release. Maps may not be here yet, so a file counts with the most chunks that it
    /// could have.
    fn check(&self, news: &News) -> Result<(), WireError> {
        let Some(file) = news.file else { return Ok(()) };
        const WHAT: &str = "availability";
        let Some(entry) = self.content.files.get(file as usize) else {
            return Err(WireError::Value { what: WHAT, rule: "the release has no such file" });
        };
        let limit = max_chunks(entry.size);
        match &news.have {
            Have::Some(bits) if bits.len() as u64 > limit.div_ceil(8) => {
                Err(WireError::Length { what: WHAT, len: bits.len() as u64 })
            }
            // At most MAX_CHUNKS, which fits.
            Have::Runs(_) => news.have.check(limit as usize),
            _ => Ok(()),
        }
    }
}

fn unexpected() -> Gone {
    WireError::Value { what: "answer", rule: "it is not an answer to what was asked" }.into()
}

/// Reads one answer, content excluded.
async fn answer<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Answer, WireError> {
    let Some((kind, len)) = read_header(reader).await? else {
        return Err(WireError::Truncated { what: "answer" });
    };
    let need = Answer::body_len(kind, len)?;
    let body = read_body(reader, "answer", need as u64, need as u64).await?;
    Answer::decode(kind, len, &body)
}
