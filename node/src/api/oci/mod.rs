//! The OCI distribution interface, reading only: `GET /v2/…`, as container tools speak it.
//!
//! ```text
//! /v2/                                     whether this is such an interface
//! /v2/_catalog                             the repositories
//! /v2/NATION/NAME/tags/list                channels and versions
//! /v2/NATION/NAME/manifests/TAG|DIGEST     a release as an artifact
//! /v2/NATION/NAME/blobs/DIGEST             its files, whole or in ranges
//! /v2/NATION/NAME/referrers/DIGEST         the evidence about it
//! ```
//!
//! A release is presented as a CNCF ModelPack artifact whose layers are its very blobs, by their SHA-256; to a client that asks
//! for Docker's manifest alone, in the form that Ollama reads. Nothing is copied or kept for that: a manifest follows from the
//! release's statement alone, so that every node presents the same bytes under the same digest (`docs/oci.md`).
//!
//! Every answer passes the verdict that the hub's interface rests on (`api/verdict.rs`): what is not releasable to whoever reads is not known here, what is recalled or
//! refused is told with the reason, and only what a worker would be given is given.

mod blob;
mod error;
mod evidence;
mod kind;
mod list;
mod object;
mod present;
mod shelf;

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use registry::digest::Sha256;
use registry::reference::{Name, Nation};
use registry::statement::Release;
use registry::store::Store;
use registry::{Digest, Model};

use self::error::{Code, OciError};
use self::evidence::Shown;
use self::shelf::Shelf;
use super::server::Client;
use super::stream::blocking;
use super::verdict::{Known, Verdict};
use super::{Access, Api};

/// Longest path behind `/v2/`: a repository's name, a word and a digest or tag.
const MAX_PATH: usize = 512;
/// The version of the interface, as clients of Docker's registry look for it.
const VERSION: (&str, HeaderValue) =
    ("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));

/// What the interface keeps in memory between requests. All of it can be found out again.
#[derive(Default)]
pub(super) struct Oci {
    shelf: Shelf,
    shown: Shown,
}

/// The routes.
pub(super) fn router() -> Router<Api> {
    Router::new()
        .route("/v2", any(answer_root))
        .route("/v2/", any(answer_root))
        .route("/v2/{*path}", any(answer))
}

/// Who asks, and of what: everything that a route's blocking part needs.
struct Desk {
    api: Api,
    store: Store,
    access: Access,
    oci: Arc<Oci>,
}

/// A request as far as it matters here.
struct Asked {
    head: bool,
    headers: HeaderMap,
    uri: Uri,
}

/// What a path is about.
#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    Catalog,
    Tags(&'a str),
    Manifest(&'a str, &'a str),
    Blob(&'a str, &'a str),
    Referrers(&'a str, &'a str),
    /// A part of the interface that only writing needs.
    Upload,
    Nothing,
}

fn parse(path: &str) -> Wanted<'_> {
    if path == "_catalog" {
        return Wanted::Catalog;
    }
    if path.ends_with("/blobs/uploads") || path.contains("/blobs/uploads/") {
        return Wanted::Upload;
    }
    if let Some(name) = path.strip_suffix("/tags/list") {
        return Wanted::Tags(name);
    }
    let Some((front, last)) = path.rsplit_once('/') else { return Wanted::Nothing };
    match front.rsplit_once('/') {
        Some((name, "manifests")) => Wanted::Manifest(name, last),
        Some((name, "blobs")) => Wanted::Blob(name, last),
        Some((name, "referrers")) => Wanted::Referrers(name, last),
        _ => Wanted::Nothing,
    }
}

async fn answer_root(State(api): State<Api>, request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return finish(Err(OciError::read_only()));
    }
    if let Err(refused) = admitted(&api, &request) {
        return finish(Err(refused));
    }
    finish(Ok(([(header::CONTENT_TYPE, "application/json")], "{}").into_response()))
}

/// Whether whoever asks is answered at all: the rules of the hub's interface, with its tokens.
fn admitted(api: &Api, request: &Request) -> Result<(), OciError> {
    let address = request.extensions().get::<Client>().map(|client| client.address);
    let bearer = api.hub().recognise(address, request.headers().get(header::AUTHORIZATION))?;
    if bearer.is_none() && !api.node().config().hub.anonymous && api.access() == Access::Public {
        let why = "this node gives models only to those who show a token; ask its operator for one, and log in with it as the password";
        return Err(OciError::new(Code::Unauthorized, why));
    }
    Ok(())
}

async fn answer(
    State(api): State<Api>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    finish(respond(&api, path, request).await)
}

fn finish(answer: Result<Response, OciError>) -> Response {
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    response.headers_mut().insert(VERSION.0, VERSION.1);
    response
}

