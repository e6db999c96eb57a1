//! Blobs: finished, immutable files named by the BLAKE3 hash of their content.

use std::fs::{self, File};
use std::io::{self as stdio, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use super::index::{Batch, Family};
use super::keep::HOLD;
use super::record::{self, BlobRecord};
use super::{Result, Store, StoreError, blob_path, error, io, sync_folder};
use crate::chunk::{ChunkError, ChunkMap, ENTRY_LEN, MAX_ENCODED};
use crate::digest::Digest;
use crate::timestamp::Timestamp;

/// Mode of a finished blob: nobody writes to it again.
const MODE: u32 = 0o444;

impl Store {
    pub(super) fn blob_record(&self, blob: &Digest) -> Result<Option<BlobRecord>> {
        let value = self.inner.index.get(Family::Blobs, blob.as_bytes())?;
        value.map(|value| BlobRecord::decode(&value)).transpose()
    }

    /// The record of a blob whose file is there, at its full length.
    pub(super) fn present(&self, blob: &Digest) -> Result<Option<BlobRecord>> {
        let Some(record) = self.blob_record(blob)? else { return Ok(None) };
        let there =
            fs::symlink_metadata(self.blob_path(blob)).is_ok_and(|m| m.is_file() && m.len() == record.size);
        Ok(there.then_some(record))
    }

    /// Every whole blob, in order.
    pub fn blobs(&self) -> Result<Vec<Digest>> {
        let entries = self.inner.index.scan(Family::Blobs, &[])?;
        entries.map(|entry| record::digest(&entry?.0, "a blob")).collect()
    }

    /// Whether the whole blob is here. An index that can't be read is logged and means no.
    pub fn has_blob(&self, blob: &Digest) -> bool {
        self.present(blob).map(|record| record.is_some()).unwrap_or_else(|error| {
            tracing::error!(%blob, %error, "a blob's record can't be read");
            false
        })
    }

    /// The blob's size in bytes, when it is here.
    pub fn blob_size(&self, blob: &Digest) -> Result<Option<u64>> {
        Ok(self.present(blob)?.map(|record| record.size))
    }

    /// Where the blob's file lies, or would.
    pub fn blob_path(&self, blob: &Digest) -> PathBuf {
        blob_path(self.home(), blob)
    }

    /// The blob's file, opened for reading. Its length was compared with the index, its content was not looked at.
    pub fn open_blob(&self, blob: &Digest) -> Result<File> {
        let record = self.blob_record(blob)?.ok_or(StoreError::NoBlob(*blob))?;
        let path = self.blob_path(blob);
        // A link in the place of a blob is not ours.
        let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&path)
            .map_err(io("could not open", &path))?;
        let size = file.metadata().map_err(io("could not look at", &path))?.len();
        if size == record.size { Ok(file) } else { Err(StoreError::WrongContent { blob: *blob }) }
    }

    /// Keeps a small blob, such as a chunk map; durable on return.
    pub fn put_bytes(&self, content: &[u8]) -> Result<Digest> {
        let digest = Digest::of(content);
        let mut file = self.temporary("put-")?;
        file.write_all(content).map_err(io("could not write", file.path()))?;
        self.install(file.into_temp_path(), &digest, content.len() as u64, None)?;
        Ok(digest)
    }

    /// The chunk map with this digest, when it is here. Its bytes are checked against the digest.
    pub fn chunk_map(&self, digest: &Digest) -> Result<Option<ChunkMap>> {
        let Some(record) = self.present(digest)? else { return Ok(None) };
        let path = self.blob_path(digest);
        if record.size > MAX_ENCODED as u64 {
            let source = ChunkError::TooMany { count: record.size / ENTRY_LEN as u64 };
            return Err(StoreError::Chunks { path, source });
        }
        let mut bytes = Vec::with_capacity(record.size as usize);
        let read = self.open_blob(digest)?.take(record.size).read_to_end(&mut bytes);
        read.map_err(io("could not read", &path))?;
        if Digest::of(&bytes) != *digest {
            return Err(StoreError::WrongContent { blob: *digest });
        }
        ChunkMap::decode(&bytes).map(Some).map_err(error::chunks(&path))
    }

    /// One chunk's bytes, from the blob or from a transfer that has it already. They are not hashed again: whoever
    /// receives them does that, and a whole blob is checked by `verify`.
    pub fn read_chunk(&self, blob: &Digest, map: &ChunkMap, index: usize) -> Result<Option<Vec<u8>>> {
        let (Some(offset), Some(chunk)) = (map.offset(index), map.get(index)) else { return Ok(None) };
        let mut bytes = vec![0; chunk.len as usize];
        if let Some(record) = self.present(blob)? {
            if record.size != map.size() {
                return Ok(None);
            }
            let read = self.open_blob(blob)?.read_exact_at(&mut bytes, offset);
            read.map_err(io("could not read", &self.blob_path(blob)))?;
            return Ok(Some(bytes));
        }
        let read = self.read_partial(blob, map, index, &mut bytes, offset)?;
        Ok(read.then_some(bytes))
    }

    /// Moves a complete file into its place and records it; durable on return. With `map`, its chunks are indexed.
    /// A blob that is here already is held for a while longer, and the file is let go.
    pub(crate) fn install(
        &self,
        file: TempPath,
        digest: &Digest,
        size: u64,
        map: Option<(&ChunkMap, Digest)>,
    ) -> Result<()> {
        let path = self.blob_path(digest);
        let close = || -> stdio::Result<()> {
            let file = File::open(&file)?;
            file.set_permissions(fs::Permissions::from_mode(MODE))?;
            file.sync_all()
        };
        close().map_err(io("could not finish", &file))?;
        if let Some((map, _)) = map {
            self.index_chunks(map)?;
        }
        self.inner.keeper.exclusive(|| {
            let record = self.held(digest, size, map.map(|(_, digest)| digest))?;
            if self.present(digest)?.is_none() {
                file.persist(&path).map_err(|error| io("could not create", &path)(error.error))?;
                sync_parent(&path)?;
            }
            let mut batch = self.inner.index.batch();
            batch.put(Family::Blobs, digest.as_bytes(), &record.encode())?;
            batch.commit()
        })
    }

    /// The record of a blob that just came, held from now on; what is known of it already stays.
    pub(super) fn held(&self, blob: &Digest, size: u64, map: Option<Digest>) -> Result<BlobRecord> {
        let now = Timestamp::now();
        let known = self.blob_record(blob)?;
        Ok(BlobRecord {
            size,
            map: map.or(known.and_then(|known| known.map)),
            held_until: now.plus(HOLD),
            added: known.map_or(now, |known| known.added),
        })
    }

    /// Ends the hold of blobs that a release now stands for; from here on the roots decide whether they are kept.
    #[cfg(test)]
    pub(crate) fn release_holds(&self, blobs: &[Digest]) -> Result<()> {
        self.inner.keeper.keeping(blobs.iter().copied(), || {
            let mut batch: Batch<'_> = self.inner.index.batch();
            self.end_holds(&mut batch, blobs)?;
            batch.commit()
        })
    }

    /// Puts the end of the holds of `blobs` into `batch`, under the keeper's lock.
    pub(super) fn end_holds(&self, batch: &mut Batch<'_>, blobs: &[Digest]) -> Result<()> {
        for blob in blobs {
            if let Some(record) = self.blob_record(blob)?.filter(|record| record.held_until.unix() != 0) {
                let record = BlobRecord { held_until: Timestamp::from_unix(0), ..record };
                batch.put(Family::Blobs, blob.as_bytes(), &record.encode())?;
            }
        }
        Ok(())
    }
}

/// Syncs the folder that `path` is in.
pub(super) fn sync_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), sync_folder)
}
