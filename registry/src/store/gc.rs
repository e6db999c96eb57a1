//! Garbage collection: mark what the roots reach, sweep the rest (`keep.rs` says why that is safe beside other work).

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::index::{Family, Index};
use super::record::{self, BlobRecord};
use super::statements::blobs_of;
use super::{Result, Store, io, locked, partial, partial_path};
use crate::digest::Digest;
use crate::reference::{Model, Version};
use crate::timestamp::{DAY, Timestamp};

/// How long, in seconds, a transfer that nobody took up again is kept.
pub const PARTIAL_MAX_AGE: i64 = 7 * DAY;
/// Blobs that are removed under one lock and one sync of the index.
const SWEEP_BATCH: usize = 64;

/// Why a release's bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GcReason {
    /// It is not pinned, no mirror rule keeps it, and no channel points to it (or a mirror rule let it go).
    Unpinned,
    /// It is recalled and not pinned: a channel does not keep such a release.
    Recalled,
}

/// A release whose bytes a collection removed, or would remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcRelease {
    /// The release; its statement stays.
    pub release: Digest,
    /// Its model.
    pub model: Model,
    /// Its version.
    pub version: Version,
    /// Bytes that go, chunk maps included. Those that two such releases share are counted for both.
    pub bytes: u64,
    /// Why.
    pub reason: GcReason,
}

/// What a collection did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Whether nothing was removed.
    pub dry_run: bool,
    /// Blobs removed.
    pub blobs_removed: u64,
    /// Transfers removed that nobody took up again.
    pub partials_removed: u64,
    /// Files removed that the index did not know, left behind by a crash.
    pub orphans_removed: u64,
    /// The releases that the blobs removed were of.
    pub releases: Vec<GcRelease>,
    /// Blobs removed that no known release names: a draft that was never signed.
    pub loose_blobs: u64,
    /// Bytes of everything removed.
    pub bytes_freed: u64,
    /// Blobs that a pin, a mirror rule, a channel, a lease or a transfer needs.
    pub blobs_kept: u64,
    /// Their bytes.
    pub bytes_kept: u64,
    /// Blobs that nothing needs yet, kept because they came within the last day.
    pub blobs_held: u64,
    /// Their bytes.
    pub bytes_held: u64,
}

impl Store {
    /// Removes what nothing needs, or with `dry_run` says what that would be. Safe beside pulls and publishing; a second
    /// call waits for the first.
    pub fn gc(&self, dry_run: bool) -> Result<GcReport> {
        let _collection = self.inner.keeper.begin();
        let now = Timestamp::now();
        let mut report = GcReport { dry_run, ..GcReport::default() };
        self.sweep_partials(&mut report, now)?;
        let marked = self.mark()?;
        let mut garbage = Vec::new();
        for entry in self.inner.index.scan(Family::Blobs, &[])? {
            let (key, value) = entry?;
            let blob = record::digest(&key, "a blob")?;
            let record = BlobRecord::decode(&value)?;
            if marked.contains(&blob) {
                report.blobs_kept += 1;
                report.bytes_kept += record.size;
            } else if record.held_until > now {
                report.blobs_held += 1;
                report.bytes_held += record.size;
            } else {
                garbage.push((blob, record));
            }
        }
        // Chunk maps last: they name the chunks that their blobs leave behind in the index.
        garbage.sort_by_key(|(blob, record)| (record.map.is_none(), *blob));
        self.name_releases(&garbage, &mut report)?;
        if dry_run {
            report.blobs_removed = garbage.len() as u64;
            report.bytes_freed += garbage.iter().map(|(_, record)| record.size).sum::<u64>();
        } else {
            let garbage: Vec<Digest> = garbage.into_iter().map(|(blob, _)| blob).collect();
            for blobs in garbage.chunks(SWEEP_BATCH) {
                self.sweep(blobs, &mut report, now)?;
            }
        }
        self.sweep_orphans(&mut report)?;
        Ok(report)
    }

