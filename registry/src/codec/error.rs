//! What can be wrong with an encoded chunk.

use super::MAX_RAW;

/// Why an encoded chunk was refused. In each case its sender is at fault: the chunk is asked of another peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// An identifier that this program does not know.
    #[error(
        "the chunk has the unknown encoding {0}: upgrade this program, or ask for the chunk uncompressed"
    )]
    Encoding(u8),
    /// The chunk is longer than any chunk may be.
    #[error("the chunk has {found} bytes; the limit is {MAX_RAW}")]
    Limit {
        /// Its length when decoded.
        found: usize,
    },
    /// A chunk that travels as it is has another length.
    #[error("the chunk has {found} bytes and its map says {expected}: ask another peer for it")]
    Length {
        /// What came.
        found: usize,
        /// What the chunk map says.
        expected: usize,
    },
    /// The encoding is not shorter than the chunk.
    #[error(
        "the encoded chunk has {found} bytes, no fewer than the {raw} of the chunk: ask another peer for it"
    )]
    NotSmaller {
        /// Bytes that came.
        found: usize,
        /// The chunk's length.
        raw: usize,
    },
    /// It ends too early.
    #[error("the encoded chunk ends within {0}: ask another peer for it")]
    Truncated(&'static str),
    /// Something stands behind its end.
    #[error("{0} bytes stand behind the end of the encoded chunk: ask another peer for it")]
    Trailing(usize),
    /// A stream is longer than what it stands for.
    #[error("a stream of the encoded chunk has {found} bytes for {expected}: ask another peer for it")]
    Stream {
        /// Its length on the wire.
        found: usize,
        /// Its length when decoded.
        expected: usize,
    },
    /// The fields do not make up a block of a possible length.
    #[error("the encoded chunk describes impossible blocks: ask another peer for it")]
    Fields,
    /// A Zstandard frame that is not of the one form allowed.
    #[error("the encoded chunk has a Zstandard frame of a form that is not allowed: ask another peer for it")]
    Frame,
    /// A frame that announces another length than the chunk map.
    #[error("a frame of the encoded chunk announces {found} bytes for {expected}: ask another peer for it")]
    ContentSize {
        /// What its header says.
        found: u64,
        /// What must come out.
        expected: usize,
    },
    /// Zstandard refuses the frame.
    #[error("a frame of the encoded chunk is damaged ({0}): ask another peer for it")]
    Damaged(&'static str),
}

impl CodecError {
    /// A short stable name of the defect, as the test vectors in `specs/vectors/07` use it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Encoding(_) => "encoding",
            Self::Limit { .. } => "limit",
            Self::Length { .. } => "length",
            Self::NotSmaller { .. } => "not-smaller",
            Self::Truncated(_) => "truncated",
            Self::Trailing(_) => "trailing",
            Self::Stream { .. } => "stream",
            Self::Fields => "fields",
            Self::Frame => "frame",
            Self::ContentSize { .. } => "content-size",
            Self::Damaged(_) => "damaged",
        }
    }
}
