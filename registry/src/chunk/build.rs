//! One sequential pass over a file: BLAKE3, SHA-256, the chunks, and the bytes handed on to whoever keeps them.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use fastcdc::v2020::FastCDC;
use sha2::Digest as _;

use super::{Chunk, ChunkError, ChunkMap, Cut, MAX_CHUNK, MAX_CHUNKS, MIN_CHUNK, plan};
use crate::digest::{Digest, FileDigests, Sha256};
use crate::format::Layout;

/// The usual length of a content-defined chunk, in bytes.
const AVERAGE_CHUNK: u32 = 256 * 1024;
/// Bytes read at a time; a chunk must fit.
const BLOCK: usize = MAX_CHUNK as usize;
/// Blocks in flight between reading and the SHA-256 thread. SHA-256 is the slowest of the three hashes; with it on a
/// thread of its own the pass takes as long as SHA-256 alone, and memory stays at these few blocks.
const BLOCKS: usize = 4;

/// What one pass yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The file's digests and size.
    pub digests: FileDigests,
    /// Its chunk map.
    pub map: ChunkMap,
}

/// Reads `size` bytes from `reader` once, for both digests and the chunk map, and hands each block to `tee` in order.
///
/// `layout` says where tensors begin; without it the cuts follow the content. Holds a few MiB, whatever the size.
pub fn build(
    mut reader: impl Read,
    size: u64,
    layout: Option<&Layout>,
    mut tee: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<Built, ChunkError> {
    let spans = plan(layout, size)?;
    thread::scope(|scope| {
        let (full, to_hash) = sync_channel::<Vec<u8>>(BLOCKS);
        let (recycle, spare) = sync_channel::<Vec<u8>>(BLOCKS);
        let sha256 = scope.spawn(move || hash_blocks(&to_hash, &recycle));
        let mut blocks = Blocks { full, spare, made: 0 };
        let mut blob = blake3::Hasher::new();
        let mut cutter = Cutter::new(spans.into_iter());
        let mut done = 0u64;
        while done < size {
            let mut block = blocks.next();
            let want = (size - done).min(BLOCK as u64) as usize;
            read_full(&mut reader, want, &mut block)?;
            if block.len() < want {
                return Err(ChunkError::Changed { expected: size, found: done + block.len() as u64 });
            }
            done += want as u64;
            tee(&block)?;
            blob.update(&block);
            cutter.take(&block)?;
            blocks.send(block)?;
        }
        let mut beyond = Vec::new();
        read_full(&mut reader, 1, &mut beyond)?;
        if !beyond.is_empty() {
            return Err(ChunkError::Changed { expected: size, found: size + 1 });
        }
        drop(blocks);
        let sha256 = sha256.join().map_err(|_| io::Error::other("the SHA-256 thread stopped"))?;
        let blake3 = Digest::from_bytes(*blob.finalize().as_bytes());
        let map = ChunkMap::new(blake3, size, cutter.finish())?;
        Ok(Built { digests: FileDigests { blake3, sha256, size }, map })
    })
}

fn hash_blocks(blocks: &Receiver<Vec<u8>>, recycle: &SyncSender<Vec<u8>>) -> Sha256 {
    let mut hasher = sha2::Sha256::new();
    while let Ok(block) = blocks.recv() {
        hasher.update(&block);
        // The reader takes back only what it needs.
        let _ = recycle.try_send(block);
    }
    Sha256::from_bytes(hasher.finalize().into())
}

/// The few buffers that travel between the reader and the SHA-256 thread.
struct Blocks {
    full: SyncSender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
    made: usize,
}

impl Blocks {
    fn next(&mut self) -> Vec<u8> {
        if self.made < BLOCKS {
            self.made += 1;
            return Vec::with_capacity(BLOCK);
        }
        // The other end hangs up only when it panicked; sending then says so.
        self.spare.recv().unwrap_or_default()
    }

    fn send(&self, block: Vec<u8>) -> io::Result<()> {
        self.full.send(block).map_err(|_| io::Error::other("the SHA-256 thread stopped"))
    }
}

/// Replaces what is in `block` by the next `want` bytes, or fewer at the end.
fn read_full(reader: &mut impl Read, want: usize, block: &mut Vec<u8>) -> io::Result<()> {
    block.clear();
    reader.by_ref().take(want as u64).read_to_end(block)?;
    Ok(())
}

/// Cuts a stream of bytes along spans, holding at most two chunks' bytes.
struct Cutter<I> {
    spans: I,
    /// What is left of the current span.
    left: u64,
    cut: Cut,
    /// Bytes of the current span that are not yet in a chunk.
    pending: Vec<u8>,
    chunks: Vec<Chunk>,
}

impl<I: Iterator<Item = super::Span>> Cutter<I> {
    fn new(spans: I) -> Self {
        Self { spans, left: 0, cut: Cut::Even, pending: Vec::with_capacity(2 * BLOCK), chunks: Vec::new() }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), ChunkError> {
        while !bytes.is_empty() {
            if self.left == 0 {
                // The plan covers the file, so a span is there; without one the map would not add up and be refused.
                let Some(span) = self.spans.next() else { return Ok(()) };
                (self.left, self.cut) = (span.len, span.cut);
            }
            // Bounded so that `pending` never holds more than two chunks.
            let want =
                self.left.min((2 * BLOCK - self.pending.len()) as u64).min(bytes.len() as u64) as usize;
            let (now, later) = bytes.split_at(want);
            bytes = later;
            self.left -= want as u64;
            self.pending.extend_from_slice(now);
            self.emit()?;
        }
        Ok(())
    }

    /// Turns as much of `pending` into chunks as can be decided.
    fn emit(&mut self) -> Result<(), ChunkError> {
        let mut at = 0;
        // A chunk is decided once a full one is there, or the span has ended.
        while self.pending.len() - at >= BLOCK || (self.left == 0 && at < self.pending.len()) {
            let rest = &self.pending[at..];
            let len = match self.cut {
                Cut::Even => rest.len().min(BLOCK),
                Cut::Content => content_cut(rest),
            };
            let chunk = Chunk { digest: Digest::of(&rest[..len]), len: len as u32 };
            if self.chunks.len() >= MAX_CHUNKS {
                return Err(ChunkError::TooMany { count: self.chunks.len() as u64 + 1 });
            }
            self.chunks.push(chunk);
            at += len;
        }
        self.pending.drain(..at);
        Ok(())
    }

    fn finish(self) -> Vec<Chunk> {
        self.chunks
    }
}

/// The length of the first content-defined chunk of `bytes`: between 1 and [`MAX_CHUNK`].
fn content_cut(bytes: &[u8]) -> usize {
    let bytes = &bytes[..bytes.len().min(BLOCK)];
    let cdc = FastCDC::new(bytes, MIN_CHUNK as usize, AVERAGE_CHUNK as usize, MAX_CHUNK as usize);
    let (_, end) = cdc.cut(0, bytes.len());
    end.clamp(1, bytes.len())
}
