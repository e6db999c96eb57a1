//! Answers: chunk maps and chunks, streamed from the disk a piece at a time.

use std::cell::RefCell;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{AsyncWrite, AsyncWriteExt};
use registry::chunk::ChunkMap;
use registry::codec::{Encoder, Encoding, Layouts};
use registry::releasable;
use registry::store::StoreError;
use rustix::io::ReadWriteFlags;

use super::Asker;
use super::lap::Span;
use super::pace::Pace;
use crate::node::blocking;
use crate::peers::Counters;
use crate::transfer::limit::Way;
use crate::wire::{self, Answer, PIECE_TIMEOUT, Refusal, Request, SERVE_PIECE, WireError, within, write_all};

/// A file of the release as one stream serves it.
struct Open {
    file: u32,
    map: Arc<ChunkMap>,
    /// The whole blob, or `None` while it is being fetched here.
    blob: Option<Arc<File>>,
    /// What lies where in it: a hint for the encoder.
    layouts: Arc<Layouts>,
}

pub(super) struct Stream<'a, W> {
    pub(super) writer: &'a mut W,
    pub(super) asker: Asker,
    counters: Arc<Counters>,
    open: Option<Open>,
    /// Keeps its allocation from piece to piece.
    buffer: Vec<u8>,
    pace: Pace,
}

impl<'a, W: AsyncWrite + Unpin> Stream<'a, W> {
    pub(super) fn new(writer: &'a mut W, asker: Asker) -> Self {
        let counters = asker.node.book().counters(&asker.peer);
        Self { writer, asker, counters, open: None, buffer: Vec::new(), pace: Pace::default() }
    }

    pub(super) async fn refuse(&mut self, refusal: Refusal) -> Result<(), WireError> {
        write_all(self.writer, &Answer::Refused(refusal).encode()).await
    }

    pub(super) async fn answer(&mut self, request: Request) -> Result<(), WireError> {
        match request {
            // Their order was checked, and the queue takes cancellations out.
            Request::Open { .. } | Request::Watch | Request::Cancel { .. } => Ok(()),
            Request::Map { file } => self.map(file).await,
            Request::Chunks { file, first, count, encoded } => self.chunks(file, first, count, encoded).await,
        }
    }

    fn file(&self, file: u32) -> Result<&registry::statement::File, WireError> {
        const RULE: &str = "the release has no such file";
        let files = &self.asker.opened.release.files;
        files.get(file as usize).ok_or(WireError::Value { what: "request", rule: RULE })
    }

    async fn map(&mut self, file: u32) -> Result<(), WireError> {
        let wanted = self.file(file)?.clone();
        let digest = wanted.chunk_map;
        let (store, nation) = (self.asker.node.store().clone(), self.asker.nation.clone());
        let bytes = blocking(move || {
            // Through the map: its bytes are checked against its digest on the way. One of another file is not this
            // release's to give.
            let map = store.chunk_map(&digest)?.filter(|map| map.blob() == wanted.blake3);
            let given = map.is_some() && releasable::file(&store, &wanted, &nation)?;
            Ok::<_, StoreError>(map.filter(|_| given).map(|map| map.encode()))
        });
        match bytes.await {
            Ok(Some(bytes)) => {
                // At most 152 MB, by the limit on chunks.
                write_all(self.writer, &Answer::Map { len: bytes.len() as u32 }.encode()).await?;
                self.send_all(&bytes).await?;
                self.flush().await
            }
            Ok(None) => self.refuse(Refusal::Missing).await,
            Err(error) => {
                tracing::error!("chunk map {digest} can't be served: {error}");
                self.refuse(Refusal::Missing).await
            }
        }
    }

    /// Sends content, within the limits.
    async fn send(&mut self, piece: &[u8]) -> Result<(), WireError> {
        let (len, begun) = (piece.len() as u64, Instant::now());
        self.asker.node.limiter().take(Way::Up, &self.asker.nation, len).await;
        within(PIECE_TIMEOUT, "taking what was sent", async { Ok(self.writer.write_all(piece).await?) })
            .await?;
        self.counters.add_sent(len);
        self.asker.opened.source.active(&self.asker.peer);
        self.pace.sent(len, begun.elapsed());
        Ok(())
    }

    /// Sends all of `bytes`, piece by piece.
    async fn send_all(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        for piece in bytes.chunks(SERVE_PIECE) {
            self.send(piece).await?;
        }
        Ok(())
    }

