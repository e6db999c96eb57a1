//! A blob that is being fetched: chunks come in any order, each verified before it is written.
//!
//! The file has its full length from the start, so that a full disk shows early. A journal in the index says which
//! chunks are there. It is written only after the data was synced, so after a crash every chunk in the journal is on
//! the disk. What came since is noted too, and hashed when the transfer is taken up: at most [`MAX_NOTED`] bytes, never
//! the whole.
//!
//! The hash of the whole is computed as its chunks come, while each is in the processor's cache (`whole.rs`).

mod finish;
mod journal;
mod local;
mod repeats;
mod whole;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::ingest::set_aside;
use super::record::PartialRecord;
use super::{Bitmap, Result, Store, StoreError, WriteError, io, locked, partial_path, sync_folder};
use crate::chunk::ChunkMap;
use crate::digest::Digest;
use crate::timestamp::Timestamp;
use repeats::Repeats;
use whole::Whole;

pub(super) use journal::{PAGE, forget, load, records};
pub use local::Reused;

/// Bytes written between two syncs. A crash costs at most these and [`FLUSH_EVERY`]'s.
pub const FLUSH_BYTES: u64 = 64 * 1024 * 1024;
/// Longest time between two syncs while chunks arrive.
pub const FLUSH_EVERY: Duration = Duration::from_secs(2);
/// Bytes not yet synced at which writers wait for the sync that runs, so that a fast network does not fill the memory
/// with what a slow disk has yet to take.
pub const MAX_UNSYNCED: u64 = 256 * 1024 * 1024;

/// Most bytes that are hashed when a transfer is taken up: as much as can have come between two syncs.
const MAX_NOTED: u64 = MAX_UNSYNCED + FLUSH_BYTES;

/// A blob that is being fetched. Clones write to the same one, from any number of threads.
#[derive(Clone)]
pub struct Partial {
    inner: Arc<Inner>,
    /// The release under which this handle's bytes come.
    under: Option<Digest>,
}

pub(super) struct Inner {
    store: Store,
    map: ChunkMap,
    record: PartialRecord,
    path: PathBuf,
    file: File,
    repeats: Repeats,
    /// The releases under which bytes came by now, as far as this process noted them.
    came: Mutex<BTreeSet<Digest>>,
    state: Mutex<State>,
    /// Held by the one thread that syncs.
    flushing: Mutex<()>,
    /// What is known of the hash of the whole.
    whole: Mutex<Whole>,
    /// Bytes of the whole whose hash is known, as far as [`Partial::finish`] is.
    hashed: AtomicU64,
}

struct State {
    /// Verified and written, though perhaps not yet synced.
    have: Bitmap,
    bytes: u64,
    /// Pages of the journal that are behind `have`.
    behind: BTreeSet<u32>,
    unsynced: u64,
    flushed: Instant,
    finished: bool,
}

impl std::fmt::Debug for Partial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partial").field("blob", &self.inner.map.blob()).finish_non_exhaustive()
    }
}

impl Store {
    /// Begins to fetch the blob of `map`, or takes it up where an earlier attempt stopped. One at a time may fetch a
    /// blob; that one's clones share it. An earlier attempt by another chunk map begins anew.
    pub fn partial(&self, map: &ChunkMap) -> Result<Partial> {
        let blob = map.blob();
        let mut open = locked(&self.inner.partials);
        if open.get(&blob).is_some_and(|inner| inner.strong_count() > 0) {
            return Err(StoreError::InUse(blob));
        }
        if self.present(&blob)?.is_some() {
            return Err(StoreError::Present(blob));
        }
        let inner = Arc::new(Inner::open(self, map)?);
        open.retain(|_, inner| inner.strong_count() > 0);
        open.insert(blob, Arc::downgrade(&inner));
        Ok(Partial { inner, under: None })
    }

    /// Which chunks of a blob that is being fetched are here; nothing when it isn't being fetched.
    pub fn partial_chunks(&self, blob: &Digest) -> Option<Bitmap> {
        if let Some(inner) = self.open_partial(blob) {
            let state = locked(&inner.state);
            return (!state.finished).then(|| state.have.clone());
        }
        let journal = load(&self.inner.index, blob).unwrap_or_else(|error| {
            tracing::error!(%blob, %error, "the journal of a transfer can't be read");
            None
        });
        journal.map(|(_, have)| have)
    }

    /// Whether chunk `index` of a blob is verified and written; nothing when no transfer has the blob open. Asks the memory alone.
    pub fn is_chunk_here(&self, blob: &Digest, index: usize) -> Option<bool> {
        let inner = self.open_partial(blob)?;
        let state = locked(&inner.state);
        Some(state.have.get(index))
    }

    /// The file of a blob that is whole or that a transfer has open, for reading what is here of it
    /// ([`Self::is_chunk_here`]). It stays the blob's file when the blob becomes whole.
    pub fn open_growing(&self, blob: &Digest) -> Result<Option<File>> {
        if let Some(inner) = self.open_partial(blob) {
            let file = File::open(&inner.path).or_else(|_| inner.file.try_clone());
            return file.map(Some).map_err(io("could not open", &inner.path));
        }
        if self.present(blob)?.is_some() { self.open_blob(blob).map(Some) } else { Ok(None) }
    }

