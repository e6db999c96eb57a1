//! What can be wrong with chunk maps and chunks.

use super::{MAX_CHUNK, MAX_CHUNKS, VERSION};
use crate::digest::Digest;

/// What can be wrong with a chunk map, or with the file that it is built from.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// The bytes end before what they announce.
    #[error("the chunk map has {have} bytes but needs {need}: it was cut short; fetch it again")]
    Truncated {
        /// Bytes there.
        have: usize,
        /// Bytes announced.
        need: usize,
    },
    /// Bytes follow the last entry.
    #[error(
        "the chunk map has {extra} bytes after its last entry: only one encoding of a map is valid; refuse its sender"
    )]
    Trailing {
        /// Bytes too many.
        extra: usize,
    },
    /// The first four bytes are not the magic.
    #[error("these bytes are not a chunk map: they do not begin with `SYCM`")]
    Magic,
    /// The version is unknown.
    #[error("the chunk map has version {0}; this program reads version {VERSION}: upgrade it")]
    Version(u32),
    /// Too many chunks.
    #[error("the chunk map lists {count} chunks; the limit is {MAX_CHUNKS}")]
    TooMany {
        /// Chunks listed.
        count: u64,
    },
    /// A chunk's length is zero or above [`MAX_CHUNK`].
    #[error("chunk {index} has a length of {len} bytes; a chunk has 1 to {MAX_CHUNK}")]
    Length {
        /// Which chunk.
        index: usize,
        /// Its length.
        len: u32,
    },
    /// The lengths do not add up to the blob's size.
    #[error("the chunks add up to {sum} bytes but the blob has {size}")]
    Sum {
        /// Bytes in all chunks.
        sum: u64,
        /// Bytes in the blob.
        size: u64,
    },
    /// A map of no chunk or of one chunk names another digest than the content can have.
    #[error("the chunk map says that blob {blob} has {count} chunk(s), but then its digest must be {must}")]
    Blob {
        /// The blob named.
        blob: Digest,
        /// Chunks listed.
        count: usize,
        /// What the blob's digest would have to be.
        must: Digest,
    },
    /// There is no such chunk.
    #[error("there is no chunk {index}: the map has {count}")]
    Index {
        /// Which was meant.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A chunk's bytes are not the ones that the map names.
    #[error(
        "chunk {index} at offset {offset} is damaged: the map names {expected} of {len} bytes, these {have} bytes are {found}; fetch it from another peer"
    )]
    Damaged {
        /// Which chunk.
        index: usize,
        /// Where it begins in the blob.
        offset: u64,
        /// Its length by the map.
        len: u32,
        /// How many bytes there are.
        have: usize,
        /// The digest by the map.
        expected: Digest,
        /// The bytes' digest.
        found: Digest,
    },
    /// Every chunk is right, but together they are another blob: the map lies, and so did who signed it.
    #[error(
        "every chunk is as the map says, but together they are {found} and not {expected}: the map was made wrongly; tell its signer"
    )]
    Content {
        /// The blob's digest by the map.
        expected: Digest,
        /// The content's digest.
        found: Digest,
    },
    /// An encoded map is not the one that was asked for.
    #[error(
        "the chunk map {expected} was asked for, but these bytes are {found}: fetch it from another peer"
    )]
    Name {
        /// The digest in the release.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// The file could not be read, or the copy not written.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The file's length changed while it was read.
    #[error(
        "the file changed while it was read: {expected} bytes were expected, {found} or more were there; try again when nobody writes to it"
    )]
    Changed {
        /// The length at the start.
        expected: u64,
        /// Bytes seen.
        found: u64,
    },
    /// The layout does not describe a file of this size.
    #[error("the layout ends at byte {end} but the file has {size}: it belongs to another file")]
    Layout {
        /// Where the layout's last tensor ends.
        end: u64,
        /// The file's size.
        size: u64,
    },
}

impl ChunkError {
    /// A short stable name of the defect, as the test vectors in `specs/vectors/01` use it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::Trailing { .. } => "trailing",
            Self::Magic => "magic",
            Self::Version(_) => "version",
            Self::TooMany { .. } => "too-many",
            Self::Length { .. } => "length",
            Self::Sum { .. } => "sum",
            Self::Blob { .. } => "blob",
            Self::Index { .. } => "index",
            Self::Damaged { .. } => "damaged",
            Self::Content { .. } => "content",
            Self::Name { .. } => "name",
            Self::Io(_) => "io",
            Self::Changed { .. } => "changed",
            Self::Layout { .. } => "layout",
        }
    }
}
