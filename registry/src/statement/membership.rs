//! A membership statement: in which standing one nation holds another, each nation for itself.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Kind, Predicate, RoleName, StatementError, Subject, named_subject};
use crate::digest::Digest;
use crate::reference::Nation;
use crate::timestamp::Timestamp;

/// How one nation stands with another. It begins as `invited`; `departed` is an end, from which only a new invitation leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Its fingerprint is known and compared; nothing of it is believed yet.
    Invited,
    /// An ally: its statements are believed and its nodes are talked to.
    Active,
    /// Nothing new of it is believed; what was admitted goes on being served.
    Suspended,
    /// No longer an ally; what was admitted goes on being served as the policy says.
    Departed,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invited => "invited",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Departed => "departed",
        })
    }
}

/// `nation` holds `member` in this standing from now on. A reader keeps the highest sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Membership {
    /// The nation that speaks, for its own nodes alone.
    pub nation: Nation,
    /// The nation spoken of.
    pub member: Nation,
    /// The fingerprint of the member's first root, as people compared it.
    pub fingerprint: Digest,
    /// The standing.
    pub standing: Standing,
    /// Grows by at least one with each statement of `nation` about `member`; the first is 1.
    pub sequence: u64,
    /// Why, for people; may be empty.
    #[serde(default)]
    pub reason: String,
    /// When it was signed.
    pub issued: Timestamp,
}

impl Membership {
    /// Whose keys must sign: what extends trust needs the root role, what takes trust away the recall role, which is
    /// at hand at night.
    pub const fn role(&self) -> RoleName {
        match self.standing {
            Standing::Invited | Standing::Active => RoleName::Root,
            Standing::Suspended | Standing::Departed => RoleName::Recall,
        }
    }
}

impl Predicate for Membership {
    const KIND: Kind = Kind::Membership;
    const FIELDS: &'static [&'static str] =
        &["critical", "nation", "member", "fingerprint", "standing", "sequence", "reason", "issued"];

    fn check(&self, subjects: &[Subject]) -> Result<(), StatementError> {
        if self.sequence == 0 {
            return Err(Self::field("sequence", "the first sequence is 1"));
        }
        if self.nation == self.member {
            return Err(Self::field("member", "a nation has no standing with itself"));
        }
        Self::text("reason", &self.reason)?;
        Self::one_subject(subjects, &named_subject(self.member.to_string()))
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![named_subject(self.member.to_string())]
    }
}
