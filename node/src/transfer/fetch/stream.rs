//! One stream: requests are sent ahead, answers read in their order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::Stream;
use tokio::sync::mpsc;

use super::keep::{Batch, Piece, Range};
use super::{Gone, Job, Session, Told, answer, unexpected};
use crate::transfer::limit::Way;
use crate::transfer::plan::{FileKey, RequestId};
use crate::transfer::serve::is_busy;
use crate::wire::{
    ANSWER_TIMEOUT, Answer, MIN_MAP_RATE, Refusal, Request, WireError, max_map, read_body, within, write_all,
};

/// Bytes verified and written at a time.
const BATCH: usize = 1024 * 1024;
/// Buffers of a stream: one is filled while the other is verified and written. More would not be quicker, since a stream's chunks
/// are written one after the other; and what lies in them is lost when the process is killed.
const BUFFERS: usize = 2;

impl Session {
    /// Asks and reads until the transfer has nothing more to ask, or the stream breaks. While one batch is verified the next is
    /// read, into [`BUFFERS`] that go round, so that memory does not grow with the window.
    pub(super) async fn stream(&self, stream: Stream) -> Result<(), Gone> {
        let (mut reader, mut writer) = stream.split();
        let (sent, mut open) = mpsc::channel(self.ahead.max(1));
        let ask = async move {
            self.ask(&mut writer, sent).await?;
            let _ = writer.close().await;
            Ok::<_, Gone>(())
        };
        let (read, mut batches) = mpsc::channel(1);
        let (give_back, spare) = mpsc::channel(BUFFERS);
        for _ in 0..BUFFERS {
            // There is room for all of them.
            let _ = give_back.try_send(Vec::new());
        }
        let answers = async move {
            let mut chunks = Chunks { session: self, read, spare };
            while let Some(job) = open.recv().await {
                match job {
                    Job::Map { file, size } => self.read_map(&mut reader, file, size).await?,
                    Job::Chunks { request, file, first, count, partial } => {
                        let pass_on = self.source.is_watched().then(|| Arc::clone(&self.encoded));
                        let range = Range { request, file, first, count, partial, pass_on };
                        chunks.read(&mut reader, range).await?;
                        self.cancels.remove(request);
                    }
                }
            }
            Ok(())
        };
        let keep = async move {
            while let Some(batch) = batches.recv().await {
                let spare = self.keep(batch).await?;
                // Nobody wants it when no more is read.
                let _ = give_back.try_send(spare);
            }
            Ok(())
        };
        tokio::try_join!(ask, answers, keep).map(|_| ())
    }

    /// Sends requests while there is room ahead, and takes back those that are not needed any more.
    async fn ask<W: AsyncWrite + Unpin>(&self, writer: &mut W, sent: mpsc::Sender<Job>) -> Result<(), Gone> {
        let mut cancels = self.cancels.changed.subscribe();
        // The latest requests of this stream: older ones were answered.
        let mut latest: VecDeque<(RequestId, Request)> = VecDeque::new();
        loop {
            let next = async {
                let place = sent.reserve().await.ok()?;
                let job = self.jobs.lock().await.recv().await?;
                Some((place, job))
            };
            tokio::select! {
                next = next => {
                    let Some((place, job)) = next else { return Ok(()) };
                    let request = match &job {
                        Job::Map { file, .. } => Request::Map { file: *file },
                        Job::Chunks { request, .. } if self.cancels.remove(*request) => continue,
                        Job::Chunks { request, file, first, count, .. } => {
                            let (file, first, count) = (*file, *first, *count);
                            latest.truncate(self.ahead + 1);
                            latest.push_front((*request, Request::Cancel { file, first, count }));
                            Request::Chunks { file, first, count, encoded: !is_busy() }
                        }
                    };
                    write_all(writer, &request.encode()).await?;
                    place.send(job);
                }
                _ = cancels.changed() => {
                    let (over, open) = latest.into_iter().partition(|(request, _)| self.cancels.has(*request));
                    latest = open;
                    let over: VecDeque<(RequestId, Request)> = over;
                    for (_, cancel) in over {
                        write_all(writer, &cancel.encode()).await?;
                    }
                }
            }
        }
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
                let time = ANSWER_TIMEOUT + Duration::from_secs(u64::from(len) / MIN_MAP_RATE);
                let bytes =
                    within(time, "a chunk map", read_body(reader, "chunk map", len.into(), limit)).await?;
                self.came(len.into());
                self.tell(Told::Map { key: self.key, file, bytes }).await
            }
            Answer::Refused(Refusal::Missing) => self.tell(Told::NoMap { key: self.key, file }).await,
            Answer::Refused(refusal) => Err(Gone::Refused(refusal)),
            _ => Err(unexpected()),
        }
    }

    fn came(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
        self.counters.add_received(bytes);
    }
}

