//! How long a node may go on serving when it hears nothing from its allies (specification 10).
//!
//! A recall reaches whoever can be reached. A node that was cut off, by an accident or by somebody who wants a recalled
//! model to stay up, would serve for ever. So a node may be told to serve on a **lease**: it holds while enough allied
//! nations were *heard* lately, and ends by itself.
//!
//! **What renews it.** A nation is heard at the moment at which this node asked one of its nodes, over a connection that
//! the nation's certificate authenticated, for everything that is new in its feed, and then got all of it and believed
//! it. From then on every recall that this ally knew at that moment is known here. That is what a lease promises, and why
//! nothing less renews it: a gossiped message shows one statement and says nothing of those that were held back; a
//! checkpoint that was cosigned shows what the producer's log held, by the witnesses' clocks, and can be carried here
//! later by whoever cuts the node off; and a producer that has left the league would take its models down with it if its
//! own log had to be fresh.
//!
//! **How many.** The lease counts distinct nations, never our own, which may be cut off together with us. With `nations`
//! of them, at least `nations` allies would have to withhold a recall to keep it from here longer than `seconds`; where
//! up to *f* allies may collude, `nations` is at least *f* + 1.
//!
//! **By which clock.** Two: a steady one, that nobody sets, and the wall clock, that goes on while a machine sleeps. The
//! lease ends by whichever says so first, so neither a clock that is set back nor a machine that was paused extends it.
//!
//! Pure: moments come in as numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::reference::Nation;

/// Longest lease, in seconds: a year. Longer is none.
pub const MAX_SECONDS: u64 = 366 * 86_400;
/// Most nations that a lease may ask for: all that can be pinned.
pub const MAX_NATIONS: u32 = crate::trust::MAX_MEMBERS as u32;

/// What a lease asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// How long it holds after enough nations were heard; 0: no lease is needed, as where no network reaches.
    pub seconds: u64,
    /// How many distinct nations must have been heard within that time; at least 1.
    pub nations: u32,
}

/// A moment by both clocks, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Since any fixed moment, by a clock that is never set.
    pub steady_ms: u64,
    /// Since 1970, by the wall clock.
    pub wall_ms: u64,
}

/// The end of a lease, as a worker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseEnd {
    /// Milliseconds that were left when this was written.
    pub left_ms: u64,
    /// When it ends by the wall clock, in milliseconds since 1970.
    pub ends_ms: u64,
}

/// Whether a node may serve now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// The terms ask for none.
    NotNeeded,
    /// Until then.
    Held(LeaseEnd),
    /// It has ended, or there was none yet: so many nations were heard within its time.
    Ended {
        /// Fewer than the terms ask for.
        heard: u32,
    },
}

impl Terms {
    /// No lease is needed.
    pub const NONE: Self = Self { seconds: 0, nations: 1 };

    /// What holds at `now`, when each of these nations was heard last at its moment. `own` never counts.
    pub fn judge(self, own: &Nation, heard: &BTreeMap<Nation, Moment>, now: Moment) -> Lease {
        if self.seconds == 0 {
            return Lease::NotNeeded;
        }
        let length = self.seconds.min(MAX_SECONDS).saturating_mul(1000);
        let others = || heard.iter().filter(|(nation, _)| *nation != own).map(|(_, moment)| moment);
        let steady = self.nth(others().map(|moment| moment.steady_ms));
        let wall = self.nth(others().map(|moment| moment.wall_ms));
        let end = |heard: u64| heard.saturating_add(length);
        if let (Some(steady), Some(wall)) = (steady, wall)
            && end(steady) > now.steady_ms
            && end(wall) > now.wall_ms
        {
            // What the wall clock would give beyond the lease's whole length, after it was set back, nobody gets.
            let left = (end(steady) - now.steady_ms).min(end(wall) - now.wall_ms);
            return Lease::Held(LeaseEnd { left_ms: left, ends_ms: now.wall_ms.saturating_add(left) });
        }
        let fresh =
            |moment: &&Moment| end(moment.steady_ms) > now.steady_ms && end(moment.wall_ms) > now.wall_ms;
        // No more than can be pinned.
        Lease::Ended { heard: others().filter(fresh).count().min(MAX_NATIONS as usize) as u32 }
    }

