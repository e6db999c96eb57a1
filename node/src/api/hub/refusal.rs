//! How a request is refused: the status and the headers by which the hub's clients know each of their error classes.

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::text::header_safe;
use super::unwelcome::Unwelcome;
use crate::error::{Code, Problem};
use crate::node::PullError;

pub(super) const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
pub(super) const ERROR_MESSAGE: HeaderName = HeaderName::from_static("x-error-message");
pub(super) const REPO_COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");
pub(super) const WARNING: HeaderName = HeaderName::from_static("x-hf-warning");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The words by which the clients know that a model was taken out of service.
const DISABLED: &str = "Access to this resource is disabled.";
/// The words by which they know that it is the token that is wrong.
const BAD_TOKEN: &str = "Invalid credentials in Authorization header";
/// Seconds after which whoever found no place tries again.
const RETRY: u64 = 5;

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Refusal {
    /// No such model, or none that this node may show. To somebody without a token the hub says 401.
    #[error("{why}")]
    NoModel { why: String, anonymous: bool },
    #[error("{0}")]
    NoRevision(String),
    #[error("`{path}` is not in this release")]
    NoFile { path: String, commit: String },
    /// The policy refuses; the words say why.
    #[error("{0}")]
    Refused(String),
    /// It was recalled; the warning says by whom and why.
    #[error("{DISABLED}")]
    Recalled { warning: String },
    #[error("{BAD_TOKEN}")]
    BadToken,
    #[error("this node gives models only to those who show a token; ask its operator for one")]
    NeedsToken,
    #[error("this node does not take this from the hub's clients; docs/hub.md says what it takes")]
    ReadOnly,
    #[error("{0}")]
    Wrong(String),
    #[error("the file has {size} bytes; {why}")]
    Range { size: u64, why: &'static str },
    #[error("the file is not the one that the request is for")]
    Precondition,
    #[error("too many requests; try again in {0} s")]
    TooMany(u64),
    #[error("{0}")]
    Busy(String),
    /// Allies can't bring it now.
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Internal(String),
    /// A push is refused, with its status and the clients' code for it.
    #[error("{why}")]
    Push { status: StatusCode, code: Option<&'static str>, why: String },
}

impl Refusal {
    /// A push is refused.
    pub(super) fn push(status: u16, code: Option<&'static str>, why: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        Self::Push { status, code, why: why.into() }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NoModel { anonymous: true, .. } | Self::BadToken | Self::NeedsToken => {
                StatusCode::UNAUTHORIZED
            }
            Self::NoModel { .. } | Self::NoRevision(_) | Self::NoFile { .. } => StatusCode::NOT_FOUND,
            Self::Refused(_) | Self::Recalled { .. } | Self::ReadOnly => StatusCode::FORBIDDEN,
            Self::Wrong(_) => StatusCode::BAD_REQUEST,
            Self::Range { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Precondition => StatusCode::PRECONDITION_FAILED,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable(_) => StatusCode::BAD_GATEWAY,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Push { status, .. } => *status,
        }
    }

    fn code(&self) -> Option<&'static str> {
        match self {
            Self::NoModel { .. } => Some("RepoNotFound"),
            Self::NoRevision(_) => Some("RevisionNotFound"),
            Self::NoFile { .. } => Some("EntryNotFound"),
            Self::Refused(_) | Self::NeedsToken => Some("GatedRepo"),
            Self::Push { code, .. } => *code,
            _ => None,
        }
    }

    fn more(&self, headers: &mut HeaderMap) {
        let mut put = |name, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        match self {
            Self::NoFile { commit, .. } => put(REPO_COMMIT, commit.clone()),
            Self::Recalled { warning } => put(WARNING, header_safe(warning)),
            Self::Range { size, .. } => put(header::CONTENT_RANGE, format!("bytes */{size}")),
            Self::TooMany(seconds) => {
                put(header::RETRY_AFTER, seconds.to_string());
                put(RATE_LIMIT, format!("\"api\";r=0;t={seconds}"));
            }
            Self::Busy(_) => put(header::RETRY_AFTER, RETRY.to_string()),
            _ => {}
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let message = self.to_string();
        let body = Json(json!({ "error": message }));
        let mut response = (self.status(), body).into_response();
        let headers = response.headers_mut();
        if let Some(code) = self.code() {
            headers.insert(ERROR_CODE, HeaderValue::from_static(code));
        }
        if let Ok(value) = HeaderValue::try_from(header_safe(&message)) {
            headers.insert(ERROR_MESSAGE, value);
        }
        self.more(headers);
        response
    }
}

impl From<Unwelcome> for Refusal {
    fn from(why: Unwelcome) -> Self {
        match why {
            Unwelcome::TooMany(seconds) => Self::TooMany(seconds),
            Unwelcome::BadToken => Self::BadToken,
        }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        match problem.code {
            Code::Usage => Self::Wrong(problem.detail),
            Code::PolicyRefused | Code::VerificationFailed => Self::Refused(problem.detail),
            Code::Busy => Self::Busy(problem.detail),
            Code::Network => Self::Unreachable(problem.detail),
            _ => {
                tracing::error!("a request of the hub interface failed: {problem}");
                Self::Internal("the node could not look it up; its log says more".to_owned())
            }
        }
    }
}

impl From<PullError> for Refusal {
    fn from(error: PullError) -> Self {
        match error {
            PullError::Policy(_) => Self::Refused(error.to_string()),
            PullError::Verification(_) | PullError::Network(_) | PullError::NotFound { .. } => {
                Self::Unreachable(error.to_string())
            }
            PullError::Internal(_) | PullError::NotPinned { .. } => Self::Internal(error.to_string()),
            PullError::Disk(_) | PullError::DiskFull(_) | PullError::Busy | PullError::Cancelled => {
                Self::Busy(error.to_string())
            }
        }
    }
}
