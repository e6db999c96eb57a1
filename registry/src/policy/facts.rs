//! The evidence as plain data: what rules see, what sentences are made of, and what a case of `steelyard policy test`
//! writes down.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Ancestors, Evidence, Tally, UnsafeFile, in_force, recall_binds, tally};
use crate::digest::Digest;
use crate::key::KeyId;
use crate::log::Logged;
use crate::reference::{Model, Name, Nation, Version};
use crate::statement::{
    Attestation, Recall, RecallTarget, Releasable, Release, RoleName, Severity, Standing, Verdict,
};
use crate::timestamp::{DAY, Timestamp};
use crate::trust::Trust;

/// Recalls told of for one release. One is enough to refuse; who else recalled it fits too.
const MAX_TOLD_RECALLS: usize = 512;

/// A recall of the release or of what it derives from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecallFact {
    /// Who recalls.
    pub nation: Nation,
    /// Whether it binds this node.
    pub binds: bool,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// How bad it is.
    #[serde(default = "high")]
    pub severity: Severity,
    /// When it was signed.
    #[serde(default = "long_ago")]
    pub issued: Timestamp,
}

/// Something that the release derives from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Base {
    /// The release.
    pub release: Digest,
    /// Who made it; nothing where it is not known here.
    #[serde(default)]
    pub producer: Option<Nation>,
    /// Who may have it.
    #[serde(default)]
    pub releasable_to: Option<Releasable>,
}

/// What one nation found with one suite, in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Found {
    /// Who evaluated.
    pub nation: Nation,
    /// What was run.
    pub suite: String,
    /// What came out.
    pub verdict: Verdict,
    /// When it was signed.
    #[serde(default = "long_ago")]
    pub issued: Timestamp,
}

fn high() -> Severity {
    Severity::High
}

/// A time for facts that leave it out, a day before [`Facts::default`]'s present.
fn long_ago() -> Timestamp {
    PRESENT.plus(-DAY)
}

/// The present of [`Facts::default`]: 2026-11-25T12:00:00Z.
const PRESENT: Timestamp = Timestamp::from_unix(1_795_608_000);

/// Everything that a rule may ask about. The default is a release that nothing speaks against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Facts {
    /// This node's nation.
    pub own: Nation,
    /// The nation that would get it; for every action but `release` our own.
    pub nation: Nation,
    /// How that nation stands with us; nothing when it is not pinned.
    pub nation_standing: Option<Standing>,
    /// When it is decided.
    pub now: Timestamp,
    /// The release.
    pub release: Digest,
    /// Its model, whose nation is the producer.
    pub model: Model,
    /// Its version.
    pub version: Version,
    /// How the producer stands with us; nothing when it is not pinned.
    pub standing: Option<Standing>,
    /// When the producer's root ends.
    pub root_expires: Timestamp,
    /// The weights' format.
    pub format: String,
    /// SPDX expression.
    pub licence: String,
    /// Bytes of all files.
    pub size: u64,
    /// Number of files.
    pub files: usize,
    /// When it was signed.
    pub issued: Timestamp,
    /// Who may have it.
    pub releasable_to: Releasable,
    /// What it derives from, over any number of generations.
    pub bases: Vec<Base>,
    /// Keys that signed it and count, shortened.
    pub signed_by: Vec<String>,
    /// How many must.
    pub threshold: usize,
    /// Recalls that name it or what it derives from.
    pub recalls: Vec<RecallFact>,
    /// Files found unsafe.
    pub unsafe_files: Vec<UnsafeFile>,
    /// What is proved about its place in its nation's log.
    pub logged: Option<Logged>,
    /// How many nations must have witnessed that.
    pub witnesses_required: u32,
    /// What nations found, in force.
    pub attestations: Vec<Found>,
    /// Whether it is admitted here already.
    pub admitted: bool,
    /// Seconds since this node last heard from the quorum.
    pub lease_age: Option<i64>,
}

