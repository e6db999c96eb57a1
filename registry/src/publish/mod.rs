//! From a folder to a release, and from a signed statement to one that is kept.
//!
//! [`draft`] takes a folder in and says what a release of it would hold; a person's key signs that elsewhere; [`accept`]
//! verifies and keeps what was signed. What peers send comes in through [`learn`].

mod attach;
mod card;
mod walk;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::admit::{self, AdmitError, Missing};
use crate::digest::Digest;
use crate::envelope::{EnvelopeError, Signed, Verified};
use crate::format::Kind as FileKind;
use crate::path::PathError;
use crate::policy::UnsafeFile;
use crate::reference::Nation;
use crate::statement::{self, Kind, Statement};
use crate::store::{Store, StoreError};
use crate::timestamp::Timestamp;
use crate::trust::TrustError;

pub use attach::attach;
pub use walk::Skipped;

/// The format of a release that holds no weights that are known here.
pub const OTHER_FORMAT: &str = "other";

/// The reason of the pin that a release gets where it is published.
pub const PUBLISHED: &str = "published here";

/// Why something can't be published or kept.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Nothing to publish.
    #[error("{path} holds no files to publish{}", skipped_hint(.skipped))]
    Empty {
        /// The folder.
        path: PathBuf,
        /// What was left out.
        skipped: Vec<Skipped>,
    },
    /// A link that leads out of the folder, to a folder or nowhere.
    #[error(
        "{path} is a link {what}; publish a copy of the folder with the files themselves in it (`cp -rL`)"
    )]
    Link {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        what: &'static str,
    },
    /// A pipe, a socket or a device.
    #[error("{path} is not a regular file; remove it from the folder, or publish another one")]
    Special {
        /// The file.
        path: PathBuf,
    },
    /// A name that no release may hold.
    #[error("{path}: {source}")]
    Path {
        /// The file or folder.
        path: PathBuf,
        /// The rule that it breaks.
        source: PathError,
    },
    /// A name that is not UTF-8.
    #[error("{path} has a name that is not UTF-8; rename it")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// Too many files.
    #[error(
        "{path} holds more than {limit} files, which is the limit of a release; publish a smaller folder"
    )]
    TooMany {
        /// The folder.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// A file is too large.
    #[error("{path} has {size} bytes, over the limit of {limit}; split it into shards")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// Such a statement is not published.
    #[error(
        "this {0} is not published: node certificates are shown by their nodes, and a nation's first root is pinned by people"
    )]
    Kind(Kind),
    /// Another nation's statement.
    #[error("this {kind} is by `{nation}`, this node belongs to `{own}`; publish it on a node of `{nation}`")]
    Foreign {
        /// The statement's kind.
        kind: Kind,
        /// Who signed it.
        nation: Nation,
        /// Whose node this is.
        own: Nation,
    },
    /// A channel or recall of our own that points to nothing known.
    #[error(
        "this {kind} points to the release {release}, which is not known here; publish or pull that first"
    )]
    UnknownRelease {
        /// The statement's kind.
        kind: Kind,
        /// Where it points.
        release: Digest,
    },
    /// A channel that points to another model's release.
    #[error(
        "the channel of `{channel}` can't point to a release of `{release}`; move the channel of that model"
    )]
    OtherModel {
        /// The channel's model.
        channel: crate::reference::Model,
        /// The release's model.
        release: crate::reference::Model,
    },
    /// A release of our own without its bytes.
    #[error("{} of the release {release} are not here, `{}` first; publish from the folder that holds them", .missing.len(), .missing.first().map_or("", |missing| &missing.path))]
    MissingBlobs {
        /// The release.
        release: Digest,
        /// What is missing.
        missing: Vec<Missing>,
    },
    /// A chunk map speaks of another file.
    #[error("the chunk map {map} named for `{path}` is of another file; draft the release anew")]
    WrongMap {
        /// Path in the release.
        path: String,
        /// The map.
        map: Digest,
    },
    /// An attachment that is not what it is called.
    #[error("the attachment `{path}` is refused: {source}")]
    Attachment {
        /// Its path in the release.
        path: String,
        /// Why.
        source: crate::attachment::AttachmentError,
    },
    /// The signatures are not believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system refused.
    #[error("could not read {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

