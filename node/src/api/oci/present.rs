//! A release as an artifact: the bytes of its manifest and its configuration.
//!
//! They follow from the release's statement alone, field by field in a fixed order, so that they are the same everywhere. The
//! order of the fields, their names and the rules of `kind.rs` are a format: changing them changes every digest.

use std::collections::BTreeMap;

use axum::body::Bytes;
use registry::Digest;
use registry::digest::{FileHasher, Sha256};
use registry::oms::in_folder;
use registry::statement::{File, Release};
use serde::Serialize;

use super::kind;

/// An OCI image manifest, which artifacts use.
pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI index.
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's manifest, which Ollama uses.
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// The artifact type of a ModelPack model.
const MODEL: &str = "application/vnd.cncf.model.manifest.v1+json";
/// Its configuration.
const MODEL_CONFIG: &str = "application/vnd.cncf.model.config.v1+json";
/// Ollama's configuration.
const OLLAMA_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// The configuration of an artifact that has none: `{}`.
pub(super) const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Its content.
pub(super) const EMPTY_BYTES: &[u8] = b"{}";
/// The path of a layer's file.
const FILEPATH: &str = "org.cncf.model.filepath";
/// Its kind was guessed.
const UNTESTED: &str = "org.cncf.model.file.mediatype.untested";
/// What clients that know no models name the file.
pub(super) const TITLE: &str = "org.opencontainers.image.title";
/// The time of what an artifact holds.
pub(super) const CREATED: &str = "org.opencontainers.image.created";

/// What something is called in a manifest.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) artifact_type: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub(super) fn new(media_type: &str, digest: &Sha256, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: format!("sha256:{digest}"),
            size,
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }

    pub(super) fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, &sha256(bytes), bytes.len() as u64)
    }

    pub(super) fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.annotations.insert(key.to_owned(), value.into());
        self
    }
}

/// A manifest, of every form that is used here.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) schema_version: u32,
    pub(super) media_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) artifact_type: Option<String>,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Config<'a> {
    descriptor: About<'a>,
    modelfs: Layers,
    config: Technical<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct About<'a> {
    created_at: String,
    name: &'a str,
    version: &'a str,
    vendor: &'a str,
    licenses: [&'a str; 1],
    title: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Layers {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<String>,
}

#[derive(Serialize)]
struct Technical<'a> {
    format: &'a str,
}

#[derive(Serialize)]
struct OllamaConfig {
    model_format: &'static str,
    architecture: &'static str,
    os: &'static str,
    rootfs: OllamaLayers,
}

#[derive(Serialize)]
struct OllamaLayers {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<String>,
}

/// A release in one of the forms.
#[derive(Debug, Clone)]
pub(super) struct Presented {
    /// The manifest's media type.
    pub(super) media_type: &'static str,
    pub(super) manifest: Bytes,
    pub(super) digest: Sha256,
    pub(super) config_type: &'static str,
    pub(super) config: Bytes,
    pub(super) config_digest: Sha256,
}

/// The SHA-256 of `bytes`.
pub(super) fn sha256(bytes: &[u8]) -> Sha256 {
    let mut hasher = FileHasher::default();
    hasher.update(bytes);
    hasher.finish().sha256
}

/// `value` as JSON without a space. It can't fail: every map here has strings for keys.
pub(super) fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

fn presented(config_type: &'static str, config: Bytes, manifest: &Manifest) -> Presented {
    let bytes = json(manifest);
    Presented {
        media_type: manifest.media_type,
        digest: sha256(&bytes),
        manifest: bytes,
        config_type,
        config_digest: sha256(&config),
        config,
    }
}

/// The release as a ModelPack artifact. Records of an import are about the release and not in its folder
/// (`specs/11-model-signing-and-attachments.md`); they are among the evidence.
pub(super) fn modelpack(digest: &Digest, release: &Release) -> Presented {
    let files = || release.files.iter().filter(|file| in_folder(file));
    let config = json(&Config {
        descriptor: About {
            created_at: release.issued.to_string(),
            name: release.model.name.as_str(),
            version: release.version.as_str(),
            vendor: release.model.nation.as_str(),
            licenses: [&release.licence],
            title: format!("{}@{}", release.model, release.version),
        },
        modelfs: Layers {
            kind: "layers",
            diff_ids: files().map(|file| format!("sha256:{}", file.sha256)).collect(),
        },
        config: Technical { format: &release.format },
    });
    let annotations = [
        (CREATED, release.issued.to_string()),
        ("org.opencontainers.image.licenses", release.licence.clone()),
        (TITLE, release.model.to_string()),
        ("org.opencontainers.image.vendor", release.model.nation.to_string()),
        ("org.opencontainers.image.version", release.version.to_string()),
        ("steelyard.release", digest.to_string()),
    ];
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST,
        artifact_type: Some(MODEL.to_owned()),
        config: Descriptor::of(MODEL_CONFIG, &config),
        layers: files().map(layer).collect(),
        subject: None,
        annotations: annotations.map(|(key, value)| (key.to_owned(), value)).into(),
    };
    presented(MODEL_CONFIG, config, &manifest)
}