    /// Whether a blob is being fetched, or was.
    pub(super) fn partial_record(&self, blob: &Digest) -> Result<bool> {
        journal::is_known(&self.inner.index, blob)
    }

    fn open_partial(&self, blob: &Digest) -> Option<Arc<Inner>> {
        locked(&self.inner.partials).get(blob).and_then(std::sync::Weak::upgrade)
    }

    /// Reads chunk `index` of a blob that is being fetched into `bytes`; whether it was there.
    pub(super) fn read_partial(
        &self,
        blob: &Digest,
        map: &ChunkMap,
        index: usize,
        bytes: &mut [u8],
        offset: u64,
    ) -> Result<bool> {
        let path = partial_path(self.home(), blob);
        let read = io("could not read", &path);
        if let Some(inner) = self.open_partial(blob) {
            if inner.map.get(index) != map.get(index) || inner.map.offset(index) != Some(offset) {
                return Ok(false);
            }
            if !locked(&inner.state).have.get(index) {
                return Ok(false);
            }
            return inner.file.read_exact_at(bytes, offset).map(|()| true).map_err(read);
        }
        match load(&self.inner.index, blob)? {
            Some((record, have)) if have.get(index) && record.map == map.digest() => File::open(&path)
                .and_then(|file| file.read_exact_at(bytes, offset))
                .map(|()| true)
                .map_err(read),
            _ => Ok(false),
        }
    }
}

impl Inner {
    fn open(store: &Store, map: &ChunkMap) -> Result<Self> {
        let blob = map.blob();
        let digest = map.digest();
        let path = partial_path(store.home(), &blob);
        let index = &store.inner.index;
        let known =
            load(index, &blob)?.filter(|(record, have)| record.map == digest && have.len() == map.len());
        let resumed =
            known.filter(|_| fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && m.len() == map.size()));
        let now = Timestamp::now();
        let (record, have) = match resumed {
            Some((record, have)) => (PartialRecord { touched: now, ..record }, have),
            None => {
                forget(index, &blob)?;
                let _ = fs::remove_file(&path);
                // At most MAX_CHUNKS, which fits.
                let chunks = map.len() as u32;
                (
                    PartialRecord { map: digest, size: map.size(), chunks, created: now, touched: now },
                    Bitmap::new(map.len()),
                )
            }
        };
        let noted = journal::noted(index, &blob, map.len())?;
        let fresh = have.count() == 0 && noted.count() == 0;
        if !fresh {
            // A crash just before the rename leaves it read-only.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
                .map_err(io("could not open", &path))?;
        }
        let file = fs::OpenOptions::new()
            .mode(0o600)
            .create(true)
            .truncate(fresh)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io("could not create", &path))?;
        if fresh {
            store.forget_parts(&blob)?;
            if let Err(error) = set_aside(&file, map.size()) {
                // Nothing is lost with it, and a full disk needs the room.
                let _ = fs::remove_file(&path);
                return Err(io("could not make room for", &path)(error));
            }
            file.sync_all().map_err(io("could not sync", &path))?;
            sync_folder(&store.home().join("partial"))?;
        }
        journal::begin(index, &blob, &record)?;
        let mut have = have;
        let (behind, unsynced) = take_up(map, &file, &noted, &mut have);
        let bytes = have.present().filter_map(|index| map.get(index)).map(|chunk| u64::from(chunk.len)).sum();
        let state = State { have, bytes, behind, unsynced, flushed: Instant::now(), finished: false };
        Ok(Self {
            store: store.clone(),
            map: map.clone(),
            record,
            path,
            file,
            repeats: Repeats::of(map),
            came: Mutex::default(),
            state: Mutex::new(state),
            flushing: Mutex::new(()),
            whole: Mutex::new(Whole::new(map.size())),
            hashed: AtomicU64::new(0),
        })
    }
}

impl Inner {
    /// Bytes are about to come under a release: it is noted before the first of them is kept (`audience.rs`).
    fn comes(&self, under: Option<Digest>) -> Result<()> {
        let Some(release) = under else { return Ok(()) };
        let mut came = locked(&self.came);
        if !came.contains(&release) {
            self.store.comes_under(&self.map.blob(), &release)?;
            came.insert(release);
        }
        Ok(())
    }

    /// Counts a chunk that was verified and written as here, and syncs when that is due. `bytes` are the chunk's.
    fn wrote(&self, index: usize, bytes: &[u8]) -> Result<()> {
        // At most MAX_CHUNK, which fits.
        let len = bytes.len() as u32;
        self.hash_chunk(index, bytes)?;
        let (due, wait) = {
            let mut state = locked(&self.state);
            if state.have.set(index, true) {
                state.bytes += u64::from(len);
            }
            let page = (index / PAGE) as u32;
            state.behind.insert(page);
            self.note(&state, page)?;
            state.unsynced += u64::from(len);
            let due = state.unsynced >= FLUSH_BYTES || state.flushed.elapsed() >= FLUSH_EVERY;
            (due, state.unsynced >= MAX_UNSYNCED)
        };
        self.hash_edges(index)?;
        if wait {
            let _one = locked(&self.flushing);
            self.flush()?;
        } else if due && let Ok(_one) = self.flushing.try_lock() {
            self.flush()?;
        }
        Ok(())
    }

