//! Hashing files by several threads at once.
//!
//! BLAKE3 is a tree, so a file's blocks are hashed in any order, each while it is in the processor's cache, and only their
//! roots are put together ([`registry::digest::tree`]). Every thread takes the next block of whichever file comes next: one
//! large file keeps all of them busy, and many small ones too.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use registry::digest::Digest;
use registry::digest::tree::{self, Subtrees};
use rustix::fs::{Advice, FileType, Stat};

use super::{GateError, Opened, Place};
use crate::halt::Halt;

/// Bytes read and hashed at a time: whole subtrees, long enough for the widest SIMD and the disk, short enough for the cache.
pub(super) const BLOCK: u64 = 1 << 20;

/// One file being hashed.
struct Work<'a> {
    opened: &'a Opened,
    before: Stat,
    /// The number of its first block among those of all files.
    first: u64,
    blocks: u64,
    found: Mutex<Found>,
}

struct Found {
    tree: Subtrees,
    /// Of a file that is a single block.
    whole: Option<Digest>,
}

/// Checks every file against its blob's digest.
pub(super) fn check(
    opened: &[Opened],
    progress: &(dyn Fn(u64) + Sync),
    halt: &Halt,
) -> Result<(), GateError> {
    let mut works = Vec::with_capacity(opened.len());
    let mut blocks = 0;
    for file in opened {
        let work = Work::begin(file, blocks)?;
        blocks += work.blocks;
        works.push(work);
    }
    hash_all(&works, blocks, progress, halt)?;
    works.iter().try_for_each(|work| work.end(halt))
}

fn hash_all(
    works: &[Work<'_>],
    blocks: u64,
    progress: &(dyn Fn(u64) + Sync),
    halt: &Halt,
) -> Result<(), GateError> {
    let (next, done, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let take = || {
        let mut buffer = vec![0; BLOCK as usize];
        // Blocks come in order, so the file is nearly always that of the block before.
        let mut index = 0;
        while !failed.load(Ordering::Relaxed) {
            let block = next.fetch_add(1, Ordering::Relaxed);
            if block >= blocks {
                break;
            }
            while works.get(index).is_some_and(|work| block >= work.first + work.blocks) {
                index += 1;
            }
            let Some(work) = works.get(index) else { break };
            let bytes = work.hash(block - work.first, &mut buffer, halt).inspect_err(|_| {
                failed.store(true, Ordering::Relaxed);
            })?;
            progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes);
        }
        Ok(())
    };
    let threads = usize::try_from(blocks).unwrap_or(usize::MAX).clamp(1, crate::cores());
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(take)).collect();
        let own = take();
        let results = others.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => Err(works.first().map_or_else(
                || GateError::Halted { path: String::new() },
                |work| work.opened.unreadable(io::Error::other("a hashing thread died")),
            )),
        });
        results.fold(own, |first, next| first.and(next))
    })
}

impl<'a> Work<'a> {
    fn begin(opened: &'a Opened, first: u64) -> Result<Self, GateError> {
        let before = stat(opened)?;
        if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
            return Err(opened.unreadable(io::Error::other("it is not a regular file")));
        }
        let found_size = u64::try_from(before.st_size).unwrap_or_default();
        if found_size != opened.size {
            return Err(GateError::Size {
                path: opened.path.clone(),
                expected: opened.blob,
                expected_size: opened.size,
                found_size,
            });
        }
        // Only a hint; a file system that knows none is as good.
        let _ = rustix::fs::fadvise(&opened.file, 0, None, Advice::Sequential);
        let blocks = opened.size.div_ceil(BLOCK).max(1);
        let found = Mutex::new(Found { tree: Subtrees::new(opened.size), whole: None });
        Ok(Self { opened, before, first, blocks, found })
    }

    /// Reads and hashes one block; its length.
    fn hash(&self, block: u64, buffer: &mut [u8], halt: &Halt) -> Result<u64, GateError> {
        if halt.is_set() {
            return Err(GateError::Halted { path: self.opened.path.clone() });
        }
        let offset = block * BLOCK;
        let len = BLOCK.min(self.opened.size - offset);
        let bytes = buffer.get_mut(..len as usize).unwrap_or_default();
        match self.opened.file.read_exact_at(bytes, offset) {
            Ok(()) => {}
            // It was as long as it must be a moment ago.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(GateError::Changed { path: self.opened.path.clone(), blob: self.opened.blob });
            }
            Err(error) => return Err(self.opened.unreadable(error)),
        }
        if self.blocks == 1 {
            let whole = Some(Digest::of(bytes));
            self.found.lock().unwrap_or_else(PoisonError::into_inner).whole = whole;
        } else {
            let subtrees = tree::hash(self.opened.size, offset, bytes);
            self.found.lock().unwrap_or_else(PoisonError::into_inner).tree.fill(subtrees);
        }
        Ok(len)
    }

    /// Compares what was found with what was admitted.
    fn end(&self, halt: &Halt) -> Result<(), GateError> {
        let (path, blob) = (self.opened.path.clone(), self.opened.blob);
        let found = {
            let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            found.whole.or_else(|| found.tree.root())
        };
        match found {
            Some(found) if found == blob => {}
            Some(found) => {
                let place = locate(self.opened, halt)?;
                return Err(GateError::HashMismatch { path, expected: blob, found, place });
            }
            None => return Err(self.opened.unreadable(io::Error::other("a part was not hashed"))),
        }
        let after = stat(self.opened)?;
        let written = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
        if written(&self.before) == written(&after) { Ok(()) } else { Err(GateError::Changed { path, blob }) }
    }
}

/// Finds the chunks whose content is wrong.
pub(super) fn locate(opened: &Opened, halt: &Halt) -> Result<Place, GateError> {
    let Some(map) = opened.chunk_map() else { return Ok(Place::Unknown) };
    let mut first = None;
    let mut wrong = 0;
    let mut buffer = Vec::new();
    for (index, (offset, chunk)) in map.iter().enumerate() {
        if halt.is_set() {
            return Err(GateError::Halted { path: opened.path.clone() });
        }
        buffer.resize(chunk.len as usize, 0);
        // A part that can't be read is as wrong as one that reads wrong.
        let right =
            opened.file.read_exact_at(&mut buffer, offset).is_ok() && Digest::of(&buffer) == chunk.digest;
        if !right {
            wrong += 1;
            first.get_or_insert((index, offset, chunk.len));
        }
    }
    Ok(first.map_or(Place::Nowhere, |(chunk, offset, len)| Place::Chunk { chunk, offset, len, wrong }))
}

fn stat(opened: &Opened) -> Result<Stat, GateError> {
    rustix::fs::fstat(&opened.file).map_err(|error| opened.unreadable(error.into()))
}
