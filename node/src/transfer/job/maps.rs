//! Chunk maps: asked of peers, checked against what was signed.

use std::collections::VecDeque;
use std::sync::Arc;

use registry::Digest;
use registry::chunk::{ChunkError, ChunkMap};
use registry::store::{Store, StoreError};

use super::{Own, Running};
use crate::transfer::PullError;
use crate::transfer::fetch::Job;
use crate::transfer::plan::{Event as Happened, FileKey, PeerKey};
use crate::wire::max_chunks;

/// Chunk maps asked of one peer at once.
const MAPS_AHEAD: usize = 8;
/// Files up to this size go first: settings, tokenizers and cards, without which weights are of no use.
const SMALL: u64 = 64 * 1024 * 1024;

/// Why a chunk map is of no use.
pub(super) enum MapError {
    /// The peer's bytes are not the map.
    Wrong(String),
    /// The signed map itself is unfit.
    Unfit(String),
    Store(StoreError),
}

impl Running<'_> {
    /// Spreads the chunk maps that are still wanted over the peers.
    pub(super) fn ask_for_maps(&mut self) {
        let mut rest = VecDeque::new();
        while let Some(file) = self.wanted_maps.pop_front() {
            let without = self.without.get(&file);
            let least = self
                .sources
                .peers
                .iter()
                .filter(|(key, peer)| {
                    peer.joined
                        && peer.maps.len() < MAPS_AHEAD
                        && without.is_none_or(|keys| !keys.contains(key))
                })
                .min_by_key(|(_, peer)| peer.maps.len())
                .map(|(key, _)| *key);
            let size = self.release.files.get(file as usize).map_or(0, |file| file.size);
            let asked = least.and_then(|key| self.sources.peers.get_mut(&key)).is_some_and(|peer| {
                peer.jobs.try_send(Job::Map { file, size }).is_ok() && peer.maps.insert(file)
            });
            if !asked {
                rest.push_back(file);
            }
        }
        self.wanted_maps = rest;
    }

    pub(super) fn want_map_again(&mut self, key: PeerKey, file: FileKey) {
        if let Some(peer) = self.sources.peers.get_mut(&key) {
            peer.maps.remove(&file);
        }
        self.wanted_maps.push_back(file);
        self.ask_for_maps();
    }

    pub(super) fn check_map(&self, key: PeerKey, file: FileKey, bytes: Vec<u8>) {
        let Some(wanted) = self.release.files.get(file as usize).cloned() else { return };
        let (store, sender) = (self.node.store().clone(), self.sender.clone());
        self.node.spawn("chunk map", async move {
            let checked = tokio::task::spawn_blocking(move || keep_map(&store, &wanted, &bytes)).await;
            let result = checked.unwrap_or_else(|_| Err(MapError::Unfit("reading it failed".to_owned())));
            let _ = sender.send(Own::Map { key, file, result }).await;
        });
    }

    pub(super) fn on_map(
        &mut self,
        key: PeerKey,
        file: FileKey,
        result: Result<Arc<ChunkMap>, MapError>,
    ) -> Result<(), PullError> {
        match result {
            Ok(map) => {
                if let Some(peer) = self.sources.peers.get_mut(&key) {
                    peer.maps.remove(&file);
                }
                self.ask_for_maps();
                self.add_map(file, map)
            }
            Err(MapError::Wrong(why)) => {
                let path = self.path(file);
                self.ban(key, &format!("the chunk map of `{path}`"), &why);
                self.drop_peer(key)
            }
            Err(MapError::Unfit(why)) => {
                let producer = &self.release.model.nation;
                Err(PullError::Verification(format!(
                    "the chunk map that `{producer}` signed for `{}` is unfit: {why}; ask `{producer}` for a new release",
                    self.path(file)
                )))
            }
            Err(MapError::Store(error)) => Err(error.into()),
        }
    }

    /// Small files first, then the others in the order of the release: a model's shards as their names count them.
    fn rank(&self, file: FileKey) -> u64 {
        let size = self.release.files.get(file as usize).map_or(0, |file| file.size);
        if size <= SMALL { size } else { SMALL + 1 + u64::from(file) }
    }

    pub(super) fn add_map(&mut self, file: FileKey, map: Arc<ChunkMap>) -> Result<(), PullError> {
        self.maps.insert(file, map);
        let lens = self.lens(file);
        self.happened(Happened::File { file, rank: self.rank(file), lens })?;
        self.tell_readers(file)
    }
}

/// Checks a map's bytes against the signed digest and the file, and keeps it.
fn keep_map(
    store: &Store,
    file: &registry::statement::File,
    bytes: &[u8],
) -> Result<Arc<ChunkMap>, MapError> {
    let found = Digest::of(bytes);
    if found != file.chunk_map {
        return Err(MapError::Wrong(format!("{} was expected, {found} came", file.chunk_map)));
    }
    // From here on the bytes are those that the publisher signed.
    let map = ChunkMap::decode(bytes).map_err(|error: ChunkError| MapError::Unfit(error.to_string()))?;
    if map.blob() != file.blake3 || map.size() != file.size {
        return Err(MapError::Unfit("it belongs to another file".to_owned()));
    }
    if map.len() as u64 > max_chunks(file.size) {
        return Err(MapError::Unfit(format!("{} chunks are too many for {} bytes", map.len(), file.size)));
    }
    store.put_bytes(bytes).map_err(MapError::Store)?;
    Ok(Arc::new(map))
}
