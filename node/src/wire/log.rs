//! Frames of `/steelyard/log/1`: what a peer knows of nations' logs, and cosignatures asked of it (`specs/06`).

use registry::Nation;

use super::{WireError, end, frame, take};

/// Entries of one answer at most: 264 KiB, which is a few round trips for a log of years.
pub const MAX_ENTRIES: usize = 8192;
/// Bytes of one entry: its type and a digest.
pub const ENTRY_LEN: usize = registry::log::ENTRY;
/// Hashes of one consistency proof at most: one for each level of the highest tree, and one more.
pub const MAX_PROOF: usize = registry::log::tree::MAX_PROOF;
/// Heads of one answer at most: for each nation that a node may pin its newest, and an earlier one that more nations cosigned.
pub const MAX_HEADS: u16 = 2 * registry::trust::MAX_MEMBERS as u16;
/// Longest checkpoint with its signatures, in bytes: those of every nation's witness.
pub const MAX_CHECKPOINT: usize = registry::log::note::MAX_NOTE;
/// Longest evidence, in bytes: two checkpoints and a proof as JSON.
pub const MAX_EVIDENCE: usize = registry::log::evidence::MAX_EVIDENCE;
/// Longest request for a cosignature, in bytes: the old size, a proof of 64 lines, and a checkpoint.
pub const MAX_ADD_CHECKPOINT: usize = registry::log::witness::MAX_REQUEST;
/// Longest answer to it, in bytes: a line for each key of a witness role.
pub const MAX_COSIGNATURES: usize = 16 * 1024;

const ASK_HEADS: u8 = 0x21;
const ASK_CHECKPOINT: u8 = 0x22;
const ASK_ENTRIES: u8 = 0x23;
const ASK_PROOF: u8 = 0x24;
const ADD_CHECKPOINT: u8 = 0x25;
const HEADS: u8 = 0xa1;
const CHECKPOINT: u8 = 0xa2;
const EVIDENCE: u8 = 0xa3;
const ENTRIES: u8 = 0xa4;
const PROOF: u8 = 0xa5;
const COSIGNATURES: u8 = 0xa6;
const REFUSED: u8 = 0xaf;

/// What a peer asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogRequest {
    /// The newest checkpoint of every log that the other knows.
    Heads,
    /// The newest checkpoint of one log.
    Checkpoint(Nation),
    /// Entries of a log; the answer may end early.
    Entries {
        /// Whose log.
        nation: Nation,
        /// The first entry.
        from: u64,
        /// Behind the last.
        to: u64,
    },
    /// A consistency proof from one size to another.
    Proof {
        /// Whose log.
        nation: Nation,
        /// The smaller size, at least 1.
        old: u64,
        /// The larger size.
        new: u64,
    },
    /// A cosignature, please: the body of C2SP tlog-witness's `add-checkpoint`.
    AddCheckpoint(Vec<u8>),
}

/// Longest body of a request of this type, in bytes.
pub fn log_request_limit(kind: u8) -> usize {
    if kind == ADD_CHECKPOINT { MAX_ADD_CHECKPOINT } else { super::MAX_REQUEST }
}

/// Longest body of an answer of this type, in bytes; `None` for a type that is no answer here.
pub fn log_answer_limit(kind: u8) -> Option<usize> {
    Some(match kind {
        HEADS => 2,
        CHECKPOINT => MAX_CHECKPOINT,
        EVIDENCE => MAX_EVIDENCE,
        ENTRIES => 8 + MAX_ENTRIES * ENTRY_LEN,
        PROOF => (1 + MAX_PROOF) * 32,
        COSIGNATURES => MAX_COSIGNATURES,
        REFUSED => 9,
        _ => return None,
    })
}

fn nation(bytes: &[u8]) -> Result<Nation, WireError> {
    let text = std::str::from_utf8(bytes).ok().and_then(|text| Nation::new(text).ok());
    text.ok_or(WireError::Value { what: "log request", rule: "a log is named by a nation's name" })
}

