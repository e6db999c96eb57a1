//! Continuous batching, the computing half: does what [`Schedule`] says, and chooses the tokens.

use std::collections::BTreeMap;
use std::time::Instant;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaLoraAdapter;
use llama_cpp_2::token::LlamaToken;

use super::super::sampler::{Sampler, likelihood};
use super::super::schedule::{Id, Lane, Move, Schedule, Step};
use super::super::{Failure, Finish, Job, Next, Over, Queue, Token, logs};
use super::{BATCH, Llama};
use crate::halt::Halt;

/// A step that the engine can't compute is tried again from nothing so often; then its requests are told.
const TRIES: u32 = 3;

/// Steps between two looks at what llama.cpp said meanwhile.
const STEPS: usize = 256;

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

struct Loop<'a> {
    llama: &'a Llama,
    context: LlamaContext<'a>,
    adapters: &'a mut [LlamaLoraAdapter],
    /// The adapter that the context computes with.
    worn: Lane,
    batch: LlamaBatch<'a>,
    schedule: Schedule,
    works: BTreeMap<Id, Work>,
    last: Id,
    failed: u32,
}

/// Answers the queue's jobs until it is closed or the worker halts.
pub(super) fn serve(
    llama: &Llama,
    context: LlamaContext<'_>,
    adapters: &mut [LlamaLoraAdapter],
    queue: &Queue,
    halt: &Halt,
) {
    let mut engine = Loop {
        llama,
        context,
        adapters,
        worn: 0,
        batch: LlamaBatch::new(BATCH, 1),
        schedule: Schedule::new(llama.limits),
        works: BTreeMap::new(),
        last: 0,
        failed: 0,
    };
    // Catching llama.cpp's lines has its price, so many steps share it.
    while engine.take_all(queue, true) && !halt.is_set() {
        if engine.works.is_empty() {
            engine.tell(queue);
            continue;
        }
        let ((), _) = logs::caught(|| {
            for _ in 0..STEPS {
                engine.step(queue);
                engine.tell(queue);
                if !engine.take_all(queue, false) || halt.is_set() || engine.works.is_empty() {
                    break;
                }
            }
        });
    }
    let failure =
        halt.cause().map_or_else(|| Failure::Engine("the engine ended".to_owned()), Failure::Halted);
    for (_, work) in std::mem::take(&mut engine.works) {
        work.job.fail(failure.clone());
    }
}

