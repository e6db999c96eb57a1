//! The plan against simulated peers: hundreds of seeded runs, each of which must end with every chunk here.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use node::transfer::plan::{Action, Event, FileKey, Limits, Now, PeerKey, Plan, RequestId};
use node::wire::{Have, MAX_RANGE, MAX_RANGE_CHUNKS, News};

/// xorshift64*: a few lines, the same on every machine.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Honest,
    /// Brings next to nothing.
    Drip,
    /// Every so many chunks is wrong.
    Corrupt,
    /// Goes away after so many milliseconds.
    Leaves(u64),
    /// Says that it has what it has not.
    Boasts,
}

#[derive(Debug)]
struct SimPeer {
    manner: Manner,
    complete: bool,
    /// Bytes a millisecond.
    rate: u64,
    queue: Vec<(RequestId, FileKey, u32, u32)>,
    /// Chunks of the first request that are answered.
    answered: u32,
    credit: u64,
    have: BTreeMap<FileKey, Vec<bool>>,
}

struct World {
    lens: BTreeMap<FileKey, Vec<u32>>,
    here: BTreeMap<FileKey, Vec<bool>>,
    peers: BTreeMap<PeerKey, SimPeer>,
    dropped: Vec<PeerKey>,
    complete: Vec<FileKey>,
    fetched: u64,
    useful: u64,
    opened: usize,
}

const LIMITS: Limits =
    Limits { max_window: 32 << 20, first_window: 4 << 20, stall: Duration::from_secs(5), in_order: false };

impl World {
    fn act(&mut self, plan: &mut Plan, actions: Vec<Action>, now: Now) {
        let mut todo: VecDeque<Action> = actions.into();
        while let Some(action) = todo.pop_front() {
            let events = match action {
                Action::Open { file } => {
                    self.opened += 1;
                    let missing = |(i, here): (usize, &bool)| (!here).then_some(i as u32);
                    vec![Event::Opened {
                        file,
                        missing: self.here[&file].iter().enumerate().filter_map(missing).collect(),
                    }]
                }
                Action::Cancel { peer, request } => {
                    let sim = self.peers.get_mut(&peer).unwrap();
                    // What was begun is sent to its end.
                    let begun = sim.queue.first().filter(|_| sim.answered > 0).map(|(id, ..)| *id);
                    sim.queue.retain(|(id, ..)| *id != request || begun == Some(request));
                    vec![]
                }
                Action::Fetch { peer, request, file, first, count } => {
                    assert!(!self.dropped.contains(&peer), "asked a peer that is gone");
                    assert!((1..=MAX_RANGE_CHUNKS).contains(&count));
                    let bytes: u64 =
                        (first..first + count).map(|i| u64::from(self.lens[&file][i as usize])).sum();
                    assert!(bytes <= MAX_RANGE || count == 1, "a range of {bytes} bytes");
                    let sim = self.peers.get_mut(&peer).unwrap();
                    sim.queue.push((request, file, first, count));
                    let queued: u64 = sim
                        .queue
                        .iter()
                        .flat_map(|(_, f, first, count)| (*first..first + count).map(|i| (*f, i)))
                        .map(|(f, i)| u64::from(self.lens[&f][i as usize]))
                        .sum();
                    assert!(queued <= LIMITS.max_window + 2 * MAX_RANGE, "{queued} bytes asked of one peer");
                    vec![]
                }
                Action::Leave { peer } => {
                    self.dropped.push(peer);
                    vec![]
                }
                Action::Complete { file } => {
                    assert!(self.here[&file].iter().all(|here| *here), "file {file} is not complete");
                    assert!(!self.complete.contains(&file), "file {file} completed twice");
                    self.complete.push(file);
                    vec![]
                }
            };
            for event in events {
                todo.extend(plan.handle(event, now));
            }
        }
    }

