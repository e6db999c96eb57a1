//! The lossless wire codec for chunks (`specs/07-wire-codec.md`).
//!
//! ```text
//! chunk --Layout (a hint)--> Encoder --(Encoding, bytes)--> the wire --> Decoder --> the same chunk
//! ```
//!
//! Weights hardly repeat, so matching finds nothing in them; what is left is that exponents and scales take few values.
//! The bytes of a chunk are therefore sorted by their place in the element (`planes`) or in the quantisation block
//! (`blocks`), and each of these streams is either coded by Zstandard's Huffman stage alone or left as it is
//! (`entropy`). What has no known layout goes through plain Zstandard.
//!
//! A digest is always of the uncompressed chunk, so nothing here is trusted: a wrong layout costs bytes on the wire, a
//! wrong encoding is refused or does not match the digest.

mod blocks;
mod decode;
mod encode;
mod entropy;
mod error;
mod layout;
mod planes;

pub use decode::Decoder;
pub use encode::Encoder;
pub use error::CodecError;
pub use layout::{Layout, Layouts};

use crate::chunk;

/// Longest chunk that is encoded or decoded, in bytes: the longest that a chunk map may have.
pub const MAX_RAW: usize = chunk::MAX_CHUNK as usize;
/// A chunk travels encoded only where that saves at least so many hundredths of its bytes. Decoding costs the receiver
/// about half a second of CPU for each GiB; under this the time is better spent elsewhere.
pub const MIN_SAVING_PERCENT: usize = 3;

/// How a chunk's bytes travel: the identifier on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// As they are.
    Raw = 0,
    /// One Zstandard frame.
    Zstd = 1,
    /// Elements of 2 bytes (BF16, F16), rotated left by one bit and split into two planes.
    Planes2 = 2,
    /// Elements of 4 bytes (F32), rotated and split into four planes.
    Planes4 = 3,
    /// Elements of 8 bytes (F64), rotated and split into eight planes.
    Planes8 = 4,
    /// Blocks of fields (GGUF's quantised types), one stream a field.
    Blocks = 5,
}

impl Encoding {
    /// Every encoding, by rising identifier.
    pub const ALL: [Self; 6] =
        [Self::Raw, Self::Zstd, Self::Planes2, Self::Planes4, Self::Planes8, Self::Blocks];

    /// The identifier on the wire.
    pub const fn id(self) -> u8 {
        self as u8
    }
}

impl TryFrom<u8> for Encoding {
    type Error = CodecError;

    fn try_from(id: u8) -> Result<Self, CodecError> {
        Self::ALL.get(usize::from(id)).copied().ok_or(CodecError::Encoding(id))
    }
}

#[cfg(test)]
mod tests;
