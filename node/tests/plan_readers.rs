//! The plan where somebody reads what comes: what is read goes first, in its order, and nothing else is lost by it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use node::transfer::plan::{Action, Event, FileKey, Limits, Now, PeerKey, Plan, RequestId};
use node::wire::{Have, News};

const MIB: u32 = 1 << 20;
const LIMITS: Limits =
    Limits { max_window: 32 << 20, first_window: 4 << 20, stall: Duration::from_secs(5), in_order: false };

fn everything() -> News {
    News { file: None, replaces: false, have: Have::Everything }
}

fn fetches(actions: &[Action]) -> Vec<(PeerKey, FileKey, u32, u32)> {
    let fetch = |action: &Action| match action {
        Action::Fetch { peer, file, first, count, .. } => Some((*peer, *file, *first, *count)),
        _ => None,
    };
    actions.iter().filter_map(fetch).collect()
}

fn seeds(plan: &mut Plan, peers: u32, now: Now) -> Vec<Action> {
    let mut actions = Vec::new();
    for peer in 0..peers {
        actions.extend(plan.handle(Event::Joined { peer, seed: true }, now));
        actions.extend(plan.handle(Event::Available { peer, news: everything() }, now));
    }
    actions
}

/// One file of chunks of 1 MiB that is open, and what a reader wants of it.
fn reading(chunks: u32, wants: &[(u64, u32, u32)]) -> Plan {
    let mut plan = Plan::new(LIMITS);
    plan.handle(Event::File { file: 0, rank: 5, lens: vec![MIB; chunks as usize] }, Now::ZERO);
    plan.handle(Event::Opened { file: 0, missing: (0..chunks).collect() }, Now::ZERO);
    for &(reader, first, count) in wants {
        plan.handle(Event::Wanted { reader, file: 0, first, count }, Now::ZERO);
    }
    plan
}

#[test]
fn what_is_read_is_asked_for_first_and_in_its_order() {
    let mut plan = reading(1000, &[(1, 700, 6)]);
    let asked: Vec<u32> = fetches(&seeds(&mut plan, 2, Now::ZERO))
        .into_iter()
        .flat_map(|(_, _, first, n)| first..first + n)
        .collect();
    assert_eq!(asked[..6], [700, 701, 702, 703, 704, 705], "{asked:?}");
    assert!(asked[6..].iter().all(|chunk| !(700..706).contains(chunk)) && asked.len() == 8, "{asked:?}");
}

#[test]
fn readers_take_turns() {
    let mut plan = reading(1000, &[(1, 0, 500), (2, 500, 500)]);
    let asked = fetches(&seeds(&mut plan, 1, Now::ZERO));
    let firsts: Vec<u32> = asked.iter().map(|(_, _, first, _)| *first).collect();
    assert_eq!(firsts, [0, 500, 1, 501]);
}

#[test]
fn a_file_that_is_read_is_opened_before_all_others() {
    let mut plan = Plan::new(LIMITS);
    let file = |file| Event::File { file, rank: u64::from(file), lens: vec![MIB; 8] };
    let opened: Vec<Action> = (0..8).flat_map(|key| plan.handle(file(key), Now::ZERO)).collect();
    assert_eq!(opened.len(), 4, "{opened:?}");
    // Known before and after somebody reads it.
    assert_eq!(
        plan.handle(Event::Wanted { reader: 1, file: 6, first: 0, count: 1 }, Now::ZERO),
        [Action::Open { file: 6 }]
    );
    plan.handle(Event::Wanted { reader: 2, file: 9, first: 0, count: 1 }, Now::ZERO);
    assert_eq!(plan.handle(file(9), Now::ZERO), [Action::Open { file: 9 }]);
}

#[test]
fn who_leaves_is_forgotten_and_who_asks_anew_is_heeded() {
    let mut plan = reading(1000, &[(1, 700, 6), (2, 10, 2)]);
    plan.handle(Event::Unwanted { reader: 1 }, Now::ZERO);
    plan.handle(Event::Wanted { reader: 2, file: 0, first: 300, count: 2 }, Now::ZERO);
    let asked = fetches(&seeds(&mut plan, 1, Now::ZERO));
    assert_eq!((asked[0].2, asked[1].2), (300, 301), "{asked:?}");
    assert!(asked.iter().all(|(_, _, first, _)| !(700..706).contains(first)), "{asked:?}");
    // Chunks and files that there are not harm nobody.
    plan.handle(Event::Wanted { reader: 3, file: 0, first: 5000, count: u32::MAX }, Now::ZERO);
    plan.handle(Event::Wanted { reader: 4, file: 77, first: 0, count: 1 }, Now::ZERO);
    plan.handle(Event::Tick, Now::from_secs(1));
}

