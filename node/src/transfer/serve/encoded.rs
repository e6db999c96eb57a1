//! Chunks that travel encoded (`specs/07`): of a whole blob, or of one that is still being fetched here. What was encoded once, or
//! came encoded, is kept for whoever asks next.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::AsyncWrite;
use registry::chunk::ChunkMap;
use registry::codec::{Encoder, Encoding, Layouts};
use registry::store::Store;

use super::answer::Stream;
use crate::transfer::cache::{Encoded, EncodedChunks};
use crate::wire::{Answer, WireError};

/// Requests for a file whose header is not here yet before it is looked for again.
const LOOK_AGAIN: u32 = 16;

/// Where chunks are read from.
#[derive(Clone)]
pub(super) enum Content {
    /// A whole blob.
    Whole(Arc<File>),
    /// One that is being fetched into this store: only chunks that were verified can be read.
    Partial(Store),
}

impl Content {
    /// One chunk's bytes.
    pub(super) fn read(&self, map: &ChunkMap, index: usize) -> io::Result<Vec<u8>> {
        let absent = || io::Error::other("a chunk went away while it was served");
        match self {
            Self::Whole(blob) => {
                let range = map.range(index).ok_or_else(absent)?;
                let mut bytes = vec![0; (range.end - range.start) as usize];
                blob.read_exact_at(&mut bytes, range.start)?;
                Ok(bytes)
            }
            Self::Partial(store) => {
                let read = store.read_chunk(&map.blob(), map, index).map_err(io::Error::other)?;
                read.ok_or_else(absent)
            }
        }
    }

    fn layouts(&self, map: &Arc<ChunkMap>) -> Layouts {
        match self {
            Self::Whole(blob) => Layouts::read(blob),
            Self::Partial(_) => {
                let reader = Chunks {
                    content: self.clone(),
                    map: Arc::clone(map),
                    at: 0,
                    chunk: usize::MAX,
                    bytes: Vec::new(),
                };
                Layouts::from_reader(reader, map.size())
            }
        }
    }
}

/// Reads a blob chunk by chunk, as far as its chunks are here.
struct Chunks {
    content: Content,
    map: Arc<ChunkMap>,
    at: u64,
    /// The chunk that is held, and its bytes.
    chunk: usize,
    bytes: Vec<u8>,
}

impl Read for Chunks {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(chunk) = self.map.index_at(self.at) else { return Ok(0) };
        if chunk != self.chunk {
            self.bytes = self.content.read(&self.map, chunk)?;
            self.chunk = chunk;
        }
        let start = self.map.offset(chunk).unwrap_or_default();
        let mut rest = self.bytes.get((self.at - start) as usize..).unwrap_or_default();
        let read = rest.read(out)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Chunks {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.map.size().checked_add_signed(by),
        };
        self.at = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// What is known of a file's layout.
#[derive(Default)]
pub(super) struct Hint {
    layouts: Arc<Layouts>,
    /// Requests until it is looked for again.
    wait: u32,
}

/// One chunk as it travels.
struct Travelling {
    chunk: Arc<Encoded>,
    /// Its length as it is.
    raw: u64,
    /// What encoding it took; nothing for one that was kept.
    took: Option<Duration>,
}

thread_local! {
    /// A few MiB for each thread of the blocking pool that encodes.
    static ENCODER: RefCell<Encoder> = RefCell::new(Encoder::new());
}

/// What encodes the chunks of one file.
#[derive(Clone)]
struct Work {
    content: Content,
    map: Arc<ChunkMap>,
    layouts: Arc<Layouts>,
    kept: Arc<EncodedChunks>,
}

impl Work {
    fn encode(&self, index: usize) -> io::Result<Travelling> {
        let (chunk, range) = self
            .map
            .get(index)
            .zip(self.map.range(index))
            .ok_or_else(|| io::Error::other("the map has no such chunk"))?;
        let raw = u64::from(chunk.len);
        let kept = self.kept.get(&chunk.digest);
        if let Some(chunk) = kept.as_ref().filter(|chunk| chunk.encoding != Encoding::Raw) {
            return Ok(Travelling { chunk: Arc::clone(chunk), raw, took: None });
        }
        let bytes = self.content.read(&self.map, index)?;
        if kept.is_some() {
            // That nothing makes it smaller was found before.
            let chunk = Arc::new(Encoded { encoding: Encoding::Raw, bytes });
            return Ok(Travelling { chunk, raw, took: None });
        }
        let (begun, layout) = (Instant::now(), self.layouts.of(range));
        let mut out = Vec::new();
        let encoding = ENCODER.with_borrow_mut(|encoder| encoder.encode(&bytes, layout, &mut out));
        let took = Some(begun.elapsed());
        let bytes = if encoding == Encoding::Raw { bytes } else { out };
        let encoded = Arc::new(Encoded { encoding, bytes });
        // With the file's header at hand it may become smaller yet.
        if encoding != Encoding::Raw || !self.layouts.is_empty() {
            self.kept.put(chunk.digest, &encoded);
        }
        Ok(Travelling { chunk: encoded, raw, took })
    }
}

impl<W: AsyncWrite + Unpin> Stream<'_, W> {
    /// What lies where in the open file. While its header is not here yet nothing is known, and chunks are encoded as mere bytes.
    async fn layouts(&mut self, content: &Content, map: &Arc<ChunkMap>) -> Arc<Layouts> {
        let Some(hint) = self.open.as_mut().map(|open| &mut open.hint) else { return Arc::default() };
        if hint.layouts.is_empty() {
            if hint.wait == 0 {
                hint.wait = LOOK_AGAIN;
                let (content, map) = (content.clone(), Arc::clone(map));
                let found = tokio::task::spawn_blocking(move || content.layouts(&map)).await;
                hint.layouts = Arc::new(found.unwrap_or_default());
            }
            hint.wait -= 1;
        }
        Arc::clone(&hint.layouts)
    }

