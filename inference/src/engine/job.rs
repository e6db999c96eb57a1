//! One request as the engine sees it.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::grammar::Grammar;
use super::queue::Generated;
use super::{Sampling, Token};
use crate::halt::{Cause, Halt};
use crate::text::AnswerText;

/// Events beside the text of each token: what was held back for a stop sequence, and the end.
const EXTRA_EVENTS: usize = 2;

/// On whose account a request is computed: the engine serves callers in turn, not requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// Whoever has this API key.
    Key(u32),
    /// Whoever is at the other end of this connection.
    Connection(u64),
}

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
    /// Tokens of the prompt that needed no computing, because an earlier one began alike.
    pub cached_tokens: u32,
}

/// Why an answer was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The worker stops.
    Halted(Cause),
    /// The engine failed; its own words.
    Engine(String),
    /// It took longer than it may.
    Late,
    /// The grammar of the answer takes more work than one may; its own words.
    Grammar(String),
}

/// How likely a token was, of all that could have come.
#[derive(Debug, Clone, PartialEq)]
pub struct Likelihood {
    /// The token's bytes.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest tokens at this place and theirs, the likeliest first.
    pub top: Vec<(Vec<u8>, f32)>,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Piece {
    /// Whole characters.
    pub text: String,
    /// How likely its tokens were, if that was asked for.
    pub tokens: Vec<Likelihood>,
}

/// What a job's asker hears. The last one is `Done` or `Failed`.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// More of the answer, never empty.
    Piece(Piece),
    /// The vector of the prompt.
    Embedding(Vec<f32>),
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

/// Why a job is not computed any further.
pub(super) enum Over {
    /// Nobody listens any more.
    Left,
    /// Its asker is told why.
    Failed(Failure),
}

/// A request for the engine.
#[derive(Debug)]
pub struct Job {
    /// The whole prompt.
    pub prompt: Vec<Token>,
    /// How to choose.
    pub sampling: Sampling,
    /// What is added to the logits of some tokens.
    pub bias: Vec<(Token, f32)>,
    /// How many of the likeliest tokens to tell at each place, if any likelihood is to be told at all.
    pub logprobs: Option<usize>,
    /// What the answer must look like.
    pub grammar: Option<Grammar>,
    /// On whose account.
    pub caller: Caller,
    /// By the model itself (0), or with which adapter.
    pub lane: u32,
    /// Ends it before the worker does: its adapter is not to be served any more.
    pub halt: Option<Halt>,
    /// When it is to be broken off.
    pub deadline: Option<Instant>,
    /// When it was asked for.
    pub asked: Instant,
    /// Whether the prompt's vector is wanted rather than an answer.
    pub embed: bool,
    max_tokens: u32,
    produced: u32,
    cached: u32,
    text: AnswerText,
    told: Told,
    events: mpsc::Sender<Event>,
    /// Held while the job waits or runs; the queue counts them, and the tokens.
    pub(super) place: Option<Arc<Generated>>,
}

/// Likelihoods of tokens whose text is held back still.
#[derive(Debug, Default)]
struct Told {
    held: Vec<(usize, Likelihood)>,
    bytes: usize,
}

impl Told {
    fn push(&mut self, likelihood: Likelihood) {
        self.bytes += likelihood.bytes.len();
        self.held.push((self.bytes, likelihood));
    }

    /// Those of tokens that end before the last `held` bytes.
    fn take(&mut self, held: usize) -> Vec<Likelihood> {
        let sent = self.bytes.saturating_sub(held);
        let count = self.held.iter().take_while(|(end, _)| *end <= sent).count();
        self.held.drain(..count).map(|(_, likelihood)| likelihood).collect()
    }
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
        let job = Self {
            prompt,
            sampling,
            bias: Vec::new(),
            logprobs: None,
            grammar: None,
            caller: Caller::Connection(0),
            lane: 0,
            halt: None,
            deadline: None,
            asked: Instant::now(),
            embed: false,
            max_tokens,
            produced: 0,
            cached: 0,
            text: AnswerText::new(stops),
            told: Told::default(),
            events,
            place: None,
        };
        (job, answer)
    }

    /// A job that wants the vector of `prompt`.
    pub fn embedding(prompt: Vec<Token>) -> (Self, mpsc::Receiver<Event>) {
        let (mut job, answer) = Self::new(prompt, Sampling::GREEDY, 1, Vec::new());
        job.embed = true;
        (job, answer)
    }

