//! One HTTP/1.1 request over a Unix socket or TCP, and its answer.

use std::path::Path;
use std::time::Duration;

use axum::body::Body as Whole;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::ClientError;
use crate::error::Problem;
use crate::fetch_http;

/// Largest answer read whole: every release of a large federation.
const MAX_ANSWER: usize = 256 * 1024 * 1024;
/// How long a local worker may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// An answer whose body is read piece by piece.
pub type Pieces = std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, ClientError>> + Send>>;

/// An answer.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub pieces: Pieces,
}

impl Answer {
    /// Takes over a response of any kind of body.
    pub fn new<B>(response: Response<B>) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let status = response.status();
        let pieces = Whole::new(response.into_body()).into_data_stream();
        let pieces = pieces.map(|piece| piece.map_err(|error| ClientError::Broken(error.to_string())));
        Self { status, pieces: Box::pin(pieces) }
    }

    /// Takes over an answer of a server somewhere.
    pub(super) fn fetched(answer: fetch_http::Answer) -> Self {
        let status = answer.status;
        let pieces = stream::unfold(Some(answer), |answer| async move {
            let mut answer = answer?;
            match answer.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(answer))),
                Ok(None) => None,
                // Nothing follows what broke off.
                Err(error) => Some((Err(error.into()), None)),
            }
        });
        Self { status, pieces: Box::pin(pieces) }
    }

    /// The whole body, bounded.
    pub async fn bytes(mut self) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        while let Some(piece) = self.pieces.next().await {
            body.extend_from_slice(&piece?);
            if body.len() > MAX_ANSWER {
                return Err(ClientError::TooLarge(MAX_ANSWER));
            }
        }
        Ok(body)
    }

    /// The body as JSON, or the problem that it holds.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        let body = self.good().await?.bytes().await?;
        serde_json::from_slice(&body).map_err(ClientError::Malformed)
    }

    /// The answer itself when it is a good one, else the problem that it holds.
    pub async fn good(self) -> Result<Self, ClientError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let status = self.status;
        let body = self.bytes().await?;
        Err(match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => ClientError::Problem(Box::new(problem)),
            Err(_) => ClientError::Status(status.as_u16()),
        })
    }
}

/// Sends one request over a Unix socket.
pub async fn unix(socket: &Path, method: Method, path: &str, body: Vec<u8>) -> Result<Answer, ClientError> {
    let stream = connect_unix(socket).map_err(|error| ClientError::Connect {
        what: format!("the node at {}", socket.display()),
        why: error.to_string(),
    })?;
    send(stream, "localhost", method, path, body, None).await
}

/// Opens a Unix socket, however long its path is.
pub fn connect_unix(socket: &Path) -> std::io::Result<UnixStream> {
    let stream =
        crate::api::server::with_short_path(socket, |short| std::os::unix::net::UnixStream::connect(short))?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Sends one request over TCP, with a bearer's key where there is one.
pub async fn tcp(
    address: std::net::SocketAddr,
    method: Method,
    path: &str,
    body: Vec<u8>,
    key: Option<&str>,
) -> Result<Answer, ClientError> {
    let refused = |error: &dyn std::fmt::Display| ClientError::Connect {
        what: address.to_string(),
        why: error.to_string(),
    };
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address))
        .await
        .map_err(|error| refused(&error))?
        .map_err(|error| refused(&error))?;
    let _ = stream.set_nodelay(true);
    send(stream, &address.to_string(), method, path, body, key).await
}

async fn send<S>(
    stream: S,
    host: &str,
    method: Method,
    path: &str,
    body: Vec<u8>,
    key: Option<&str>,
) -> Result<Answer, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| ClientError::Broken(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends with the answer, or when the answer is dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended early");
        }
    });
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", host)
        .header("content-type", "application/json");
    if let Some(key) = key {
        let bearer = hyper::header::HeaderValue::from_str(&format!("Bearer {key}"));
        let mut bearer =
            bearer.map_err(|_| ClientError::Broken("the key holds more than one line of text".to_owned()))?;
        // Not shown by whatever prints headers.
        bearer.set_sensitive(true);
        request = request.header(hyper::header::AUTHORIZATION, bearer);
    }
    let request = request.body(Whole::from(body)).map_err(|error| ClientError::Broken(error.to_string()))?;
    Ok(Answer::new(sender.send_request(request).await.map_err(broken)?))
}
