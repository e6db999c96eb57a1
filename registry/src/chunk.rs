//! Chunk maps: the ordered list of a blob's chunks (`specs/01-digests-and-chunk-maps.md`).
//!
//! A chunk is verified on its own, so it may come from anybody, in any order. The map's digest stands in the signed
//! release, so a receiver knows every chunk's digest and length before it asks for the first.
//!
//! Where the cuts are is the publisher's choice ([`plan()`] and [`build()`] are ours); a receiver takes any map that
//! [`ChunkMap::decode`] accepts.

mod build;
mod check;
mod error;
mod plan;

use std::ops::Range;

pub use build::{Built, build};
pub use error::ChunkError;
pub use plan::{Cut, MIN_CHUNK, Span, plan};

use crate::digest::Digest;

/// Longest chunk, in bytes: what a bad peer can cost, and what a receiver holds in memory for each request in flight.
pub const MAX_CHUNK: u32 = 1024 * 1024;
/// Most chunks in one map: 4 TiB at full length, more than any file of weights; the encoding stays under 152 MB.
pub const MAX_CHUNKS: usize = 1 << 22;
/// First bytes of an encoded map.
pub const MAGIC: [u8; 4] = *b"SYCM";
/// The encoding's version.
pub const VERSION: u32 = 1;
/// Bytes before the first entry: magic, version, blob digest, size, count.
pub const HEADER_LEN: usize = 4 + 4 + 32 + 8 + 4;
/// Bytes of one entry: digest and length.
pub const ENTRY_LEN: usize = 32 + 4;
/// Longest encoded map, in bytes: the limit for whoever receives one.
pub const MAX_ENCODED: usize = HEADER_LEN + MAX_CHUNKS * ENTRY_LEN;

/// One offset is kept for so many chunks: an eighth of a byte a chunk, and a look-up adds at most this many lengths.
const OFFSET_STEP: usize = 64;

/// A piece of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// BLAKE3 of its bytes.
    pub digest: Digest,
    /// Its length in bytes: 1 to [`MAX_CHUNK`].
    pub len: u32,
}

/// The ordered list of a blob's chunks. Every value of this type is valid: lengths in range, adding up to the size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkMap {
    blob: Digest,
    size: u64,
    chunks: Vec<Chunk>,
    /// The offset of every [`OFFSET_STEP`]th chunk.
    steps: Vec<u64>,
}

impl ChunkMap {
    /// The map of `blob`, which has `size` bytes, if these chunks can make it up.
    pub fn new(blob: Digest, size: u64, chunks: Vec<Chunk>) -> Result<Self, ChunkError> {
        if chunks.len() > MAX_CHUNKS {
            return Err(ChunkError::TooMany { count: chunks.len() as u64 });
        }
        let mut steps = Vec::with_capacity(chunks.len().div_ceil(OFFSET_STEP));
        let mut sum = 0u64;
        for (index, chunk) in chunks.iter().enumerate() {
            if chunk.len == 0 || chunk.len > MAX_CHUNK {
                return Err(ChunkError::Length { index, len: chunk.len });
            }
            if index % OFFSET_STEP == 0 {
                steps.push(sum);
            }
            // At most 2^22 chunks of 2^20 bytes: no overflow.
            sum += u64::from(chunk.len);
        }
        if sum != size {
            return Err(ChunkError::Sum { sum, size });
        }
        let must = match chunks[..] {
            [] => Some(Digest::of(&[])),
            [only] => Some(only.digest),
            _ => None,
        };
        match must {
            Some(must) if must != blob => Err(ChunkError::Blob { blob, count: chunks.len(), must }),
            _ => Ok(Self { blob, size, chunks, steps }),
        }
    }

    /// The blob's digest.
    pub fn blob(&self) -> Digest {
        self.blob
    }

