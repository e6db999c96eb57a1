//! Why something can't be staged.

use std::io;
use std::path::{Path, PathBuf};

use registry::store::StoreError;

pub(crate) type Result<T, E = StagingError> = std::result::Result<T, E>;

/// Why something can't be staged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StagingError {
    /// There is no such model, staged or released.
    #[error("{0}")]
    NoRepo(String),
    /// There is no such branch, tag or commit.
    #[error("{0}")]
    NoRevision(String),
    /// There is no such file in the commit. The clients know these words.
    #[error("A file with this name doesn't exist: `{0}`")]
    NoFile(String),
    /// It is there already.
    #[error("{0}")]
    Exists(String),
    /// Somebody else was faster.
    #[error("the branch is at {now} and not at {parent} any more; look at what changed, then push again")]
    Stale {
        /// On which the push was made.
        parent: String,
        /// Where the branch is.
        now: String,
    },
    /// The request is not understood, or asks for what can't be.
    #[error("{0}")]
    Wrong(String),
    /// Content that has no place in a release.
    #[error("{0}")]
    Refused(String),
    /// More than one push or one area takes.
    #[error("{0}")]
    TooLarge(String),
    /// No room.
    #[error("{0}")]
    Full(String),
    /// Somebody writes to it now.
    #[error("somebody else is uploading this now; try again in a moment")]
    Busy,
    /// This token may not.
    #[error("{0}")]
    Forbidden(String),
    /// The upload ended before it was whole.
    #[error("the upload was cut off")]
    Cut,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What failed while a request's body was written.
pub(crate) fn writing(source: io::Error) -> StagingError {
    io("could not write", Path::new("a request's body"))(source)
}

/// A full disk is told apart from a broken one.
pub(super) fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StagingError + 'a {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StagingError::Full(
            "the node's disk is full; its operator makes room with `steelyard gc` or a larger disk"
                .to_owned(),
        ),
        _ => StagingError::Io { what, path: path.to_owned(), source },
    }
}
