//! Why a bundle is refused, and what the person can do.

use std::path::PathBuf;

use super::{OLDEST, VERSION};
use crate::admit::{AdmitError, reasons};
use crate::chunk::ChunkError;
use crate::digest::Digest;
use crate::envelope::EnvelopeError;
use crate::policy::Decision;
use crate::reference::Nation;
use crate::releasable::Withheld;
use crate::store::StoreError;
use crate::trust::TrustError;

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
    #[error("the bundle has version {found}, this program reads {OLDEST} to {VERSION}; upgrade steelyard")]
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
    /// It was made for another nation.
    #[error(
        "the bundle was made for `{to}`, this node belongs to `{own}`; nothing was kept; ask its maker for one made for `{own}`"
    )]
    ForAnother {
        /// The nation in its header.
        to: Nation,
        /// Ours.
        own: Nation,
    },
    /// The nation that it would be made for may not have it.
    #[error("the release may not be given to `{nation}`: {why}")]
    Withheld {
        /// The nation.
        nation: Nation,
        /// Why.
        why: Withheld,
    },
    /// It is too old for whoever imports it.
    #[error(
        "the bundle is stale: {why}; nothing was kept but the recalls in it; ask its maker for a newer one, or allow more with --max-age"
    )]
    Stale {
        /// How old it is.
        why: String,
    },
    /// A proof in it proves nothing.
    #[error(
        "the log proof of {statement} in the bundle is refused: {why}; nothing was kept but the recalls in it; ask its maker for another"
    )]
    Proof {
        /// The statement.
        statement: Digest,
        /// Why.
        why: String,
    },
    /// The list of what the other side has can't be read.
    #[error("{path} is no list that `steelyard have` wrote: {why}")]
    NotAList {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// No file of the release was meant.
    #[error("no file of the release matches `{0}`; `steelyard show` lists them")]
    NoSuchFile(String),
    /// The policy refuses.
    #[error(
        "the release {release} in the bundle is refused, nothing was kept but the recalls in it: {}",
        reasons(.decision)
    )]
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

impl BundleError {
    /// The code of the defect, as specification 10 names it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::Exists { .. } => "exists",
            Self::NotABundle { .. } => "not-a-bundle",
            Self::Newer { .. } => "version",
            Self::Entry { .. } => "entry",
            Self::Lacks { .. } => "lacks",
            Self::NotPinned { .. } => "not-pinned",
            Self::ForAnother { .. } => "for-another",
            Self::Withheld { .. } => "withheld",
            Self::Stale { .. } => "stale",
            Self::Proof { .. } => "proof",
            Self::NotAList { .. } => "not-a-list",
            Self::NoSuchFile(_) => "no-such-file",
            Self::Refused { .. } => "refused",
            Self::Damaged { .. } => "damaged",
            Self::Map { .. } => "map",
            Self::Envelope(_) => "envelope",
            Self::Trust(_) => "trust",
            Self::Admit(_) => "admit",
            Self::Store(_) => "store",
        }
    }
}
