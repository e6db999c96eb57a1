//! The worker's own end: it stops when its lease has passed, whether or not the node is there to say so.
//!
//! The node tells the end with the hand-off and tells a later one whenever enough allies were heard
//! (`registry::lease`). A node that is dead closes the pipe, which stops the worker at once; one that is frozen says
//! nothing more, and the worker's own clocks end it: a steady one, from the moment at which the line was read, and the
//! wall clock, which also counts the time that the line lay in the pipe and that a machine slept.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use registry::Timestamp;
use registry::lease::LeaseEnd;
use registry::serving::StopCode;
use serde_json::{Value, json};

use crate::halt::{Cause, Halt};

/// How often the clocks are looked at: the wall clock may be set, and a machine may sleep.
const LOOK: Duration = Duration::from_millis(100);

/// When the worker stops by itself.
#[derive(Debug, Clone, Copy)]
struct End {
    steady: Instant,
    wall_ms: u64,
}

impl End {
    fn of(told: LeaseEnd) -> Option<Self> {
        // A length that no clock can hold is no lease that this program would have written.
        let steady = Instant::now().checked_add(Duration::from_millis(told.left_ms))?;
        Some(Self { steady, wall_ms: told.ends_ms })
    }

    fn left(self) -> Duration {
        let steady = self.steady.saturating_duration_since(Instant::now());
        steady.min(Duration::from_millis(self.wall_ms.saturating_sub(wall_ms())))
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The end of the lease, as it is now. Cheap to clone. Without one the worker has no end of its own.
#[derive(Debug, Clone, Default)]
pub struct Leash(Arc<(Mutex<Option<End>>, Condvar)>);

impl Leash {
    fn end(&self) -> MutexGuard<'_, Option<End>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the first end, and starts the thread that stops the worker at it: a thread of its own, so that nothing that
    /// hangs elsewhere in this process delays it.
    pub fn begin(&self, told: LeaseEnd, halt: &Halt) -> io::Result<()> {
        *self.end() = End::of(told);
        let (leash, halt) = (self.clone(), halt.clone());
        std::thread::Builder::new().name("lease".to_owned()).spawn(move || leash.watch(&halt)).map(drop)
    }

    /// Takes a later end; one that has passed stays passed.
    pub fn renew(&self, told: LeaseEnd, halt: &Halt) {
        self.check(halt);
        if !halt.is_set() {
            *self.end() = End::of(told);
            self.0.1.notify_all();
        }
    }

    /// Orders the stop if the end has passed.
    pub fn check(&self, halt: &Halt) {
        let ended = self.end().is_some_and(|end| end.left().is_zero());
        if ended {
            halt.set(Cause {
                code: StopCode::LeaseEnded,
                reason: "the lease ended: this node has not heard from enough allied nations for too long, so it can't know of a recall; it is served again when they are heard"
                    .to_owned(),
            });
        }
    }

    fn watch(&self, halt: &Halt) {
        while !halt.is_set() {
            let end = self.end();
            let wait = end.as_ref().map_or(LOOK, |end| end.left().min(LOOK));
            drop(self.0.1.wait_timeout(end, wait).unwrap_or_else(PoisonError::into_inner));
            self.check(halt);
        }
    }

    /// The lease as `/health` shows it; nothing where none is needed.
    pub fn describe(&self) -> Option<Value> {
        let end = (*self.end())?;
        let ends = i64::try_from(end.wall_ms / 1000).ok().map(Timestamp::from_unix);
        let left = u64::try_from(end.left().as_millis()).unwrap_or(u64::MAX);
        Some(json!({ "ends": ends, "left_ms": left }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn in_ms(steady: u64, wall: i64) -> LeaseEnd {
        LeaseEnd { left_ms: steady, ends_ms: wall_ms().saturating_add_signed(wall) }
    }

    async fn stopped(halt: &Halt, within: Duration) -> bool {
        tokio::time::timeout(within, halt.wait()).await.is_ok_and(|cause| cause.code == StopCode::LeaseEnded)
    }

    #[tokio::test]
    async fn it_ends_by_itself_by_whichever_clock_comes_first() {
        for end in [in_ms(150, 60_000), in_ms(60_000, 150), in_ms(60_000, -5000)] {
            let (leash, halt) = (Leash::default(), Halt::default());
            leash.begin(end, &halt).unwrap();
            assert!(stopped(&halt, Duration::from_secs(5)).await, "{end:?}");
        }
    }

    #[tokio::test]
    async fn it_is_renewed_before_its_end_and_not_after_it() {
        let (leash, halt) = (Leash::default(), Halt::default());
        leash.begin(in_ms(400, 400), &halt).unwrap();
        leash.renew(in_ms(60_000, 60_000), &halt);
        assert!(!stopped(&halt, Duration::from_millis(700)).await);
        assert!(leash.describe().unwrap()["left_ms"].as_u64().unwrap() > 50_000);
        leash.renew(in_ms(0, 0), &halt);
        assert!(stopped(&halt, Duration::from_secs(5)).await);
        leash.renew(in_ms(60_000, 60_000), &halt);
        assert!(halt.is_set());
    }

    #[test]
    fn without_a_lease_there_is_no_end() {
        let (leash, halt) = (Leash::default(), Halt::default());
        leash.check(&halt);
        assert!(!halt.is_set() && leash.describe().is_none());
    }
}