fn skipped_hint(skipped: &[Skipped]) -> String {
    skipped
        .first()
        .map_or_else(String::new, |first| format!(" (`{}` was left out: {})", first.path, first.why))
}

/// How far a draft has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The file being read, by its path in the release.
    pub path: String,
    /// Its number; the first is 1.
    pub file: usize,
    /// How many files there are.
    pub files: usize,
    /// Bytes read, of all files together.
    pub bytes_done: u64,
    /// Bytes of all files together.
    pub bytes_total: u64,
}

/// What a release of a folder would hold. Its blobs are in the store, held for a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// The files, by path.
    pub files: Vec<statement::File>,
    /// `gguf`, `safetensors` or [`OTHER_FORMAT`], by where most bytes are.
    pub format: String,
    /// Bytes of all files.
    pub size: u64,
    /// Files that a node's policy will refuse.
    pub unsafe_files: Vec<UnsafeFile>,
    /// What was left out.
    pub skipped: Vec<Skipped>,
    /// Path of the model card, when there is one.
    pub model_card: Option<String>,
    /// The licence that the model card or the weights name.
    pub licence: Option<String>,
}

/// Takes in a folder, or a single file, and says what a release of it would hold. Names are checked before any file is
/// read. The folder stays as it is.
pub fn draft(store: &Store, path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Draft, PublishError> {
    let found = walk::walk(path)?;
    let bytes_total = found.files.iter().map(|file| file.size).sum();
    let count = found.files.len();
    let mut draft = Draft {
        files: Vec::with_capacity(count),
        format: OTHER_FORMAT.to_owned(),
        size: 0,
        unsafe_files: Vec::new(),
        skipped: found.skipped,
        model_card: None,
        licence: None,
    };
    let (mut gguf, mut safetensors) = (0u64, 0u64);
    for (index, file) in found.files.into_iter().enumerate() {
        let before = draft.size;
        let mut report = |done: u64| {
            let path = file.path.clone();
            progress(Progress {
                path,
                file: index + 1,
                files: count,
                bytes_done: before + done,
                bytes_total,
            });
        };
        report(0);
        let taken = store.ingest(&file.source, &mut report)?;
        let kind = taken.inspection.kind;
        match kind {
            FileKind::Gguf => gguf += taken.digests.size,
            FileKind::Safetensors => safetensors += taken.digests.size,
            _ => {}
        }
        if let Some(why) = kind.objection() {
            draft.unsafe_files.push(UnsafeFile { path: file.path.clone(), why: why.to_owned() });
        }
        if draft.licence.is_none() {
            draft.licence =
                taken.inspection.metadata.and_then(|metadata| metadata.license).and_then(card::fit);
        }
        draft.size += taken.digests.size;
        draft.files.push(statement::File {
            media_type: media_type(kind, &file.path).to_owned(),
            path: file.path,
            blake3: taken.digests.blake3,
            sha256: taken.digests.sha256,
            size: taken.digests.size,
            chunk_map: taken.map_digest,
        });
    }
    if gguf > 0 || safetensors > 0 {
        draft.format = if gguf >= safetensors { "gguf" } else { "safetensors" }.to_owned();
    }
    if let Some(card) = draft.files.iter().find(|file| file.path.eq_ignore_ascii_case("readme.md")) {
        draft.model_card = Some(card.path.clone());
        // What people wrote counts before what a converter left in the weights.
        draft.licence = card::licence(store.open_blob(&card.blake3)?).or(draft.licence);
    }
    Ok(draft)
}

/// A media type for browsers and other tools; nothing here decides by it.
fn media_type(kind: FileKind, path: &str) -> &'static str {
    let lower = path.to_ascii_lowercase();
    match kind {
        FileKind::Json if lower.ends_with(".jsonl") => "application/jsonl",
        FileKind::Json => "application/json",
        FileKind::Text if lower.ends_with(".md") => "text/markdown",
        FileKind::Text => "text/plain",
        FileKind::Image if lower.ends_with(".png") => "image/png",
        FileKind::Image if lower.ends_with(".gif") => "image/gif",
        FileKind::Image if lower.ends_with(".webp") => "image/webp",
        FileKind::Image => "image/jpeg",
        _ => "application/octet-stream",
    }
}

