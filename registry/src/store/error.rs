//! What can go wrong in the store, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::chunk::{ChunkError, MAX_CHUNK};
use crate::digest::Digest;
use crate::envelope::EnvelopeError;
use crate::format::FormatError;
use crate::reference::{Model, Nation, Reference};
use crate::statement::Kind;
use crate::trust::TrustError;

/// Why the store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no store in the folder.
    #[error("{home} holds no store; create one with `steelyard init`, or name another folder with --home")]
    NotAHome {
        /// The folder.
        home: PathBuf,
    },
    /// There is a store already.
    #[error("{home} holds a store already; use it, or name another folder")]
    Exists {
        /// The folder.
        home: PathBuf,
    },
    /// Another process owns the store.
    #[error(
        "{home} is in use: a node or another command is running on it; talk to that node, or wait until it has ended"
    )]
    Busy {
        /// The folder.
        home: PathBuf,
    },
    /// Written by a newer program.
    #[error("{home} has the layout version {found}, this program knows {known}; upgrade steelyard")]
    Newer {
        /// The folder.
        home: PathBuf,
        /// The version found.
        found: u64,
        /// The newest version known here.
        known: u64,
    },
    /// Its file that says what it is can't be understood.
    #[error(
        "{path} does not name a store's layout; restore it from a backup, or create a new store elsewhere"
    )]
    Layout {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No room. What was kept before stays, a transfer resumes where it was.
    #[error("{path}: {source}; make room (`steelyard gc` removes what nothing needs), then try again")]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// RocksDB refused.
    #[error("the index failed: {0}")]
    Index(String),
    /// The index has lost something that was acknowledged.
    #[error(
        "the index is damaged: {0}; restore the store's `index` folder from a backup, or pull into a new store"
    )]
    Corrupt(String),
    /// Such a statement is not kept here.
    #[error("a {0} is not kept among the statements; a node shows it to its peers itself")]
    Kind(Kind),
    /// A channel must not go back.
    #[error(
        "channel `{channel}` is at sequence {have}, this statement has {got}: refused as a downgrade; its signer moves it back with a higher sequence"
    )]
    ChannelDowngrade {
        /// The channel, as `nation/name:channel`.
        channel: Box<Reference>,
        /// The sequence kept.
        have: u64,
        /// The sequence offered.
        got: u64,
    },
    /// Two statements of one sequence disagree.
    #[error(
        "channel `{channel}` has two statements of sequence {sequence}: {have} is kept, {got} is refused; ask its signer which one it meant"
    )]
    ChannelConflict {
        /// The channel, as `nation/name:channel`.
        channel: Box<Reference>,
        /// The sequence of both.
        sequence: u64,
        /// The release kept.
        have: Digest,
        /// The release offered.
        got: Digest,
    },
    /// Two releases under one version.
    #[error(
        "`{version}` is the release {have} already, {got} is refused: a version is never reused; publish it under another one"
    )]
    VersionConflict {
        /// The version of both, as `nation/name@version`.
        version: Box<Reference>,
        /// The release kept.
        have: Digest,
        /// The release offered.
        got: Digest,
    },
    /// A channel of one model points to a release of another.
    #[error(
        "channel `{channel}` points to {release}, which is a release of `{model}`: not followed; ask its signer which release it meant"
    )]
    OtherModel {
        /// The channel, as `nation/name:channel`.
        channel: Box<Reference>,
        /// Where it points.
        release: Digest,
        /// Whose release that is.
        model: Box<Model>,
    },
    /// A nation said too much.
    #[error("{limit} {what} of `{nation}` are kept already, which is the limit; speak with its people")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The nation.
        nation: Nation,
        /// The limit.
        limit: u64,
    },
    /// No such release.
    #[error("the release {0} is not known here; pull it first")]
    NoRelease(Digest),
    /// No such blob.
    #[error("the blob {0} is not here; pull a release that has it")]
    NoBlob(Digest),
    /// Nothing to fetch.
    #[error("the blob {0} is here already")]
    Present(Digest),
    /// Somebody else fetches it.
    #[error("the blob {0} is being fetched already; wait for that transfer")]
    InUse(Digest),
    /// Finished too early.
    #[error("the blob {blob} still lacks {missing} of its chunks")]
    Incomplete {
        /// The blob.
        blob: Digest,
        /// How many chunks.
        missing: usize,
    },
    /// The bytes on the disk are not those that were written.
    #[error(
        "the disk changed {} chunk(s) of the blob {blob} after they were verified; they will be fetched again; check the disk", .bad.len()
    )]
    Damaged {
        /// The blob.
        blob: Digest,
        /// The chunks.
        bad: Vec<usize>,
    },
    /// The whole blob differs from what is on the disk.
    #[error(
        "the file of blob {blob} does not have its content any more; run `steelyard verify`, then pull it again"
    )]
    WrongContent {
        /// The blob.
        blob: Digest,
    },
    /// Every chunk is right and the whole is wrong.
    #[error(
        "the chunk map {map} is false: its chunks do not make up the blob {blob}; whoever signed the release that names it must publish anew"
    )]
    FalseMap {
        /// The blob.
        blob: Digest,
        /// The map.
        map: Digest,
    },
    /// Not a file.
    #[error("{path} is not a regular file; only files and folders can be published")]
    NotAFile {
        /// What it is.
        path: PathBuf,
    },
    /// A file of weights is malformed.
    #[error("{path}: {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: FormatError,
    },
    /// A chunk map is malformed or can't be made.
    #[error("{path}: {source}")]
    Chunks {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ChunkError,
    },
    /// A key or value for the node's own notes is too large.
    #[error("the note `{key}` is over the limit of {limit} bytes")]
    NoteTooLarge {
        /// The key, shortened.
        key: String,
        /// The limit.
        limit: usize,
    },
    /// A nation or its root is not believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A statement kept can't be read.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
}

