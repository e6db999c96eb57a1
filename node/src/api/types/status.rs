//! How the node is.

use registry::trust::Ending;
use registry::{Digest, Nation, Timestamp};
use serde::{Deserialize, Serialize};

use crate::reach::Reach;

/// `GET /healthz`, `GET /readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`, or what is missing.
    pub status: String,
    /// What an operator should look at although the node answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// This node's nation.
    pub nation: Nation,
    /// The nation's fingerprint.
    pub fingerprint: Digest,
    /// From when on the nation's root is no longer valid.
    pub root_expires: Timestamp,
    /// The version of the nation's root.
    #[serde(default)]
    pub root_version: u64,
    /// Every pinned nation whose root ends within 90 days, the nearest first.
    #[serde(default)]
    pub endings: Vec<RootEnding>,
    /// This node's libp2p identifier.
    pub peer_id: String,
    /// Whether a node runs, or a command works on the folder by itself.
    pub running: bool,
    /// When it started.
    pub started: Timestamp,
    /// Where it listens for peers.
    pub addresses: Vec<String>,
    /// How it is reached from outside.
    #[serde(default)]
    pub reach: Reach,
    /// Where its read-only HTTP interface listens.
    pub http: Option<String>,
    /// Connected peers.
    pub peers: usize,
    /// Pinned nations, its own included.
    pub nations: usize,
    /// Transfers that are not over.
    pub transfers: usize,
    /// Workers that are not over.
    pub workers: usize,
    /// Statements stored.
    pub statements: u64,
    /// What the store holds.
    pub usage: Usage,
    /// The lease on which it serves.
    #[serde(default)]
    pub lease: crate::lease::Status,
}

/// A root that ends soon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootEnding {
    /// The nation.
    pub nation: Nation,
    /// When.
    pub expires: Timestamp,
    /// How near that is.
    pub ending: Ending,
}

/// What the store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Whole blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of blobs that are not whole yet.
    pub partial_bytes: u64,
    /// Bytes free on the disk.
    pub disk_free: u64,
}
