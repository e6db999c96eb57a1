//! Whole swarms, simulated: seeds that hand out a release, peers that fetch it from them and from each other, an uplink for
//! each. The decisions are the real ones ([`Plan`] and [`Lap`]); only the wires are made up. Every run is made of its
//! seed alone: `STEELYARD_SEED=17` plays one again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::plan::{Action, Event, Limits, Now, PeerKey, Plan, RequestId};
use super::serve::lap::{FileShape, Lap, Span};
use crate::wire::{Have, News};

const CHUNK: u64 = 1 << 20;
const STEP: Duration = Duration::from_millis(10);
/// How long news take: what the server collects, and the way.
const NEWS_DELAY: Duration = Duration::from_millis(60);
/// Bytes of one peer's answer before the next peer's turn.
const TURN: u64 = 64 * 1024;
const LIMITS: Limits =
    Limits { max_window: 32 << 20, first_window: 4 << 20, stall: Duration::from_secs(20), in_order: false };
/// Longest run: an hour of simulated time.
const LIMIT: Duration = Duration::from_secs(3600);

/// xorshift64*: a few lines, the same on every machine.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What a peer is asked for by another.
struct Asked {
    request: RequestId,
    first: u32,
    count: u32,
    /// Bytes that went already.
    sent: u64,
}

struct Node {
    plan: Plan,
    /// Bytes a second.
    uplink: u64,
    begins: Now,
    leaves: Option<Now>,
    /// Every so many chunks that it sends are wrong.
    lies: bool,
    here: BTreeSet<u32>,
    /// What it is asked for, by whom; and whose turn it is.
    queues: BTreeMap<usize, VecDeque<Asked>>,
    turn: VecDeque<usize>,
    credit: u64,
    sent: u64,
    received: u64,
    finished: Option<Now>,
    joined: BTreeSet<usize>,
    banned: BTreeSet<usize>,
    done: bool,
}

struct Swarm {
    nodes: Vec<Node>,
    /// Of each node that holds the release from the start; these come first.
    laps: Vec<Lap<usize>>,
    chunks: u32,
    now: Now,
    /// When, to whom, from whom, what.
    news: VecDeque<(Now, usize, usize, News)>,
    random: Random,
}

impl Swarm {
    /// With as many seeds as there are numbers for their places.
    fn new(seed: u64, chunks: u32, uplinks: &[u64], places: &[u64]) -> Self {
        let node = |(index, uplink): (usize, &u64)| {
            let mut plan = Plan::new(LIMITS);
            plan.handle(
                Event::File { file: 0, rank: 0, lens: vec![CHUNK as u32; chunks as usize] },
                Now::ZERO,
            );
            let whole = index < places.len();
            let missing = if whole { vec![] } else { (0..chunks).collect() };
            plan.handle(Event::Opened { file: 0, missing }, Now::ZERO);
            Node {
                plan,
                uplink: *uplink,
                begins: Now::ZERO,
                leaves: None,
                lies: false,
                here: if whole { (0..chunks).collect() } else { BTreeSet::new() },
                queues: BTreeMap::new(),
                turn: VecDeque::new(),
                credit: 0,
                sent: 0,
                received: 0,
                finished: whole.then_some(Now::ZERO),
                joined: BTreeSet::new(),
                banned: BTreeSet::new(),
                done: false,
            }
        };
        Self {
            nodes: uplinks.iter().enumerate().map(node).collect(),
            laps: places
                .iter()
                .map(|place| Lap::new(vec![FileShape { chunks, mean: CHUNK }], *place))
                .collect(),
            chunks,
            now: Now::ZERO,
            news: VecDeque::new(),
            random: Random::new(seed),
        }
    }

    fn is_up(&self, index: usize) -> bool {
        let node = &self.nodes[index];
        node.begins <= self.now && node.leaves.is_none_or(|at| self.now < at)
    }

    fn tell(&mut self, to: usize, event: Event) {
        if self.nodes[to].finished.is_some() {
            return;
        }
        let now = self.now;
        let actions = self.nodes[to].plan.handle(event, now);
        self.act(to, actions);
    }

