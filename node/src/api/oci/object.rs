//! From a tag or a digest to the bytes that it names.

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use registry::digest::Sha256;
use registry::reference::{ChannelName, DEFAULT_CHANNEL, Version};
use registry::statement::Release;
use registry::store::StoreError;
use registry::{Digest, Model, Reference, releasable};

use super::Desk;
use super::error::{Code, OciError};
use super::present::{self, DOCKER_MANIFEST, EMPTY, EMPTY_BYTES, OCI_INDEX, OCI_MANIFEST, Presented};
use super::shelf::{Entry, Part};

/// Longest tag, as the distribution specification says.
const MAX_TAG: usize = 128;
/// What tools ask for where a person names no tag: the default channel.
const LATEST: &str = "latest";

/// What the last part of a manifest's path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    Tag,
    /// `b3:…` or `blake3:…`: the release's own digest.
    Release(Digest),
    Sha256(Sha256),
    Nothing,
}

/// Reads the last part of a manifest's path.
pub(super) fn reference(text: &str) -> Named {
    if let Some((algorithm, hex)) = text.split_once(':') {
        let release = || Digest::from_hex(hex).map_or(Named::Nothing, Named::Release);
        return match algorithm {
            "sha256" => Sha256::from_hex(hex).map_or(Named::Nothing, Named::Sha256),
            "b3" | "blake3" => release(),
            _ => Named::Nothing,
        };
    }
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    if first && text.len() <= MAX_TAG && text.chars().all(inner) { Named::Tag } else { Named::Nothing }
}

/// A version as a tag: tags have no `+`.
pub(super) fn tag_of(version: &Version) -> String {
    version.as_str().replace('+', "_")
}

/// Something that has a digest here, of a release that may be given.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) media_type: String,
    pub(super) digest: Sha256,
    pub(super) content: Content,
    /// What it is a part of; nothing for what is the same for everybody.
    pub(super) release: Option<Digest>,
}

/// Its bytes.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Bytes(Bytes),
    /// A file of the release: the blob and its size.
    Blob(Digest, u64),
}

impl Content {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Blob(_, size) => *size,
        }
    }
}

impl Object {
    pub(super) fn is_manifest(&self) -> bool {
        [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST].contains(&self.media_type.as_str())
    }

    fn manifest(release: &Digest, it: Presented) -> Self {
        let content = Content::Bytes(it.manifest);
        let media_type = it.media_type.to_owned();
        Self { media_type, digest: it.digest, content, release: Some(*release) }
    }

    fn config(release: &Digest, it: Presented) -> Self {
        let content = Content::Bytes(it.config);
        let media_type = it.config_type.to_owned();
        Self { media_type, digest: it.config_digest, content, release: Some(*release) }
    }

    fn empty() -> Self {
        let bytes = Bytes::from_static(EMPTY_BYTES);
        let digest = present::sha256(EMPTY_BYTES);
        Self { media_type: EMPTY.to_owned(), digest, content: Content::Bytes(bytes), release: None }
    }
}

/// Whether the client reads Docker's manifests and no OCI ones: Ollama does.
fn wants_ollama(headers: &HeaderMap) -> bool {
    let (mut docker, mut oci) = (false, false);
    for value in headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
        for one in value.split(',').map(|one| one.split(';').next().unwrap_or("").trim()) {
            docker |= one == DOCKER_MANIFEST;
            oci |= matches!(one, OCI_MANIFEST | "*/*" | "application/*");
        }
    }
    docker && !oci
}

impl Desk {
    /// The manifest that a tag names, in the form that the client reads.
    pub(super) fn tagged(&self, model: &Model, tag: &str, headers: &HeaderMap) -> Result<Object, OciError> {
        let unknown = || {
            OciError::new(Code::ManifestUnknown, format!("`{model}` has no channel or version `{tag}` here"))
        };
        let visible = self.visible(model)?;
        // A version never moves, so it counts before a channel of the same name; one that is spelled so before one with a `+`.
        let by = |spelled: &dyn Fn(&Version) -> bool| {
            visible.iter().find(|entry| spelled(&entry.version)).map(|entry| entry.release)
        };
        let found = match by(&|version| version.as_str() == tag).or(by(&|version| tag_of(version) == tag)) {
            Some(release) => Some(release),
            None => match self.channel(model, tag)? {
                None if tag == LATEST => self.channel(model, DEFAULT_CHANNEL)?,
                found => found,
            },
        };
        let release = found.ok_or_else(unknown)?;
        if !visible.iter().any(|entry| entry.release == release) {
            return Err(unknown());
        }
        self.present(&release, headers)
    }

