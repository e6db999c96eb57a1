//! Leases at their edges: the longest, the shortest, by either clock.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use registry::Nation;
use registry::lease::{Lease, LeaseEnd, MAX_SECONDS, Moment, Terms};

fn nation(name: &str) -> Nation {
    Nation::new(name).unwrap()
}

fn judge(terms: Terms, heard: &[(&str, u64, u64)], now: (u64, u64)) -> Lease {
    let moment = |(steady_ms, wall_ms)| Moment { steady_ms, wall_ms };
    let heard: BTreeMap<Nation, Moment> =
        heard.iter().map(|(name, steady, wall)| (nation(name), moment((*steady, *wall)))).collect();
    terms.judge(&nation("own"), &heard, moment(now))
}

#[test]
fn no_lease_is_longer_than_a_year() {
    assert_eq!(MAX_SECONDS, 31_622_400);
    let year = MAX_SECONDS * 1000;
    for seconds in [MAX_SECONDS, MAX_SECONDS + 1, u64::MAX] {
        let terms = Terms { seconds, nations: 1 };
        let whole = Lease::Held(LeaseEnd { left_ms: year, ends_ms: year + 70 });
        assert_eq!(judge(terms, &[("alba", 5, 70)], (5, 70)), whole);
        assert_eq!(judge(terms, &[("alba", 5, 70)], (5 + year, 70)), Lease::Ended { heard: 0 });
    }
    let shorter = Terms { seconds: MAX_SECONDS - 1, nations: 1 };
    let Lease::Held(end) = judge(shorter, &[("alba", 5, 70)], (5, 70)) else { panic!("it is held") };
    assert_eq!(end.left_ms, year - 1000);
    // The last moments that there are.
    assert_eq!(
        judge(Terms { seconds: 10, nations: 1 }, &[("alba", u64::MAX - 3, 7)], (u64::MAX - 2, 7)),
        Lease::Held(LeaseEnd { left_ms: 2, ends_ms: 9 })
    );
}

#[test]
fn a_lease_that_asks_for_no_nation_asks_for_one() {
    let none = Terms { seconds: 10, nations: 0 };
    assert_eq!(judge(none, &[], (5, 5)), Lease::Ended { heard: 0 });
    assert_eq!(judge(none, &[("own", 5, 5)], (5, 5)), Lease::Ended { heard: 0 });
    assert_eq!(
        judge(none, &[("alba", 5, 5)], (5, 5)),
        Lease::Held(LeaseEnd { left_ms: 10_000, ends_ms: 10_005 })
    );
}

#[test]
fn the_worker_is_told_what_is_left_by_the_clock_that_ends_first() {
    let one = Terms { seconds: 10, nations: 1 };
    let heard = [("alba", 1000, 50_000)];
    // Three seconds by the steady clock, four by the wall clock; and the other way round.
    assert_eq!(judge(one, &heard, (4000, 54_000)), Lease::Held(LeaseEnd { left_ms: 6000, ends_ms: 60_000 }));
    assert_eq!(judge(one, &heard, (5000, 53_000)), Lease::Held(LeaseEnd { left_ms: 6000, ends_ms: 59_000 }));
}

#[test]
fn a_nation_counts_while_both_clocks_say_that_it_was_heard_lately() {
    let four = Terms { seconds: 10, nations: 4 };
    let at = (20_000, 90_000);
    // To the millisecond, by both.
    for (steady, wall, counts) in [
        (10_001, 80_001, 1),
        (10_000, 80_001, 0),
        (10_001, 80_000, 0),
        (10_000, 80_000, 0),
        (20_000, 70_000, 0),
        (5000, 90_000, 0),
        (20_000, 90_000, 1),
    ] {
        assert_eq!(
            judge(four, &[("alba", steady, wall)], at),
            Lease::Ended { heard: counts },
            "{steady} {wall}"
        );
    }
    let all = [("alba", 20_000, 90_000), ("borea", 19_000, 89_000), ("own", 20_000, 90_000)];
    assert_eq!(judge(four, &all, at), Lease::Ended { heard: 2 });
    // Of three, the one that was heard second last decides for two.
    let two = Terms { seconds: 10, nations: 2 };
    let three = [("alba", 12_000, 82_000), ("borea", 19_000, 89_000), ("cora", 11_000, 81_000)];
    assert_eq!(judge(two, &three, at), Lease::Held(LeaseEnd { left_ms: 2000, ends_ms: 92_000 }));
}

#[test]
fn the_age_is_told_in_whole_seconds_by_the_clock_that_says_more() {
    let moment = |(steady_ms, wall_ms)| Moment { steady_ms, wall_ms };
    let two = Terms { seconds: 10, nations: 2 };
    let age = |terms: Terms, heard: &[(&str, u64, u64)], now| {
        let heard =
            heard.iter().map(|(name, steady, wall)| (nation(name), moment((*steady, *wall)))).collect();
        terms.age(&nation("own"), &heard, moment(now))
    };
    let heard = [("alba", 9000, 50_000), ("cora", 4000, 45_000), ("own", 9999, 59_999)];
    for (now, seconds) in [
        ((4000, 45_000), 0),
        ((4999, 45_000), 0),
        ((5000, 45_000), 1),
        ((4000, 46_999), 1),
        ((11_999, 47_000), 7),
        // Before it: a clock that was set back makes nobody younger than now.
        ((3000, 10_000), 0),
        ((u64::MAX, 45_000), MAX_SECONDS),
    ] {
        assert_eq!(age(two, &heard, now), Some(seconds), "{now:?}");
    }
    assert_eq!(age(two, &heard[..1], (9000, 50_000)), Some(MAX_SECONDS));
    assert_eq!(age(Terms { nations: 0, ..two }, &heard, (9000, 51_000)), Some(1));
    assert_eq!(age(Terms { seconds: 0, ..two }, &heard, (9000, 51_000)), None);
}
