//! The decision whether a release may be served here: pure, with the reasons, for people.
//!
//! The rules are fixed for now: active nation, valid signatures and threshold, releasable to us, not recalled, safe
//! formats. Each answers with what it saw and, where it refuses, with what would satisfy it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::envelope::Verified;
use crate::reference::Nation;
use crate::statement::{Recall, RecallTarget, Release, RoleName, Standing};
use crate::timestamp::Timestamp;
use crate::trust::{Member, Trust};

/// A file that may run code, or make a reader run code, when it is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsafeFile {
    /// Path in the release.
    pub path: String,
    /// What it is and why that is unsafe.
    pub why: String,
}

/// The releases that a release derives from, over any number of generations, each with its producer where known.
pub type Ancestors = BTreeMap<Digest, Option<Nation>>;

/// Everything that a decision rests on.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// The release, its signatures checked against the nation's threshold.
    pub release: &'a Verified<Release>,
    /// Every recall believed here.
    pub recalls: &'a [Recall],
    /// Known ancestors of the release, over any number of generations.
    pub ancestors: &'a Ancestors,
    /// Files found unsafe by name or content.
    pub unsafe_files: &'a [UnsafeFile],
    /// Whether an admission of it is on record: what was admitted stays when its nation is suspended or departs.
    pub admitted: bool,
}

/// One rule's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The rule's name, such as `not-recalled`.
    pub rule: String,
    /// Whether it is satisfied.
    pub passed: bool,
    /// What was seen; where it refuses, also what would satisfy it.
    pub detail: String,
}

/// The whole decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Whether the release may be served here.
    pub allowed: bool,
    /// Every rule's answer, in a fixed order.
    pub checks: Vec<Check>,
}

impl Decision {
    /// The rules that refuse, as one sentence each.
    pub fn refusals(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.passed)
    }
}

/// Whether `recall` binds a node of `own` for `release`: a nation recalls what it produced and, along the lineage, what
/// derives from it; our own nation recalls anything for itself.
pub fn recall_binds(
    recall: &Recall,
    own: &Nation,
    producer: &Nation,
    release: Digest,
    ancestors: &Ancestors,
) -> bool {
    let target = recall.target.digest();
    let producer_of_target = if target == release {
        Some(producer)
    } else {
        match (recall.target, ancestors.get(&target)) {
            (RecallTarget::Lineage(_), Some(producer)) => producer.as_ref(),
            _ => return false,
        }
    };
    recall.nation == *own || producer_of_target == Some(&recall.nation)
}

/// Whether the producer's standing allows it.
fn active(producer: &Nation, member: &Member, admitted: bool) -> (bool, String) {
    match member.standing() {
        Standing::Active => {
            (true, format!("{producer} is pinned, its root is valid until {}", member.root.expires))
        }
        standing @ (Standing::Suspended | Standing::Departed) if admitted => {
            (true, format!("{producer} is {standing}; this was admitted before, and stays"))
        }
        standing => (
            false,
            format!(
                "{producer} is {standing} and this was not admitted before; `steelyard trust activate {producer}` changes that"
            ),
        ),
    }
}

/// Decides whether the release may be served by a node of `trust.own()` at `now`.
pub fn decide(evidence: &Evidence<'_>, trust: &Trust, now: Timestamp) -> Decision {
    let release = evidence.release.get();
    let producer = &release.model.nation;
    let mut checks = Vec::new();
    let mut check = |rule: &str, passed: bool, detail: String| {
        checks.push(Check { rule: rule.to_owned(), passed, detail });
    };
    match trust.member(producer) {
        Ok(member) if member.root.expires > now || member.standing() != Standing::Active => {
            let (passed, detail) = active(producer, member, evidence.admitted);
            check("active-nation", passed, detail);
            // The one threshold check was done; this says under which of the nation's roots.
            let root = member.root_of(RoleName::Release, evidence.release.signers()).unwrap_or(&member.root);
            let role = root.role(RoleName::Release);
            let valid = evidence.release.signers().iter().filter(|id| role.keys.contains_key(id)).count();
            let signers: Vec<String> = evidence.release.signers().iter().map(|id| id.short()).collect();
            let detail = format!(
                "signed by {valid} of the {} required release keys of {producer}: {}",
                role.threshold,
                signers.join(", ")
            );
            check("signatures", valid >= role.threshold, detail);
        }
        Ok(member) => {
            let expired = member.root.expires;
            check(
                "active-nation",
                false,
                format!(
                    "the root of {producer} expired at {expired}; it is believed again once its people publish the next one"
                ),
            );
        }
        Err(error) => check("active-nation", false, error.to_string()),
    }
    let own = trust.own();
    let releasable = release.releasable_to(own);
    let to = format!("releasable to {}", release.releasable_to);
    let advice = if releasable {
        to
    } else {
        format!("{to}, not to {own}; ask {producer} for a release that names {own}")
    };
    check("releasable-to-us", releasable, advice);

    let binding = evidence
        .recalls
        .iter()
        .find(|recall| recall_binds(recall, own, producer, evidence.release.digest(), evidence.ancestors));
    match binding {
        Some(recall) => check(
            "not-recalled",
            false,
            format!(
                "recalled by {} at {} ({}): {}; move to a release that is not recalled",
                recall.nation, recall.issued, recall.severity, recall.reason
            ),
        ),
        None => check("not-recalled", true, "no recall of it or of its bases is known".to_owned()),
    }
    match evidence.unsafe_files {
        [] => check("safe-formats", true, "no file runs code when it is loaded".to_owned()),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
            let detail =
                format!("{}: {}{more}; ask {producer} for safetensors or GGUF", first.path, first.why);
            check("safe-formats", false, detail);
        }
    }
    Decision { allowed: checks.iter().all(|check| check.passed), checks }
}
