//! The JSON that the HTTP interface takes and gives, shared with the command line.

use registry::key::KeyId;
use registry::policy::{Decision, UnsafeFile};
use registry::serving::Options;
use registry::statement::{DerivedFrom, File, Kind, Severity};
use registry::{ChannelName, Digest, Model, Nation, Timestamp, Version};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::error::{Code, Problem};
pub use crate::events::{
    Direction, Event, PeerInfo, PeerShare, PeerState, StopCause, TransferInfo, TransferState, WorkerInfo,
    WorkerState, WorkerStop,
};

/// `GET /healthz`, `GET /readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`, or what is missing.
    pub status: String,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// This node's nation.
    pub nation: Nation,
    /// The nation's fingerprint.
    pub fingerprint: Digest,
    /// From when on the nation's root is no longer valid.
    pub root_expires: Timestamp,
    /// This node's libp2p identifier.
    pub peer_id: String,
    /// Whether a node runs, or a command works on the folder by itself.
    pub running: bool,
    /// When it started.
    pub started: Timestamp,
    /// Where it listens for peers.
    pub addresses: Vec<String>,
    /// Where its read-only HTTP interface listens.
    pub http: Option<String>,
    /// Connected peers.
    pub peers: usize,
    /// Pinned nations, its own included.
    pub nations: usize,
    /// Transfers that are not over.
    pub transfers: usize,
    /// Workers that are not over.
    pub workers: usize,
    /// Statements stored.
    pub statements: u64,
    /// What the store holds.
    pub usage: Usage,
}

/// What the store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Whole blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of blobs that are not whole yet.
    pub partial_bytes: u64,
    /// Bytes free on the disk.
    pub disk_free: u64,
}

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
    /// The policy's answer now.
    pub decision: Option<Decision>,
    /// Why there is none: a signature or the nation is no longer believed.
    pub distrust: Option<String>,
    /// Why it is pinned.
    pub pin: Option<String>,
}

/// `GET /v1/releases/{digest}/evidence`: everything signed that the decision rests on, as it travels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The release's digest.
    pub release: Digest,
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
    /// When it was pinned here.
    pub pinned: Timestamp,
    /// Where its nodes are dialled.
    pub addresses: Vec<String>,
    /// Its nodes connected now.
    pub peers: usize,
    /// Each role with its keys and threshold.
    pub roles: Vec<RoleEntry>,
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

/// `PUT /v1/pins/{reference}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PinRequest {
    /// Why it is kept.
    pub reason: String,
}

/// `POST /v1/pull`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullRequest {
    /// What to fetch.
    pub reference: String,
    /// Keeps it against garbage collection.
    #[serde(default)]
    pub pin: bool,
}

/// The end of a pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// The release.
    pub release: Digest,
    /// Its model.
    pub model: Model,
    /// Its version.
    pub version: Version,
    /// Number of files.
    pub files: usize,
    /// Whether every byte was here before.
    pub already_here: bool,
    /// What was fetched from whom.
    pub transfer: TransferInfo,
    /// Why it may be served here.
    pub decision: Decision,
}

/// `POST /v1/drafts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DraftRequest {
    /// A folder or a file on this machine, as an absolute path.
    pub path: String,
}

/// How far reading, hashing or verifying is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The file being read.
    pub path: String,
    /// Bytes done.
    pub bytes_done: u64,
    /// Bytes in all, where known.
    pub bytes_total: u64,
}

/// The end of a draft: what a release of that folder would hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drafted {
    /// The files, ingested.
    pub files: Vec<File>,
    /// The format found.
    pub format: String,
    /// Bytes of all files.
    pub size: u64,
    /// Files that run code when they are loaded.
    pub unsafe_files: Vec<UnsafeFile>,
    /// Files left out.
    pub skipped: Vec<SkippedFile>,
    /// The model card found.
    pub model_card: Option<String>,
    /// The licence found.
    pub licence: Option<String>,
    /// The nation that this node belongs to.
    pub nation: Nation,
}

