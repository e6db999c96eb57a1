//! A worker as others watch it: how far it is, what it serves, and how it ended.

use std::net::SocketAddr;

use registry::serving::WallReport;
use registry::{Digest, Model, Timestamp, Version};
use serde::{Deserialize, Serialize};

use super::TransferInfo;

/// How far a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// The process starts.
    Starting,
    /// Its release is still coming; each chunk is checked as it lands.
    Fetching,
    /// It hashes the weights.
    Verifying,
    /// The engine loads them.
    Loading,
    /// It serves.
    Ready,
    /// Its lease ended; it is started again when enough allies are heard.
    Suspended,
    /// Its process died; it is started again after a pause.
    Restarting,
    /// Another worker serves at its address; it ends the requests that are under way.
    Draining,
    /// It was told to stop.
    Stopping,
    /// It stopped.
    Stopped,
    /// It could not start, or died.
    Failed,
}

impl WorkerState {
    /// Whether it serves, or never will: what whoever starts one waits for.
    pub fn is_settled(self) -> bool {
        self == Self::Ready || self.is_over()
    }

    /// Whether the process is gone.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed)
    }
}

/// Why a worker stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCause {
    /// The release was recalled.
    Recalled,
    /// The release is no longer admitted for another reason: its nation was removed, or its bytes were damaged.
    Withdrawn,
    /// Somebody asked for it, or the node shut down.
    Requested,
    /// Its lease ended: too few allies were heard for too long.
    LeaseEnded,
    /// Its weights changed while it served them, or somebody opened them for writing.
    Damaged,
}

/// How and when a worker stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStop {
    /// Why.
    pub cause: StopCause,
    /// Why, for people.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// Milliseconds between this node knowing the reason and the process being gone.
    pub took_ms: u64,
    /// Whether it had to be killed.
    pub killed: bool,
    /// Requests that were cut off, if the worker could say.
    pub active_requests: Option<u32>,
}

/// A worker process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Names it within this run of the node.
    pub id: u64,
    /// What was asked for.
    pub reference: String,
    /// The release that it serves.
    pub release: Digest,
    /// The model.
    pub model: Model,
    /// The version.
    pub version: Version,
    /// How far it is.
    pub state: WorkerState,
    /// Bytes hashed so far, while verifying.
    pub bytes_done: u64,
    /// Bytes to hash.
    pub bytes_total: u64,
    /// Where it serves `/v1/…`, once ready.
    pub address: Option<SocketAddr>,
    /// The name that `/v1/models` shows, once ready.
    pub served_as: Option<String>,
    /// The engine, such as `llama.cpp`.
    pub engine: Option<String>,
    /// Its process identifier.
    pub pid: Option<u32>,
    /// Milliseconds that loading took, hashing excluded.
    pub load_ms: Option<u64>,
    /// Milliseconds that hashing took.
    pub verify_ms: Option<u64>,
    /// When it was started.
    pub started: Timestamp,
    /// When its lease ends, unless it is renewed; nothing where it needs none.
    #[serde(default)]
    pub lease_ends: Option<Timestamp>,
    /// The kernel that it is sealed by, once it is.
    #[serde(default)]
    pub kernel: Option<String>,
    /// Its walls, once they are built; those that the operator does without do not stand.
    #[serde(default)]
    pub walls: Vec<WallReport>,
    /// How often its process died and was started again.
    #[serde(default)]
    pub restarts: u32,
    /// How far the transfer of its release is, while that goes on.
    #[serde(default)]
    pub transfer: Option<TransferInfo>,
    /// Requests that it answers or that wait, as it said last.
    #[serde(default)]
    pub requests: u32,
    /// Bytes of memory that its process has, weights that it maps included.
    #[serde(default)]
    pub memory: Option<u64>,
    /// Bytes of memory that it needs at most, reckoned from the model's headers; nothing before they were read.
    #[serde(default)]
    pub needs: Option<u64>,
    /// The pool that it belongs to.
    #[serde(default)]
    pub pool: Option<u64>,
    /// The worker whose place it takes, or took.
    #[serde(default)]
    pub replaces: Option<u64>,
    /// The worker that took its place.
    #[serde(default)]
    pub replaced_by: Option<u64>,
    /// The release that was served at its address before.
    #[serde(default)]
    pub previous: Option<Digest>,
    /// The channel that it follows.
    #[serde(default)]
    pub follows: Option<String>,
    /// How it stopped.
    pub stop: Option<WorkerStop>,
    /// Why it failed, or died last, for people.
    pub error: Option<String>,
    /// Adapters that requests may choose instead of the model itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<AdapterInfo>,
}

/// An adapter that goes with a worker's model: a release of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterInfo {
    /// The release.
    pub release: Digest,
    /// The model, as requests name it.
    pub model: Model,
    /// The version.
    pub version: Version,
    /// Why it is not served any more, if so; the model and the other adapters are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<String>,
}
