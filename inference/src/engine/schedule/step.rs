//! What a schedule goes by, and what it says.

use super::super::Token;
use super::{Id, Lane};

/// What the engine can do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Cells of the cache; at least the tokens of the longest request.
    pub(crate) cells: usize,
    /// Requests that are computed at once.
    pub(crate) running: usize,
    /// Ended ones whose tokens may be kept beside them.
    pub(crate) kept: usize,
    /// Most tokens of a step.
    pub(crate) batch: usize,
    /// Most prompt tokens of a step in which answers go on: those wait for the whole step.
    pub(crate) mixed: usize,
    /// Whether the engine can share and cut sequences; one with a recurrent state can't.
    pub(crate) share: bool,
    /// Whether all tokens of a step must be of one lane.
    pub(crate) apart: bool,
}

/// What is to be done with the cache, in this order, before the tokens are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    /// The tokens of `sequence` from position `length` on are forgotten.
    Cut {
        /// Which.
        sequence: usize,
        /// How many stay.
        length: usize,
    },
    /// The first `length` tokens of `from` are those of `to`, which is empty.
    Share {
        /// Which.
        from: usize,
        /// To which.
        to: usize,
        /// How many.
        length: usize,
    },
}

/// A token to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// For which request.
    pub(crate) id: Id,
    /// By which weights.
    pub(crate) lane: Lane,
    /// In which sequence of the cache.
    pub(crate) sequence: usize,
    /// The token.
    pub(crate) token: Token,
    /// Where in the sequence.
    pub(crate) position: usize,
    /// Whether the next token is to be chosen from what comes of it.
    pub(crate) last: bool,
}

/// A step.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// First this.
    pub(crate) moves: Vec<Move>,
    /// Then this.
    pub(crate) entries: Vec<Entry>,
}
