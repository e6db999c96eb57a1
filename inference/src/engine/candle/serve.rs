//! Several answers at once: each step computes one token of every answer under way and a part of one prompt, together.

use std::collections::VecDeque;

use super::Speaker;
use super::cache::Cache;
use super::decoder::{Part, StepError};
use super::sampler::Sampler;
use crate::engine::{Failure, Finish, Job, Next, Queue};
use crate::halt::Halt;

/// Answers that are computed at once. Beyond, a step takes so much longer that nobody gains.
pub(super) const MAX_SEQUENCES: usize = 8;
/// Prompt tokens of a step: while they are computed the other answers wait, and their scores are memory.
pub(super) const PROMPT_PART: usize = 128;

/// One answer under way.
struct Sequence {
    job: Job,
    cache: Cache,
    sampler: Sampler,
    /// Tokens whose successors are not known yet: the prompt, later the newest token.
    pending: Vec<u32>,
    /// Positions that the cache was promised.
    promised: usize,
    /// Tokens of `pending` in this step.
    now: usize,
}

impl Sequence {
    /// Whether this step leaves nothing of `pending`, so that the next token can be chosen.
    fn chooses(&self) -> bool {
        self.now > 0 && self.now == self.pending.len()
    }
}

/// The loop.
pub(super) struct Serving<'a> {
    model: &'a Speaker,
    halt: &'a Halt,
    running: Vec<Sequence>,
    /// Jobs that were taken but find no room yet.
    waiting: VecDeque<Job>,
}

impl<'a> Serving<'a> {
    /// Nothing runs yet.
    pub(super) fn new(model: &'a Speaker, halt: &'a Halt) -> Self {
        Self { model, halt, running: Vec::new(), waiting: VecDeque::new() }
    }

    /// Works until the queue is closed and nothing runs.
    pub(super) fn run(&mut self, queue: &Queue) {
        loop {
            if self.running.is_empty() && self.waiting.is_empty() {
                match queue.pop() {
                    Some(job) => self.waiting.push_back(job),
                    None => return,
                }
            }
            self.admit(queue);
            self.step();
        }
    }

    /// Begins as many of those that wait as there is room for, first come first served.
    fn admit(&mut self, queue: &Queue) {
        while self.running.len() < MAX_SEQUENCES {
            let Some(job) = self.waiting.pop_front().or_else(|| queue.try_pop()) else { return };
            let wanted = job.longest().min(self.model.context);
            let promised: usize = self.running.iter().map(|sequence| sequence.promised).sum();
            if !self.running.is_empty() && promised.saturating_add(wanted) > self.model.cells {
                self.waiting.push_front(job);
                return;
            }
            self.begin(job, wanted);
        }
    }

    fn begin(&mut self, job: Job, wanted: usize) {
        let pending: Option<Vec<u32>> = job.prompt.iter().map(|token| u32::try_from(*token).ok()).collect();
        let Some(pending) = pending.filter(|pending| !pending.is_empty() && pending.len() <= wanted) else {
            return job.fail(Failure::Engine("the prompt has no tokens of this model".to_owned()));
        };
        match self.model.decoder.cache(wanted) {
            Err(error) => job.fail(Failure::Engine(format!("no room for the request: {error}"))),
            Ok(cache) => {
                let sampler = Sampler::new(job.sampling);
                self.running.push(Sequence { job, cache, sampler, pending, promised: wanted, now: 0 });
            }
        }
    }

    /// Computes the next tokens of all and gives them out.
    fn step(&mut self) {
        self.running.retain(|sequence| !sequence.job.is_cancelled());
        let mut prompt = PROMPT_PART;
        for sequence in &mut self.running {
            // The oldest prompt goes first; one token of an answer is always computed.
            sequence.now = if sequence.pending.len() == 1 { 1 } else { sequence.pending.len().min(prompt) };
            if sequence.pending.len() > 1 {
                prompt -= sequence.now;
            }
        }
        if self.running.is_empty() {
            return;
        }
        let halted = || self.halt.is_set();
        let mut parts: Vec<Part<'_>> = Vec::with_capacity(self.running.len());
        for sequence in self.running.iter_mut().filter(|sequence| sequence.now > 0) {
            let logits = sequence.chooses();
            let tokens = sequence.pending.get(..sequence.now).unwrap_or_default();
            parts.push(Part { tokens, cache: &mut sequence.cache, logits });
        }
        match self.model.decoder.step(&mut parts, &halted) {
            Ok(logits) => self.choose(logits),
            Err(error) => self.fail(&error),
        }
    }

    /// Chooses the next token of each answer that has logits, and tells it.
    fn choose(&mut self, logits: Vec<Vec<f32>>) {
        let mut logits = logits.into_iter();
        for mut sequence in std::mem::take(&mut self.running) {
            let row = if sequence.chooses() { logits.next() } else { None };
            sequence.pending.drain(..sequence.now);
            match row {
                Some(mut row) => self.running.extend(next(self.model, sequence, &mut row)),
                None => self.running.push(sequence),
            }
        }
    }

    /// A step that could not be computed ends all that were in it.
    fn fail(&mut self, error: &StepError) {
        let failure = match (error, self.halt.cause()) {
            (StepError::Halted, Some(cause)) => Failure::Halted(cause),
            (error, _) => Failure::Engine(format!("candle could not go on: {error}")),
        };
        for sequence in self.running.drain(..) {
            sequence.job.fail(failure.clone());
        }
    }
}

/// Chooses and tells one token; gives the sequence back if its answer goes on.
fn next(model: &Speaker, mut sequence: Sequence, logits: &mut [f32]) -> Option<Sequence> {
    let token = match sequence.sampler.choose(logits) {
        Ok(token) => token.unsigned_abs(),
        Err(error) => {
            sequence.job.fail(Failure::Engine(error.to_string()));
            return None;
        }
    };
    if model.ends.contains(&token) {
        sequence.job.finish(Finish::Stop);
        return None;
    }
    match sequence.job.token(model.tokens.piece(token)) {
        Next::Continue if sequence.cache.length() >= sequence.promised => {
            sequence.job.finish(Finish::Length);
            None
        }
        Next::Continue => {
            sequence.pending.push(token);
            Some(sequence)
        }
        Next::Finished(finish) => {
            sequence.job.finish(finish);
            None
        }
        Next::Cancelled => None,
    }
}
