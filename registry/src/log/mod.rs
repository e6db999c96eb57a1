//! A nation's append-only log of everything that it signed, in the C2SP formats, and what allies witness of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::reference::Nation;
use crate::timestamp::Timestamp;

/// What was proved about a statement's place in its nation's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Logged {
    /// Its number in the log; the first is 0.
    pub index: u64,
    /// The size of the newest checkpoint that it was proved under.
    pub size: u64,
    /// The nations that cosigned that checkpoint, the log's own never among them.
    pub witnesses: BTreeSet<Nation>,
    /// When the newest of those cosignatures was made.
    pub witnessed: Option<Timestamp>,
}
