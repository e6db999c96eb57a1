//! The staging area: what a nation's people and machines pushed and nobody signed yet.
//!
//! ```text
//! HOME/staging/              mode 0700
//!   objects/ab/…             content, named by its SHA-256 and compared with it, mode 0444
//!   multipart/SHA256-SIZE/   uploads in parts: the bytes, and a note for each part that is there
//!   xorbs/ab/…               what the Xet client uploads: chunks, each checked
//!   repos/NAME/repo.json     the branches and tags of one model
//!   repos/NAME/commits/…     the files of one commit, and who made it; never changed
//!   incoming/, checkouts/    on their way; emptied when the area is opened
//! ```
//!
//! **Nothing half.** Content is written, compared, synced and renamed before anybody is told that it is here. A commit is a
//! file of its own, then one rename of `repo.json` moves its branch. What a crash leaves behind is content that no commit
//! names, which goes by age.
//!
//! **Not signed.** Nothing here is a release, and no ally is told of it. `steelyard publish --staged` shows a person what a
//! branch holds and signs it with their key, which the node never sees.
//!
//! All calls block.

mod check;
mod commit;
mod error;
mod line;
mod multipart;
mod objects;
mod refs;
mod repo;
mod review;
mod secrets;
mod space;
mod sweep;
mod xet;

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use registry::{Model, Nation, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::check::refuse_early;
pub(crate) use self::commit::{Push, Pushed, Releases, Start};
pub(crate) use self::error::{Result, StagingError, writing};
pub(crate) use self::line::MAX_COMMIT_BYTES;
pub(crate) use self::multipart::Parts;
pub(crate) use self::objects::each_block;
pub(crate) use self::refs::Author;
pub(crate) use self::repo::{Commit, MAIN, StagedFile};
pub use self::review::{Review, ReviewFile, Staged};
pub(crate) use self::xet::{MAX_SHARD, MAX_XORB};

use self::error::io;
use self::space::Space;

/// Largest `repo.json`: its branches with their histories and its tags take less than a MiB.
const MAX_REPO_FILE: u64 = 4 * 1024 * 1024;
/// Largest file of a commit: 16384 files with paths of 512 bytes and their hashes.
const MAX_COMMIT_FILE: u64 = 32 * 1024 * 1024;

/// How much may lie here, and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of the whole area.
    pub(crate) bytes: u64,
    /// Seconds after which what was pushed and not published goes.
    pub(crate) age: i64,
}

/// The staging area of a node.
#[derive(Debug)]
pub(crate) struct Area {
    home: PathBuf,
    /// Whose models these are.
    nation: Nation,
    limits: Limits,
    space: Arc<Space>,
    /// Whether the folders are there and were looked through; made when something is first written.
    opened: OnceLock<()>,
    /// Held while a branch or a tag moves, and while something is thrown away.
    changing: Mutex<()>,
    /// Uploads that somebody writes to now, by name.
    busy: Mutex<HashSet<String>>,
}

impl Area {
    /// The area in `home`, which is made when something is first pushed.
    pub(crate) fn new(home: PathBuf, nation: Nation, limits: Limits) -> Self {
        let space = Arc::new(Space::new(home.clone(), limits.bytes));
        let (opened, changing, busy) = (OnceLock::new(), Mutex::default(), Mutex::default());
        Self { home, nation, limits, space, opened, changing, busy }
    }

    /// The model of this name.
    fn model(&self, name: registry::reference::Name) -> Model {
        Model { nation: self.nation.clone(), name }
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything was ever pushed here.
    pub(crate) fn exists(&self) -> bool {
        self.opened.get().is_some() || self.home.is_dir()
    }

    /// Makes the folders, throws away what was on its way, and counts what is here.
    fn open(&self) -> Result<()> {
        if self.opened.get().is_some() {
            return Ok(());
        }
        let _guard = self.changing();
        if self.opened.get().is_some() {
            return Ok(());
        }
        for gone in ["incoming", "checkouts"] {
            let path = self.home.join(gone);
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io("could not empty", &path)(error));
                }
                _ => {}
            }
        }
        for folder in ["", "objects", "multipart", "xorbs", "repos", "incoming", "checkouts"] {
            make_folder(&self.home.join(folder))?;
        }
        sync_folder(&self.home)?;
        if let Some(parent) = self.home.parent() {
            sync_folder(parent)?;
        }
        self.space.count(&["objects", "multipart", "xorbs"].map(|name| self.home.join(name)))?;
        let _ = self.opened.set(());
        Ok(())
    }

    /// Makes the area ready and throws away what is too old. For whoever keeps the node going.
    pub(crate) fn keep_house(&self, now: Timestamp) -> Result<u64> {
        if !self.exists() {
            return Ok(0);
        }
        self.open()?;
        self.sweep(now)
    }

    /// Takes `name` for one who writes; nothing when somebody has it.
    fn take(&self, name: String) -> Option<Taken<'_>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.insert(name.clone()).then_some(Taken { area: self, name })
    }
}

/// An upload that one writes to.
struct Taken<'a> {
    area: &'a Area,
    name: String,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.area.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

fn make_folder(path: &Path) -> Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(io("could not make", path)(error))
        }
        _ => Ok(()),
    }
}

fn sync_folder(path: &Path) -> Result<()> {
    fs::File::open(path).and_then(|folder| folder.sync_all()).map_err(io("could not sync", path))
}

/// Writes `value` to `path`, as [`write_whole`] does.
fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|error| io("could not write", path)(error.into()))?;
    write_whole(path, &text)
}

/// Writes `text` to `path`: whole or not at all, durable on return.
fn write_whole(path: &Path, text: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut new = tempfile::NamedTempFile::new_in(folder).map_err(io("could not write", path))?;
    new.write_all(text).and_then(|()| new.as_file().sync_all()).map_err(io("could not write", path))?;
    new.persist(path).map_err(|error| io("could not write", path)(error.error))?;
    sync_folder(folder)
}

/// Reads what [`write_json`] wrote, if it is there.
fn read_json<T: DeserializeOwned>(path: &Path, limit: u64) -> Result<Option<T>> {
    use std::io::Read;
    let mut text = Vec::new();
    match fs::File::open(path) {
        Ok(file) => file.take(limit).read_to_end(&mut text).map_err(io("could not read", path))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("could not read", path)(error)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| io("could not read", path)(error.into()))
}

#[cfg(test)]
mod tests;
