//! Files that are still coming: each chunk is checked as it lands and copied into memory of this process alone, so that nothing
//! is left to hash when the last one is here.
//!
//! The node has the file open for writing until it is whole, so what was hashed in it could still change. The engine therefore
//! maps the copy ([`memory`]): a file in memory that has no name, of its full length from the start, which nobody else can open.
//! Every chunk must be what the release's chunk map says before it is copied, and the copy is hashed once more, block by block
//! as its blocks fill, for the hash of the whole ([`registry::digest::tree`]). Only when that is the blob's name does the copy
//! become a [`VerifiedFile`].

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use registry::chunk::ChunkMap;
use registry::digest::Digest;
use registry::digest::tree::{self, Subtrees};
use rustix::fs::{MemfdFlags, SealFlags};

use super::hash::BLOCK;
use super::{GateError, Opened, Place, VerifiedFile};
use crate::halt::Halt;

/// How often a thread that waits looks whether the worker stops.
const LOOK: Duration = Duration::from_millis(100);
/// Most runs of chunks that wait to be checked: a release has fewer chunks, and a node tells of each once.
const MAX_WAITING: usize = 1 << 22;

/// A file in memory of `size` bytes, which can't become longer or shorter. Call it before this process is sealed.
pub fn memory(size: u64) -> io::Result<File> {
    let file = rustix::fs::memfd_create(c"weights", MemfdFlags::CLOEXEC.union(MemfdFlags::ALLOW_SEALING))?;
    rustix::fs::ftruncate(&file, size)?;
    let fixed = SealFlags::GROW.union(SealFlags::SHRINK).union(SealFlags::SEAL);
    rustix::fs::fcntl_add_seals(&file, fixed)?;
    Ok(file.into())
}

/// Runs of chunks that landed: the file's place in the release, the first chunk, and how many.
type Runs = VecDeque<(usize, u32, u32)>;

/// What the node told of chunks that landed, until a thread takes it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Arrivals(Arc<(Mutex<Runs>, Condvar)>);

impl Arrivals {
    fn waiting(&self) -> MutexGuard<'_, Runs> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many chunks from the first of a file, by its place in the release, landed. False when too much waits.
    #[must_use]
    pub fn landed(&self, file: usize, runs: Vec<(u32, u32)>) -> bool {
        let mut waiting = self.waiting();
        if waiting.len().saturating_add(runs.len()) > MAX_WAITING {
            return false;
        }
        waiting.extend(runs.into_iter().map(|(first, count)| (file, first, count)));
        self.0.1.notify_all();
        true
    }

