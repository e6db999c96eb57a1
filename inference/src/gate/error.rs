//! Why a file must not be served.

use std::fmt;
use std::io;

use registry::digest::Digest;
use registry::serving::FailCode;

/// Where the content of a file is another than admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In this chunk first.
    Chunk {
        /// Its number, from 0.
        chunk: usize,
        /// Where it begins in the file, in bytes.
        offset: u64,
        /// Its length in bytes.
        len: u32,
        /// How many chunks are wrong in all.
        wrong: usize,
    },
    /// Read once more, every chunk was right.
    Nowhere,
    /// Every chunk is what the chunk map says, which is therefore not this blob's.
    Map,
    /// The chunk map was not handed in, or is damaged itself.
    Unknown,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chunk { chunk, offset, len, wrong } => {
                write!(f, "chunk {chunk}, {len} bytes from byte {offset}, has other content")?;
                if *wrong > 1 { write!(f, ", and so have {} more", wrong - 1) } else { Ok(()) }
            }
            Self::Nowhere => {
                f.write_str("read once more it is right, so the disk or the memory gives different bytes at different times")
            }
            Self::Map => f.write_str("each chunk is what the signed chunk map says, so that the map is of another file: its publisher must sign anew"),
            Self::Unknown => f.write_str("its chunk map is not at hand to say where"),
        }
    }
}

/// A file that must not be served.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The content is not what was admitted.
    #[error(
        "`{path}` is not what was admitted: {place}. Its blob is {expected}, but the file's content is {found}. It was changed on \
         disk. `steelyard verify` finds every such file, and `--repair` fetches it again"
    )]
    HashMismatch {
        /// Path in the release.
        path: String,
        /// What the signed release says.
        expected: Digest,
        /// What the file holds.
        found: Digest,
        /// Where.
        place: Place,
    },
    /// A chunk that the node had checked and written is another when it is read.
    #[error(
        "`{path}` is not what was admitted: chunk {chunk}, {len} bytes from byte {offset}, was right when it came and is another now          that it is read. The disk or the memory gives different bytes; `steelyard doctor` looks at both, and serving it again goes on          with the transfer"
    )]
    Landed {
        /// Path in the release.
        path: String,
        /// Its number, from 0.
        chunk: usize,
        /// Where it begins in the file, in bytes.
        offset: u64,
        /// Its length in bytes.
        len: u32,
    },
    /// The file is longer or shorter than what was admitted.
    #[error(
        "`{path}` is not what was admitted: {expected} has {expected_size} bytes, the file has {found_size}. \
         `steelyard verify` finds every such file, and `--repair` fetches it again"
    )]
    Size {
        /// Path in the release.
        path: String,
        /// The blob.
        expected: Digest,
        /// Bytes that the signed release says.
        expected_size: u64,
        /// Bytes on disk.
        found_size: u64,
    },
    /// The file was written to while it was hashed.
    #[error(
        "`{path}` ({blob}) was written to while it was being checked. Nothing may write to the store: find what does, then \
         run `steelyard verify`"
    )]
    Changed {
        /// Path in the release.
        path: String,
        /// The blob.
        blob: Digest,
    },
    /// Somebody has the file open for writing.
    #[error(
        "`{path}` ({blob}) is open for writing by another process, which could change it while it is served. Nothing may \
         write to the store: find what does (`fuser -v` on the blob's file), then run `steelyard verify`"
    )]
    OpenForWriting {
        /// Path in the release.
        path: String,
        /// The blob.
        blob: Digest,
    },
    /// The node could not open it, or did not hand it in.
    #[error("the blob of `{path}` ({blob}) can't be served: {reason}")]
    NotHanded {
        /// Path in the release.
        path: String,
        /// The blob.
        blob: Digest,
        /// Why, and what to do.
        reason: String,
    },
    /// The file can't be read.
    #[error("the blob of `{path}` ({blob}) can't be read: {source}. Pull the release again")]
    Unreadable {
        /// Path in the release.
        path: String,
        /// The blob.
        blob: Digest,
        /// What the system said.
        source: io::Error,
    },
    /// The worker was told to stop meanwhile.
    #[error("stopped while checking `{path}`")]
    Halted {
        /// Path in the release.
        path: String,
    },
}

impl GateError {
    /// What the supervisor is told.
    pub fn code(&self) -> FailCode {
        match self {
            Self::HashMismatch { .. }
            | Self::Landed { .. }
            | Self::Size { .. }
            | Self::Changed { .. }
            | Self::OpenForWriting { .. } => FailCode::HashMismatch,
            Self::NotHanded { .. } | Self::Unreadable { .. } | Self::Halted { .. } => FailCode::Unreadable,
        }
    }
}
