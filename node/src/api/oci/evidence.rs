//! The evidence about a release as artifacts that refer to it: who signed it, what others found, where it stands in the log.
//!
//! | what | `artifactType` | layers |
//! |---|---|---|
//! | a statement: roots, the release, channels, attestations, recalls that do not bind us | `application/vnd.in-toto+json` | one DSSE envelope for each signature |
//! | the release's place in its nation's log | `application/vnd.steelyard.tlog-proof.v1` | the proof (C2SP tlog-proof) |
//! | an attachment | the attachment's own media type | the file |
//!
//! Evidence grows, so these are made when somebody asks for the list, and kept for a while for whoever then asks for what stands
//! in it. The same evidence has the same bytes everywhere.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use axum::body::Bytes;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use registry::attachment;
use registry::digest::Sha256;
use registry::statement::{Release, Statement};
use registry::{Digest, Model, Signed};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::{Code, OciError};
use super::object::{Content, Object};
use super::present::{
    self, CREATED, Descriptor, EMPTY, EMPTY_BYTES, Manifest, OCI_INDEX, OCI_MANIFEST, TITLE,
};
use super::shelf::Part;
use super::{Asked, Desk};

/// The type of an artifact that holds a signed statement.
const STATEMENT: &str = "application/vnd.in-toto+json";
/// The type of one envelope of it.
const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
/// The annotation that says what is stated.
const PREDICATE: &str = "in-toto.io/predicate-type";
/// The type of a log proof and of the artifact that holds one.
const PROOF: &str = "application/vnd.steelyard.tlog-proof.v1";
/// Most artifacts that a list names: far more than a release has, and an answer of half a megabyte.
const MAX_REFERRERS: usize = 1000;
/// Bytes of evidence that are kept: that of dozens of releases, or one release of the longest kind.
const MAX_KEPT: usize = 64 * 1024 * 1024;
/// Most releases whose evidence is made again to find a digest that is not kept any more.
const MAX_REMADE: usize = 8;
/// The filter that was applied to a list.
const FILTERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("oci-filters-applied"), HeaderValue::from_static("artifactType"));

/// Evidence that was shown lately.
#[derive(Default)]
pub(super) struct Shown {
    kept: Mutex<Kept>,
    /// Held while evidence is gathered: it takes many reads of the store, and one caller at a time is enough.
    gathering: Mutex<()>,
}

#[derive(Default)]
struct Kept {
    objects: HashMap<Sha256, Object>,
    order: VecDeque<Sha256>,
    bytes: usize,
}

impl Kept {
    fn put(&mut self, object: Object) {
        let digest = object.digest;
        // At most the length of a statement.
        let size = object.content.size() as usize;
        if self.objects.insert(digest, object).is_none() {
            self.order.push_back(digest);
            self.bytes += size;
        }
        while self.bytes > MAX_KEPT
            && self.order.len() > 1
            && let Some(oldest) = self.order.pop_front()
        {
            let gone = self.objects.remove(&oldest);
            self.bytes -= gone.map_or(0, |gone| gone.content.size() as usize);
        }
    }
}

/// One artifact about a release.
struct Artifact {
    manifest: Object,
    entry: Descriptor,
    blobs: Vec<Object>,
}

/// An artifact's layers while it is made.
struct Layers {
    artifact_type: String,
    layers: Vec<Descriptor>,
    blobs: Vec<Object>,
    annotations: BTreeMap<String, String>,
}

impl Layers {
    fn new(artifact_type: &str) -> Self {
        Self {
            artifact_type: artifact_type.to_owned(),
            layers: Vec::new(),
            blobs: Vec::new(),
            annotations: BTreeMap::new(),
        }
    }

    fn note(mut self, key: &str, value: impl Into<String>) -> Self {
        self.annotations.insert(key.to_owned(), value.into());
        self
    }

    fn bytes(&mut self, release: &Digest, media_type: &str, title: String, bytes: Bytes) {
        let layer = Descriptor::of(media_type, &bytes).with(TITLE, title);
        self.layers.push(layer);
        self.blobs.push(Object {
            media_type: media_type.to_owned(),
            digest: present::sha256(&bytes),
            content: Content::Bytes(bytes),
            release: Some(*release),
        });
    }

