//! Serving `/steelyard/blob/1`: whether the peer's nation may have the release is decided before anything else; then
//! maps, availability and chunks, streamed from the disk a piece at a time.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use registry::Digest;
use registry::admit::binding_recall;
use registry::chunk::ChunkMap;
use registry::statement::{Capability, Release};
use registry::store::{Store, StoreError};

use crate::node::{Node, blocking};
use crate::peers::Counters;
use crate::swarm::streams::Inbound;
use crate::wire::{
    self, ANSWER_TIMEOUT, Answer, Have, IDLE, MAX_REQUEST, Order, PIECE_TIMEOUT, Refusal, Request,
    SERVE_PIECE, WireError, read_frame, within, write_all,
};

/// Chunk maps kept decoded for all streams together.
const MAX_MAPS: usize = 16;
/// Chunks of all of them together: about 40 MiB.
const MAX_MAP_CHUNKS: usize = 1 << 20;

/// Decoded chunk maps, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Maps(Mutex<Vec<(Digest, Arc<ChunkMap>)>>);

impl Maps {
    fn get(&self, digest: &Digest) -> Option<Arc<ChunkMap>> {
        let maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        maps.iter().find(|(other, _)| other == digest).map(|(_, map)| Arc::clone(map))
    }

    fn put(&self, digest: Digest, map: Arc<ChunkMap>) {
        let mut maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        maps.retain(|(other, _)| *other != digest);
        maps.push((digest, map));
        while maps.len() > MAX_MAPS
            || (maps.len() > 1 && maps.iter().map(|(_, map)| map.len()).sum::<usize>() > MAX_MAP_CHUNKS)
        {
            maps.remove(0);
        }
    }
}

/// A file of the release as one stream serves it.
struct Open {
    file: u32,
    map: Arc<ChunkMap>,
    /// The whole blob, or `None` while it is being fetched here.
    blob: Option<Arc<File>>,
}

struct Stream<W> {
    node: Node,
    writer: W,
    counters: Arc<Counters>,
    nation: registry::Nation,
    release: Arc<Release>,
    digest: Digest,
    /// The state of recalls and trust at which the peer was found to be allowed.
    generation: u64,
    open: Option<Open>,
}

/// Serves one stream to its end.
pub(crate) async fn serve(node: Node, inbound: Inbound) {
    let peer = inbound.peer;
    let Inbound { stream, slot, .. } = inbound;
    if let Err(error) = talk(&node, peer, stream).await {
        match error {
            WireError::Io(_) | WireError::Timeout { .. } | WireError::Truncated { .. } => {
                tracing::debug!(%peer, "a blob stream ended: {error}");
            }
            error => node.fault(&peer, "protocol", &format!("peer {peer}: {error}")).await,
        }
    }
    drop(slot);
}

