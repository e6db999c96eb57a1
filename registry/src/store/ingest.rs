//! Taking in files of our own: read once, copied and hashed in the same pass.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tempfile::NamedTempFile;

use super::{Result, Store, StoreError, error, io};
use crate::chunk::{Built, ChunkMap, build};
use crate::digest::{Digest, FileDigests};
use crate::format::{Inspection, inspect};

/// Bytes written between two syncs, so that dirty pages don't pile up and the last sync is short.
const SYNC_EVERY: u64 = 64 * 1024 * 1024;
/// The unit in which stat(2) counts blocks, whatever the file system's own is.
const STAT_BLOCK: u64 = 512;

/// A file that was taken in.
#[derive(Debug, Clone)]
pub struct Ingested {
    /// Its digests and size.
    pub digests: FileDigests,
    /// Its chunk map, which is kept as a blob too.
    pub map: ChunkMap,
    /// The digest of the encoded map.
    pub map_digest: Digest,
    /// What it is, by name and content.
    pub inspection: Inspection,
}

impl Store {
    /// Takes in the file at `path`: one pass copies it (sharing its extents where the file system can), hashes it and
    /// cuts it into chunks. Durable on return; the file itself stays as it is. `progress` is told the bytes done.
    ///
    /// The copy is what was hashed, whatever happens to the file meanwhile; one that changes its length is refused.
    pub fn ingest(&self, path: &Path, progress: &mut dyn FnMut(u64)) -> Result<Ingested> {
        let meta = std::fs::metadata(path).map_err(io("could not look at", path))?;
        // Before it is opened: opening a pipe would wait for its writer.
        if !meta.is_file() {
            return Err(StoreError::NotAFile { path: path.to_owned() });
        }
        let source = File::open(path).map_err(io("could not open", path))?;
        let size = source.metadata().map_err(io("could not look at", path))?.len();
        let copy = self.temporary("ingest-")?;
        let cloned = size > 0 && rustix::fs::ioctl_ficlone(copy.as_file(), &source).is_ok();
        if !cloned {
            set_aside(copy.as_file(), size).map_err(io("could not make room for", path))?;
        }
        let reader = if cloned { copy.reopen().map_err(io("could not read", path))? } else { source };
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let format = |source| StoreError::Format { path: path.to_owned(), source };
        let inspection = inspect(&name, &reader, size).map_err(format)?;
        std::io::Seek::rewind(&mut &reader).map_err(io("could not read", path))?;

        let built = copy_and_build(&reader, size, &inspection, (!cloned).then_some(&copy), progress)
            .map_err(error::chunks(path))?;
        let Built { digests, map } = built;
        let map_digest = self.put_bytes(&map.encode())?;
        self.install(copy.into_temp_path(), &digests.blake3, size, Some((&map, map_digest)))?;
        Ok(Ingested { digests, map, map_digest, inspection })
    }
}

impl Store {
    /// A temporary file with room for `size` bytes, for a blob that is verified on its way in.
    pub(crate) fn stage(&self, size: u64) -> Result<NamedTempFile> {
        let file = self.temporary("stage-")?;
        set_aside(file.as_file(), size).map_err(io("could not make room for", file.path()))?;
        Ok(file)
    }
}

fn copy_and_build(
    reader: &File,
    size: u64,
    inspection: &Inspection,
    copy: Option<&NamedTempFile>,
    progress: &mut dyn FnMut(u64),
) -> Result<Built, crate::chunk::ChunkError> {
    let (mut done, mut unsynced) = (0, 0);
    build(reader, size, inspection.layout.as_ref(), |block| {
        done += block.len() as u64;
        if let Some(copy) = copy {
            copy.as_file().write_all(block)?;
            unsynced += block.len() as u64;
            if unsynced >= SYNC_EVERY {
                copy.as_file().sync_data()?;
                unsynced = 0;
            }
        }
        progress(done);
        Ok(())
    })
}

/// Gives `file` its full length at once, so that a full disk shows before any byte is fetched or copied. A file system
/// that can't do that gives it the length alone.
///
/// What can't fit is refused before it is tried: ext4 takes all free blocks before it finds that they are too few, and
/// whoever writes anything meanwhile is told that the disk is full.
pub(super) fn set_aside(file: &File, size: u64) -> std::io::Result<()> {
    use rustix::io::Errno;
    if size == 0 {
        return Ok(());
    }
    let here = file.metadata()?.blocks().saturating_mul(STAT_BLOCK);
    let disk = rustix::fs::fstatvfs(file)?;
    if size.saturating_sub(here) > disk.f_bavail.saturating_mul(disk.f_frsize) {
        return Err(Errno::NOSPC.into());
    }
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, size) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.set_len(size),
        Err(error) => Err(error.into()),
    }
}
