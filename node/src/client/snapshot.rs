//! Verifying what was downloaded, without a node or a network: the files of a folder against the release that its nation signed, by
//! roots that somebody pinned. `cli/python/steelyard/verify.py` does the same in Python.

mod files;

use std::collections::BTreeMap;
use std::path::Path;

use registry::log::checkpoint::note_keys;
use registry::log::note::NoteKey;
use registry::log::proof::LogProof;
use registry::log::reached;
use registry::statement::{Attestation, Recall, RecallTarget, Release, RoleName, Statement};
use registry::trust::{MAX_CLOCK_SKEW, Trust, TrustError};
use registry::{ChannelName, Digest, Nation, Signed, Timestamp, Verified};
use serde_json::Value;

pub use self::files::Findings;
use crate::api::types::Evidence;

/// Most statements of one release's evidence (document 10).
const MAX_STATEMENTS: usize = 32_768;
/// Whose trust it is, where nobody's nation matters: no nation may be called so that somebody pins.
const NOBODY: &str = "nobody";

/// Why a folder is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Evidence that can't be read.
    #[error("the evidence is damaged: {0}; fetch it again")]
    Evidence(String),
    /// A root, a signature or its time.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No root of the producer's is pinned.
    #[error("{model} is of {nation}, whose root is not among those you pinned")]
    NotPinned {
        /// The model.
        model: String,
        /// Its nation.
        nation: Nation,
    },
    /// A recall binds.
    #[error("{model} was recalled by {} at {}: {}; stop using it", .recall.nation, .recall.issued, .recall.reason)]
    Recalled {
        /// The model.
        model: String,
        /// What was said.
        recall: Box<Recall>,
    },
    /// Not for that nation.
    #[error("{model} is not releasable to {nation}")]
    Withheld {
        /// The model.
        model: String,
        /// The nation.
        nation: Nation,
    },
    /// Too few witnesses, or none to tell the evidence's age by.
    #[error(
        "{found} of the pinned nations witnessed the log, and {wanted} are asked for; pin their roots too, or fetch the evidence again"
    )]
    Witnesses {
        /// How many did.
        found: usize,
        /// How many are asked for.
        wanted: usize,
    },
    /// Older than the lease.
    #[error("the lease has ended: the evidence is of {of}; fetch it again to hear of recalls since")]
    Stale {
        /// Its age counts from then.
        of: Timestamp,
    },
    /// Files.
    #[error("this is not {model}: {findings}")]
    Files {
        /// The model.
        model: String,
        /// What is wrong.
        findings: Findings,
    },
    /// The folder can't be read.
    #[error("{path}: {source}")]
    Io {
        /// What.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What is asked of a snapshot besides its bytes and signatures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demands {
    /// The reader's nation: its recalls bind too, and the release must be releasable to it.
    pub own: Option<Nation>,
    /// Seconds for which evidence is good after it was gathered and witnessed.
    pub lease: Option<i64>,
    /// So many of the pinned nations, besides the producer, must have witnessed its log.
    pub witnesses: u32,
    /// Files may lack.
    pub partial: bool,
    /// The moment of which all is asked; now where there is none.
    pub now: Option<Timestamp>,
}

/// What was verified.
#[derive(Debug, Clone)]
pub struct Report {
    /// The release's digest.
    pub digest: Digest,
    /// What its nation signed.
    pub release: Release,
    /// Files that were read and are right.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files of the release that are not there.
    pub missing: Vec<String>,
    /// The channels that point to it, with their sequence.
    pub channels: BTreeMap<ChannelName, u64>,
    /// Who witnessed its log, and when last.
    pub witnesses: BTreeMap<Nation, Timestamp>,
    /// What others found, as far as it still counts.
    pub attestations: Vec<Attestation>,
    /// Recalls that don't bind here.
    pub recalls: Vec<Recall>,
}

/// The digest of the statement that these envelopes are over, if they are envelopes.
pub(super) fn digest_of(envelopes: &Value) -> Option<Digest> {
    read(envelopes).ok().map(|signed| signed.digest())
}

