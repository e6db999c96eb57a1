//! Which beginnings are there already, or soon will be: those of the same lane alone.

use super::{Id, Request, Schedule, Token, WORTH_WAITING};

/// A shared beginning of fewer tokens is not worth the moving.
const MIN_SHARED: usize = 16;

impl Schedule {
    /// Whether a request at work is about to compute much of the beginning that `id` needs.
    pub(super) fn is_coming(&self, id: Id) -> bool {
        if !self.limits.share {
            return false;
        }
        let Some(request) = self.requests.get(&id) else { return false };
        let (_, there) = self.best(request);
        self.at_work().filter(|(_, other)| other.lane == request.lane).any(|(_, other)| {
            let done = other.sequence.map_or(0, |sequence| self.sequences[sequence].tokens.len());
            let common = common(&other.tokens, &request.tokens[..request.tokens.len().saturating_sub(1)]);
            done < common && common >= there + WORTH_WAITING
        })
    }

    /// The sequence that shares most with the beginning of a request, and how much. The last token is always computed, for
    /// what comes of it.
    pub(super) fn best(&self, Request { tokens, lane, .. }: &Request) -> (Option<usize>, usize) {
        let wanted = &tokens[..tokens.len().saturating_sub(1)];
        if !self.limits.share || wanted.len() < MIN_SHARED {
            return (None, 0);
        }
        let alike = self.shareable().filter(|at| self.sequences[*at].lane == *lane);
        let found = alike.map(|at| (common(&self.sequences[at].tokens, wanted), at)).max();
        match found {
            Some((shared, at)) if shared >= MIN_SHARED => (Some(at), shared),
            _ => (None, 0),
        }
    }
}

/// How many tokens two sequences have in common at their beginning.
pub(super) fn common(one: &[Token], other: &[Token]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}
