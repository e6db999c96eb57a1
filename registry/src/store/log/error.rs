//! Why a log's part was not taken, and what to do about it.

use crate::log::checkpoint::CheckpointError;
use crate::log::evidence::Evidence;
use crate::log::note::NoteError;
use crate::log::tree::ProofError;
use crate::reference::Nation;
use crate::store::StoreError;

/// Why something about a log was refused.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A checkpoint is not believed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A note can't be made or read.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The log says that it was never as long as it was.
    #[error(
        "the log of `{nation}` shows a size of {shown} with another root hash than it signed before; this is evidence of a fork"
    )]
    Fork {
        /// The nation.
        nation: Nation,
        /// The size shown.
        shown: u64,
        /// What proves it to anybody.
        evidence: Box<Evidence>,
    },
    /// The entries that came are not those that the checkpoint signs.
    #[error(
        "the entries of the log of `{0}` that were brought are not those that its checkpoint signs; ask another peer"
    )]
    Entries(Nation),
    /// More entries than are followed.
    #[error("the log of `{nation}` has {size} entries, over the limit of {limit}")]
    TooLong {
        /// The nation.
        nation: Nation,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// It was shown to lie, and nobody has decided yet.
    #[error(
        "the log of `{0}` was proved to lie and nothing more of it is taken; look at `steelyard evidence ls`, speak with its people, then `steelyard log settle {0}`"
    )]
    Disputed(Nation),
    /// Our own log lost its end.
    #[error(
        "this node's log has {have} entries, but signed a checkpoint of {known}: it was restored from an old backup or lost data; nothing is appended until `steelyard log recover` fetched the rest from allies"
    )]
    Behind {
        /// Entries here.
        have: u64,
        /// Entries signed before.
        known: u64,
    },
    /// Nobody was asked yet whether our own log is whole.
    #[error(
        "this node's log is not confirmed yet: no ally could be asked whether it knows a longer one; connect to an ally, or set `standalone = true` under `[log]`"
    )]
    Unconfirmed,
    /// The log key is not one of our root's.
    #[error(
        "the log key is not one of the role `log` of this nation's root; put the right `keys/log.key` in place"
    )]
    Key,
    /// A proof does not hold.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
