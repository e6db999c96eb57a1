//! What waits for the engine, with limits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Failure, Job, Metrics};

/// Why a job was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushError {
    /// As many requests as allowed run or wait.
    Full {
        /// The limit.
        limit: usize,
    },
    /// The engine takes no more.
    Closed(Failure),
}

/// Jobs that wait for the engine. Those that run count towards the limit; those whose asker has left do not.
#[derive(Debug)]
pub struct Queue {
    limit: usize,
    /// Each waiting or running job holds a clone.
    places: Arc<Generated>,
    metrics: Metrics,
    state: Mutex<State>,
    wake: Condvar,
}

/// Tokens generated for every job of a queue together.
#[derive(Debug, Default)]
pub(super) struct Generated(AtomicU64);

impl Generated {
    /// One more.
    pub(super) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    closed: Option<Failure>,
}

impl Queue {
    /// A queue for at most `limit` jobs that run or wait; at least one.
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            places: Arc::default(),
            metrics: Metrics::default(),
            state: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    /// Adds a job at the end.
    pub fn push(&self, mut job: Job) -> Result<(), PushError> {
        let mut state = self.lock();
        if let Some(failure) = &state.closed {
            return Err(PushError::Closed(failure.clone()));
        }
        state.waiting.retain(|job| !job.is_cancelled());
        if self.len() >= self.limit {
            return Err(PushError::Full { limit: self.limit });
        }
        job.place = Some(Arc::clone(&self.places));
        state.waiting.push_back(job);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// The next job whose asker still listens; waits for one. `None` when the queue is closed.
    pub fn pop(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.closed.is_some() {
                return None;
            }
            match state.waiting.pop_front() {
                Some(job) if job.is_cancelled() => {}
                Some(job) => return Some(job),
                None => state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// All jobs that wait and whose askers still listen, in the order in which they came. Waits for one where `wait` says
    /// so. `None` when the queue is closed.
    pub fn drain(&self, wait: bool) -> Option<Vec<Job>> {
        let mut state = self.lock();
        loop {
            if state.closed.is_some() {
                return None;
            }
            state.waiting.retain(|job| !job.is_cancelled());
            if !state.waiting.is_empty() || !wait {
                return Some(state.waiting.drain(..).collect());
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends it: those that wait are told why, those that come later too. The first reason stands.
    pub fn close(&self, failure: &Failure) {
        let mut state = self.lock();
        let failure = state.closed.get_or_insert_with(|| failure.clone()).clone();
        for job in std::mem::take(&mut state.waiting) {
            job.fail(failure.clone());
        }
        drop(state);
        self.wake.notify_all();
    }

    /// The engine's numbers.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Most jobs that run or wait.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Jobs that run or wait.
    pub fn len(&self) -> usize {
        Arc::strong_count(&self.places) - 1
    }

    /// Whether no job runs or waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens generated since the start, those of answers that nobody waited for included.
    pub fn generated(&self) -> u64 {
        self.places.0.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::sync::mpsc::Receiver;

    use super::*;
    use crate::engine::{Event, Finish, Next, Sampling};

    fn job(first: i32) -> (Job, Receiver<Event>) {
        Job::new(vec![first], Sampling::GREEDY, 3, Vec::new())
    }

    #[test]
    fn first_come_first_served_and_running_jobs_count() {
        let queue = Queue::new(2);
        let (one, _one) = job(1);
        let (two, _two) = job(2);
        let (three, _three) = job(3);
        queue.push(one).unwrap();
        queue.push(two).unwrap();
        let running = queue.pop().unwrap();
        assert_eq!(running.prompt, [1]);
        assert_eq!(queue.push(three).unwrap_err(), PushError::Full { limit: 2 });
        drop(running);
        let (three, _three) = job(3);
        queue.push(three).unwrap();
        assert_eq!(queue.pop().unwrap().prompt, [2]);
        assert_eq!(queue.pop().unwrap().prompt, [3]);
        assert!(queue.is_empty());
    }

    #[test]
    fn those_who_left_hold_no_place_and_are_skipped() {
        let queue = Queue::new(2);
        let (one, left) = job(1);
        queue.push(one).unwrap();
        drop(left);
        let (two, _two) = job(2);
        let (three, _three) = job(3);
        queue.push(two).unwrap();
        queue.push(three).unwrap();
        assert_eq!(queue.pop().unwrap().prompt, [2]);
        assert_eq!(queue.drain(true).unwrap().len(), 1);
        assert!(queue.drain(false).unwrap().is_empty());
    }

    #[test]
    fn closing_answers_those_that_wait_and_those_that_come() {
        let queue = Queue::new(2);
        let (one, mut events) = job(1);
        queue.push(one).unwrap();
        let failure = Failure::Engine("first".to_owned());
        queue.close(&failure);
        queue.close(&Failure::Engine("second".to_owned()));
        assert_eq!(events.blocking_recv(), Some(Event::Failed(failure.clone())));
        assert!(queue.pop().is_none());
        assert_eq!(queue.push(job(2).0).unwrap_err(), PushError::Closed(failure));
    }

    #[test]
    fn a_job_holds_its_whole_answer_without_a_reader() {
        let (mut job, mut events) = job(1);
        assert_eq!(job.token(b"a"), Next::Continue);
        assert_eq!(job.token(b"b"), Next::Continue);
        assert_eq!(job.token(b"\xC3"), Next::Finished(Finish::Length));
        job.finish(Finish::Length);
        let mut text = String::new();
        let done = loop {
            match events.blocking_recv().unwrap() {
                Event::Piece(more) => text.push_str(&more.text),
                other => break other,
            }
        };
        assert_eq!(text, "ab\u{FFFD}");
        assert!(matches!(done, Event::Done(done) if done.completion_tokens == 3));
    }
}