    /// The next chunk to check; nothing when `over` says so.
    fn next(&self, over: impl Fn() -> bool) -> Option<(usize, u32)> {
        let mut waiting = self.waiting();
        loop {
            if over() {
                return None;
            }
            while let Some((file, first, count)) = waiting.front_mut() {
                if *count == 0 {
                    waiting.pop_front();
                    continue;
                }
                let next = (*file, *first);
                (*first, *count) = (first.saturating_add(1), *count - 1);
                return Some(next);
            }
            waiting = self.0.1.wait_timeout(waiting, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wake(&self) {
        let _waiting = self.waiting();
        self.0.1.notify_all();
    }
}

/// What is known of one growing file.
struct State {
    /// Chunks that a thread took, whether it is done with them or not.
    taken: Vec<bool>,
    /// Chunks that are in the copy.
    here: Vec<bool>,
    /// Of each block of the copy, the bytes that are not there yet.
    lack: Vec<u32>,
    /// Blocks that are not hashed yet.
    left: usize,
    tree: Subtrees,
    /// Of a file that is a single block.
    whole: Option<Digest>,
}

/// A file that is still coming.
pub struct Growing {
    /// Its file is the copy.
    opened: Opened,
    /// What the node writes.
    source: File,
    map: ChunkMap,
    state: Mutex<State>,
    came: Condvar,
}

impl std::fmt::Debug for Growing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Growing").field("path", &self.opened.path).finish_non_exhaustive()
    }
}

impl Growing {
    /// Of what was handed in; `copy` is an empty [`memory`] of the file's length.
    pub fn new(handed: Opened, copy: File) -> Result<Self, GateError> {
        let map = handed.chunk_map().ok_or_else(|| GateError::NotHanded {
            path: handed.path.clone(),
            blob: handed.blob,
            reason: "its chunk map is damaged or was not handed in, and a file that is still coming is checked by it. Pull the release again".to_owned(),
        })?;
        let Opened { file: source, .. } = handed;
        let opened = Opened { file: copy, ..handed };
        let blocks = usize::try_from(opened.size.div_ceil(BLOCK)).unwrap_or(usize::MAX);
        let lack = (0..blocks as u64).map(|block| BLOCK.min(opened.size - block * BLOCK) as u32).collect();
        let state = State {
            taken: vec![false; map.len()],
            here: vec![false; map.len()],
            lack,
            left: blocks,
            tree: Subtrees::new(opened.size),
            whole: (opened.size == 0).then(|| Digest::of(b"")),
        };
        Ok(Self { opened, source, map, state: Mutex::new(state), came: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self) -> bool {
        self.state().left == 0
    }

    /// Checks a chunk that landed and copies it; its length, or nothing when that was done before.
    fn take(&self, chunk: u32, buffer: &mut Vec<u8>) -> Result<u64, GateError> {
        let index = chunk as usize;
        let (Some(known), Some(offset)) = (self.map.get(index), self.map.offset(index)) else { return Ok(0) };
        if let Some(taken) = self.state().taken.get_mut(index)
            && std::mem::replace(taken, true)
        {
            return Ok(0);
        }
        buffer.resize(known.len as usize, 0);
        let unreadable = |error| self.opened.unreadable(error);
        self.source.read_exact_at(buffer, offset).map_err(unreadable)?;
        if Digest::of(buffer) != known.digest {
            return Err(GateError::Landed {
                path: self.opened.path.clone(),
                chunk: index,
                offset,
                len: known.len,
            });
        }
        self.opened.file.write_all_at(buffer, offset).map_err(unreadable)?;
        let filled = self.landed(index, offset, u64::from(known.len));
        self.came.notify_all();
        for block in filled {
            self.hash(block, buffer)?;
        }
        Ok(u64::from(known.len))
    }

    /// Counts a chunk as here; the blocks that are full with it.
    fn landed(&self, index: usize, offset: u64, len: u64) -> Vec<u64> {
        let mut state = self.state();
        if let Some(here) = state.here.get_mut(index) {
            *here = true;
        }
        let blocks = offset / BLOCK..(offset + len).div_ceil(BLOCK);
        let mut filled = Vec::new();
        for block in blocks {
            let part = (offset + len).min((block + 1) * BLOCK) - offset.max(block * BLOCK);
            if let Some(lack) = state.lack.get_mut(block as usize) {
                *lack = lack.saturating_sub(part as u32);
                if *lack == 0 {
                    filled.push(block);
                }
            }
        }
        filled
    }

    /// Hashes a full block of the copy.
    fn hash(&self, block: u64, buffer: &mut Vec<u8>) -> Result<(), GateError> {
        let (size, offset) = (self.opened.size, block * BLOCK);
        buffer.resize(BLOCK.min(size - offset) as usize, 0);
        self.opened.file.read_exact_at(buffer, offset).map_err(|error| self.opened.unreadable(error))?;
        if size <= BLOCK {
            let whole = Some(Digest::of(buffer));
            let mut state = self.state();
            (state.whole, state.left) = (whole, 0);
        } else {
            let subtrees = tree::hash(size, offset, buffer);
            let mut state = self.state();
            state.tree.fill(subtrees);
            state.left = state.left.saturating_sub(1);
        }
        Ok(())
    }

    /// The copy, if the whole of it is the blob.
    fn finish(&self) -> Result<VerifiedFile, GateError> {
        let found = {
            let state = self.state();
            state.whole.or_else(|| state.tree.root())
        };
        let (path, expected) = (self.opened.path.clone(), self.opened.blob);
        match found {
            Some(found) if found == expected => {
                let opened = self.opened.try_clone().map_err(|error| self.opened.unreadable(error))?;
                Ok(VerifiedFile(opened))
            }
            Some(found) => Err(GateError::HashMismatch { path, expected, found, place: Place::Map }),
            None => Err(self.opened.unreadable(io::Error::other("a part was not hashed"))),
        }
    }
}

/// Every growing file that is wanted.
pub struct Stream {
    /// By their places in the release.
    files: BTreeMap<usize, Growing>,
    arrivals: Arrivals,
    bytes: AtomicU64,
    over: AtomicBool,
    halt: Halt,
}

impl Stream {
    /// Of these files.
    pub fn new(files: BTreeMap<usize, Growing>, arrivals: Arrivals, halt: Halt) -> Self {
        Self { files, arrivals, bytes: AtomicU64::new(0), over: AtomicBool::new(false), halt }
    }

    /// Their places, the small ones first: what says how to read the weights is small.
    pub fn wanted(&self) -> Vec<usize> {
        let mut wanted: Vec<_> = self.files.iter().map(|(place, file)| (file.opened.size, *place)).collect();
        wanted.sort_unstable();
        wanted.into_iter().map(|(_, place)| place).collect()
    }

    /// The bytes of all of them.
    pub fn size(&self) -> u64 {
        self.files.values().fold(0, |sum, file| sum.saturating_add(file.opened.size))
    }

    /// Reads the file at a path while it comes; nothing when it does not grow.
    pub fn reader(&self, path: &str) -> Option<Reader<'_>> {
        let file = self.files.values().find(|file| file.opened.path == path)?;
        Some(Reader { stream: self, file, at: 0 })
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed) || self.halt.is_set() || self.files.values().all(Growing::is_full)
    }

