//! Chunks that a blob holds more than once: padding, tied embeddings, layers that start out as zeros.

use std::os::unix::fs::FileExt;

use super::super::{Bitmap, Result, io, locked};
use super::{Inner, Partial};
use crate::chunk::ChunkMap;
use crate::digest::Digest;

/// The chunks of a map that occur more than once, four bytes each.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// Their indexes, equal ones together, in order among themselves.
    sorted: Vec<u32>,
}

fn digest(map: &ChunkMap, index: u32) -> Option<Digest> {
    map.get(index as usize).map(|chunk| chunk.digest)
}

impl Repeats {
    pub(super) fn of(map: &ChunkMap) -> Self {
        // At most MAX_CHUNKS, which fits.
        let mut all: Vec<u32> = (0..map.len() as u32).collect();
        all.sort_unstable_by_key(|&index| (digest(map, index), index));
        let mut sorted = Vec::new();
        for equal in all.chunk_by(|&a, &b| digest(map, a) == digest(map, b)) {
            if equal.len() > 1 {
                sorted.extend_from_slice(equal);
            }
        }
        Self { sorted }
    }

    /// Groups of equal chunks.
    fn groups<'a>(&'a self, map: &'a ChunkMap) -> impl Iterator<Item = &'a [u32]> {
        self.sorted.chunk_by(|&a, &b| digest(map, a) == digest(map, b))
    }
}

impl Inner {
    /// The missing chunks, in order, each content once, and none that is here at another place of the blob.
    pub(super) fn to_fetch(&self) -> Vec<usize> {
        let have = locked(&self.state).have.clone();
        let mut skip = Bitmap::new(have.len());
        for equal in self.repeats.groups(&self.map) {
            let here = equal.iter().any(|&index| have.get(index as usize));
            for &index in equal.get(usize::from(!here)..).unwrap_or_default() {
                skip.set(index as usize, true);
            }
        }
        have.missing().filter(|&index| !skip.get(index)).collect()
    }

    /// Copies what is here to the other places where the blob has it: the chunks copied, and those found changed by the
    /// disk, which are missing again.
    pub(super) fn copy_repeats(&self, progress: &mut dyn FnMut(u64)) -> Result<(u64, Vec<usize>)> {
        let (mut copied, mut bad) = (0, Vec::new());
        let mut bytes = Vec::new();
        for equal in self.repeats.groups(&self.map) {
            let (here, missing): (Vec<usize>, Vec<usize>) = {
                let state = locked(&self.state);
                equal.iter().map(|&index| index as usize).partition(|&index| state.have.get(index))
            };
            if missing.is_empty() || !self.read_one(&here, &mut bytes, &mut bad)? {
                continue;
            }
            for index in missing {
                let Some(offset) = self.map.offset(index) else { continue };
                self.file.write_all_at(&bytes, offset).map_err(io("could not write", &self.path))?;
                self.wrote(index, &bytes)?;
                copied += 1;
                progress(bytes.len() as u64);
            }
        }
        Ok((copied, bad))
    }

    /// Reads the first of these equal chunks that is still as it was written.
    fn read_one(&self, here: &[usize], bytes: &mut Vec<u8>, bad: &mut Vec<usize>) -> Result<bool> {
        for &index in here {
            let (Some(offset), Some(chunk)) = (self.map.offset(index), self.map.get(index)) else { continue };
            bytes.resize(chunk.len as usize, 0);
            self.file.read_exact_at(bytes, offset).map_err(io("could not read", &self.path))?;
            if Digest::of(bytes) == chunk.digest {
                return Ok(true);
            }
            self.lost(&[index]);
            bad.push(index);
        }
        Ok(false)
    }
}

impl Partial {
    /// The chunks to ask peers for: those missing, in order, each content once. [`Self::finish`] and
    /// [`Self::take_local`] copy the rest from them.
    pub fn to_fetch(&self) -> Vec<usize> {
        self.inner.to_fetch()
    }
}
