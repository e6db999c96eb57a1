//! A peer, as others watch it.

use registry::{Nation, Timestamp};
use serde::{Deserialize, Serialize};

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The peer dialled us.
    Inbound,
    /// We dialled the peer.
    Outbound,
}

/// A connected peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// libp2p identifier (`12D3KooW…`).
    pub peer_id: String,
    /// The nation that signed its certificate.
    pub nation: Nation,
    /// Its address as a multiaddr.
    pub address: String,
    /// Who dialled.
    pub direction: Direction,
    /// Whether it is connected through a relay only.
    #[serde(default)]
    pub relayed: bool,
    /// Since when.
    pub connected_at: Timestamp,
    /// Content bytes sent to it over this connection.
    pub sent_bytes: u64,
    /// Content bytes received from it over this connection.
    pub received_bytes: u64,
    /// Round trip in milliseconds, once measured.
    pub rtt_ms: Option<u64>,
    /// What its certificate allows, such as `fetch`, `serve`.
    pub capabilities: Vec<String>,
}