impl LogRequest {
    /// The frame.
    pub fn encode(&self) -> Vec<u8> {
        let span = |kind, from: u64, to: u64, nation: &Nation| {
            let mut body = from.to_le_bytes().to_vec();
            body.extend_from_slice(&to.to_le_bytes());
            body.extend_from_slice(nation.as_str().as_bytes());
            frame(kind, &body)
        };
        match self {
            Self::Heads => frame(ASK_HEADS, &[]),
            Self::Checkpoint(nation) => frame(ASK_CHECKPOINT, nation.as_str().as_bytes()),
            Self::Entries { nation, from, to } => span(ASK_ENTRIES, *from, *to, nation),
            Self::Proof { nation, old, new } => span(ASK_PROOF, *old, *new, nation),
            Self::AddCheckpoint(body) => frame(ADD_CHECKPOINT, body),
        }
    }

    /// Reads a frame's body.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Self, WireError> {
        const WHAT: &str = "log request";
        let mut input = body;
        let mut span = |rule: fn(u64, u64) -> bool, text| {
            let low = u64::from_le_bytes(take(&mut input, WHAT)?);
            let high = u64::from_le_bytes(take(&mut input, WHAT)?);
            if !rule(low, high) {
                return Err(WireError::Value { what: WHAT, rule: text });
            }
            Ok((low, high, nation(input)?))
        };
        match kind {
            ASK_HEADS => end(body, WHAT).map(|()| Self::Heads),
            ASK_CHECKPOINT => Ok(Self::Checkpoint(nation(body)?)),
            ASK_ENTRIES => {
                let rule = "entries are asked for from one to a later one";
                let (from, to, nation) = span(|from, to| from < to, rule)?;
                Ok(Self::Entries { nation, from, to })
            }
            ASK_PROOF => {
                let rule = "a proof leads from a size of at least 1 to a larger one";
                let (old, new, nation) = span(|old, new| 0 < old && old < new, rule)?;
                Ok(Self::Proof { nation, old, new })
            }
            ADD_CHECKPOINT if body.is_empty() => Err(WireError::Length { what: WHAT, len: 0 }),
            ADD_CHECKPOINT => Ok(Self::AddCheckpoint(body.to_vec())),
            other => Err(WireError::Type(other)),
        }
    }
}

/// Why a peer does not answer. The numbers are those on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LogRefusal {
    /// It knows no such log, or not that much of it.
    Unknown = 1,
    /// The checkpoint is not signed by the log.
    BadSignature = 2,
    /// It cosigned another size last: the one that comes with this.
    Conflict = 3,
    /// The proof does not lead from what it cosigned last to this checkpoint.
    BadProof = 4,
    /// It was asked too often, or is busy.
    Busy = 5,
    /// It witnesses nothing.
    NoWitness = 6,
    /// It holds evidence against this log and cosigns nothing more of it.
    Disputed = 7,
    /// The request can't be read as what it claims to be.
    Malformed = 8,
}

impl LogRefusal {
    const ALL: [Self; 8] = [
        Self::Unknown,
        Self::BadSignature,
        Self::Conflict,
        Self::BadProof,
        Self::Busy,
        Self::NoWitness,
        Self::Disputed,
        Self::Malformed,
    ];

    /// Its name in messages and test vectors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::BadSignature => "bad-signature",
            Self::Conflict => "conflict",
            Self::BadProof => "bad-proof",
            Self::Busy => "busy",
            Self::NoWitness => "no-witness",
            Self::Disputed => "disputed",
            Self::Malformed => "malformed",
        }
    }
}

/// What a peer answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogAnswer {
    /// So many frames follow, each [`Self::Checkpoint`] or [`Self::Evidence`].
    Heads(u16),
    /// A signed and perhaps cosigned checkpoint: a note.
    Checkpoint(Vec<u8>),
    /// In a checkpoint's place: the proof that this log's nation lied.
    Evidence(Vec<u8>),
    /// Entries from a number on.
    Entries {
        /// The number of the first.
        from: u64,
        /// The entries, at least one.
        entries: Vec<[u8; ENTRY_LEN]>,
    },
    /// A consistency proof.
    Proof {
        /// The root hash that the tree had at the smaller size.
        root: [u8; 32],
        /// The proof's hashes.
        hashes: Vec<[u8; 32]>,
    },
    /// The cosignature lines of one witness.
    Cosignatures(Vec<u8>),
    /// None of these.
    Refused {
        /// Why.
        why: LogRefusal,
        /// With [`LogRefusal::Conflict`] the size that it cosigned last; else 0.
        size: u64,
    },
}

