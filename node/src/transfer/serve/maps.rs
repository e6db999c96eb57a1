//! Decoded chunk maps, kept for whoever asks next.

use std::sync::{Arc, Mutex, PoisonError};

use registry::Digest;
use registry::chunk::ChunkMap;

/// Chunk maps kept decoded for all streams together.
const MAX_MAPS: usize = 16;
/// Chunks of all of them together: about 40 MiB.
const MAX_MAP_CHUNKS: usize = 1 << 20;

/// Decoded chunk maps, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Maps(Mutex<Vec<(Digest, Arc<ChunkMap>)>>);

impl Maps {
    pub(super) fn get(&self, digest: &Digest) -> Option<Arc<ChunkMap>> {
        let maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        maps.iter().find(|(other, _)| other == digest).map(|(_, map)| Arc::clone(map))
    }

    pub(super) fn put(&self, digest: Digest, map: Arc<ChunkMap>) {
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
