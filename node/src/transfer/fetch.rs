//! One peer's part of a transfer: a few long-lived streams on which requests are sent ahead, and what comes back.
//!
//! Chunks are verified before they are kept, in the blocking pool, a batch at a time; the next batch is read meanwhile.
//! A stream holds three batches at most, so that memory does not grow with the window.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use libp2p::{PeerId, Stream};
use registry::Digest;
use registry::chunk::ChunkMap;
use registry::store::{Partial, WriteError};
use tokio::sync::{Mutex, mpsc};

use super::plan::{FileKey, PeerKey, RequestId};
use crate::peers::Counters;
use crate::swarm::streams::{Control, Protocol};
use crate::wire::{
    ANSWER_TIMEOUT, Answer, Have, MIN_MAP_RATE, Refusal, Request, WireError, max_map, read_body, read_header,
    within, write_all,
};

/// Bytes verified and written at a time.
const BATCH: usize = 1024 * 1024;

/// What a peer is asked.
pub(super) enum Job {
    /// A file's chunk map; the file has so many bytes.
    Map { file: FileKey, size: u64 },
    /// Which chunks of a file it has; the file has so many.
    Have { file: FileKey, chunks: usize },
    /// Chunks.
    Chunks { request: RequestId, file: FileKey, first: u32, count: u32, partial: Partial },
}

/// What a peer's part tells the transfer.
pub(super) enum Told {
    /// The release may be asked for.
    Joined { key: PeerKey, complete: bool },
    /// A chunk map's bytes, not verified yet.
    Map { key: PeerKey, file: FileKey, bytes: Vec<u8> },
    /// It does not have that map.
    NoMap { key: PeerKey, file: FileKey },
    /// What it has.
    Have { key: PeerKey, file: FileKey, have: Have },
    /// Verified and kept.
    Kept { key: PeerKey, request: RequestId, chunks: Vec<(u32, u32)> },
    /// A request was answered to its end.
    Finished { request: RequestId },
    /// It does not have these chunks.
    Refused { request: RequestId },
    /// A chunk's bytes were not those asked for.
    Corrupt { key: PeerKey, file: FileKey, index: u32, why: String },
    /// Our own store failed.
    Disk { why: String },
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
    }
}

