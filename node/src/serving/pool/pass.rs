//! The way to a worker and back: a connection for each client's connection and member, so that the worker sees how many clients there
//! are, and that one has left.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, HeaderName, Request, Response, header};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::Pass;
use super::error::ApiError;
use super::plan::Key;

/// How long it may take to be connected to a worker: it is on this machine.
const CONNECT: Duration = Duration::from_secs(5);
/// Headers that are about one connection, not about the request or its answer.
const OF_CONNECTION: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    header::HOST,
];

/// The connections to workers that belong to one client's connection.
#[derive(Clone, Default)]
pub(super) struct Upstreams(Arc<Mutex<BTreeMap<Key, Upstream>>>);

struct Upstream {
    address: SocketAddr,
    sender: SendRequest<Body>,
}

/// The worker gave no answer.
#[derive(Debug)]
pub(super) struct Broken {
    /// Whether the connection had been used before: then it may have been closed just as the request was sent.
    pub(super) stale: bool,
}

/// What goes to a worker.
pub(super) struct Outgoing {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Upstreams {
    /// Sends a request to the worker of `member` at `address`; its answer, once that begins.
    pub(super) async fn send(
        &self,
        member: Key,
        address: SocketAddr,
        outgoing: &Outgoing,
    ) -> Result<Response<Incoming>, Broken> {
        // A client's connection has one request at a time.
        let mut all = self.0.lock().await;
        let kept = all.remove(&member).filter(|kept| kept.address == address && !kept.sender.is_closed());
        let (mut sender, stale) = match kept {
            Some(Upstream { sender, .. }) => (sender, true),
            None => (connect(address).await?, false),
        };
        let broken = |error: &dyn std::fmt::Display| {
            tracing::debug!(%error, "a worker gave no answer");
            Broken { stale }
        };
        sender.ready().await.map_err(|error| broken(&error))?;
        let mut request = Request::post(&outgoing.path).body(Body::from(outgoing.body.clone()));
        if let Ok(request) = &mut request {
            *request.headers_mut() = outgoing.headers.clone();
        }
        let request = request.map_err(|error| broken(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
        all.insert(member, Upstream { address, sender });
        Ok(answer)
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Body>, Broken> {
    let broken = |error: &dyn std::fmt::Display| {
        tracing::debug!(%error, "a worker can't be reached");
        // Nothing was sent.
        Broken { stale: true }
    };
    let connect = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
    let stream = connect.map_err(|error| broken(&error))?.map_err(|error| broken(&error))?;
    let _ = stream.set_nodelay(true);
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    // Ends with the sender, or when an answer is dropped before its end: the worker sees that nobody waits any more.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a worker ended early");
        }
    });
    Ok(sender)
}

/// The headers of a client's request that its worker is told.
pub(super) fn outgoing(headers: &HeaderMap) -> HeaderMap {
    let mut out = headers.clone();
    strip(&mut out);
    out.remove(header::CONTENT_LENGTH);
    out.insert(header::HOST, header::HeaderValue::from_static("localhost"));
    out
}

fn strip(headers: &mut HeaderMap) {
    for name in &OF_CONNECTION {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

/// The worker's answer as it comes, which holds the member for as long as it takes.
pub(super) fn passed(answer: Response<Incoming>, pass: Pass, model: &str) -> Response<Body> {
    let (mut parts, body) = answer.into_parts();
    strip(&mut parts.headers);
    let kind = parts.headers.get(header::CONTENT_TYPE).map(|kind| kind.as_bytes().to_vec());
    let events = kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"));
    let last = events.then(|| Bytes::from(format!("data: {}\n\n", ApiError::broken(model).body())));
    Response::from_parts(parts, Body::new(Passed { body: Some(body), last, _pass: pass }))
}

/// A body that passes through.
struct Passed {
    body: Option<Incoming>,
    /// What a stream of events ends with that breaks off.
    last: Option<Bytes>,
    _pass: Pass,
}

impl HttpBody for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        match Pin::new(body).poll_frame(context) {
            Poll::Ready(Some(Err(error))) => match self.last.take() {
                Some(last) => {
                    self.body = None;
                    Poll::Ready(Some(Ok(Frame::data(last))))
                }
                None => Poll::Ready(Some(Err(error))),
            },
            polled => polled,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}
