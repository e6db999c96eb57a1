//! What a witness answers ([C2SP tlog-witness](https://c2sp.org/tlog-witness)), decided without keys, clock or disk.
//!
//! The caller keeps what was cosigned last and what this decides in one transaction, and answers only then.

use data_encoding::BASE64;

use super::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use super::note::{MAX_NOTE, Note, NoteKey};
use super::tree::{Hash, MAX_PROOF, ProofError, empty_root, verify_consistency};
use crate::reference::Nation;

/// Longest body of a request: the old size, a proof, and a note.
pub const MAX_REQUEST: usize = 64 + MAX_PROOF * 45 + MAX_NOTE;

/// A request to cosign a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size that the witness cosigned last, as the log believes.
    pub old_size: u64,
    /// The consistency proof from there.
    pub proof: Vec<Hash>,
    /// The checkpoint's note, not believed yet.
    pub note: Note,
}

/// Why a request is refused, with the answer of the HTTP interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 400.
    #[error("the request can't be read: {0}")]
    Malformed(String),
    /// 404: a log that is not witnessed here.
    #[error("the log `{0}` is not known to this witness")]
    UnknownLog(String),
    /// 403: no key of the log signed it.
    #[error("no known key of the log signed the checkpoint")]
    BadSignature,
    /// 409: the witness cosigned another size last.
    #[error("this witness cosigned size {size} last")]
    Conflict {
        /// The size that it cosigned last.
        size: u64,
    },
    /// 409 too: another root than the one cosigned or followed for that size. The log shows two faces.
    #[error(
        "this witness knows another root hash for the checkpoint's size: the log has forked; it cosigned size {size} last"
    )]
    Fork {
        /// The size that it cosigned last; 0 when none.
        size: u64,
    },
    /// 422: the proof does not lead from the one to the other.
    #[error("the consistency proof is refused: {0}")]
    BadProof(ProofError),
}

impl Refusal {
    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::UnknownLog(_) => 404,
            Self::BadSignature => 403,
            Self::Conflict { .. } | Self::Fork { .. } => 409,
            Self::BadProof(_) => 422,
        }
    }
}

/// What a witness cosigned last of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cosigned {
    /// The size.
    pub size: u64,
    /// The root hash.
    pub root: Hash,
}

impl AddCheckpoint {
    /// Reads a request: `old SIZE`, up to 63 lines of a proof, an empty line, the note.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let wrong = |why: &str| Err(Refusal::Malformed(why.to_owned()));
        if body.len() > MAX_REQUEST {
            return wrong("it is too long");
        }
        let Ok(text) = std::str::from_utf8(body) else { return wrong("it is not UTF-8") };
        let Some((head, note)) = text.split_once("\n\n") else {
            return wrong("no empty line begins the note");
        };
        let mut lines = head.split('\n');
        let Some(size) = lines.next().and_then(|line| line.strip_prefix("old ")) else {
            return wrong("its first line is not `old SIZE`");
        };
        if !size.bytes().all(|digit| digit.is_ascii_digit()) || (size.len() > 1 && size.starts_with('0')) {
            return wrong("the old size is not a decimal without leading zeros");
        }
        let Ok(old_size) = size.parse() else { return wrong("the old size is not a number of 64 bits") };
        let mut proof = Vec::new();
        for line in lines {
            if proof.len() >= MAX_PROOF - 1 {
                return wrong("its proof has more than 63 lines");
            }
            let hash = BASE64.decode(line.as_bytes()).ok().and_then(|bytes| Hash::try_from(bytes).ok());
            let Some(hash) = hash else { return wrong("a line of the proof is not base64 of 32 bytes") };
            proof.push(hash);
        }
        let note = Note::parse(note.as_bytes()).map_err(|error| Refusal::Malformed(error.to_string()))?;
        Ok(Self { old_size, proof, note })
    }

    /// The request's body.
    pub fn to_body(&self) -> String {
        let mut out = format!("old {}\n", self.old_size);
        for hash in &self.proof {
            out.push_str(&BASE64.encode(hash));
            out.push('\n');
        }
        out.push('\n');
        out.push_str(&self.note.to_string());
        out
    }

    /// The nation whose log the checkpoint names; not believed yet.
    pub fn nation(&self) -> Result<Nation, Refusal> {
        let checkpoint =
            Checkpoint::parse(self.note.text()).map_err(|error| Refusal::Malformed(error.to_string()))?;
        super::checkpoint::nation_of(&checkpoint.origin)
            .ok_or_else(|| Refusal::UnknownLog(crate::shorten(&checkpoint.origin)))
    }
}

/// Whether to cosign: `keys` are the log's, `before` is what was cosigned last. On success the checkpoint is to be kept
/// as cosigned, then cosigned, then answered.
pub fn decide(
    request: &AddCheckpoint,
    nation: &Nation,
    keys: &[NoteKey],
    before: Option<Cosigned>,
) -> Result<SignedCheckpoint, Refusal> {
    let checkpoint =
        SignedCheckpoint::verify(nation, request.note.to_string().as_bytes(), keys).map_err(|error| {
            match error {
                CheckpointError::Unsigned(_) => Refusal::BadSignature,
                CheckpointError::Origin { found, .. } => Refusal::UnknownLog(found),
                error => Refusal::Malformed(error.to_string()),
            }
        })?;
    if request.old_size > checkpoint.size() {
        return Err(Refusal::Malformed("the old size is larger than the new one".to_owned()));
    }
    let before = before.unwrap_or(Cosigned { size: 0, root: empty_root() });
    if before.size != request.old_size {
        return Err(Refusal::Conflict { size: before.size });
    }
    if before.size == checkpoint.size() && before.root != *checkpoint.root() {
        return Err(Refusal::Fork { size: before.size });
    }
    verify_consistency(before.size, checkpoint.size(), &request.proof, &before.root, checkpoint.root())
        .map_err(Refusal::BadProof)?;
    Ok(checkpoint)
}
