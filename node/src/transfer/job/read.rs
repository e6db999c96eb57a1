//! Readers of what comes: their bytes become chunks for the plan, once the file's chunk map is here.

use std::collections::BTreeMap;

use super::Running;
use crate::transfer::PullError;
use crate::transfer::plan::{Event as Happened, FileKey};

/// Readers of one transfer that are remembered; further ones are served in the order of the transfer.
const MAX_READERS: usize = 256;

/// What readers want: a file and its bytes from one place up to another.
pub(super) type Readers = BTreeMap<u64, (FileKey, u64, u64)>;

impl Running<'_> {
    pub(super) fn want(&mut self, reader: u64, file: u32, from: u64, to: u64) -> Result<(), PullError> {
        let Some(file) = self.fetched_as(file).filter(|file| self.left.contains(file)) else { return Ok(()) };
        let known = self.readers.contains_key(&reader);
        if (self.readers.len() >= MAX_READERS && !known)
            || self.readers.get(&reader) == Some(&(file, from, to))
        {
            return Ok(());
        }
        self.readers.insert(reader, (file, from, to));
        if let Some(at) = self.wanted_maps.iter().position(|wanted| *wanted == file) {
            self.wanted_maps.remove(at);
            self.wanted_maps.push_front(file);
            self.ask_for_maps();
        }
        self.tell_wanted(reader)
    }

    pub(super) fn unwant(&mut self, reader: u64) -> Result<(), PullError> {
        match self.readers.remove(&reader) {
            Some(_) => self.happened(Happened::Unwanted { reader }),
            None => Ok(()),
        }
    }

    /// Under which number a file is fetched: content that is there under several paths comes once.
    fn fetched_as(&self, file: u32) -> Option<FileKey> {
        let blob = self.release.files.get(file as usize)?.blake3;
        self.release.files.iter().position(|file| file.blake3 == blob).map(|key| key as FileKey)
    }

    /// A file's chunk map is here.
    pub(super) fn tell_readers(&mut self, file: FileKey) -> Result<(), PullError> {
        let readers: Vec<u64> =
            self.readers.iter().filter(|(_, wants)| wants.0 == file).map(|(reader, _)| *reader).collect();
        readers.into_iter().try_for_each(|reader| self.tell_wanted(reader))
    }

    fn tell_wanted(&mut self, reader: u64) -> Result<(), PullError> {
        let Some(&(file, from, to)) = self.readers.get(&reader) else { return Ok(()) };
        let Some(map) = self.maps.get(&file) else { return Ok(()) };
        let (Some(first), Some(last)) = (map.index_at(from), map.index_at(to.saturating_sub(1))) else {
            return Ok(());
        };
        // Both are below MAX_CHUNKS, which fits.
        let (first, count) = (first as u32, (last.saturating_sub(first) + 1) as u32);
        self.happened(Happened::Wanted { reader, file, first, count })
    }
}