/// Why a chunk was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No such chunk.
    #[error("the blob {blob} has {count} chunks; there is no chunk {index}")]
    Index {
        /// The blob.
        blob: Digest,
        /// The chunk.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// Another length.
    #[error("chunk {index} of the blob {blob} has {expected} bytes (never over {MAX_CHUNK}), {found} came")]
    Length {
        /// The blob.
        blob: Digest,
        /// The chunk.
        index: usize,
        /// Bytes by the map.
        expected: u32,
        /// Bytes that came.
        found: usize,
    },
    /// Another content.
    #[error("chunk {index} of the blob {blob} is wrong: {expected} was expected, {found} came")]
    Content {
        /// The blob.
        blob: Digest,
        /// The chunk.
        index: usize,
        /// The digest by the map.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// The store failed; not the sender's fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl WriteError {
    /// Whether whoever sent the chunk is to blame.
    pub const fn blames_sender(&self) -> bool {
        !matches!(self, Self::Store(_))
    }
}

/// Turns what the system said about `path` into a [`StoreError`].
pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| {
        if is_full(&source) {
            StoreError::DiskFull { path, source }
        } else {
            StoreError::Io { what, path, source }
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Turns what went wrong while reading a file into chunks into a [`StoreError`].
pub(super) fn chunks(path: &Path) -> impl FnOnce(ChunkError) -> StoreError {
    move |error| match error {
        ChunkError::Io(source) => io("could not read or copy", path)(source),
        source => StoreError::Chunks { path: path.to_owned(), source },
    }
}

impl From<rocksdb::Error> for StoreError {
    fn from(error: rocksdb::Error) -> Self {
        let kind = error.kind();
        let text = error.into_string();
        match kind {
            rocksdb::ErrorKind::Corruption => Self::Corrupt(text),
            _ if text.contains("No space left") => {
                Self::DiskFull { path: PathBuf::from("index"), source: io::Error::other(text) }
            }
            _ => Self::Index(text),
        }
    }
}