    /// The blob's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The chunks, in the blob's order.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// How many chunks there are; zero only for an empty blob.
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Whether the blob is empty.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The chunk at `index`.
    pub fn get(&self, index: usize) -> Option<Chunk> {
        self.chunks.get(index).copied()
    }

    /// Where the chunk at `index` begins in the blob, in bytes.
    pub fn offset(&self, index: usize) -> Option<u64> {
        if index >= self.chunks.len() {
            return None;
        }
        let first = index / OFFSET_STEP * OFFSET_STEP;
        let before: u64 = self.chunks.get(first..index)?.iter().map(|chunk| u64::from(chunk.len)).sum();
        Some(self.steps.get(index / OFFSET_STEP)? + before)
    }

    /// The bytes of the blob that the chunk at `index` covers.
    pub fn range(&self, index: usize) -> Option<Range<u64>> {
        let start = self.offset(index)?;
        Some(start..start + u64::from(self.get(index)?.len))
    }

    /// Which chunk holds the blob's byte `offset`.
    pub fn index_at(&self, offset: u64) -> Option<usize> {
        if offset >= self.size {
            return None;
        }
        let step = self.steps.partition_point(|&start| start <= offset).checked_sub(1)?;
        let first = step * OFFSET_STEP;
        let mut end = *self.steps.get(step)?;
        for (i, chunk) in self.chunks.iter().enumerate().skip(first).take(OFFSET_STEP) {
            end += u64::from(chunk.len);
            if offset < end {
                return Some(i);
            }
        }
        None
    }

    /// Every chunk with its offset in the blob.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Chunk)> + '_ {
        let mut offset = 0;
        self.chunks.iter().map(move |&chunk| {
            let start = offset;
            offset += u64::from(chunk.len);
            (start, chunk)
        })
    }

    /// The one encoding of this map.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN + self.chunks.len() * ENTRY_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(self.blob.as_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        // At most MAX_CHUNKS, which fits.
        out.extend_from_slice(&(self.chunks.len() as u32).to_le_bytes());
        for chunk in &self.chunks {
            out.extend_from_slice(chunk.digest.as_bytes());
            out.extend_from_slice(&chunk.len.to_le_bytes());
        }
        out
    }

    /// The digest that names this map: BLAKE3 of [`Self::encode`].
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }

    /// Reads an encoded map, refusing everything that [`Self::encode`] would not write. Nothing is allocated before the
    /// announced count was compared with the bytes that are there.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChunkError> {
        let mut input = bytes;
        let short = |need| ChunkError::Truncated { have: bytes.len(), need };
        let magic: [u8; 4] = take(&mut input).ok_or(short(HEADER_LEN))?;
        if magic != MAGIC {
            return Err(ChunkError::Magic);
        }
        let version = u32::from_le_bytes(take(&mut input).ok_or(short(HEADER_LEN))?);
        if version != VERSION {
            return Err(ChunkError::Version(version));
        }
        let blob = Digest::from_bytes(take(&mut input).ok_or(short(HEADER_LEN))?);
        let size = u64::from_le_bytes(take(&mut input).ok_or(short(HEADER_LEN))?);
        let count = u32::from_le_bytes(take(&mut input).ok_or(short(HEADER_LEN))?) as usize;
        if count > MAX_CHUNKS {
            return Err(ChunkError::TooMany { count: count as u64 });
        }
        let need = count * ENTRY_LEN;
        if input.len() < need {
            return Err(short(HEADER_LEN + need));
        }
        if input.len() > need {
            return Err(ChunkError::Trailing { extra: input.len() - need });
        }
        let mut chunks = Vec::with_capacity(count);
        while let (Some(digest), Some(len)) = (take(&mut input), take(&mut input)) {
            chunks.push(Chunk { digest: Digest::from_bytes(digest), len: u32::from_le_bytes(len) });
        }
        Self::new(blob, size, chunks)
    }
}

/// Takes the next `N` bytes off `input`.
fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(*head)
}

#[cfg(test)]
mod tests;
