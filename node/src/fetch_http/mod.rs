//! Asking HTTP servers that a person named: for `steelyard import` and `steelyard login`, which are run by hand, and the issuer that the
//! operator lets people sign in at. A node itself asks no other.
//!
//! ```text
//! sent on      at most 5 times, to the same scheme or from http to https
//! the token    to the host that it is for and no other, never over plain HTTP but to this machine
//! time         a connection within 15 s, an answer's head within 60 s, then something at least every 60 s
//! size         what the caller expects, never more
//! ```
//!
//! Certificates are checked against the system's authorities, or those in `SSL_CERT_FILE`. No proxy is asked for, no cookie kept.

mod error;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use futures::StreamExt;
use futures_rustls::rustls::crypto::aws_lc_rs;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

pub use error::FetchError;

/// Most times that a request is sent on. Hubs send to their storage once or twice.
const MAX_REDIRECTS: usize = 5;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(15);
/// How long a server may think before it answers, and how long it may be quiet in the middle.
const QUIET: Duration = Duration::from_secs(60);
/// Longest text of a failure that is shown.
const MAX_WORDS: usize = 300;
/// Bytes of an answer that failed which are read for what the server says about it.
const MAX_FAILURE: usize = 16 * 1024;
/// What we say we are.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("steelyard/", env!("CARGO_PKG_VERSION")));

/// Scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin(String, String, u16);

impl Origin {
    fn of(uri: &Uri) -> Result<Self, FetchError> {
        let wrong = |why| FetchError::Url { url: shown(uri), why };
        let scheme = uri.scheme_str().ok_or(wrong("it has no scheme; write https://…"))?;
        if !matches!(scheme, "http" | "https") {
            return Err(wrong("only http and https are spoken"));
        }
        let authority = uri.authority().ok_or(wrong("it names no host"))?;
        // What stands before an `@` is a secret in an address, which would be logged.
        if authority.as_str().contains('@') {
            return Err(wrong("it holds a name or a password; use a token file"));
        }
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        Ok(Self(scheme.to_owned(), authority.host().to_ascii_lowercase(), port))
    }
}

/// Whether a host is this machine.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An address for messages: without its query, which may hold a signature.
fn shown(uri: &Uri) -> String {
    let text = uri.to_string();
    let bare = text.split('?').next().unwrap_or_default();
    bare.chars().take(200).collect()
}

/// Asks servers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Body>,
    token: Option<Arc<(Origin, HeaderValue)>>,
}

/// An answer, whose body is still to be read.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    url: String,
    body: BodyDataStream,
}

impl Client {
    /// A client that shows nobody anything.
    pub fn new() -> Result<Self, FetchError> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.enforce_http(false);
        let tls = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(aws_lc_rs::default_provider())
            .map_err(FetchError::Roots)?;
        let connector = tls.https_or_http().enable_http1().wrap_connector(tcp);
        Ok(Self { pool: Pool::builder(TokioExecutor::new()).build(connector), token: None })
    }

    /// Shows `token` to the server at `endpoint`, and to no other.
    pub fn with_token(mut self, endpoint: &str, token: &str) -> Result<Self, FetchError> {
        let origin = Origin::of(&parse(endpoint)?)?;
        if origin.0 == "http" && !is_loopback(&origin.1) {
            return Err(FetchError::Exposed { host: origin.1 });
        }
        let mut value =
            HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(|_| FetchError::Token)?;
        value.set_sensitive(true);
        self.token = Some(Arc::new((origin, value)));
        Ok(self)
    }

    /// Asks for `url` with further headers, and follows where it is sent on to. Any status is an answer.
    pub async fn get(&self, url: &str, headers: &[(HeaderName, &str)]) -> Result<Answer, FetchError> {
        let first = parse(url)?;
        let mut at = first.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.ask(Method::GET, &at, headers, Body::empty()).await?;
            let sent_on = matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308);
            let Some(to) = answer.headers.get(header::LOCATION).filter(|_| sent_on) else {
                return Ok(answer);
            };
            at = follow(&first, &at, to)?;
        }
        Err(FetchError::Redirect { url: shown(&first), why: "again and again" })
    }

    /// Sends `body` to `url`. It is not sent on to anywhere else.
    pub async fn post(&self, url: &str, media_type: &str, body: Vec<u8>) -> Result<Answer, FetchError> {
        self.send(Method::POST, url, media_type, body).await
    }

    /// The same by another method.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        media_type: &str,
        body: Vec<u8>,
    ) -> Result<Answer, FetchError> {
        self.ask(method, &parse(url)?, &[(header::CONTENT_TYPE, media_type)], body.into()).await
    }

    async fn ask(
        &self,
        method: Method,
        uri: &Uri,
        headers: &[(HeaderName, &str)],
        body: Body,
    ) -> Result<Answer, FetchError> {
        let origin = Origin::of(uri)?;
        let url = shown(uri);
        let mut request = Request::builder().method(method).uri(uri).header(header::USER_AGENT, AGENT);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        if let Some(token) = self.token.as_ref().filter(|token| token.0 == origin) {
            request = request.header(header::AUTHORIZATION, token.1.clone());
        }
        let failed = |why: String| FetchError::Connect { url: url.clone(), why };
        let request = request.body(body).map_err(|error| failed(error.to_string()))?;
        let answer = tokio::time::timeout(QUIET, self.pool.request(request))
            .await
            .map_err(|_| FetchError::Stalled { url: url.clone(), seconds: QUIET.as_secs() })?
            .map_err(|error| failed(causes(&error)))?;
        let (parts, body) = answer.into_parts();
        let body = Body::new(body).into_data_stream();
        Ok(Answer { status: parts.status, headers: parts.headers, url, body })
    }
}