    /// Checks what lands until everything is here, by as many threads as there are processors, while `meanwhile` runs; the
    /// copies by their paths. When one fails, all of it ends. `progress` is told the bytes checked so far.
    pub fn run<T, E: From<GateError>>(
        &self,
        progress: &(dyn Fn(u64) + Sync),
        meanwhile: impl FnOnce() -> Result<T, E>,
    ) -> Result<(T, BTreeMap<String, VerifiedFile>), E> {
        let check = || {
            let mut buffer = Vec::new();
            while let Some((place, chunk)) = self.arrivals.next(|| self.is_over()) {
                let Some(file) = self.files.get(&place) else { continue };
                match file.take(chunk, &mut buffer) {
                    Ok(len) => progress(self.bytes.fetch_add(len, Ordering::Relaxed) + len),
                    Err(error) => {
                        self.end();
                        return Err(error);
                    }
                }
                if file.is_full() {
                    self.arrivals.wake();
                }
            }
            Ok(())
        };
        let (done, checked) = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..crate::cores()).map(|_| scope.spawn(check)).collect();
            let done = meanwhile().inspect_err(|_| self.end());
            let results = threads.into_iter().map(|thread| match thread.join() {
                Ok(result) => result,
                Err(_) => Err(GateError::Halted { path: "a file that was coming".to_owned() }),
            });
            (done, results.fold(Ok(()), Result::and))
        });
        // Wrong bytes also end whoever reads meanwhile, with less to say.
        checked?;
        let done = done?;
        if let Some(file) = self.files.values().find(|file| !file.is_full()) {
            return Err(GateError::Halted { path: file.opened.path.clone() }.into());
        }
        let files: Result<_, GateError> =
            self.files.values().map(|file| Ok((file.opened.path.clone(), file.finish()?))).collect();
        Ok((done, files?))
    }

    fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.arrivals.wake();
        self.files.values().for_each(|file| file.came.notify_all());
    }
}

/// Reads a file while it comes: waits for the chunk that it is at.
pub struct Reader<'a> {
    stream: &'a Stream,
    file: &'a Growing,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let (Some(index), false) = (self.file.map.index_at(self.at), into.is_empty()) else { return Ok(0) };
        let Some(range) = self.file.map.range(index) else { return Ok(0) };
        let mut state = self.file.state();
        while !state.here.get(index).is_some_and(|here| *here) {
            if self.stream.over.load(Ordering::Relaxed) || self.stream.halt.is_set() {
                return Err(io::Error::other("its transfer ended"));
            }
            state = self.file.came.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        let most = usize::try_from(range.end - self.at).unwrap_or(usize::MAX).min(into.len());
        let read = self.file.opened.file.read_at(into.get_mut(..most).unwrap_or_default(), self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.file.opened.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
