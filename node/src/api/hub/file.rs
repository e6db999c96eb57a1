//! `/{nation}/{name}/resolve/{revision}/{path}`: a file.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;

use super::super::Api;
use super::super::guard::Path;
use super::body::{Reading, Source};
use super::caller::Caller;
use super::conditions::{Wanted, wanted};
use super::refusal::{REPO_COMMIT, Refusal};
use super::{Found, find, push};
use crate::error::Problem;

const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");
/// How long the head of an answer waits for the first bytes of what is being fetched, so that a failure can be told by its
/// status. Clients give up after 10 s without an answer.
const FIRST: Duration = Duration::from_secs(5);

type Four = (String, String, String, String);

pub(super) async fn resolve(
    State(api): State<Api>,
    method: Method,
    caller: Caller,
    path: Result<Path<Four>, Problem>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Path((nation, name, revision, path)) = path?;
    let found = find(&api, &caller, &nation, &name, &revision).await?;
    let commit = found.known.commit();
    let Some((place, file)) = found.known.file(&path) else {
        return Err(Refusal::NoFile { path, commit });
    };
    // Every file is answered as the hub answers its large ones: by the SHA-256 that the producer signed, which is known
    // before a byte is here.
    let etag = file.sha256.to_hex();
    let wanted = wanted(&headers, &etag, file.size)?;
    let (status, range) = match wanted {
        Wanted::Unchanged => (StatusCode::NOT_MODIFIED, (0, 0)),
        Wanted::Part(from, to) if method != Method::HEAD => (StatusCode::PARTIAL_CONTENT, (from, to)),
        _ => (StatusCode::OK, (0, file.size)),
    };
    let body = match method {
        Method::HEAD => Body::empty(),
        _ if range.0 == range.1 => Body::empty(),
        _ => {
            // Fits: a release has at most 16384 files.
            let source = Source {
                api: api.clone(),
                release: found.known.digest,
                place: place as u32,
                file: file.clone(),
                staged: found.known.staged.is_some(),
            };
            match &found.known.staged {
                Some(commit) => {
                    let content = push::content(&api, commit, &path).await?;
                    Reading::staged(source, content, range, caller.outlet).into_body()
                }
                None => body(source, found.known.whole, range, caller).await?,
            }
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let head = response.headers_mut();
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            head.insert(name, value);
        }
    };
    put(REPO_COMMIT, &commit);
    put(header::ETAG, &format!("\"{etag}\""));
    put(LINKED_ETAG, &format!("\"{etag}\""));
    put(LINKED_SIZE, &file.size.to_string());
    put(header::ACCEPT_RANGES, "bytes");
    if status != StatusCode::NOT_MODIFIED {
        put(header::CONTENT_LENGTH, &(range.1 - range.0).to_string());
        put(header::CONTENT_TYPE, &file.media_type);
        put(header::CONTENT_DISPOSITION, &disposition(&path));
    }
    if status == StatusCode::PARTIAL_CONTENT {
        put(header::CONTENT_RANGE, &format!("bytes {}-{}/{}", range.0, range.1 - 1, file.size));
    }
    found.warn(head);
    Ok(response)
}

async fn body(source: Source, whole: bool, range: (u64, u64), caller: Caller) -> Result<Body, Refusal> {
    if whole {
        return Ok(Reading::whole(source, range, caller.outlet).await?.into_body());
    }
    let mut reading = Reading::growing(source, range, caller.outlet)?;
    reading.first(FIRST).await?;
    Ok(reading.into_body())
}

/// A browser saves the file rather than showing it.
fn disposition(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let plain: String =
        name.chars().map(|c| if c.is_ascii_graphic() && c != '"' { c } else { '_' }).collect();
    format!("attachment; filename*=UTF-8''{}; filename=\"{plain}\";", super::text::encode(name))
}

impl Found {
    /// Adds what whoever fetched something of the model before should know.
    pub(super) fn warn(&self, headers: &mut HeaderMap) {
        for warning in self.warnings.iter() {
            if let Ok(value) = HeaderValue::try_from(super::text::header_safe(warning)) {
                headers.append(super::refusal::WARNING, value);
            }
        }
    }
}