/// A statement that was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Its payload's digest.
    pub digest: Digest,
    /// What it is.
    pub kind: Kind,
    /// Its number by arrival.
    pub seq: u64,
    /// Whether it was not here before.
    pub new: bool,
    /// Releases whose admission it ended, when it is a recall.
    pub withdrawn: Vec<Digest>,
}

/// Keeps a statement that this node's own nation signed. A release must have all its blobs here, and is pinned: whoever
/// publishes is the last to lose a release. A channel must point to a release of its model that is known here. Durable
/// on return.
pub fn accept(store: &Store, signed: &Signed, now: Timestamp) -> Result<Accepted, PublishError> {
    let statement = signed.peek().map_err(|error| TrustError::from(EnvelopeError::from(error)))?;
    let (kind, own) = (statement.kind(), store.own());
    if *statement.nation() != own {
        return Err(PublishError::Foreign { kind, nation: statement.nation().clone(), own });
    }
    let verified = store.verify::<PublishError>(signed, now)?;
    // Taken before the blobs are looked for, so that none is collected between that and the record.
    let _lease = match verified.get() {
        Statement::Release(release) => {
            Some(store.lease(release.files.iter().flat_map(|file| [file.blake3, file.chunk_map])))
        }
        _ => None,
    };
    match verified.get() {
        Statement::Release(release) => {
            admit::complete(store, verified.digest(), release).map_err(|error| match error {
                AdmitError::Incomplete { release, missing } => {
                    PublishError::MissingBlobs { release, missing }
                }
                AdmitError::WrongMap { path, map } => PublishError::WrongMap { path, map },
                AdmitError::Store(error) => error.into(),
                AdmitError::Trust(error) => error.into(),
                AdmitError::NotFound(release)
                | AdmitError::NotARelease { digest: release, .. }
                | AdmitError::Refused { release, .. } => PublishError::UnknownRelease { kind, release },
            })?;
        }
        Statement::Channel(channel) => {
            let known = store.release(&channel.release)?;
            let known = known.ok_or(PublishError::UnknownRelease { kind, release: channel.release })?;
            if known.model != channel.model {
                return Err(PublishError::OtherModel {
                    channel: channel.model.clone(),
                    release: known.model,
                });
            }
        }
        Statement::Attestation(attestation) if store.release(&attestation.release)?.is_none() => {
            return Err(PublishError::UnknownRelease { kind, release: attestation.release });
        }
        _ => {}
    }
    let accepted = keep(store, &verified)?;
    if let Statement::Release(release) = verified.get() {
        // Our own nation had the bytes and speaks for them.
        store.came_under(&accepted.digest, release.files.iter().map(|file| file.blake3))?;
    }
    if kind == Kind::Release && accepted.new {
        store.pin(&accepted.digest, PUBLISHED)?;
    }
    Ok(accepted)
}

/// Keeps a statement that came from a peer: of any pinned nation, without its blobs, whether or not what it points to is
/// known here. Durable on return.
pub fn learn(store: &Store, signed: &Signed, now: Timestamp) -> Result<Accepted, PublishError> {
    keep(store, &store.verify::<PublishError>(signed, now)?)
}

fn keep(store: &Store, verified: &Verified<Statement>) -> Result<Accepted, PublishError> {
    let kind = verified.kind();
    // A certificate is shown by its node, a first root is pinned by people: neither travels.
    if kind == Kind::Node || matches!(verified.get(), Statement::Root(root) if root.version == 1) {
        return Err(PublishError::Kind(kind));
    }
    let put = store.put_statement(verified)?;
    // Also for a recall that was here: a crash may have come between the two steps.
    let withdrawn = if kind == Kind::Recall { admit::withdraw_recalled(store)? } else { Vec::new() };
    Ok(Accepted { digest: verified.digest(), kind, seq: put.seq, new: put.new, withdrawn })
}