    fn act(&mut self, who: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Fetch { peer, request, first, count, .. } => {
                    let peer = peer as usize;
                    assert!(
                        self.is_up(peer) && !self.nodes[who].banned.contains(&peer),
                        "asked a peer that is gone"
                    );
                    if let Some(lap) = self.laps.get_mut(peer) {
                        let span = Span { file: 0, first, count };
                        lap.served(who, span, CHUNK * u64::from(count), self.now);
                    }
                    let server = &mut self.nodes[peer];
                    server.queues.entry(who).or_default().push_back(Asked { request, first, count, sent: 0 });
                    if !server.turn.contains(&who) {
                        server.turn.push_back(who);
                    }
                }
                Action::Cancel { peer, request } => {
                    if let Some(queue) = self.nodes[peer as usize].queues.get_mut(&who) {
                        queue.retain(|asked| asked.request != request || asked.sent > 0);
                    }
                }
                Action::Leave { peer } => self.part(who, peer as usize),
                Action::Complete { .. } => {
                    assert_eq!(self.nodes[who].here.len(), self.chunks as usize);
                    self.nodes[who].finished = Some(self.now);
                }
                Action::Open { .. } => {}
            }
        }
    }

    /// Ends what `who` asks of `peer`.
    fn part(&mut self, who: usize, peer: usize) {
        self.nodes[who].joined.remove(&peer);
        self.nodes[peer].queues.remove(&who);
        if let Some(lap) = self.laps.get_mut(peer) {
            lap.leave(who, self.now);
        }
    }

    fn meet(&mut self) {
        for who in 0..self.nodes.len() {
            for peer in 0..self.nodes.len() {
                let meets = who != peer && self.is_up(who) && self.is_up(peer);
                let node = &self.nodes[who];
                if !meets
                    || node.joined.contains(&peer)
                    || node.banned.contains(&peer)
                    || node.finished.is_some()
                {
                    continue;
                }
                self.nodes[who].joined.insert(peer);
                self.tell(who, Event::Joined { peer: peer as PeerKey, seed: peer < self.laps.len() });
                if let Some(lap) = self.laps.get_mut(peer) {
                    lap.join(who, self.now);
                } else {
                    let runs = self.nodes[peer].here.iter().map(|chunk| (*chunk, 1)).collect();
                    let news = News { file: Some(0), replaces: true, have: Have::Runs(runs) };
                    self.news.push_back((self.now + NEWS_DELAY, who, peer, news));
                }
            }
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        let seeds = self.laps.len();
        for index in seeds..self.nodes.len() {
            if self.nodes[index].leaves.is_some_and(|at| self.now >= at) && !self.nodes[index].done {
                self.nodes[index].done = true;
                (0..seeds).for_each(|seed| self.part(index, seed));
                for other in 0..self.nodes.len() {
                    self.nodes[other].queues.remove(&index);
                    if self.nodes[other].joined.remove(&index) {
                        self.tell(other, Event::Lost { peer: index as PeerKey });
                    }
                }
            }
        }
        self.meet();
        for (seed, lap) in self.laps.iter_mut().enumerate() {
            lap.tick(self.now);
            for who in seeds..self.nodes.len() {
                for news in lap.news(&who) {
                    self.news.push_back((self.now + NEWS_DELAY, who, seed, news));
                }
            }
        }
        while self.news.front().is_some_and(|(at, ..)| *at <= self.now) {
            let Some((_, to, from, news)) = self.news.pop_front() else { break };
            if self.is_up(to) && self.nodes[to].joined.contains(&from) {
                self.tell(to, Event::Available { peer: from as PeerKey, news });
            }
        }
        for index in 0..self.nodes.len() {
            if self.is_up(index) {
                self.send(index);
            }
        }
        if self.now.as_millis().is_multiple_of(250) {
            for who in seeds..self.nodes.len() {
                if self.is_up(who) {
                    self.tell(who, Event::Tick);
                }
            }
        }
    }

    /// One node's uplink: a piece for each asker in turn.
    fn send(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.credit += node.uplink * STEP.as_millis() as u64 / 1000;
        while let Some(&to) = self.nodes[index].turn.front() {
            let node = &mut self.nodes[index];
            let Some(asked) = node.queues.get_mut(&to).and_then(VecDeque::front_mut) else {
                node.turn.pop_front();
                continue;
            };
            let piece = TURN.min(CHUNK - asked.sent % CHUNK);
            if node.credit < piece {
                return;
            }
            node.credit -= piece;
            node.sent += piece;
            asked.sent += piece;
            if let Some(lap) = self.laps.get_mut(index) {
                lap.active(&to, self.now);
            }
            let (first, count, sent, request) = (asked.first, asked.count, asked.sent, asked.request);
            node.turn.rotate_left(1);
            let last = sent == u64::from(count) * CHUNK;
            if last && let Some(queue) = node.queues.get_mut(&to) {
                queue.pop_front();
            }
            let lies = node.lies;
            self.nodes[to].received += piece;
            self.tell(to, Event::Bytes { peer: index as PeerKey, bytes: piece });
            if sent.is_multiple_of(CHUNK) {
                let chunk = first + (sent / CHUNK) as u32 - 1;
                self.arrive(to, index, chunk, lies);
            }
            if last {
                self.tell(to, Event::Finished { request });
            }
        }
        // What was not used is lost: a line can't be saved up.
        self.nodes[index].credit = 0;
    }

    fn arrive(&mut self, to: usize, from: usize, chunk: u32, lies: bool) {
        if lies && self.random.chance(20) {
            self.nodes[to].banned.insert(from);
            self.part(to, from);
            self.tell(to, Event::Lost { peer: from as PeerKey });
            return;
        }
        if self.nodes[to].here.insert(chunk) {
            let have = Have::Runs(vec![(chunk, 1)]);
            for other in self.laps.len()..self.nodes.len() {
                let news = News { file: Some(0), replaces: false, have: have.clone() };
                self.news.push_back((self.now + NEWS_DELAY, other, to, news));
            }
        }
        self.tell(to, Event::Chunk { file: 0, index: chunk });
    }

    /// Until everybody who stays has everything; answers when that was, as a multiple of the time that the first seed's uplink
    /// needs, and what the seeds sent as a multiple of the release.
    fn run(&mut self, seed: u64) -> (f64, f64) {
        let waits = |node: &Node| node.finished.is_none() && node.leaves.is_none();
        while self.nodes.iter().any(waits) {
            assert!(self.now < LIMIT, "seed {seed}: no end");
            self.step();
        }
        let size = CHUNK as f64 * f64::from(self.chunks);
        let last = self.nodes.iter().filter_map(|node| node.finished).max().unwrap_or_default();
        let sent: u64 = self.nodes.iter().take(self.laps.len()).map(|seed| seed.sent).sum();
        (last.as_secs_f64() / (size / self.nodes[0].uplink as f64), sent as f64 / size)
    }
}