impl Default for Facts {
    fn default() -> Self {
        // The names are right; a test reads them back.
        let nation = |name: &str| Nation::new(name).unwrap_or_else(|_| unreachable!("a valid name"));
        let model = Model {
            nation: nation("alba"),
            name: Name::new("model").unwrap_or_else(|_| unreachable!("a valid name")),
        };
        Self {
            own: nation("cora"),
            nation: nation("cora"),
            nation_standing: Some(Standing::Active),
            now: PRESENT,
            release: Digest::of(b"a release"),
            model,
            version: Version::new("1").unwrap_or_else(|_| unreachable!("a valid version")),
            standing: Some(Standing::Active),
            root_expires: PRESENT.plus(365 * DAY),
            format: "gguf".to_owned(),
            licence: "Apache-2.0".to_owned(),
            size: 100_000_000,
            files: 1,
            issued: long_ago(),
            releasable_to: Releasable::All,
            bases: Vec::new(),
            signed_by: vec!["aaaaaaaa".to_owned()],
            threshold: 1,
            recalls: Vec::new(),
            unsafe_files: Vec::new(),
            logged: None,
            witnesses_required: 0,
            attestations: Vec::new(),
            admitted: false,
            lease_age: None,
        }
    }
}

/// How a nation stands with us: nothing when it is not pinned.
fn standing(trust: &Trust, nation: &Nation) -> Option<Standing> {
    if trust.own() == nation {
        return Some(Standing::Active);
    }
    trust.member(nation).ok().map(|member| member.standing())
}

/// The parts of [`Evidence`], for whoever knows of the release by another way than by verifying it just now.
pub(crate) struct Parts<'a> {
    pub(crate) digest: Digest,
    pub(crate) release: &'a Release,
    pub(crate) signers: &'a [KeyId],
    pub(crate) recalls: &'a [Recall],
    pub(crate) ancestors: &'a Ancestors,
    pub(crate) unsafe_files: &'a [UnsafeFile],
    pub(crate) logged: Option<&'a Logged>,
    pub(crate) attestations: &'a [Attestation],
    pub(crate) admitted: bool,
    pub(crate) lease_age: Option<i64>,
}

impl Facts {
    /// What was verified, for a decision whether `nation` may get the release.
    pub fn gather(
        evidence: &Evidence<'_>,
        nation: &Nation,
        trust: &Trust,
        witnesses_required: u32,
        now: Timestamp,
    ) -> Self {
        let parts = Parts {
            digest: evidence.release.digest(),
            release: evidence.release.get(),
            signers: evidence.release.signers(),
            recalls: evidence.recalls,
            ancestors: evidence.ancestors,
            unsafe_files: evidence.unsafe_files,
            logged: evidence.logged,
            attestations: evidence.attestations,
            admitted: evidence.admitted,
            lease_age: evidence.lease_age,
        };
        Self::of(&parts, nation, trust, witnesses_required, now)
    }

    /// See [`Self::gather`].
    pub(crate) fn of(
        evidence: &Parts<'_>,
        nation: &Nation,
        trust: &Trust,
        witnesses_required: u32,
        now: Timestamp,
    ) -> Self {
        let (release, digest) = (evidence.release, evidence.digest);
        let producer = &release.model.nation;
        let member = trust.member(producer).ok();
        // The one threshold check was done; this says under which of the nation's roots.
        let role = member.map(|member| {
            let root = member.root_of(RoleName::Release, evidence.signers).unwrap_or(&member.root);
            root.role(RoleName::Release)
        });
        let counts = |id| role.as_ref().is_some_and(|role| role.keys.contains_key(id));
        let signers = evidence.signers.iter().filter(|id| counts(id));
        Self {
            own: trust.own().clone(),
            nation: nation.clone(),
            nation_standing: standing(trust, nation),
            now,
            release: digest,
            model: release.model.clone(),
            version: release.version.clone(),
            standing: standing(trust, producer),
            root_expires: member.map_or(Timestamp::from_unix(0), |member| member.root.expires),
            format: release.format.clone(),
            licence: release.licence.clone(),
            size: release.size(),
            files: release.files.len(),
            issued: release.issued,
            releasable_to: release.releasable_to.clone(),
            bases: bases(evidence),
            signed_by: signers.map(|id| id.short()).collect(),
            threshold: role.as_ref().map_or(usize::MAX, |role| role.threshold),
            recalls: recalls(evidence, trust.own()),
            unsafe_files: evidence.unsafe_files.to_vec(),
            logged: evidence.logged.cloned(),
            witnesses_required,
            attestations: found(evidence, trust, now),
            admitted: evidence.admitted,
            lease_age: evidence.lease_age,
        }
    }