    /// Says which releases the garbage is of. None of them is marked: then no blob of it would be garbage.
    fn name_releases(&self, garbage: &[(Digest, BlobRecord)], report: &mut GcReport) -> Result<()> {
        let sizes: HashMap<Digest, u64> = garbage.iter().map(|(blob, record)| (*blob, record.size)).collect();
        let mut named = HashSet::new();
        for (digest, release) in self.releases()? {
            let blobs: HashSet<Digest> = blobs_of(&release).filter(|blob| sizes.contains_key(blob)).collect();
            if blobs.is_empty() {
                continue;
            }
            let recalled = crate::admit::binding_recall(self, &digest)?.is_some();
            report.releases.push(GcRelease {
                release: digest,
                model: release.model,
                version: release.version,
                bytes: blobs.iter().filter_map(|blob| sizes.get(blob)).sum(),
                reason: if recalled { GcReason::Recalled } else { GcReason::Unpinned },
            });
            named.extend(blobs);
        }
        report.loose_blobs = sizes.keys().filter(|blob| !named.contains(blob)).count() as u64;
        Ok(())
    }

    /// Removes those of `blobs` that neither the roots reach nor `others` name.
    pub(super) fn collect_only(&self, blobs: Vec<Digest>, others: HashSet<Digest>) -> Result<GcReport> {
        let _collection = self.inner.keeper.begin();
        let mut report = GcReport::default();
        let mut marked = self.mark()?;
        marked.extend(others);
        let mut garbage = Vec::new();
        for blob in blobs {
            if !marked.contains(&blob)
                && let Some(record) = self.blob_record(&blob)?
            {
                garbage.push((record.map.is_none(), blob));
            }
        }
        // Chunk maps last, as in a whole collection; a file that the release names twice goes once.
        garbage.sort();
        garbage.dedup();
        let garbage: Vec<Digest> = garbage.into_iter().map(|(_, blob)| blob).collect();
        for blobs in garbage.chunks(SWEEP_BATCH) {
            self.sweep(blobs, &mut report, Timestamp::now())?;
        }
        Ok(report)
    }

    /// Every blob that the roots reach.
    fn mark(&self) -> Result<HashSet<Digest>> {
        let mut marked = HashSet::new();
        let mut releases: Vec<Digest> = self.pins()?.into_iter().map(|pin| pin.release).collect();
        let (mirrored, let_go): (Vec<_>, Vec<_>) = self.mirrored()?.into_iter().partition(|it| it.kept);
        releases.extend(mirrored.into_iter().map(|it| it.release));
        let let_go: HashSet<Digest> = let_go.into_iter().map(|it| it.release).collect();
        for (_, channel) in self.channels()? {
            if let_go.contains(&channel.release) {
                continue;
            }
            // A recalled release is not served again; whoever wants to examine it pins it.
            if crate::admit::binding_recall(self, &channel.release)?.is_none() {
                releases.push(channel.release);
            }
        }
        for digest in self.inner.keeper.leased() {
            marked.insert(digest);
            releases.push(digest);
        }
        for digest in releases {
            marked.extend(self.release(&digest)?.iter().flat_map(blobs_of));
        }
        marked.extend(partial::records(&self.inner.index)?.into_iter().map(|(_, record)| record.map));
        Ok(marked)
    }

    fn sweep(&self, blobs: &[Digest], report: &mut GcReport, now: Timestamp) -> Result<()> {
        let index = &self.inner.index;
        let away = self.inner.keeper.collecting(blobs, |blobs| {
            let mut batch = index.batch();
            let mut removed = Vec::new();
            for blob in blobs {
                // Read again under the lock: it may have been held since.
                let Some(record) = self.blob_record(&blob)?.filter(|record| record.held_until <= now) else {
                    continue;
                };
                self.forget_chunks(&blob, &record)?;
                batch.delete(Family::Blobs, blob.as_bytes())?;
                self.forget_sources(&mut batch, &blob)?;
                removed.push((blob, record.size));
            }
            // The record first: a file without a record is an orphan, a record without a file would be a loss.
            batch.commit()?;
            removed
                .into_iter()
                .map(|(blob, size)| Ok((self.move_away(&blob)?, size)))
                .collect::<Result<Vec<_>>>()
        })?;
        // Removing a large file takes long, so it is done after the lock was let go.
        for (path, size) in away {
            report.blobs_removed += 1;
            report.bytes_freed += size;
            remove(path)?;
        }
        Ok(())
    }

