//! Reading every byte of a release again.

use std::io::Read;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{AdmitError, believe};
use crate::chunk::ChunkMap;
use crate::digest::{Digest, FileHasher};
use crate::statement::File;
use crate::store::{Store, StoreError, io};
use crate::timestamp::Timestamp;

/// Most damaged places that a report lists; the rest of a wholly overwritten file tells nothing more.
pub const MAX_DAMAGE: usize = 256;
/// Bytes read at a time where no chunk map says otherwise.
const BLOCK: u64 = 1024 * 1024;

/// Bytes that are not what the release says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Path in the release.
    pub path: String,
    /// The blob.
    pub blob: Digest,
    /// The chunk, unless the whole file is meant.
    pub chunk: Option<usize>,
    /// Where the damaged bytes begin in the file.
    pub offset: u64,
    /// How many bytes the damage lies in.
    pub len: u64,
    /// What was found.
    pub what: String,
}

/// What reading a release again found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Files read.
    pub files: usize,
    /// Bytes read.
    pub bytes: u64,
    /// Files that are not here.
    pub missing: Vec<String>,
    /// What is damaged; at most [`MAX_DAMAGE`] places.
    pub damage: Vec<Damage>,
    /// Where damaged files were put.
    pub quarantined: Vec<PathBuf>,
    /// Releases whose admission was withdrawn.
    pub withdrawn: Vec<Digest>,
}

impl VerifyReport {
    /// Whether every byte is here and right.
    pub fn is_sound(&self) -> bool {
        self.missing.is_empty() && self.damage.is_empty()
    }

    fn note(&mut self, damage: Damage) {
        if self.damage.len() < MAX_DAMAGE {
            self.damage.push(damage);
        }
    }
}

/// Verifies a release's signatures and hashes every chunk and every file again. A damaged blob goes into quarantine, so
/// that it is fetched anew, and every admission that rests on it is withdrawn. `progress` is told the bytes done and the
/// bytes in all.
pub fn verify(
    store: &Store,
    release: &Digest,
    now: Timestamp,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<VerifyReport, AdmitError> {
    let _lease = store.lease([*release]);
    let signed = store.statement(release)?.ok_or(AdmitError::NotFound(*release))?;
    let verified = believe(store, &signed, now)?;
    let total = verified.size();
    let mut report = VerifyReport::default();
    for file in &verified.files {
        let before = report.bytes;
        let whole = check(store, file, &mut report, &mut |done| progress(before + done, total))?;
        // Counted in full even where the file is short or missing, so that the progress ends where it should.
        report.files += 1;
        progress(before + file.size, total);
        if !whole {
            let (path, withdrawn) = match store.quarantine(&file.blake3) {
                // The same blob under another path went there already.
                Err(StoreError::NoBlob(_)) => continue,
                other => other?,
            };
            report.quarantined.extend(path);
            report.withdrawn.extend(withdrawn);
        }
    }
    if !report.is_sound() && store.withdraw_admission(release)? {
        report.withdrawn.push(*release);
    }
    Ok(report)
}

/// Whether the blob of `file` is as it was. A missing one is noted and is no damage.
fn check(
    store: &Store,
    file: &File,
    report: &mut VerifyReport,
    progress: &mut dyn FnMut(u64),
) -> Result<bool, AdmitError> {
    let blob = file.blake3;
    let damage =
        |chunk, offset, len, what: String| Damage { path: file.path.clone(), blob, chunk, offset, len, what };
    let mut content = match store.open_blob(&blob) {
        Ok(content) => content,
        Err(StoreError::NoBlob(_)) => {
            report.missing.push(file.path.clone());
            return Ok(true);
        }
        Err(StoreError::WrongContent { .. }) => {
            report.note(damage(None, 0, file.size, "the file has another length".to_owned()));
            return Ok(false);
        }
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            report.note(damage(None, 0, file.size, "the file is gone".to_owned()));
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    let map = chunk_map(store, file, report)?;
    let mut hasher = FileHasher::default();
    let mut bytes = Vec::new();
    let (mut offset, mut index, mut bad) = (0, 0, false);
    while offset < file.size {
        let chunk = map.as_ref().and_then(|map| map.get(index));
        let len = chunk.map_or(BLOCK.min(file.size - offset), |chunk| u64::from(chunk.len));
        bytes.clear();
        let read = content.by_ref().take(len).read_to_end(&mut bytes);
        read.map_err(io("could not read", &store.blob_path(&blob)))?;
        if bytes.len() as u64 != len {
            report.note(damage(chunk.map(|_| index), offset, len, "the file ends here".to_owned()));
            return Ok(false);
        }
        if let Some(chunk) = chunk {
            let found = Digest::of(&bytes);
            if found != chunk.digest {
                bad = true;
                report.note(damage(
                    Some(index),
                    offset,
                    len,
                    format!("its bytes hash to {found}, not to {}", chunk.digest),
                ));
            }
        }
        hasher.update(&bytes);
        offset += len;
        index += 1;
        progress(offset);
    }
    report.bytes += offset;
    let found = hasher.finish();
    if found.blake3 != blob && !bad {
        bad = true;
        report.note(damage(None, 0, file.size, format!("the file hashes to {}", found.blake3)));
    }
    if !bad && found.sha256 != file.sha256 {
        let what = format!(
            "its SHA-256 is {}: the release itself is wrong, its publisher must sign anew",
            found.sha256
        );
        report.note(damage(None, 0, file.size, what));
    }
    Ok(!bad)
}

/// The file's chunk map, unless it is missing or damaged, which is noted.
fn chunk_map(store: &Store, file: &File, report: &mut VerifyReport) -> Result<Option<ChunkMap>, AdmitError> {
    match store.chunk_map(&file.chunk_map) {
        Ok(Some(map)) if map.blob() == file.blake3 && map.size() == file.size => Ok(Some(map)),
        Ok(Some(_)) => Err(AdmitError::WrongMap { path: file.path.clone(), map: file.chunk_map }),
        Ok(None) => {
            report.missing.push(format!("{} (its chunk map)", file.path));
            Ok(None)
        }
        Err(StoreError::WrongContent { .. } | StoreError::Chunks { .. }) => {
            report.note(Damage {
                path: file.path.clone(),
                blob: file.chunk_map,
                chunk: None,
                offset: 0,
                len: 0,
                what: "its chunk map is damaged".to_owned(),
            });
            let (path, withdrawn) = store.quarantine(&file.chunk_map)?;
            report.quarantined.extend(path);
            report.withdrawn.extend(withdrawn);
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_places_are_listed_and_no_more() {
        let place = |chunk| Damage {
            path: "m".to_owned(),
            blob: Digest::of(b"m"),
            chunk: Some(chunk),
            offset: 0,
            len: 1,
            what: String::new(),
        };
        let mut report = VerifyReport::default();
        (0..MAX_DAMAGE + 2).for_each(|chunk| report.note(place(chunk)));
        assert_eq!(report.damage.len(), MAX_DAMAGE);
    }
}
