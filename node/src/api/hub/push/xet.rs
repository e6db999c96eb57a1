//! The routes of Xet's storage, as far as an upload takes them.

use std::sync::Arc;

use axum::Json;
use axum::body::Body as Raw;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use registry::Timestamp;
use serde_json::{Value, json};
use std::io::Read;
use xet_core_structures::merklehash::MerkleHash;

use super::super::super::Api;
use super::super::super::guard::Path;
use super::super::caller::Caller;
use super::super::rate::WRONG_TOKEN;
use super::super::refusal::Refusal;
use super::body::{pour, refuse};
use super::seal::{count, permitted};
use super::{author, own_model};
use crate::error::Problem;
use crate::staging::{MAX_SHARD, MAX_XORB, StagingError};

/// Seconds for which a token of these routes is good; the client asks for another by itself.
const GOOD_FOR: i64 = 3600;
/// What its seal is for.
const WHAT: &str = "xet";
/// The only kind of xorbs there is.
const PREFIX: &str = "default";

const CAS_URL: HeaderName = HeaderName::from_static("x-xet-cas-url");
const ACCESS_TOKEN: HeaderName = HeaderName::from_static("x-xet-access-token");
const EXPIRATION: HeaderName = HeaderName::from_static("x-xet-token-expiration");

/// `GET /api/models/{nation}/{name}/xet-write-token/{revision}`.
pub(super) async fn token(
    State(api): State<Api>,
    caller: Caller,
    path: Result<Path<(String, String, String)>, Problem>,
) -> Result<Response, Refusal> {
    let by = author(&api, &caller)?;
    let Path((nation, name, _)) = path?;
    own_model(&api, &caller, &nation, &name)?;
    let url = format!("{}/xet", caller.origin);
    let (token, until) = api.hub().push.seals.make(WHAT, &by.id, GOOD_FOR, Timestamp::now());
    let mut response = Json(json!({ "casUrl": url, "accessToken": token, "exp": until })).into_response();
    let head = response.headers_mut();
    for (name, value) in [(CAS_URL, url), (ACCESS_TOKEN, token), (EXPIRATION, until.to_string())] {
        if let Ok(value) = HeaderValue::try_from(value) {
            head.insert(name, value);
        }
    }
    Ok(response)
}

/// Whether whoever asks was given a token for these routes.
fn check(api: &Api, request: &Request) -> Result<(), Refusal> {
    count(api, request, 1.0)?;
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = shown.and_then(|value| value.split_once(' ')).map(|(_, token)| token.trim());
    permitted(api, WHAT, token.unwrap_or_default()).inspect_err(|_| {
        let _ = count(api, request, WRONG_TOKEN);
    })
}

/// The client tries whatever begins with 5 for a minute again; that there is no room it shall tell at once.
fn at_once(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Push { status: StatusCode::INSUFFICIENT_STORAGE, code, why } => {
            Refusal::Push { status: StatusCode::PAYLOAD_TOO_LARGE, code, why }
        }
        other => other,
    }
}

/// `POST /xet/v1/xorbs/default/{hash}`.
pub(super) async fn xorb(
    State(api): State<Api>,
    path: Result<Path<(String, String)>, Problem>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let checked = check(&api, &request).and_then(|()| {
        let Path((prefix, hash)) = path?;
        match MerkleHash::from_hex(&hash) {
            Ok(hash) if prefix == PREFIX => Ok(hash),
            _ => Err(Refusal::Wrong("that is no xorb's name".to_owned())),
        }
    });
    let hash = match checked {
        Ok(hash) => hash,
        Err(refusal) => return Err(refuse(request.into_body(), refusal).await),
    };
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let announced = announced.and_then(|value| value.parse().ok()).unwrap_or(MAX_XORB);
    let area = Arc::clone(&api.hub().push.area);
    let new = pour(&api, request.into_body(), MAX_XORB, move |mut pieces| {
        area.take_xorb(&hash, announced, &mut pieces)
    });
    Ok(Json(json!({ "was_inserted": new.await.map_err(at_once)? })))
}

/// `POST /xet/v1/shards`.
pub(super) async fn shard(State(api): State<Api>, request: Request) -> Result<Json<Value>, Refusal> {
    if let Err(refusal) = check(&api, &request) {
        return Err(refuse(request.into_body(), refusal).await);
    }
    let push = &api.hub().push;
    let place = Arc::clone(&push.shards).acquire_owned().await;
    let area = Arc::clone(&push.area);
    let new = pour(&api, request.into_body(), MAX_SHARD, move |pieces| {
        let mut shard = Vec::new();
        pieces.take(MAX_SHARD).read_to_end(&mut shard).map_err(|_| StagingError::Cut)?;
        let new = area.take_shard(&shard);
        drop(place);
        new
    });
    // 0: all of it was here; 1: something is new.
    Ok(Json(json!({ "result": u8::from(new.await.map_err(at_once)? > 0) })))
}

/// `GET /xet/v1/chunks/{prefix}/{hash}`: whether a chunk is in a xorb that somebody else uploaded. Nobody is told: within a
/// session, and from its own notes, the client knows what it sent.
pub(super) async fn chunk(State(api): State<Api>, request: Request) -> Refusal {
    match check(&api, &request) {
        Ok(()) => Refusal::push(404, None, "no such chunk is known here"),
        Err(refusal) => refusal,
    }
}

/// `POST /xet/v2/shards`: a newer form of [`shard`], which clients try first.
pub(super) async fn newer(body: Raw) -> Refusal {
    refuse(body, Refusal::push(404, None, "shards are taken at /xet/v1/shards")).await
}
