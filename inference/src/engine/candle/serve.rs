//! Several answers at once: does what the shared [`Schedule`] says, and chooses the tokens.
//!
//! Each sequence has a cache of its own, so that nothing is shared between them and a schedule's cells are memory.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Speaker;
use super::cache::Cache;
use super::decoder::{Part, StepError};
use crate::engine::sampler::{Sampler, likelihood};
use crate::engine::schedule::{Id, Lane, Limits, Move, Schedule, Step};
use crate::engine::{Failure, Finish, Job, Next, Over, Queue, Token};
use crate::halt::Halt;

/// Answers that are computed at once when nobody asks for a number.
pub(super) const DEFAULT_PARALLEL: u32 = 8;
/// Most answers that are computed at once: beyond, a step takes so much longer that nobody gains.
pub(super) const MAX_PARALLEL: u32 = 64;
/// Prompt tokens of a step: while they are computed the other answers wait, and their scores are memory.
pub(super) const PROMPT_PART: usize = 128;

/// What the schedule is told of `cells` positions and `running` answers at once.
pub(super) fn limits(cells: usize, running: usize) -> Limits {
    Limits {
        cells,
        running,
        kept: 0,
        batch: PROMPT_PART + running,
        mixed: PROMPT_PART,
        share: false,
        apart: false,
    }
}

/// A job at work or waiting in the schedule.
struct Work {
    job: Job,
    sampler: Sampler,
    /// Tokens of prompt and answer.
    length: usize,
}

/// How an answer goes on.
enum Outcome {
    Goes(Token),
    Ended(Finish),
    Left,
    Failed(Failure),
}

/// The loop.
pub(super) struct Serving<'a> {
    model: &'a Speaker,
    halt: &'a Halt,
    schedule: Schedule,
    caches: Vec<Cache>,
    works: BTreeMap<Id, Work>,
    last: Id,
}

impl<'a> Serving<'a> {
    /// Nothing runs yet.
    pub(super) fn new(model: &'a Speaker, halt: &'a Halt) -> candle_core::Result<Self> {
        let limits = limits(model.cells, model.parallel);
        let caches = (0..Schedule::sequences(&limits)).map(|_| model.decoder.cache(model.context));
        let caches = caches.collect::<Result<_, _>>()?;
        Ok(Self { model, halt, schedule: Schedule::new(limits), caches, works: BTreeMap::new(), last: 0 })
    }

    /// Works until the queue is closed or the worker halts.
    pub(super) fn run(&mut self, queue: &Queue) {
        while let Some(jobs) = queue.drain(self.works.is_empty()) {
            for job in jobs {
                self.take(job, queue);
            }
            self.sweep(queue);
            if self.halt.is_set() {
                break;
            }
            if !self.works.is_empty() {
                self.step(queue);
            }
            let (used, all) = self.schedule.cells();
            queue.metrics().now(self.schedule.running(), self.schedule.waiting(), used, all);
        }
        let ended = || Failure::Engine("the engine ended".to_owned());
        let failure = self.halt.cause().map_or_else(ended, Failure::Halted);
        for (_, work) in std::mem::take(&mut self.works) {
            work.job.fail(failure.clone());
        }
    }

    fn take(&mut self, mut job: Job, queue: &Queue) {
        if job.embed {
            queue.metrics().failed();
            return job.fail(Failure::Engine("this model generates text and makes no vectors".to_owned()));
        }
        self.last += 1;
        let sampler = Sampler::new(job.sampling, std::mem::take(&mut job.bias));
        let length = job.prompt.len();
        self.schedule.push(self.last, job.caller, job.lane, std::mem::take(&mut job.prompt));
        self.works.insert(self.last, Work { job, sampler, length });
    }

    /// Forgets jobs whose askers have left, and breaks off those that take too long.
    fn sweep(&mut self, queue: &Queue) {
        let now = Instant::now();
        let over = |(id, work): (&Id, &Work)| match work.job.over(now)? {
            Over::Left => Some((*id, Outcome::Left)),
            Over::Failed(failure) => Some((*id, Outcome::Failed(failure))),
        };
        let over: Vec<_> = self.works.iter().filter_map(over).collect();
        for (id, outcome) in over {
            self.settle(id, outcome, queue);
        }
    }

    fn step(&mut self, queue: &Queue) {
        let step = self.schedule.step();
        let computed = self.compute(&step);
        match computed {
            Ok(logits) => {
                let chosen: Vec<Id> =
                    step.entries.iter().filter(|entry| entry.last).map(|entry| entry.id).collect();
                queue.metrics().step(step.entries.len(), step.entries.len() - chosen.len());
                for (id, logits) in chosen.into_iter().zip(logits) {
                    let outcome = self.advance(id, &logits, queue);
                    self.settle(id, outcome, queue);
                }
            }
            Err(error) => self.fail(&step, &error, queue),
        }
    }

