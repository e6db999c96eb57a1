//! From the last chunk to a blob.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};

use super::super::blobs::sync_parent;
use super::super::index::Family;
use super::super::{Result, StoreError, io, locked, sync_folder};
use super::{Inner, Partial, journal};
use crate::digest::Digest;

impl Partial {
    /// Makes the blob out of its chunks: the hash of the whole is compared with its name, then it is synced, renamed into its place
    /// and recorded; durable on return. Finishing twice is once. Chunks that repeat another one of the blob are copied from it first, so only
    /// [`Self::to_fetch`] must have been fetched.
    ///
    /// What was written by others, or before this process, is read and hashed; what this one wrote was hashed then (`whole.rs`).
    /// When the whole is wrong, each chunk is hashed again. Those that the disk changed are missing again
    /// ([`StoreError::Damaged`]); when all are right, the map itself is false ([`StoreError::FalseMap`]) and the
    /// transfer is forgotten.
    pub fn finish(&self) -> Result<()> {
        let inner = &*self.inner;
        let (_, bad) = inner.copy_repeats(&mut |_| {})?;
        if !bad.is_empty() {
            return Err(StoreError::Damaged { blob: inner.map.blob(), bad });
        }
        let _one = locked(&inner.flushing);
        {
            let state = locked(&inner.state);
            if state.finished {
                return Ok(());
            }
            if !state.have.is_full() {
                let missing = state.have.len() - state.have.count();
                return Err(StoreError::Incomplete { blob: inner.map.blob(), missing });
            }
        }
        inner.flush()?;
        inner.hash()?;
        inner.install()
    }
}

impl Inner {
    /// Compares the hash of the whole with the blob's name.
    fn hash(&self) -> Result<()> {
        let blob = self.map.blob();
        let found = self.whole_digest()?;
        if found == blob {
            return Ok(());
        }
        let bad = self.bad_chunks()?;
        if bad.is_empty() {
            self.abandon()?;
            return Err(StoreError::FalseMap { blob, map: self.record.map });
        }
        self.lost(&bad);
        self.flush()?;
        Err(StoreError::Damaged { blob, bad })
    }

    fn bad_chunks(&self) -> Result<Vec<usize>> {
        let mut bad = Vec::new();
        let mut bytes = Vec::new();
        for (index, (offset, chunk)) in self.map.iter().enumerate() {
            bytes.resize(chunk.len as usize, 0);
            self.file.read_exact_at(&mut bytes, offset).map_err(io("could not read", &self.path))?;
            if Digest::of(&bytes) != chunk.digest {
                bad.push(index);
            }
        }
        Ok(bad)
    }

    fn abandon(&self) -> Result<()> {
        locked(&self.state).finished = true;
        journal::forget(&self.store.inner.index, &self.map.blob())?;
        fs::remove_file(&self.path).map_err(io("could not remove", &self.path))
    }

    fn install(&self) -> Result<()> {
        let store = &self.store;
        let blob = self.map.blob();
        let path = store.blob_path(&blob);
        self.file
            .set_permissions(fs::Permissions::from_mode(0o444))
            .and_then(|()| self.file.sync_all())
            .map_err(io("could not finish", &self.path))?;
        store.index_chunks(&self.map)?;
        store.inner.keeper.exclusive(|| {
            let record = store.held(&blob, self.map.size(), Some(self.record.map))?;
            fs::rename(&self.path, &path).map_err(io("could not create", &path))?;
            sync_parent(&path)?;
            sync_folder(&store.home().join("partial"))?;
            let mut batch = store.inner.index.batch();
            batch.put(Family::Blobs, blob.as_bytes(), &record.encode())?;
            store.came_whole(&mut batch, &blob)?;
            journal::forget_in(&store.inner.index, &mut batch, &blob)?;
            batch.commit()
        })?;
        locked(&self.state).finished = true;
        Ok(())
    }
}