fn read(envelopes: &Value) -> Result<Signed, SnapshotError> {
    let damaged = |error: &dyn std::fmt::Display| SnapshotError::Evidence(error.to_string());
    let text = serde_json::to_vec(envelopes).map_err(|error| damaged(&error))?;
    Signed::parse(&text).map_err(|error| damaged(&error))
}

/// Verifies the files in `folder` by `evidence` and the fingerprints of first `roots`, got by another way than the evidence.
pub fn verify(
    folder: &Path,
    evidence: &Evidence,
    roots: &[Digest],
    demands: &Demands,
) -> Result<Report, SnapshotError> {
    let now = demands.now.unwrap_or_else(Timestamp::now);
    let case = Case::new(evidence, roots, now)?;
    let verified = case.release(&evidence.release)?;
    let Statement::Release(release) = verified.get() else {
        return Err(SnapshotError::Evidence(format!("{} is no release", evidence.release)));
    };
    let model = format!("{}@{}", release.model, release.version);
    if let Some(nation) = demands.own.as_ref().filter(|own| !release.releasable_to(own)) {
        return Err(SnapshotError::Withheld { model, nation: nation.clone() });
    }
    let mut report = Report {
        digest: evidence.release,
        release: release.clone(),
        files: 0,
        bytes: 0,
        missing: Vec::new(),
        channels: BTreeMap::new(),
        witnesses: case.witnesses.clone(),
        attestations: Vec::new(),
        recalls: Vec::new(),
    };
    for statement in case.believed() {
        match statement.get() {
            Statement::Recall(recall) if binds(recall, release, &evidence.release, demands.own.as_ref()) => {
                return Err(SnapshotError::Recalled { model, recall: Box::new(recall.clone()) });
            }
            Statement::Recall(recall) => report.recalls.push(recall.clone()),
            Statement::Channel(channel) if channel.release == evidence.release => {
                let newest = report.channels.entry(channel.channel.clone()).or_default();
                *newest = channel.sequence.max(*newest);
            }
            Statement::Attestation(said) if said.release == evidence.release && said.valid_until > now => {
                report.attestations.push(said.clone());
            }
            _ => {}
        }
    }
    age(&case.witnesses, evidence.made, demands, now)?;
    let findings = files::compare(folder, release)?;
    if findings.is_wrong(demands.partial) {
        return Err(SnapshotError::Files { model, findings });
    }
    (report.files, report.bytes, report.missing) = (findings.checked, findings.bytes, findings.missing);
    Ok(report)
}

/// A recall by its producer, or by the reader's own nation. Of a base whose producer the evidence does not tell, whoever recalls it
/// is taken for that one.
fn binds(recall: &Recall, release: &Release, digest: &Digest, own: Option<&Nation>) -> bool {
    let target = recall.target.digest();
    let mine = target == *digest;
    let base = matches!(recall.target, RecallTarget::Lineage(_))
        && release.derived_from.iter().any(|base| base.release == target);
    base || (mine && (recall.nation == release.model.nation || own == Some(&recall.nation)))
}

fn age(
    witnesses: &BTreeMap<Nation, Timestamp>,
    made: Timestamp,
    demands: &Demands,
    now: Timestamp,
) -> Result<(), SnapshotError> {
    let wanted = demands.witnesses.max(u32::from(demands.lease.is_some()));
    if witnesses.len() < wanted as usize {
        return Err(SnapshotError::Witnesses { found: witnesses.len(), wanted: wanted as usize });
    }
    let Some(lease) = demands.lease else { return Ok(()) };
    // What is said to be of tomorrow is as if it were of no time.
    let of = match reached(witnesses, wanted) {
        Some(since) if made <= now.plus(MAX_CLOCK_SKEW) => since.min(made),
        _ => return Err(SnapshotError::Stale { of: made }),
    };
    if of.plus(lease) < now { Err(SnapshotError::Stale { of }) } else { Ok(()) }
}

/// The evidence as the pinned roots see it.
struct Case {
    statements: Vec<Signed>,
    trust: Trust,
    /// Proved places in their nations' logs.
    order: BTreeMap<Digest, u64>,
    witnesses: BTreeMap<Nation, Timestamp>,
    now: Timestamp,
}