fn parse(url: &str) -> Result<Uri, FetchError> {
    let wrong = |why| FetchError::Url { url: url.chars().take(200).collect(), why };
    let uri: Uri = url.parse().map_err(|_| wrong("it is no address"))?;
    Origin::of(&uri)?;
    Ok(uri)
}

/// Where a server sends on to.
fn follow(first: &Uri, at: &Uri, to: &HeaderValue) -> Result<Uri, FetchError> {
    let wrong = |why| FetchError::Redirect { url: shown(first), why };
    let to = to.to_str().map_err(|_| wrong("to what is no address"))?;
    let absolute = if to.starts_with('/') && !to.starts_with("//") {
        let host = at.authority().map(ToString::to_string).unwrap_or_default();
        format!("{}://{host}{to}", at.scheme_str().unwrap_or("https"))
    } else {
        to.to_owned()
    };
    let next: Uri = absolute.parse().map_err(|_| wrong("to what is no address"))?;
    let origin = Origin::of(&next).map_err(|_| wrong("to what can't be asked"))?;
    if at.scheme_str() == Some("https") && origin.0 != "https" {
        return Err(wrong("from https to plain HTTP"));
    }
    Ok(next)
}

/// An error with what it came from, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        text = format!("{text}: {cause}");
        at = cause.source();
    }
    text
}

impl Answer {
    /// What was asked for in the end, for messages.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A header's text.
    pub fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        let url = || self.url.clone();
        match tokio::time::timeout(QUIET, self.body.next()).await {
            Err(_) => Err(FetchError::Stalled { url: url(), seconds: QUIET.as_secs() }),
            Ok(None) => Ok(None),
            Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
            Ok(Some(Err(error))) => {
                Err(FetchError::Connect { url: url(), why: format!("it broke off: {}", causes(&error)) })
            }
        }
    }

    /// The whole body, which may have at most `limit` bytes.
    pub async fn bytes(mut self, limit: usize) -> Result<Bytes, FetchError> {
        let mut whole = Vec::new();
        while let Some(bytes) = self.next().await? {
            if whole.len() + bytes.len() > limit {
                return Err(FetchError::TooLarge { url: self.url, limit: limit as u64 });
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.into())
    }

    /// The answer, if it is a success; else what the server says.
    pub async fn good(self) -> Result<Self, FetchError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let status = self.status.as_u16();
        // Hubs say it in a header, others in the body.
        let said = self.header("x-error-message").map(str::to_owned);
        let url = self.url.clone();
        let said = match said {
            Some(said) => said,
            None => {
                let body = self.bytes(MAX_FAILURE).await.unwrap_or_default();
                String::from_utf8_lossy(&body).into_owned()
            }
        };
        let said: String = said.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect();
        let hint = match status {
            401 | 403 => "; it may need a token with the right to read it: --token-file",
            404 => "; check the name and the revision",
            429 => "; try again later",
            _ => "",
        };
        let words = if said.is_empty() { hint.to_owned() } else { format!(": {said}{hint}") };
        Err(FetchError::Status { url, status, words })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sent(at: &str, to: &str) -> Result<String, FetchError> {
        let at: Uri = at.parse().unwrap();
        follow(&at, &at, &HeaderValue::from_str(to).unwrap()).map(|uri| uri.to_string())
    }

    #[test]
    fn being_sent_on_never_leads_down() {
        assert_eq!(sent("https://a.example/x", "/y").unwrap(), "https://a.example/y");
        assert_eq!(sent("https://a.example/x", "https://b.example/y").unwrap(), "https://b.example/y");
        assert_eq!(sent("http://a.example/x", "https://b.example/y").unwrap(), "https://b.example/y");
        for (at, to) in [
            ("https://a.example/x", "http://a.example/x"),
            ("https://a.example/x", "file:///etc/passwd"),
            ("https://a.example/x", "https://user:word@b.example/"),
            ("https://a.example/x", "//b.example/"),
            ("https://a.example/x", "y"),
        ] {
            assert!(sent(at, to).is_err(), "{at} {to}");
        }
    }

    #[test]
    fn tokens_are_for_one_place() {
        assert!(matches!(
            Client::new().unwrap().with_token("http://hub.example", "hf_x"),
            Err(FetchError::Exposed { .. })
        ));
        assert!(Client::new().unwrap().with_token("http://127.0.0.1:80", "hf_x\n").is_ok());
        assert!(Client::new().unwrap().with_token("https://hub.example", "a\nb").is_err());
        let of = |text: &str| Origin::of(&text.parse().unwrap()).unwrap();
        assert_eq!(of("https://HUB.example/a"), of("https://hub.example:443/b"));
        assert_ne!(of("https://hub.example"), of("https://hub.example:444"));
        assert_ne!(of("https://hub.example"), of("https://cdn.hub.example"));
    }

    #[test]
    fn what_is_shown_of_an_address_holds_no_signature() {
        assert_eq!(shown(&"https://a.example/x?sig=secret".parse().unwrap()), "https://a.example/x");
    }
}
