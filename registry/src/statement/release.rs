//! A release: the signed, immutable statement of one version of one model.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{Kind, Predicate, StatementError, Subject, SubjectDigest};
use crate::attachment;
use crate::chunk::{MAX_CHUNK, MAX_CHUNKS};
use crate::digest::{Digest, Sha256};
use crate::reference::{Model, Nation, Version};
use crate::timestamp::Timestamp;

/// Most files of one release (the largest public models have a few hundred).
pub const MAX_FILES: usize = 16_384;
/// Largest file, in bytes: what the longest chunk map can name, 4 TiB.
pub const MAX_FILE_SIZE: u64 = MAX_CHUNKS as u64 * MAX_CHUNK as u64;
/// Most bases that one release may name (merges name a handful).
pub const MAX_LINEAGE: usize = 64;
/// Most nations in `releasableTo`.
pub const MAX_NATIONS: usize = 256;
/// Longest media type or format name, in bytes.
const MAX_LABEL: usize = 128;

/// One file of a release. Its digests stand in the in-toto subject, the rest in the predicate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Path within the release, with `/`.
    pub path: String,
    /// BLAKE3 of the content: the blob's name.
    pub blake3: Digest,
    /// SHA-256 of the content.
    pub sha256: Sha256,
    /// Bytes.
    pub size: u64,
    /// Such as `application/octet-stream`.
    pub media_type: String,
    /// BLAKE3 of the encoded chunk map.
    pub chunk_map: Digest,
}

/// How a release was made from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Relation {
    FineTune,
    Quantisation,
    Merge,
    Adapter,
    Distillation,
}

/// One edge of a release's lineage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DerivedFrom {
    /// The base release's digest.
    pub release: Digest,
    /// How it was made.
    pub relation: Relation,
}

/// Which nations may have a release. Its publisher always may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Releasable {
    /// Every nation; written `"all"`.
    All,
    /// These nations; written as a list.
    Nations(BTreeSet<Nation>),
}

impl Releasable {
    /// Whether `nation` is named.
    pub fn allows(&self, nation: &Nation) -> bool {
        match self {
            Self::All => true,
            Self::Nations(nations) => nations.contains(nation),
        }
    }
}

impl fmt::Display for Releasable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Nations(nations) if nations.is_empty() => f.write_str("nobody else"),
            Self::Nations(nations) => {
                f.write_str(&nations.iter().map(Nation::as_str).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl Serialize for Releasable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Nations(nations) => nations.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Releasable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            All(String),
            Nations(Vec<Nation>),
        }
        use serde::de::Error;
        match Text::deserialize(deserializer)? {
            Text::All(all) if all == "all" => Ok(Self::All),
            Text::All(_) => Err(D::Error::custom("releasableTo is \"all\" or a list of nations")),
            Text::Nations(list) => {
                let count = list.len();
                let nations: BTreeSet<_> = list.into_iter().collect();
                if nations.len() != count || count > MAX_NATIONS {
                    return Err(D::Error::custom(
                        "releasableTo names a nation twice or more than 256 nations",
                    ));
                }
                Ok(Self::Nations(nations))
            }
        }
    }
}

/// One version of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The model; its nation is the signer.
    pub model: Model,
    /// The version.
    pub version: Version,
    /// The weights' format: `gguf`, `safetensors` or another short name.
    pub format: String,
    /// SPDX expression, such as `Apache-2.0`.
    pub licence: String,
    /// What it was made from.
    pub derived_from: Vec<DerivedFrom>,
    /// Who may have it.
    pub releasable_to: Releasable,
    /// Path of the model card among the files.
    pub model_card: Option<String>,
    /// When it was signed.
    pub issued: Timestamp,
    /// The files, in the order of the subjects.
    pub files: Vec<File>,
}

