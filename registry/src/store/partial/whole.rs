//! The hash of the whole blob, computed while its chunks come.
//!
//! A chunk is hashed twice while it is in the processor's cache: alone, and as part of the blob's tree. Reading the finished file
//! once more would cost as much again, and a wait at the end. What was not written by this process, as after a restart, is read.
//!
//! So the file's bytes are those that were hashed as long as nobody else wrote to it. The time of the last change tells: when the
//! file was changed after our own last write, nothing is taken for known, and all of it is read.

use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::Ordering;

use super::super::{Result, io, locked};
use super::Inner;
use crate::chunk::ChunkMap;
use crate::digest::tree::{self, GROUP, Subtrees};
use crate::digest::{Digest, blake3_file};

/// Bytes read at a time of what was not hashed when it came: a buffer that fits the processor's cache.
const READ: u64 = 512 * 1024;

/// Seconds and nanoseconds of a file's last change.
type Changed = (i64, i64);

/// What is known of the hash of the whole.
pub(super) struct Whole {
    tree: Subtrees,
    /// When the file was changed last, as seen after each of our own writes.
    changed: Option<Changed>,
}

impl Whole {
    pub(super) fn new(size: u64) -> Self {
        Self { tree: Subtrees::new(size), changed: None }
    }

    /// The bytes of this range were found wrong.
    pub(super) fn forget(&mut self, range: Range<u64>) {
        self.tree.forget(range);
    }
}

impl Inner {
    fn changed(&self) -> Result<Changed> {
        let meta = self.file.metadata().map_err(io("could not look at", &self.path))?;
        Ok((meta.mtime(), meta.mtime_nsec()))
    }

    /// Hashes a chunk that was just written as a part of the whole.
    pub(super) fn hash_chunk(&self, index: usize, bytes: &[u8]) -> Result<()> {
        let Some(offset) = self.map.offset(index) else { return Ok(()) };
        let subtrees = tree::hash(self.map.size(), offset, bytes);
        let changed = self.changed()?;
        let mut whole = locked(&self.whole);
        whole.tree.add(subtrees);
        whole.changed = whole.changed.max(Some(changed));
        Ok(())
    }

    /// Hashes what a chunk shares with its neighbours, as far as those are here. Of two that are written at the same time
    /// at least the one that is counted last sees the other.
    pub(super) fn hash_edges(&self, index: usize) -> Result<()> {
        for group in edges(&self.map, index).into_iter().flatten() {
            let (Some(first), Some(last)) =
                (self.map.index_at(group.start), self.map.index_at(group.end - 1))
            else {
                continue;
            };
            let all = {
                let state = locked(&self.state);
                (first..=last).all(|chunk| state.have.get(chunk))
            };
            if all {
                let mut bytes = [0; GROUP as usize];
                let bytes = &mut bytes[..(group.end - group.start) as usize];
                self.file.read_exact_at(bytes, group.start).map_err(io("could not read", &self.path))?;
                let subtrees = tree::hash(self.map.size(), group.start, bytes);
                locked(&self.whole).tree.add(subtrees);
            }
        }
        Ok(())
    }

    /// The digest of the whole. What is not known is read, which is mostly still in the page cache.
    pub(super) fn whole_digest(&self) -> Result<Digest> {
        let size = self.map.size();
        let changed = self.changed()?;
        let mut whole = locked(&self.whole);
        if whole.changed != Some(changed) {
            whole.tree.clear();
        }
        let mut bytes = vec![0; READ.min(size) as usize];
        while let Some(range) = whole.tree.missing(READ) {
            self.hashed.store(range.start, Ordering::Relaxed);
            let Some(part) = bytes.get_mut(..(range.end - range.start) as usize) else { break };
            self.file.read_exact_at(part, range.start).map_err(io("could not read", &self.path))?;
            let subtrees = tree::hash(size, range.start, part);
            // One leaf has no tree.
            if subtrees.is_empty() {
                break;
            }
            whole.tree.fill(subtrees);
        }
        self.hashed.store(size, Ordering::Relaxed);
        match whole.tree.root() {
            Some(root) => Ok(root),
            None => {
                let file = std::fs::File::open(&self.path).map_err(io("could not open", &self.path))?;
                blake3_file(file).map_err(io("could not read", &self.path))
            }
        }
    }
}

/// The groups at the edges of a chunk that it shares with its neighbours: where it begins and where it ends.
fn edges(map: &ChunkMap, index: usize) -> [Option<Range<u64>>; 2] {
    let Some(range) = map.range(index) else { return [None, None] };
    let group = |at: u64| {
        let start = at / GROUP * GROUP;
        (start != at).then(|| start..(start + GROUP).min(map.size()))
    };
    let (first, last) = (group(range.start), group(range.end).filter(|_| range.end < map.size()));
    if first == last { [first, None] } else { [first, last] }
}