/// Reads chunks into one buffer while another is verified and written.
struct Chunks<'a> {
    session: &'a Session,
    read: mpsc::Sender<Batch>,
    spare: mpsc::Receiver<Vec<u8>>,
}

impl Chunks<'_> {
    /// Reads the answer to one request.
    async fn read<R: AsyncRead + Unpin>(&mut self, reader: &mut R, range: Range) -> Result<(), Gone> {
        // No time limit here: the plan drops a peer that brings too little.
        match answer(reader).await? {
            Answer::Data { len } if u64::from(len) == range.bytes() => self.read_plain(reader, range).await,
            Answer::Data { len } => {
                Err(WireError::Length { what: "range of chunks", len: len.into() }.into())
            }
            Answer::Encoded { encoding, len } => self.read_encoded(reader, range, encoding, len).await,
            Answer::Refused(Refusal::Missing) => {
                self.session.tell(Told::Refused { request: range.request }).await
            }
            Answer::Refused(Refusal::Cancelled) if self.session.cancels.has(range.request) => Ok(()),
            Answer::Refused(refusal) => Err(Gone::Refused(refusal)),
            _ => Err(unexpected()),
        }
    }

    /// The next free buffer. One that was used before keeps its allocation.
    async fn buffer(&mut self) -> Result<Vec<u8>, Gone> {
        self.spare.recv().await.ok_or(Gone::Over)
    }

    async fn read_plain<R: AsyncRead + Unpin>(&mut self, reader: &mut R, range: Range) -> Result<(), Gone> {
        let mut next = range.first;
        let end = range.first + range.count;
        while next < end {
            let mut chunks = Vec::new();
            let mut size = 0;
            while next < end {
                let len = range.len(next);
                if size > 0 && size + len as usize > BATCH {
                    break;
                }
                chunks.push(Piece { index: next, len, wire: len, encoding: None });
                size += len as usize;
                next += 1;
            }
            let mut bytes = self.buffer().await?;
            bytes.resize(size, 0);
            self.fill(reader, &mut bytes).await?;
            let batch = Batch { range: range.clone(), bytes, chunks, last: next == end };
            self.read.send(batch).await.map_err(|_| Gone::Over)?;
        }
        Ok(())
    }

    /// The head of the first encoded chunk was read; the others have heads of their own.
    async fn read_encoded<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        range: Range,
        mut encoding: u8,
        mut wire: u32,
    ) -> Result<(), Gone> {
        let end = range.first + range.count;
        let (mut buffer, mut chunks) = (None, Vec::new());
        for index in range.first..end {
            let bytes = match &mut buffer {
                Some(bytes) => bytes,
                empty => {
                    let mut bytes = self.buffer().await?;
                    bytes.clear();
                    empty.insert(bytes)
                }
            };
            // An encoded chunk is at most as long as the longest chunk: the answer's length was checked.
            let at = bytes.len();
            bytes.resize(at + wire as usize, 0);
            let Some(room) = bytes.get_mut(at..) else { return Err(unexpected()) };
            self.fill(reader, room).await?;
            chunks.push(Piece { index, len: range.len(index), wire, encoding: Some(encoding) });
            let last = index + 1 == end;
            if last || bytes.len() >= BATCH {
                let bytes = buffer.take().unwrap_or_default();
                let chunks = std::mem::take(&mut chunks);
                let batch = Batch { range: range.clone(), bytes, chunks, last };
                self.read.send(batch).await.map_err(|_| Gone::Over)?;
            }
            if !last {
                match answer(reader).await? {
                    Answer::Encoded { encoding: next, len } => (encoding, wire) = (next, len),
                    _ => return Err(unexpected()),
                }
            }
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
                    self.session.came(n as u64);
                    self.session.limiter.take(Way::Down, &self.session.nation, n as u64).await;
                }
            }
        }
        Ok(())
    }
}
