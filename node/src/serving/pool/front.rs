//! A pool's HTTP interface: who asks, and which model; then the request goes to that model's own worker.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use futures::StreamExt;
use registry::Digest;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::error::ApiError;
use super::pass::{self, Outgoing, Upstreams};
use super::plan::{Key, Manner};
use super::{MemberState, Pass, Pool};

/// Largest request body, in bytes: what a worker takes.
const MAX_BODY: usize = 4 * 1024 * 1024;
/// Of a larger body so many bytes are read and dropped, so that its sender gets to hear the answer.
const MAX_DISCARDED: usize = 16 * MAX_BODY;
/// Bodies of all requests together that are not sent on yet, in KiB: those that wait for a model are kept, and this process has more to do
/// than to keep them.
pub(super) const MAX_BODIES: usize = 256 * 1024;
/// Longest time for a request's body to arrive. 4 MiB take that long at 140 KB/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time that a request may take, loading included.
const MAX_TIME: Duration = Duration::from_secs(3600);
/// The header that says how many seconds a request may take; a field `timeout` of the body goes before it.
const TIMEOUT_HEADER: &str = "x-request-timeout";

/// The routes.
pub(super) fn router(pool: Pool) -> Router {
    Router::new()
        .route("/v1/completions", post(answer))
        .route("/v1/chat/completions", post(answer))
        .route("/v1/embeddings", post(answer))
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(
            |method: Method, uri: Uri| async move { ApiError::no_such_path(method.as_str(), uri.path()) },
        )
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            ApiError::wrong_method(method.as_str(), uri.path())
        })
        .with_state(pool)
}

/// What the front reads of a body; the rest is the worker's.
#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    model: Option<Value>,
    #[serde(default)]
    timeout: Option<Value>,
}

async fn answer(
    State(pool): State<Pool>,
    Extension(upstreams): Extension<Upstreams>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let begun = Instant::now();
    let (parts, body) = request.into_parts();
    // Before anything is loaded, or even read.
    pool.may_ask(&parts.headers)?;
    let by_header = match parts.headers.get(TIMEOUT_HEADER) {
        None => MAX_TIME,
        Some(seconds) => within(seconds.to_str().ok().and_then(|text| text.trim().parse().ok()))?,
    };
    let _room = pool.room(&parts.headers).await?;
    // First, because a client that is still sending does not hear what is answered.
    let body = read_body(body).await?;
    let asked: Asked = serde_json::from_slice(&body).map_err(|error| {
        ApiError::invalid(None, format!("The body is not a JSON object as it should be: {error}"))
    })?;
    let name = match &asked.model {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name.as_str()),
        Some(_) => return Err(ApiError::invalid(Some("model"), "`model` must be a text")),
    };
    let by_body = match &asked.timeout {
        None | Some(Value::Null) => None,
        Some(seconds) => Some(within(seconds.as_f64())?),
    };
    let until = begun + by_body.unwrap_or(by_header);
    let key = pool.find(name).await?;
    let mut headers = pass::outgoing(&parts.headers);
    let path = parts.uri.path().to_owned();
    // A connection that had been used may be closed by the worker just then; once more, and it is another one.
    for is_last in [false, true] {
        let pass = pool.let_in(key, until).await?;
        let name = pool.state().name(key).unwrap_or_default();
        let Some(address) = pool.address(key) else { continue };
        // What was waited is gone.
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        if let Ok(left) = HeaderValue::try_from(left.as_secs_f64().to_string()) {
            headers.insert(TIMEOUT_HEADER, left);
        }
        let outgoing = Outgoing { path: path.clone(), headers: headers.clone(), body: body.clone() };
        let sent = upstreams.send(key, address, &outgoing);
        match tokio::time::timeout_at(until, sent).await {
            Err(_) => return Err(ApiError::late()),
            Ok(Ok(answer)) => return Ok(pass::passed(answer, pass, &name)),
            Ok(Err(broken)) if is_last || !broken.stale => return Err(ApiError::broken(&name)),
            Ok(Err(_)) => {}
        }
    }
    Err(ApiError::broken(name.unwrap_or("the model")))
}

fn within(seconds: Option<f64>) -> Result<Duration, ApiError> {
    match seconds {
        Some(seconds) if seconds > 0.0 && seconds <= MAX_TIME.as_secs_f64() => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => {
            let most = MAX_TIME.as_secs();
            let message =
                format!("Invalid `timeout`: it is a number of seconds, more than 0 and at most {most}");
            Err(ApiError::invalid(Some("timeout"), message))
        }
    }
}

