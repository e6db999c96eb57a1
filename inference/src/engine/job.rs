//! One request as the engine sees it.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::queue::Generated;
use super::{Sampling, Token};
use crate::halt::Cause;
use crate::text::AnswerText;

/// Events beside the text of each token: what was held back for a stop sequence, and the end.
const EXTRA_EVENTS: usize = 2;

/// Why an answer ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, or a stop sequence did.
    Stop,
    /// The most tokens asked for, or the context, were reached.
    Length,
}

/// The end of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Why.
    pub finish: Finish,
    /// Tokens that were generated.
    pub completion_tokens: u32,
}

/// Why an answer was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The worker stops.
    Halted(Cause),
    /// The engine failed; its own words.
    Engine(String),
}

/// What a job's asker hears. The last one is `Done` or `Failed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// More of the answer: whole characters, never empty.
    Text(String),
    /// It is complete.
    Done(Done),
    /// It was cut off.
    Failed(Failure),
}

/// What the engine does after a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The next token.
    Continue,
    /// The answer is complete: a stop sequence, or as many tokens as asked for.
    Finished(Finish),
    /// Nobody listens any more.
    Cancelled,
}

/// A request for the engine.
#[derive(Debug)]
pub struct Job {
    /// The whole prompt.
    pub prompt: Vec<Token>,
    /// How to choose.
    pub sampling: Sampling,
    max_tokens: u32,
    produced: u32,
    text: AnswerText,
    events: mpsc::Sender<Event>,
    /// Held while the job waits or runs; the queue counts them, and the tokens.
    pub(super) place: Option<Arc<Generated>>,
}

impl Job {
    /// A job that ends at the first of `stops` or after `max_tokens`, and where its events come out. The
    /// channel has room for the longest possible answer, so that the engine never waits for a slow reader.
    pub fn new(
        prompt: Vec<Token>,
        sampling: Sampling,
        max_tokens: u32,
        stops: Vec<String>,
    ) -> (Self, mpsc::Receiver<Event>) {
        let room = usize::try_from(max_tokens).unwrap_or(usize::MAX).saturating_add(EXTRA_EVENTS);
        let (events, answer) = mpsc::channel(room.min(tokio::sync::Semaphore::MAX_PERMITS));
        let text = AnswerText::new(stops);
        (Self { prompt, sampling, max_tokens, produced: 0, text, events, place: None }, answer)
    }

    /// Whether nobody listens any more.
    pub fn is_cancelled(&self) -> bool {
        self.events.is_closed()
    }

    /// Tokens that prompt and answer together have at most.
    pub fn longest(&self) -> usize {
        self.prompt.len().saturating_add(usize::try_from(self.max_tokens).unwrap_or(usize::MAX))
    }

    /// Takes the bytes of one generated token.
    pub fn token(&mut self, bytes: &[u8]) -> Next {
        self.produced = self.produced.saturating_add(1);
        if let Some(place) = &self.place {
            place.count();
        }
        let (text, stopped) = self.text.push(bytes);
        if !self.send(text) {
            return Next::Cancelled;
        }
        if stopped {
            Next::Finished(Finish::Stop)
        } else if self.produced >= self.max_tokens {
            Next::Finished(Finish::Length)
        } else {
            Next::Continue
        }
    }

    /// The answer is complete.
    pub fn finish(mut self, finish: Finish) {
        let rest = self.text.finish();
        self.send(rest);
        let done = Done { finish, completion_tokens: self.produced };
        // Nobody listening any more is fine.
        let _ = self.events.try_send(Event::Done(done));
    }

    /// The answer is cut off.
    pub fn fail(self, failure: Failure) {
        let _ = self.events.try_send(Event::Failed(failure));
    }

    /// Whether anybody listens still.
    fn send(&self, text: String) -> bool {
        if text.is_empty() { !self.is_cancelled() } else { self.events.try_send(Event::Text(text)).is_ok() }
    }
}
