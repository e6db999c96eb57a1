//! The schedule against a cache that is modelled cell by cell: whatever comes in whatever order, every answer is the one
//! that the request gets alone.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const LIMITS: Limits =
    Limits { cells: 600, running: 4, kept: 4, batch: 64, mixed: 16, share: true, apart: false };

/// A random number of a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What comes after `tokens`: depends on all of them, and on what computes them.
fn next(lane: Lane, tokens: &[Token]) -> Token {
    let mixed = tokens
        .iter()
        .fold(17 + u64::from(lane), |sum, token| (sum ^ *token as u64).wrapping_mul(0x100_0000_01B3));
    (mixed >> 40) as Token % 50
}

fn alone(lane: Lane, prompt: &[Token], count: usize) -> Vec<Token> {
    let mut tokens = prompt.to_vec();
    for _ in 0..count {
        tokens.push(next(lane, &tokens));
    }
    tokens.split_off(prompt.len())
}

struct Asked {
    lane: Lane,
    prompt: Vec<Token>,
    count: usize,
    answer: Vec<Token>,
    since: usize,
}

/// An engine's cache, and requests.
struct World {
    schedule: Schedule,
    limits: Limits,
    cache: BTreeMap<usize, Vec<(Token, Lane, u64)>>,
    asked: BTreeMap<Id, Asked>,
    last_id: Id,
    last_cell: u64,
    steps: usize,
    longest_wait: usize,
    computed: usize,
}

impl World {
    fn new(limits: Limits) -> Self {
        Self {
            schedule: Schedule::new(limits),
            limits,
            cache: BTreeMap::new(),
            asked: BTreeMap::new(),
            last_id: 0,
            last_cell: 0,
            steps: 0,
            longest_wait: 0,
            computed: 0,
        }
    }

    fn ask(&mut self, caller: u64, prompt: Vec<Token>, count: usize) -> Id {
        self.ask_of(0, caller, prompt, count)
    }

    fn ask_of(&mut self, lane: Lane, caller: u64, prompt: Vec<Token>, count: usize) -> Id {
        self.last_id += 1;
        self.schedule.push(self.last_id, Caller::Connection(caller), lane, prompt.clone());
        let asked = Asked { lane, prompt, count, answer: Vec::new(), since: self.steps };
        self.asked.insert(self.last_id, asked);
        self.last_id
    }

    fn step(&mut self) {
        self.steps += 1;
        let step = self.schedule.step();
        for change in &step.moves {
            match *change {
                Move::Cut { sequence, length } => {
                    self.cache.entry(sequence).or_default().truncate(length);
                }
                Move::Share { from, to, length } => {
                    assert!(self.cache.get(&to).is_none_or(Vec::is_empty), "{to} is not empty");
                    let shared = self.cache[&from][..length].to_vec();
                    self.cache.insert(to, shared);
                }
            }
        }
        assert!(step.entries.len() <= self.limits.batch);
        assert!(!step.entries.is_empty() || self.asked.is_empty(), "nothing moves");
        self.computed += step.entries.len();
        let lanes: BTreeSet<Lane> = step.entries.iter().map(|entry| entry.lane).collect();
        assert!(lanes.len() <= 1 || !self.limits.apart, "one adapter at a time");
        for entry in &step.entries {
            let sequence = self.cache.entry(entry.sequence).or_default();
            assert_eq!(sequence.len(), entry.position);
            self.last_cell += 1;
            sequence.push((entry.token, entry.lane, self.last_cell));
        }
        let used: BTreeSet<u64> = self.cache.values().flatten().map(|(.., cell)| *cell).collect();
        assert!(used.len() <= self.limits.cells);
        assert_eq!(used.len(), self.schedule.cells().0, "a cell was lost");
        for entry in step.entries.iter().filter(|entry| entry.last) {
            let cells = &self.cache[&entry.sequence];
            let tokens: Vec<Token> = cells.iter().map(|(token, ..)| *token).collect();
            let asked = self.asked.get_mut(&entry.id).unwrap();
            assert!(cells.iter().all(|(_, lane, _)| *lane == asked.lane), "another adapter's");
            assert_eq!(tokens, [&asked.prompt[..], &asked.answer].concat(), "another's tokens");
            asked.answer.push(next(asked.lane, &tokens));
            if asked.answer.len() < asked.count {
                self.schedule.token(entry.id, *asked.answer.last().unwrap());
            } else {
                assert_eq!(asked.answer, alone(asked.lane, &asked.prompt, asked.count));
                self.end(entry.id);
            }
        }
    }

