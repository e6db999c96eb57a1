//! Answers by server-sent events: one `data:` line an event, `[DONE]` at the end.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use serde_json::Value;
use tokio::sync::mpsc;

use super::error::ApiError;
use super::reply::Reply;
use super::{Active, App, Heard};
use crate::engine::Event;

/// What ends a stream that went well.
const DONE: &str = "[DONE]";
/// A comment is sent after so long without an event, so that nothing between takes the connection for dead
/// while the request waits.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What a stream is made of.
struct Answer {
    app: App,
    reply: Reply,
    events: mpsc::Receiver<Event>,
    include_usage: bool,
    ready: VecDeque<String>,
    ended: bool,
    _active: Arc<Active>,
}

/// Streams a job's events.
pub(super) fn respond(
    app: App,
    reply: Reply,
    events: mpsc::Receiver<Event>,
    include_usage: bool,
    active: Arc<Active>,
) -> Response {
    let ready = reply.opening().iter().map(Value::to_string).collect();
    let answer = Answer { app, reply, events, include_usage, ready, ended: false, _active: active };
    // Without this header some proxies collect the whole answer first.
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    let fresh = (header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let stream = Sse::new(parts(answer)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    ([unbuffered, fresh], stream).into_response()
}

fn parts(answer: Answer) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    futures::stream::unfold(answer, |mut answer| async move {
        while answer.ready.is_empty() {
            if answer.ended {
                return None;
            }
            answer.take_event().await;
        }
        let data = answer.ready.pop_front()?;
        Some((Ok(sse::Event::default().data(data)), answer))
    })
}

impl Answer {
    async fn take_event(&mut self) {
        match self.app.next(&mut self.events).await {
            Ok(Heard::Text(text)) => self.put(&self.reply.part(&text)),
            Ok(Heard::Done(done)) => {
                self.put(&self.reply.ending(&done));
                if self.include_usage {
                    self.put(&self.reply.usage_part(&done));
                }
                self.ready.push_back(DONE.to_owned());
                self.ended = true;
            }
            Err(error) => self.fail(&error),
        }
    }

    fn put(&mut self, part: &Value) {
        self.ready.push_back(part.to_string());
    }

    /// The status was sent long ago, so the error is an event. `[DONE]` does not follow: the answer is not
    /// complete.
    fn fail(&mut self, error: &ApiError) {
        self.put(&error.body());
        self.ended = true;
    }
}
