//! How many ended sequences are kept.
//!
//! What is kept may save computing, and costs it too: an engine passes over every cell in use at each token, its own or not.
//! So as few are kept as are of use. It begins with few; a request that begins like one that was let go of shows that more
//! would have been, and requests that find nothing show that fewer would do.

use std::collections::VecDeque;

use super::{Holder, Id, Lane, Schedule, Sequence, Token, WORTH_WAITING, common};

/// Kept at first.
const FIRST: usize = 2;
/// After so many requests in a row that found nothing, half as many are kept.
const PATIENCE: usize = 8;
/// Of how many that were let go of the beginnings are remembered, as tokens alone, and how many tokens of each: 256 KiB in all.
const REMEMBERED: usize = 64;
const BEGINNING: usize = 1024;

/// How many are kept, and what speaks for it.
#[derive(Debug)]
pub(super) struct Keeping {
    most: usize,
    now: usize,
    in_vain: usize,
    let_go: VecDeque<(Lane, Vec<Token>)>,
}

impl Keeping {
    /// Never more than `most`.
    pub(super) fn new(most: usize) -> Self {
        Self { most, now: FIRST.min(most), in_vain: 0, let_go: VecDeque::new() }
    }

    /// A request of these tokens begins, and shares so many.
    pub(super) fn begins(&mut self, lane: Lane, tokens: &[Token], shared: usize) {
        let alike = self.let_go.iter().filter(|(known, _)| *known == lane);
        let lost = alike.map(|(_, known)| common(known, tokens)).max().unwrap_or(0);
        if lost >= shared + WORTH_WAITING {
            self.now = (self.now * 2).clamp(1, self.most.max(1));
            self.in_vain = 0;
        } else if shared >= WORTH_WAITING {
            self.in_vain = 0;
        } else {
            self.in_vain += 1;
        }
        if self.in_vain >= PATIENCE {
            self.now /= 2;
            self.in_vain = 0;
        }
    }

    fn forget(&mut self, lane: Lane, tokens: &[Token]) {
        if self.let_go.len() >= REMEMBERED {
            self.let_go.pop_front();
        }
        self.let_go.push_back((lane, tokens.iter().take(BEGINNING).copied().collect()));
    }
}

impl Schedule {
    /// Keeps what is in `sequence`, and forgets kept ones of which it is the continuation.
    pub(super) fn keep(&mut self, sequence: usize) {
        if !self.limits.share || !self.sequences[sequence].whole {
            return self.clear(sequence);
        }
        self.sequences[sequence].holder = Holder::Kept(self.clock);
        let Sequence { tokens, lane, .. } = &self.sequences[sequence];
        let alike = |other: &Sequence| other.lane == *lane && tokens.starts_with(&other.tokens);
        let old: Vec<_> = self
            .kept()
            .filter(|(_, other)| *other != sequence && alike(&self.sequences[*other]))
            .map(|(_, other)| other)
            .collect();
        for other in old {
            self.clear(other);
        }
    }

    /// Lets go of those that were used longest ago and are one too many. What a request that waits had computed stays.
    pub(super) fn let_go(&mut self) {
        let mut kept: Vec<(u64, usize)> = self.kept().filter(|(_, at)| !self.is_awaited(*at)).collect();
        kept.sort_unstable();
        let too_many = kept.len().saturating_sub(self.keeping.now);
        for (_, at) in kept.into_iter().take(too_many) {
            self.keeping.forget(self.sequences[at].lane, &self.sequences[at].tokens);
            self.clear(at);
        }
    }

    /// Whether a request that waits goes on from the end of what is kept in `sequence`.
    fn is_awaited(&self, sequence: usize) -> bool {
        let Sequence { tokens, lane, .. } = &self.sequences[sequence];
        let mut waiting = self.requests.values().filter(|request| request.sequence.is_none());
        waiting.any(|request| request.lane == *lane && request.tokens.starts_with(tokens))
    }

    /// When each that is kept was used last, and which it is.
    pub(super) fn kept(&self) -> impl Iterator<Item = (u64, usize)> + '_ {
        self.sequences.iter().enumerate().filter_map(|(at, sequence)| match sequence.holder {
            Holder::Kept(used) => Some((used, at)),
            _ => None,
        })
    }

    pub(super) fn oldest_kept(&self, except: Option<usize>) -> Option<usize> {
        self.kept().filter(|(_, at)| Some(*at) != except).min().map(|(_, at)| at)
    }

    /// A request begins to run for the first time.
    pub(super) fn note_beginning(&mut self, id: Id, shared: usize) {
        if let Some(request) = self.requests.get(&id)
            && request.reused.is_none()
        {
            self.keeping.begins(request.lane, &request.tokens, shared);
        }
    }
}
