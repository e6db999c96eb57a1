//! Registries of artifacts: models as CNCF ModelPack artifacts with raw layers, and as Ollama keeps them.

use hyper::header;
use registry::digest::{FileHasher, Sha256};
use registry::statement::MAX_FILES;
use serde::Deserialize;

use super::{Check, ImportError, Place, Plan, Planned, Source};
use crate::fetch_http::{Client, FetchError, is_loopback};

/// Longest manifest. Registries take 4 MiB; this node's own are longer where a release has thousands of files.
const MAX_MANIFEST: usize = 16 * 1024 * 1024;
/// Longest configuration that is read for the licence in it.
const MAX_CONFIG: u64 = 1024 * 1024;
/// The manifests that are read.
const ACCEPT: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
/// What ModelPack's layers' types begin with.
const MODELPACK: &str = "application/vnd.cncf.model.";
/// What Ollama's layers' types begin with.
const OLLAMA: &str = "application/vnd.ollama.image.";
/// The path of a layer's file, by ModelPack and by other tools.
const PATHS: [&str; 2] = ["org.cncf.model.filepath", "org.opencontainers.image.title"];
/// The tag where none is named.
const LATEST: &str = "latest";

/// An artifact in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// `https` or, for this machine or where it was asked for, `http`.
    scheme: &'static str,
    host: String,
    name: String,
    /// A tag or `sha256:…`.
    reference: String,
}