    /// What a peer tells when it is asked what it has.
    fn news(&self, key: PeerKey) -> Vec<News> {
        let sim = &self.peers[&key];
        if sim.complete || sim.manner == Manner::Boasts {
            return vec![News { file: None, replaces: false, have: Have::Everything }];
        }
        let bits = |bits: &Vec<bool>| {
            let mut bytes = vec![0u8; bits.len().div_ceil(8)];
            for (i, _) in bits.iter().enumerate().filter(|(_, bit)| **bit) {
                bytes[i / 8] |= 1 << (i % 8);
            }
            Have::Some(bytes)
        };
        sim.have
            .iter()
            .map(|(file, have)| News { file: Some(*file), replaces: true, have: bits(have) })
            .collect()
    }

    /// One millisecond-step of every peer.
    fn step(&mut self, plan: &mut Plan, random: &mut Random, now: Now, step_ms: u64, joined: u32) {
        let keys: Vec<PeerKey> =
            self.peers.keys().copied().filter(|key| *key < joined && !self.dropped.contains(key)).collect();
        for key in keys {
            let peer = self.peers.get_mut(&key).unwrap();
            if let Manner::Leaves(at) = peer.manner
                && now.as_millis() as u64 >= at
            {
                self.dropped.push(key);
                let actions = plan.handle(Event::Lost { peer: key }, now);
                self.act(plan, actions, now);
                continue;
            }
            if peer.queue.is_empty() {
                peer.credit = 0;
                continue;
            }
            let bytes = if peer.manner == Manner::Drip { 1 } else { peer.rate } * step_ms;
            peer.credit += bytes;
            let actions = plan.handle(Event::Bytes { peer: key, bytes }, now);
            self.act(plan, actions, now);
            while !self.dropped.contains(&key) {
                let peer = self.peers.get_mut(&key).unwrap();
                let Some(&(request, file, first, count)) = peer.queue.first() else { break };
                let index = first + peer.answered;
                let boasted = peer.manner == Manner::Boasts && !peer.have[&file][index as usize];
                if boasted && peer.answered == 0 {
                    peer.queue.remove(0);
                    let actions = plan.handle(Event::Refused { request }, now);
                    self.act(plan, actions, now);
                    // One refusal a step: it takes a round trip.
                    break;
                }
                let len = u64::from(self.lens[&file][index as usize]);
                if peer.credit < len {
                    break;
                }
                peer.credit -= len;
                self.fetched += len;
                let wrong = peer.manner == Manner::Corrupt && random.chance(5);
                if wrong || boasted {
                    self.dropped.push(key);
                    let actions = plan.handle(Event::Lost { peer: key }, now);
                    self.act(plan, actions, now);
                    break;
                }
                let state = &mut self.here.get_mut(&file).unwrap()[index as usize];
                if !*state {
                    *state = true;
                    self.useful += len;
                }
                peer.answered += 1;
                let last = peer.answered == count;
                if last {
                    peer.queue.remove(0);
                    peer.answered = 0;
                }
                let mut actions = plan.handle(Event::Chunk { file, index }, now);
                if last {
                    actions.extend(plan.handle(Event::Finished { request }, now));
                }
                self.act(plan, actions, now);
            }
        }
    }
}

