//! Comparing bytes with a map.

use std::io::Read;

use super::{ChunkError, ChunkMap, MAX_CHUNK};
use crate::digest::Digest;

impl ChunkMap {
    /// Reads the encoded map that is named by `digest`, as a release names it. Nothing in the bytes is looked at before
    /// they are known to be the ones that were signed for.
    pub fn decode_named(digest: &Digest, bytes: &[u8]) -> Result<Self, ChunkError> {
        let found = Digest::of(bytes);
        if found != *digest {
            return Err(ChunkError::Name { expected: *digest, found });
        }
        Self::decode(bytes)
    }

    /// Whether `bytes` are the chunk at `index`: of its length and with its digest. To be asked before a chunk is kept,
    /// passed on or counted as there.
    pub fn verify(&self, index: usize, bytes: &[u8]) -> Result<(), ChunkError> {
        let (Some(chunk), Some(offset)) = (self.get(index), self.offset(index)) else {
            return Err(ChunkError::Index { index, count: self.len() });
        };
        // No more than a chunk is hashed, whatever was sent.
        let found = Digest::of(bytes.get(..MAX_CHUNK as usize).unwrap_or(bytes));
        if bytes.len() == chunk.len as usize && found == chunk.digest {
            return Ok(());
        }
        let (len, have, expected) = (chunk.len, bytes.len(), chunk.digest);
        Err(ChunkError::Damaged { index, offset, len, have, expected, found })
    }

    /// Reads a whole blob once and compares it with this map: every chunk, and the blob itself. The error names the
    /// first damaged chunk and where it is.
    pub fn check(&self, mut reader: impl Read) -> Result<(), ChunkError> {
        let mut blob = blake3::Hasher::new();
        let mut buffer = Vec::with_capacity(MAX_CHUNK as usize);
        let mut read = 0u64;
        for (index, chunk) in self.chunks().iter().enumerate() {
            buffer.clear();
            read += reader.by_ref().take(u64::from(chunk.len)).read_to_end(&mut buffer)? as u64;
            if buffer.len() < chunk.len as usize {
                return Err(ChunkError::Changed { expected: self.size(), found: read });
            }
            self.verify(index, &buffer)?;
            blob.update(&buffer);
        }
        if reader.by_ref().take(1).read_to_end(&mut buffer)? > 0 {
            return Err(ChunkError::Changed { expected: self.size(), found: read + 1 });
        }
        let found = Digest::from_bytes(*blob.finalize().as_bytes());
        if found != self.blob() {
            return Err(ChunkError::Content { expected: self.blob(), found });
        }
        Ok(())
    }
}
