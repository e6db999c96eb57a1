//! A node certificate: a nation says that a libp2p peer is one of its nodes.

use serde::{Deserialize, Serialize};

use super::{Kind, Predicate, StatementError, Subject, named_subject};
use crate::reference::Nation;
use crate::timestamp::Timestamp;

/// Longest text form of a libp2p peer identifier, in bytes.
pub const MAX_PEER_ID: usize = 128;
/// Most capabilities.
const MAX_CAPABILITIES: usize = 16;

/// What a node may do among its allies. Unknown ones are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Fetches from allies.
    Fetch,
    /// Serves to allies.
    Serve,
    /// Something that this version does not know.
    #[serde(other)]
    Unknown,
}

/// A peer key is a node of a nation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeCertificate {
    /// The nation that vouches.
    pub nation: Nation,
    /// The libp2p peer identifier in base58 (`12D3KooW…`).
    pub peer_id: String,
    /// What the node may do.
    pub capabilities: Vec<Capability>,
    /// When it was signed.
    pub issued: Timestamp,
    /// From when on it is no longer valid.
    pub expires: Timestamp,
}

impl Predicate for NodeCertificate {
    const KIND: Kind = Kind::Node;
    const FIELDS: &'static [&'static str] =
        &["critical", "nation", "peerId", "capabilities", "issued", "expires"];

    fn check(&self, subjects: &[Subject]) -> Result<(), StatementError> {
        let peer = &self.peer_id;
        if peer.is_empty() || peer.len() > MAX_PEER_ID || !peer.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(Self::field("peerId", "1 to 128 base58 characters are expected"));
        }
        if self.capabilities.len() > MAX_CAPABILITIES {
            return Err(Self::field("capabilities", format!("more than {MAX_CAPABILITIES}")));
        }
        if self.expires <= self.issued {
            return Err(Self::field("expires", "it must be later than `issued`"));
        }
        Self::one_subject(subjects, &named_subject(self.peer_id.clone()))
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![named_subject(self.peer_id.clone())]
    }
}