    /// Whether nobody listens any more.
    pub fn is_cancelled(&self) -> bool {
        self.events.is_closed()
    }

    /// Why it is not to be computed any further, if so.
    pub(super) fn over(&self, now: Instant) -> Option<Over> {
        if self.is_cancelled() {
            return Some(Over::Left);
        }
        // Its adapter is not to be served any more.
        let withdrawn = self.halt.as_ref().and_then(Halt::cause).map(Failure::Halted);
        withdrawn.or_else(|| self.is_late(now).then_some(Failure::Late)).map(Over::Failed)
    }

    /// Whether it has taken longer than it may.
    pub fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// So many tokens of the prompt needed no computing.
    pub fn reused(&mut self, tokens: usize) {
        self.cached = u32::try_from(tokens).unwrap_or(u32::MAX);
    }

    /// Tokens that were generated so far.
    pub fn produced(&self) -> u32 {
        self.produced
    }

    /// Takes the bytes of one generated token.
    pub fn token(&mut self, bytes: &[u8]) -> Next {
        self.likely_token(bytes, None)
    }

    /// Takes the bytes of one generated token, and how likely it was.
    pub fn likely_token(&mut self, bytes: &[u8], likelihood: Option<Likelihood>) -> Next {
        self.produced = self.produced.saturating_add(1);
        if let Some(place) = &self.place {
            place.count();
        }
        if let Some(likelihood) = likelihood {
            self.told.push(likelihood);
        }
        let (text, stopped) = self.text.push(bytes);
        let held = if stopped { self.text.stopped_at() } else { self.text.held() };
        let tokens = self.told.take(held);
        if !self.send(Piece { text, tokens }) {
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
        let stopped = self.text.is_stopped();
        let text = self.text.finish();
        let tokens = if stopped { Vec::new() } else { self.told.take(0) };
        self.send(Piece { text, tokens });
        let done = Done { finish, completion_tokens: self.produced, cached_tokens: self.cached };
        // Nobody listening any more is fine.
        let _ = self.events.try_send(Event::Done(done));
    }

    /// The prompt's vector.
    pub fn embedded(self, vector: Vec<f32>) {
        let _ = self.events.try_send(Event::Embedding(vector));
        let done = Done { finish: Finish::Stop, completion_tokens: 0, cached_tokens: self.cached };
        let _ = self.events.try_send(Event::Done(done));
    }

    /// The answer is cut off.
    pub fn fail(self, failure: Failure) {
        let _ = self.events.try_send(Event::Failed(failure));
    }

    /// Whether anybody listens still.
    fn send(&self, piece: Piece) -> bool {
        if piece.text.is_empty() && piece.tokens.is_empty() {
            return !self.is_cancelled();
        }
        self.events.try_send(Event::Piece(piece)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn likelihood(bytes: &[u8]) -> Option<Likelihood> {
        Some(Likelihood { bytes: bytes.to_vec(), logprob: -1.0, top: Vec::new() })
    }

    fn told(event: Option<Event>) -> (String, Vec<Vec<u8>>) {
        let Some(Event::Piece(piece)) = event else { panic!("{event:?}") };
        (piece.text, piece.tokens.into_iter().map(|likelihood| likelihood.bytes).collect())
    }

    #[test]
    fn likelihoods_come_with_their_text_and_those_of_a_stop_sequence_never() {
        let (mut job, mut events) = Job::new(vec![1], Sampling::GREEDY, 10, vec!["END".to_owned()]);
        for bytes in [&b"a\xC3"[..], b"\xA9", b"E", b"N", b"x", b" E", b"ND!"] {
            job.likely_token(bytes, likelihood(bytes));
        }
        assert_eq!(told(events.try_recv().ok()), ("a".to_owned(), vec![]));
        assert_eq!(told(events.try_recv().ok()), ("é".to_owned(), vec![b"a\xC3".to_vec(), b"\xA9".to_vec()]));
        assert_eq!(told(events.try_recv().ok()).0, "ENx");
        assert_eq!(told(events.try_recv().ok()), (" ".to_owned(), vec![]));
        job.finish(Finish::Stop);
        assert!(matches!(events.try_recv(), Ok(Event::Done(_))));
    }
}
