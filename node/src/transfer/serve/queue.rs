//! Requests of one stream that wait for their answers. They are answered in order; one that was taken back is answered by
//! its refusal.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::wire::Request;

/// Requests that wait on one stream: more than a client of ours sends ahead. Further ones are not read before there is room.
const MAX_QUEUED: usize = 128;

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(Request, bool)>,
    answering: bool,
    ended: bool,
}

/// The queue of one stream.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    came: Notify,
    went: Notify,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request in, or takes an earlier one back.
    pub(super) async fn push(&self, request: Request) {
        if let Request::Cancel { file, first, count } = request {
            let same = |waiting: &Request| matches!(waiting, Request::Chunks { file: f, first: a, count: c, .. } if (*f, *a, *c) == (file, first, count));
            let mut state = self.state();
            if let Some((_, cancelled)) = state.waiting.iter_mut().rev().find(|(waiting, _)| same(waiting)) {
                *cancelled = true;
            }
            return;
        }
        loop {
            let room = self.went.notified();
            {
                let mut state = self.state();
                if state.waiting.len() < MAX_QUEUED {
                    state.waiting.push_back((request, false));
                    self.came.notify_one();
                    return;
                }
            }
            room.await;
        }
    }

    /// The next request and whether it was taken back; `None` when no more come.
    pub(super) async fn next(&self) -> Option<(Request, bool)> {
        loop {
            let more = self.came.notified();
            {
                let mut state = self.state();
                if let Some(next) = state.waiting.pop_front() {
                    state.answering = true;
                    self.went.notify_one();
                    return Some(next);
                }
                if state.ended {
                    return None;
                }
            }
            more.await;
        }
    }

    /// Waits until no more requests come.
    pub(super) async fn ended(&self) {
        loop {
            let more = self.came.notified();
            if self.state().ended {
                return;
            }
            more.await;
        }
    }

    /// The last one was answered.
    pub(super) fn done(&self) {
        self.state().answering = false;
    }

    /// Whether answers are still owed.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.state();
        state.answering || !state.waiting.is_empty()
    }

    /// Tells that no more come, when what comes back is dropped.
    pub(super) fn end_on_drop(&self) -> Ended<'_> {
        Ended(self)
    }
}

/// Ends the queue when dropped.
pub(super) struct Ended<'a>(&'a Queue);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.came.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(first: u32) -> Request {
        Request::Chunks { file: 0, first, count: 1, encoded: false }
    }

    #[tokio::test]
    async fn in_order_and_what_was_taken_back_is_marked() {
        let queue = Queue::default();
        for first in 0..3 {
            queue.push(chunks(first)).await;
        }
        assert!(queue.is_busy());
        queue.push(Request::Cancel { file: 0, first: 1, count: 1 }).await;
        queue.push(Request::Cancel { file: 0, first: 7, count: 1 }).await;
        drop(queue.end_on_drop());
        for first in 0..3 {
            assert_eq!(queue.next().await, Some((chunks(first), first == 1)));
        }
        queue.done();
        assert!(!queue.is_busy());
        assert_eq!(queue.next().await, None);
    }

    #[tokio::test]
    async fn a_full_queue_waits_for_room() {
        let queue = Queue::default();
        for first in 0..MAX_QUEUED as u32 {
            queue.push(chunks(first)).await;
        }
        let over = queue.push(chunks(999));
        let take = async {
            tokio::task::yield_now().await;
            queue.next().await
        };
        let ((), first) = tokio::join!(over, take);
        assert_eq!(first, Some((chunks(0), false)));
    }
}
