//! Attachments: files of a release that say something about it, in formats of other tools.
//!
//! A file is an attachment by its media type alone, so that it is digested, signed, fetched and mirrored like every other
//! file (`specs/11-model-signing-and-attachments.md`). What is in it is the word of whoever made it: it is shown to people
//! and decides nothing.

mod cyclonedx;
mod import;
mod origin;
mod slsa;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Sha256;
use crate::oms;
use crate::statement::Release;

pub use import::ImportRecord;
pub use origin::Origin;

/// Most attachments of one release: one or two of each kind are usual.
pub const MAX_ATTACHMENTS: usize = 16;
/// Longest attachment that is looked into, in bytes. Longer ones are carried, and said to be too long.
pub const MAX_SIZE: u64 = 16 * 1024 * 1024;
/// Longest text of an attachment that is shown, in characters: an identifier or a licence fits.
const MAX_SHOWN: usize = 200;
/// Most names of a list that are shown.
const MAX_LISTED: usize = 16;
/// The folder of a release in which `publish` puts attachments.
pub const FOLDER: &str = "attachments";

/// What an attachment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An OpenSSF Model Signing bundle over the release's other files.
    Oms,
    /// SLSA provenance: who built it, from what.
    Slsa,
    /// A CycloneDX bill of materials of a model.
    Mlbom,
    /// From whom or from where a release was imported.
    Import,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Oms, Self::Slsa, Self::Mlbom, Self::Import];

    /// The media type that makes a file an attachment of this kind.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Oms => oms::MEDIA_TYPE,
            Self::Slsa => "application/vnd.in-toto.provenance+json",
            Self::Mlbom => "application/vnd.cyclonedx+json",
            Self::Import => "application/vnd.steelyard.import+json",
        }
    }

    /// The kind of a file with this media type.
    pub fn of(media_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.media_type() == media_type)
    }

    /// Its name, as people type it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Oms => "oms",
            Self::Slsa => "slsa",
            Self::Mlbom => "mlbom",
            Self::Import => "import",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = AttachmentError;

    fn from_str(text: &str) -> Result<Self, AttachmentError> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| AttachmentError::Kind(crate::shorten(text)))
    }
}

/// Why an attachment can't be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachmentError {
    /// No such kind.
    #[error("`{0}` is no kind of attachment; slsa and mlbom are")]
    Kind(String),
    /// Too long to look into.
    #[error("it has {size} bytes, over the limit of {MAX_SIZE} for what is shown; read it with another tool")]
    TooLarge {
        /// Its size.
        size: u64,
    },
    /// Not what its media type says.
    #[error("it is no {kind} that can be read: {why}")]
    Malformed {
        /// What it should be.
        kind: Kind,
        /// Why not.
        why: String,
    },
}

impl AttachmentError {
    /// A short stable code, as vectors name it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Kind(_) => "kind",
            Self::TooLarge { .. } => "too-large",
            Self::Malformed { .. } => "malformed",
        }
    }
}

/// The essentials of an attachment, for people. All texts are shortened and without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Summary {
    /// Of a Model Signing bundle. Its signature is not checked here: that takes a public key that a person trusts.
    Oms {
        /// SHA-256 of the key's PEM that it names.
        signer: String,
        /// The model's name in it.
        name: String,
        /// Files that it lists.
        files: usize,
        /// Of these, files that the release holds with the same SHA-256.
        matching: usize,
    },
    /// Of SLSA provenance.
    Slsa {
        /// Who built.
        builder: String,
        /// How.
        build_type: String,
        /// Materials that it names.
        materials: usize,
        /// Files that it speaks of.
        subjects: usize,
        /// Of these, files that the release holds with the same SHA-256.
        matching: usize,
    },
    /// Of a CycloneDX bill of materials.
    Mlbom {
        /// The specification's version.
        version: String,
        /// What it describes.
        subject: String,
        /// Components that it lists, nested ones too.
        components: usize,
        /// Of these, machine-learning models and data sets.
        models: usize,
        /// Licences of its subject and its components, each once.
        licences: Vec<String>,
    },
    /// Of an import's record.
    Import {
        /// Who imported it.
        nation: String,
        /// In which format it was signed, or what kind of source it came from.
        format: String,
        /// SHA-256 of the signer's public key in PEM; empty where nobody had signed it.
        signer: String,
        /// Its name there.
        name: String,
    },
}

/// Reads what `bytes`, a file of `release` of the given kind, say. Lenient: what is missing is shown as nothing, what is
/// unknown is passed over.
pub fn describe(kind: Kind, bytes: &[u8], release: Option<&Release>) -> Result<Summary, AttachmentError> {
    if bytes.len() as u64 > MAX_SIZE {
        return Err(AttachmentError::TooLarge { size: bytes.len() as u64 });
    }
    let malformed = |why: String| AttachmentError::Malformed { kind, why };
    let value: Value = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    if !value.is_object() {
        return Err(malformed("a JSON object is expected".to_owned()));
    }
    let matches = |digest: &str| {
        Sha256::from_hex(digest).is_ok_and(|digest| {
            release.is_some_and(|release| release.files.iter().any(|file| file.sha256 == digest))
        })
    };
    match kind {
        Kind::Slsa => slsa::describe(&value, &matches),
        Kind::Mlbom => cyclonedx::describe(&value),
        Kind::Oms => slsa::describe_oms(&value, &matches),
        Kind::Import => import::describe(&value),
    }
    .map_err(malformed)
}

/// Foreign text as it may be shown: control characters and what changes the direction of writing taken out, cut off after
/// 200 characters.
pub(crate) fn clean(text: &str) -> String {
    let direction = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let mut kept = text.chars().filter(|c| !c.is_control() && !direction(*c));
    let mut out: String = kept.by_ref().take(MAX_SHOWN).collect();
    if kept.next().is_some() {
        out.push('…');
    }
    out
}

/// The text at a JSON pointer, cleaned; empty when there is none.
pub(crate) fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).map(clean).unwrap_or_default()
}

/// The list at a JSON pointer; empty when there is none.
pub(crate) fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests;