/// One peer of one transfer.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) key: PeerKey,
    pub(super) peer: PeerId,
    pub(super) release: Digest,
    pub(super) control: Control,
    pub(super) told: mpsc::Sender<Told>,
    pub(super) jobs: Arc<Mutex<mpsc::Receiver<Job>>>,
    /// Bytes that came, verified or not: tells a slow peer from a silent one.
    pub(super) received: Arc<AtomicU64>,
    pub(super) counters: Arc<Counters>,
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

    async fn talk(&self) -> Result<(), Gone> {
        let (first, complete) = self.open().await?;
        self.tell(Told::Joined { key: self.key, complete }).await?;
        // Streams come and go together: one that breaks means that the connection does.
        let mut running = vec![Box::pin(self.stream(first))];
        // One after the other: a burst of opens can be reset by a peer at its limit.
        let rest = async {
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
            more
        };
        let mut rest = Box::pin(rest);
        tokio::select! {
            more = &mut rest => running.extend(more.into_iter().map(|stream| Box::pin(self.stream(stream)))),
            ended = &mut running[0] => return ended,
        }
        futures::future::try_join_all(running).await.map(|_| ())
    }

    /// A stream on which the release is open.
    async fn open(&self) -> Result<(Stream, bool), Gone> {
        let mut stream = self.control.open(self.peer, Protocol::Blob).await?;
        write_all(&mut stream, &Request::Open { release: self.release }.encode()).await?;
        match within(ANSWER_TIMEOUT, "opening a release", answer(&mut stream)).await? {
            Answer::Opened { complete } => Ok((stream, complete)),
            Answer::Refused(refusal) => Err(Gone::Refused(refusal)),
            _ => Err(unexpected()),
        }
    }

    async fn stream(&self, stream: Stream) -> Result<(), Gone> {
        let (mut reader, mut writer) = stream.split();
        let (sent, mut open) = mpsc::channel(self.ahead.max(1));
        let ask = async move {
            while let Ok(place) = sent.reserve().await {
                let Some(job) = self.jobs.lock().await.recv().await else { break };
                write_all(&mut writer, &request(&job).encode()).await?;
                place.send(job);
            }
            // The answers to what was asked still come; then the peer sees that nothing follows.
            drop(sent);
            let _ = writer.close().await;
            Ok::<_, Gone>(())
        };
        let (read, mut batches) = mpsc::channel(1);
        let (give_back, spare) = mpsc::channel(2);
        let answers = async move {
            let mut chunks = Chunks { session: self, read, spare };
            while let Some(job) = open.recv().await {
                match job {
                    Job::Map { file, size } => self.read_map(&mut reader, file, size).await?,
                    Job::Have { file, chunks } => self.read_have(&mut reader, file, chunks).await?,
                    Job::Chunks { request, file, first, count, partial } => {
                        let range = Range { request, file, first, count };
                        chunks.read(&mut reader, range, &partial).await?;
                    }
                }
            }
            Ok(())
        };
        let keep = async move {
            while let Some(batch) = batches.recv().await {
                let spare = self.keep(batch).await?;
                // A buffer that nobody wants is freed.
                let _ = give_back.try_send(spare);
            }
            Ok(())
        };
        tokio::try_join!(ask, answers, keep).map(|_| ())
    }

    async fn read_map<R: AsyncRead + Unpin>(
        &self,
        reader: &mut R,
        file: FileKey,
        size: u64,
    ) -> Result<(), Gone> {
        match within(ANSWER_TIMEOUT, "a chunk map", answer(reader)).await? {
            Answer::Map { len } => {
                let limit = max_map(size);
                let time = ANSWER_TIMEOUT + std::time::Duration::from_secs(u64::from(len) / MIN_MAP_RATE);
                let bytes =
                    within(time, "a chunk map", read_body(reader, "chunk map", len.into(), limit)).await?;
                self.received.fetch_add(len.into(), Ordering::Relaxed);
                self.counters.add_received(len.into());
                self.tell(Told::Map { key: self.key, file, bytes }).await
            }
            Answer::Refused(Refusal::Missing) => self.tell(Told::NoMap { key: self.key, file }).await,
            Answer::Refused(refusal) => Err(Gone::Refused(refusal)),
            _ => Err(unexpected()),
        }
    }

    async fn read_have<R: AsyncRead + Unpin>(
        &self,
        reader: &mut R,
        file: FileKey,
        chunks: usize,
    ) -> Result<(), Gone> {
        match within(ANSWER_TIMEOUT, "availability", answer(reader)).await? {
            Answer::Have(have) => {
                have.check(chunks)?;
                self.tell(Told::Have { key: self.key, file, have }).await
            }
            Answer::Refused(Refusal::Missing) => {
                self.tell(Told::Have { key: self.key, file, have: Have::Nothing }).await
            }
            Answer::Refused(refusal) => Err(Gone::Refused(refusal)),
            _ => Err(unexpected()),
        }
    }
}

