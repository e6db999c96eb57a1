//! Files that turned out damaged are kept aside: they are evidence, and never served again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::blobs::sync_parent;
use super::index::Family;
use super::{Result, Store, StoreError, blob_path, io, sync_folder};
use crate::digest::Digest;
use crate::timestamp::Timestamp;

/// Moves a blob's file into quarantine; nothing when there is none.
pub(super) fn move_file(home: &Path, blob: &Digest) -> Result<Option<PathBuf>> {
    let folder = home.join("quarantine");
    let from = blob_path(home, blob);
    let to = folder.join(format!("{}-{}", blob.to_hex(), Timestamp::now().unix()));
    match fs::rename(&from, &to) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("could not put into quarantine", &from)(error)),
    }
    sync_folder(&folder)?;
    sync_parent(&from)?;
    Ok(Some(to))
}

impl Store {
    /// Puts a damaged blob into quarantine and withdraws the admission of every release that needs it: where its file
    /// is now, and those releases.
    pub(crate) fn quarantine(&self, blob: &Digest) -> Result<(Option<PathBuf>, Vec<Digest>)> {
        // First, so that nothing is admitted on a blob that is on its way out.
        let withdrawn = self.withdraw_users(&BTreeSet::from([*blob]))?;
        let path = self.inner.keeper.exclusive(|| {
            let record = self.blob_record(blob)?.ok_or(StoreError::NoBlob(*blob))?;
            self.forget_chunks(blob, &record)?;
            let mut batch = self.inner.index.batch();
            batch.delete(Family::Blobs, blob.as_bytes())?;
            batch.commit()?;
            move_file(self.home(), blob)
        })?;
        Ok((path, withdrawn))
    }
}