async fn read_body(body: Body) -> Result<Bytes, ApiError> {
    let read = async {
        let mut bytes = Vec::new();
        let mut total = 0;
        let mut stream = body.into_data_stream();
        while let Some(part) = stream.next().await {
            let part = part.map_err(|error| {
                ApiError::invalid(None, format!("The request's body could not be read: {error}"))
            })?;
            total += part.len();
            if total > MAX_DISCARDED {
                break;
            }
            if total <= MAX_BODY {
                bytes.extend_from_slice(&part);
            }
        }
        if total > MAX_BODY { Err(ApiError::too_large(MAX_BODY)) } else { Ok(Bytes::from(bytes)) }
    };
    let late = || ApiError::too_slow(BODY_TIMEOUT.as_secs());
    tokio::time::timeout(BODY_TIMEOUT, read).await.unwrap_or_else(|_| Err(late()))
}

impl Pool {
    /// Whether a request with these headers may ask at all: by the keys as they are now, as its worker decides once more.
    fn may_ask(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let keys = self.0.keys.borrow().clone();
        let access = self.0.workers.shared.settings.access(self.0.address, keys);
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token =
            given.and_then(|given| given.strip_prefix("Bearer ")).map(str::trim).filter(|t| !t.is_empty());
        let known = token.is_some_and(|token| {
            // Compared are hashes, so that the time that it takes tells nothing of the keys.
            let hash = Digest::of(token.as_bytes());
            access.keys.iter().any(|key| key.hash == hash)
        });
        match token {
            _ if known || access.anonymous => Ok(()),
            None => Err(ApiError::no_key()),
            Some(_) => Err(ApiError::wrong_key()),
        }
    }

    /// Waits until there is room for the body of a request with these headers.
    async fn room(&self, headers: &HeaderMap) -> Result<OwnedSemaphorePermit, ApiError> {
        let told = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        // One that does not say may be as long as any.
        let length = told.unwrap_or(MAX_BODY).min(MAX_BODY);
        let wanted = u32::try_from(length.div_ceil(1024).max(1)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.0.bodies).acquire_many_owned(wanted);
        match tokio::time::timeout(BODY_TIMEOUT, room).await {
            Ok(Ok(room)) => Ok(room),
            _ => Err(ApiError::crowded(MAX_BODIES / 1024)),
        }
    }

    /// Waits until a member is loaded and may be asked.
    async fn let_in(&self, key: Key, until: Instant) -> Result<Pass, ApiError> {
        let refused = |why| {
            let name = self.state().name(key);
            if self.0.closing.is_cancelled() {
                return ApiError::stopping();
            }
            match name {
                Some(name) => ApiError::refused(&why, &name),
                None => ApiError::no_such_model("it", &self.state().names()),
            }
        };
        self.may_serve(key).await.map_err(refused)?;
        self.enter(key, Manner::Request, until).await.map_err(refused)
    }

    fn address(&self, key: Key) -> Option<std::net::SocketAddr> {
        self.state().members.get(&key)?.address
    }

    /// A member, as the models' list shows it.
    fn shown(&self, key: Key) -> Option<Value> {
        let state = self.state();
        let (member, shown) = (state.members.get(&key)?, state.plan.show(key)?);
        Some(json!({
            "id": state.name(key)?, "object": "model", "created": self.0.started.unix(),
            "owned_by": member.model.nation.as_str(),
            "steelyard": {
                "release": member.release, "version": member.version,
                "state": MemberState::from(shown.state), "needs": shown.needs,
            },
        }))
    }
}

async fn models(State(pool): State<Pool>, headers: HeaderMap) -> Result<Json<Value>, ApiError> {
    pool.may_ask(&headers)?;
    let keys: Vec<Key> = pool.state().members.keys().copied().collect();
    let shown: Vec<Value> = keys.into_iter().filter_map(|key| pool.shown(key)).collect();
    Ok(Json(json!({ "object": "list", "data": shown })))
}

async fn model(
    State(pool): State<Pool>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    pool.may_ask(&headers)?;
    let key = pool.find(Some(&id)).await?;
    let unknown = || ApiError::no_such_model(&id, &pool.state().names());
    pool.shown(key).map(Json).ok_or_else(unknown)
}

async fn health(State(pool): State<Pool>) -> Response {
    let info = pool.info();
    let (status, word) = match pool.0.closing.is_cancelled() {
        false => (StatusCode::OK, "ok"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "server_stopping"),
    };
    let active: u32 = info.members.iter().map(|member| member.requests).sum();
    let shown = info.members.iter().map(|member| {
        json!({
            "model": member.model, "release": member.release, "state": member.state,
            "active_requests": member.requests, "waiting": member.waiting,
        })
    });
    let body = json!({
        "status": word, "pool": info.id, "active_requests": active, "waiting": info.waiting,
        "models": shown.collect::<Vec<_>>(),
    });
    (status, Json(body)).into_response()
}

/// For Prometheus.
async fn metrics(State(pool): State<Pool>, headers: HeaderMap) -> Result<Response, ApiError> {
    pool.may_ask(&headers)?;
    let text = super::metrics::text(&pool.info());
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}
