//! One release with its evidence as one file, for where no network reaches.
//!
//! A bundle is a POSIX tar archive of plain files in this order, each name at most once:
//!
//! ```text
//! steelyard-bundle.json        {"format":"steelyard-bundle","version":1,"release":"b3:…","releasableTo":"…"}
//! statements/HEX.json          the release, its nation's root, its channels and recalls: JSON arrays of DSSE envelopes
//! maps/HEX                     the chunk maps
//! blobs/HEX                    the files
//! ```
//!
//! HEX is the BLAKE3 digest of the content (of the payload for statements). Nothing in a bundle is believed: statements
//! are verified against the nations pinned here, the policy is asked before any blob is read, every map and blob is
//! hashed, and only when all of it is right is anything kept. No name in a bundle becomes a path.

mod export;
mod import;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::admit::{AdmitError, reasons};
use crate::chunk::ChunkError;
use crate::digest::Digest;
use crate::envelope::EnvelopeError;
use crate::policy::Decision;
use crate::reference::Nation;
use crate::store::StoreError;
use crate::trust::TrustError;

pub use export::{ExportReport, export};
pub use import::{ImportReport, import};

/// The name of a bundle's first entry.
pub const HEADER: &str = "steelyard-bundle.json";
/// The format's name in the header.
pub const FORMAT: &str = "steelyard-bundle";
/// The version of the format that this program writes and reads.
pub const VERSION: u32 = 1;
/// Longest header, in bytes; it is one short object.
pub const MAX_HEADER: u64 = 64 * 1024;
/// Most statements in a bundle: a release, a root, and what channels and recalls there are of one release.
pub const MAX_STATEMENTS: usize = 1024;
/// Most bytes of all statements together: they are held in memory until all is verified.
pub const MAX_STATEMENT_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    format: String,
    version: u32,
    release: Digest,
    /// For people who find the file; the signed release is what counts.
    #[serde(default)]
    releasable_to: String,
}

/// Why a bundle could not be written or was refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file can't be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is a file already.
    #[error("{path} exists already; name another file, or remove it first")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Not a bundle.
    #[error("{path} is not a bundle: {why}")]
    NotABundle {
        /// The file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// A newer format.
    #[error("the bundle has version {found}, this program reads {VERSION}; upgrade steelyard")]
    Newer {
        /// The version found.
        found: u32,
    },
    /// An entry that a bundle does not have.
    #[error("entry `{name}` of the bundle is refused: {why}; nothing was kept; ask its maker for another")]
    Entry {
        /// The name, shortened.
        name: String,
        /// The rule that it breaks.
        why: String,
    },
    /// Something that the release needs is in neither the bundle nor the store.
    #[error(
        "the bundle lacks {what}, and it is not here either; nothing was kept; ask its maker for a whole one"
    )]
    Lacks {
        /// What.
        what: String,
    },
    /// Its nation is not pinned.
    #[error(
        "the bundle's release is by `{nation}`, which is not pinned here; nothing was kept; the root in the bundle has the fingerprint {fingerprint}: compare it with that nation's people, run `steelyard trust add`, then import again"
    )]
    NotPinned {
        /// The nation.
        nation: Nation,
        /// What its people must confirm.
        fingerprint: Digest,
    },
    /// The policy refuses.
    #[error("the release {release} in the bundle is refused, nothing was kept: {}", reasons(.decision))]
    Refused {
        /// The release.
        release: Digest,
        /// Every rule's answer.
        decision: Decision,
    },
    /// A blob here is damaged, so that it was not exported.
    #[error(
        "the blob {blob} of `{path}` is damaged; run `steelyard verify`, pull the release again, then export"
    )]
    Damaged {
        /// Path in the release.
        path: String,
        /// The blob.
        blob: Digest,
    },
    /// A chunk map in the bundle is malformed.
    #[error("the chunk map {map} in the bundle is refused: {source}")]
    Map {
        /// The map.
        map: Digest,
        /// What is wrong.
        source: Box<ChunkError>,
    },
    /// A statement is malformed.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// A statement is not believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The release is not known, or not whole.
    #[error(transparent)]
    Admit(Box<AdmitError>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AdmitError> for BundleError {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::Store(error) => Self::Store(error),
            AdmitError::Trust(error) => Self::Trust(error),
            other => Self::Admit(Box::new(other)),
        }
    }
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> BundleError + '_ {
    |source| BundleError::Io { path: path.to_owned(), source }
}