    /// Streams chunks encoded, each in a frame of its own; the next is encoded while one is sent.
    pub(super) async fn stream_encoded(
        &mut self,
        content: Content,
        map: Arc<ChunkMap>,
        chunks: Range<u32>,
    ) -> Result<(), WireError> {
        let layouts = self.layouts(&content, &map).await;
        let work = Work { content, map, layouts, kept: Arc::clone(self.asker.node.encoded()) };
        let encode = |index: u32| {
            let work = work.clone();
            tokio::task::spawn_blocking(move || work.encode(index as usize))
        };
        let mut ahead = Some(encode(chunks.start));
        for index in chunks.clone() {
            let Some(next) = ahead.take() else { break };
            let Travelling { chunk, raw, took } = next.await.map_err(io::Error::other)??;
            if index + 1 < chunks.end {
                ahead = Some(encode(index + 1));
            }
            if let Some(took) = took {
                self.pace.encoded(raw, took, chunk.encoding != Encoding::Raw);
            }
            // At most MAX_CHUNK, which fits.
            let len = chunk.bytes.len() as u32;
            self.head(Answer::Encoded { encoding: chunk.encoding.id(), len }).await?;
            self.send_all(&chunk.bytes).await?;
        }
        self.flush().await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use registry::chunk::Chunk;
    use registry::codec::Decoder;
    use registry::key::SecretKey;
    use registry::statement::{RoleKeys, RoleName, Root, RootKey, Statement};
    use registry::{Digest, Nation, Signed, Timestamp};

    use super::*;

    const CHUNK: usize = 64 * 1024;
    const NOW: Timestamp = Timestamp::from_unix(1_790_000_000);

    fn store(path: &std::path::Path) -> Store {
        let key = SecretKey::from_seed(&[7; 32]);
        let role = |role| (role, RoleKeys { keys: vec![key.id()], threshold: 1 });
        let root = Root {
            nation: Nation::new("alba").unwrap(),
            version: 1,
            issued: NOW,
            expires: Timestamp::from_unix(1_890_000_000),
            keys: BTreeMap::from([(key.id(), RootKey::Ed25519 { public: key.public() })]),
            roles: RoleName::ALL.into_iter().map(role).collect(),
            previous: None,
        };
        Store::create(path, &Signed::sign(&Statement::Root(root), &key), NOW).unwrap()
    }

    /// Four chunks of a file of BF16 whose exponents take few values.
    fn weights() -> (Vec<u8>, Arc<ChunkMap>) {
        let data = 4 * CHUNK - 256;
        let mut header =
            format!("{{\"w\":{{\"dtype\":\"BF16\",\"shape\":[{}],\"data_offsets\":[0,{data}]}}}}", data / 2);
        header.push_str(&" ".repeat(248 - header.len()));
        let mut content = 248u64.to_le_bytes().to_vec();
        content.extend_from_slice(header.as_bytes());
        let mut noise = vec![0; data];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        noise.chunks_mut(2).for_each(|word| word[1] = 0x3c | (word[1] & 0x81));
        content.extend_from_slice(&noise);
        let chunks = content.chunks(CHUNK).map(|part| Chunk { digest: Digest::of(part), len: CHUNK as u32 });
        let map = ChunkMap::new(Digest::of(&content), content.len() as u64, chunks.collect()).unwrap();
        (content, Arc::new(map))
    }

    #[test]
    fn a_blob_that_is_still_fetched_is_passed_on_encoded() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("store"));
        let (content, map) = weights();
        let part = |index: usize| &content[index * CHUNK..(index + 1) * CHUNK];
        let partial = store.partial(&map).unwrap();
        let here = Content::Partial(store.clone());
        partial.write_chunk(1, part(1)).unwrap();
        assert!(here.layouts(&map).is_empty(), "the header is not here yet");
        partial.write_chunk(0, part(0)).unwrap();
        let layouts = Arc::new(here.layouts(&map));
        assert!(!layouts.is_empty());

        let kept = Arc::new(EncodedChunks::default());
        let work = Work { content: here, map: Arc::clone(&map), layouts, kept };
        let first = work.encode(1).unwrap();
        assert_eq!(first.chunk.encoding, Encoding::Planes2);
        assert!(first.took.is_some() && first.chunk.bytes.len() < CHUNK * 3 / 4);
        let again = work.encode(1).unwrap();
        assert!(again.took.is_none() && Arc::ptr_eq(&first.chunk, &again.chunk), "it was encoded twice");
        let mut out = vec![0; CHUNK];
        Decoder::new().decode(again.chunk.encoding, &again.chunk.bytes, &mut out).unwrap();
        assert_eq!(out, part(1));
        assert!(work.encode(2).is_err(), "a chunk that is not here");
    }
}
