//! Taking chunks from blobs that are here already: another revision, another cut into shards, a fine-tune's base.
//!
//! Chunks that follow each other in both files are copied as one run. Where the two places lie alike within the blocks
//! of the file system, the kernel copies (copy_file_range(2)), which shares the extents where the file system can (XFS,
//! Btrfs), and the result is read back to be hashed. Elsewhere it could share nothing, and since every chunk is hashed
//! anyway, reading it and writing it is as cheap.
//!
//! The other file is not trusted: it may have been damaged since it was verified. Only what has the chunk's own hash
//! counts as here. A crash in between leaves what the journal says, as with any other chunk.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use super::super::record::Place;
use super::super::{Result, Store, io};
use super::{Inner, Partial};
use crate::chunk::Chunk;
use crate::digest::Digest;

/// What [`Partial::take_local`] took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reused {
    /// Chunks that need not be fetched any more.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Local blobs in which a wrong chunk was found, in order; `verify` says more and puts them aside.
    pub damaged: Vec<Digest>,
}

/// Chunks that are looked up together, in the order of their digests, which is the order of the index.
const LOOK_UP: usize = 4096;
/// Longest run that is copied before it is hashed, in bytes: what a damaged blob can make us copy in vain.
const MAX_RUN: u64 = 64 * 1024 * 1024;
/// Files kept open at once: more shards than most models have.
const MAX_OPEN: usize = 64;
/// The block size of the file systems that can share extents; where it is another one, the kernel just copies.
const BLOCK: u64 = 4096;

impl Partial {
    /// Takes every missing chunk that lies in a local blob from there, and copies those that the blob repeats; durable
    /// on return. `progress` is told the bytes taken so far. Blocks: gigabytes may be copied.
    ///
    /// Each chunk is hashed before it counts as here, whatever the index says; a blob in which a wrong one was found is
    /// named in the answer. A blob lends only to what its readers may read too (`audience.rs`): those of the release that
    /// [`Self::under`] named. To be called before
    /// anything is fetched: a chunk that arrives meanwhile may be overwritten by a damaged one, which [`Self::finish`]
    /// finds.
    pub fn take_local(&self, progress: &mut dyn FnMut(u64)) -> Result<Reused> {
        let inner = &*self.inner;
        let mut taking = Taking {
            inner,
            sources: Sources::new(inner, self.under),
            under: self.under,
            taken: Reused::default(),
            damaged: BTreeSet::new(),
            progress,
        };
        for batch in inner.to_fetch().chunks(LOOK_UP) {
            let found = inner.look_up(batch)?;
            taking.take(&found)?;
        }
        let Taking { mut taken, damaged, progress, .. } = taking;
        let before = taken.bytes;
        let mut repeated = 0;
        let (copied, bad) = inner.copy_repeats(&mut |bytes| {
            repeated += bytes;
            progress(before + repeated);
        })?;
        if !bad.is_empty() {
            tracing::warn!(blob = %inner.map.blob(), chunks = bad.len(), "the disk changed what was fetched");
        }
        taken.chunks += copied;
        taken.bytes += repeated;
        taken.damaged = damaged.into_iter().collect();
        self.flush()?;
        Ok(taken)
    }
}

/// A chunk and where it may lie.
struct Found {
    index: usize,
    chunk: Chunk,
    places: Vec<Place>,
}

impl Inner {
    fn look_up(&self, indexes: &[usize]) -> Result<Vec<Found>> {
        let mut chunks: Vec<(usize, Chunk)> =
            indexes.iter().filter_map(|&index| Some((index, self.map.get(index)?))).collect();
        chunks.sort_unstable_by_key(|(_, chunk)| chunk.digest);
        let mut found = Vec::with_capacity(chunks.len());
        for (index, chunk) in chunks {
            let mut places = self.store.places(&chunk.digest)?;
            places.retain(|place| place.len == chunk.len && place.blob != self.map.blob());
            if !places.is_empty() {
                found.push(Found { index, chunk, places });
            }
        }
        found.sort_unstable_by_key(|found| found.index);
        Ok(found)
    }
}

/// Local blobs, opened when they are first needed.
struct Sources<'a> {
    store: &'a Store,
    into: Digest,
    under: Option<Digest>,
    /// Nothing for one that is gone or may not lend.
    open: HashMap<Digest, Option<Rc<File>>>,
}

impl<'a> Sources<'a> {
    fn new(inner: &'a Inner, under: Option<Digest>) -> Self {
        Self { store: &inner.store, into: inner.map.blob(), under, open: HashMap::new() }
    }

    fn file(&mut self, blob: &Digest) -> Result<Option<Rc<File>>> {
        if let Some(file) = self.open.get(blob) {
            return Ok(file.clone());
        }
        if self.open.len() >= MAX_OPEN {
            self.open.clear();
        }
        let usable =
            self.store.present(blob)?.is_some() && self.store.may_lend(blob, &self.into, self.under)?;
        // Gone in between is gone.
        let file = if usable { self.store.open_blob(blob).ok().map(Rc::new) } else { None };
        self.open.insert(*blob, file.clone());
        Ok(file)
    }
}