fn request(job: &Job) -> Request {
    match job {
        Job::Map { file, .. } => Request::Map { file: *file },
        Job::Have { file, .. } => Request::Have { file: *file },
        Job::Chunks { file, first, count, .. } => {
            Request::Chunks { file: *file, first: *first, count: *count }
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

#[derive(Clone, Copy)]
struct Range {
    request: RequestId,
    file: FileKey,
    first: u32,
    count: u32,
}

/// A run of chunks in one buffer: each chunk's number and length.
struct Batch {
    range: Range,
    partial: Partial,
    bytes: Vec<u8>,
    chunks: Vec<(u32, u32)>,
    /// Whether the request ends with it.
    last: bool,
}

struct Written {
    batch: Batch,
    kept: usize,
    failed: Option<WriteError>,
}

/// Reads chunks into one buffer while another is verified and written.
struct Chunks<'a> {
    session: &'a Session,
    read: mpsc::Sender<Batch>,
    spare: mpsc::Receiver<Vec<u8>>,
}

impl Chunks<'_> {
    /// Reads the answer to one request.
    async fn read<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        range: Range,
        partial: &Partial,
    ) -> Result<(), Gone> {
        let total = total(partial.map(), range);
        // No time limit here: the plan drops a peer that brings too little.
        match answer(reader).await? {
            Answer::Data { len } if u64::from(len) == total => {}
            Answer::Data { len } => {
                return Err(WireError::Length { what: "range of chunks", len: len.into() }.into());
            }
            Answer::Refused(Refusal::Missing) => {
                return self.session.tell(Told::Refused { request: range.request }).await;
            }
            Answer::Refused(refusal) => return Err(Gone::Refused(refusal)),
            _ => return Err(unexpected()),
        }
        let mut next = range.first;
        let end = range.first + range.count;
        while next < end {
            let mut chunks = Vec::new();
            let mut size = 0;
            while next < end {
                let len = partial.map().get(next as usize).map_or(0, |chunk| chunk.len);
                if size > 0 && size + len as usize > BATCH {
                    break;
                }
                chunks.push((next, len));
                size += len as usize;
                next += 1;
            }
            // A buffer that was written before keeps its allocation.
            let mut bytes = self.spare.try_recv().unwrap_or_default();
            bytes.resize(size, 0);
            self.fill(reader, &mut bytes).await?;
            let batch = Batch { range, partial: partial.clone(), bytes, chunks, last: next == end };
            self.read.send(batch).await.map_err(|_| Gone::Over)?;
        }
        Ok(())
    }

    async fn fill<R: AsyncRead + Unpin>(&self, reader: &mut R, bytes: &mut [u8]) -> Result<(), Gone> {
        let mut at = 0;
        while at < bytes.len() {
            match reader.read(&mut bytes[at..]).await.map_err(WireError::Io)? {
                0 => return Err(WireError::Truncated { what: "range of chunks" }.into()),
                n => {
                    at += n;
                    self.session.received.fetch_add(n as u64, Ordering::Relaxed);
                    self.session.counters.add_received(n as u64);
                }
            }
        }
        Ok(())
    }
}

impl Session {
    /// Verifies and writes a batch in the blocking pool and tells what became of it. Answers the buffer.
    async fn keep(&self, batch: Batch) -> Result<Vec<u8>, Gone> {
        let write = move || {
            let (mut kept, mut failed, mut at) = (0, None, 0);
            for (index, len) in &batch.chunks {
                let bytes = batch.bytes.get(at..at + *len as usize).unwrap_or_default();
                at += *len as usize;
                match batch.partial.write_chunk(*index as usize, bytes) {
                    Ok(()) => kept += 1,
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            Written { batch, kept, failed }
        };
        let Ok(Written { mut batch, kept, failed }) = tokio::task::spawn_blocking(write).await else {
            self.tell(Told::Disk { why: "writing chunks failed inside the store".to_owned() }).await?;
            return Err(Gone::Over);
        };
        let Range { request, file, .. } = batch.range;
        let wrong = batch.chunks.get(kept).map(|(index, _)| *index);
        batch.chunks.truncate(kept);
        let key = self.key;
        self.tell(Told::Kept { key, request, chunks: batch.chunks }).await?;
        match failed {
            None => {
                if batch.last {
                    self.tell(Told::Finished { request }).await?;
                }
                Ok(batch.bytes)
            }
            Some(error) if error.blames_sender() => {
                let (index, why) = (wrong.unwrap_or_default(), error.to_string());
                self.tell(Told::Corrupt { key, file, index, why }).await?;
                Err(Gone::Over)
            }
            Some(error) => {
                self.tell(Told::Disk { why: error.to_string() }).await?;
                Err(Gone::Over)
            }
        }
    }
}

fn total(map: &ChunkMap, range: Range) -> u64 {
    let chunks = map.chunks().iter().skip(range.first as usize).take(range.count as usize);
    chunks.map(|chunk| u64::from(chunk.len)).sum()
}
