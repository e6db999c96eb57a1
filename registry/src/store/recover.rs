//! What opening a store puts right after a crash, or after somebody changed its files.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::index::{Family, Index};
use super::record::{self, BlobRecord, StatementRecord};
use super::statements::blobs_of;
use super::{Result, blob_path, gc, io, partial, partial_path, quarantine, sync_folder};
use crate::digest::Digest;
use crate::statement::Statement;

/// A blob that the index named and that is not there as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// The blob.
    pub blob: Digest,
    /// What was found.
    pub why: String,
}

/// What opening the store found and put right.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Blobs that are gone or have another length; pull their releases again.
    pub withdrawn: Vec<Withdrawn>,
    /// Releases whose admission ended with those blobs.
    pub admissions_withdrawn: Vec<Digest>,
    /// Temporary files removed.
    pub temporary_removed: u64,
    /// Transfers forgotten because their files are gone, and files of no known transfer.
    pub partials_removed: u64,
    /// Transfers that had ended but for the record, taken up again.
    pub partials_restored: u64,
    /// Files among the blobs that the index does not know; `gc` removes them.
    pub orphans: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
}

impl Recovery {
    /// Whether something that was acknowledged is lost.
    pub fn is_loss(&self) -> bool {
        !self.withdrawn.is_empty()
    }
}

/// Puts right what a crash left behind.
pub(super) fn run(home: &Path, index: &Index) -> Result<Recovery> {
    let mut recovery = Recovery { temporary_removed: empty(&home.join("tmp"))?, ..Recovery::default() };
    partials(home, index, &mut recovery)?;
    blobs(home, index, &mut recovery)?;
    if recovery.is_loss() {
        admissions(index, &mut recovery)?;
    }
    (recovery.orphans, recovery.orphan_bytes) = gc::orphans(&home.join("blobs"), index)?;
    for Withdrawn { blob, why } in &recovery.withdrawn {
        tracing::error!(%blob, why, "a blob is lost; pull the releases that need it again");
    }
    if recovery.orphans > 0 {
        tracing::warn!(
            files = recovery.orphans,
            bytes = recovery.orphan_bytes,
            "files that the index does not know"
        );
    }
    Ok(recovery)
}

/// Empties a folder of temporary files.
fn empty(folder: &Path) -> Result<u64> {
    let mut removed = 0;
    for entry in fs::read_dir(folder).map_err(io("could not list", folder))? {
        let path = entry.map_err(io("could not list", folder))?.path();
        let result = if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        result.map_err(io("could not remove", &path))?;
        removed += 1;
    }
    Ok(removed)
}

fn partials(home: &Path, index: &Index, recovery: &mut Recovery) -> Result<()> {
    let folder = home.join("partial");
    for (blob, record) in partial::records(index)? {
        let has_length =
            |path: &Path| fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.len() == record.size);
        let (here, finished) = (partial_path(home, &blob), blob_path(home, &blob));
        if has_length(&here) {
            continue;
        }
        // Renamed into its place, and then the crash came before the record.
        if has_length(&finished) && index.get(Family::Blobs, blob.as_bytes())?.is_none() {
            fs::rename(&finished, &here).map_err(io("could not move back", &finished))?;
            sync_folder(&folder)?;
            recovery.partials_restored += 1;
            continue;
        }
        partial::forget(index, &blob)?;
        recovery.partials_removed += 1;
    }
    for entry in fs::read_dir(&folder).map_err(io("could not list", &folder))? {
        let path = entry.map_err(io("could not list", &folder))?.path();
        let blob =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| Digest::from_hex(name).ok());
        let known = match blob {
            Some(blob) => index.get(Family::Partials, &record::partial_key(&blob))?.is_some(),
            None => false,
        };
        if !known {
            fs::remove_file(&path).map_err(io("could not remove", &path))?;
            recovery.partials_removed += 1;
        }
    }
    Ok(())
}

fn blobs(home: &Path, index: &Index, recovery: &mut Recovery) -> Result<()> {
    let mut batch = index.batch();
    for entry in index.scan(Family::Blobs, &[])? {
        let (key, value) = entry?;
        let blob = record::digest(&key, "a blob")?;
        let expected = BlobRecord::decode(&value)?.size;
        let path = blob_path(home, &blob);
        let why = match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() && meta.len() == expected => continue,
            Ok(meta) if meta.is_file() => {
                quarantine::move_file(home, &blob)?;
                format!("its file has {} of {expected} bytes and was put into quarantine", meta.len())
            }
            Ok(_) => {
                quarantine::move_file(home, &blob)?;
                "something that is no file stood in its place and was put into quarantine".to_owned()
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "its file is gone".to_owned(),
            Err(error) => return Err(io("could not look at", &path)(error)),
        };
        batch.delete(Family::Blobs, &key)?;
        recovery.withdrawn.push(Withdrawn { blob, why });
    }
    if batch.len() > 0 { batch.commit() } else { Ok(()) }
}

/// Withdraws the admission of each release that has lost a blob.
fn admissions(index: &Index, recovery: &mut Recovery) -> Result<()> {
    let lost = |blob: &Digest| recovery.withdrawn.iter().any(|withdrawn| withdrawn.blob == *blob);
    let mut batch = index.batch();
    let mut gone = Vec::new();
    for entry in index.scan(Family::Admissions, &[])? {
        let (key, _) = entry?;
        let digest = record::digest(&key, "an admission")?;
        let statement = match index.get(Family::Statements, &key)? {
            Some(value) => StatementRecord::decode(&value)?.signed.peek().ok(),
            None => None,
        };
        let whole =
            matches!(&statement, Some(Statement::Release(release)) if !blobs_of(release).any(|b| lost(&b)));
        if !whole {
            batch.delete(Family::Admissions, &key)?;
            gone.push(digest);
        }
    }
    recovery.admissions_withdrawn = gone;
    if batch.len() > 0 { batch.commit() } else { Ok(()) }
}
