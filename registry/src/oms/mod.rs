//! OpenSSF Model Signing: bundles that the stock `model_signing` client verifies, and theirs, read more strictly.
//!
//! A bundle is a sigstore bundle v0.3 in JSON around a DSSE envelope with one ECDSA P-256 signature over an in-toto
//! statement, which lists every file of a folder with its SHA-256 (`specs/11-model-signing-and-attachments.md`). It says
//! nothing here about who may publish: that is the release's own signature. It is for people who have the folder and that
//! tool, and for taking in what others signed with it.

mod bundle;
mod key;
mod manifest;
mod release;

pub use bundle::{sign, verify};
pub use key::{PublicKey, SigningKey};
pub use manifest::{Manifest, MismatchedFile};
pub use release::{folder_paths, in_folder, listed, sign_release};

/// The media type of a bundle, in the bundle itself and in a release.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The predicate of the signed statement.
pub const PREDICATE_TYPE: &str = "https://model_signing/signature/v1.0";
/// What a bundle is called in a folder, by that client's own default.
pub const FILE_NAME: &str = "model.sig";
/// Longest bundle, in bytes: 16,384 files with long paths, in base64.
pub const MAX_BUNDLE: usize = 16 * 1024 * 1024;
/// Most paths that a bundle may leave out: the client writes five; someone who ignores many hides something.
pub const MAX_IGNORED: usize = 64;
/// Longest name of a model, in bytes: a folder's name.
pub const MAX_NAME: usize = 255;

/// Why a bundle, a key or a folder was refused.
#[derive(Debug, thiserror::Error)]
pub enum OmsError {
    /// Too long.
    #[error("the bundle has {size} bytes, over the limit of {MAX_BUNDLE}; it is no signature of a model")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// Not JSON of the right shape.
    #[error("this is no OpenSSF Model Signing bundle: {0}; sign the folder with `model_signing sign key`")]
    Malformed(String),
    /// Another bundle or payload type.
    #[error(
        "the bundle's {what} is `{found}`, not `{wanted}`; sign the folder again with a current `model_signing`"
    )]
    Type {
        /// Which field.
        what: &'static str,
        /// What it says.
        found: String,
        /// What is known here.
        wanted: &'static str,
    },
    /// None or several signatures.
    #[error("the bundle carries {0} signatures, one is expected; ask its signer which one counts")]
    SignatureCount(usize),
    /// Signed by certificate or without a key.
    #[error("the bundle is not signed with a key but with {0}; only `model_signing sign key` is read here")]
    NotByKey(&'static str),
    /// Signed by another key.
    #[error(
        "the bundle names the key {found}, the one given is {given}; ask its signer for the right public key"
    )]
    OtherKey {
        /// SHA-256 of the key that the bundle names.
        found: String,
        /// SHA-256 of the key given.
        given: String,
    },
    /// The signature does not verify.
    #[error(
        "the bundle's signature is not by the key {key}, or the bundle was altered; do not use this folder"
    )]
    BadSignature {
        /// SHA-256 of the key.
        key: String,
    },
    /// A way of hashing that is not read here.
    #[error(
        "the bundle uses {what} `{found}`; only single files with sha256 are read here: sign with `--method`'s default"
    )]
    Method {
        /// Which setting.
        what: &'static str,
        /// What it says.
        found: String,
    },
    /// The listed files break a rule.
    #[error("the bundle's list of files is refused: {0}")]
    Files(String),
    /// The subject is not the digest of the list.
    #[error(
        "the bundle's subject {found} is not the digest of its files, {computed}; its signer made it wrongly"
    )]
    Root {
        /// What it says.
        found: String,
        /// What it must be.
        computed: String,
    },
    /// The folder is not what was signed.
    #[error("the folder is not what was signed: {}", manifest::list(.0))]
    Mismatch(Vec<MismatchedFile>),
    /// A key can't be read.
    #[error("{what}: {why}; make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`")]
    Key {
        /// Which key.
        what: &'static str,
        /// Why not.
        why: String,
    },
}

impl OmsError {
    /// A short stable code, as vectors name it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too-large",
            Self::Malformed(_) => "malformed",
            Self::Type { .. } => "type",
            Self::SignatureCount(_) => "signature-count",
            Self::NotByKey(_) => "not-by-key",
            Self::OtherKey { .. } => "other-key",
            Self::BadSignature { .. } => "bad-signature",
            Self::Method { .. } => "method",
            Self::Files(_) => "files",
            Self::Root { .. } => "root",
            Self::Mismatch(_) => "mismatch",
            Self::Key { .. } => "key",
        }
    }
}

#[cfg(test)]
mod tests;
