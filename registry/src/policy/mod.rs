//! The decision whether a release may be admitted, mirrored, served or given to an ally: pure, with the reasons, for
//! people.
//!
//! The rules are written in Cedar (`default.cedar`, checked against `steelyard.cedarschema`). [`Evidence`] is what was
//! verified; [`Facts`] is that as plain data, of which the rules and the sentences are fed; [`decide`] asks every rule and
//! answers with what each saw and, where it refuses, with what would satisfy it (`specs/09`).
//!
//! Three things are not left to rules: a release that is not releasable to whoever would get it, that a binding recall hits
//! or that too few keys signed is refused whatever the policy says. A policy can only restrict further.

mod attestations;
#[cfg(feature = "policy")]
mod cases;
#[cfg(feature = "policy")]
mod cedar;
#[cfg(feature = "policy")]
mod check;
mod facts;
#[cfg(feature = "policy")]
mod rules;
mod sight;
#[cfg(all(test, feature = "policy"))]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use attestations::{Tally, in_force, tally};
#[cfg(feature = "policy")]
pub use cases::{Case, CaseOutcome, Cases, Expected, MAX_CASES};
#[cfg(feature = "policy")]
pub use check::{PolicyError, PolicyProblem};
#[cfg(feature = "store")]
pub(crate) use facts::Parts;
pub use facts::{Base, Facts, Found, RecallFact};
#[cfg(feature = "policy")]
pub use rules::{DEFAULT, MAX_POLICY, MAX_RULES, Policy, Rule, SCHEMA};

use crate::digest::Digest;
use crate::envelope::Verified;
use crate::log::Logged;
use crate::reference::Nation;
use crate::statement::{Attestation, Recall, RecallTarget, Releasable, Release};
#[cfg(feature = "policy")]
use crate::timestamp::Timestamp;
#[cfg(feature = "policy")]
use crate::trust::Trust;

/// How many other nations must have cosigned the checkpoint that proves a foreign release's place in its nation's log,
/// unless the setting `policy.witnesses` says otherwise. 0: neither log nor witnesses are asked for.
pub const DEFAULT_WITNESSES: u32 = 1;

/// The rule that a recall refuses by: workers and peers are told of a recall, not of a policy.
pub const RULE_RECALLED: &str = "not-recalled";

/// What is to be decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Become one that this nation serves.
    Admit,
    /// Be fetched without a person's asking.
    Mirror,
    /// Be given to the users of a worker.
    Serve,
    /// Be given to a node of another nation.
    Release,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 4] = [Self::Admit, Self::Mirror, Self::Serve, Self::Release];

    /// Its name in policies and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Mirror => "mirror",
            Self::Serve => "serve",
            Self::Release => "release",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Action {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|action| action.as_str() == text).ok_or_else(|| {
            format!("`{}` is no action: admit, mirror, serve and release are", crate::shorten(text))
        })
    }
}

/// A file that may run code, or make a reader run code, when it is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsafeFile {
    /// Path in the release.
    pub path: String,
    /// What it is and why that is unsafe.
    pub why: String,
}

/// What is known of a release that others derive from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ancestor {
    /// Who made it.
    pub producer: Nation,
    /// Who may have it.
    pub releasable_to: Releasable,
}

/// The releases that a release derives from, over any number of generations; nothing of those that are not known here.
pub type Ancestors = BTreeMap<Digest, Option<Ancestor>>;

/// Everything that a decision rests on.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// The release, its signatures checked against the nation's threshold.
    pub release: &'a Verified<Release>,
    /// Every recall believed here.
    pub recalls: &'a [Recall],
    /// The release's lineage.
    pub ancestors: &'a Ancestors,
    /// Files found unsafe by name or content.
    pub unsafe_files: &'a [UnsafeFile],
    /// What is proved about its place in its nation's log.
    pub logged: Option<&'a Logged>,
    /// Attestations about it that are believed here, in any order, replaced and expired ones too.
    pub attestations: &'a [Attestation],
    /// Whether it is admitted here already.
    pub admitted: bool,
    /// Seconds since this node last heard from the quorum, where leases are in use.
    pub lease_age: Option<i64>,
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
    /// Whether it is allowed.
    pub allowed: bool,
    /// Every rule's answer, in the order of the policy.
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
            (RecallTarget::Lineage(_), Some(ancestor)) => ancestor.as_ref().map(|it| &it.producer),
            _ => return false,
        }
    };
    recall.nation == *own || producer_of_target == Some(&recall.nation)
}

/// Decides whether `nation` may get the release, or, for every action but [`Action::Release`], whether a node of
/// `trust.own()` (which `nation` then is) may admit, mirror or serve it, at `now`.
#[cfg(feature = "policy")]
pub fn decide(
    policy: &Policy,
    action: Action,
    nation: &Nation,
    evidence: &Evidence<'_>,
    trust: &Trust,
    now: Timestamp,
) -> Decision {
    policy.decide(action, &Facts::gather(evidence, nation, trust, policy.witnesses(), now))
}