impl LogAnswer {
    /// The frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Heads(count) => frame(HEADS, &count.to_le_bytes()),
            Self::Checkpoint(note) => frame(CHECKPOINT, note),
            Self::Evidence(text) => frame(EVIDENCE, text),
            Self::Entries { from, entries } => {
                let mut body = from.to_le_bytes().to_vec();
                body.extend(entries.iter().flatten());
                frame(ENTRIES, &body)
            }
            Self::Proof { root, hashes } => frame(PROOF, &[root, hashes.as_flattened()].concat()),
            Self::Cosignatures(lines) => frame(COSIGNATURES, lines),
            Self::Refused { why, size } => {
                let mut body = vec![*why as u8];
                body.extend_from_slice(&size.to_le_bytes());
                frame(REFUSED, &body)
            }
        }
    }

    /// Reads a frame's body.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Self, WireError> {
        const WHAT: &str = "log answer";
        let limit = log_answer_limit(kind).ok_or(WireError::Type(kind))?;
        if body.len() > limit {
            return Err(WireError::TooLarge { what: WHAT, len: body.len() as u64, limit: limit as u64 });
        }
        let length = || WireError::Length { what: WHAT, len: body.len() as u64 };
        let text = |body: &[u8]| if body.is_empty() { Err(length()) } else { Ok(body.to_vec()) };
        let mut input = body;
        match kind {
            HEADS => {
                let count = u16::from_le_bytes(take(&mut input, WHAT)?);
                end(input, WHAT)?;
                if count > MAX_HEADS {
                    return Err(WireError::Value { what: WHAT, rule: "there are at most 1024 heads" });
                }
                Ok(Self::Heads(count))
            }
            CHECKPOINT => text(body).map(Self::Checkpoint),
            EVIDENCE => text(body).map(Self::Evidence),
            ENTRIES => {
                let from = u64::from_le_bytes(take(&mut input, WHAT)?);
                let (entries, rest) = input.as_chunks::<ENTRY_LEN>();
                if entries.is_empty() || !rest.is_empty() {
                    return Err(length());
                }
                Ok(Self::Entries { from, entries: entries.to_vec() })
            }
            PROOF => {
                let root = take(&mut input, WHAT)?;
                let (hashes, rest) = input.as_chunks::<32>();
                if !rest.is_empty() {
                    return Err(length());
                }
                Ok(Self::Proof { root, hashes: hashes.to_vec() })
            }
            COSIGNATURES => text(body).map(Self::Cosignatures),
            _ => {
                let [byte] = take::<1>(&mut input, WHAT)?;
                let size = u64::from_le_bytes(take(&mut input, WHAT)?);
                end(input, WHAT)?;
                let why = LogRefusal::ALL.into_iter().find(|why| *why as u8 == byte);
                let why = why.ok_or(WireError::Value { what: WHAT, rule: "a refusal is 1 to 8" })?;
                if size != 0 && why != LogRefusal::Conflict {
                    return Err(WireError::Value { what: WHAT, rule: "only a conflict has a size" });
                }
                Ok(Self::Refused { why, size })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::split_frame;

    #[test]
    fn every_frame_reads_as_it_was_written() {
        let nation = Nation::new("alba").unwrap();
        for request in [
            LogRequest::Heads,
            LogRequest::Checkpoint(nation.clone()),
            LogRequest::Entries { nation: nation.clone(), from: 3, to: 9 },
            LogRequest::Proof { nation, old: 1, new: 2 },
            LogRequest::AddCheckpoint(b"old 0\n".to_vec()),
        ] {
            let bytes = request.encode();
            let (kind, body) = split_frame(&bytes, log_request_limit(bytes[0])).unwrap();
            assert_eq!(LogRequest::decode(kind, body).unwrap(), request);
        }
        for answer in [
            LogAnswer::Heads(2),
            LogAnswer::Checkpoint(b"note".to_vec()),
            LogAnswer::Evidence(b"{}".to_vec()),
            LogAnswer::Entries { from: 7, entries: vec![[1; ENTRY_LEN]; 3] },
            LogAnswer::Proof { root: [3; 32], hashes: vec![[2; 32]; 2] },
            LogAnswer::Cosignatures(b"x".to_vec()),
            LogAnswer::Refused { why: LogRefusal::Conflict, size: 5 },
        ] {
            let bytes = answer.encode();
            let (kind, body) = split_frame(&bytes, log_answer_limit(bytes[0]).unwrap()).unwrap();
            assert_eq!(LogAnswer::decode(kind, body).unwrap(), answer);
        }
    }
}
