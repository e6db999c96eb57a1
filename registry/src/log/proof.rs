//! A portable proof that a statement stands in its nation's log, in the form of [C2SP tlog-proof](https://c2sp.org/tlog-proof):
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! index 12
//! <base64 of a hash>
//! ...
//!
//! <the checkpoint's note>
//! ```

use std::collections::BTreeMap;

use data_encoding::BASE64;

use super::checkpoint::{CheckpointError, SignedCheckpoint};
use super::note::{MAX_NOTE, NoteKey};
use super::tree::{Hash, MAX_PROOF, ProofError, leaf_hash, verify_inclusion};
use super::{Logged, entry, reached};
use crate::digest::Digest;
use crate::reference::Nation;
use crate::timestamp::Timestamp;

/// The first line.
const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// Longest proof, in bytes.
pub const MAX_PROOF_FILE: usize = 128 + MAX_PROOF * 45 + MAX_NOTE;

/// Why a proof is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogProofError {
    /// Not of the form.
    #[error("this is not a log proof: {0}")]
    Malformed(&'static str),
    /// The checkpoint is not believed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// It does not prove it.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

/// A proof as it travels; nothing in it is believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogProof {
    /// The statement's number in the log.
    pub index: u64,
    /// The hashes from the leaf to the root.
    pub path: Vec<Hash>,
    /// The checkpoint's note.
    pub note: Vec<u8>,
}

impl LogProof {
    /// Reads a proof.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogProofError> {
        let wrong = |why| Err(LogProofError::Malformed(why));
        if bytes.len() > MAX_PROOF_FILE {
            return wrong("it is too long");
        }
        let Ok(text) = std::str::from_utf8(bytes) else { return wrong("it is not UTF-8") };
        let Some((head, note)) = text.split_once("\n\n") else {
            return wrong("no empty line begins the checkpoint");
        };
        let mut lines = head.split('\n');
        if lines.next() != Some(HEADER) {
            return wrong("its first line is another one");
        }
        let Some(index) = lines.next().and_then(|line| line.strip_prefix("index ")) else {
            return wrong("its second line is not `index NUMBER`");
        };
        if !index.bytes().all(|digit| digit.is_ascii_digit()) || (index.len() > 1 && index.starts_with('0')) {
            return wrong("its index is not a decimal without leading zeros");
        }
        let Ok(index) = index.parse() else { return wrong("its index is not a number of 64 bits") };
        let mut path = Vec::new();
        for line in lines {
            if path.len() >= MAX_PROOF {
                return wrong("it has more hashes than any path");
            }
            let hash = BASE64.decode(line.as_bytes()).ok().and_then(|bytes| Hash::try_from(bytes).ok());
            let Some(hash) = hash else { return wrong("a hash is not base64 of 32 bytes") };
            path.push(hash);
        }
        Ok(Self { index, path, note: note.as_bytes().to_vec() })
    }

    /// The proof's text.
    pub fn to_text(&self) -> Vec<u8> {
        let mut out = format!("{HEADER}\nindex {}\n", self.index).into_bytes();
        for hash in &self.path {
            out.extend_from_slice(BASE64.encode(hash).as_bytes());
            out.push(b'\n');
        }
        out.push(b'\n');
        out.extend_from_slice(&self.note);
        out
    }

    /// Believes that `statement` stands in the log of `nation`, whose log keys are `log`; `witnesses` are the witness
    /// keys of each nation that is trusted.
    pub fn verify<'a>(
        &self,
        statement: &Digest,
        nation: &Nation,
        log: &[NoteKey],
        witnesses: impl IntoIterator<Item = (&'a Nation, &'a [NoteKey])>,
    ) -> Result<Logged, LogProofError> {
        let checkpoint = self.places(statement, nation, log)?;
        Ok(self.logged(&checkpoint, checkpoint.witnesses(witnesses), 1))
    }

    /// The checkpoint under which the statement stands where the proof says.
    pub fn places(
        &self,
        statement: &Digest,
        nation: &Nation,
        log: &[NoteKey],
    ) -> Result<SignedCheckpoint, LogProofError> {
        let checkpoint = SignedCheckpoint::verify(nation, &self.note, log)?;
        self.holds(statement, &checkpoint)?;
        Ok(checkpoint)
    }

    /// That its hashes lead from the statement's entry to the root of its checkpoint, which was believed before.
    pub(crate) fn holds(&self, statement: &Digest, checkpoint: &SignedCheckpoint) -> Result<(), ProofError> {
        let leaf = leaf_hash(&entry(statement));
        verify_inclusion(&leaf, self.index, checkpoint.size(), &self.path, checkpoint.root())
    }

    pub(crate) fn logged(
        &self,
        checkpoint: &SignedCheckpoint,
        by: BTreeMap<Nation, Timestamp>,
        quorum: u32,
    ) -> Logged {
        Logged {
            index: self.index,
            size: checkpoint.size(),
            witnessed: reached(&by, quorum),
            witnesses: by.into_keys().collect(),
        }
    }
}
