//! The journal of a transfer: which chunks are on the disk.
//!
//! Its pages are written after the data was synced, so they hold after any crash. Beside each page stands a note of what was
//! written since, which nothing waits for. A process that is killed leaves its notes and its data with the kernel; after a
//! power cut either may be missing. So what a note claims is hashed before it is believed, and a killed transfer loses what
//! was on its way, not what had come.

use std::time::Instant;

use super::super::index::{Family, Index};
use super::super::record::{
    PartialRecord, corrupt, note_key, note_prefix, page_key, page_prefix, partial_key,
};
use super::super::{Bitmap, Result, StoreError, io, locked};
use super::{Inner, State};
use crate::chunk::MAX_CHUNKS;
use crate::digest::Digest;
use crate::timestamp::Timestamp;

/// Chunks in one page of the journal: a sync writes only pages that changed, each of 512 bytes.
pub(in super::super) const PAGE: usize = 4096;
const PAGE_BYTES: usize = PAGE / 8;

/// Every transfer in the index.
pub(in super::super) fn records(index: &Index) -> Result<Vec<(Digest, PartialRecord)>> {
    let mut records = Vec::new();
    for entry in index.scan(Family::Partials, &[])? {
        let (key, value) = entry?;
        if let Ok(key) = <[u8; 33]>::try_from(&*key)
            && let Some((blob, [0])) = key.split_first_chunk::<32>()
        {
            records.push((Digest::from_bytes(*blob), PartialRecord::decode(&value)?));
        }
    }
    Ok(records)
}

/// Whether there is a transfer of `blob`.
pub(super) fn is_known(index: &Index, blob: &Digest) -> Result<bool> {
    Ok(index.get(Family::Partials, &partial_key(blob))?.is_some())
}

/// The transfer of `blob` as it was last synced.
pub(in super::super) fn load(index: &Index, blob: &Digest) -> Result<Option<(PartialRecord, Bitmap)>> {
    let Some(value) = index.get(Family::Partials, &partial_key(blob))? else { return Ok(None) };
    let record = PartialRecord::decode(&value)?;
    let len = record.chunks as usize;
    if len > MAX_CHUNKS {
        return Err(corrupt("a transfer"));
    }
    let have = read_pages(index, &page_prefix(blob), len)?;
    Ok(Some((record, have)))
}

/// What was noted as written, whether it was synced or not: a claim.
pub(super) fn noted(index: &Index, blob: &Digest, len: usize) -> Result<Bitmap> {
    read_pages(index, &note_prefix(blob), len)
}

fn read_pages(index: &Index, prefix: &[u8], len: usize) -> Result<Bitmap> {
    let mut bytes = vec![0; len.div_ceil(8)];
    for entry in index.scan(Family::Partials, prefix)? {
        let (key, value) = entry?;
        let page =
            key.last_chunk().map(|page| u32::from_be_bytes(*page)).ok_or_else(|| corrupt("a transfer"))?;
        let start = page as usize * PAGE_BYTES;
        let place = bytes.get_mut(start..start + value.len()).ok_or_else(|| corrupt("a transfer"))?;
        place.copy_from_slice(&value);
    }
    Bitmap::from_bytes(&bytes, len).ok_or_else(|| corrupt("a transfer"))
}

/// Notes that a transfer begins or goes on.
pub(super) fn begin(index: &Index, blob: &Digest, record: &PartialRecord) -> Result<()> {
    let mut batch = index.batch();
    batch.put(Family::Partials, &partial_key(blob), &record.encode())?;
    batch.commit()
}

/// Forgets a transfer.
pub(in super::super) fn forget(index: &Index, blob: &Digest) -> Result<()> {
    let mut batch = index.batch();
    forget_in(index, &mut batch, blob)?;
    if batch.len() > 0 { batch.commit() } else { Ok(()) }
}

/// Forgets a transfer together with other changes.
pub(super) fn forget_in(
    index: &Index,
    batch: &mut super::super::index::Batch<'_>,
    blob: &Digest,
) -> Result<(), StoreError> {
    for entry in index.scan(Family::Partials, blob.as_bytes())? {
        batch.delete(Family::Partials, &entry?.0)?;
    }
    Ok(())
}

impl Inner {
    /// Notes what was written of a page, without waiting for the disk.
    pub(super) fn note(&self, state: &State, page: u32) -> Result<()> {
        let mut batch = self.store.inner.index.batch();
        batch.put(Family::Partials, &note_key(&self.map.blob(), page), &page_bytes(state, page))?;
        batch.commit_lazily()
    }

    /// Syncs the data, then the journal. Whoever calls holds `flushing`, or is the last one left.
    pub(super) fn flush(&self) -> Result<()> {
        // What is in the pages now was written before now, so the sync below covers it.
        let pages = {
            let mut state = locked(&self.state);
            state.flushed = Instant::now();
            state.unsynced = 0;
            std::mem::take(&mut state.behind)
                .into_iter()
                .map(|page| (page, page_bytes(&state, page)))
                .collect::<Vec<_>>()
        };
        if pages.is_empty() {
            return Ok(());
        }
        let result = self.sync(&pages);
        if result.is_err() {
            locked(&self.state).behind.extend(pages.iter().map(|(page, _)| *page));
        }
        result
    }

    fn sync(&self, pages: &[(u32, Vec<u8>)]) -> Result<()> {
        self.file.sync_data().map_err(io("could not sync", &self.path))?;
        let blob = self.map.blob();
        let record = PartialRecord { touched: Timestamp::now(), ..self.record };
        let mut batch = self.store.inner.index.batch();
        batch.put(Family::Partials, &partial_key(&blob), &record.encode())?;
        for (page, bytes) in pages {
            batch.put(Family::Partials, &page_key(&blob, *page), bytes)?;
        }
        batch.commit()
    }
}

fn page_bytes(state: &State, page: u32) -> Vec<u8> {
    let start = page as usize * PAGE;
    let mut bytes = vec![0; state.have.len().saturating_sub(start).min(PAGE).div_ceil(8)];
    for (at, byte) in bytes.iter_mut().enumerate() {
        for bit in 0..8 {
            *byte |= u8::from(state.have.get(start + at * 8 + bit)) << bit;
        }
    }
    bytes
}