    fn end(&mut self, id: Id) {
        self.schedule.finish(id);
        let asked = self.asked.remove(&id).unwrap();
        self.longest_wait = self.longest_wait.max(self.steps - asked.since);
    }

    fn drain(&mut self) {
        let limit = self.steps + 100_000;
        while !self.asked.is_empty() {
            self.step();
            assert!(self.steps < limit, "{} never end", self.asked.len());
        }
    }
}

#[test]
fn whatever_comes_every_answer_is_the_one_it_gets_alone_and_nothing_is_lost() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let share = dice.roll(5) > 0;
        let cells = 150 + dice.roll(600) as usize;
        let running = 1 + dice.roll(6) as usize;
        let (lanes, apart) = (1 + dice.roll(3), dice.roll(2) > 0);
        let mut world = World::new(Limits { cells, running, share, apart, ..LIMITS });
        let beginnings: Vec<Vec<Token>> =
            (0..3).map(|_| (0..20 + dice.roll(60)).map(|_| dice.roll(50) as Token).collect()).collect();
        for _ in 0..60 {
            for _ in 0..dice.roll(4) {
                let mut prompt = beginnings[dice.roll(3) as usize].clone();
                prompt.truncate(1 + dice.roll(prompt.len() as u64) as usize);
                prompt.extend((0..dice.roll(40)).map(|_| dice.roll(50) as Token));
                let room = cells - prompt.len();
                let count = 1 + dice.roll(room.min(60) as u64) as usize;
                world.ask_of(dice.roll(lanes) as Lane, dice.roll(5), prompt, count);
            }
            for _ in 0..dice.roll(12) {
                world.step();
            }
            if dice.roll(3) == 0 && !world.asked.is_empty() {
                let at = dice.roll(world.asked.len() as u64) as usize;
                let id = *world.asked.keys().nth(at).unwrap();
                world.end(id);
            }
            if dice.roll(40) == 0 {
                world.schedule.lost();
                world.cache.clear();
            }
        }
        world.drain();
        assert!(world.schedule.is_idle() && world.schedule.waiting() == 0);
        // What is left is kept, and all of it can be had back.
        world.ask(9, vec![1; cells - 1], 1);
        world.drain();
    }
}

#[test]
fn a_common_beginning_is_computed_once_also_by_those_who_come_together() {
    let mut world = World::new(LIMITS);
    let beginning: Vec<Token> = (0..120).collect();
    for last in 0..4 {
        world.ask(last as u64, [&beginning[..], &[last, last]].concat(), 3);
    }
    world.drain();
    assert!(world.computed < 120 + 4 * 5 + 1, "{} tokens were computed", world.computed);
    let before = world.computed;
    let id = world.ask(7, [&beginning[..], &[9, 9]].concat(), 1);
    world.step();
    assert_eq!(world.schedule.reused(id), 0, "it has ended");
    assert!(world.computed - before <= 3);
}

#[test]
fn whoever_asks_for_much_does_not_keep_others_waiting() {
    let mut world = World::new(LIMITS);
    for _ in 0..50 {
        world.ask(1, (0..100).map(|token| token % 50).collect(), 400);
    }
    for _ in 0..2000 {
        world.step();
    }
    let small = world.ask(2, vec![1, 2, 3], 5);
    let begun = world.steps;
    while world.asked.contains_key(&small) {
        world.step();
    }
    assert!(world.steps - begun <= 40, "it waited for {} steps", world.steps - begun);
    // More callers than places, all greedy: all go on.
    let mut world = World::new(LIMITS);
    for caller in 0..12 {
        world.ask(caller, vec![caller as Token; 40], 500);
    }
    let fair = 12 * 500;
    world.drain();
    assert!(world.longest_wait <= fair, "{} steps", world.longest_wait);
}