impl Artifact {
    /// Reads `[http://|https://]HOST[:PORT]/NAME[:TAG|@sha256:…]`.
    pub fn parse(text: &str) -> Result<Self, ImportError> {
        let wrong = |why| ImportError::Source { text: text.chars().take(200).collect(), why };
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Some("http"), rest),
            Some(("https", rest)) => (Some("https"), rest),
            Some(_) => return Err(wrong("only http and https are spoken")),
            None => (None, text),
        };
        let form = "write oci:HOST/NAME, oci:HOST/NAME:TAG or oci:HOST/NAME@sha256:…";
        let (host, rest) = rest.split_once('/').ok_or_else(|| wrong(form))?;
        let (name, reference) = match rest.split_once('@') {
            Some((name, digest)) => {
                let known = digest.strip_prefix("sha256:").is_some_and(|hex| Sha256::from_hex(hex).is_ok());
                if !known {
                    return Err(wrong("a digest is `sha256:` and 64 lowercase hexadecimal digits"));
                }
                (name, digest)
            }
            None => rest.rsplit_once(':').unwrap_or((rest, LATEST)),
        };
        let plain = |text: &str, inner: &str| {
            !text.is_empty()
                && text.len() <= 255
                && text.chars().all(|c| c.is_ascii_alphanumeric() || inner.contains(c))
        };
        let parts = name.split('/').all(|part| plain(part, "-_.") && !matches!(part, "." | ".."));
        if !plain(host, "-.:[]") || !parts || name.len() > 255 || !plain(reference, "-_.:") {
            return Err(wrong(form));
        }
        let bare =
            host.rsplit_once(':').filter(|(front, _)| !front.ends_with(':')).map_or(host, |(name, _)| name);
        let scheme = scheme.unwrap_or(if is_loopback(bare) { "http" } else { "https" });
        Ok(Self { scheme, host: host.to_owned(), name: name.to_owned(), reference: reference.to_owned() })
    }

    /// The registry's address, for which a token is.
    pub fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.host)
    }

    fn url(&self, what: &str, reference: &str) -> String {
        format!("{}/v2/{}/{what}/{reference}", self.endpoint(), self.name)
    }

    fn wrong(&self, why: impl ToString) -> ImportError {
        ImportError::Artifact { name: format!("{}/{}", self.host, self.name), why: why.to_string() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

impl Descriptor {
    fn sha256(&self, artifact: &Artifact) -> Result<Sha256, ImportError> {
        let hex = self.digest.strip_prefix("sha256:");
        hex.and_then(|hex| Sha256::from_hex(hex).ok())
            .ok_or_else(|| artifact.wrong(format!("the digest `{}` is not read here", self.digest)))
    }
}

fn sha256(bytes: &[u8]) -> Sha256 {
    let mut hasher = FileHasher::default();
    hasher.update(bytes);
    hasher.finish().sha256
}

/// Asks the registry what the artifact holds.
pub async fn plan(client: &Client, artifact: &Artifact) -> Result<Plan, ImportError> {
    let url = artifact.url("manifests", &artifact.reference);
    let answer = client.get(&url, &[(header::ACCEPT, ACCEPT)]).await?.good().await?;
    let told = answer.header("docker-content-digest").map(str::to_owned);
    let bytes = answer.bytes(MAX_MANIFEST).await?;
    let digest = sha256(&bytes);
    let named = format!("sha256:{digest}");
    let expected =
        if artifact.reference.starts_with("sha256:") { Some(&artifact.reference) } else { told.as_ref() };
    if expected.is_some_and(|expected| *expected != named) {
        return Err(artifact
            .wrong(format!("its manifest has the digest {named}, not {}", expected.map_or("", |e| e))));
    }
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|error| FetchError::Malformed { url: url.clone(), why: error.to_string() })?;
    let (Some(layers), Some(config)) = (manifest.layers, manifest.config) else {
        let why = if manifest.manifests.is_some() {
            "it is a list of artifacts; name one of them by its digest"
        } else {
            "it is no manifest with layers"
        };
        return Err(artifact.wrong(why));
    };
    if layers.len() > MAX_FILES {
        return Err(ImportError::TooMany { what: "layers", limit: MAX_FILES as u64 });
    }
    let mut left_out = Vec::new();
    let mut files = Vec::new();
    for layer in &layers {
        let path = match layer.media_type.strip_prefix(OLLAMA) {
            Some(kind) => ollama_path(artifact, kind, &layers)?,
            None => Some(modelpack_path(artifact, layer)?),
        };
        match path {
            Some(path) => files.push(Planned {
                path,
                size: layer.size,
                check: Check::Sha256(layer.sha256(artifact)?),
                place: Place::Url(artifact.url("blobs", &layer.digest)),
            }),
            None => left_out.push((layer.media_type.clone(), "what it is for is not known here")),
        }
    }
    let source = Source {
        format: "oci",
        name: artifact.name.clone(),
        uri: format!("oci://{}/{}", artifact.host, artifact.name),
        algorithm: "sha256",
        revision: digest.to_hex(),
        licence: licence(client, artifact, &config).await?,
    };
    Ok(Plan { source, files, left_out })
}

fn modelpack_path(artifact: &Artifact, layer: &Descriptor) -> Result<String, ImportError> {
    let kind = &layer.media_type;
    if !kind.starts_with(MODELPACK) {
        return Err(artifact.wrong(format!(
            "a layer of the type `{kind}` is no part of a model; ModelPack artifacts and models of Ollama are read"
        )));
    }
    if !kind.ends_with(".raw") {
        return Err(artifact.wrong(format!(
            "a layer is packed (`{kind}`), and only raw ones are read; package the model with raw layers"
        )));
    }
    let notes = layer.annotations.as_ref();
    let path = notes.and_then(|notes| PATHS.iter().find_map(|key| notes.get(*key)));
    path.cloned().ok_or_else(|| artifact.wrong("a layer has no annotation that says its file's path"))
}

/// What a layer of Ollama's is called in a folder.
fn ollama_path(artifact: &Artifact, kind: &str, all: &[Descriptor]) -> Result<Option<String>, ImportError> {
    // A type may carry parameters.
    let kind = kind.split(';').next().unwrap_or(kind).trim();
    let name = artifact.name.rsplit('/').next().unwrap_or_default();
    let same = |one: &&Descriptor| one.media_type.strip_prefix(OLLAMA) == Some(kind);
    if all.iter().filter(same).count() > 1 {
        return Err(artifact
            .wrong(format!("it has several layers of the type `{OLLAMA}{kind}`, which are not told apart")));
    }
    Ok(match kind {
        "model" => Some(format!("{name}.gguf")),
        "projector" => Some(format!("mmproj-{name}.gguf")),
        "license" => Some("LICENSE".to_owned()),
        "template" => Some("ollama-template.txt".to_owned()),
        "system" => Some("ollama-system.txt".to_owned()),
        "params" => Some("ollama-params.json".to_owned()),
        _ => None,
    })
}

/// The licence in a ModelPack configuration.
async fn licence(
    client: &Client,
    artifact: &Artifact,
    config: &Descriptor,
) -> Result<Option<String>, ImportError> {
    if !config.media_type.starts_with(MODELPACK) || config.size > MAX_CONFIG {
        return Ok(None);
    }
    let digest = config.sha256(artifact)?;
    let url = artifact.url("blobs", &config.digest);
    let bytes = client.get(&url, &[]).await?.good().await?.bytes(MAX_CONFIG as usize).await?;
    if sha256(&bytes) != digest {
        return Err(artifact.wrong("its configuration is not what the manifest says"));
    }
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let text = value.pointer("/descriptor/licenses/0").and_then(|text| text.as_str());
    Ok(text.filter(|text| text.len() <= 200 && !text.chars().any(char::is_control)).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_of_artifacts() {
        let of = |text: &str| {
            let it = Artifact::parse(text).unwrap();
            (it.endpoint(), it.name, it.reference)
        };
        let digest = format!("sha256:{}", "0".repeat(64));
        let own = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(of("r.example/a/b"), own("https://r.example", "a/b", "latest"));
        assert_eq!(of("r.example:5000/a/b:1.0"), own("https://r.example:5000", "a/b", "1.0"));
        assert_eq!(of("127.0.0.1:80/a/b:x"), own("http://127.0.0.1:80", "a/b", "x"));
        assert_eq!(of("http://r.example/a"), own("http://r.example", "a", "latest"));
        assert_eq!(of(&format!("localhost/a/b@{digest}")), own("http://localhost", "a/b", &digest));
        for wrong in [
            "",
            "a",
            "r.example/",
            "r.example/a/../b",
            "r.example/a:",
            "ftp://r/a",
            "r/a@md5:0",
            "r?x/a",
            "u@r/a",
        ] {
            assert!(Artifact::parse(wrong).is_err(), "{wrong}");
        }
    }
}