    /// Does the step's moves and computes its tokens; the logits of the last tokens, in the order of the step.
    fn compute(&mut self, step: &Step) -> Result<Vec<Vec<f32>>, StepError> {
        for change in &step.moves {
            let Move::Cut { sequence, length } = *change else {
                return Err(candle_core::Error::Msg("nothing is shared here".to_owned()).into());
            };
            if let Some(cache) = self.caches.get_mut(sequence) {
                cache.cut(length)?;
            }
        }
        // By adapter and sequence, and the rank of each one's logits among those of the step.
        let mut parts: BTreeMap<(Lane, usize), (Vec<u32>, Option<usize>)> = BTreeMap::new();
        let mut ranks = 0;
        for entry in &step.entries {
            let (tokens, rank) = parts.entry((entry.lane, entry.sequence)).or_default();
            tokens.push(entry.token.unsigned_abs());
            if entry.last {
                *rank = Some(ranks);
                ranks += 1;
            }
        }
        let mut caches: BTreeMap<usize, &mut Cache> = self.caches.iter_mut().enumerate().collect();
        let mut at_work: Vec<Part<'_>> = Vec::with_capacity(parts.len());
        for ((lane, sequence), (tokens, rank)) in &parts {
            let lora = lane.checked_sub(1).and_then(|place| self.model.adapters.get(place as usize));
            if let Some(cache) = caches.remove(sequence) {
                at_work.push(Part { tokens, cache, logits: rank.is_some(), lora });
            }
        }
        if at_work.is_empty() {
            return Ok(Vec::new());
        }
        let halted = || self.halt.is_set();
        let rows = self.model.decoder.step(&mut at_work, &halted)?;
        let mut ranked: Vec<_> = parts.values().filter_map(|(_, rank)| *rank).zip(rows).collect();
        ranked.sort_unstable_by_key(|(rank, _)| *rank);
        Ok(ranked.into_iter().map(|(_, row)| row).collect())
    }

    /// Chooses the next token of `id`.
    fn advance(&mut self, id: Id, logits: &[f32], queue: &Queue) -> Outcome {
        let Some(Work { job, sampler, length }) = self.works.get_mut(&id) else { return Outcome::Left };
        if let Some(odd) = logits.iter().find(|logit| logit.is_nan() || **logit == f32::INFINITY) {
            let words = format!("the model computed {odd} instead of numbers; its weights are broken");
            return Outcome::Failed(Failure::Engine(words));
        }
        let mask = match job.grammar.as_mut().map(|grammar| grammar.mask()).transpose() {
            Ok(mask) => mask,
            Err(words) => return Outcome::Failed(Failure::Grammar(words)),
        };
        let token = match sampler.choose(logits, mask.as_ref()) {
            Ok(token) => token,
            Err(error) => return Outcome::Failed(Failure::Engine(error.to_string())),
        };
        if job.produced() == 0 {
            queue.metrics().first_token(job.asked.elapsed(), 0);
        }
        if self.model.ends.contains(&token.unsigned_abs()) {
            return Outcome::Ended(Finish::Stop);
        }
        let piece = |token: Token| self.model.tokens.piece(token.unsigned_abs()).to_vec();
        let likelihood = job.logprobs.map(|top| likelihood(logits, token, top, piece));
        let complete = match job.grammar.as_mut().map(|grammar| grammar.accept(token)).transpose() {
            Ok(complete) => complete.unwrap_or(false),
            Err(words) => return Outcome::Failed(Failure::Grammar(words)),
        };
        *length += 1;
        match job.likely_token(&piece(token), likelihood) {
            Next::Cancelled => Outcome::Left,
            Next::Finished(finish) => Outcome::Ended(finish),
            Next::Continue if complete => Outcome::Ended(Finish::Stop),
            Next::Continue if *length >= self.model.context => Outcome::Ended(Finish::Length),
            Next::Continue => Outcome::Goes(token),
        }
    }

    /// A step that could not be computed ends all that were in it; of a halt they are told in the end.
    fn fail(&mut self, step: &Step, error: &StepError, queue: &Queue) {
        if matches!(error, StepError::Halted) {
            return;
        }
        let failure = Failure::Engine(format!("candle could not go on: {error}"));
        self.schedule.lost();
        let mut ids: Vec<Id> = step.entries.iter().map(|entry| entry.id).collect();
        ids.dedup();
        for id in ids {
            self.settle(id, Outcome::Failed(failure.clone()), queue);
        }
    }

    fn settle(&mut self, id: Id, outcome: Outcome, queue: &Queue) {
        if let Outcome::Goes(token) = outcome {
            return self.schedule.token(id, token);
        }
        self.schedule.finish(id);
        let Some(work) = self.works.remove(&id) else { return };
        match outcome {
            Outcome::Ended(finish) => {
                queue.metrics().finished();
                work.job.finish(finish);
            }
            Outcome::Failed(failure) => {
                queue.metrics().failed();
                work.job.fail(failure);
            }
            Outcome::Goes(_) | Outcome::Left => queue.metrics().left(),
        }
    }
}