#[test]
fn adapters_take_turns_where_only_one_is_computed_at_a_time() {
    let mut world = World::new(Limits { apart: true, ..LIMITS });
    let prompt: Vec<Token> = (0..40).collect();
    let ids = [0, 1, 2].map(|lane| world.ask_of(lane, 1 + u64::from(lane), prompt.clone(), 100));
    for _ in 0..30 * LANE_TURN {
        world.step();
        let answers = ids.map(|id| world.asked.get(&id).map_or(100, |asked| asked.answer.len()));
        let (least, most) = (answers.iter().min().unwrap(), answers.iter().max().unwrap());
        assert!(most - least <= 2 * LANE_TURN || *most == 100, "{answers:?}");
    }
    // Nothing was shared, though all began alike.
    assert!(ids.iter().all(|id| world.schedule.reused(*id) == 0));
    world.drain();
    assert!(world.computed >= 3 * 40);
}

#[test]
fn prompts_are_taken_in_parts_and_answers_go_on_meanwhile() {
    let mut world = World::new(LIMITS);
    let first = world.ask(1, vec![1, 2], 50);
    world.step();
    world.ask(2, vec![3; 400], 1);
    for _ in 0..10 {
        let before = world.asked[&first].answer.len();
        let computed = world.computed;
        world.step();
        assert_eq!(world.asked[&first].answer.len(), before + 1);
        assert!(world.computed - computed <= 1 + LIMITS.mixed);
    }
}

#[test]
fn without_sharing_nothing_is_kept() {
    let mut world = World::new(Limits { share: false, ..LIMITS });
    world.ask(1, (0..50).collect(), 5);
    world.drain();
    world.step();
    assert_eq!(world.schedule.cells().0, 0);
}

#[test]
fn a_sequence_that_lost_its_beginning_is_not_shared() {
    let mut world = World::new(LIMITS);
    world.ask(1, (0..100).collect(), 2);
    world.drain();
    let kept: Vec<_> = world.schedule.shareable().collect();
    for sequence in kept {
        world.schedule.not_whole(sequence);
    }
    let before = world.computed;
    world.ask(1, (0..100).collect(), 1);
    world.drain();
    assert_eq!(world.computed - before, 100);
}

/// How many of the tokens that it could have shared each turn of so many conversations did, who speak one after the other.
fn conversations(count: u64, turns: usize) -> Vec<f64> {
    let mut world = World::new(Limits { cells: 20_000, kept: 16, ..LIMITS });
    let mut dice = Dice(count);
    let mut texts: Vec<Vec<Token>> = (0..count).map(|_| Vec::new()).collect();
    let mut shares = Vec::new();
    for _ in 0..turns {
        let (mut known, mut computed) = (0, 0);
        for (caller, text) in (0..).zip(&mut texts) {
            known += text.len();
            text.extend((0..60).map(|_| dice.roll(50) as Token));
            let before = world.computed;
            world.ask(caller, text.clone(), 1);
            world.drain();
            computed += world.computed - before;
        }
        let asked: usize = texts.iter().map(Vec::len).sum();
        shares.push((asked - computed) as f64 / (known.max(1)) as f64);
    }
    shares
}

#[test]
fn as_many_are_kept_as_are_of_use() {
    // Each turn of one conversation, and of many once it was seen that they go on.
    assert!(conversations(1, 6)[1..].iter().all(|share| *share > 0.9));
    let many = conversations(8, 12);
    assert!(many[8..].iter().all(|share| *share > 0.9), "{many:?}");
    // Requests that have nothing in common leave nothing behind in the end, and still one that goes on is seen.
    let mut world = World::new(Limits { cells: 20_000, kept: 16, ..LIMITS });
    let mut dice = Dice(1);
    for _ in 0..40 {
        world.ask(1, (0..200).map(|_| dice.roll(50) as Token).collect(), 1);
        world.drain();
    }
    assert_eq!(world.schedule.kept().count(), 0);
    let mut text: Vec<Token> = Vec::new();
    for turn in 0..4 {
        text.extend((0..60).map(|_| dice.roll(50) as Token));
        let before = world.computed;
        world.ask(1, text.clone(), 1);
        world.drain();
        assert!(turn < 2 || world.computed - before <= 61, "turn {turn}");
    }
}
