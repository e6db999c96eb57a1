//! Digests: BLAKE3 names content, SHA-256 stands beside it for tools that know nothing else.
//!
//! A file is read once for both ([`hash_file`]). The text form of a BLAKE3 digest is `b3:` and 64 lowercase hex digits
//! (`specs/01-digests-and-chunk-maps.md`).

pub mod tree;

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// The prefix of a BLAKE3 digest's text form.
pub const PREFIX: &str = "b3:";
/// Bytes read at a time while hashing: large enough for BLAKE3's widest SIMD path, small enough for the L2 cache.
const READ_SIZE: usize = 256 * 1024;

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest: expected `b3:` and 64 lowercase hexadecimal digits")]
pub struct DigestError(pub String);

macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The digest with these 32 bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// 64 lowercase hexadecimal digits, without a prefix.
            pub fn to_hex(&self) -> String {
                HEXLOWER.encode(&self.0)
            }

            /// Reads exactly 64 lowercase hexadecimal digits.
            pub fn from_hex(text: &str) -> Result<Self, DigestError> {
                let mut bytes = [0; 32];
                // The length first: `decode_mut` panics when the output is not of the length that it expects.
                let fits = text.len() == 64 && HEXLOWER.decode_mut(text.as_bytes(), &mut bytes).is_ok();
                if fits { Ok(Self(bytes)) } else { Err(DigestError(crate::shorten(text))) }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

digest_type! {
    /// The BLAKE3 hash (32 bytes) of raw content: a blob, a chunk, a chunk map or a statement's payload.
    Digest
}
digest_type! {
    /// The SHA-256 hash (32 bytes) of raw content, as other tools name it.
    Sha256
}

impl Digest {
    /// The BLAKE3 hash of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }

    /// The first 12 hexadecimal digits: for people and log lines, never for a decision.
    pub fn short(&self) -> String {
        HEXLOWER.encode(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.to_hex())
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = text.strip_prefix(PREFIX).ok_or_else(|| DigestError(crate::shorten(text)))?;
        Self::from_hex(hex)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::from_hex(&text).map_err(serde::de::Error::custom)
    }
}

/// What one pass over a file yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileDigests {
    /// BLAKE3 of the content.
    pub blake3: Digest,
    /// SHA-256 of the content.
    pub sha256: Sha256,
    /// Bytes read.
    pub size: u64,
}

/// Hashes a stream for BLAKE3 and SHA-256 in one pass.
#[derive(Debug, Default)]
pub struct FileHasher {
    blake3: blake3::Hasher,
    sha256: sha2::Sha256,
    size: u64,
}

impl FileHasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.blake3.update(bytes);
        self.sha256.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// The digests of everything taken so far.
    pub fn finish(self) -> FileDigests {
        FileDigests {
            blake3: Digest(*self.blake3.finalize().as_bytes()),
            sha256: Sha256(self.sha256.finalize().into()),
            size: self.size,
        }
    }
}

/// The BLAKE3 hash of content that comes in pieces, in order.
#[derive(Debug, Default)]
pub struct DigestHasher(blake3::Hasher);

impl DigestHasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything taken so far.
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

/// Hashes everything `reader` yields, once, for both digests.
pub fn hash_file(mut reader: impl Read) -> io::Result<FileDigests> {
    let mut hasher = FileHasher::default();
    for_each_block(&mut reader, |block| hasher.update(block))?;
    Ok(hasher.finish())
}

/// The BLAKE3 digest of everything `reader` yields.
pub fn blake3_file(mut reader: impl Read) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    for_each_block(&mut reader, |block| {
        hasher.update(block);
    })?;
    Ok(Digest(*hasher.finalize().as_bytes()))
}

fn for_each_block(reader: &mut impl Read, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; READ_SIZE];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => take(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn text_form_round_trips_and_refuses_everything_else() {
        let digest = Digest::of(b"steelyard");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        let hex = digest.to_hex();
        for wrong in
            [&hex[..], "b3:", "b3:00", &format!("b3:{}", hex.to_uppercase()), &format!("b3:{hex}0"), "é"]
        {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_pass_equals_two() {
        let content = vec![7u8; READ_SIZE * 2 + 13];
        let digests = hash_file(&content[..]).unwrap();
        assert_eq!(digests.blake3, Digest::of(&content));
        assert_eq!(digests.blake3, blake3_file(&content[..]).unwrap());
        assert_eq!(digests.sha256.0, <[u8; 32]>::from(sha2::Sha256::digest(&content)));
        assert_eq!(digests.size, content.len() as u64);
    }
}
