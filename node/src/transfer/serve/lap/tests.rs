//! How a seed hands out a release.

use super::*;

const MIB: u64 = 1 << 20;

fn lap() -> Lap<u8> {
    Lap::new(vec![FileShape { chunks: 3, mean: 1000 }, FileShape { chunks: 64, mean: MIB }], 0)
}

#[test]
fn a_seed_begins_at_its_own_place_but_for_the_heads_and_goes_once_around() {
    for start in [0, 1 << 62, 1 << 63, u64::MAX] {
        let files = vec![FileShape { chunks: 3, mean: 1000 }, FileShape { chunks: 64, mean: MIB }];
        let mut lap: Lap<u8> = Lap::new(files, start);
        let mut spans = Vec::new();
        while let Some(span) = lap.next_span() {
            lap.set(span, true);
            spans.push(span);
        }
        let heads = [Span { file: 0, first: 0, count: 3 }, Span { file: 1, first: 0, count: 1 }];
        assert_eq!(spans[..2], heads);
        assert_eq!(spans.iter().map(|span| span.count).sum::<u32>(), 67, "{start}");
        let begins = (start as f64 / u64::MAX as f64 * 67.0) as u32;
        let expected = begins.saturating_sub(3).clamp(1, 63);
        assert!(spans[2].first.abs_diff(expected) <= 1, "{start}: {spans:?}");
    }
}

/// Chunks that the news tell of, and whether they tell everything.
fn told(news: &[News]) -> (Vec<(u32, u32)>, bool) {
    let mut chunks = Vec::new();
    for (file, (first, count)) in news.iter().flat_map(|news| match &news.have {
        Have::Runs(runs) => runs.iter().map(|run| (news.file.unwrap_or(99), *run)).collect(),
        _ => Vec::new(),
    }) {
        chunks.extend((first..first + count).map(|chunk| (file, chunk)));
    }
    (chunks, news.iter().any(|news| news.have == Have::Everything))
}

#[test]
fn one_peer_is_told_everything() {
    let mut lap = lap();
    lap.join(1, Now::ZERO);
    assert_eq!(told(&lap.news(&1)), (vec![], true));
    assert!(lap.news(&1).is_empty());
}

#[test]
fn each_chunk_is_given_once_and_then_everybody_is_told_everything() {
    let mut lap = lap();
    let mut seen = Vec::new();
    let mut now = Now::ZERO;
    for key in 0..3 {
        lap.join(key, now);
    }
    for _ in 0..200 {
        now += Duration::from_millis(100);
        for key in 0..3u8 {
            let (chunks, _) = told(&lap.news(&key));
            for (file, first) in chunks {
                seen.push((file, first));
                lap.served(key, Span { file, first, count: 1 }, MIB, now);
            }
        }
        lap.tick(now);
        if lap.is_over() {
            break;
        }
    }
    assert!(lap.is_over());
    seen.sort_unstable();
    let all: Vec<(u32, u32)> = (0..3).map(|i| (0, i)).chain((0..64).map(|i| (1, i))).collect();
    assert_eq!(seen, all);
    for key in 0..3 {
        assert!(told(&lap.news(&key)).1, "peer {key} was not told everything at the end");
    }
}

#[test]
fn who_was_alone_goes_on_with_grants_and_what_it_was_sent_is_not_granted_again() {
    let mut lap = lap();
    lap.join(1, Now::ZERO);
    lap.news(&1);
    lap.served(1, Span { file: 1, first: 0, count: 32 }, 32 * MIB, Now::ZERO);
    lap.join(2, Now::ZERO);
    let first = lap.news(&1);
    assert!(first.first().is_some_and(|news| news.replaces && news.have == Have::Nothing), "{first:?}");
    let granted = told(&first).0.into_iter().chain(told(&lap.news(&2)).0);
    assert!(granted.clone().count() > 0);
    assert!(granted.into_iter().all(|(file, chunk)| file == 0 || chunk >= 32));
}

#[test]
fn grants_of_one_who_leaves_go_to_another() {
    let mut lap = lap();
    for key in 0..3 {
        lap.join(key, Now::ZERO);
    }
    let lost = told(&lap.news(&2)).0;
    assert!(!lost.is_empty());
    lap.leave(2, Now::ZERO);
    let mut found = Vec::new();
    for step in 1..60u64 {
        let now = Duration::from_millis(100 * step);
        for key in 0..2u8 {
            for (file, first) in told(&lap.news(&key)).0 {
                found.push((file, first));
                lap.served(key, Span { file, first, count: 1 }, MIB, now);
            }
        }
        lap.tick(now);
    }
    assert!(lost.iter().all(|chunk| found.contains(chunk)));
}

#[test]
fn one_who_takes_nothing_is_told_everything_and_holds_nothing_up() {
    let mut lap = lap();
    lap.join(1, Now::ZERO);
    lap.join(2, Now::ZERO);
    lap.news(&1);
    lap.news(&2);
    lap.tick(UNUSED);
    assert!(told(&lap.news(&1)).1 && told(&lap.news(&2)).1);
}

#[test]
fn closed_books_tell_everything_at_once() {
    let mut lap = Lap::closed();
    for key in 0..4 {
        lap.join(key, Now::ZERO);
        assert!(told(&lap.news(&key)).1);
    }
}
