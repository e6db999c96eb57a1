//! The plan against simulated peers: hundreds of seeded runs, each of which must end with every chunk here.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use node::transfer::plan::{Action, Event, FileKey, Limits, Now, PeerKey, Plan, RequestId};
use node::wire::{Have, MAX_RANGE, MAX_RANGE_CHUNKS};

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

const LIMITS: Limits = Limits { max_window: 32 << 20, first_window: 4 << 20, stall: Duration::from_secs(5) };

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
                Action::AskHave { peer, file } => {
                    let sim = &self.peers[&peer];
                    assert!(!self.dropped.contains(&peer), "asked a peer that is gone");
                    let have = match sim.manner {
                        Manner::Boasts => Have::Everything,
                        _ => {
                            let bits = &sim.have[&file];
                            let mut bytes = vec![0u8; bits.len().div_ceil(8)];
                            for (i, _) in bits.iter().enumerate().filter(|(_, bit)| **bit) {
                                bytes[i / 8] |= 1 << (i % 8);
                            }
                            Have::Some(bytes)
                        }
                    };
                    vec![Event::Available { peer, file, have }]
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
                    assert!(queued <= LIMITS.max_window + MAX_RANGE, "{queued} bytes asked of one peer");
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
                let mut actions = plan.handle(Event::Chunk { request, index }, now);
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
        let actions = plan.handle(Event::File { file, lens: world.lens[&file].clone() }, Now::ZERO);
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
            let actions = plan.handle(Event::Joined { peer: joined, complete }, now);
            world.act(&mut plan, actions, now);
            joined += 1;
        }
        world.step(&mut plan, &mut random, now, step_ms, joined);
        steps += 1;
        now += Duration::from_millis(step_ms);
        if steps.is_multiple_of(100) {
            let actions = plan.handle(Event::Tick, now);
            world.act(&mut plan, actions, now);
        }
    }
    assert_eq!(world.opened, files as usize, "seed {seed}");
    assert!(!plan.is_stuck());
    let waste = (world.fetched - world.useful) as f64 / (world.useful.max(1)) as f64;
    (waste, now)
}

#[test]
fn every_seeded_run_ends_complete() {
    let (mut waste, mut runs) = (0.0, 0);
    for seed in 0..400 {
        let (wasted, _) = run(seed);
        waste += wasted.min(1.0);
        runs += 1;
    }
    let mean = waste / f64::from(runs);
    assert!(mean < 0.15, "{:.1}% of the bytes came twice", mean * 100.0);
}

fn simple(chunks: u32, len: u32, peers: &[bool]) -> (Plan, Vec<Action>) {
    let mut plan = Plan::new(LIMITS);
    let mut actions = plan.handle(Event::File { file: 0, lens: vec![len; chunks as usize] }, Now::ZERO);
    actions.extend(plan.handle(Event::Opened { file: 0, missing: (0..chunks).collect() }, Now::ZERO));
    for (key, complete) in peers.iter().enumerate() {
        let joined = Event::Joined { peer: key as PeerKey, complete: *complete };
        actions.extend(plan.handle(joined, Now::ZERO));
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
    let (_, actions) = simple(1000, 1 << 20, &[true, true]);
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
fn the_rarest_chunks_are_asked_for_first() {
    let (mut plan, _) = simple(64, 1 << 20, &[]);
    // Peer 0 and peer 1 have the first half; only peer 1 has the second.
    plan.handle(Event::Joined { peer: 0, complete: false }, Now::ZERO);
    let half = Have::Some(vec![0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    plan.handle(Event::Available { peer: 0, file: 0, have: half }, Now::ZERO);
    plan.handle(Event::Joined { peer: 1, complete: false }, Now::ZERO);
    let actions =
        plan.handle(Event::Available { peer: 1, file: 0, have: Have::Some(vec![0xff; 8]) }, Now::ZERO);
    let theirs: Vec<_> = fetches(&actions).into_iter().filter(|fetch| fetch.0 == 1).collect();
    assert!(!theirs.is_empty() && theirs.iter().all(|fetch| fetch.1 >= 32), "{theirs:?}");
}

#[test]
fn a_lost_peers_work_goes_to_another_and_a_drip_is_left() {
    let (mut plan, actions) = simple(8, 1 << 20, &[true]);
    let asked: u32 = fetches(&actions).iter().map(|fetch| fetch.2).sum();
    assert_eq!(asked, 4, "the first window is 4 MiB");
    plan.handle(Event::Lost { peer: 0 }, Now::from_secs(1));
    assert!(plan.is_stuck());
    let actions = plan.handle(Event::Joined { peer: 1, complete: true }, Now::from_secs(1));
    assert_eq!(fetches(&actions)[0].0, 1);
    plan.handle(Event::Bytes { peer: 1, bytes: 100 }, Now::from_secs(3));
    assert!(!plan.handle(Event::Tick, Now::from_secs(5)).contains(&Action::Leave { peer: 1 }));
    assert!(plan.handle(Event::Tick, Now::from_secs(6)).contains(&Action::Leave { peer: 1 }));
    assert!(plan.is_stuck());
}

#[test]
fn at_the_end_a_slow_peers_request_is_repeated_once() {
    let (mut plan, actions) = simple(4, 1 << 20, &[true]);
    let [Action::Open { .. }, Action::Fetch { request, .. }, ..] = actions[..] else { panic!("{actions:?}") };
    let actions = plan.handle(Event::Joined { peer: 1, complete: true }, Now::ZERO);
    let left = 4 - fetches(&actions).len();
    assert!(left > 0);
    let later = Now::from_secs(1);
    let repeated = fetches(&plan.handle(Event::Tick, later));
    assert_eq!(repeated.len(), 1, "{repeated:?}");
    assert_eq!(repeated[0].0, 1);
    assert!(fetches(&plan.handle(Event::Tick, later)).is_empty());
    // Both bring it: it counts once, and the file completes once.
    let mut complete = 0;
    for index in 0..4 {
        for request in [request, request + 1] {
            let actions = plan.handle(Event::Chunk { request, index }, later);
            complete += actions.iter().filter(|action| **action == Action::Complete { file: 0 }).count();
        }
    }
    assert!(complete <= 1);
}
