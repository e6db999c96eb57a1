//! Receipts for answers, to whoever asks for one by the header `steelyard-receipt: yes` (`specs/12-receipts.md`).
//!
//! A layer around the whole interface: it hashes the bytes of the request as they come and those of the answer as they go, and
//! asks the node, which holds the key, for its signature. A whole answer carries the receipt in a header of the same
//! name, a stream in an event of its own before `[DONE]`.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use futures::{Stream, StreamExt};
use registry::digest::{Digest, DigestHasher};
use registry::receipt::{EVENT, MAX_NAME, MAX_SAMPLING};
use registry::serving::{Report, Signing};
use serde_json::{Number, Value};
use tokio::sync::oneshot;

use crate::openai::{BODY_TIMEOUT, MAX_BODY, WithAdapter};
use crate::report::Reporter;

/// The header that asks for a receipt, and that carries it.
const HEADER: &str = "steelyard-receipt";
/// What ends a stream that went well.
const DONE: &[u8] = b"data: [DONE]\n\n";
/// Receipts asked for and not there yet; more are refused, and their answers go without.
const MAX_PENDING: usize = 64;
/// The node signs within a millisecond; an answer does not wait for long for one that hangs.
const PATIENCE: Duration = Duration::from_secs(2);
/// Fields of a request that choose tokens.
const SAMPLING: [&str; 12] = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "max_tokens",
    "max_completion_tokens",
    "frequency_penalty",
    "presence_penalty",
    "n",
    "logprobs",
    "top_logprobs",
];

type Answer = Result<String, String>;

/// The way to the node's key. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Receipts(Arc<Inner>);

struct Inner {
    reporter: Reporter,
    last: AtomicU64,
    pending: Mutex<BTreeMap<u64, oneshot::Sender<Answer>>>,
}

impl Receipts {
    pub(crate) fn new(reporter: Reporter) -> Self {
        Self(Arc::new(Inner { reporter, last: AtomicU64::new(0), pending: Mutex::default() }))
    }

    /// What the node answered.
    pub(crate) fn answer(&self, id: u64, receipt: Answer) {
        let asked = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(asked) = asked {
            let _ = asked.send(receipt);
        }
    }

    /// Has the node sign.
    async fn sign(&self, asked: &Asked, response: Digest) -> Answer {
        let Asked { request, sampling, adapter } = asked.clone();
        let id = self.0.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (send, answer) = oneshot::channel();
        {
            let mut pending = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.retain(|_, asked| !asked.is_closed());
            if pending.len() >= MAX_PENDING {
                return Err("too many receipts are being signed".to_owned());
            }
            pending.insert(id, send);
        }
        self.0.reporter.send(&Report::Sign(Signing { id, request, response, sampling, adapter }));
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            _ => Err("the node did not sign in time".to_owned()),
        }
    }

    /// Puts the layer around an interface.
    pub(crate) fn around(self, router: Router) -> Router {
        router.layer(middleware::from_fn_with_state(self, with_receipt))
    }
}

/// What a receipt says of a request.
#[derive(Debug, Clone)]
struct Asked {
    request: Digest,
    sampling: BTreeMap<String, Number>,
    adapter: Option<Digest>,
}

async fn with_receipt(State(receipts): State<Receipts>, request: Request, next: Next) -> Response {
    let asks =
        request.headers().get(HEADER).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"yes"));
    if !asks || request.method() != Method::POST {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let chat = parts.uri.path().contains("/chat/");
    let (body, read) = take(body).await;
    let response = next.run(Request::from_parts(parts, body)).await;
    let Some(read) = read.filter(|_| response.status() == StatusCode::OK) else { return response };
    let adapter = response.extensions().get::<WithAdapter>().and_then(|with| with.0);
    let asked = Asked { request: Digest::of(&read), sampling: sampling(&read), adapter };
    let streamed = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if streamed {
        let (parts, body) = response.into_parts();
        let signed = Streamed { receipts, asked, chat, hasher: DigestHasher::default() };
        Response::from_parts(parts, Body::from_stream(signed.pass(body)))
    } else {
        whole(&receipts, &asked, response).await
    }
}