    /// Who made it.
    pub fn producer(&self) -> &Nation {
        &self.model.nation
    }

    /// Whether `nation` may have the release, by what the release says.
    pub fn releasable(&self) -> bool {
        self.nation == *self.producer() || self.releasable_to.allows(&self.nation)
    }

    /// The recall that refuses it, if any: one that binds.
    pub fn binding_recall(&self) -> Option<&RecallFact> {
        self.recalls.iter().find(|recall| recall.binds)
    }

    /// What it derives from that its producers do not release to [`Self::nation`]. What the release's own producer made is
    /// left out: it decides about both.
    pub fn restricted_bases(&self) -> impl Iterator<Item = &Base> {
        self.bases.iter().filter(|base| match (&base.producer, &base.releasable_to) {
            (Some(producer), Some(to)) => {
                producer != self.producer() && *producer != self.nation && !to.allows(&self.nation)
            }
            _ => false,
        })
    }

    /// The nations that cosigned the checkpoint, the release's own left out.
    pub fn witnesses(&self) -> BTreeSet<&Nation> {
        let nations = self.logged.iter().flat_map(|logged| &logged.witnesses);
        nations.filter(|nation| *nation != self.producer()).collect()
    }

    /// Who vouches and who advises against it.
    pub fn tally(&self) -> Tally {
        tally(self.attestations.iter().map(|it| (&it.nation, it.verdict)), self.producer())
    }
}

fn bases(evidence: &Parts<'_>) -> Vec<Base> {
    let base = |(release, known): (&Digest, &Option<super::Ancestor>)| Base {
        release: *release,
        producer: known.as_ref().map(|it| it.producer.clone()),
        releasable_to: known.as_ref().map(|it| it.releasable_to.clone()),
    };
    evidence.ancestors.iter().map(base).collect()
}

/// Recalls that name the release, or as a lineage something that it derives from; those that bind come first.
fn recalls(evidence: &Parts<'_>, own: &Nation) -> Vec<RecallFact> {
    let digest = evidence.digest;
    let producer = &evidence.release.model.nation;
    let named = |recall: &&Recall| match recall.target {
        RecallTarget::Release(target) => target == digest,
        RecallTarget::Lineage(target) => target == digest || evidence.ancestors.contains_key(&target),
    };
    let mut recalls: Vec<RecallFact> = evidence
        .recalls
        .iter()
        .filter(named)
        .map(|recall| RecallFact {
            nation: recall.nation.clone(),
            binds: recall_binds(recall, own, producer, digest, evidence.ancestors),
            reason: recall.reason.clone(),
            severity: recall.severity,
            issued: recall.issued,
        })
        .collect();
    recalls.sort_by_key(|recall| !recall.binds);
    recalls.truncate(MAX_TOLD_RECALLS);
    recalls
}

/// What active nations found, in force.
fn found(evidence: &Parts<'_>, trust: &Trust, now: Timestamp) -> Vec<Found> {
    in_force(evidence.attestations, &evidence.digest, now)
        .into_iter()
        .filter(|it| standing(trust, &it.nation) == Some(Standing::Active))
        .map(|it| Found {
            nation: it.nation.clone(),
            suite: it.suite.name.clone(),
            verdict: it.verdict,
            issued: it.issued,
        })
        .collect()
}
