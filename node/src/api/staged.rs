//! What is staged, for whoever signs it: over the socket alone.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Api;
use super::guard::Body;
use super::hub::Released;
use super::stream::blocking;
use super::types::{ReviewRequest, Reviewed, Staged, StagedCommit, StagedFolder};
use crate::error::{Code, Problem};
use crate::staging::StagingError;

type Answer<T> = Result<Json<T>, Problem>;

impl From<StagingError> for Problem {
    fn from(error: StagingError) -> Self {
        let code = match error {
            StagingError::NoRepo(_) | StagingError::NoRevision(_) | StagingError::NoFile(_) => Code::NotFound,
            StagingError::Exists(_) | StagingError::Stale { .. } => Code::Conflict,
            StagingError::Wrong(_) | StagingError::TooLarge(_) | StagingError::Cut => Code::Usage,
            StagingError::Refused(_) => Code::PolicyRefused,
            StagingError::Forbidden(_) => Code::Forbidden,
            StagingError::Busy => Code::Busy,
            StagingError::Store(error) => return error.into(),
            StagingError::Full(_) | StagingError::Io { .. } => Code::Disk,
        };
        Self::new(code, error)
    }
}

pub(super) async fn list(State(api): State<Api>) -> Answer<Vec<Staged>> {
    Ok(Json(blocking(move || Ok(api.hub().push.area.all_staged()?)).await?))
}

pub(super) async fn review(State(api): State<Api>, Body(request): Body<ReviewRequest>) -> Answer<Reviewed> {
    let reviewed = blocking(move || {
        let ReviewRequest { model, branch, channel } = request;
        let last = Released::of(&api, &model)?.last(&channel)?;
        let files = last.iter().flat_map(|(_, release)| &release.files);
        let before: BTreeMap<_, _> =
            files.map(|file| (file.path.clone(), (file.sha256, file.size))).collect();
        let review = api.hub().push.area.review(&model, &branch, &before)?;
        let (against, version) = last.map(|(digest, release)| (digest, release.version)).unzip();
        Ok(Reviewed { review, against, version })
    });
    Ok(Json(reviewed.await?))
}

pub(super) async fn checkout(
    State(api): State<Api>,
    Body(request): Body<StagedCommit>,
) -> Answer<StagedFolder> {
    let folder = blocking(move || {
        let StagedCommit { model, commit, .. } = request;
        Ok(api.hub().push.area.checkout(api.store(), &model, &commit)?)
    });
    Ok(Json(StagedFolder { folder: folder.await?.display().to_string() }))
}

pub(super) async fn clear(State(api): State<Api>, Body(request): Body<StagedCommit>) -> Answer<Value> {
    blocking(move || {
        let StagedCommit { model, branch, commit } = request;
        Ok(api.hub().push.area.clear(&model, &branch, &commit)?)
    })
    .await?;
    Ok(Json(json!({})))
}
