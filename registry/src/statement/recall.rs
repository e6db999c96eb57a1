//! A recall: a signed statement that a release, or all that derives from it, must no longer be served.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Kind, Predicate, StatementError, Subject, release_subject};
use crate::digest::Digest;
use crate::reference::Nation;
use crate::timestamp::Timestamp;

/// How bad it is. Every severity stops serving; it tells people how fast to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        })
    }
}

/// What is recalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecallTarget {
    /// This release.
    Release(Digest),
    /// This release and everything derived from it.
    Lineage(Digest),
}

impl RecallTarget {
    /// The release named.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Release(digest) | Self::Lineage(digest) => *digest,
        }
    }
}

/// Takes a release out of service. A recall is never taken back; a corrected model is a new release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recall {
    /// The nation that recalls: the release's own, or another for itself.
    pub nation: Nation,
    /// What is recalled.
    pub target: RecallTarget,
    /// Why, for people.
    pub reason: String,
    /// How bad it is.
    pub severity: Severity,
    /// Grows with each recall of this nation; the first is 1.
    pub sequence: u64,
    /// When it was signed.
    pub issued: Timestamp,
}

impl Predicate for Recall {
    const KIND: Kind = Kind::Recall;
    const FIELDS: &'static [&'static str] =
        &["critical", "nation", "target", "reason", "severity", "sequence", "issued"];

    fn check(&self, subjects: &[Subject]) -> Result<(), StatementError> {
        if self.sequence == 0 {
            return Err(Self::field("sequence", "the first sequence is 1"));
        }
        if self.reason.trim().is_empty() {
            return Err(Self::field("reason", "a recall says why"));
        }
        Self::text("reason", &self.reason)?;
        Self::one_subject(subjects, &release_subject(self.target.digest()))
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![release_subject(self.target.digest())]
    }
}