fn run(seed: u64) -> (f64, Duration) {
    let mut random = Random::new(seed);
    let mut plan = Plan::new(LIMITS);
    let files = 1 + random.below(12) as u32;
    let mut world = World {
        lens: BTreeMap::new(),
        here: BTreeMap::new(),
        peers: BTreeMap::new(),
        dropped: Vec::new(),
        complete: Vec::new(),
        fetched: 0,
        useful: 0,
        opened: 0,
    };
    for file in 0..files {
        let chunks = match random.below(4) {
            0 => random.below(3),
            1 => random.below(40),
            _ => random.below(400),
        };
        let longest = if random.chance(50) { 1 << 20 } else { 64 << 10 };
        let lens: Vec<u32> = (0..chunks).map(|_| 1 + random.below(longest) as u32).collect();
        let resumed = random.below(100);
        world.here.insert(file, lens.iter().map(|_| random.chance(resumed)).collect());
        world.lens.insert(file, lens);
    }
    let peers = 1 + random.below(6) as u32;
    // The last peer is honest and complete, so that every run can end.
    for key in 0..peers {
        let last = key + 1 == peers;
        let manner = match random.below(10) {
            _ if last => Manner::Honest,
            0 => Manner::Drip,
            1 => Manner::Corrupt,
            2 => Manner::Leaves(random.below(20_000)),
            3 => Manner::Boasts,
            _ => Manner::Honest,
        };
        let share = random.below(101);
        let have = |random: &mut Random, lens: &Vec<u32>| lens.iter().map(|_| random.chance(share)).collect();
        let have = world.lens.iter().map(|(file, lens)| (*file, have(&mut random, lens))).collect();
        let complete = last || random.chance(40);
        let fastest = if random.chance(20) { 500 } else { 100_000 };
        let rate = 100 + random.below(fastest);
        world.peers.insert(
            key,
            SimPeer {
                manner,
                complete: complete && manner != Manner::Boasts,
                rate,
                queue: vec![],
                answered: 0,
                credit: 0,
                have,
            },
        );
    }
    let order: Vec<FileKey> = (0..files).collect();
    for file in order {
        let actions = plan
            .handle(Event::File { file, rank: u64::from(file), lens: world.lens[&file].clone() }, Now::ZERO);
        world.act(&mut plan, actions, Now::ZERO);
    }
    let mut joined = 0;
    let step_ms = 5;
    let mut now = Now::ZERO;
    let mut steps = 0u64;
    while world.complete.len() < files as usize {
        assert!(steps < 2_000_000, "seed {seed}: no end after {now:?}");
        if joined < peers && (steps >= u64::from(joined) * 50) {
            let complete = world.peers[&joined].complete;
            let actions = plan.handle(Event::Joined { peer: joined, seed: complete }, now);
            world.act(&mut plan, actions, now);
            for news in world.news(joined) {
                let actions = plan.handle(Event::Available { peer: joined, news }, now);
                world.act(&mut plan, actions, now);
            }
            joined += 1;
        }
        world.step(&mut plan, &mut random, now, step_ms, joined);
        steps += 1;
        now += Duration::from_millis(step_ms);
        if steps.is_multiple_of(50) {
            let actions = plan.handle(Event::Tick, now);
            world.act(&mut plan, actions, now);
        }
    }
    assert_eq!(world.opened, files as usize, "seed {seed}");
    assert!(!plan.is_stuck());
    let waste = (world.fetched - world.useful) as f64 / (world.useful.max(1)) as f64;
    (waste, now)
}

/// `STEELYARD_SEED=17 cargo test --release --workspace --test plan` plays one run again.
#[test]
fn every_seeded_run_ends_complete() {
    let seeds = match std::env::var("STEELYARD_SEED") {
        Ok(seed) => seed.parse().unwrap()..=seed.parse().unwrap(),
        Err(_) => 0..=999,
    };
    let (mut waste, mut runs) = (0.0, 0);
    for seed in seeds {
        let (wasted, _) = run(seed);
        waste += wasted.min(1.0);
        runs += 1;
    }
    let mean = waste / f64::from(runs);
    assert!(mean < 0.15, "{:.1}% of the bytes came twice", mean * 100.0);
}

fn everything() -> News {
    News { file: None, replaces: false, have: Have::Everything }
}

fn some(bits: Vec<u8>) -> News {
    News { file: Some(0), replaces: true, have: Have::Some(bits) }
}

fn join(plan: &mut Plan, peer: PeerKey, seed: bool, news: News, now: Now) -> Vec<Action> {
    let mut actions = plan.handle(Event::Joined { peer, seed }, now);
    actions.extend(plan.handle(Event::Available { peer, news }, now));
    actions
}

fn simple(chunks: u32, len: u32, seeds: u32) -> (Plan, Vec<Action>) {
    let mut plan = Plan::new(LIMITS);
    let file = Event::File { file: 0, rank: 0, lens: vec![len; chunks as usize] };
    let mut actions = plan.handle(file, Now::ZERO);
    actions.extend(plan.handle(Event::Opened { file: 0, missing: (0..chunks).collect() }, Now::ZERO));
    for peer in 0..seeds {
        actions.extend(join(&mut plan, peer, true, everything(), Now::ZERO));
    }
    (plan, actions)
}

