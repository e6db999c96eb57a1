//! The state machine of membership: what one nation may say of another, one statement after the other.
//!
//! ```text
//!            ┌──────────── activate ───────────┐
//!            ▼                                 │
//! invited ─► active ─► suspended ──────────────┘
//!    ▲  └──────┐ └──────────┐ └─► departed
//!    │         ▼            ▼        │
//!    └──────────────────────────────-┘  (departed: an end, from which only a new invitation leads)
//! ```
//!
//! A nation that was pinned and of which nothing was said yet is active by its operator's own choice; the first
//! statement invites, suspends or expels it. Pure: the store keeps the last statement.

use crate::digest::Digest;
use crate::reference::Nation;
use crate::statement::{Membership, Standing};

/// Why a membership statement does not follow from what was said before.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// It is older than what is known.
    #[error(
        "statement {got} about `{member}` is older than statement {have}, which is kept: refused; say it anew with a higher sequence"
    )]
    Downgrade {
        /// The nation spoken of.
        member: Nation,
        /// The sequence kept.
        have: u64,
        /// The sequence offered.
        got: u64,
    },
    /// Two statements of one sequence.
    #[error(
        "two statements about `{member}` have the sequence {sequence}: {have} is kept, {found} is refused; your nation's keys may be in other hands"
    )]
    Conflict {
        /// The nation spoken of.
        member: Nation,
        /// The sequence of both.
        sequence: u64,
        /// The statement kept.
        have: Digest,
        /// The statement offered.
        found: Digest,
    },
    /// The state machine has no such step.
    #[error("`{member}` can't become {to}: it is {}; {}", state(*.from), steps(*.from))]
    Step {
        /// The nation spoken of.
        member: Nation,
        /// The standing before; none when nothing was said yet.
        from: Option<Standing>,
        /// The standing wanted.
        to: Standing,
    },
    /// It speaks of another root than the one that is pinned here.
    #[error(
        "the statement about `{member}` names the fingerprint {named}, but {pinned} is pinned here; compare both with its people"
    )]
    Fingerprint {
        /// The nation spoken of.
        member: Nation,
        /// The fingerprint in the statement.
        named: Digest,
        /// The fingerprint pinned.
        pinned: Digest,
    },
    /// Another nation's statement means nothing here.
    #[error("this is what `{nation}` thinks of `{member}`: each nation decides that for itself")]
    Foreign {
        /// Who speaks.
        nation: Nation,
        /// Of whom.
        member: Nation,
    },
}

fn state(from: Option<Standing>) -> String {
    from.map_or_else(|| "pinned, and nothing was said of it yet".to_owned(), |standing| standing.to_string())
}

fn steps(from: Option<Standing>) -> String {
    let names: Vec<String> = ALL.into_iter().filter(|to| may(from, *to)).map(|to| to.to_string()).collect();
    format!("the next step is one of: {}", names.join(", "))
}

const ALL: [Standing; 4] = [Standing::Invited, Standing::Active, Standing::Suspended, Standing::Departed];

/// Whether the state machine has this step.
pub const fn may(from: Option<Standing>, to: Standing) -> bool {
    use Standing::{Active, Departed, Invited, Suspended};
    match (from, to) {
        (None, Invited | Suspended | Departed)
        | (Some(Invited | Suspended), Active | Departed)
        | (Some(Active), Suspended | Departed)
        | (Some(Departed), Invited) => true,
        (None, Active)
        | (Some(Invited), Invited | Suspended)
        | (Some(Active), Invited | Active)
        | (Some(Suspended), Invited | Suspended)
        | (Some(Departed), Active | Suspended | Departed) => false,
    }
}

/// The last thing that was said of a nation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// In which standing it is held.
    pub standing: Standing,
    /// The statement's sequence.
    pub sequence: u64,
    /// The fingerprint that the statement names.
    pub fingerprint: Digest,
    /// The statement's digest.
    pub statement: Digest,
}

/// What is known after `next`, whose digest is `digest`, came behind `last`. The same statement again changes nothing.
///
/// A step is checked when `next` follows immediately. Where sequences were left out, the statements between did not come
/// here, and the signer's last word counts.
pub fn step(last: Option<&Said>, next: &Membership, digest: Digest) -> Result<Said, MembershipError> {
    let member = || next.member.clone();
    let have = last.map_or(0, |last| last.sequence);
    if let Some(last) = last {
        if last.statement == digest {
            return Ok(*last);
        }
        if next.sequence < have {
            return Err(MembershipError::Downgrade { member: member(), have, got: next.sequence });
        }
        if next.sequence == have {
            return Err(MembershipError::Conflict {
                member: member(),
                sequence: have,
                have: last.statement,
                found: digest,
            });
        }
    }
    let from = last.map(|last| last.standing);
    if next.sequence == have + 1 && !may(from, next.standing) {
        return Err(MembershipError::Step { member: member(), from, to: next.standing });
    }
    Ok(Said {
        standing: next.standing,
        sequence: next.sequence,
        fingerprint: next.fingerprint,
        statement: digest,
    })
}