impl Loop<'_> {
    /// Takes what waits in the queue, and lets go of what is over; waits where there is nothing else to do, if it `may`.
    /// Whether the queue is open.
    fn take_all(&mut self, queue: &Queue, may: bool) -> bool {
        let Some(jobs) = queue.drain(may && self.works.is_empty()) else { return false };
        for job in jobs {
            self.take(job, queue);
        }
        self.sweep(queue);
        true
    }

    fn take(&mut self, mut job: Job, queue: &Queue) {
        if job.embed {
            queue.metrics().failed();
            job.fail(Failure::Engine("this model makes no vectors".to_owned()));
            return;
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
        self.forget_holes();
        let step = self.schedule.step();
        if !self.rearrange(&step) || !self.compute(&step) {
            return self.start_over(&step, queue);
        }
        self.failed = 0;
        let prompt = step.entries.iter().filter(|entry| !entry.last).count();
        queue.metrics().step(step.entries.len(), prompt);
        for (at, entry) in (0..).zip(&step.entries) {
            if entry.last {
                let outcome = self.advance(at, entry.id, queue);
                self.settle(entry.id, outcome, queue);
            }
        }
    }

    /// A model with a sliding window lets go of what is behind it when room is needed; a sequence without its beginning
    /// can't be shared.
    fn forget_holes(&mut self) {
        let shareable: Vec<usize> = self.schedule.shareable().collect();
        for sequence in shareable {
            if self.context.kv_cache_seq_pos_min(number(sequence)) != 0 {
                self.schedule.not_whole(sequence);
            }
        }
    }

    /// Does the step's moves; whether the engine could.
    fn rearrange(&mut self, step: &Step) -> bool {
        step.moves.iter().all(|change| match *change {
            Move::Cut { sequence, length } => {
                let sequence = u32::try_from(sequence).ok();
                let from = u32::try_from(length).ok();
                matches!(self.context.clear_kv_cache_seq(sequence, from, None), Ok(true))
            }
            Move::Share { from, to, length } => {
                let end = u32::try_from(length).ok();
                self.context.copy_kv_cache_seq(number(from), number(to), Some(0), end).is_ok()
            }
        })
    }

    fn compute(&mut self, step: &Step) -> bool {
        let Some(first) = step.entries.first() else { return true };
        if !self.wear(first.lane) {
            return false;
        }
        self.batch.clear();
        let added = step.entries.iter().all(|entry| {
            let (token, position) = (LlamaToken(entry.token), number(entry.position));
            self.batch.add(token, position, &[number(entry.sequence)], entry.last).is_ok()
        });
        added && self.context.decode(&mut self.batch).is_ok()
    }

    /// Computes with the adapter of `lane` from now on; all tokens of a step have the same one.
    fn wear(&mut self, lane: Lane) -> bool {
        if self.worn == lane {
            return true;
        }
        let put = match lane.checked_sub(1).map(|place| self.adapters.get_mut(place as usize)) {
            // Any adapter will do: all are taken off.
            None => self.adapters.first_mut().is_none_or(|any| self.context.lora_adapter_remove(any).is_ok()),
            Some(Some(adapter)) => self.context.lora_adapter_set(adapter, 1.0).is_ok(),
            Some(None) => false,
        };
        if put {
            self.worn = lane;
        }
        put
    }

    /// The engine failed: nothing in its memory is trusted any more. Requests begin anew, and fail when that does not help.
    fn start_over(&mut self, step: &Step, queue: &Queue) {
        self.failed += 1;
        tracing::warn!(
            tokens = step.entries.len(),
            tries = self.failed,
            "llama.cpp could not compute a batch"
        );
        self.context.clear_kv_cache();
        self.schedule.lost();
        if self.failed >= TRIES {
            let failure = Failure::Engine("llama.cpp could not go on; the worker's log says more".to_owned());
            let mut ids: Vec<Id> = step.entries.iter().map(|entry| entry.id).collect();
            ids.dedup();
            for id in ids {
                self.settle(id, Outcome::Failed(failure.clone()), queue);
            }
            self.failed = 0;
        }
    }

    /// Chooses the next token of `id` by the batch's result `at`.
    fn advance(&mut self, at: i32, id: Id, queue: &Queue) -> Outcome {
        let Some(Work { job, sampler, length }) = self.works.get_mut(&id) else { return Outcome::Left };
        let logits = self.context.get_logits_ith(at);
        let mask = match job.grammar.as_mut().map(|grammar| grammar.mask()).transpose() {
            Ok(mask) => mask,
            Err(words) => return Outcome::Failed(Failure::Grammar(words)),
        };
        let token = match sampler.choose(logits, mask.as_ref()) {
            Ok(token) => token,
            Err(error) => return Outcome::Failed(Failure::Engine(error.to_string())),
        };
        if job.produced() == 0 {
            job.reused(self.schedule.reused(id));
            queue.metrics().first_token(job.asked.elapsed(), self.schedule.reused(id));
        }
        if self.llama.model.vocab().is_eog(LlamaToken(token)) {
            return Outcome::Ended(Finish::Stop);
        }
        let piece = |token| self.llama.piece(token);
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
            Next::Continue if *length >= self.llama.context.get() as usize => Outcome::Ended(Finish::Length),
            Next::Continue => Outcome::Goes(token),
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

    fn tell(&self, queue: &Queue) {
        let (used, all) = self.schedule.cells();
        queue.metrics().now(self.schedule.running(), self.schedule.waiting(), used, all);
    }
}

/// Numbers here are bounded by the context, which is one of llama.cpp's own.
fn number(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
