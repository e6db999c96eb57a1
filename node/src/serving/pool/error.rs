//! Why the front refuses a request, in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`. The workers' own errors are
//! of the same kind and pass as they are.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::plan::{Reason, Refusal, Why};

/// Seconds after which a client may try again when there is no room.
const RETRY_AFTER: &str = "1";
/// Models that an error names; whoever wants all of them asks `/v1/models`.
const NAMED: usize = 16;
const UNKNOWN: &str = "model_not_found";
const STOPPING: &str = "server_stopping";
const TOO_LARGE: &str = "model_too_large";

/// An answer that says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    /// What is wrong and what to do.
    pub(super) message: String,
    param: Option<&'static str>,
    /// What a program can tell it by.
    code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code }
    }

    fn about_model(self) -> Self {
        Self { param: Some("model"), ..self }
    }

    fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Some(code), message)
    }

    /// 400.
    pub(super) fn invalid(param: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, None, message) }
    }

    /// 400: which of several models is meant is not said.
    pub(super) fn no_model(names: &[String]) -> Self {
        let message = match names {
            [] => "There is no model in this pool; `steelyard pools add` adds one".to_owned(),
            _ => format!("`model` must say which model is asked: {}", listed(names)),
        };
        Self { code: Some("model_required"), ..Self::invalid(Some("model"), message) }
    }

    /// 400: several versions of it are served.
    pub(super) fn several(asked: &str, names: &[String]) -> Self {
        let message = format!("`{asked}` is served here in several versions; name one of {}", listed(names));
        Self { code: Some("model_ambiguous"), ..Self::invalid(Some("model"), message) }
    }

    /// 401: a key is needed.
    pub(super) fn no_key() -> Self {
        let message = "You didn't provide an API key. Send one as `Authorization: Bearer KEY`; the node's operator makes them with `steelyard serve-key add`";
        Self::new(StatusCode::UNAUTHORIZED, None, message)
    }

    /// 401: the key is none of ours, or no longer.
    pub(super) fn wrong_key() -> Self {
        let message = "Incorrect API key provided. It was revoked, or it is another server's";
        Self::new(StatusCode::UNAUTHORIZED, Some("invalid_api_key"), message)
    }

    /// 404: another model is asked for.
    pub(super) fn no_such_model(asked: &str, names: &[String]) -> Self {
        let served = if names.is_empty() { "no model".to_owned() } else { listed(names) };
        let message = format!("The model `{asked}` is not served here; this pool serves {served}");
        Self::new(StatusCode::NOT_FOUND, Some(UNKNOWN), message).about_model()
    }

    /// Whether the model that was asked for is unknown.
    pub(super) fn is_unknown_model(&self) -> bool {
        self.code == Some(UNKNOWN)
    }

    /// 404: no such path.
    pub(super) fn no_such_path(method: &str, path: &str) -> Self {
        let message = format!(
            "Invalid URL ({method} {path}); there are GET /v1/models, POST /v1/chat/completions, POST /v1/completions, POST /v1/embeddings, GET /health and GET /metrics"
        );
        Self::new(StatusCode::NOT_FOUND, Some("unknown_url"), message)
    }

    /// 405: another method is needed.
    pub(super) fn wrong_method(method: &str, path: &str) -> Self {
        let message = format!(
            "Not allowed to {method} on {path}; completions and embeddings take POST, everything else GET"
        );
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Some("method_not_allowed"), message)
    }

    /// 408: the body came too slowly.
    pub(super) fn too_slow(seconds: u64) -> Self {
        let message = format!("The request's body did not arrive within {seconds} seconds");
        Self::new(StatusCode::REQUEST_TIMEOUT, Some("request_timeout"), message)
    }

    /// 413: the body is too large.
    pub(super) fn too_large(limit: usize) -> Self {
        let message =
            format!("The request's body is larger than {limit} bytes; send fewer or shorter messages");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Some("request_too_large"), message)
    }

    /// 503: too much is kept already.
    pub(super) fn crowded(mebibytes: usize) -> Self {
        let message =
            format!("The requests that wait here have {mebibytes} MiB already; try again in a moment");
        Self::unavailable("queue_full", message)
    }

    /// 503: the worker broke off.
    pub(super) fn broken(model: &str) -> Self {
        let message = format!(
            "The worker that serves `{model}` ended while it answered, and is started again; try again in a moment"
        );
        Self::unavailable("worker_ended", message)
    }

    /// 504: the time is over.
    pub(super) fn late() -> Self {
        let message = "The request took longer than its `timeout`, or than any request may; ask for fewer tokens or more time";
        Self::new(StatusCode::GATEWAY_TIMEOUT, Some("deadline_exceeded"), message)
    }

    /// 503: no more is answered.
    pub(super) fn stopping() -> Self {
        Self::unavailable(STOPPING, "This pool stops")
    }

    /// Why the plan let nobody in who asked for `model`.
    pub(super) fn refused(why: &Refusal, model: &str) -> Self {
        match why {
            Refusal::TooLarge { needs, budget } => Self::unavailable(
                TOO_LARGE,
                format!(
                    "`{model}` needs about {} of memory, and this pool may have {} for all its models; its operator can raise `--memory`, ask for a smaller `--context`, or serve a smaller quantisation",
                    readable(*needs),
                    readable(*budget)
                ),
            ),
            Refusal::NoRoom => Self::unavailable(
                "no_room",
                format!(
                    "There is no room for `{model}`: the models that are loaded are busy; try again in a moment"
                ),
            ),
            Refusal::Full { limit } => Self::unavailable(
                "queue_full",
                format!(
                    "{limit} requests wait for their model already, which is the most this pool takes; try again in a moment"
                ),
            ),
            Refusal::Late => Self::late(),
            Refusal::Removed => Self::stopping(),
            Refusal::Reason(Reason { why, words }) => match why {
                // So that clients do not try again.
                Why::Recalled => Self::new(
                    StatusCode::GONE,
                    Some("model_recalled"),
                    format!("The model `{model}` was recalled and is no longer served: {words}"),
                ),
                Why::Policy => Self::new(
                    StatusCode::FORBIDDEN,
                    Some("model_not_allowed"),
                    format!("The model `{model}` may not be served here: {words}"),
                ),
                Why::Lease => Self::unavailable(
                    "lease_ended",
                    format!("The model `{model}` is not served at the moment: {words}"),
                ),
                Why::Load => Self::unavailable(
                    "model_not_loaded",
                    format!("The model `{model}` could not be loaded: {words}"),
                ),
            },
        }
    }

    /// The body, as a response and as a server-sent event carry it.
    pub(super) fn body(&self) -> Value {
        let kind = if self.status.is_server_error() { "server_error" } else { "invalid_request_error" };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code } })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body())).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let in_vain = [Some(STOPPING), Some(TOO_LARGE)].contains(&self.code);
        if self.status == StatusCode::SERVICE_UNAVAILABLE && !in_vain {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}

/// A few names, and how many more there are.
fn listed(names: &[String]) -> String {
    let mut shown: Vec<String> = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
    if names.len() > NAMED {
        shown.push(format!("{} more", names.len() - NAMED));
    }
    shown.join(", ")
}

/// Bytes for people.
fn readable(bytes: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    if bytes >= 10 * 1024 * MIB {
        format!("{} GiB", bytes.div_ceil(1024 * MIB))
    } else {
        format!("{} MiB", bytes.div_ceil(MIB))
    }
}