    async fn head(&mut self, answer: Answer) -> Result<(), WireError> {
        let head = answer.encode();
        within(PIECE_TIMEOUT, "taking what was sent", async { Ok(self.writer.write_all(&head).await?) }).await
    }

    async fn flush(&mut self) -> Result<(), WireError> {
        within(PIECE_TIMEOUT, "taking what was sent", async { Ok(self.writer.flush().await?) }).await
    }

    /// The file's map, and its blob if that is whole.
    async fn look_up(&mut self, file: u32) -> Result<Option<&Open>, WireError> {
        let wanted = self.file(file)?.clone();
        let (blob, digest) = (wanted.blake3, wanted.chunk_map);
        // A blob that was being fetched may have become whole.
        let stale = self.open.as_ref().is_none_or(|open| open.file != file || open.blob.is_none());
        if stale {
            let (node, nation) = (self.asker.node.clone(), self.asker.nation.clone());
            let found = blocking(move || {
                // Bytes may have come since the release was opened, and under another release.
                if !releasable::file(node.store(), &wanted, &nation)? {
                    return Ok(None);
                }
                let map = match node.maps().get(&digest) {
                    Some(map) => map,
                    None => match node.store().chunk_map(&digest)? {
                        Some(map) => {
                            let map = Arc::new(map);
                            node.maps().put(digest, Arc::clone(&map));
                            map
                        }
                        None => return Ok(None),
                    },
                };
                if map.blob() != blob {
                    return Ok(None);
                }
                let whole = node.store().has_blob(&blob);
                let file = whole.then(|| node.store().open_blob(&blob)).transpose()?;
                let layouts = file.as_ref().map(Layouts::read).unwrap_or_default();
                Ok::<_, StoreError>(Some((map, file.map(Arc::new), Arc::new(layouts))))
            });
            self.open = match found.await {
                Ok(Some((map, blob, layouts))) => Some(Open { file, map, blob, layouts }),
                Ok(None) => None,
                Err(error) => {
                    tracing::error!("blob {blob} can't be served: {error}");
                    None
                }
            };
        }
        Ok(self.open.as_ref())
    }

    async fn chunks(&mut self, file: u32, first: u32, count: u32, encoded: bool) -> Result<(), WireError> {
        let Some(Open { map, blob, layouts, .. }) = self.look_up(file).await? else {
            return self.refuse(Refusal::Missing).await;
        };
        let (map, blob, layouts) = (Arc::clone(map), blob.clone(), Arc::clone(layouts));
        let range = wire::range(&map, first, count)?;
        self.asker.opened.source.served(
            self.asker.peer,
            Span { file, first, count },
            range.end - range.start,
        );
        match blob {
            Some(blob) if encoded && self.pace.pays() => {
                self.stream_encoded(blob, map, layouts, first..first + count).await
            }
            Some(blob) => self.stream_blob(blob, range).await,
            None => self.stream_partial(map, first, count).await,
        }
    }

    /// Streams chunks of a whole blob encoded, each in a frame of its own; the next is encoded while one is sent.
    async fn stream_encoded(
        &mut self,
        blob: Arc<File>,
        map: Arc<ChunkMap>,
        layouts: Arc<Layouts>,
        chunks: Range<u32>,
    ) -> Result<(), WireError> {
        let encode = |index: u32| {
            let (blob, map, layouts) = (Arc::clone(&blob), Arc::clone(&map), Arc::clone(&layouts));
            tokio::task::spawn_blocking(move || encode(&blob, &map, &layouts, index as usize))
        };
        let mut ahead = Some(encode(chunks.start));
        for index in chunks.clone() {
            let Some(next) = ahead.take() else { break };
            let chunk = next.await.map_err(|error| WireError::Io(std::io::Error::other(error)))??;
            if index + 1 < chunks.end {
                ahead = Some(encode(index + 1));
            }
            self.pace.encoded(chunk.raw, chunk.time, chunk.encoding != Encoding::Raw);
            // At most MAX_CHUNK, which fits.
            let len = chunk.bytes.len() as u32;
            self.head(Answer::Encoded { encoding: chunk.encoding.id(), len }).await?;
            self.send_all(&chunk.bytes).await?;
        }
        self.flush().await
    }