    /// Moves a blob's file to where it is no blob any more.
    fn move_away(&self, blob: &Digest) -> Result<Option<PathBuf>> {
        let (from, to) =
            (self.blob_path(blob), self.home().join("tmp").join(format!("gc-{}", blob.to_hex())));
        match fs::rename(&from, &to) {
            Ok(()) => Ok(Some(to)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("could not remove", &from)(error)),
        }
    }

    fn sweep_orphans(&self, report: &mut GcReport) -> Result<()> {
        for (blob, path) in files(&self.home().join("blobs"))? {
            let away = self.inner.keeper.exclusive(|| {
                let size = fs::symlink_metadata(&path).map_or(0, |meta| meta.len());
                if self.blob_record(&blob)?.is_some() {
                    return Ok(None);
                }
                Ok(Some((if report.dry_run { None } else { self.move_away(&blob)? }, size)))
            })?;
            if let Some((path, size)) = away {
                report.orphans_removed += 1;
                report.bytes_freed += size;
                remove(path)?;
            }
        }
        Ok(())
    }

    fn sweep_partials(&self, report: &mut GcReport, now: Timestamp) -> Result<()> {
        for (blob, record) in partial::records(&self.inner.index)? {
            // Under this lock nobody takes it up.
            let open = locked(&self.inner.partials);
            let fetched = open.get(&blob).is_some_and(|inner| inner.strong_count() > 0);
            if fetched || record.touched.plus(PARTIAL_MAX_AGE) > now {
                continue;
            }
            report.partials_removed += 1;
            report.bytes_freed += record.size;
            if !report.dry_run {
                partial::forget(&self.inner.index, &blob)?;
                remove(Some(partial_path(self.home(), &blob)))?;
            }
        }
        Ok(())
    }
}

fn remove(path: Option<PathBuf>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io("could not remove", &path)(error))
        }
        _ => Ok(()),
    }
}

/// Every file in the folders of `blobs` that is named like one.
pub(super) fn files(blobs: &std::path::Path) -> Result<Vec<(Digest, PathBuf)>> {
    let mut files = Vec::new();
    for byte in 0..=u8::MAX {
        let folder = blobs.join(format!("{byte:02x}"));
        for entry in fs::read_dir(&folder).map_err(io("could not list", &folder))? {
            let entry = entry.map_err(io("could not list", &folder))?;
            if let Some(digest) = entry.file_name().to_str().and_then(|name| Digest::from_hex(name).ok()) {
                files.push((digest, entry.path()));
            }
        }
    }
    Ok(files)
}