async fn talk(node: &Node, peer: libp2p::PeerId, stream: libp2p::Stream) -> Result<(), WireError> {
    let (mut reader, mut writer) = stream.split();
    let Some(standing) = node.book().standing(&peer) else { return Ok(()) };
    let first = within(ANSWER_TIMEOUT, "its first request", read_frame(&mut reader, "request", MAX_REQUEST));
    let Some((kind, body)) = first.await? else { return Ok(()) };
    let mut order = Order::default();
    let opening = Request::decode(kind, &body)?;
    order.check(&opening)?;
    let Request::Open { release: digest } = opening else { return Ok(()) };
    let Some(_permit) = node.serving_permit() else {
        return refuse(&mut writer, Refusal::Busy).await;
    };
    if !standing.may(Capability::Fetch) {
        return refuse(&mut writer, Refusal::NotAllowed).await;
    }
    let generation = node.generation();
    let (store, nation) = (node.store().clone(), standing.nation.clone());
    let looked = blocking(move || {
        let release = match permission(&store, &digest, &nation)? {
            Ok(release) => release,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let complete = release.files.iter().all(|file| store.has_blob(&file.blake3));
        let begun = complete
            || release
                .files
                .iter()
                .any(|file| store.has_blob(&file.blake3) || store.partial_chunks(&file.blake3).is_some());
        Ok::<_, StoreError>(if begun { Ok((release, complete)) } else { Err(Refusal::NotFound) })
    });
    let (release, complete) = match looked.await {
        Ok(Ok(found)) => found,
        Ok(Err(refusal)) => return refuse(&mut writer, refusal).await,
        Err(error) => {
            tracing::error!("a release could not be looked up to serve it: {error}");
            return refuse(&mut writer, Refusal::Missing).await;
        }
    };
    write_all(&mut writer, &Answer::Opened { complete }.encode()).await?;
    let mut stream = Stream {
        node: node.clone(),
        writer,
        counters: node.book().counters(&peer),
        nation: standing.nation,
        release: Arc::new(release),
        digest,
        generation,
        open: None,
    };
    loop {
        let next = within(IDLE, "its next request", read_frame(&mut reader, "request", MAX_REQUEST));
        let Some((kind, body)) = next.await? else { return Ok(()) };
        let request = Request::decode(kind, &body)?;
        order.check(&request)?;
        if let Some(refusal) = stream.still_allowed().await {
            return refuse(&mut stream.writer, refusal).await;
        }
        stream.answer(request).await?;
    }
}

async fn refuse<W: AsyncWrite + Unpin>(writer: &mut W, refusal: Refusal) -> Result<(), WireError> {
    write_all(writer, &Answer::Refused(refusal).encode()).await?;
    within(PIECE_TIMEOUT, "closing", async { Ok(writer.close().await?) }).await
}

/// Whether a node of `nation` may have the release from us: it is releasable to that nation, and not recalled for us.
pub fn permission(
    store: &Store,
    digest: &Digest,
    nation: &registry::Nation,
) -> Result<Result<Release, Refusal>, StoreError> {
    let Some(release) = store.release(digest)? else { return Ok(Err(Refusal::NotFound)) };
    if !release.releasable_to(nation) {
        return Ok(Err(Refusal::NotFound));
    }
    if binding_recall(store, digest)?.is_some() { Ok(Err(Refusal::Recalled)) } else { Ok(Ok(release)) }
}

impl<W: AsyncWrite + Unpin> Stream<W> {
    /// Looks again after every recall and every change of trust.
    async fn still_allowed(&mut self) -> Option<Refusal> {
        let generation = self.node.generation();
        if generation == self.generation {
            return None;
        }
        let (store, digest, nation) = (self.node.store().clone(), self.digest, self.nation.clone());
        match blocking(move || permission(&store, &digest, &nation)).await {
            Ok(Ok(_)) => {
                self.generation = generation;
                None
            }
            Ok(Err(refusal)) => Some(refusal),
            Err(error) => {
                tracing::error!("a release could not be looked up to serve it: {error}");
                Some(Refusal::Missing)
            }
        }
    }

    async fn answer(&mut self, request: Request) -> Result<(), WireError> {
        match request {
            // Its order was checked.
            Request::Open { .. } => Ok(()),
            Request::Map { file } => self.map(file).await,
            Request::Have { file } => self.have(file).await,
            Request::Chunks { file, first, count } => self.chunks(file, first, count).await,
        }
    }

    async fn missing(&mut self) -> Result<(), WireError> {
        write_all(&mut self.writer, &Answer::Refused(Refusal::Missing).encode()).await
    }

    fn file(&self, file: u32) -> Result<&registry::statement::File, WireError> {
        const RULE: &str = "the release has no such file";
        self.release.files.get(file as usize).ok_or(WireError::Value { what: "request", rule: RULE })
    }

    async fn map(&mut self, file: u32) -> Result<(), WireError> {
        let digest = self.file(file)?.chunk_map;
        let store = self.node.store().clone();
        let bytes = blocking(move || {
            // Through the map: its bytes are checked against its digest on the way.
            Ok::<_, StoreError>(store.chunk_map(&digest)?.map(|map| map.encode()))
        });
        match bytes.await {
            Ok(Some(bytes)) => {
                // At most 152 MB, by the limit on chunks.
                let len = bytes.len() as u32;
                write_all(&mut self.writer, &Answer::Map { len }.encode()).await?;
                for piece in bytes.chunks(SERVE_PIECE) {
                    write_all(&mut self.writer, piece).await?;
                }
                self.counters.add_sent(len.into());
                Ok(())
            }
            Ok(None) => self.missing().await,
            Err(error) => {
                tracing::error!("chunk map {digest} can't be served: {error}");
                self.missing().await
            }
        }
    }

    /// The file's map, and its blob if that is whole.
    async fn look_up(&mut self, file: u32) -> Result<Option<&Open>, WireError> {
        let wanted = self.file(file)?;
        let (blob, digest) = (wanted.blake3, wanted.chunk_map);
        // A blob that was being fetched may have become whole.
        let stale = self.open.as_ref().is_none_or(|open| open.file != file || open.blob.is_none());
        if stale {
            let node = self.node.clone();
            let found = blocking(move || {
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
                let whole = node.store().has_blob(&blob);
                let file = whole.then(|| node.store().open_blob(&blob)).transpose()?;
                Ok::<_, StoreError>(Some((map, file.map(Arc::new))))
            });
            self.open = match found.await {
                Ok(Some((map, blob))) => Some(Open { file, map, blob }),
                Ok(None) => None,
                Err(error) => {
                    tracing::error!("blob {blob} can't be served: {error}");
                    None
                }
            };
        }
        Ok(self.open.as_ref())
    }

    async fn have(&mut self, file: u32) -> Result<(), WireError> {
        let blob = self.file(file)?.blake3;
        let have = match self.look_up(file).await? {
            None => Have::Nothing,
            Some(Open { blob: Some(_), .. }) => Have::Everything,
            Some(Open { map, .. }) => {
                let count = map.len();
                let store = self.node.store().clone();
                let chunks = blocking(move || Ok::<_, StoreError>(store.partial_chunks(&blob))).await;
                match chunks.ok().flatten().filter(|bits| bits.len() == count) {
                    Some(bits) => Have::Some(bits.to_bytes()),
                    None => Have::Nothing,
                }
            }
        };
        write_all(&mut self.writer, &Answer::Have(have).encode()).await
    }

    async fn chunks(&mut self, file: u32, first: u32, count: u32) -> Result<(), WireError> {
        let Some(Open { map, blob, .. }) = self.look_up(file).await? else { return self.missing().await };
        let (map, blob) = (Arc::clone(map), blob.clone());
        let Range { start, end } = wire::range(&map, first, count)?;
        match blob {
            Some(blob) => self.stream_blob(blob, start, end).await,
            None => self.stream_partial(map, first, count).await,
        }
    }

    /// Streams a range of a whole blob: the next piece is read while one is sent.
    async fn stream_blob(&mut self, blob: Arc<File>, start: u64, end: u64) -> Result<(), WireError> {
        let read = |at: u64, mut buffer: Vec<u8>| {
            let blob = Arc::clone(&blob);
            let len = (end - at).min(SERVE_PIECE as u64) as usize;
            tokio::task::spawn_blocking(move || {
                buffer.resize(len, 0);
                blob.read_exact_at(&mut buffer, at).map(|()| buffer)
            })
        };
        let mut reading = Some(read(start, Vec::new()));
        // A chunk request is at most MAX_RANGE or one chunk: it fits.
        let head = Answer::Data { len: (end - start) as u32 }.encode();
        within(PIECE_TIMEOUT, "taking what was sent", async { Ok(self.writer.write_all(&head).await?) })
            .await?;
        let (mut at, mut spare) = (start, Vec::new());
        while let Some(next) = reading.take() {
            let piece = next.await.map_err(|error| WireError::Io(std::io::Error::other(error)))??;
            at += piece.len() as u64;
            if at < end {
                reading = Some(read(at, std::mem::take(&mut spare)));
            }
            within(PIECE_TIMEOUT, "taking what was sent", async { Ok(self.writer.write_all(&piece).await?) })
                .await?;
            self.counters.add_sent(piece.len() as u64);
            spare = piece;
        }
        within(PIECE_TIMEOUT, "taking what was sent", async { Ok(self.writer.flush().await?) }).await
    }

    /// Streams chunks of a blob that is being fetched here.
    async fn stream_partial(&mut self, map: Arc<ChunkMap>, first: u32, count: u32) -> Result<(), WireError> {
        let blob = map.blob();
        let store = self.node.store().clone();
        let indices = first as usize..first as usize + count as usize;
        let wanted = indices.clone();
        let all = blocking(move || {
            let bits = store.partial_chunks(&blob);
            Ok::<_, StoreError>(bits.is_some_and(|bits| wanted.into_iter().all(|index| bits.get(index))))
        });
        if !all.await.unwrap_or(false) {
            return self.missing().await;
        }
        let len: u64 =
            indices.clone().filter_map(|index| map.get(index)).map(|chunk| u64::from(chunk.len)).sum();
        write_all(&mut self.writer, &Answer::Data { len: len as u32 }.encode()).await?;
        for index in indices {
            let (store, map) = (self.node.store().clone(), Arc::clone(&map));
            let bytes = blocking(move || store.read_chunk(&blob, &map, index)).await;
            let Ok(Some(bytes)) = bytes else {
                // The length is announced: all that is left is to end the stream, which the peer takes as it is.
                return Err(WireError::Io(std::io::Error::other("a chunk went away while it was served")));
            };
            write_all(&mut self.writer, &bytes).await?;
            self.counters.add_sent(bytes.len() as u64);
        }
        Ok(())
    }
}
