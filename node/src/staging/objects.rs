//! Content, named by its SHA-256.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use registry::digest::{FileHasher, Sha256};
use tempfile::NamedTempFile;

use super::error::{Result, StagingError, io};
use super::space::Room;
use super::{Area, make_folder, sync_folder};

/// Bytes written between two syncs, so that dirty pages don't pile up and the last sync is short.
const SYNC_EVERY: u64 = 64 * 1024 * 1024;
/// Bytes read at once.
const BLOCK: usize = 256 * 1024;
/// The mode of what is not written to again.
pub(super) const FINISHED: u32 = 0o444;

/// Hands on what comes from a sender, block by block, until it has all come.
pub(crate) fn each_block(from: &mut impl Read, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        let read = from.read(&mut block).map_err(|_| StagingError::Cut)?;
        match block.get(..read) {
            Some(bytes) if !bytes.is_empty() => take(bytes)?,
            _ => return Ok(()),
        }
    }
}

/// Content on its way in. What is dropped is gone.
#[derive(Debug)]
pub(crate) struct Incoming {
    file: NamedTempFile,
    hasher: FileHasher,
    room: Room,
    size: u64,
    unsynced: u64,
}

impl Incoming {
    /// Takes the next bytes; more than was promised is refused.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<()> {
        self.size += bytes.len() as u64;
        if self.size > self.room.bytes() {
            return Err(StagingError::TooLarge(format!(
                "more came than the {} bytes that were announced",
                self.room.bytes()
            )));
        }
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(io("could not write", self.file.path()))?;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_EVERY {
            self.file.as_file().sync_data().map_err(io("could not write", self.file.path()))?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Bytes that came.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Puts it to `path`, durably.
    pub(super) fn install(self, path: &Path) -> Result<()> {
        let Self { file, room, size, .. } = self;
        let failed = || io("could not keep", path);
        file.as_file().sync_all().map_err(failed())?;
        file.as_file().set_permissions(fs::Permissions::from_mode(FINISHED)).map_err(failed())?;
        let folder = path.parent().unwrap_or(Path::new("."));
        make_folder(folder)?;
        let before = fs::metadata(path).map(|meta| meta.len()).ok();
        file.persist(path).map_err(|error| failed()(error.error))?;
        sync_folder(folder)?;
        if let Some(parent) = folder.parent() {
            sync_folder(parent)?;
        }
        room.keep(size, before.unwrap_or(0));
        Ok(())
    }
}

impl Area {
    /// Room for content of at most `size` bytes.
    pub(crate) fn incoming(&self, size: u64) -> Result<Incoming> {
        self.open()?;
        let room = match self.space.promise(size) {
            // Xorbs are kept for clients that may send them no more; content that is sent now goes before.
            Err(StagingError::Full(_)) if self.drop_idle_xorbs()? > 0 => self.space.promise(size)?,
            room => room?,
        };
        let folder = self.home.join("incoming");
        let file = NamedTempFile::new_in(&folder).map_err(io("could not write in", &folder))?;
        Ok(Incoming { file, hasher: FileHasher::default(), room, size: 0, unsynced: 0 })
    }

    /// A file for a request's body, which goes when it is dropped. It counts as nothing, since it is bounded by its reader.
    pub(crate) fn scratch(&self) -> Result<NamedTempFile> {
        self.open()?;
        let folder = self.home.join("incoming");
        NamedTempFile::new_in(&folder).map_err(io("could not write in", &folder))
    }

    /// Keeps what came, when it is the content that was `expected`. Durable on return.
    pub(crate) fn finish(
        &self,
        mut incoming: Incoming,
        expected: Option<&Sha256>,
        size: Option<u64>,
    ) -> Result<(Sha256, u64)> {
        let found = std::mem::take(&mut incoming.hasher).finish();
        if let Some(size) = size.filter(|size| *size != found.size) {
            return Err(StagingError::Wrong(format!(
                "{} bytes came where {size} were announced",
                found.size
            )));
        }
        if let Some(expected) = expected.filter(|expected| **expected != found.sha256) {
            return Err(StagingError::Wrong(format!(
                "what came has the SHA-256 {}, and {expected} was announced; upload it again",
                found.sha256
            )));
        }
        incoming.install(&self.object_path(&found.sha256))?;
        Ok((found.sha256, found.size))
    }

    /// Whether so many more bytes would fit.
    pub(crate) fn fits(&self, bytes: u64) -> Result<()> {
        self.open()?;
        self.space.promise(bytes).map(drop)
    }

    pub(super) fn object_path(&self, oid: &Sha256) -> PathBuf {
        let hex = oid.to_hex();
        self.home.join("objects").join(hex.get(..2).unwrap_or_default()).join(hex)
    }

    /// How many bytes the content has, if it is here.
    pub(crate) fn size_of(&self, oid: &Sha256) -> Option<u64> {
        fs::symlink_metadata(self.object_path(oid)).ok().filter(fs::Metadata::is_file).map(|meta| meta.len())
    }

    /// The content, if it is here.
    pub(crate) fn object(&self, oid: &Sha256) -> Result<Option<File>> {
        let path = self.object_path(oid);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("could not open", &path)(error)),
        }
    }

    /// Removes content.
    pub(super) fn remove_object(&self, oid: &Sha256) -> Result<u64> {
        remove(&self.object_path(oid), &self.space)
    }
}

/// Removes a file that counts.
pub(super) fn remove(path: &Path, space: &super::Space) -> Result<u64> {
    let size = match fs::symlink_metadata(path) {
        Ok(meta) => meta.len(),
        Err(_) => return Ok(0),
    };
    fs::remove_file(path).map_err(io("could not remove", path))?;
    space.gone(size);
    Ok(size)
}
