//! A nation's append-only log of everything that it signed, in the C2SP formats, and what allies witness of it.

pub mod checkpoint;
pub mod evidence;
pub mod note;
pub mod proof;
pub mod tiles;
pub mod tree;
pub mod witness;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::reference::Nation;
use crate::timestamp::Timestamp;

/// Bytes of an entry: the algorithm of a statement's digest, and the digest.
pub const ENTRY: usize = 33;
/// The algorithm byte of BLAKE3.
const BLAKE3: u8 = 0x01;

/// The entry of a statement: the byte 0x01 and its payload's BLAKE3 digest.
pub fn entry(statement: &Digest) -> [u8; ENTRY] {
    let mut entry = [BLAKE3; ENTRY];
    entry[1..].copy_from_slice(statement.as_bytes());
    entry
}

/// The statement that an entry names; nothing when it names none by BLAKE3.
pub fn statement_of(entry: &[u8; ENTRY]) -> Option<Digest> {
    let (algorithm, digest) = entry.split_first()?;
    let digest: [u8; 32] = digest.try_into().ok()?;
    (*algorithm == BLAKE3).then(|| Digest::from_bytes(digest))
}

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
    /// Since when as many nations as are asked for had cosigned it; nothing while fewer have.
    pub witnessed: Option<Timestamp>,
}

/// How cosignatures are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// How many nations make the quorum; none counts as one.
    pub quorum: u32,
    /// The reader's time.
    pub now: Timestamp,
}

/// The moment since which `quorum` distinct nations had cosigned, each by its latest time: the quorum-th newest of those.
/// Nothing where there are fewer.
pub fn reached(times: &BTreeMap<Nation, Timestamp>, quorum: u32) -> Option<Timestamp> {
    let mut times: Vec<Timestamp> = times.values().copied().collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    times.get(quorum.max(1) as usize - 1).copied()
}
