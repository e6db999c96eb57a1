//! What happens in a node, as others watch it: the live states of peers, transfers and workers, and the events between.
//!
//! All of it is for people and programs that look on. Nothing decides by it: a reader that is too slow loses events and
//! is told how many, and asks again for the state.

mod peer;
mod worker;

use registry::statement::{Kind, RecallTarget, Severity};
use registry::{ChannelName, Digest, Model, Nation, Timestamp, Version};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

pub use peer::{Direction, PeerInfo};
pub use worker::{AdapterInfo, StopCause, WorkerInfo, WorkerState, WorkerStop};

/// Events kept for the slowest reader: some seconds of a busy node. A slower one is told what it missed.
pub const QUEUE: usize = 1024;

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferState {
    /// Finding the release and deciding whether it may be fetched.
    Resolving,
    /// Fetching chunks.
    Fetching,
    /// Hashing whole blobs and deciding admission.
    Verifying,
    /// Here and admitted.
    Done,
    /// Given up; `error` says why.
    Failed,
    /// Stopped by whoever asked for it.
    Cancelled,
}

impl TransferState {
    /// Whether nothing more will happen.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// What a transfer does with a peer at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// It is a source, and nothing is asked of it.
    #[default]
    Idle,
    /// Chunks are asked of it.
    Active,
    /// It is asked for nothing for a while: too slow, or silent.
    Choked,
    /// It is no longer connected, or had nothing more to give.
    Gone,
    /// It sent wrong bytes.
    Banned,
}

/// What one peer brought to a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerShare {
    /// The peer.
    pub peer_id: String,
    /// Its nation.
    pub nation: Nation,
    /// What it is used for at the moment.
    #[serde(default)]
    pub state: PeerState,
    /// Verified bytes, as they stand in the files.
    pub bytes: u64,
    /// Bytes that it sent for them over the network; fewer than `bytes` where chunks travel encoded.
    #[serde(default)]
    pub bytes_wire: u64,
    /// Verified bytes a second, lately.
    #[serde(default)]
    pub rate: u64,
    /// Verified chunks.
    pub chunks: u64,
    /// Chunks whose bytes were not those asked for.
    pub bad_chunks: u64,
    /// Whether it was banned because of them.
    pub banned: bool,
}

