//! Attachments, and releases as folders.

use std::io::Read;

use axum::Json;
use axum::extract::State;
use registry::Digest;
use registry::attachment::{self, AttachmentError, Kind, Summary};
use registry::statement::{File, Release};
use registry::store::Store;

use super::guard::{Body, Path};
use super::stream::blocking;
use super::types::{AttachRequest, AttachmentEntry, CheckedOut, CheckoutRequest};
use super::{Api, admin, catalogue};
use crate::error::{Code, Problem};

type Answer<T> = Result<Json<T>, Problem>;

pub(super) async fn attach(State(api): State<Api>, Body(request): Body<AttachRequest>) -> Answer<File> {
    let store = api.store().clone();
    let file = blocking(move || {
        Ok(registry::publish::attach(&store, request.kind, &request.path, request.content.as_bytes())?)
    });
    Ok(Json(file.await?))
}

pub(super) async fn list(State(api): State<Api>, Path(digest): Path<String>) -> Answer<Vec<AttachmentEntry>> {
    let digest: Digest = digest.parse().map_err(|error| Problem::new(Code::Usage, error))?;
    let store = api.store().clone();
    let entries = blocking(move || {
        let release = store
            .release(&digest)?
            .ok_or_else(|| Problem::new(Code::NotFound, format!("the release {digest} is not known here")))?;
        let attached = release.files.iter().filter_map(|file| Some((file, Kind::of(&file.media_type)?)));
        let attached = attached.take(attachment::MAX_ATTACHMENTS);
        Ok(attached.map(|(file, kind)| entry(&store, &release, file, kind)).collect())
    });
    Ok(Json(entries.await?))
}

fn entry(store: &Store, release: &Release, file: &File, kind: Kind) -> AttachmentEntry {
    let (summary, problem) = match summary(store, release, file, kind) {
        Ok(summary) => (Some(summary), None),
        Err(why) => (None, Some(why)),
    };
    AttachmentEntry {
        path: file.path.clone(),
        attachment: kind,
        blake3: file.blake3,
        size: file.size,
        summary,
        problem,
    }
}

fn summary(store: &Store, release: &Release, file: &File, kind: Kind) -> Result<Summary, String> {
    if file.size > attachment::MAX_SIZE {
        return Err(AttachmentError::TooLarge { size: file.size }.to_string());
    }
    if !store.has_blob(&file.blake3) {
        return Err("it is not here; `steelyard pull` fetches it".to_owned());
    }
    let blob = store.open_blob(&file.blake3).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    blob.take(attachment::MAX_SIZE).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    attachment::describe(kind, &bytes, Some(release)).map_err(|error| error.to_string())
}

pub(super) async fn checkout(
    State(api): State<Api>,
    Body(request): Body<CheckoutRequest>,
) -> Answer<CheckedOut> {
    let path = admin::absolute(&request.path)?;
    let store = api.store().clone();
    let done = blocking(move || {
        let resolved = catalogue::resolve(&store, &request.reference)?;
        let written = registry::checkout::checkout(&store, &resolved.release, &path)?;
        let release = store.release(&resolved.release)?;
        Ok(CheckedOut {
            release: resolved.release,
            model: resolved.model,
            version: resolved.version,
            path: request.path,
            files: written.files,
            bytes: written.bytes,
            left_out: written.left_out,
            releasable_to: release.map(|release| release.releasable_to.to_string()).unwrap_or_default(),
        })
    });
    Ok(Json(done.await?))
}