fn fetches(actions: &[Action]) -> Vec<(PeerKey, u32, u32)> {
    let fetch = |action: &Action| match action {
        Action::Fetch { peer, first, count, .. } => Some((*peer, *first, *count)),
        _ => None,
    };
    actions.iter().filter_map(fetch).collect()
}

#[test]
fn two_peers_begin_far_apart_and_are_asked_for_different_chunks() {
    let (_, actions) = simple(1000, 1 << 20, 2);
    let fetches = fetches(&actions);
    let first = |peer| fetches.iter().find(|fetch| fetch.0 == peer).unwrap().1;
    assert_eq!(first(0), 0);
    assert!(first(1) >= 450, "{}", first(1));
    let mut all: Vec<u32> = fetches.iter().flat_map(|(_, first, count)| *first..first + count).collect();
    let asked = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), asked);
}

#[test]
fn nothing_is_asked_of_a_peer_that_told_of_nothing() {
    let (mut plan, _) = simple(64, 1 << 20, 0);
    assert!(fetches(&plan.handle(Event::Joined { peer: 0, seed: true }, Now::ZERO)).is_empty());
    let run = News { file: Some(0), replaces: false, have: Have::Runs(vec![(10, 1), (40, 2)]) };
    let asked = fetches(&plan.handle(Event::Available { peer: 0, news: run }, Now::ZERO));
    assert_eq!(asked.iter().map(|fetch| fetch.2).sum::<u32>(), 3, "{asked:?}");
    assert!(
        asked.iter().all(|(_, first, count)| (10..11).contains(first) || *first >= 40 && first + count <= 42)
    );
}

#[test]
fn the_rarest_chunks_are_asked_for_first() {
    let (mut plan, _) = simple(64, 1 << 20, 0);
    // Peer 0 and peer 1 have the first half; only peer 1 has the second.
    join(&mut plan, 0, false, some(vec![0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]), Now::ZERO);
    let actions = join(&mut plan, 1, false, some(vec![0xff; 8]), Now::ZERO);
    let theirs: Vec<_> = fetches(&actions).into_iter().filter(|fetch| fetch.0 == 1).collect();
    assert!(!theirs.is_empty() && theirs.iter().all(|fetch| fetch.1 >= 32), "{theirs:?}");
}

#[test]
fn a_seed_is_asked_for_what_nobody_else_has() {
    let (mut plan, _) = simple(64, 1 << 20, 0);
    join(&mut plan, 0, false, some(vec![0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]), Now::ZERO);
    // The other one's window is full: then the seed helps out. Here it has room for nothing more.
    let actions = join(&mut plan, 1, true, everything(), Now::ZERO);
    let of_seed: Vec<_> = fetches(&actions).into_iter().filter(|fetch| fetch.0 == 1).collect();
    assert!(!of_seed.is_empty() && of_seed.iter().all(|fetch| fetch.1 >= 32 || fetch.1 == 0), "{of_seed:?}");
}

#[test]
fn in_order_means_from_the_front() {
    let mut plan = Plan::new(Limits { in_order: true, ..LIMITS });
    plan.handle(Event::File { file: 0, rank: 0, lens: vec![1 << 20; 64] }, Now::ZERO);
    plan.handle(Event::Opened { file: 0, missing: (0..64).collect() }, Now::ZERO);
    let mut actions = join(&mut plan, 0, true, everything(), Now::ZERO);
    actions.extend(join(&mut plan, 1, true, everything(), Now::ZERO));
    let asked: Vec<u32> = fetches(&actions).iter().map(|fetch| fetch.1).collect();
    assert_eq!(asked, (0..8).collect::<Vec<_>>());
}