async fn respond(
    api: &Api,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, OciError> {
    admitted(api, &request)?;
    let invalid = |why: &str| OciError::new(Code::NameInvalid, why);
    let Path(path) = path.map_err(|_| invalid("the path is not UTF-8"))?;
    if path.len() > MAX_PATH {
        return Err(invalid("the path is too long"));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(OciError::read_only());
    }
    let asked = Asked {
        head: request.method() == Method::HEAD,
        headers: request.headers().clone(),
        uri: request.uri().clone(),
    };
    let desk = Desk { api: api.clone(), store: api.store().clone(), access: api.access(), oci: api.oci() };
    // One thread off the reactor finds out everything; a body that is long is read piece by piece as it is sent.
    blocking(move || Ok(desk.answer(&path, &asked))).await?
}

impl Desk {
    /// The release, if whoever reads may have it, which is known to be releasable to that one.
    fn enter(&self, release: &Digest) -> Result<Arc<Known>, OciError> {
        match self.api.verdicts().of_blocking(&self.api, *release)? {
            Verdict::Given(known) if known.whole => Ok(known),
            Verdict::Given(known) => {
                let Release { model, version, .. } = &known.release;
                let why = format!(
                    "{model}@{version} is not whole here; the node's operator can `steelyard pull` it"
                );
                Err(OciError::new(Code::ManifestUnknown, why))
            }
            Verdict::Hidden => Err(OciError::new(Code::ManifestUnknown, "the release is not known here")),
            Verdict::Recalled(why) | Verdict::Refused(why) => Err(OciError::new(Code::Denied, why)),
        }
    }

    fn answer(&self, path: &str, asked: &Asked) -> Result<Response, OciError> {
        match parse(path) {
            Wanted::Catalog => list::catalog(self, asked),
            Wanted::Tags(name) => list::tags(self, &self.model(name)?, asked),
            Wanted::Manifest(name, reference) => self.manifest(&self.model(name)?, reference, asked),
            Wanted::Blob(name, digest) => self.blob(&self.model(name)?, digest, asked),
            Wanted::Referrers(name, digest) => {
                evidence::referrers(self, &self.model(name)?, &digest_of(digest)?, asked)
            }
            Wanted::Upload => Err(OciError::read_only()),
            Wanted::Nothing => Err(OciError::new(Code::NameUnknown, "there is no such route below /v2/")),
        }
    }

    /// The model that a repository's name means. Container tools know lower case alone, so a name in it stands for the one model
    /// that is spelled so but for its case.
    fn model(&self, name: &str) -> Result<Model, OciError> {
        let (nation, rest) =
            name.split_once('/').ok_or_else(|| OciError::new(Code::NameUnknown, shelf::EXPECTED))?;
        let invalid = |error: registry::reference::ReferenceError| OciError::new(Code::NameInvalid, error);
        let asked =
            Model { nation: Nation::new(nation).map_err(invalid)?, name: Name::new(rest).map_err(invalid)? };
        let found = self.oci.shelf.read(&self.store, |known| known.model(&asked))?;
        let unknown = || OciError::new(Code::NameUnknown, format!("`{asked}` is not known here"));
        let model = found.ok_or_else(unknown)?;
        // Whether it exists is nobody's business who may have none of its releases.
        if self.visible(&model)?.is_empty() { Err(unknown()) } else { Ok(model) }
    }

    fn manifest(&self, model: &Model, reference: &str, asked: &Asked) -> Result<Response, OciError> {
        let object = match object::reference(reference) {
            object::Named::Tag => self.tagged(model, reference, &asked.headers)?,
            object::Named::Release(release) => self.of_release(model, &release, &asked.headers)?,
            object::Named::Sha256(digest) => self.by_digest(model, &digest, Code::ManifestUnknown)?,
            object::Named::Nothing => {
                return Err(OciError::new(
                    Code::ManifestInvalid,
                    "a tag has 1 to 128 letters, digits, `.`, `_` and `-`; a digest is sha256: or b3: and 64 lowercase \
                     hexadecimal digits",
                ));
            }
        };
        if !object.is_manifest() {
            let message = format!("{reference} is no manifest of `{model}`");
            return Err(OciError::new(Code::ManifestUnknown, message));
        }
        blob::reply(self, object, asked)
    }

    fn blob(&self, model: &Model, digest: &str, asked: &Asked) -> Result<Response, OciError> {
        let object = self.by_digest(model, &digest_of(digest)?, Code::BlobUnknown)?;
        blob::reply(self, object, asked)
    }
}

fn digest_of(text: &str) -> Result<Sha256, OciError> {
    text.strip_prefix("sha256:").and_then(|hex| Sha256::from_hex(hex).ok()).ok_or_else(|| {
        OciError::new(
            Code::DigestInvalid,
            "a digest is `sha256:` and 64 lowercase hexadecimal digits; no other algorithm is known here",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_what_the_specification_says() {
        let digest = "sha256:00";
        for (path, wanted) in [
            ("_catalog", Wanted::Catalog),
            ("alba/m/tags/list", Wanted::Tags("alba/m")),
            ("alba/m/manifests/stable", Wanted::Manifest("alba/m", "stable")),
            ("alba/m/blobs/sha256:00", Wanted::Blob("alba/m", digest)),
            ("alba/m/referrers/sha256:00", Wanted::Referrers("alba/m", digest)),
            // A model may have one of these words for its name.
            ("alba/blobs/manifests/x", Wanted::Manifest("alba/blobs", "x")),
            ("alba/m/blobs/uploads/", Wanted::Upload),
            ("alba/m/blobs/uploads/1", Wanted::Upload),
            ("alba/m", Wanted::Nothing),
            ("manifests/x", Wanted::Nothing),
        ] {
            assert_eq!(parse(path), wanted, "{path}");
        }
    }
}
