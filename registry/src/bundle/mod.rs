//! One release with its evidence as one file, for where no network reaches (specification 10).
//!
//! A bundle is a POSIX tar archive of plain files in this order, each name at most once:
//!
//! ```text
//! steelyard-bundle.json        {"format":"steelyard-bundle","version":2,"release":"b3:…","releasableTo":"…",
//!                               "for":"cora","by":"borea","made":"2026-…Z","part":false}
//! statements/HEX.json          roots, the release, channels, recalls, …: JSON arrays of DSSE envelopes
//! proofs/HEX                   that a statement stands in its nation's log, with the cosigned checkpoint (C2SP tlog-proof)
//! maps/HEX                     the chunk maps
//! blobs/HEX                    the files, or in a part some of them
//! ```
//!
//! HEX is the BLAKE3 digest of the content (of the payload for statements and proofs). Nothing in a bundle is believed: statements
//! are verified against the nations pinned here, the policy is asked before any blob is read, every map and blob is
//! hashed, and only when all of it is right is anything kept; a recall that is believed is kept in any case. No name in a
//! bundle becomes a path. Version 1 has neither `for`, `by`, `made` nor parts, and is read too.

mod error;
mod export;
mod have;
mod import;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::reference::Nation;
use crate::timestamp::Timestamp;

pub use error::BundleError;
pub use export::{ExportOptions, ExportReport, export, export_with};
pub use have::{MAX_HAVE, Matcher, read_have, write_have};
pub use import::{Checkpoint, ImportOptions, ImportReport, import, import_with};

/// The name of a bundle's first entry.
pub const HEADER: &str = "steelyard-bundle.json";
/// The format's name in the header.
pub const FORMAT: &str = "steelyard-bundle";
/// The version of the format that this program writes.
pub const VERSION: u32 = 2;
/// The oldest version that it reads.
pub const OLDEST: u32 = 1;
/// Longest header, in bytes; it is one short object.
pub const MAX_HEADER: u64 = 64 * 1024;
/// Most statements in a bundle: a release, roots, channels, and every recall that its producer may have made.
pub const MAX_STATEMENTS: usize = 32 * 1024;
/// Most bytes of all proofs together.
pub const MAX_PROOF_BYTES: u64 = 64 * 1024 * 1024;
/// Most bytes of all statements together: they are held in memory until all is verified.
pub const MAX_STATEMENT_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    format: String,
    version: u32,
    release: Digest,
    /// For people who find the file; the signed release is what counts.
    #[serde(default)]
    releasable_to: String,
    /// The nation that it was made for, from version 2 on.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    to: Option<Nation>,
    /// The nation whose node made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<Nation>,
    /// When it was made, by that node's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made: Option<Timestamp>,
    /// Whether blobs were left out on purpose.
    #[serde(default)]
    part: bool,
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> BundleError + '_ {
    |source| BundleError::Io { path: path.to_owned(), source }
}