/// A transfer, live or over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferInfo {
    /// Names it within this run of the node.
    pub id: u64,
    /// What was asked for.
    pub reference: String,
    /// The release, once resolved.
    pub release: Option<Digest>,
    /// Its model, once resolved.
    pub model: Option<Model>,
    /// Its version, once resolved.
    pub version: Option<Version>,
    /// How far it is.
    pub state: TransferState,
    /// Bytes of all files together.
    pub bytes_total: u64,
    /// Bytes here and verified, those resumed included.
    pub bytes_done: u64,
    /// Bytes that an earlier transfer of the same files had left here.
    pub bytes_resumed: u64,
    /// Bytes taken from other files that are here, rather than from peers.
    #[serde(default)]
    pub bytes_local: u64,
    /// Bytes received over the network for chunks, as they came: encoded, unasked and wrong ones included.
    #[serde(default)]
    pub bytes_wire: u64,
    /// Bytes, of `bytes_total`, of files known to be right as a whole: those here before, and those hashed once more after
    /// their last chunk, which grows while they are being hashed.
    #[serde(default)]
    pub bytes_verified: u64,
    /// Bytes a second, lately, of those that peers bring.
    pub rate: u64,
    /// Who brought what.
    pub peers: Vec<PeerShare>,
    /// When it began.
    pub started: Timestamp,
    /// When it was over.
    pub finished: Option<Timestamp>,
    /// Why it failed, for people.
    pub error: Option<String>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// An authenticated peer connected.
    PeerUp {
        /// The peer.
        peer: String,
        /// Its nation.
        nation: Nation,
    },
    /// It is gone.
    PeerDown {
        /// The peer.
        peer: String,
        /// Its nation.
        nation: Nation,
    },
    /// A statement was believed and stored.
    Statement {
        /// Its digest.
        digest: Digest,
        /// Which predicate.
        kind: Kind,
        /// Who speaks.
        nation: Nation,
    },
    /// A transfer moved on.
    Transfer(TransferInfo),
    /// A recall was believed and stored.
    Recall {
        /// The statement's digest.
        digest: Digest,
        /// Who recalls.
        nation: Nation,
        /// What.
        target: RecallTarget,
        /// How bad it is.
        severity: Severity,
        /// Why, for people.
        reason: String,
    },
    /// A channel was moved.
    Channel {
        /// The model.
        model: Model,
        /// The channel.
        channel: ChannelName,
        /// Its sequence.
        sequence: u64,
        /// The release that it points to now.
        release: Digest,
        /// The release that it was rolled back from, where it went back.
        rolled_back_from: Option<Digest>,
        /// Why, as its signer says.
        reason: String,
    },
    /// A release was admitted.
    Admitted {
        /// The release.
        release: Digest,
        /// Its model.
        model: Model,
        /// Its version.
        version: Version,
    },
    /// A worker moved on.
    Worker(Box<WorkerInfo>),
    /// The nations that are trusted here changed: one was pinned or removed, has a new root, or is held in another standing.
    Trust {
        /// The nation.
        nation: Nation,
        /// Whether it is pinned and active now.
        pinned: bool,
    },
    /// Another policy is in force.
    Policy {
        /// What tells it from others.
        digest: Digest,
        /// How many rules it has.
        rules: usize,
    },
    /// Something that an operator should see.
    Alert {
        /// A short name, such as `corrupt_chunk`.
        code: String,
        /// What happened and what to do, for people.
        message: String,
        /// The peer it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
        /// Its nation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nation: Option<Nation>,
    },
}

impl Event {
    /// Its name, as it stands in `event` and as `/v1/events?kinds=` takes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::PeerUp { .. } => "peer_up",
            Self::PeerDown { .. } => "peer_down",
            Self::Statement { .. } => "statement",
            Self::Transfer(_) => "transfer",
            Self::Recall { .. } => "recall",
            Self::Channel { .. } => "channel",
            Self::Admitted { .. } => "admitted",
            Self::Worker(_) => "worker",
            Self::Trust { .. } => "trust",
            Self::Policy { .. } => "policy",
            Self::Alert { .. } => "alert",
        }
    }

    /// Every name.
    pub const NAMES: [&'static str; 11] = [
        "peer_up",
        "peer_down",
        "statement",
        "transfer",
        "recall",
        "channel",
        "admitted",
        "worker",
        "trust",
        "policy",
        "alert",
    ];
}

impl Event {
    /// That a channel was moved, and whether back. What can't be read is not told as a rollback.
    pub fn channel(store: &registry::store::Store, channel: registry::statement::Channel) -> Self {
        let back = store.rolled_back_from(&channel).unwrap_or_else(|error| {
            tracing::error!(model = %channel.model, "what a channel said before can't be read: {error}");
            None
        });
        Self::Channel {
            rolled_back_from: back.map(|(release, _)| release),
            model: channel.model,
            channel: channel.channel,
            sequence: channel.sequence,
            release: channel.release,
            reason: channel.reason,
        }
    }
}

/// Where events are sent and watched. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Events(broadcast::Sender<Event>);

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// A channel that nobody watches yet.
    pub fn new() -> Self {
        Self(broadcast::Sender::new(QUEUE))
    }

    /// Tells whoever watches; never blocks.
    pub fn send(&self, event: Event) {
        // An error says that nobody watches, which is no fault.
        let _ = self.0.send(event);
    }

    /// Everything sent from now on. A reader that falls [`QUEUE`] behind gets `Lagged` with how many it missed.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_agree_with_the_wire() {
        let event = Event::PeerUp { peer: "12D3".to_owned(), nation: Nation::new("alba").unwrap() };
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["event"], event.name());
        assert!(Event::NAMES.contains(&event.name()));
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
    }
}