impl Case {
    fn new(evidence: &Evidence, fingerprints: &[Digest], now: Timestamp) -> Result<Self, SnapshotError> {
        if evidence.statements.len() > MAX_STATEMENTS {
            return Err(SnapshotError::Evidence(format!("it has over {MAX_STATEMENTS} statements")));
        }
        let statements =
            evidence.statements.iter().map(|one| read(&one.envelopes)).collect::<Result<Vec<_>, _>>()?;
        let nobody = Nation::new(NOBODY).map_err(|error| SnapshotError::Evidence(error.to_string()))?;
        let mut trust = Trust::new(nobody);
        let mut roots: Vec<(Nation, u64, &Signed)> = statements
            .iter()
            .filter_map(|signed| match signed.peek() {
                Ok(Statement::Root(root)) => Some((root.nation, root.version, signed)),
                _ => None,
            })
            .collect();
        roots.sort_by_key(|(_, version, _)| *version);
        for (nation, _, first) in roots.iter().filter(|(_, version, _)| *version == 1) {
            let Some(fingerprint) = fingerprints.iter().find(|one| **one == first.digest()) else { continue };
            let later: Vec<Signed> = roots
                .iter()
                .filter(|(of, version, _)| of == nation && *version > 1)
                .map(|(_, _, signed)| (*signed).clone())
                .collect();
            trust.pin_chain(first, &later, *fingerprint, now)?;
        }
        let mut case = Self { statements, trust, order: BTreeMap::new(), witnesses: BTreeMap::new(), now };
        case.read_proofs(evidence)?;
        Ok(case)
    }

    fn read_proofs(&mut self, evidence: &Evidence) -> Result<(), SnapshotError> {
        let known: Vec<(Nation, Vec<NoteKey>)> = self
            .trust
            .members()
            .map(|(nation, member)| (nation.clone(), note_keys(&member.root, RoleName::Witness)))
            .collect();
        for (signed, entry) in self.statements.iter().zip(&evidence.statements) {
            let Some(text) = &entry.proof else { continue };
            let damaged = |error: &dyn std::fmt::Display| SnapshotError::Evidence(error.to_string());
            let nation = signed.peek().map_err(|error| damaged(&error))?.nation().clone();
            let Ok(member) = self.trust.member(&nation) else { continue };
            // What an earlier key of the log signed is still what the log said then.
            let keys: Vec<NoteKey> =
                member.root.roots().flat_map(|root| note_keys(root, RoleName::Log)).collect();
            let proof = LogProof::parse(text.as_bytes()).map_err(|error| damaged(&error))?;
            let digest = signed.digest();
            let checkpoint = proof.places(&digest, &nation, &keys).map_err(|error| damaged(&error))?;
            self.order.insert(digest, proof.index);
            if digest == evidence.release {
                let by = known.iter().filter(|(witness, _)| *witness != nation);
                self.witnesses =
                    checkpoint.witnesses_at(by.map(|(nation, keys)| (nation, &keys[..])), self.now);
            }
        }
        Ok(())
    }

    fn believe(&self, signed: &Signed) -> Result<Verified<Statement>, TrustError> {
        self.trust.verify_at(signed, self.now, |digest| Ok(self.order.get(digest).copied()))
    }

    /// Everything that is believed. The rest is nobody's word.
    fn believed(&self) -> impl Iterator<Item = Verified<Statement>> {
        self.statements.iter().filter_map(|signed| self.believe(signed).ok())
    }

    fn release(&self, digest: &Digest) -> Result<Verified<Statement>, SnapshotError> {
        let signed = self.statements.iter().find(|signed| signed.digest() == *digest);
        let signed =
            signed.ok_or_else(|| SnapshotError::Evidence(format!("it lacks the release {digest}")))?;
        match self.believe(signed) {
            Err(TrustError::NotPinned(nation)) => {
                Err(SnapshotError::NotPinned { model: digest.short(), nation })
            }
            other => Ok(other?),
        }
    }
}
