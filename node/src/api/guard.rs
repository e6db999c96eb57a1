//! What stands before every handler: the `Host` check against DNS rebinding, security headers, bounded bodies, and
//! problem details for everything that is refused.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use crate::error::{Code, PROBLEM_JSON, Problem};

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }
}

/// Sent with every answer. Nothing here is meant for a browser's page of another origin.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Adds [`HEADERS`].
pub(super) async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Names that a request may be for, besides IP addresses.
///
/// A page on the web can make a browser send requests to any address by pointing its own name there (DNS rebinding); the
/// browser then sends that name as `Host`. An address literal is never such a name.
#[derive(Debug, Clone)]
pub(super) struct Hosts(Arc<[String]>);

impl Hosts {
    pub(super) fn new(extra: &[String]) -> Self {
        let own = ["localhost".to_owned()];
        Self(own.iter().chain(extra).map(|name| name.to_ascii_lowercase()).collect())
    }

    fn allow(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((address, port)) if port.is_empty() || port.starts_with(':') => address,
                _ => return false,
            },
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        name.parse::<IpAddr>().is_ok() || self.0.contains(&name)
    }
}

/// Refuses a request whose `Host` is no name of this node.
pub(super) async fn host(hosts: Hosts, request: Request, next: Next) -> Response {
    let mut values = request.headers().get_all(header::HOST).iter();
    let (first, second) = (values.next(), values.next());
    let host = match (request.uri().authority(), first, second) {
        (Some(authority), _, None) => Some(authority.as_str()),
        (None, Some(value), None) => value.to_str().ok(),
        _ => None,
    };
    match host {
        Some(host) if hosts.allow(host) => next.run(request).await,
        Some(host) => Problem::new(
            Code::Forbidden,
            format!("`{}` is no name of this node", host.chars().take(80).collect::<String>()),
        )
        .hint("use an IP address or `localhost`, or add the name to `http.hosts` in config.toml")
        .into_response(),
        None => Problem::new(Code::Usage, "a request needs exactly one `Host`").into_response(),
    }
}

/// A JSON body, with problem details where it is none. The content type is not asked for: only this machine's own
/// commands send bodies.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Raw::from_request(request, state).await?.0;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(text).map(Self).map_err(|error| {
            Problem::new(Code::Usage, format!("the request's body is not understood: {error}"))
        })
    }
}

/// A body's bytes.
pub(super) struct Raw(pub(super) axum::body::Bytes);

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        axum::body::Bytes::from_request(request, state)
            .await
            .map(Self)
            .map_err(|error| Problem::new(Code::Usage, format!("the request's body is refused: {error}")))
    }
}

/// Query parameters.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Query::<T>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|error| {
                Problem::new(Code::Usage, format!("the query is not understood: {}", error.body_text()))
            })
    }
}

/// The one or two parameters of a path.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Path::<T>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(path)| Self(path))
            .map_err(|error| {
                Problem::new(Code::Usage, format!("the path is not understood: {}", error.body_text()))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_own_names_are_hosts() {
        let hosts = Hosts::new(&["Node.Alba.example".to_owned()]);
        for good in [
            "localhost",
            "localhost:4800",
            "127.0.0.1:4800",
            "[::1]:4800",
            "[::1]",
            "10.0.0.7",
            "node.alba.example.",
        ] {
            assert!(hosts.allow(good), "{good}");
        }
        for bad in [
            "evil.example",
            "evil.example:4800",
            "127.0.0.1.evil.example",
            "",
            "[::1",
            "[::1]x",
            "localhost.x",
        ] {
            assert!(!hosts.allow(bad), "{bad}");
        }
    }
}