    /// Seconds since as many nations were heard as are needed, by whichever clock says more; nothing where no lease is needed.
    /// While fewer were heard since the node's start it is [`MAX_SECONDS`]: nothing is known of what they know.
    pub fn age(self, own: &Nation, heard: &BTreeMap<Nation, Moment>, now: Moment) -> Option<u64> {
        if self.seconds == 0 {
            return None;
        }
        let others = || heard.iter().filter(|(nation, _)| *nation != own).map(|(_, moment)| moment);
        let steady = self.nth(others().map(|moment| moment.steady_ms));
        let wall = self.nth(others().map(|moment| moment.wall_ms));
        let (Some(steady), Some(wall)) = (steady, wall) else { return Some(MAX_SECONDS) };
        let ms = now.steady_ms.saturating_sub(steady).max(now.wall_ms.saturating_sub(wall));
        Some((ms / 1000).min(MAX_SECONDS))
    }

    /// The latest moment by which as many nations as are needed had been heard since.
    fn nth(self, moments: impl Iterator<Item = u64>) -> Option<u64> {
        let mut moments: Vec<u64> = moments.collect();
        moments.sort_unstable_by(|a, b| b.cmp(a));
        moments.get(self.nations.max(1) as usize - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn heard(moments: &[(&str, u64)]) -> BTreeMap<Nation, Moment> {
        moments.iter().map(|(name, at)| (Nation::new(name).unwrap(), at_both(*at))).collect()
    }

    fn at_both(ms: u64) -> Moment {
        Moment { steady_ms: ms, wall_ms: 1_000_000 + ms }
    }

    fn left(terms: Terms, moments: &[(&str, u64)], now: Moment) -> Option<u64> {
        match terms.judge(&Nation::new("own").unwrap(), &heard(moments), now) {
            Lease::Held(end) => Some(end.left_ms),
            Lease::Ended { .. } => None,
            Lease::NotNeeded => panic!("it is needed"),
        }
    }

    #[test]
    fn it_ends_when_too_few_were_heard() {
        let two = Terms { seconds: 10, nations: 2 };
        assert_eq!(left(two, &[("alba", 5000)], at_both(5000)), None);
        assert_eq!(left(two, &[("alba", 5000), ("own", 5000)], at_both(5000)), None);
        let both = [("alba", 5000), ("cora", 1000)];
        assert_eq!(left(two, &both, at_both(6000)), Some(5000));
        assert_eq!(left(two, &both, at_both(10_999)), Some(1));
        assert_eq!(left(two, &both, at_both(11_000)), None);
        assert_eq!(left(Terms { nations: 1, ..two }, &both, at_both(11_000)), Some(4000));
        let own = Nation::new("own").unwrap();
        assert_eq!(Terms::NONE.judge(&own, &BTreeMap::new(), at_both(0)), Lease::NotNeeded);
        assert_eq!(two.judge(&own, &heard(&both), at_both(11_000)), Lease::Ended { heard: 1 });
    }

    #[test]
    fn its_age_is_that_of_the_quorum() {
        let two = Terms { seconds: 10, nations: 2 };
        let own = Nation::new("own").unwrap();
        let age = |moments: &[(&str, u64)], now| two.age(&own, &heard(moments), now);
        assert_eq!(age(&[("alba", 9000), ("cora", 4000), ("dora", 1000)], at_both(9500)), Some(5));
        assert_eq!(age(&[("alba", 9000), ("own", 9000)], at_both(9500)), Some(MAX_SECONDS));
        let slept = Moment { steady_ms: 9500, wall_ms: 1_030_000 };
        assert_eq!(age(&[("alba", 9000), ("cora", 4000)], slept), Some(26));
        assert_eq!(Terms::NONE.age(&own, &BTreeMap::new(), at_both(0)), None);
    }

    #[test]
    fn whichever_clock_says_so_first_ends_it() {
        let one = Terms { seconds: 10, nations: 1 };
        let alba = [("alba", 5000)];
        // The machine slept: the steady clock stood still.
        assert_eq!(left(one, &alba, Moment { steady_ms: 5001, wall_ms: 1_015_000 }), None);
        // Somebody set the wall clock back.
        assert_eq!(left(one, &alba, Moment { steady_ms: 14_999, wall_ms: 10 }), Some(1));
        assert_eq!(left(one, &alba, Moment { steady_ms: 15_000, wall_ms: 10 }), None);
    }
}
