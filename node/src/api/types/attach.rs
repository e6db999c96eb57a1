//! Attachments of releases, and releases written out as folders.

use registry::attachment::{Kind, Summary};
use registry::{Digest, Model, Version};
use serde::{Deserialize, Serialize};

/// `POST /v1/attachments`; the answer is a release's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// What it is.
    pub kind: Kind,
    /// Its path in the release.
    pub path: String,
    /// Its content, which is JSON.
    pub content: String,
}

/// One attachment of `GET /v1/releases/{digest}/attachments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentEntry {
    /// Its path in the release.
    pub path: String,
    /// What it is.
    pub attachment: Kind,
    /// BLAKE3 of its content.
    pub blake3: Digest,
    /// Its bytes.
    pub size: u64,
    /// What it says, as far as it can be read.
    pub summary: Option<Summary>,
    /// Why it can't be read.
    pub problem: Option<String>,
}

/// `POST /v1/checkout`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckoutRequest {
    /// What to write.
    pub reference: String,
    /// The folder to write, as an absolute path; it must not exist.
    pub path: String,
}

/// The answer to `POST /v1/checkout`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedOut {
    /// The release.
    pub release: Digest,
    /// Its model.
    pub model: Model,
    /// Its version.
    pub version: Version,
    /// The folder.
    pub path: String,
    /// Files written.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files of the release that are not in the folder.
    pub left_out: Vec<String>,
    /// Which nations may have it: whoever carries the folder is bound by that.
    pub releasable_to: String,
}
