//! What is staged and waits for a signature.

use registry::{Digest, Model, Version};
use serde::{Deserialize, Serialize};

pub use crate::staging::{Review, ReviewFile, Staged};

/// `POST /v1/staged/review`: a branch, and the channel with whose release it is compared.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewRequest {
    /// The model.
    pub model: Model,
    /// The branch.
    pub branch: String,
    /// The channel; where it points nowhere, the newest release counts.
    pub channel: String,
}

/// What publishing a branch would change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reviewed {
    /// The changes.
    #[serde(flatten)]
    pub review: Review,
    /// The release with which it was compared; nothing where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<Digest>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
}

/// `POST /v1/staged/checkout` and `POST /v1/staged/clear`: a branch, while it is at a commit.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StagedCommit {
    /// The model.
    pub model: Model,
    /// The branch.
    pub branch: String,
    /// The commit that a person looked at.
    pub commit: String,
}

/// Where a commit's files lie.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StagedFolder {
    /// The folder.
    pub folder: String,
}