    /// Counts chunks that the disk changed as missing again.
    fn lost(&self, bad: &[usize]) {
        let mut state = locked(&self.state);
        for &index in bad {
            if state.have.set(index, false) {
                let len = self.map.get(index).map_or(0, |chunk| u64::from(chunk.len));
                state.bytes = state.bytes.saturating_sub(len);
            }
            state.behind.insert((index / PAGE) as u32);
            if let Some(range) = self.map.range(index) {
                locked(&self.whole).forget(range);
            }
        }
    }
}

/// Takes what was noted and is not in the journal, if it is on the disk: each such chunk is hashed. Answers the pages that
/// the journal is behind by it, and its bytes.
fn take_up(map: &ChunkMap, file: &File, noted: &Bitmap, have: &mut Bitmap) -> (BTreeSet<u32>, u64) {
    let (mut behind, mut taken, mut hashed) = (BTreeSet::new(), 0, 0);
    let mut bytes = Vec::new();
    for index in noted.present() {
        let (Some(chunk), Some(offset)) = (map.get(index), map.offset(index)) else { continue };
        if have.get(index) {
            continue;
        }
        hashed += u64::from(chunk.len);
        if hashed > MAX_NOTED {
            break;
        }
        bytes.resize(chunk.len as usize, 0);
        if file.read_exact_at(&mut bytes, offset).is_ok() && Digest::of(&bytes) == chunk.digest {
            have.set(index, true);
            behind.insert((index / PAGE) as u32);
            taken += u64::from(chunk.len);
        }
    }
    (behind, taken)
}

impl Partial {
    /// The same, for bytes that come under `release`: who may be given them later depends on that.
    pub fn under(mut self, release: Digest) -> Self {
        self.under = Some(release);
        self
    }

    /// The blob that is being fetched.
    pub fn blob(&self) -> Digest {
        self.inner.map.blob()
    }

    /// Its chunk map.
    pub fn map(&self) -> &ChunkMap {
        &self.inner.map
    }

    /// How many chunks it has.
    pub fn total(&self) -> usize {
        self.inner.map.len()
    }

    /// Whether chunk `index` is here.
    pub fn have(&self, index: usize) -> bool {
        locked(&self.inner.state).have.get(index)
    }

    /// The chunks that are here.
    pub fn bitmap(&self) -> Bitmap {
        locked(&self.inner.state).have.clone()
    }

    /// The chunks that are missing, in order.
    pub fn missing(&self) -> Vec<usize> {
        locked(&self.inner.state).have.missing().collect()
    }

    /// Bytes that are here, those from earlier attempts among them.
    pub fn bytes_done(&self) -> u64 {
        locked(&self.inner.state).bytes
    }

    /// Bytes of the whole whose hash [`Partial::finish`] knows so far, for whoever watches.
    pub fn bytes_hashed(&self) -> u64 {
        self.inner.hashed.load(Ordering::Relaxed)
    }

    /// Writes chunk `index`, after its length and digest were checked. A chunk that is here already is left alone.
    ///
    /// It is not durable on return: every [`FLUSH_BYTES`] or [`FLUSH_EVERY`] one of the writers syncs.
    pub fn write_chunk(&self, index: usize, bytes: &[u8]) -> Result<(), WriteError> {
        let inner = &*self.inner;
        let offset = self.check(index, bytes)?;
        if self.have(index) {
            return Ok(());
        }
        inner.comes(self.under)?;
        inner.file.write_all_at(bytes, offset).map_err(io("could not write", &inner.path))?;
        Ok(inner.wrote(index, bytes)?)
    }

    /// Checks a chunk without writing it: where it belongs.
    fn check(&self, index: usize, bytes: &[u8]) -> Result<u64, WriteError> {
        let map = &self.inner.map;
        let blob = map.blob();
        let (Some(chunk), Some(offset)) = (map.get(index), map.offset(index)) else {
            return Err(WriteError::Index { blob, index, count: map.len() });
        };
        if bytes.len() != chunk.len as usize {
            return Err(WriteError::Length { blob, index, expected: chunk.len, found: bytes.len() });
        }
        let found = Digest::of(bytes);
        if found != chunk.digest {
            return Err(WriteError::Content { blob, index, expected: chunk.digest, found });
        }
        Ok(offset)
    }

    /// Syncs what was written and journals it: durable on return.
    pub fn flush(&self) -> Result<()> {
        let _one = locked(&self.inner.flushing);
        self.inner.flush()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let finished = locked(&self.state).finished;
        if !finished && let Err(error) = self.flush() {
            tracing::warn!(blob = %self.map.blob(), %error, "what was fetched last is not kept");
        }
    }
}