/// Files in `blobs` that the index does not know, and their bytes.
pub(super) fn orphans(blobs: &std::path::Path, index: &Index) -> Result<(u64, u64)> {
    let mut found = (0, 0);
    for (blob, path) in files(blobs)? {
        if index.get(Family::Blobs, blob.as_bytes())?.is_none() {
            found.0 += 1;
            found.1 += fs::symlink_metadata(&path).map_or(0, |meta| meta.len());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::record::{PartialRecord, partial_key};
    use super::*;
    use crate::chunk::{Chunk, ChunkMap};

    /// A store whose nation has one key.
    fn store(home: &std::path::Path) -> Store {
        use crate::statement::{RoleKeys, RoleName, Root, RootKey, Statement};
        let key = crate::key::SecretKey::from_seed(&[7; 32]);
        let role = RoleKeys { keys: vec![key.id()], threshold: 1 };
        let root = Root {
            nation: crate::Nation::new("alba").unwrap(),
            version: 1,
            issued: Timestamp::from_unix(1_790_000_000),
            expires: Timestamp::from_unix(1_890_000_000),
            keys: [(key.id(), RootKey::Ed25519 { public: key.public() })].into(),
            roles: RoleName::ALL.into_iter().map(|name| (name, role.clone())).collect(),
            previous: None,
        };
        let now = root.issued;
        Store::create(home, &crate::Signed::sign(&Statement::Root(root), &key), now).unwrap()
    }

    #[test]
    fn transfers_that_nobody_takes_up_go_after_a_week() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("store"));
        let parts = [b"one", b"two"].map(|part| Chunk { digest: Digest::of(part), len: 3 });
        let map = ChunkMap::new(Digest::of(b"onetwo"), 6, parts.to_vec()).unwrap();
        let partial = store.partial(&map).unwrap();
        partial.write_chunk(0, b"one").unwrap();
        partial.flush().unwrap();
        let age = |days: i64| {
            let (_, record) = partial::records(&store.inner.index).unwrap()[0];
            let touched = Timestamp::now().plus(-days * DAY);
            let record = PartialRecord { touched, ..record };
            let mut batch = store.inner.index.batch();
            batch.put(Family::Partials, &partial_key(&map.blob()), &record.encode()).unwrap();
            batch.commit().unwrap();
        };
        age(30);
        // It is being fetched: the age does not matter.
        assert_eq!(store.gc(false).unwrap().partials_removed, 0);
        drop(partial);
        age(6);
        assert_eq!(store.gc(false).unwrap().partials_removed, 0);
        age(8);
        assert_eq!(store.gc(true).unwrap().partials_removed, 1);
        assert!(store.partial_chunks(&map.blob()).unwrap().get(0));
        let report = store.gc(false).unwrap();
        assert_eq!((report.partials_removed, report.bytes_freed), (1, 6));
        assert!(store.partial_chunks(&map.blob()).is_none());
        assert!(!partial_path(store.home(), &map.blob()).exists());
    }

    #[test]
    fn the_chunk_index_follows_the_blobs() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("store"));
        let path = dir.path().join("notes.txt");
        fs::write(&path, "hello").unwrap();
        let taken = store.ingest(&path, &mut |_| {}).unwrap();
        let chunk = taken.map.get(0).unwrap();
        let place = |store: &Store| store.places(&chunk.digest).unwrap().first().copied();
        assert_eq!(place(&store).unwrap(), record::Place { blob: taken.digests.blake3, offset: 0, len: 5 });
        store.release_holds(&[taken.digests.blake3, taken.map_digest]).unwrap();
        assert_eq!(store.gc(false).unwrap().blobs_removed, 2);
        assert!(place(&store).is_none());
    }

    #[test]
    fn places_written_before_a_chunk_could_have_several_still_count() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("store"));
        let path = dir.path().join("notes.txt");
        fs::write(&path, "hello").unwrap();
        let taken = store.ingest(&path, &mut |_| {}).unwrap();
        let (blob, chunk) = (taken.digests.blake3, taken.map.get(0).unwrap());
        let mut batch = store.inner.index.batch();
        batch.delete(Family::Chunks, &record::Place::key(&chunk.digest, &blob)).unwrap();
        let old = [&blob.as_bytes()[..], &0u64.to_be_bytes(), &5u32.to_be_bytes()].concat();
        batch.put(Family::Chunks, chunk.digest.as_bytes(), &old).unwrap();
        batch.put(Family::Chunks, &[chunk.digest.as_bytes(), &[7; 5][..]].concat(), b"?").unwrap();
        batch.commit().unwrap();
        let places = store.places(&chunk.digest).unwrap();
        assert_eq!(places, [record::Place { blob, offset: 0, len: 5 }]);
        store.release_holds(&[blob, taken.map_digest]).unwrap();
        store.gc(false).unwrap();
        assert!(store.places(&chunk.digest).unwrap().is_empty());
    }
}
