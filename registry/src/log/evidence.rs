//! Portable evidence that a log shows two faces: two checkpoints, both signed by it, that can't both be true.
//!
//! Of one size, two root hashes are enough. Of two sizes, the evidence names the root hash that the larger log has at the
//! smaller size, with the proof; that hash is unique, and the smaller checkpoint has another. Nobody needs to be believed
//! but the log's own key.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::checkpoint::{CheckpointError, SignedCheckpoint};
use super::note::NoteKey;
use super::tree::{Hash, MAX_PROOF, ProofError, verify_consistency};
use crate::reference::Nation;

/// The version of the format.
const VERSION: u32 = 1;
/// Longest evidence, in bytes: two notes as JSON text and a proof.
pub const MAX_EVIDENCE: usize = 160 * 1024;

/// Why evidence proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Not of the form.
    #[error("this is not evidence against a log: {0}")]
    Malformed(String),
    /// A checkpoint is not the log's.
    #[error("a checkpoint in the evidence is refused: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The proof in it does not hold.
    #[error("the proof in the evidence is refused: {0}")]
    Proof(#[from] ProofError),
    /// The two agree.
    #[error("the two checkpoints do not contradict each other; nobody lied")]
    Consistent,
}

/// Evidence as it travels; nothing in it is believed yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evidence {
    version: u32,
    /// Whose log.
    pub nation: Nation,
    /// The checkpoint of the smaller size: its note.
    pub smaller: String,
    /// The checkpoint of the same or a larger size: its note.
    pub larger: String,
    /// The root hash that the larger log has at the smaller size, in base64; nothing for equal sizes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The consistency proof from there, in base64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proof: Vec<String>,
}

/// What evidence proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// Whose log.
    pub nation: Nation,
    /// The size at which the two differ.
    pub size: u64,
    /// The root hash that the smaller checkpoint signs there.
    pub one: Hash,
    /// The root hash that the larger one commits to there.
    pub other: Hash,
}

impl Evidence {
    /// Evidence from two checkpoints of one size.
    pub fn of_equal(one: &SignedCheckpoint, other: &SignedCheckpoint) -> Self {
        Self {
            version: VERSION,
            nation: one.nation().clone(),
            smaller: one.note().to_string(),
            larger: other.note().to_string(),
            prefix: None,
            proof: Vec::new(),
        }
    }

    /// Evidence from a smaller and a larger checkpoint, where the larger log has the root `prefix` at the smaller size.
    pub fn of_prefix(
        smaller: &SignedCheckpoint,
        larger: &SignedCheckpoint,
        prefix: &Hash,
        proof: &[Hash],
    ) -> Self {
        Self {
            prefix: Some(BASE64.encode(prefix)),
            proof: proof.iter().map(|hash| BASE64.encode(hash)).collect(),
            ..Self::of_equal(smaller, larger)
        }
    }

    /// Reads evidence.
    pub fn parse(json: &[u8]) -> Result<Self, EvidenceError> {
        if json.len() > MAX_EVIDENCE {
            return Err(EvidenceError::Malformed(format!(
                "{} bytes is over the limit of {MAX_EVIDENCE}",
                json.len()
            )));
        }
        let read: Self =
            serde_json::from_slice(json).map_err(|error| EvidenceError::Malformed(error.to_string()))?;
        if read.version != VERSION {
            return Err(EvidenceError::Malformed(format!("version {} is not {VERSION}", read.version)));
        }
        if read.proof.len() > MAX_PROOF {
            return Err(EvidenceError::Malformed("its proof is longer than any".to_owned()));
        }
        Ok(read)
    }

    /// The evidence as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// What it proves, by the log's keys alone.
    pub fn verify(&self, keys: &[NoteKey]) -> Result<Fork, EvidenceError> {
        let smaller = SignedCheckpoint::verify(&self.nation, self.smaller.as_bytes(), keys)?;
        let larger = SignedCheckpoint::verify(&self.nation, self.larger.as_bytes(), keys)?;
        let wrong = |why: &str| Err(EvidenceError::Malformed(why.to_owned()));
        let equal = smaller.size() == larger.size();
        let other = match &self.prefix {
            None if equal && self.proof.is_empty() => *larger.root(),
            Some(_) if equal => return wrong("equal sizes have no prefix"),
            None => return wrong("two sizes need a prefix and its proof, equal sizes have neither"),
            Some(prefix) => {
                let prefix = hash(prefix)?;
                let proof = self.proof.iter().map(|text| hash(text)).collect::<Result<Vec<_>, _>>()?;
                verify_consistency(smaller.size(), larger.size(), &proof, &prefix, larger.root())?;
                prefix
            }
        };
        if other == *smaller.root() {
            return Err(EvidenceError::Consistent);
        }
        let (nation, one) = (self.nation.clone(), *smaller.root());
        Ok(Fork { nation, size: smaller.size(), one, other })
    }
}

fn hash(text: &str) -> Result<Hash, EvidenceError> {
    let bytes = BASE64.decode(text.as_bytes()).ok().and_then(|bytes| Hash::try_from(bytes).ok());
    bytes.ok_or_else(|| EvidenceError::Malformed("a hash is not base64 of 32 bytes".to_owned()))
}