/// A file that is not taken into a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedFile {
    /// Its path.
    pub path: String,
    /// Why.
    pub why: String,
}

/// The answer to `POST /v1/statements`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The statement's digest.
    pub digest: Digest,
    /// Which predicate.
    pub kind: Kind,
    /// Its arrival number here.
    pub seq: u64,
    /// Whether it was unknown before.
    pub new: bool,
    /// Releases whose admission it ended, when it is a recall.
    pub withdrawn: Vec<Digest>,
}

/// `GET /v1/sequences?model=&channel=`: what the next statement of this nation must carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequences {
    /// The next sequence of that channel, if one was named.
    pub channel: Option<u64>,
    /// The next sequence of a recall.
    pub recall: u64,
}

/// `POST /v1/nations`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinNation {
    /// The nation file's content.
    pub file: Value,
    /// The fingerprint that a person compared.
    pub fingerprint: Digest,
    /// Further addresses to dial.
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// `POST /v1/gc`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GcRequest {
    /// Only tells what would go.
    pub dry_run: bool,
}

/// The answer to `POST /v1/gc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Whether nothing was removed in fact.
    pub dry_run: bool,
    /// Blobs removed.
    pub blobs_removed: u64,
    /// Bytes freed.
    pub bytes_freed: u64,
    /// Unfinished transfers removed.
    pub partials_removed: u64,
    /// Blobs that something needs.
    pub blobs_kept: u64,
    /// Their bytes.
    pub bytes_kept: u64,
    /// Blobs that nothing needs yet, kept because they are new.
    pub blobs_held: u64,
    /// Their bytes.
    pub bytes_held: u64,
}

/// `POST /v1/verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// What to verify.
    pub reference: String,
    /// Fetches damaged or missing blobs again from peers.
    #[serde(default)]
    pub repair: bool,
}

/// The end of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyDone {
    /// The release.
    pub release: Digest,
    /// Its model.
    pub model: Model,
    /// Its version.
    pub version: Version,
    /// Files read.
    pub files: usize,
    /// Bytes hashed.
    pub bytes: u64,
    /// Whether every byte was right.
    pub sound: bool,
    /// What was found damaged or missing.
    pub damage: Vec<DamageEntry>,
    /// The transfer that repaired it.
    pub repaired: Option<TransferInfo>,
}

/// One damaged place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageEntry {
    /// The file.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// Which chunk, unless the whole file is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk: Option<usize>,
    /// Where it begins in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// `POST /v1/export`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportRequest {
    /// What to export.
    pub reference: String,
    /// The file to write, as an absolute path; it must not exist.
    pub path: String,
}

/// The answer to `POST /v1/export`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// The release.
    pub release: Digest,
    /// Its model.
    pub model: Model,
    /// Its version.
    pub version: Version,
    /// The file.
    pub path: String,
    /// Its bytes.
    pub bytes: u64,
    /// Which nations may have it: whoever carries the file is bound by that.
    pub releasable_to: String,
}

/// `POST /v1/import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// The file to read, as an absolute path.
    pub path: String,
}

/// The answer to `POST /v1/import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// The release.
    pub release: Digest,
    /// Its model.
    pub model: Model,
    /// Its version.
    pub version: Version,
    /// Number of files.
    pub files: usize,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes of the files that were new here.
    pub new_bytes: u64,
    /// Statements that were new here.
    pub new_statements: usize,
    /// Statements that were not kept, each with the reason.
    pub skipped: Vec<String>,
    /// The policy's answer.
    pub decision: Decision,
}

/// `POST /v1/workers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerRequest {
    /// What to serve.
    pub reference: String,
    /// Where to listen; the settings' default if absent.
    #[serde(default)]
    pub listen: Option<String>,
    /// How to run.
    #[serde(default)]
    pub options: Option<Options>,
}

/// `POST /v1/peers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DialRequest {
    /// A multiaddr that ends in `/p2p/ID`.
    pub address: String,
}

/// A job accepted that has nothing to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}
