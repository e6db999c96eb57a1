//! Making models, branches and tags.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use registry::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::super::Api;
use super::super::super::guard::{Body, Path};
use super::super::caller::Caller;
use super::super::refusal::Refusal;
use super::{Released, author, off, own_model};
use crate::error::Problem;
use crate::staging::StagingError;

type Two<T> = Result<Body<T>, Problem>;
type Three = Result<Path<(String, String, String)>, Problem>;

/// Which model.
#[derive(Debug, Deserialize)]
pub(super) struct Which {
    name: String,
    #[serde(default)]
    organization: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

impl Which {
    fn nation(&self, api: &Api) -> Result<String, Refusal> {
        if self.kind.as_deref().is_some_and(|kind| kind != "model") {
            return Err(Refusal::Wrong("this node has models only".to_owned()));
        }
        Ok(self.organization.clone().unwrap_or_else(|| api.hub().push.nation.to_string()))
    }
}

/// `POST /api/repos/create`.
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    body: Two<Which>,
) -> Result<Response, Refusal> {
    let by = author(&api, &caller)?;
    let Body(which) = body?;
    let model = own_model(&api, &caller, &which.nation(&api)?, &which.name)?;
    let url = format!("{}/{model}", caller.origin);
    let done = json!({ "url": url, "name": model.to_string(), "id": model.to_string() });
    let made = off(move || {
        let releases = Released::of(&api, &model)?;
        match api.hub().push.area.create_repo(&model, &by, &releases, Timestamp::now()) {
            Err(StagingError::Exists(why)) => Ok(Some(why)),
            made => made.map(|()| None),
        }
    });
    match made.await? {
        None => Ok(Json(done).into_response()),
        // Those who don't mind read the address all the same.
        Some(why) => Ok((StatusCode::CONFLICT, Json(json!({ "error": why, "url": url }))).into_response()),
    }
}

/// `DELETE /api/repos/delete`: what is staged of a model, never what is released.
pub(super) async fn remove(
    State(api): State<Api>,
    caller: Caller,
    body: Two<Which>,
) -> Result<Json<Value>, Refusal> {
    let by = author(&api, &caller)?;
    let Body(which) = body?;
    let model = own_model(&api, &caller, &which.nation(&api)?, &which.name)?;
    let area = Arc::clone(&api.hub().push.area);
    off(move || area.delete_repo(&model, &by)).await?;
    Ok(Json(json!({})))
}

/// A model card.
#[derive(Debug, Deserialize)]
pub(super) struct Card {
    content: String,
}

/// `POST /api/validate-yaml`: whether a model card's front matter begins and ends.
pub(super) async fn validate(
    State(api): State<Api>,
    caller: Caller,
    body: Two<Card>,
) -> Result<Response, Refusal> {
    author(&api, &caller)?;
    let Body(card) = body?;
    let mut lines = card.content.trim_start_matches('\u{feff}').lines();
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    if lines.next().map(str::trim_end) != Some("---") {
        warnings
            .push(json!({ "message": "the model card has no metadata (YAML between two lines of `---`)" }));
    } else if !lines.any(|line| line.trim_end() == "---") {
        errors.push(json!({ "message": "the metadata does not end: a second line of `---` is missing" }));
    }
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    Ok((status, Json(json!({ "errors": errors, "warnings": warnings }))).into_response())
}

/// Where a branch begins.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Beginning {
    #[serde(default, rename = "startingPoint")]
    start: Option<String>,
}

/// `POST /api/models/{nation}/{name}/branch/{branch}`.
pub(super) async fn branch(
    State(api): State<Api>,
    caller: Caller,
    path: Three,
    body: Two<Beginning>,
) -> Result<Json<Value>, Refusal> {
    let by = author(&api, &caller)?;
    let (Path((nation, name, branch)), Body(from)) = (path?, body?);
    let model = own_model(&api, &caller, &nation, &name)?;
    off(move || {
        let (releases, now) = (Released::of(&api, &model)?, Timestamp::now());
        let area = &api.hub().push.area;
        area.create_branch(&model, &branch, from.start.as_deref(), &by, &releases, now)
    })
    .await?;
    Ok(Json(json!({})))
}

/// `DELETE /api/models/{nation}/{name}/branch/{branch}`.
pub(super) async fn unbranch(
    State(api): State<Api>,
    caller: Caller,
    path: Three,
) -> Result<Json<Value>, Refusal> {
    author(&api, &caller)?;
    let Path((nation, name, branch)) = path?;
    let model = own_model(&api, &caller, &nation, &name)?;
    off(move || api.hub().push.area.delete_branch(&model, &branch, &Released::of(&api, &model)?)).await?;
    Ok(Json(json!({})))
}

/// A tag.
#[derive(Debug, Deserialize)]
pub(super) struct Tag {
    tag: String,
}

/// `POST /api/models/{nation}/{name}/tag/{revision}`.
pub(super) async fn tag(
    State(api): State<Api>,
    caller: Caller,
    path: Three,
    body: Two<Tag>,
) -> Result<Json<Value>, Refusal> {
    let by = author(&api, &caller)?;
    let (Path((nation, name, revision)), Body(Tag { tag })) = (path?, body?);
    let model = own_model(&api, &caller, &nation, &name)?;
    off(move || {
        let (releases, now) = (Released::of(&api, &model)?, Timestamp::now());
        api.hub().push.area.create_tag(&model, &tag, &revision, &by, &releases, now)
    })
    .await?;
    Ok(Json(json!({})))
}

/// `DELETE /api/models/{nation}/{name}/tag/{tag}`.
pub(super) async fn untag(
    State(api): State<Api>,
    caller: Caller,
    path: Three,
) -> Result<Json<Value>, Refusal> {
    author(&api, &caller)?;
    let Path((nation, name, tag)) = path?;
    let model = own_model(&api, &caller, &nation, &name)?;
    off(move || api.hub().push.area.delete_tag(&model, &tag, &Released::of(&api, &model)?)).await?;
    Ok(Json(json!({})))
}
