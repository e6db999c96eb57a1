//! A pool and its members, as people and programs see them.

use std::net::SocketAddr;

use registry::{Digest, Model, Timestamp, Version};
use serde::{Deserialize, Serialize};

use super::plan::State;

/// How far a member of a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// It is loaded when somebody asks for it.
    Unloaded,
    /// A worker is started for it.
    Loading,
    /// It answers.
    Ready,
    /// Its worker ends.
    Unloading,
}

impl From<State> for MemberState {
    fn from(state: State) -> Self {
        match state {
            State::Out => Self::Unloaded,
            State::Loading => Self::Loading,
            State::Ready => Self::Ready,
            State::Stopping => Self::Unloading,
        }
    }
}

impl MemberState {
    /// As people and programs read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unloaded => "unloaded",
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Unloading => "unloading",
        }
    }
}

/// A model of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolMember {
    /// What was asked for.
    pub reference: String,
    /// The model.
    pub model: Model,
    /// The release that is loaded, or was when it was looked last.
    pub release: Digest,
    /// Its version.
    pub version: Version,
    /// How far it is.
    pub state: MemberState,
    /// Bytes of memory that it needs, once a worker said so.
    pub needs: Option<u64>,
    /// Bytes of its weights' files, which it is taken to need before.
    pub weights: u64,
    /// Bytes that it has of the pool's budget.
    pub memory: u64,
    /// Its worker, while there is one.
    pub worker: Option<u64>,
    /// Requests under way.
    pub requests: u32,
    /// Requests that wait for it.
    pub waiting: u32,
    /// How often it was loaded.
    pub loads: u64,
    /// How often it was unloaded.
    pub unloads: u64,
    /// Why it was not loaded last, for people.
    pub error: Option<String>,
}

/// Several models behind one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolInfo {
    /// Names it within this run of the node.
    pub id: u64,
    /// Where it answers.
    pub address: SocketAddr,
    /// Bytes of memory that its models may need together.
    pub budget: u64,
    /// Bytes of it that they have.
    pub used: u64,
    /// Seconds after which a model that nobody asks for is unloaded; nothing for never.
    pub idle_secs: Option<u64>,
    /// Whether its models follow their channels.
    pub follow: bool,
    /// Requests that wait.
    pub waiting: u32,
    /// Since when.
    pub started: Timestamp,
    /// Its models, in the order in which they were named.
    pub members: Vec<PoolMember>,
}
