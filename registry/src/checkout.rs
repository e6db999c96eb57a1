//! Writing a release's files out as a folder, for other tools.

use std::fs::{self, File};
use std::io::{self as stdio, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::admit::{self, AdmitError};
use crate::digest::Digest;
use crate::oms;
use crate::store::{Store, StoreError, sync_folder};

/// Bytes copied at a time: large enough for BLAKE3's widest SIMD path.
const BLOCK: usize = 256 * 1024;

/// Why a folder could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// Something is there already.
    #[error("{path} exists; name a folder that does not, or remove it first")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A blob's bytes are not what its name says.
    #[error(
        "`{path}` is damaged here: its bytes are not {blob}; `steelyard verify --repair` fetches it again"
    )]
    Damaged {
        /// The file.
        path: String,
        /// Its blob.
        blob: Digest,
    },
    /// The release is not known, or not here as a whole.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system refused.
    #[error("could not write {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: stdio::Error,
    },
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// How many files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files of the release that are not in the folder: records about the release.
    pub left_out: Vec<String>,
}

/// Writes the files of a release to the folder `out`, which must not exist. Each is hashed on its way; the folder appears
/// under its name only when it is whole and durable. Records of an import stay out: they are about the release, and the
/// signature that came with it does not cover them.
pub fn checkout(store: &Store, release: &Digest, out: &Path) -> Result<Written, CheckoutError> {
    let _lease = store.lease([*release]);
    let known = store.release(release)?.ok_or(AdmitError::NotFound(*release))?;
    admit::complete(store, *release, &known)?;
    if out.symlink_metadata().is_ok() {
        return Err(CheckoutError::Exists { path: out.to_owned() });
    }
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fail = io(out);
    // Removed with everything in it unless it is renamed.
    let staged = tempfile::Builder::new().prefix(".steelyard-checkout-").tempdir_in(parent).map_err(&fail)?;
    let mut written = Written { files: 0, bytes: 0, left_out: Vec::new() };
    for file in &known.files {
        if !oms::in_folder(file) {
            written.left_out.push(file.path.clone());
            continue;
        }
        // The path followed the rules when the release was verified: relative, and without a way out.
        let target = staged.path().join(&file.path);
        let folder = target.parent().unwrap_or(staged.path());
        fs::create_dir_all(folder).map_err(io(folder))?;
        let damaged = || CheckoutError::Damaged { path: file.path.clone(), blob: file.blake3 };
        let source = match store.open_blob(&file.blake3) {
            Err(StoreError::WrongContent { .. }) => return Err(damaged()),
            other => other?,
        };
        if copy(&source, &target).map_err(io(&target))? != file.blake3 {
            return Err(damaged());
        }
        sync_folder(folder)?;
        written.files += 1;
        written.bytes += file.size;
    }
    sync_folder(staged.path())?;
    fs::rename(staged.path(), out).map_err(&fail)?;
    // It is no longer there to be removed.
    let _ = staged.keep();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(out, mode).map_err(&fail)?;
    sync_folder(parent)?;
    Ok(written)
}

/// Copies a file, sharing its extents where the file system can, and hashes what was written.
fn copy(mut source: &File, target: &Path) -> stdio::Result<Digest> {
    let mut file = File::options().read(true).write(true).create_new(true).open(target)?;
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; BLOCK];
    let cloned = rustix::fs::ioctl_ficlone(&file, source).is_ok();
    loop {
        let n = if cloned { file.read(&mut block)? } else { source.read(&mut block)? };
        let Some(bytes) = block.get(..n).filter(|bytes| !bytes.is_empty()) else { break };
        hasher.update(bytes);
        if !cloned {
            file.write_all(bytes)?;
        }
    }
    file.sync_all()?;
    Ok(Digest::from_bytes(*hasher.finalize().as_bytes()))
}

fn io(path: &Path) -> impl Fn(stdio::Error) -> CheckoutError {
    let path = path.to_owned();
    move |source| CheckoutError::Io { path: path.clone(), source }
}