#[test]
fn a_lost_peers_work_goes_to_another_and_a_drip_is_left() {
    let (mut plan, actions) = simple(8, 1 << 20, 1);
    let asked: u32 = fetches(&actions).iter().map(|fetch| fetch.2).sum();
    assert_eq!(asked, 4, "the first window is 4 MiB");
    plan.handle(Event::Lost { peer: 0 }, Now::from_secs(1));
    assert!(plan.is_stuck());
    let actions = join(&mut plan, 1, true, everything(), Now::from_secs(1));
    assert_eq!(fetches(&actions)[0].0, 1);
    plan.handle(Event::Bytes { peer: 1, bytes: 100 }, Now::from_secs(3));
    assert!(!plan.handle(Event::Tick, Now::from_secs(5)).contains(&Action::Leave { peer: 1 }));
    assert!(plan.handle(Event::Tick, Now::from_secs(6)).contains(&Action::Leave { peer: 1 }));
    assert!(plan.is_stuck());
}

#[test]
fn a_silent_peer_is_choked_and_its_work_given_to_another() {
    let (mut plan, actions) = simple(4, 1 << 20, 1);
    let asked = fetches(&actions).len();
    assert_eq!(plan.standing(0), Some((true, false)));
    join(&mut plan, 1, true, everything(), Now::from_secs(1));
    plan.handle(Event::Bytes { peer: 1, bytes: 1 }, Now::from_secs(2));
    let actions = plan.handle(Event::Tick, Now::from_secs(3));
    let cancelled = actions.iter().filter(|action| matches!(action, Action::Cancel { peer: 0, .. })).count();
    assert_eq!(cancelled, asked, "{actions:?}");
    assert_eq!(plan.standing(0).map(|(_, choked)| choked), Some(true));
    let again = fetches(&actions);
    assert!(again.iter().any(|fetch| fetch.0 == 1), "{again:?}");
    // A sign of life, and it is asked like the others again.
    plan.handle(Event::Bytes { peer: 0, bytes: 1000 }, Now::from_secs(4));
    assert_eq!(plan.standing(0).map(|(_, choked)| choked), Some(false));
}

#[test]
fn at_the_end_a_slow_peers_request_is_repeated_once_and_what_is_needless_taken_back() {
    let (mut plan, actions) = simple(4, 1 << 20, 1);
    assert_eq!(fetches(&actions).len(), 4);
    // 1 MiB a second: the four chunks should take four seconds, and others wait twice that before they help out.
    let mut now = Now::ZERO;
    for second in 1..=20 {
        now = Now::from_secs(second);
        plan.handle(Event::Bytes { peer: 0, bytes: 1 << 19 }, now);
        plan.handle(Event::Tick, now);
    }
    let actions = join(&mut plan, 1, true, everything(), now);
    let repeated = fetches(&actions);
    assert_eq!(repeated.len(), 1, "{repeated:?}");
    assert_eq!(repeated[0].0, 1);
    assert!(fetches(&plan.handle(Event::Tick, now)).is_empty());
    let actions = plan.handle(Event::Chunk { file: 0, index: repeated[0].1 }, now);
    let taken_back =
        |peer| actions.iter().any(|action| matches!(action, Action::Cancel { peer: p, .. } if *p == peer));
    assert!(taken_back(0) && taken_back(1), "{actions:?}");
    let mut complete = 0;
    for index in 0..4 {
        let actions = plan.handle(Event::Chunk { file: 0, index }, now);
        complete += actions.iter().filter(|action| **action == Action::Complete { file: 0 }).count();
    }
    assert_eq!(complete, 1);
}

#[test]
fn what_the_disk_lost_is_fetched_again() {
    let (mut plan, _) = simple(4, 1 << 20, 1);
    for index in 0..4 {
        plan.handle(Event::Chunk { file: 0, index }, Now::ZERO);
        plan.handle(Event::Finished { request: u64::from(index) }, Now::ZERO);
    }
    assert!(plan.complete().contains(&0));
    let lens = vec![1 << 20; 4];
    let actions = plan.handle(Event::Damaged { file: 0, lens, missing: vec![2] }, Now::ZERO);
    assert_eq!(fetches(&actions), [(0, 2, 1)]);
    assert!(!plan.complete().contains(&0));
    let actions = plan.handle(Event::Chunk { file: 0, index: 2 }, Now::ZERO);
    assert!(actions.contains(&Action::Complete { file: 0 }));
}
