//! Ed25519 keys: identifiers, signing, and where secrets lie: in a file in the clear, in one that a passphrase opens, or in
//! a token.

mod file;
mod sealed;
mod token;
mod uri;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::digest::Digest;

pub use file::{KeyFile, MAX_KEY_FILE, read_passphrase, read_private};
pub use sealed::Sealed;
pub use token::TokenKey;
pub use uri::TokenUri;

/// What can go wrong with a key or its file.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read or written.
    #[error("key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others could read the secret.
    #[error("key file {path} has mode {mode:03o}: others may read the secret; run `chmod 600 {path}`")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error("{path} is not a Steelyard key file: {why}")]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The key can't be used without a person.
    #[error("{path} holds {what}; this needs a key file in the clear (`steelyard key decrypt`)")]
    NotPlain {
        /// The file.
        path: PathBuf,
        /// What it holds instead.
        what: &'static str,
    },
    /// An empty passphrase.
    #[error("the passphrase is empty; choose one of several words")]
    NoPassphrase,
    /// The key does not open.
    #[error("the passphrase is wrong, or the key file was changed")]
    WrongPassphrase,
    /// The passphrase could not be turned into a key.
    #[error("the passphrase could not be turned into a key: {0}")]
    Derive(String),
    /// A token refused or failed.
    #[error("the key `{object}` in the token `{token}` can't be used: {why}")]
    Token {
        /// The token's label.
        token: String,
        /// The key's label.
        object: String,
        /// What went wrong.
        why: String,
    },
    /// A public key's text or point is invalid.
    #[error(
        "`{0}` is not an Ed25519 public key: expected 64 lowercase hexadecimal digits of a valid, strong point"
    )]
    BadPublic(String),
    /// A key identifier's text is invalid.
    #[error("`{0}` is not a key identifier: expected 64 lowercase hexadecimal digits")]
    BadId(String),
    /// The system gave no randomness.
    #[error("the system's random source failed: {0}")]
    Random(String),
}

/// Names a key: the BLAKE3 hash of `ed25519:` and the 32 public bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Digest);

impl KeyId {
    /// 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        Digest::from_hex(text).map(Self).map_err(|_| KeyError::BadId(crate::shorten(text)))
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An Ed25519 public key that is a valid point of large order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// The key with these 32 bytes; small-order points are refused, since they verify what nobody signed.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        VerifyingKey::from_bytes(bytes)
            .ok()
            .filter(|key| !key.is_weak())
            .map(Self)
            .ok_or_else(|| KeyError::BadPublic(HEXLOWER.encode(bytes)))
    }

    /// The 32 bytes.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// This key's identifier.
    pub fn id(&self) -> KeyId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"ed25519:").update(self.0.as_bytes());
        KeyId(Digest::from_bytes(*hasher.finalize().as_bytes()))
    }

    /// Strict verification (no small-order components, canonical scalars), so that all implementations agree.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(self.0.as_bytes()))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&HEXLOWER.encode(self.0.as_bytes()))
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let bytes = Digest::from_hex(&text)
            .map_err(|_| serde::de::Error::custom(KeyError::BadPublic(crate::shorten(&text))))?;
        Self::from_bytes(bytes.as_bytes()).map_err(serde::de::Error::custom)
    }
}

/// A secret key. Erased from memory when dropped; its `Debug` shows only the identifier.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A new random key.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0u8; 32]);
        getrandom::fill(seed.as_mut()).map_err(|error| KeyError::Random(error.to_string()))?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// The key with this 32-byte seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The 32-byte seed, for a library that needs the key itself (libp2p's identity).
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// This key's identifier.
    pub fn id(&self) -> KeyId {
        self.public().id()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// Reads a key file in the clear, refusing one that others may read.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let not_plain = |what| Err(KeyError::NotPlain { path: path.to_owned(), what });
        match KeyFile::load(path)? {
            KeyFile::Plain(key) => Ok(key),
            KeyFile::Sealed(_) => not_plain("an encrypted key"),
            KeyFile::Token(_) => not_plain("the name of a key in a token"),
        }
    }

    /// Writes a new key file with mode 0600, durably; an existing file is never replaced.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        KeyFile::Plain(Self::from_seed(&self.seed())).save(path)
    }
}

/// Whatever signs: a key in memory or one in a token.
pub trait Signer {
    /// The public half.
    fn public(&self) -> PublicKey;

    /// Signs a message (Ed25519, RFC 8032, without a prehash). A key in memory never fails.
    fn try_sign(&self, message: &[u8]) -> Result<[u8; 64], KeyError>;

    /// The key's identifier.
    fn id(&self) -> KeyId {
        self.public().id()
    }
}

impl Signer for SecretKey {
    fn public(&self) -> PublicKey {
        Self::public(self)
    }

    fn try_sign(&self, message: &[u8]) -> Result<[u8; 64], KeyError> {
        Ok(self.sign(message))
    }
}

/// A key that is open and ready to sign.
#[derive(Debug)]
pub enum Key {
    /// In memory.
    Memory(Box<SecretKey>),
    /// In a token.
    Token(Box<TokenKey>),
}

impl Signer for Key {
    fn public(&self) -> PublicKey {
        match self {
            Self::Memory(key) => key.public(),
            Self::Token(key) => key.public(),
        }
    }

    fn try_sign(&self, message: &[u8]) -> Result<[u8; 64], KeyError> {
        match self {
            Self::Memory(key) => key.try_sign(message),
            Self::Token(key) => key.try_sign(message),
        }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.id().short())
    }
}
