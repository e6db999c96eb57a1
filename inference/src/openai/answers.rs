//! The answers to one request, as they come.

use std::future::poll_fn;
use std::task::Poll;

use tokio::sync::mpsc;

use super::App;
use super::error::ApiError;
use super::reply::{Call, Usage, Whole};
use crate::calls::{Finder, Found, Style};
use crate::engine::{Done, Event, Failure, Likelihood};

/// What comes of an answer as long as it goes well.
#[derive(Debug)]
pub(super) enum Heard {
    /// Text, and the likelihoods of tokens, if wanted.
    Text(String, Vec<Likelihood>),
    /// The call of a function.
    Call(Call),
    /// A vector.
    Embedding(Vec<f32>),
    /// It is complete.
    Done(Done),
}

/// One of the answers.
struct Coming {
    events: Option<mpsc::Receiver<Event>>,
    /// Looks for calls, where functions may be called.
    finder: Option<Finder>,
}

/// All of them.
pub(super) struct Answers {
    coming: Vec<Coming>,
    /// What was heard already and not told yet.
    ready: std::collections::VecDeque<(usize, Heard)>,
}

impl Answers {
    /// Answers whose events come out of these channels. With a `style`, calls of functions are looked for.
    pub(super) fn new(events: Vec<mpsc::Receiver<Event>>, style: Option<Style>) -> Self {
        let coming = |events| Coming { events: Some(events), finder: style.map(Finder::new) };
        Self { coming: events.into_iter().map(coming).collect(), ready: std::collections::VecDeque::new() }
    }

    /// How many answers there are.
    pub(super) fn count(&self) -> usize {
        self.coming.len()
    }

    /// What comes next, and of which answer; nothing when all are complete. An order to stop comes first: an engine in the
    /// middle of a long prompt hears it later than the asker should.
    pub(super) async fn next(&mut self, app: &App) -> Result<Option<(usize, Heard)>, ApiError> {
        loop {
            if let Some(heard) = self.ready.pop_front() {
                return Ok(Some(heard));
            }
            if self.coming.iter().all(|coming| coming.events.is_none()) {
                return Ok(None);
            }
            let (index, event) = tokio::select! {
                biased;
                cause = app.ended() => (0, Some(Event::Failed(Failure::Halted(cause)))),
                heard = self.event() => heard,
            };
            match event {
                None => return Err(ApiError::internal("the engine ended without an answer")),
                Some(Event::Failed(failure)) => return Err(app.cut_off_by(&failure)),
                Some(event) => self.take(index, event),
            }
        }
    }

    /// The next event of any answer that is not complete.
    async fn event(&mut self) -> (usize, Option<Event>) {
        poll_fn(|context| {
            for (index, coming) in self.coming.iter_mut().enumerate() {
                let Some(events) = &mut coming.events else { continue };
                if let Poll::Ready(event) = events.poll_recv(context) {
                    return Poll::Ready((index, event));
                }
            }
            Poll::Pending
        })
        .await
    }

    fn take(&mut self, index: usize, event: Event) {
        let Some(coming) = self.coming.get_mut(index) else { return };
        match event {
            Event::Piece(piece) => match &mut coming.finder {
                None => self.ready.push_back((index, Heard::Text(piece.text, piece.tokens))),
                Some(finder) => {
                    let found = finder.push(&piece.text);
                    if !piece.tokens.is_empty() {
                        self.ready.push_back((index, Heard::Text(String::new(), piece.tokens)));
                    }
                    self.ready.extend(found.into_iter().map(|found| (index, heard(found))));
                }
            },
            Event::Embedding(vector) => self.ready.push_back((index, Heard::Embedding(vector))),
            Event::Done(done) => {
                coming.events = None;
                let rest = coming.finder.as_mut().and_then(Finder::finish);
                self.ready.extend(rest.into_iter().map(|found| (index, heard(found))));
                self.ready.push_back((index, Heard::Done(done)));
            }
            Event::Failed(_) => {}
        }
    }

    /// All answers to their ends. Likelihoods are kept where they are wanted.
    pub(super) async fn whole(mut self, app: &App, likely: bool) -> Result<(Vec<Whole>, Usage), ApiError> {
        let empty = || Whole { tokens: likely.then(Vec::new), ..Whole::default() };
        let mut answers: Vec<Whole> = std::iter::repeat_with(empty).take(self.count()).collect();
        let mut usage = Usage::default();
        while let Some((index, heard)) = self.next(app).await? {
            let Some(answer) = answers.get_mut(index) else { continue };
            match heard {
                Heard::Text(text, tokens) => {
                    answer.text.push_str(&text);
                    if let Some(all) = &mut answer.tokens {
                        all.extend(tokens);
                    }
                }
                Heard::Call(call) => answer.calls.push(call),
                Heard::Done(done) => {
                    usage.add(&done);
                    answer.done = Some(done);
                }
                Heard::Embedding(_) => {}
            }
        }
        Ok((answers, usage))
    }
}

fn heard(found: Found) -> Heard {
    match found {
        Found::Text(text) => Heard::Text(text, Vec::new()),
        Found::Call { name, arguments } => Heard::Call(Call { name, arguments }),
    }
}
