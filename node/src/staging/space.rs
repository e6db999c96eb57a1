//! How much lies in the area: what is promised to an upload counts before a byte of it came.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::{Result, StagingError, io};

/// Left free on the disk, whatever is pushed: the node's own index must be able to write.
const LEFT_FREE: u64 = 64 * 1024 * 1024;

#[derive(Debug, Default)]
struct Count {
    used: u64,
    promised: u64,
}

/// The area's bytes.
#[derive(Debug)]
pub(super) struct Space {
    home: PathBuf,
    limit: u64,
    count: Mutex<Count>,
}

impl Space {
    pub(super) fn new(home: PathBuf, limit: u64) -> Self {
        Self { home, limit, count: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what lies in `folders`.
    pub(super) fn count(&self, folders: &[PathBuf]) -> Result<()> {
        let mut used = 0;
        for folder in folders {
            files(folder, &mut |_, meta| used += meta.len())?;
        }
        self.lock().used = used;
        Ok(())
    }

    /// Bytes that are here.
    #[cfg(test)]
    pub(super) fn used(&self) -> u64 {
        self.lock().used
    }

    /// Promises `bytes`, if the area and the disk have them.
    pub(super) fn promise(self: &Arc<Self>, bytes: u64) -> Result<Room> {
        let mut count = self.lock();
        let taken = count.used.saturating_add(count.promised);
        if taken.saturating_add(bytes) > self.limit {
            return Err(StagingError::Full(format!(
                "the staging area holds {taken} of {} bytes, and {bytes} more don't fit; publish or throw away what is staged, or raise \
                 `hub.staging_gib`",
                self.limit
            )));
        }
        let disk = rustix::fs::statvfs(self.home.as_path())
            .map_err(|errno| io("could not look at the disk of", &self.home)(errno.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize).saturating_sub(LEFT_FREE);
        if count.promised.saturating_add(bytes) > free {
            return Err(StagingError::Full(format!(
                "the node's disk has no room for {bytes} bytes; its operator makes some with `steelyard gc` or a larger disk"
            )));
        }
        count.promised += bytes;
        drop(count);
        Ok(Room { space: Arc::clone(self), bytes })
    }

    /// `bytes` are gone.
    pub(super) fn gone(&self, bytes: u64) {
        let mut count = self.lock();
        count.used = count.used.saturating_sub(bytes);
    }
}

/// Room that was promised; given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    space: Arc<Space>,
    bytes: u64,
}

impl Room {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// So much of it was filled, and stays in the place of what had `replaced` bytes.
    pub(super) fn keep(self, filled: u64, replaced: u64) {
        let mut count = self.space.lock();
        count.used = count.used.saturating_add(filled).saturating_sub(replaced);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut count = self.space.lock();
        count.promised = count.promised.saturating_sub(self.bytes);
    }
}

/// Calls `each` with every file in `folder` and in its folders, two deep: as deep as the area goes.
pub(super) fn files(folder: &Path, each: &mut impl FnMut(&Path, &fs::Metadata)) -> Result<()> {
    let list = |path: &Path| -> Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io("could not list", path)(error)),
        };
        entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<_>>()
            .map_err(io("could not list", path))
    };
    for outer in list(folder)? {
        let Ok(meta) = fs::symlink_metadata(&outer) else { continue };
        if !meta.is_dir() {
            each(&outer, &meta);
            continue;
        }
        for inner in list(&outer)? {
            match fs::symlink_metadata(&inner) {
                Ok(meta) if meta.is_file() => each(&inner, &meta),
                _ => {}
            }
        }
    }
    Ok(())
}
