//! A channel: a signed, moving pointer to a release.

use serde::{Deserialize, Serialize};

use super::{Kind, Predicate, StatementError, Subject, release_subject};
use crate::digest::Digest;
use crate::reference::{ChannelName, Model};
use crate::timestamp::Timestamp;

/// Points `model:channel` at a release. A reader keeps the highest sequence; a rollback is a higher sequence that
/// points to an older release, so that it is visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Channel {
    /// The model.
    pub model: Model,
    /// The channel's name.
    pub channel: ChannelName,
    /// Grows by at least one with each statement; the first is 1.
    pub sequence: u64,
    /// The release that it points to.
    pub release: Digest,
    /// Why it was moved; may be empty.
    #[serde(default)]
    pub reason: String,
    /// When it was signed.
    pub issued: Timestamp,
}

impl Predicate for Channel {
    const KIND: Kind = Kind::Channel;
    const FIELDS: &'static [&'static str] =
        &["critical", "model", "channel", "sequence", "release", "reason", "issued"];

    fn check(&self, subjects: &[Subject]) -> Result<(), StatementError> {
        if self.sequence == 0 {
            return Err(Self::field("sequence", "the first sequence is 1"));
        }
        Self::text("reason", &self.reason)?;
        Self::one_subject(subjects, &release_subject(self.release))
    }

    fn subjects(&self) -> Vec<Subject> {
        vec![release_subject(self.release)]
    }
}
