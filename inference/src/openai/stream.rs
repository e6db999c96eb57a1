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

use super::App;
use super::access::Active;
use super::answers::{Answers, Heard};
use super::error::ApiError;
use super::reply::{Reply, Usage};

/// What ends a stream that went well.
const DONE: &str = "[DONE]";
/// A comment is sent after so long without an event, so that nothing between takes the connection for dead
/// while the request waits.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What a stream is made of.
struct Answer {
    app: App,
    reply: Reply,
    answers: Answers,
    /// Characters and calls of each answer so far.
    sent: Vec<(usize, usize)>,
    usage: Usage,
    include_usage: bool,
    likely: bool,
    ready: VecDeque<String>,
    ended: bool,
    _active: Arc<Active>,
}

/// How a stream is to be.
pub(super) struct Wanted {
    /// Whether the last part tells the usage.
    pub(super) include_usage: bool,
    /// Whether likelihoods are told.
    pub(super) likely: bool,
}

/// Streams answers.
pub(super) fn respond(
    app: App,
    reply: Reply,
    answers: Answers,
    wanted: &Wanted,
    active: Arc<Active>,
) -> Response {
    let ready = (0..answers.count()).filter_map(|index| reply.opening(index)).map(|part| part.to_string());
    let answer = Answer {
        ready: ready.collect(),
        app,
        reply,
        sent: vec![(0, 0); answers.count()],
        answers,
        usage: Usage::default(),
        include_usage: wanted.include_usage,
        likely: wanted.likely,
        ended: false,
        _active: active,
    };
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
        let (index, heard) = match self.answers.next(&self.app).await {
            Ok(Some(heard)) => heard,
            Ok(None) => {
                if self.include_usage {
                    self.put(&self.reply.usage_part(self.usage));
                }
                self.ready.push_back(DONE.to_owned());
                self.ended = true;
                return;
            }
            Err(error) => return self.fail(&error),
        };
        let Some((characters, calls)) = self.sent.get_mut(index) else { return };
        let part = match heard {
            Heard::Text(text, tokens) => {
                let offset = *characters;
                *characters += text.chars().count();
                let tokens = (self.likely && !tokens.is_empty()).then_some(tokens.as_slice());
                self.reply.part(index, &text, tokens, offset)
            }
            Heard::Call(call) => {
                *calls += 1;
                self.reply.call(index, *calls - 1, &call)
            }
            Heard::Done(done) => {
                self.usage.add(&done);
                self.reply.ending(index, &done, *calls > 0)
            }
            Heard::Embedding(_) => return,
        };
        self.put(&part);
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