    fn about(self, release: &Digest, subject: &Descriptor) -> Artifact {
        let manifest = present::json(&Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST,
            artifact_type: Some(self.artifact_type.clone()),
            config: Descriptor::of(EMPTY, EMPTY_BYTES),
            layers: self.layers,
            subject: Some(subject.clone()),
            annotations: self.annotations.clone(),
        });
        let mut entry = Descriptor::of(OCI_MANIFEST, &manifest);
        entry.artifact_type = Some(self.artifact_type);
        entry.annotations = self.annotations;
        let manifest = Object {
            media_type: OCI_MANIFEST.to_owned(),
            digest: present::sha256(&manifest),
            content: Content::Bytes(manifest),
            release: Some(*release),
        };
        Artifact { manifest, entry, blobs: self.blobs }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Query {
    artifact_type: Option<String>,
}

/// `GET /v2/NAME/referrers/DIGEST`. Of what is no manifest of a release, nothing refers to it.
pub(super) fn referrers(
    desk: &Desk,
    model: &Model,
    digest: &Sha256,
    asked: &Asked,
) -> Result<Response, OciError> {
    let query = axum::extract::Query::<Query>::try_from_uri(&asked.uri)
        .map_err(|_| OciError::new(Code::ManifestInvalid, "the query is not understood"))?
        .0;
    let holders = desk.holders(model, digest)?;
    let subject = holders.into_iter().find(|(_, part)| *part == Part::Manifest);
    let mut manifests = match subject {
        Some((entry, _)) => gather_kept(desk, model, &entry.release)?,
        None => Vec::new(),
    };
    if let Some(wanted) = &query.artifact_type {
        manifests.retain(|entry| entry.artifact_type.as_ref() == Some(wanted));
    }
    let index = present::json(&Index { schema_version: 2, media_type: OCI_INDEX, manifests });
    let mut response = ([(header::CONTENT_TYPE, OCI_INDEX)], index).into_response();
    if query.artifact_type.is_some() {
        response.headers_mut().insert(FILTERED.0, FILTERED.1);
    }
    Ok(response)
}

/// What has this digest among the evidence about releases of `model`: kept, or made again.
pub(super) fn find(desk: &Desk, model: &Model, digest: &Sha256) -> Result<Option<Object>, OciError> {
    if let Some(object) = kept(desk, model, digest)? {
        return Ok(Some(object));
    }
    let mut remade = 0;
    for entry in desk.visible(model)?.into_iter().rev() {
        if remade >= MAX_REMADE {
            break;
        }
        if desk.offered(model, &entry)? {
            remade += 1;
            match gather_kept(desk, model, &entry.release) {
                Ok(_) => {}
                // One that may not be given is not the one that was asked for.
                Err(error) if error.code != Code::TooManyRequests => continue,
                Err(error) => return Err(error),
            }
        }
    }
    kept(desk, model, digest)
}

fn kept(desk: &Desk, model: &Model, digest: &Sha256) -> Result<Option<Object>, OciError> {
    let found = {
        let kept = desk.oci.shown.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.objects.get(digest).cloned()
    };
    let Some(object) = found else { return Ok(None) };
    if let Some(release) = &object.release {
        // It may be evidence about another repository's release.
        if desk.known_release(model, release).is_err() {
            return Ok(None);
        }
        desk.enter(release)?;
    }
    Ok(Some(object))
}

/// Gathers the evidence about a release, keeps it for those who ask for it by digest, and lists it.
fn gather_kept(desk: &Desk, model: &Model, digest: &Digest) -> Result<Vec<Descriptor>, OciError> {
    let known = desk.enter(digest)?;
    let Ok(_turn) = desk.oci.shown.gathering.try_lock() else {
        let message = "evidence is being gathered for another client; ask again in a moment";
        return Err(OciError::new(Code::TooManyRequests, message));
    };
    let mut artifacts = gather(desk, model, digest, &known.release)?;
    if artifacts.len() > MAX_REFERRERS {
        tracing::warn!(%digest, count = artifacts.len(), "more evidence than a list names");
        artifacts.truncate(MAX_REFERRERS);
    }
    let mut kept = desk.oci.shown.kept.lock().unwrap_or_else(PoisonError::into_inner);
    let mut entries = Vec::with_capacity(artifacts.len());
    for artifact in artifacts {
        entries.push(artifact.entry);
        artifact.blobs.into_iter().chain([artifact.manifest]).for_each(|object| kept.put(object));
    }
    Ok(entries)
}

fn gather(desk: &Desk, model: &Model, digest: &Digest, release: &Release) -> Result<Vec<Artifact>, OciError> {
    let store = &desk.store;
    let whole = present::modelpack(digest, release);
    let subject = Descriptor::of(whole.media_type, &whole.manifest);
    let mut artifacts = Vec::new();
    for signed in statements(desk, model, digest)? {
        artifacts.extend(statement(digest, &signed, &subject));
    }
    if let Some(proof) = store.log_proof(&model.nation, digest)? {
        let mut layers = Layers::new(PROOF);
        layers.bytes(digest, PROOF, "release.tlog-proof".to_owned(), proof.to_text().into());
        artifacts.push(layers.about(digest, &subject));
    }
    let attached = release.files.iter().filter(|file| attachment::Kind::of(&file.media_type).is_some());
    for file in attached.take(attachment::MAX_ATTACHMENTS) {
        // The blob itself is found as the release's file.
        let mut layers = Layers::new(&file.media_type);
        let layer = Descriptor::new(&file.media_type, &file.sha256, file.size);
        layers.layers.push(layer.with(TITLE, &*file.path));
        artifacts.push(layers.about(digest, &subject));
    }
    Ok(artifacts)
}

/// The signed statements that a decision about the release rests on: the same as `/v1/releases/{digest}/evidence` shows.
fn statements(desk: &Desk, model: &Model, digest: &Digest) -> Result<Vec<Signed>, OciError> {
    let store = &desk.store;
    let mut found = Vec::new();
    if let Ok(member) = store.trust().member(&model.nation) {
        found.extend(member.root.roots().map(registry::Verified::proven));
    }
    let ancestors = store.ancestors(digest)?;
    let mut named = vec![*digest];
    let channels = store.channels()?.into_iter();
    named.extend(channels.filter(|(_, channel)| channel.release == *digest).map(|(id, _)| id));
    named.extend(store.attestations(digest)?.into_iter().map(|(id, _)| id));
    let about = |target: Digest| target == *digest || ancestors.contains_key(&target);
    let recalls = store.recalls()?.into_iter();
    named.extend(recalls.filter(|(_, recall)| about(recall.target.digest())).map(|(id, _)| id));
    for id in named {
        found.extend(store.statement(&id)?);
    }
    Ok(found)
}

/// A statement as an artifact; nothing when what was kept can't be read, which other parts tell.
fn statement(release: &Digest, signed: &Signed, subject: &Descriptor) -> Option<Artifact> {
    let said = signed.peek().ok()?;
    let envelopes: Vec<Box<RawValue>> = serde_json::from_slice(&signed.to_json()).ok()?;
    let name = match &said {
        Statement::Root(root) => format!("root-{}", root.version),
        Statement::Channel(channel) => format!("channel-{}", channel.channel),
        Statement::Release(_) => "release".to_owned(),
        other => format!("{}-{}-{}", other.kind(), other.nation(), signed.digest().short()),
    };
    let mut layers = Layers::new(STATEMENT)
        .note(PREDICATE, said.kind().predicate_type())
        .note(CREATED, said.issued().to_string())
        .note("steelyard.nation", said.nation().to_string())
        .note("steelyard.statement", signed.digest().to_string());
    for (number, envelope) in envelopes.iter().enumerate() {
        let title = match number {
            0 => format!("{name}.dsse.json"),
            more => format!("{name}.{}.dsse.json", more + 1),
        };
        let bytes = Bytes::copy_from_slice(envelope.get().as_bytes());
        layers.bytes(release, ENVELOPE, title, bytes);
    }
    Some(layers.about(release, subject))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes() {
        let mut kept = Kept::default();
        let object = |number: u8| {
            let bytes = Bytes::from(vec![number; MAX_KEPT / 2]);
            let digest = present::sha256(&bytes);
            Object { media_type: ENVELOPE.to_owned(), digest, content: Content::Bytes(bytes), release: None }
        };
        let (one, two, three) = (object(1), object(2), object(3));
        let (first, last) = (one.digest, three.digest);
        kept.put(one.clone());
        kept.put(one);
        kept.put(two);
        assert_eq!(kept.order.len(), 2);
        kept.put(three);
        assert!(!kept.objects.contains_key(&first) && kept.objects.contains_key(&last));
        assert!(kept.bytes <= MAX_KEPT);
    }
}