fn layer(file: &File) -> Descriptor {
    let (media_type, known) = kind::layer(file);
    let layer = Descriptor::new(media_type, &file.sha256, file.size)
        .with(FILEPATH, &*file.path)
        .with(TITLE, &*file.path)
        .with("steelyard.blake3", file.blake3.to_string());
    if known { layer } else { layer.with(UNTESTED, "true") }
}

/// The release in the form that Ollama reads: one model in GGUF, its projectors and its licence; or why it can't be.
pub(super) fn ollama(release: &Release) -> Result<Presented, String> {
    let gguf = || release.files.iter().filter(|file| kind::is_gguf(&file.path));
    let models: Vec<&File> = gguf().filter(|file| !kind::is_projector(&file.path)).collect();
    let model = match models.as_slice() {
        [model] => *model,
        [] => return Err("it holds no GGUF file".to_owned()),
        many => {
            let (count, first) = (many.len(), &many[0].path);
            return Err(format!("it holds {count} GGUF files, `{first}` first, and this form has one"));
        }
    };
    let typed = |media_type: &str, file: &File| Descriptor::new(media_type, &file.sha256, file.size);
    let mut layers = vec![typed("application/vnd.ollama.image.model", model)];
    layers.extend(
        gguf()
            .filter(|file| kind::is_projector(&file.path))
            .map(|file| typed("application/vnd.ollama.image.projector", file)),
    );
    layers.extend(
        release
            .files
            .iter()
            .filter(|file| kind::is_licence(&file.path))
            .map(|file| typed("application/vnd.ollama.image.license", file)),
    );
    let config = json(&OllamaConfig {
        model_format: "gguf",
        architecture: "amd64",
        os: "linux",
        rootfs: OllamaLayers {
            kind: "layers",
            diff_ids: layers.iter().map(|layer| layer.digest.clone()).collect(),
        },
    });
    let manifest = Manifest {
        schema_version: 2,
        media_type: DOCKER_MANIFEST,
        artifact_type: None,
        config: Descriptor::of(OLLAMA_CONFIG, &config),
        layers,
        subject: None,
        annotations: BTreeMap::new(),
    };
    Ok(presented(OLLAMA_CONFIG, config, &manifest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use registry::Timestamp;
    use registry::statement::Releasable;

    use super::*;

    fn release(paths: &[&str]) -> Release {
        let file = |path: &&str| File {
            path: (*path).to_owned(),
            blake3: Digest::of(path.as_bytes()),
            sha256: sha256(path.as_bytes()),
            size: path.len() as u64,
            media_type: "application/octet-stream".to_owned(),
            chunk_map: Digest::of(b"map"),
        };
        Release {
            model: "alba/m".parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            format: "gguf".to_owned(),
            licence: "MIT".to_owned(),
            derived_from: Vec::new(),
            releasable_to: Releasable::All,
            model_card: None,
            issued: Timestamp::from_unix(1_700_000_000),
            files: paths.iter().map(file).collect(),
        }
    }

    /// If this fails, every manifest of every release has got another digest: other nodes and everybody who wrote one down
    /// must be told.
    #[test]
    fn the_bytes_are_a_format() {
        let release = release(&["README.md", "model.gguf"]);
        let it = modelpack(&Digest::of(b"release"), &release);
        assert_eq!(
            it.digest.to_hex(),
            "8978aa9508806794ef5283aeaa20e9f43e6266e70a1ff7e5052cbdf03203c470",
            "{}",
            String::from_utf8_lossy(&it.manifest)
        );
        let it = ollama(&release).unwrap();
        assert_eq!(
            it.digest.to_hex(),
            "a83f1ab05ac04ad1778eb074028e89a54928ff6fa6f0f3d4ac08fb4778cc84ed",
            "{}",
            String::from_utf8_lossy(&it.manifest)
        );
    }

    #[test]
    fn the_form_of_ollama_has_one_model() {
        assert!(ollama(&release(&["model.safetensors"])).is_err());
        assert!(ollama(&release(&["a.gguf", "b.gguf"])).unwrap_err().contains("2 GGUF files"));
        let it = ollama(&release(&["LICENSE", "a.gguf", "mmproj-a.gguf"])).unwrap();
        let text = String::from_utf8_lossy(&it.manifest).into_owned();
        for layer in ["image.model", "image.projector", "image.license"] {
            assert!(text.contains(layer), "{text}");
        }
    }
}
