//! One HTTP/1.1 request over a Unix socket or TCP.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body_util::{BodyExt, BodyStream, Full};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use node::error::Problem;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::failure::{Exit, Failure};

/// Largest answer read whole: every release of a large federation.
const MAX_ANSWER: usize = 256 * 1024 * 1024;
/// How long a local worker may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// An answer whose body is read piece by piece.
pub(crate) type Pieces = std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, Failure>> + Send>>;

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) pieces: Pieces,
}

impl Answer {
    /// Takes over a response of any kind of body.
    pub(crate) fn new<B>(response: Response<B>) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display + Send,
    {
        let status = response.status();
        let pieces = BodyStream::new(response.into_body()).filter_map(|frame| async move {
            match frame {
                Ok(frame) => frame.into_data().ok().map(Ok),
                Err(error) => {
                    Some(Err(Failure::new(Exit::Network, format!("the answer broke off: {error}"))))
                }
            }
        });
        Self { status, pieces: Box::pin(pieces) }
    }

    /// The whole body, bounded.
    pub(crate) async fn bytes(mut self) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(piece) = self.pieces.next().await {
            body.extend_from_slice(&piece?);
            if body.len() > MAX_ANSWER {
                return Err(Failure::new(Exit::Other, format!("the answer is over {MAX_ANSWER} bytes")));
            }
        }
        Ok(body)
    }

    /// The body as JSON, or the problem that it holds.
    pub(crate) async fn json<T: DeserializeOwned>(self) -> Result<T, Failure> {
        let body = self.good().await?.bytes().await?;
        serde_json::from_slice(&body).map_err(|error| {
            Failure::new(Exit::Other, format!("the node's answer is not understood: {error}"))
                .help("is the node another version of steelyard? `steelyard status` shows it")
        })
    }

    /// The answer itself when it is a good one, else the problem that it holds.
    pub(crate) async fn good(self) -> Result<Self, Failure> {
        if self.status.is_success() {
            return Ok(self);
        }
        let status = self.status;
        let body = self.bytes().await?;
        Err(match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => problem.into(),
            Err(_) => Failure::new(Exit::Other, format!("the node answered {status}")),
        })
    }
}

/// Sends one request over a Unix socket.
pub(crate) async fn unix(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Answer, Failure> {
    let stream = connect_unix(socket).map_err(|error| {
        Failure::new(Exit::Network, format!("the node at {} does not answer: {error}", socket.display()))
    })?;
    send(stream, "localhost", method, path, body, None).await
}

/// Opens a Unix socket, however long its path is.
pub(crate) fn connect_unix(socket: &Path) -> std::io::Result<UnixStream> {
    let stream =
        node::api::server::with_short_path(socket, |short| std::os::unix::net::UnixStream::connect(short))?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Sends one request over TCP, with a bearer's key where there is one.
pub(crate) async fn tcp(
    address: std::net::SocketAddr,
    method: Method,
    path: &str,
    body: Vec<u8>,
    key: Option<&str>,
) -> Result<Answer, Failure> {
    let refused = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Network, format!("{address} does not answer: {error}"))
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
) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| Failure::new(Exit::Network, format!("the connection broke: {error}"));
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
            bearer.map_err(|_| Failure::usage("the key file holds more than one line of text"))?;
        // Not shown by whatever prints headers.
        bearer.set_sensitive(true);
        request = request.header(hyper::header::AUTHORIZATION, bearer);
    }
    let request = request.body(Full::new(Bytes::from(body)).boxed()).map_err(anyhow::Error::from)?;
    Ok(Answer::new(sender.send_request(request).await.map_err(broken)?))
}