/// Reads a body within the limits of the interface, and gives it once more. What is longer, or comes too slowly, is passed
/// on as far as it was read, for the interface to refuse, and gets no receipt.
async fn take(body: Body) -> (Body, Option<Vec<u8>>) {
    let mut rest = body.into_data_stream();
    let mut read = Vec::new();
    let all = async {
        while let Some(part) = rest.next().await {
            match part {
                Ok(part) => read.extend_from_slice(&part),
                Err(error) => return Err(io::Error::other(error)),
            }
            if read.len() > MAX_BODY {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let slow = || Err(io::Error::other("it came too slowly"));
    let ended = tokio::time::timeout(BODY_TIMEOUT, all).await.unwrap_or_else(|_| slow());
    let first = Bytes::from(read);
    match ended {
        Ok(true) => (Body::from(first.clone()), Some(first.to_vec())),
        Ok(false) => {
            let first = futures::stream::once(async move { Ok::<_, axum::Error>(first) });
            (Body::from_stream(first.chain(rest)), None)
        }
        Err(error) => (Body::from_stream(futures::stream::iter([Ok(first), Err(error)])), None),
    }
}

fn sampling(request: &[u8]) -> BTreeMap<String, Number> {
    let request: Value = serde_json::from_slice(request).unwrap_or_default();
    let number = |name: &&str| Some(((*name).to_owned(), request.get(*name)?.as_number()?.clone()));
    SAMPLING.iter().filter(|name| name.len() <= MAX_NAME).filter_map(number).take(MAX_SAMPLING).collect()
}

/// A whole answer, with its receipt in a header.
async fn whole(receipts: &Receipts, asked: &Asked, response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let mut bytes = Vec::new();
    let mut stream = body.into_data_stream();
    while let Some(part) = stream.next().await {
        match part {
            Ok(part) => bytes.extend_from_slice(&part),
            Err(error) => {
                let broken = futures::stream::iter([Ok(Bytes::from(bytes)), Err(error)]);
                return Response::from_parts(parts, Body::from_stream(broken));
            }
        }
    }
    let receipt = receipts.sign(asked, Digest::of(&bytes)).await;
    let value = receipt.and_then(|text| HeaderValue::from_str(&text).map_err(|error| error.to_string()));
    let value = value.unwrap_or_else(|why| {
        tracing::warn!(%why, "an answer goes without the receipt that was asked for");
        HeaderValue::from_static("unavailable")
    });
    parts.headers.insert(HEADER, value);
    Response::from_parts(parts, Body::from(bytes))
}

/// A streamed answer as it passes.
struct Streamed {
    receipts: Receipts,
    asked: Asked,
    chat: bool,
    hasher: DigestHasher,
}

impl Streamed {
    /// Passes every event on, and puts the receipt's before the last.
    fn pass(self, body: Body) -> impl Stream<Item = Result<Bytes, axum::Error>> {
        let parts = body.into_data_stream();
        futures::stream::unfold((parts, self), |(mut parts, mut signed)| async move {
            let part = match parts.next().await? {
                Ok(part) => signed.event(part).await,
                Err(error) => return Some((Err(error), (parts, signed))),
            };
            Some((Ok(part), (parts, signed)))
        })
    }

    async fn event(&mut self, part: Bytes) -> Bytes {
        // A stream that was cut off has no last event, and gets no receipt.
        let Some(before) = part.strip_suffix(DONE) else {
            self.hasher.update(&part);
            return part;
        };
        self.hasher.update(before);
        let receipt = self.receipts.sign(&self.asked, self.hasher.finish()).await;
        let object = if self.chat { "chat.completion.chunk" } else { "text_completion" };
        let event = match receipt {
            // Without choices, as the event with the usage: clients pass over both.
            Ok(receipt) => format!("{EVENT}{receipt},\"object\":\"{object}\",\"choices\":[]}}\n\n"),
            Err(why) => {
                tracing::warn!(%why, "an answer goes without the receipt that was asked for");
                String::new()
            }
        };
        [before, event.as_bytes(), DONE].concat().into()
    }
}
