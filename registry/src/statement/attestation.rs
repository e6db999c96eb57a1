//! An attestation: a nation's signed statement about a release, its own or another's (an evaluation, a red-team result).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Kind, Predicate, StatementError, Subject, release_subject};
use crate::digest::Digest;
use crate::reference::Nation;
use crate::timestamp::Timestamp;

/// Most results of one attestation: the largest public suites have a few hundred tasks.
pub const MAX_RESULTS: usize = 1024;
/// Longest name of a suite, a measure or an attachment, in bytes.
pub const MAX_LABEL: usize = 256;

/// What an evaluation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The nation vouches for the release.
    Pass,
    /// It says neither; the results are for information.
    Inconclusive,
    /// It advises against the release.
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Inconclusive => "inconclusive",
            Self::Fail => "fail",
        })
    }
}

/// What was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suite {
    /// Its name, such as `mmlu` or `red-team/2026-11`.
    pub name: String,
    /// The digest of what was run, where it is a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// One result. Values are text: a number's exact digits are part of what was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// What was measured, such as `accuracy`.
    pub name: String,
    /// The value, such as `0.713`.
    pub value: String,
}

/// What a nation found out about a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attestation {
    /// The nation that evaluated.
    pub nation: Nation,
    /// The release that it speaks about.
    pub release: Digest,
    /// What was run.
    pub suite: Suite,
    /// What came out.
    #[serde(default)]
    pub results: Vec<Measure>,
    /// What the nation makes of it.
    pub verdict: Verdict,
    /// In words, for people; may be empty.
    #[serde(default)]
    pub summary: String,
    /// When it was signed.
    pub issued: Timestamp,
    /// From when on it counts no more.
    pub valid_until: Timestamp,
}

impl Predicate for Attestation {
    const KIND: Kind = Kind::Attestation;
    const FIELDS: &'static [&'static str] =
        &["critical", "nation", "release", "suite", "results", "verdict", "summary", "issued", "validUntil"];

    fn check(&self, subjects: &[Subject]) -> Result<(), StatementError> {
        if self.results.len() > MAX_RESULTS {
            return Err(Self::field("results", format!("more than {MAX_RESULTS} results")));
        }
        Self::label("suite", &self.suite.name)?;
        for measure in &self.results {
            Self::label("results", &measure.name)?;
            Self::label("results", &measure.value)?;
        }
        Self::text("summary", &self.summary)?;
        if self.valid_until <= self.issued {
            return Err(Self::field("validUntil", "it must be later than `issued`"));
        }
        Self::one_subject(subjects, &release_subject(self.release))
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![release_subject(self.release)]
    }
}

impl Attestation {
    /// Whether it takes the place of `other`, by the same nation about the same release with the same suite: it is the later
    /// one or, of the same second, the more cautious one, or ends sooner.
    pub fn replaces(&self, other: &Self) -> bool {
        let rank = |it: &Self| (it.issued, it.verdict, std::cmp::Reverse(it.valid_until));
        rank(self) > rank(other)
    }

    /// A name or value: one line, not empty.
    fn label(field: &'static str, text: &str) -> Result<(), StatementError> {
        if text.trim().is_empty() || text.len() > MAX_LABEL || text.chars().any(char::is_control) {
            return Err(Self::field(
                field,
                format!("names and values are 1 to {MAX_LABEL} bytes without control characters"),
            ));
        }
        Ok(())
    }
}
