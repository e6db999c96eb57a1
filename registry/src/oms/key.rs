//! ECDSA P-256 keys in PEM, as OpenSSL writes them.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{Signature, SigningKey as Secret, VerifyingKey};
use p256::pkcs8::{DecodePublicKey, EncodePublicKey, LineEnding};
use sha2::{Digest as _, Sha256 as Hasher};
use zeroize::Zeroizing;

use super::OmsError;
use crate::digest::Sha256;

/// Longest key file, in bytes: a PEM of P-256 has under 300.
const MAX_PEM: u64 = 4096;

/// A public key, named by the SHA-256 of its PEM text as the stock client computes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
    pem: String,
}

impl PublicKey {
    /// Reads `-----BEGIN PUBLIC KEY-----` of a P-256 key.
    pub fn from_pem(pem: &str) -> Result<Self, OmsError> {
        if pem.len() as u64 > MAX_PEM {
            return Err(public("it is too long"));
        }
        let key = VerifyingKey::from_public_key_pem(pem).map_err(public)?;
        Self::new(key)
    }

    /// Reads a file in PEM.
    pub fn load(path: &Path) -> Result<Self, OmsError> {
        let mut pem = String::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(MAX_PEM + 1).read_to_string(&mut pem));
        read.map_err(|error| public(format!("{}: {error}", path.display())))?;
        Self::from_pem(&pem)
    }

    fn new(key: VerifyingKey) -> Result<Self, OmsError> {
        // Written anew, so that white space and comments in a file change nothing.
        let pem = key.to_public_key_pem(LineEnding::LF).map_err(public)?;
        Ok(Self { key, pem })
    }

    /// The PEM text, with a line feed at its end.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the PEM text: what bundles name the key by.
    pub fn id(&self) -> Sha256 {
        Sha256::from_bytes(Hasher::digest(self.pem.as_bytes()).into())
    }

    /// Whether `signature` is one in DER, in its one encoding, by this key.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_der(signature).is_ok_and(|signature| self.key.verify(message, &signature).is_ok())
    }
}

/// A secret key.
pub struct SigningKey(Secret);

impl SigningKey {
    /// Reads `-----BEGIN PRIVATE KEY-----` or `-----BEGIN EC PRIVATE KEY-----` of a P-256 key.
    pub fn from_pem(pem: &str) -> Result<Self, OmsError> {
        let key = p256::SecretKey::from_pem(pem).map_err(|error| OmsError::Key {
            what: "this is no ECDSA P-256 secret key in PEM",
            why: error.to_string(),
        })?;
        Ok(Self(Secret::from(key)))
    }

    /// Reads a file in PEM that nobody else may read.
    pub fn load(path: &Path) -> Result<Self, OmsError> {
        let wrong = |why: String| OmsError::Key { what: "the key can't be used", why };
        let shown = path.display();
        let file = std::fs::File::open(path).map_err(|error| wrong(format!("{shown}: {error}")))?;
        let mode = file.metadata().map_err(|error| wrong(format!("{shown}: {error}")))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(wrong(format!("others may read {shown}: run `chmod 600 {shown}`")));
        }
        let mut pem = Zeroizing::new(String::new());
        file.take(MAX_PEM).read_to_string(&mut pem).map_err(|error| wrong(format!("{shown}: {error}")))?;
        Self::from_pem(&pem)
    }

    /// The key with this secret number, big-endian.
    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(super) fn from_scalar(scalar: &[u8; 32]) -> Self {
        Self(Secret::from_slice(scalar).unwrap())
    }

    /// The public half.
    pub fn public(&self) -> Result<PublicKey, OmsError> {
        PublicKey::new(*self.0.verifying_key())
    }

    /// A signature in DER. Its nonce is made from key and message (RFC 6979), so that no random source can leak the key.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign(message);
        signature.to_der().as_bytes().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

fn public(error: impl fmt::Display) -> OmsError {
    OmsError::Key { what: "this is no ECDSA P-256 public key in PEM", why: error.to_string() }
}
