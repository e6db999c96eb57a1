//! Where chunks lie: for each chunk every blob that holds it.
//!
//! An entry costs 76 bytes before compression, so 1 TB of weights (chunks of 0.7 MiB on average) about 110 MB. It is a
//! hint, never a promise: it is written before its blob's record, may outlive the blob, and says nothing about the disk.

use super::index::Family;
use super::record::{BlobRecord, Place};
use super::{Result, Store};
use crate::chunk::ChunkMap;
use crate::digest::Digest;

/// Entries of the chunk index written at once: about 300 KB of log.
const CHUNK_BATCH: usize = 4096;
/// Places looked at for one chunk. A model's hundredth revision shares most chunks with all before it, and the first few
/// will do; the margin is for blobs that are gone.
pub(super) const MAX_PLACES: usize = 16;

impl Store {
    /// Notes where each chunk lies. Not durable by itself: the blob's own record comes after it in the same log.
    pub(super) fn index_chunks(&self, map: &ChunkMap) -> Result<()> {
        let blob = map.blob();
        let mut batch = self.inner.index.batch();
        for (offset, chunk) in map.iter() {
            let place = Place { blob, offset, len: chunk.len };
            batch.put(Family::Chunks, &Place::key(&chunk.digest, &blob), &place.value())?;
            if batch.len() >= CHUNK_BATCH {
                std::mem::replace(&mut batch, self.inner.index.batch()).commit_lazily()?;
            }
        }
        batch.commit_lazily()
    }

    /// Forgets the places of a blob's chunks, where its chunk map is still here to name them.
    pub(super) fn forget_chunks(&self, blob: &Digest, record: &BlobRecord) -> Result<()> {
        let Some(map) = record.map.map(|map| self.chunk_map(&map)).transpose().unwrap_or_default().flatten()
        else {
            return Ok(());
        };
        let index = &self.inner.index;
        let mut batch = index.batch();
        for chunk in map.chunks() {
            batch.delete(Family::Chunks, &Place::key(&chunk.digest, blob))?;
            // As it was written before a chunk could have several places.
            if index
                .get(Family::Chunks, chunk.digest.as_bytes())?
                .is_some_and(|p| p.starts_with(blob.as_bytes()))
            {
                batch.delete(Family::Chunks, chunk.digest.as_bytes())?;
            }
            if batch.len() >= CHUNK_BATCH {
                std::mem::replace(&mut batch, index.batch()).commit_lazily()?;
            }
        }
        batch.commit_lazily()
    }

    /// Where `chunk` may lie: at most [`MAX_PLACES`].
    pub(super) fn places(&self, chunk: &Digest) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        for entry in self.inner.index.scan(Family::Chunks, chunk.as_bytes())?.take(MAX_PLACES) {
            let (key, value) = entry?;
            places.extend(Place::decode(&key, &value));
        }
        Ok(places)
    }
}
