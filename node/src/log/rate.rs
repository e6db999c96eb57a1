//! What each peer may ask of logs, and how often: an allowance that fills up with time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What a peer may spend at once: a few hundred logs looked at, or some dozens cosigned.
const BURST: f64 = 600.0;
/// What comes back in a second: a synchronisation every second, with a cosignature for each.
const PER_SECOND: f64 = 20.0;
/// Allowances remembered; those that are full again are forgotten first.
const MAX_KNOWN: usize = 4096;
/// After so long every allowance is full again.
const FULL: Duration = Duration::from_secs((BURST / PER_SECOND) as u64 + 1);

#[derive(Debug, Clone, Copy)]
struct Allowance {
    left: f64,
    at: Instant,
}

/// The allowances of everybody who asked lately.
#[derive(Debug, Default)]
pub(crate) struct Allowances {
    known: HashMap<String, Allowance>,
}

impl Allowances {
    /// Takes `cost` from the allowance of `who`; false when it has not so much.
    pub(crate) fn take(&mut self, who: &str, cost: f64, now: Instant) -> bool {
        if self.known.len() >= MAX_KNOWN && !self.known.contains_key(who) {
            self.known.retain(|_, allowance| now.duration_since(allowance.at) < FULL);
            if self.known.len() >= MAX_KNOWN {
                return false;
            }
        }
        let allowance = self.known.entry(who.to_owned()).or_insert(Allowance { left: BURST, at: now });
        let grown = now.duration_since(allowance.at).as_secs_f64() * PER_SECOND;
        allowance.left = (allowance.left + grown).min(BURST);
        allowance.at = now;
        if allowance.left < cost {
            return false;
        }
        allowance.left -= cost;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_too_often_waits_and_nobody_else_does() {
        let mut allowances = Allowances::default();
        let start = Instant::now();
        let asked = (0..1000).filter(|_| allowances.take("a", 4.0, start)).count();
        assert_eq!(asked, 150);
        assert!(allowances.take("b", 4.0, start));
        assert!(!allowances.take("a", 4.0, start));
        assert!(allowances.take("a", 4.0, start + Duration::from_millis(200)));
        assert!(!allowances.take("a", 4.0, start + Duration::from_millis(210)));
    }
}