#[test]
fn a_reader_does_not_wait_long_for_one_slow_peer() {
    let mut plan = reading(64, &[(1, 0, 64)]);
    let asked = fetches(&seeds(&mut plan, 2, Now::ZERO));
    let slow = asked.iter().find(|(_, _, first, _)| *first == 0).unwrap().0;
    let fast = 1 - slow;
    // The slow one drips, so that it is not silent; the other brings all that it was asked for.
    let mut helped = Vec::new();
    for tick in 1..=16 {
        let now = Duration::from_millis(250 * tick);
        plan.handle(Event::Bytes { peer: slow, bytes: 4000 }, now);
        plan.handle(Event::Bytes { peer: fast, bytes: 1 << 20 }, now);
        helped = fetches(&plan.handle(Event::Tick, now));
        helped.retain(|(peer, _, first, _)| (*peer, *first) == (fast, 0));
        if !helped.is_empty() {
            break;
        }
    }
    assert_eq!(helped.len(), 1, "the other peer is asked for what the reader waits for");
    let taken = plan.handle(Event::Chunk { file: 0, index: 0 }, Duration::from_secs(4));
    assert!(
        taken.iter().any(|action| matches!(action, Action::Cancel { peer, .. } if *peer == slow)),
        "{taken:?}"
    );
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }
}

type Queue = VecDeque<(RequestId, FileKey, u32, u32)>;

/// Swarms of honest peers with readers who come, read in order and leave: every run ends complete, and little is fetched
/// twice.
#[test]
fn every_seeded_run_with_readers_ends_complete() {
    let (mut useful, mut fetched) = (0, 0);
    for seed in 1..=300u64 {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut plan = Plan::new(LIMITS);
        let files: Vec<u32> = (0..1 + random.below(8)).map(|_| 1 + random.below(60) as u32).collect();
        let peers = 1 + random.below(4) as u32;
        let mut queues: BTreeMap<PeerKey, Queue> = (0..peers).map(|peer| (peer, Queue::new())).collect();
        let mut came: BTreeMap<(FileKey, u32), u32> = BTreeMap::new();
        let mut complete = 0;
        let mut todo: VecDeque<Event> = VecDeque::new();
        for (file, chunks) in (0..).zip(&files) {
            todo.push_back(Event::File {
                file,
                rank: random.below(9),
                lens: vec![MIB / 2; *chunks as usize],
            });
        }
        for peer in 0..peers {
            todo.push_back(Event::Joined { peer, seed: random.below(2) == 0 });
            todo.push_back(Event::Available { peer, news: everything() });
        }
        let mut now = Now::ZERO;
        let mut steps = 0;
        while complete < files.len() {
            steps += 1;
            assert!(steps < 200_000, "seed {seed}: no end");
            match random.below(40) {
                0 => {
                    let file = random.below(files.len() as u64 + 1) as u32;
                    let (first, count) = (random.below(60) as u32, 1 + random.below(60) as u32);
                    todo.push_back(Event::Wanted { reader: random.below(12), file, first, count });
                }
                1 => todo.push_back(Event::Unwanted { reader: random.below(12) }),
                2..10 => {
                    now += Duration::from_millis(250);
                    todo.push_back(Event::Tick);
                }
                _ => {
                    let peer = random.below(peers.into()) as u32;
                    if let Some((request, file, first, count)) = queues.get_mut(&peer).unwrap().pop_front() {
                        for index in first..first + count {
                            *came.entry((file, index)).or_default() += 1;
                            todo.push_back(Event::Bytes { peer, bytes: u64::from(MIB / 2) });
                            todo.push_back(Event::Chunk { file, index });
                        }
                        todo.push_back(Event::Finished { request });
                    }
                }
            }
            while let Some(event) = todo.pop_front() {
                for action in plan.handle(event, now) {
                    match action {
                        Action::Open { file } => {
                            let missing = (0..files[file as usize]).collect();
                            todo.push_back(Event::Opened { file, missing });
                        }
                        Action::Fetch { peer, request, file, first, count } => {
                            assert!(first + count <= files[file as usize], "seed {seed}");
                            queues.get_mut(&peer).unwrap().push_back((request, file, first, count));
                        }
                        Action::Cancel { peer, request } => {
                            queues.get_mut(&peer).unwrap().retain(|(id, ..)| *id != request);
                        }
                        Action::Complete { .. } => complete += 1,
                        Action::Leave { peer } => {
                            queues.get_mut(&peer).unwrap().clear();
                            todo.push_back(Event::Joined { peer, seed: true });
                            todo.push_back(Event::Available { peer, news: everything() });
                        }
                    }
                }
            }
        }
        let all: u32 = files.iter().sum();
        assert_eq!(came.len() as u32, all, "seed {seed}");
        useful += all;
        fetched += came.values().sum::<u32>();
    }
    let waste = f64::from(fetched - useful) / f64::from(useful);
    assert!(waste < 0.25, "{:.1}% of the chunks came twice", waste * 100.0);
}
