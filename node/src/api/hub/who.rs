//! Who somebody is, and whether they may read a model.

use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::Api;
use super::super::guard::Path;
use super::caller::Caller;
use super::find;
use super::names::MAIN;
use super::refusal::Refusal;
use crate::error::Problem;
use crate::tokens::Scope;

/// `GET /api/whoami-v2`.
pub(super) async fn whoami(State(api): State<Api>, caller: Caller) -> Result<Json<Value>, Refusal> {
    let bearer = caller.bearer.ok_or(Refusal::BadToken)?;
    let role = match bearer.scope {
        Scope::Read => "read",
        Scope::Stage | Scope::Admin => "write",
    };
    let nation = api.store().own();
    Ok(Json(json!({
        "type": "user",
        "id": bearer.id,
        "name": nation,
        "fullname": bearer.name,
        "email": null,
        "emailVerified": false,
        "isPro": false,
        "canPay": false,
        "orgs": [],
        "auth": {
            "type": "access_token",
            "accessToken": { "displayName": bearer.name, "role": role, "scope": bearer.scope.as_str() },
        },
    })))
}

/// `GET /api/models/{nation}/{name}/auth-check`.
pub(super) async fn auth_check(
    State(api): State<Api>,
    caller: Caller,
    path: Result<Path<(String, String)>, Problem>,
) -> Result<Json<Value>, Refusal> {
    let Path((nation, name)) = path?;
    find(&api, &caller, &nation, &name, MAIN).await?;
    Ok(Json(json!({})))
}

/// What is no model of a nation: other kinds of repositories, and names without a nation.
pub(super) async fn no_model(caller: Caller) -> Refusal {
    caller.no_model(MODELS_ONLY)
}

const MODELS_ONLY: &str = "this node has models only, each called `nation/name`";

/// The answer for a route that is not there, where it is the hub's: a file of a repository without a namespace, or something
/// that changes.
pub(in super::super) async fn unknown(State(api): State<Api>, request: Request) -> Response {
    let path = request.uri().path();
    let file = path.split('/').nth(2).is_some_and(|word| matches!(word, "resolve" | "raw"));
    if !api.node().config().hub.enabled || !(file || path.starts_with("/api/")) {
        return super::super::unknown().into_response();
    }
    let (mut parts, _) = request.into_parts();
    match Caller::from_request_parts(&mut parts, &api).await {
        Err(refusal) => refusal.into_response(),
        Ok(_) if !matches!(parts.method, Method::GET | Method::HEAD) => Refusal::ReadOnly.into_response(),
        Ok(caller) => caller.no_model(MODELS_ONLY).into_response(),
    }
}
