//! Answers: chunk maps and chunks, streamed from the disk a piece at a time.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use futures::{AsyncWrite, AsyncWriteExt};
use registry::chunk::ChunkMap;
use registry::releasable;
use registry::store::StoreError;
use rustix::io::ReadWriteFlags;

use super::Asker;
use super::encoded::{Content, Hint};
use super::lap::Span;
use super::pace::{Pace, is_busy};
use crate::node::blocking;
use crate::peers::Counters;
use crate::transfer::limit::Way;
use crate::wire::{self, Answer, PIECE_TIMEOUT, Refusal, Request, SERVE_PIECE, WireError, within, write_all};

/// A file of the release as one stream serves it.
pub(super) struct Open {
    file: u32,
    map: Arc<ChunkMap>,
    /// The whole blob, or `None` while it is being fetched here.
    blob: Option<Arc<File>>,
    /// What lies where in it, for the encoder.
    pub(super) hint: Hint,
}

pub(super) struct Stream<'a, W> {
    pub(super) writer: &'a mut W,
    pub(super) asker: Asker,
    counters: Arc<Counters>,
    pub(super) open: Option<Open>,
    /// Keeps its allocation from piece to piece.
    buffer: Vec<u8>,
    pub(super) pace: Pace,
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
    pub(super) async fn send_all(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        for piece in bytes.chunks(SERVE_PIECE) {
            self.send(piece).await?;
        }
        Ok(())
    }

    pub(super) async fn head(&mut self, answer: Answer) -> Result<(), WireError> {
        let head = answer.encode();
        within(PIECE_TIMEOUT, "taking what was sent", async { Ok(self.writer.write_all(&head).await?) }).await
    }

    pub(super) async fn flush(&mut self) -> Result<(), WireError> {
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
                Ok::<_, StoreError>(Some((map, file.map(Arc::new))))
            });
            // What was learnt of a file that is still being fetched holds on.
            let hint = self.open.take().filter(|open| open.file == file).map(|open| open.hint);
            self.open = match found.await {
                Ok(Some((map, blob))) => Some(Open { file, map, blob, hint: hint.unwrap_or_default() }),
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
        let Some(Open { map, blob, .. }) = self.look_up(file).await? else {
            return self.refuse(Refusal::Missing).await;
        };
        let (map, blob) = (Arc::clone(map), blob.clone());
        let range = wire::range(&map, first, count)?;
        self.asker.opened.source.served(
            self.asker.peer,
            Span { file, first, count },
            range.end - range.start,
        );
        let content = match blob {
            Some(blob) => Content::Whole(blob),
            None => match self.partial(&map, first..first + count).await {
                Some(content) => content,
                None => return self.refuse(Refusal::Missing).await,
            },
        };
        match content {
            content if encoded && self.pace.gains() && self.can_encode(&map, first..first + count) => {
                self.stream_encoded(content, map, first..first + count).await
            }
            Content::Whole(blob) => self.stream_blob(blob, range).await,
            Content::Partial(_) => self.stream_partial(content, map, first..first + count).await,
        }
    }

    /// Whether there is time to encode, or nothing to do for it.
    fn can_encode(&self, map: &ChunkMap, mut chunks: Range<u32>) -> bool {
        let kept = self.asker.node.encoded();
        !is_busy()
            || chunks.all(|index| map.get(index as usize).is_some_and(|chunk| kept.holds(&chunk.digest)))
    }

    /// A blob that is being fetched here, if all these chunks of it are here. It may have become whole just now.
    async fn partial(&self, map: &ChunkMap, chunks: Range<u32>) -> Option<Content> {
        let (store, blob) = (self.asker.node.store().clone(), map.blob());
        let found = blocking(move || {
            let bits = store.partial_chunks(&blob);
            if bits.is_some_and(|bits| chunks.into_iter().all(|index| bits.get(index as usize))) {
                return Ok::<_, StoreError>(Some(Content::Partial(store)));
            }
            let file = store.has_blob(&blob).then(|| store.open_blob(&blob)).transpose()?;
            Ok(file.map(|file| Content::Whole(Arc::new(file))))
        });
        found.await.unwrap_or_else(|error| {
            tracing::error!("blob {blob} can't be served: {error}");
            None
        })
    }

    /// Streams a range of a whole blob.
    async fn stream_blob(&mut self, blob: Arc<File>, range: Range<u64>) -> Result<(), WireError> {
        // A chunk request is at most MAX_RANGE or one chunk: it fits.
        self.head(Answer::Data { len: (range.end - range.start) as u32 }).await?;
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
    async fn stream_partial(
        &mut self,
        content: Content,
        map: Arc<ChunkMap>,
        chunks: Range<u32>,
    ) -> Result<(), WireError> {
        let lens =
            chunks.clone().filter_map(|index| map.get(index as usize)).map(|chunk| u64::from(chunk.len));
        self.head(Answer::Data { len: lens.sum::<u64>() as u32 }).await?;
        for index in chunks {
            let (content, map) = (content.clone(), Arc::clone(&map));
            // The length is announced: all that is left on a failure is to end the stream, which the peer takes as it is.
            let read = tokio::task::spawn_blocking(move || content.read(&map, index as usize));
            let bytes = read.await.map_err(|error| WireError::Io(std::io::Error::other(error)))??;
            self.send_all(&bytes).await?;
        }
        self.flush().await
    }
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
