//! The same interface in front of an engine that is another process: keys, limits, deadlines and recalls are the worker's, the
//! answers are the engine's own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Request, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures::{StreamExt, stream};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::access::{Active, Asked};
use super::{ApiError, App, fields, read_body, reply};
use crate::engine::Failure;
use crate::halt::Cause;

/// How long it may take to be connected to the engine: it is on this machine.
const CONNECT: Duration = Duration::from_secs(5);
/// Headers of its answer that are passed on; the others are about the connection to it.
const PASSED_ON: [header::HeaderName; 2] = [header::CONTENT_TYPE, header::CACHE_CONTROL];

/// Where the engine answers, and what it calls itself.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) engine: String,
    created: i64,
}

impl Upstream {
    pub(crate) fn new(address: SocketAddr, engine: String) -> Self {
        Self { address, engine, created: reply::now() }
    }
}

impl App {
    /// From now on requests are passed on. Only the first call counts.
    pub(crate) fn passed_on(&self, upstream: Upstream) {
        if self.0.upstream.set(upstream).is_err() {
            tracing::warn!("a model is served already");
        }
    }

    /// The routes where an engine beside the worker answers.
    pub(crate) fn proxy(self) -> Router {
        let answers = Router::new()
            .route("/v1/completions", post(pass))
            .route("/v1/chat/completions", post(pass))
            .route("/v1/embeddings", post(pass))
            .route("/metrics", get(metrics));
        self.around(answers)
    }

    /// Where to pass a request on, unless the model is recalled, its lease has ended, or it is not loaded yet.
    pub(super) fn upstream(&self) -> Result<&Upstream, ApiError> {
        self.standing()?;
        self.0.upstream.get().ok_or_else(ApiError::loading)
    }

    pub(super) fn shown_upstream(&self, upstream: &Upstream) -> Value {
        let identity = self.identity();
        json!({
            "id": self.model(), "object": "model", "created": upstream.created,
            "owned_by": identity.model.nation.as_str(),
            "steelyard": { "release": identity.release, "version": identity.version, "engine": upstream.engine },
        })
    }
}

/// The engine's own, for Prometheus.
async fn metrics(State(app): State<App>, asked: Asked) -> Result<Response, ApiError> {
    let address = app.upstream()?.address;
    let active = app.enter(asked.caller)?;
    let sent = send(address, Method::GET, "/metrics", Bytes::new());
    let answer = until(&app, asked.deadline, sent).await?;
    Ok(passed(&app, answer, asked.deadline, active))
}

async fn pass(State(app): State<App>, asked: Asked, uri: Uri, body: Body) -> Result<Response, ApiError> {
    let begun = Instant::now();
    // First, because a client that is still sending does not hear what is answered.
    let body = read_body(body).await?;
    let address = app.upstream()?.address;
    let (body, timeout) = rewritten(&app, &body)?;
    let asked = asked.within(timeout, begun);
    let active = app.enter(asked.caller)?;
    let sent = send(address, Method::POST, uri.path(), body);
    let answer = until(&app, asked.deadline, sent).await?;
    Ok(passed(&app, answer, asked.deadline, active))
}

/// The request as the engine is told it: it knows the model by one name, and no field of this server's own.
fn rewritten(app: &App, body: &[u8]) -> Result<(Bytes, Option<Duration>), ApiError> {
    let read: Result<Value, _> = serde_json::from_slice(body);
    let Ok(Value::Object(mut fields)) = read else {
        return Err(ApiError::invalid(None, None, "The request's body is no JSON object"));
    };
    match fields.get("model") {
        None => {}
        // An engine beside the worker has no adapters.
        Some(Value::String(name)) => drop(app.chosen(Some(name))?),
        Some(_) => return Err(ApiError::invalid(Some("model"), None, "`model` must be a text")),
    }
    let timeout = match fields.remove("timeout") {
        None | Some(Value::Null) => None,
        Some(seconds) => Some(fields::within(seconds.as_f64().unwrap_or(0.0))?),
    };
    fields.insert("model".to_owned(), app.model().into());
    let body = serde_json::to_vec(&fields).map_err(|error| ApiError::internal(error.to_string()))?;
    Ok((body.into(), timeout))
}

async fn send(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Response<Body>, ApiError> {
    let broken = |what: &str, error: &dyn std::fmt::Display| {
        tracing::warn!(%error, "the engine {what}");
        ApiError::internal(format!("The engine {what}"))
    };
    let connect = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
    let stream = connect
        .map_err(|error| broken("does not answer", &error))?
        .map_err(|error| broken("does not answer", &error))?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken("does not answer", &error))?;
    // Ends with the answer, or when the answer is dropped: the engine sees that nobody waits any more.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the engine ended early");
        }
    });
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body))
        .map_err(|error| broken("can't be asked", &error))?;
    let answer = sender.send_request(request).await.map_err(|error| broken("broke off", &error))?;
    Ok(answer.map(Body::new))
}

/// Waits for `answer`, but no longer than it may take, and not beyond a halt.
async fn until<T>(
    app: &App,
    deadline: Instant,
    answer: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    tokio::select! {
        biased;
        cause = app.halt().wait() => Err(app.cut_off_by(&Failure::Halted(cause))),
        answer = answer => answer,
        () = tokio::time::sleep_until(deadline.into()) => Err(app.cut_off_by(&Failure::Late)),
    }
}

/// Why an answer was cut off.
enum Cut {
    Halted(Cause),
    Late,
}

/// The answer as it comes. One that is cut off says why in its last event, or, where it is no stream of events, breaks off.
fn passed(app: &App, answer: Response<Body>, deadline: Instant, active: Arc<Active>) -> Response {
    let (parts, body) = answer.into_parts();
    let mut response = Response::builder().status(parts.status);
    for name in PASSED_ON {
        if let Some(value) = parts.headers.get(&name) {
            response = response.header(name, value);
        }
    }
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let events = kind.is_some_and(|kind| kind.starts_with("text/event-stream"));
    let (halt, told) = (app.halt().clone(), app.clone());
    let (send, cut) = tokio::sync::oneshot::channel();
    let stop = async move {
        let why = tokio::select! {
            cause = halt.wait() => Cut::Halted(cause),
            () = tokio::time::sleep_until(deadline.into()) => Cut::Late,
        };
        // The other end waits, or the whole answer was sent.
        let _ = send.send(why);
    };
    let last = stream::once(async move {
        // Counts until the last word is sent.
        let _active = active;
        let failure = match cut.await {
            // Nothing was cut off: the answer ended, and with it what would have cut it off.
            Err(_) => return None,
            Ok(Cut::Halted(cause)) => Failure::Halted(cause),
            Ok(Cut::Late) => Failure::Late,
        };
        let error = told.cut_off_by(&failure);
        Some(if events {
            Ok(Bytes::from(format!("data: {}\n\n", error.body())))
        } else {
            Err(axum::Error::new(std::io::Error::other(error.message)))
        })
    });
    let whole = body.into_data_stream().take_until(Box::pin(stop)).chain(last.filter_map(std::future::ready));
    response
        .body(Body::from_stream(whole))
        .unwrap_or_else(|error| ApiError::internal(error.to_string()).into_response())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
