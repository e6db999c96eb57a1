//! Failures as the distribution specification says them.

use std::fmt;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use registry::store::StoreError;
use serde_json::json;

use super::super::hub::Unwelcome;
use crate::error::Problem;

/// How long a client for whom there is no place should wait, in seconds.
const RETRY_AFTER: u64 = 1;
/// How a client shows a token. `Basic` is what every container tool has, and needs no server that exchanges passwords.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"steelyard\"");

/// The codes of the distribution specification that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    NameInvalid,
    NameUnknown,
    ManifestInvalid,
    ManifestUnknown,
    BlobUnknown,
    DigestInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    PaginationNumberInvalid,
    /// Docker's registry says so when it failed itself.
    Unknown,
}

impl Code {
    const fn as_str(self) -> &'static str {
        match self {
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::Unknown => "UNKNOWN",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::NameInvalid
            | Self::ManifestInvalid
            | Self::DigestInvalid
            | Self::PaginationNumberInvalid => StatusCode::BAD_REQUEST,
            Self::NameUnknown | Self::ManifestUnknown | Self::BlobUnknown => StatusCode::NOT_FOUND,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Why a request was not answered as it was meant.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {message}", .code.as_str())]
pub(super) struct OciError {
    pub(super) code: Code,
    pub(super) message: String,
    /// Seconds after which a client that asked too much comes again.
    pub(super) retry_after: u64,
}

impl OciError {
    pub(super) fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), retry_after: RETRY_AFTER }
    }

    /// Pushing, deleting, and whatever else writes.
    pub(super) fn read_only() -> Self {
        Self::new(
            Code::Unsupported,
            "this interface is for reading only; `steelyard publish` on a node of the nation publishes a model",
        )
    }
}

impl From<StoreError> for OciError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed a request of the OCI interface");
        Self::new(Code::Unknown, "the node could not read its store; its log says more")
    }
}

impl From<Unwelcome> for OciError {
    fn from(why: Unwelcome) -> Self {
        match why {
            Unwelcome::TooMany(seconds) => {
                let message = format!("too many requests; try again in {seconds} s");
                Self { retry_after: seconds, ..Self::new(Code::TooManyRequests, message) }
            }
            Unwelcome::BadToken => {
                Self::new(Code::Unauthorized, "this token is wrong, has ended or was revoked")
            }
        }
    }
}

impl From<Problem> for OciError {
    fn from(problem: Problem) -> Self {
        Self::new(Code::Unknown, problem.detail)
    }
}

impl IntoResponse for OciError {
    fn into_response(self) -> Response {
        let body = json!({ "errors": [{ "code": self.code.as_str(), "message": self.message }] });
        let mut response = (self.code.status(), Json(body)).into_response();
        let headers = response.headers_mut();
        match self.code {
            Code::TooManyRequests => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(self.retry_after));
            }
            Code::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, CHALLENGE);
            }
            _ => {}
        }
        response
    }
}
