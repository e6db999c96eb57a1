//! What the node is asked to do, and what it answers.

use registry::policy::{Decision, UnsafeFile};
use registry::serving::{Attempt, Options, Wall};
use registry::statement::{File, Kind};
use registry::store::GcRelease;
use registry::{ChannelName, Digest, Model, Nation, Timestamp, Version};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::events::{TransferInfo, WorkerInfo};

/// `PUT /v1/pins/{reference}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PinRequest {
    /// Why it is kept.
    pub reason: String,
}

/// The answer to `DELETE /v1/nations/{nation}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpinned {
    /// The nation that is no longer trusted.
    pub nation: Nation,
    /// The fingerprint by which it was.
    pub fingerprint: Digest,
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
    /// Whether a pin keeps it against garbage collection.
    pub pinned: bool,
    /// Channels that point to it, which keep it too.
    pub channels: Vec<ChannelName>,
    /// Those of them that were moved back to it from a newer release, with why.
    #[serde(default)]
    pub rolled_back: Vec<Rollback>,
    /// What was fetched from whom.
    pub transfer: TransferInfo,
    /// Why it may be served here.
    pub decision: Decision,
}

/// A channel that was moved back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// The channel.
    pub channel: ChannelName,
    /// The version that it was moved away from.
    pub from: Version,
    /// Why, as its signer says.
    pub reason: String,
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
    /// The next sequence of a membership statement about that nation, if one was named.
    #[serde(default)]
    pub membership: Option<u64>,
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
    /// The releases whose blobs go, each with the reason.
    pub releases: Vec<GcRelease>,
    /// Blobs removed that no known release names: drafts that were never signed.
    pub loose_blobs: u64,
    /// Files removed that a crash left behind.
    pub orphans_removed: u64,
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
    /// The nation that it is for; this node's own if absent.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub to: Option<Nation>,
    /// Only files whose path fits one of these, with `*` and `?`; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Statements and chunk maps alone.
    #[serde(default)]
    pub without_blobs: bool,
    /// A list of what the other side has (`POST /v1/have` there), as an absolute path: that is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub have: Option<String>,
}

/// `POST /v1/have`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HaveRequest {
    /// The file to write, as an absolute path; it must not exist.
    pub path: String,
}

/// The answer to `POST /v1/have`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaveList {
    /// The file.
    pub path: String,
    /// Blobs in the list.
    pub blobs: usize,
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
    /// The nation that it is for.
    #[serde(rename = "for")]
    pub to: Nation,
    /// Files of the release.
    pub files: usize,
    /// How many of them are in it.
    pub files_in: usize,
}

/// `POST /v1/import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// The file to read, as an absolute path.
    pub path: String,
    /// Seconds after which a bundle is too old; the setting `bundle.max_age_secs` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_secs: Option<u64>,
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
    /// Files that are not here yet, when it was a part. Then it is not admitted.
    pub missing: Vec<String>,
    /// The nation whose node made it, as it says.
    pub by: Option<Nation>,
    /// When it was made, as it says: later recalls are not in it.
    pub made: Option<Timestamp>,
    /// Up to where it knows the producer's log, where that is proved.
    pub checkpoint: Option<registry::bundle::Checkpoint>,
    /// Recalls that were new here.
    pub recalls: usize,
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
    /// Walls that the worker may do without, besides those of the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_missing: Vec<Wall>,
    /// Whether the reference is a channel that is followed: when it moves, a worker of the new release takes the place.
    #[serde(default)]
    pub follow: bool,
    /// Whether a worker that follows goes back to the release before, when the one that it serves is recalled.
    #[serde(default)]
    pub rollback_to_previous: bool,
    /// Whether a worker that follows ends before the one that takes its place begins.
    #[serde(default)]
    pub stop_first: bool,
    /// Adapters that go with it, each a release: a request chooses the model or one of them by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<String>,
}

/// `POST /v1/workers/{id}/swap`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwapRequest {
    /// What takes the place; the release that was served there before if absent.
    #[serde(default)]
    pub reference: Option<String>,
    /// Whether the old worker ends before the new one begins, where memory has no room for both. Nobody is answered meanwhile.
    #[serde(default)]
    pub stop_first: bool,
    /// The adapters that go with it; those that went with the release before if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapters: Option<Vec<String>>,
}

/// `POST /v1/receipts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptRequest {
    /// The receipt's text.
    pub receipt: String,
}

/// What came of a worker's attempts to break out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The worker, with its walls.
    pub worker: WorkerInfo,
    /// Every attempt.
    pub attempts: Vec<Attempt>,
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
