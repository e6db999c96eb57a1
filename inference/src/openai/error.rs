//! Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use registry::serving::StopCode;
use serde_json::{Value, json};

use crate::engine::grammar::GrammarError;
use crate::engine::{Failure, PushError};
use crate::halt::Cause;
use crate::prompt::PromptError;
use crate::template::TemplateError;

/// Seconds after which a client may try again when too many requests are at work.
const RETRY_AFTER: &str = "1";

/// An answer that says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// What is wrong and what to do.
    pub message: String,
    /// OpenAI's class of error.
    pub kind: &'static str,
    /// The parameter it is about.
    pub param: Option<String>,
    /// What a program can tell it by.
    pub code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, code: Option<&'static str>, message: impl Into<String>) -> Self {
        let kind = if status.is_server_error() { "server_error" } else { "invalid_request_error" };
        Self { status, message: message.into(), kind, param: None, code }
    }

    /// 400.
    pub fn invalid(param: Option<&str>, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { param: param.map(str::to_owned), ..Self::new(StatusCode::BAD_REQUEST, code, message) }
    }

    /// A parameter that OpenAI knows and this server does not.
    pub fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self::invalid(Some(param), Some("unsupported_parameter"), message)
    }

    /// 401: a key is needed.
    pub fn no_key() -> Self {
        let message = "You didn't provide an API key. Send one as `Authorization: Bearer KEY`; the node's operator makes them with `steelyard serve-key add`";
        Self::new(StatusCode::UNAUTHORIZED, None, message)
    }

    /// 401: the key is none of ours, or no longer.
    pub fn wrong_key() -> Self {
        let message = "Incorrect API key provided. It was revoked, or it is another server's";
        Self::new(StatusCode::UNAUTHORIZED, Some("invalid_api_key"), message)
    }

    /// 429: this caller has as many requests as one may have.
    pub fn greedy(limit: usize) -> Self {
        let message = format!(
            "{limit} requests with this key run or wait already, which is the most that one caller may have; wait for one of them"
        );
        Self::new(StatusCode::TOO_MANY_REQUESTS, Some("rate_limit_exceeded"), message)
    }

    /// 400: the model does not do this.
    pub fn wrong_purpose(model: &str, what: &str) -> Self {
        let message = format!("`{model}` is a model that {what}; ask another one");
        Self::invalid(Some("model"), Some("unsupported_model"), message)
    }

    /// 400: the answer can't be kept to this form.
    pub fn form(error: &GrammarError, param: &str) -> Self {
        Self::invalid(Some(param), Some("invalid_json_schema"), format!("Invalid `{param}`: {error}"))
    }

    /// 400: functions can't be called.
    pub fn no_tools() -> Self {
        let message = "this model's chat template tells of functions in a form that is not known here, so its calls could not be read; leave `tools` out";
        Self::unsupported("tools", message)
    }

    /// 404: another model is asked for.
    pub fn no_such_model(asked: &str, served: &str, adapters: &[&str]) -> Self {
        let beside = adapters.iter().map(|adapter| format!(", and with it `{adapter}`")).collect::<String>();
        let message =
            format!("The model `{asked}` is not served here; this worker serves `{served}`{beside}");
        let error = Self::new(StatusCode::NOT_FOUND, Some("model_not_found"), message);
        Self { param: Some("model".to_owned()), ..error }
    }

    /// 400: two releases have this name.
    pub fn ambiguous(asked: &str, one: &str, other: &str) -> Self {
        let message = format!("`{asked}` may be `{one}` or `{other}` here; say which");
        Self::invalid(Some("model"), Some("ambiguous_model"), message)
    }

    /// 404: no such path.
    pub fn no_such_path(method: &str, path: &str) -> Self {
        let message = format!(
            "Invalid URL ({method} {path}); there are GET /v1/models, POST /v1/chat/completions, POST /v1/completions, POST /v1/embeddings, GET /health and GET /metrics"
        );
        Self::new(StatusCode::NOT_FOUND, Some("unknown_url"), message)
    }

    /// 405: another method is needed.
    pub fn wrong_method(method: &str, path: &str) -> Self {
        let message = format!(
            "Not allowed to {method} on {path}; completions and embeddings take POST, everything else GET"
        );
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Some("method_not_allowed"), message)
    }

    /// 408: the body came too slowly.
    pub fn too_slow(seconds: u64) -> Self {
        let message = format!("The request's body did not arrive within {seconds} seconds");
        Self::new(StatusCode::REQUEST_TIMEOUT, Some("request_timeout"), message)
    }

    /// 413: the body is too large.
    pub fn too_large(limit: usize) -> Self {
        let message =
            format!("The request's body is larger than {limit} bytes; send fewer or shorter messages");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Some("request_too_large"), message)
    }

    /// 503: not yet.
    pub fn loading() -> Self {
        let message = "The model is being verified and loaded; try again in a moment";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Some("model_loading"), message)
    }

    /// 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Some("engine_error"), message)
    }

    /// The worker stops. A recall is 410, so that clients do not try again.
    pub fn halted(cause: &Cause, model: &str) -> Self {
        match cause.code {
            StopCode::Recalled => {
                let message =
                    format!("The model `{model}` was recalled and is no longer served: {}", cause.reason);
                Self::new(StatusCode::GONE, Some("model_recalled"), message)
            }
            StopCode::Requested => {
                let message = format!("The worker that serves `{model}` stops: {}", cause.reason);
                Self::new(StatusCode::SERVICE_UNAVAILABLE, Some("server_stopping"), message)
            }
            StopCode::LeaseEnded => {
                let message = format!("The model `{model}` is not served at the moment: {}", cause.reason);
                Self::new(StatusCode::SERVICE_UNAVAILABLE, Some("lease_ended"), message)
            }
            StopCode::Damaged => {
                let message =
                    format!("The model `{model}` is no longer served: its weights changed. {}", cause.reason);
                Self::new(StatusCode::SERVICE_UNAVAILABLE, Some("weights_damaged"), message)
            }
        }
    }

    /// What became of a job.
    pub fn failed(failure: &Failure, model: &str) -> Self {
        match failure {
            Failure::Halted(cause) => Self::halted(cause, model),
            Failure::Engine(words) => Self::internal(words.as_str()),
            Failure::Late => {
                let message = "The request took longer than its `timeout`, or than any request may; ask for fewer tokens or more time";
                Self::new(StatusCode::GATEWAY_TIMEOUT, Some("deadline_exceeded"), message)
            }
            Failure::Grammar(words) => {
                let message = format!(
                    "The answer can't be kept to the form that was asked for: {words}. Ask for a simpler one"
                );
                Self::invalid(None, Some("grammar_too_complex"), message)
            }
        }
    }

    /// What became of a job that was not taken.
    pub fn refused(error: &PushError, model: &str) -> Self {
        match error {
            PushError::Full { limit } => {
                let message = format!(
                    "{limit} requests run or wait already, which is the most this worker takes; try again in a moment"
                );
                Self::new(StatusCode::SERVICE_UNAVAILABLE, Some("queue_full"), message)
            }
            PushError::Closed(failure) => Self::failed(failure, model),
        }
    }

    /// Why there is no prompt.
    pub fn prompt(error: &PromptError, param: &'static str) -> Self {
        let message = error.to_string();
        match error {
            PromptError::TooLong { .. } => {
                Self::invalid(Some(param), Some("context_length_exceeded"), message)
            }
            PromptError::Template(TemplateError::Broken(_) | TemplateError::TooLong(_)) => {
                Self::invalid(None, Some("chat_template_unusable"), message)
            }
            PromptError::Empty | PromptError::TooManyMarks | PromptError::Template(_) => {
                Self::invalid(Some(param), None, message)
            }
        }
    }

    /// The body, as a response and as a server-sent event carry it.
    pub fn body(&self) -> Value {
        json!({ "error": { "message": self.message, "type": self.kind, "param": self.param, "code": self.code } })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body())).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE && self.code != Some("server_stopping") {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}