struct Taking<'a> {
    inner: &'a Inner,
    sources: Sources<'a>,
    under: Option<Digest>,
    taken: Reused,
    damaged: BTreeSet<Digest>,
    progress: &'a mut dyn FnMut(u64),
}

/// Chunks that follow each other here and in one local blob.
struct Run<'a> {
    chunks: &'a [Found],
    from: Digest,
    /// Where it begins in the local blob.
    source: u64,
    len: u64,
}

impl Taking<'_> {
    fn take(&mut self, mut found: &[Found]) -> Result<()> {
        let mut last = None;
        while let Some(first) = found.first() {
            let Some(place) = self.choose(&first.places, last)? else {
                found = found.get(1..).unwrap_or_default();
                continue;
            };
            let run = run(found, place);
            found = found.get(run.chunks.len()..).unwrap_or_default();
            last = Some((run.from, run.source + run.len));
            self.copy(&run)?;
        }
        Ok(())
    }

    /// The place that goes on where the last run ended, else one in the same blob, else any.
    fn choose(&mut self, places: &[Place], last: Option<(Digest, u64)>) -> Result<Option<Place>> {
        let rank = |place: &&Place| match last {
            Some((blob, end)) if blob == place.blob => u8::from(end != place.offset),
            _ => 2,
        };
        let mut ranked: Vec<&Place> = places.iter().collect();
        ranked.sort_by_key(rank);
        for place in ranked {
            if self.sources.file(&place.blob)?.is_some() {
                return Ok(Some(*place));
            }
        }
        Ok(None)
    }

    fn copy(&mut self, run: &Run<'_>) -> Result<()> {
        self.inner.comes(self.under)?;
        let Some(target) = run.chunks.first().and_then(|first| self.inner.map.offset(first.index)) else {
            return Ok(());
        };
        let alike = run.source % BLOCK == target % BLOCK && run.len >= BLOCK;
        let copied = alike
            && match self.sources.file(&run.from)? {
                Some(source) => copy_range(&source, run.source, &self.inner.file, target..target + run.len)
                    .map_err(io("could not write", &self.inner.path))?,
                None => false,
            };
        let mut bytes = Vec::new();
        for found in run.chunks {
            let Some(offset) = self.inner.map.offset(found.index) else { continue };
            bytes.resize(found.chunk.len as usize, 0);
            if copied {
                let read = self.inner.file.read_exact_at(&mut bytes, offset);
                read.map_err(io("could not read", &self.inner.path))?;
                if Digest::of(&bytes) == found.chunk.digest {
                    self.took(found, &bytes)?;
                    continue;
                }
                self.damaged.insert(run.from);
            }
            let skip = copied.then_some(run.from);
            if self.read(found, skip, &mut bytes)? {
                let write = self.inner.file.write_all_at(&bytes, offset);
                write.map_err(io("could not write", &self.inner.path))?;
                self.took(found, &bytes)?;
            }
        }
        Ok(())
    }

    /// Reads a chunk from the first place where it is right.
    fn read(&mut self, found: &Found, skip: Option<Digest>, bytes: &mut [u8]) -> Result<bool> {
        for place in found.places.iter().filter(|place| Some(place.blob) != skip) {
            let Some(file) = self.sources.file(&place.blob)? else { continue };
            // A disk that can't read it any more has damaged it too.
            if file.read_exact_at(bytes, place.offset).is_ok() && Digest::of(bytes) == found.chunk.digest {
                return Ok(true);
            }
            self.damaged.insert(place.blob);
        }
        Ok(false)
    }

    fn took(&mut self, found: &Found, bytes: &[u8]) -> Result<()> {
        self.inner.wrote(found.index, bytes)?;
        self.taken.chunks += 1;
        self.taken.bytes += u64::from(found.chunk.len);
        (self.progress)(self.taken.bytes);
        Ok(())
    }
}

/// The longest run that begins with the first of `found` at `place`.
fn run(found: &[Found], place: Place) -> Run<'_> {
    let (mut count, mut len) = (0, 0);
    let first = found.first().map_or(0, |found| found.index);
    for next in found {
        let goes_on = |other: &Place| other.blob == place.blob && other.offset == place.offset + len;
        if next.index != first + count || len >= MAX_RUN || !next.places.iter().any(goes_on) {
            break;
        }
        count += 1;
        len += u64::from(next.chunk.len);
    }
    Run { chunks: found.get(..count).unwrap_or_default(), from: place.blob, source: place.offset, len }
}

/// Copies a range by the kernel; false when it can't, or the source has ended. A full disk is an error.
fn copy_range(from: &File, mut source: u64, to: &File, mut target: Range<u64>) -> std::io::Result<bool> {
    // Up to the first whole block, so that the rest can be shared.
    let mut next = target.start.next_multiple_of(BLOCK).min(target.end);
    while !target.is_empty() {
        let end = if next > target.start { next } else { target.end };
        let want = usize::try_from(end - target.start).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target.start), want) {
            Ok(0) => return Ok(false),
            Ok(_) => next = next.max(target.start),
            Err(rustix::io::Errno::INTR) => {}
            Err(error @ (rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT)) => return Err(error.into()),
            Err(_) => return Ok(false),
        }
    }
    Ok(true)
}
