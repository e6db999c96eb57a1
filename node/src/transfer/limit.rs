//! Bandwidth limits: up and down, for the node and for each nation, changed at run time.
//!
//! A limit hands out places in time: whoever wants to move bytes is told when the bytes before it will have gone. Pieces are
//! small, so streams share a limit evenly, and a limit that is changed takes effect with the next piece.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use registry::Nation;
use serde::{Deserialize, Serialize};

/// A limit that was not used may be exceeded for so long: a shorter one would make small transfers wait for nothing.
const BURST: Duration = Duration::from_millis(100);
/// Longest wait for one piece: a limit that was set far too low can be mended while pieces wait.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// Least limit in bytes a second: below it, a peer would take the node for dead.
pub const MIN_RATE: u64 = 16 * 1024;

/// Bytes a second in each direction; `None` for no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rates {
    /// Sent to peers.
    pub up: Option<u64>,
    /// Received from peers.
    pub down: Option<u64>,
}

/// The limits of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bandwidth {
    /// Sent to all peers together.
    pub up: Option<u64>,
    /// Received from all peers together.
    pub down: Option<u64>,
    /// Of each nation's peers together, within those of the node.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nations: BTreeMap<Nation, Rates>,
}

impl Bandwidth {
    fn node(&self) -> Rates {
        Rates { up: self.up, down: self.down }
    }

    /// The first setting that is out of its range, and why.
    pub fn check(&self) -> Result<(), String> {
        let named = self.nations.iter().map(|(nation, rates)| (format!(" of nation `{nation}`"), *rates));
        for (whose, rates) in std::iter::once((String::new(), self.node())).chain(named) {
            for (way, rate) in [("up", rates.up), ("down", rates.down)] {
                if rate.is_some_and(|rate| rate < MIN_RATE) {
                    return Err(format!(
                        "the limit `{way}`{whose} is below {MIN_RATE} bytes a second; leave it out for no limit"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// One limit in one direction.
#[derive(Debug, Default)]
struct Bucket {
    /// When what was handed out will have gone.
    free_at: Mutex<Option<Instant>>,
}

impl Bucket {
    fn wait(&self, rate: u64, bytes: u64, now: Instant) -> Duration {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let start = free_at.map_or(now, |at| at.max(now.checked_sub(BURST).unwrap_or(now)));
        *free_at = Some(start + Duration::from_secs_f64(bytes as f64 / rate as f64));
        start.saturating_duration_since(now).min(MAX_WAIT)
    }
}

/// A direction of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

#[derive(Debug, Default)]
struct Pair {
    up: Bucket,
    down: Bucket,
}

impl Pair {
    fn bucket(&self, way: Way) -> &Bucket {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }
}

/// The limits and what was handed out under them.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    bandwidth: RwLock<Arc<Bandwidth>>,
    node: Pair,
    nations: Mutex<BTreeMap<Nation, Arc<Pair>>>,
}

impl Limiter {
    pub(crate) fn new(bandwidth: Bandwidth) -> Self {
        Self { bandwidth: RwLock::new(Arc::new(bandwidth)), ..Self::default() }
    }

    pub(crate) fn bandwidth(&self) -> Arc<Bandwidth> {
        Arc::clone(&self.bandwidth.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set(&self, bandwidth: Bandwidth) {
        *self.bandwidth.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(bandwidth);
    }

    /// Waits until `bytes` may go.
    pub(crate) async fn take(&self, way: Way, nation: &Nation, bytes: u64) {
        let wait = self.wait(way, nation, bytes, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    fn wait(&self, way: Way, nation: &Nation, bytes: u64, now: Instant) -> Duration {
        let bandwidth = self.bandwidth();
        let rate = |rates: &Rates| match way {
            Way::Up => rates.up,
            Way::Down => rates.down,
        };
        let mut wait = Duration::ZERO;
        if let Some(rate) = rate(&bandwidth.node()) {
            wait = self.node.bucket(way).wait(rate, bytes, now);
        }
        if let Some(rate) = bandwidth.nations.get(nation).and_then(rate) {
            let pair = {
                let mut nations = self.nations.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(nations.entry(nation.clone()).or_default())
            };
            wait = wait.max(pair.bucket(way).wait(rate, bytes, now));
        }
        wait
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PIECE: u64 = 64 * 1024;

    /// How long `pieces` take one after the other.
    fn time(limiter: &Limiter, nation: &str, pieces: u32) -> Duration {
        let nation: Nation = nation.parse().unwrap();
        let begin = Instant::now();
        let mut now = begin;
        for _ in 0..pieces {
            now += limiter.wait(Way::Up, &nation, PIECE, now);
        }
        now - begin
    }

    fn limits(node: Option<u64>, alba: Option<u64>) -> Bandwidth {
        let rates = Rates { up: alba, down: None };
        Bandwidth { up: node, down: None, nations: BTreeMap::from([("alba".parse().unwrap(), rates)]) }
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        assert_eq!(time(&Limiter::default(), "alba", 1000), Duration::ZERO);
    }

    #[test]
    fn a_rate_is_kept_over_time_and_the_lower_of_two_counts() {
        let limiter = Limiter::new(limits(Some(1 << 20), Some(512 << 10)));
        let slow = time(&limiter, "alba", 81).as_secs_f64();
        assert!((9.8..10.2).contains(&slow), "{slow}");
        let limiter = Limiter::new(limits(Some(1 << 20), Some(512 << 10)));
        let fast = time(&limiter, "borea", 161).as_secs_f64();
        assert!((9.8..10.2).contains(&fast), "{fast}");
    }

    #[test]
    fn a_limit_can_be_changed_and_taken_away() {
        let limiter = Limiter::new(limits(Some(MIN_RATE), None));
        assert!(time(&limiter, "borea", 3) > Duration::from_secs(5));
        limiter.set(Bandwidth::default());
        assert_eq!(time(&limiter, "borea", 100), Duration::ZERO);
    }

    #[test]
    fn a_limit_that_would_look_like_a_dead_node_is_refused() {
        assert!(limits(Some(MIN_RATE - 1), None).check().unwrap_err().contains("`up` is below"));
        assert!(limits(None, Some(1)).check().unwrap_err().contains("of nation `alba`"));
        assert!(limits(Some(MIN_RATE), None).check().is_ok());
    }
}
