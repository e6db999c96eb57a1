//! What is known here: models, releases with their evidence, nations, recalls, pins.

use registry::key::KeyId;
use registry::policy::Decision;
use registry::statement::{DerivedFrom, File, Kind, Measure, Severity, Standing, Suite, Verdict};
use registry::trust::Ending;
use registry::{ChannelName, Digest, Model, Nation, Timestamp, Version};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One model of `GET /v1/models`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelEntry {
    /// The model.
    pub model: Model,
    /// Its channels.
    pub channels: Vec<ChannelEntry>,
    /// Its releases, the newest first.
    pub releases: Vec<ReleaseEntry>,
}

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelEntry {
    /// Its name.
    pub channel: ChannelName,
    /// Its sequence.
    pub sequence: u64,
    /// The release that it points to.
    pub release: Digest,
    /// That release's version, if it is known here.
    pub version: Option<Version>,
    /// Why it was moved.
    pub reason: String,
    /// When it was signed.
    pub issued: Timestamp,
    /// What it was rolled back from by its last move, which its signer gave `reason` for.
    #[serde(default)]
    pub rolled_back_from: Option<RolledBack>,
}

/// A release that a channel was moved away from, to an older one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// The release.
    pub release: Digest,
    /// Its version.
    pub version: Version,
}

/// How much of a release is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Only the statement is known.
    Known,
    /// Some blobs are here.
    Partial,
    /// Every blob is here.
    Complete,
}

/// One release in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseEntry {
    /// Its digest.
    pub release: Digest,
    /// The model.
    pub model: Model,
    /// The version.
    pub version: Version,
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
    /// How much of it is here.
    pub presence: Presence,
    /// Bytes of it that are here, in whole blobs.
    pub bytes_here: u64,
    /// Whether it is admitted here.
    pub admitted: bool,
    /// Whether a recall binds this node for it.
    pub recalled: bool,
    /// Whether it is pinned.
    pub pinned: bool,
    /// The mirror rule that brought it and keeps it.
    #[serde(default)]
    pub mirrored: Option<String>,
}

/// One file of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// As the release says.
    #[serde(flatten)]
    pub file: File,
    /// Whether its blob is here.
    pub here: bool,
}

/// `GET /v1/releases/{digest}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseDetail {
    /// As in a list.
    #[serde(flatten)]
    pub entry: ReleaseEntry,
    /// Its files.
    pub file_list: Vec<FileEntry>,
    /// Which nations may have it, as people read it.
    pub releasable_to: String,
    /// What it was made from.
    pub derived_from: Vec<DerivedFrom>,
    /// Path of the model card.
    pub model_card: Option<String>,
    /// Keys that signed it and count.
    pub signers: Vec<KeyId>,
    /// Signatures that the nation's root requires.
    pub threshold: Option<usize>,
    /// Channels that point to it.
    pub channels: Vec<ChannelEntry>,
    /// Recalls that name it or a base of it.
    pub recalls: Vec<RecallEntry>,
    /// What nations attest about it: of each nation and suite the one that replaces the others.
    #[serde(default)]
    pub attestations: Vec<AttestationEntry>,
    /// The policy's answer now.
    pub decision: Option<Decision>,
    /// Why there is none: a signature or the nation is no longer believed.
    pub distrust: Option<String>,
    /// Why it is pinned.
    pub pin: Option<String>,
}

/// What one nation found out about a release with one suite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestationEntry {
    /// The statement's digest.
    pub attestation: Digest,
    /// Who evaluated.
    pub nation: Nation,
    /// What was run.
    pub suite: Suite,
    /// What the nation makes of it.
    pub verdict: Verdict,
    /// What came out.
    pub results: Vec<Measure>,
    /// In words.
    pub summary: String,
    /// When it was signed.
    pub issued: Timestamp,
    /// From when on it counts no more.
    pub valid_until: Timestamp,
    /// Whether it counts now.
    pub counts: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// `GET /v1/releases/{digest}/evidence`: everything signed that the decision rests on, as it travels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The release's digest.
    pub release: Digest,
    /// When this was gathered, by the node's clock; nobody signs it.
    pub made: Timestamp,
    /// DSSE envelopes, with what they are.
    pub statements: Vec<SignedEntry>,
}

/// One signed statement, as it travels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignedEntry {
    /// BLAKE3 of the payload.
    pub digest: Digest,
    /// Which predicate.
    pub kind: Kind,
    /// Who speaks.
    pub nation: Nation,
    /// The array of DSSE envelopes.
    pub envelopes: Value,
    /// Its place in its nation's log with the checkpoint and who witnessed it, a C2SP tlog-proof, where it is known here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
}

/// `GET /v1/resolve?ref=`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// What was asked for.
    pub reference: String,
    /// The release.
    pub release: Digest,
    /// Its model.
    pub model: Model,
    /// Its version.
    pub version: Version,
}

/// One nation of `GET /v1/nations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NationEntry {
    /// The nation.
    pub nation: Nation,
    /// Whether it is this node's own.
    pub own: bool,
    /// What people compare.
    pub fingerprint: Digest,
    /// Its root's version.
    pub version: u64,
    /// From when on nothing new of it is believed.
    pub expires: Timestamp,
    /// Whether that is now.
    pub expired: bool,
    /// How near that is.
    #[serde(default)]
    pub ending: Ending,
    /// In which standing our own nation holds it.
    #[serde(default = "active")]
    pub standing: Standing,
    /// The sequence of the membership statement that says so, if there is one.
    #[serde(default)]
    pub sequence: Option<u64>,
    /// When it was pinned here.
    pub pinned: Timestamp,
    /// Where its nodes are dialled.
    pub addresses: Vec<String>,
    /// Its nodes connected now.
    pub peers: usize,
    /// Each role with its keys and threshold.
    pub roles: Vec<RoleEntry>,
}

const fn active() -> Standing {
    Standing::Active
}

/// One nation of `GET /v1/memberships`: what our own nation said of it last. For whoever may use the socket: the reason is
/// for the nation's own people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipEntry {
    /// The nation spoken of, pinned here or not.
    pub member: Nation,
    /// In which standing it is held.
    pub standing: Standing,
    /// The statement's sequence.
    pub sequence: u64,
    /// The fingerprint that it names.
    pub fingerprint: Digest,
    /// Why; may be empty.
    pub reason: String,
    /// When it was signed.
    pub issued: Timestamp,
    /// The statement's digest.
    pub statement: Digest,
}

/// A role of a nation's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleEntry {
    /// Its name.
    pub role: String,
    /// Its keys.
    pub keys: Vec<KeyId>,
    /// How many must sign.
    pub threshold: usize,
}

/// One recall of `GET /v1/recalls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallEntry {
    /// The statement's digest.
    pub recall: Digest,
    /// Who recalls.
    pub nation: Nation,
    /// The release named.
    pub release: Digest,
    /// Whether all that derives from it is meant too.
    pub lineage: bool,
    /// The release's model, if it is known here.
    pub model: Option<Model>,
    /// Its version, if it is known here.
    pub version: Option<Version>,
    /// Why.
    pub reason: String,
    /// How bad it is.
    pub severity: Severity,
    /// The nation's count of recalls.
    pub sequence: u64,
    /// When it was signed.
    pub issued: Timestamp,
}

/// One pin of `GET /v1/pins`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinEntry {
    /// The release.
    pub release: Digest,
    /// Its model, if it is known here.
    pub model: Option<Model>,
    /// Its version, if it is known here.
    pub version: Option<Version>,
    /// Why it is kept.
    pub reason: String,
    /// Since when.
    pub at: Timestamp,
}