    fn channel(&self, model: &Model, tag: &str) -> Result<Option<Digest>, OciError> {
        let Ok(channel) = ChannelName::new(tag) else { return Ok(None) };
        match self.store.resolve(&Reference::Channel(model.clone(), channel)) {
            // Its signer pointed it at another model: it means nothing here.
            Err(StoreError::OtherModel { .. }) => Ok(None),
            other => Ok(other?),
        }
    }

    /// The manifest of a release, in the form that the client reads.
    pub(super) fn of_release(
        &self,
        model: &Model,
        release: &Digest,
        headers: &HeaderMap,
    ) -> Result<Object, OciError> {
        let entry = self.known_release(model, release)?;
        self.present(&entry.release, headers)
    }

    fn present(&self, digest: &Digest, headers: &HeaderMap) -> Result<Object, OciError> {
        let known = self.enter(digest)?;
        let release = &known.release;
        if !wants_ollama(headers) {
            return Ok(Object::manifest(digest, present::modelpack(digest, release)));
        }
        let it = present::ollama(release).map_err(|why| {
            let message =
                format!("this release has no manifest in Docker's form: {why}; accept {OCI_MANIFEST}");
            OciError::new(Code::ManifestUnknown, message)
        })?;
        Ok(Object::manifest(digest, it))
    }

    /// What has this digest among the releases of `model` and the evidence about them.
    pub(super) fn by_digest(
        &self,
        model: &Model,
        digest: &Sha256,
        unknown: Code,
    ) -> Result<Object, OciError> {
        let mut refused = None;
        for (entry, part) in self.holders(model, digest)? {
            match self.enter(&entry.release) {
                Ok(known) => {
                    if let Some(object) = self.part(&entry, &known.release, part)? {
                        return Ok(object);
                    }
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        if let Some(error) = refused {
            // What is not here is a blob that is not here, when it is asked for as one.
            let code = if error.code == Code::ManifestUnknown { unknown } else { error.code };
            return Err(OciError { code, ..error });
        }
        if *digest == present::sha256(EMPTY_BYTES) {
            return Ok(Object::empty());
        }
        match super::evidence::find(self, model, digest)? {
            Some(object) => Ok(object),
            None => Err(OciError::new(
                unknown,
                format!("`{model}` has nothing with the digest sha256:{digest} here"),
            )),
        }
    }

    fn part(&self, entry: &Entry, release: &Release, part: Part) -> Result<Option<Object>, OciError> {
        let digest = &entry.release;
        Ok(match part {
            Part::Manifest => Some(Object::manifest(digest, present::modelpack(digest, release))),
            Part::Config => Some(Object::config(digest, present::modelpack(digest, release))),
            Part::OllamaManifest => present::ollama(release).ok().map(|it| Object::manifest(digest, it)),
            Part::OllamaConfig => present::ollama(release).ok().map(|it| Object::config(digest, it)),
            Part::File(index) => match release.files.get(index as usize) {
                // The one question about bytes, here as at every door.
                Some(file) if releasable::file(&self.store, file, &self.store.own())? => Some(Object {
                    media_type: "application/octet-stream".to_owned(),
                    digest: file.sha256,
                    content: Content::Blob(file.blake3, file.size),
                    release: Some(*digest),
                }),
                _ => None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn references_are_tags_or_digests() {
        let hex = "0".repeat(64);
        assert_eq!(reference("1.0.0"), Named::Tag);
        assert_eq!(reference("_x"), Named::Tag);
        assert!(matches!(reference(&format!("sha256:{hex}")), Named::Sha256(_)));
        assert!(matches!(reference(&format!("b3:{hex}")), Named::Release(_)));
        assert!(matches!(reference(&format!("blake3:{hex}")), Named::Release(_)));
        for wrong in ["", "..", "-a", "a b", "sha256:00", "sha512:00", "a/b", "é", &"a".repeat(129)] {
            assert_eq!(reference(wrong), Named::Nothing, "{wrong}");
        }
    }

    #[test]
    fn only_who_reads_nothing_else_gets_the_form_of_ollama() {
        let of = |accept: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(header::ACCEPT, HeaderValue::from_str(value).unwrap());
            }
            wants_ollama(&headers)
        };
        assert!(of(&[DOCKER_MANIFEST]));
        assert!(of(&["application/vnd.docker.distribution.manifest.v2+json; q=0.5"]));
        assert!(!of(&[]));
        assert!(!of(&["*/*"]));
        assert!(!of(&[DOCKER_MANIFEST, OCI_MANIFEST]));
        assert!(!of(&[&format!("{DOCKER_MANIFEST}, {OCI_MANIFEST}")]));
    }
}
