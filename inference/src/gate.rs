//! Lets through the blobs of an admitted release, and nothing else.
//!
//! That the bytes were right when they were pulled says nothing about now, so each file is hashed here, at load, by several
//! threads, through one descriptor; the engine is given that descriptor (`/proc/self/fd/N`), so what was checked is what it
//! maps. Where the content is another, the release's chunk map says where.
//!
//! What happens to the bytes after that:
//!
//! - A worker holds a read lease on each file ([`writers`]): whoever opens it for writing or shortens it is made to wait by
//!   the kernel, and the worker stops before it goes on. So a process of the same user can't change them in place.
//! - What changes below the file system, on a failing disk, is found by hashing again from time to time ([`rehash`]).
//!
//! A file that is still coming is checked chunk by chunk and copied ([`growing`]).

mod error;
pub mod growing;
mod hash;
pub mod rehash;
pub mod writers;

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;

use registry::admitted::AdmittedFile;
use registry::chunk::{ChunkMap, MAX_ENCODED};
use registry::digest::Digest;
use registry::mapped::Mapped;
use registry::serving::hand;

pub use error::{GateError, Place};

use crate::halt::Halt;

/// A file of the release that was opened and not looked at yet.
#[derive(Debug)]
pub struct Opened {
    file: File,
    map: Option<File>,
    path: String,
    blob: Digest,
    size: u64,
    chunk_map: Digest,
}

impl Opened {
    /// What the node handed in for `admitted`: its blob, and the encoded chunk map if it has it.
    pub fn handed(admitted: &AdmittedFile, file: File, map: Option<File>) -> Self {
        Self {
            file,
            map,
            path: admitted.path.clone(),
            blob: admitted.blob,
            size: admitted.size,
            chunk_map: admitted.chunk_map,
        }
    }

    /// Opens the blob where it lies: for whoever is not sealed.
    pub fn by_location(admitted: &AdmittedFile) -> Result<Self, GateError> {
        let file = hand::open(&admitted.location).map_err(|error| GateError::NotHanded {
            path: admitted.path.clone(),
            blob: admitted.blob,
            reason: format!("{}: {error}", admitted.location.display()),
        })?;
        Ok(Self::handed(admitted, file, None))
    }

    /// The chunk map, if its bytes are those that the release names.
    fn chunk_map(&self) -> Option<ChunkMap> {
        let file = self.map.as_ref()?;
        let mut bytes = Vec::new();
        let mut at = 0;
        // From its beginning, wherever the shared position is.
        while at <= MAX_ENCODED as u64 {
            let mut block = [0; 64 * 1024];
            let read = std::os::unix::fs::FileExt::read_at(file, &mut block, at).ok()?;
            if read == 0 {
                break;
            }
            bytes.extend_from_slice(&block[..read]);
            at += read as u64;
        }
        let map = ChunkMap::decode(&bytes).ok()?;
        let right =
            Digest::of(&bytes) == self.chunk_map && map.blob() == self.blob && map.size() == self.size;
        right.then_some(map)
    }

    fn unreadable(&self, source: io::Error) -> GateError {
        GateError::Unreadable { path: self.path.clone(), blob: self.blob, source }
    }

    /// The same descriptors once more.
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            map: self.map.as_ref().map(File::try_clone).transpose()?,
            path: self.path.clone(),
            ..*self
        })
    }
}

impl AsFd for Opened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A blob that was hashed through the descriptor held here, and matched. Read-only.
#[derive(Debug)]
pub struct VerifiedFile(Opened);

impl VerifiedFile {
    /// A path by which this process opens the very file that was hashed, whatever its name on disk leads to
    /// by now. It is good for as long as this value lives.
    pub fn engine_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.file.as_raw_fd()))
    }

    /// Reads the very file that was hashed. All readers share one position.
    pub fn reader(&self) -> impl Read + Seek {
        &self.0.file
    }

    /// The very file that was hashed.
    pub fn file(&self) -> &File {
        &self.0.file
    }

    /// Maps the very file that was hashed.
    pub fn map(&self) -> io::Result<Mapped> {
        Mapped::new(&self.0.file)
    }

    /// Path in the release.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// The blob.
    pub fn blob(&self) -> Digest {
        self.0.blob
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.0.size
    }
}

/// Hashes what was handed in, on as many threads as there are processors. `progress` is told the bytes hashed so far of all
/// files together, from any thread.
pub fn verify_all(
    opened: Vec<Opened>,
    progress: &(dyn Fn(u64) + Sync),
    halt: &Halt,
) -> Result<Vec<VerifiedFile>, GateError> {
    hash::check(&opened, progress, halt)?;
    Ok(opened.into_iter().map(VerifiedFile).collect())
}

/// Opens `files` where they lie and hashes them: for whoever is not sealed.
pub fn open_all(
    files: &[&AdmittedFile],
    progress: &(dyn Fn(u64) + Sync),
    halt: &Halt,
) -> Result<Vec<VerifiedFile>, GateError> {
    let opened: Result<Vec<_>, _> = files.iter().map(|file| Opened::by_location(file)).collect();
    verify_all(opened?, progress, halt)
}

/// Opens and hashes one file where it lies. `progress` is told the bytes hashed so far.
pub fn open(
    file: &AdmittedFile,
    progress: &(dyn Fn(u64) + Sync),
    halt: &Halt,
) -> Result<VerifiedFile, GateError> {
    let opened = Opened::by_location(file)?;
    hash::check(std::slice::from_ref(&opened), progress, halt)?;
    Ok(VerifiedFile(opened))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