    /// Streams a range of a whole blob.
    async fn stream_blob(&mut self, blob: Arc<File>, range: Range<u64>) -> Result<(), WireError> {
        // A chunk request is at most MAX_RANGE or one chunk: it fits.
        let head = Answer::Data { len: (range.end - range.start) as u32 }.encode();
        within(PIECE_TIMEOUT, "taking what was sent", async { Ok(self.writer.write_all(&head).await?) })
            .await?;
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(SERVE_PIECE as u64) as usize;
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.resize(len, 0);
            let piece = read_piece(&blob, at, buffer).await?;
            let sent = self.send(&piece).await;
            self.buffer = piece;
            sent?;
            at += len as u64;
        }
        self.flush().await
    }

    /// Streams chunks of a blob that is being fetched here.
    async fn stream_partial(&mut self, map: Arc<ChunkMap>, first: u32, count: u32) -> Result<(), WireError> {
        let blob = map.blob();
        let store = self.asker.node.store().clone();
        let indices = first as usize..first as usize + count as usize;
        let wanted = indices.clone();
        let all = blocking(move || {
            let bits = store.partial_chunks(&blob);
            Ok::<_, StoreError>(bits.is_some_and(|bits| wanted.into_iter().all(|index| bits.get(index))))
        });
        if !all.await.unwrap_or(false) {
            // It may have become whole between the look-up and now.
            if self.asker.node.store().has_blob(&blob) {
                let range = wire::range(&map, first, count)?;
                if let Ok(file) = self.asker.node.store().open_blob(&blob) {
                    return self.stream_blob(Arc::new(file), range).await;
                }
            }
            return self.refuse(Refusal::Missing).await;
        }
        let lens = indices.clone().filter_map(|index| map.get(index)).map(|chunk| u64::from(chunk.len));
        let head = Answer::Data { len: lens.sum::<u64>() as u32 }.encode();
        within(PIECE_TIMEOUT, "taking what was sent", async { Ok(self.writer.write_all(&head).await?) })
            .await?;
        for index in indices {
            let (store, map) = (self.asker.node.store().clone(), Arc::clone(&map));
            let bytes = blocking(move || store.read_chunk(&blob, &map, index)).await;
            let Ok(Some(bytes)) = bytes else {
                // The length is announced: all that is left is to end the stream, which the peer takes as it is.
                return Err(WireError::Io(std::io::Error::other("a chunk went away while it was served")));
            };
            self.send_all(&bytes).await?;
        }
        self.flush().await
    }
}

/// One chunk as it travels.
struct Travelling {
    encoding: Encoding,
    bytes: Vec<u8>,
    /// Its length as it is.
    raw: u64,
    time: Duration,
}

thread_local! {
    /// A few MiB for each thread of the blocking pool that encodes.
    static ENCODER: RefCell<Encoder> = RefCell::new(Encoder::new());
}

fn encode(blob: &File, map: &ChunkMap, layouts: &Layouts, index: usize) -> std::io::Result<Travelling> {
    let range = map.range(index).ok_or_else(|| std::io::Error::other("the map has no such chunk"))?;
    let mut raw = vec![0; (range.end - range.start) as usize];
    blob.read_exact_at(&mut raw, range.start)?;
    let (begun, layout, len) = (Instant::now(), layouts.of(range), raw.len() as u64);
    let mut out = Vec::new();
    let encoding = ENCODER.with_borrow_mut(|encoder| encoder.encode(&raw, layout, &mut out));
    let bytes = if encoding == Encoding::Raw { raw } else { out };
    Ok(Travelling { encoding, bytes, raw: len, time: begun.elapsed() })
}

/// Fills `buffer` from `at`: at once where the bytes are in the page cache, else in the blocking pool.
async fn read_piece(blob: &Arc<File>, at: u64, mut buffer: Vec<u8>) -> Result<Vec<u8>, WireError> {
    let cached =
        rustix::io::preadv2(blob, &mut [std::io::IoSliceMut::new(&mut buffer)], at, ReadWriteFlags::NOWAIT);
    if cached == Ok(buffer.len()) {
        return Ok(buffer);
    }
    let blob = Arc::clone(blob);
    let read = tokio::task::spawn_blocking(move || blob.read_exact_at(&mut buffer, at).map(|()| buffer));
    Ok(read.await.map_err(|error| WireError::Io(std::io::Error::other(error)))??)
}