const UPLINK: u64 = 12_500_000;

#[test]
fn a_swarm_of_equals_is_about_as_quick_as_the_seeds_uplink() {
    for leechers in [3, 7] {
        let (makespan, egress) = Swarm::new(1, 128, &vec![UPLINK; leechers + 1], &[0]).run(1);
        println!("1 + {leechers}: {makespan:.3} F/u, the seed sent {egress:.3} F");
        assert!(makespan <= 1.25, "1 + {leechers}: {makespan:.3} F/u");
        assert!(egress <= 1.1, "1 + {leechers}: the seed sent {egress:.3} F");
    }
}

#[test]
fn one_peer_alone_gets_everything_from_the_seed() {
    let (makespan, egress) = Swarm::new(1, 64, &[UPLINK; 2], &[0]).run(1);
    assert!(makespan <= 1.05 && egress <= 1.001, "{makespan:.3} {egress:.3}");
}

/// Two seeds that begin at places of their own carry different chunks; from the same place they would send much of it twice.
#[test]
fn seeds_that_begin_apart_are_quicker_than_such_that_begin_together() {
    for leechers in [4, 8] {
        let run = |places: &[u64]| Swarm::new(1, 128, &vec![UPLINK; leechers + 2], places).run(1);
        let (together, apart) = (run(&[0, 0]), run(&[0, 1 << 63]));
        println!("2 + {leechers}: together {together:?}, apart {apart:?} (makespan in F/u, sent in F)");
        assert!(apart.0 < together.0 && apart.1 < together.1, "2 + {leechers}: {together:?} {apart:?}");
    }
}

/// Late comers, leavers, liars, slow and dead-slow uplinks.
#[test]
fn every_seeded_swarm_ends_complete() {
    let seeds = match std::env::var("STEELYARD_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..=seed,
        None => 0..=999,
    };
    for seed in seeds {
        let mut random = Random::new(seed);
        let leechers = 1 + random.below(6) as usize;
        let places: Vec<u64> = (0..=random.below(3) / 2).map(|_| random.below(u64::MAX)).collect();
        let seeds = places.len();
        let mut uplinks = vec![UPLINK; seeds];
        for _ in 0..leechers {
            uplinks.push(match random.below(4) {
                0 => UPLINK / 100,
                1 => UPLINK / 5,
                2 => UPLINK * 4,
                _ => UPLINK,
            });
        }
        let chunks = 8 + random.below(40) as u32;
        let mut swarm = Swarm::new(seed, chunks, &uplinks, &places);
        for node in &mut swarm.nodes[seeds..] {
            if random.chance(30) {
                node.begins = Duration::from_millis(random.below(5000));
            }
            if random.chance(25) {
                node.leaves = Some(node.begins + Duration::from_millis(random.below(6000)));
            }
            node.lies = random.chance(15);
        }
        swarm.run(seed);
        for (index, node) in swarm.nodes.iter().enumerate().skip(seeds) {
            let size = CHUNK * u64::from(chunks);
            let lost = node.banned.len() as u64 * CHUNK * 2;
            let most = 2 * size + lost + leechers as u64 * 4 * CHUNK;
            assert!(node.received <= most, "seed {seed}: node {index} received {} of {size}", node.received);
        }
    }
}