impl Release {
    /// Bytes of all files together.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// The file at `path`.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether `nation` may have it: its publisher, and whoever `releasableTo` names.
    pub fn releasable_to(&self, nation: &Nation) -> bool {
        *nation == self.model.nation || self.releasable_to.allows(nation)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireFile {
    path: String,
    size: u64,
    media_type: String,
    chunk_map: Digest,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    model: Model,
    version: Version,
    format: String,
    licence: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    derived_from: Vec<DerivedFrom>,
    releasable_to: Releasable,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model_card: Option<String>,
    issued: Timestamp,
    files: Vec<WireFile>,
}

impl Serialize for Release {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let files = self
            .files
            .iter()
            .map(|file| WireFile {
                path: file.path.clone(),
                size: file.size,
                media_type: file.media_type.clone(),
                chunk_map: file.chunk_map,
            })
            .collect();
        Wire {
            model: self.model.clone(),
            version: self.version.clone(),
            format: self.format.clone(),
            licence: self.licence.clone(),
            derived_from: self.derived_from.clone(),
            releasable_to: self.releasable_to.clone(),
            model_card: self.model_card.clone(),
            issued: self.issued,
            files,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Release {
    /// Yields files whose digests are still zero: [`read`] fills them in from the subjects.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let files = wire
            .files
            .into_iter()
            .map(|file| File {
                path: file.path,
                blake3: Digest::from_bytes([0; 32]),
                sha256: Sha256::from_bytes([0; 32]),
                size: file.size,
                media_type: file.media_type,
                chunk_map: file.chunk_map,
            })
            .collect();
        Ok(Self {
            model: wire.model,
            version: wire.version,
            format: wire.format,
            licence: wire.licence,
            derived_from: wire.derived_from,
            releasable_to: wire.releasable_to,
            model_card: wire.model_card,
            issued: wire.issued,
            files,
        })
    }
}

pub(super) fn read(raw: &RawValue, subjects: &[Subject]) -> Result<Release, StatementError> {
    let mut release: Release = super::read_unchecked(raw)?;
    if subjects.len() != release.files.len() {
        let rule = format!("{} subjects for {} files", subjects.len(), release.files.len());
        return Err(StatementError::Subject { kind: Kind::Release, rule });
    }
    for (file, subject) in release.files.iter_mut().zip(subjects) {
        let Some(sha256) = subject.digest.sha256.filter(|_| subject.name == file.path) else {
            let rule = format!(
                "file `{}` needs a subject of the same name, in the same order, with blake3 and sha256",
                crate::shorten(&file.path)
            );
            return Err(StatementError::Subject { kind: Kind::Release, rule });
        };
        file.blake3 = subject.digest.blake3;
        file.sha256 = sha256;
    }
    release.check(subjects)?;
    Ok(release)
}

impl Predicate for Release {
    const KIND: Kind = Kind::Release;
    const FIELDS: &'static [&'static str] = &[
        "critical",
        "model",
        "version",
        "format",
        "licence",
        "derivedFrom",
        "releasableTo",
        "modelCard",
        "issued",
        "files",
    ];

    fn check(&self, _: &[Subject]) -> Result<(), StatementError> {
        if self.files.is_empty() || self.files.len() > MAX_FILES {
            return Err(Self::field(
                "files",
                format!("a release has 1 to {MAX_FILES} files, this one {}", self.files.len()),
            ));
        }
        if self.derived_from.len() > MAX_LINEAGE {
            return Err(Self::field("derivedFrom", format!("more than {MAX_LINEAGE} bases")));
        }
        Self::text("licence", &self.licence)?;
        let attached =
            self.files.iter().filter(|file| attachment::Kind::of(&file.media_type).is_some()).count();
        if attached > attachment::MAX_ATTACHMENTS {
            let rule =
                format!("{attached} attachments are over the limit of {}", attachment::MAX_ATTACHMENTS);
            return Err(Self::field("files", rule));
        }
        let label = |field, text: &str| {
            let fits =
                !text.is_empty() && text.len() <= MAX_LABEL && text.bytes().all(|b| b.is_ascii_graphic());
            if fits {
                Ok(())
            } else {
                Err(Self::field(field, "1 to 128 visible ASCII characters are expected"))
            }
        };
        label("format", &self.format)?;
        crate::path::check_all(self.files.iter().map(|file| file.path.as_str()))
            .map_err(|error| Self::field("files", error.to_string()))?;
        for file in &self.files {
            label("mediaType", &file.media_type)?;
            if file.size > MAX_FILE_SIZE {
                return Err(Self::field("files", format!("`{}` is over 4 TiB", crate::shorten(&file.path))));
            }
        }
        if let Some(card) = &self.model_card
            && self.file(card).is_none()
        {
            return Err(Self::field(
                "modelCard",
                format!("`{}` is not among the files", crate::shorten(card)),
            ));
        }
        Ok(())
    }

    fn subjects(&self) -> Vec<Subject> {
        self.files
            .iter()
            .map(|file| Subject {
                name: file.path.clone(),
                digest: SubjectDigest { blake3: file.blake3, sha256: Some(file.sha256) },
            })
            .collect()
    }
}
