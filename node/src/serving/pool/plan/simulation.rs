//! Whole pools, simulated: thousands of random runs, each made of a seed number alone. Whatever happens in which order, the budget
//! holds, nobody who is answered is cut off, and nobody starves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;

const RUNS: u64 = 3000;
/// How long requests go on to come; in a third of the runs faster than they can be answered by all members in turn.
const COMING: Now = Duration::from_secs(120);
const LOAD: Duration = Duration::from_secs(4);
const STOP: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(20);
const TURN: Duration = Duration::from_secs(10);

/// Random numbers (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn within(&mut self, most: Duration) -> Duration {
        Duration::from_millis(1 + self.below(most.as_millis() as u64))
    }
}

#[derive(Debug, Clone, Copy)]
enum Happens {
    Comes,
    /// Whoever was let in is answered; whoever waits gives up.
    Leaves(Ticket),
    Tells(Key),
    Loads(Key),
    Dies(Key),
    Revives(Key),
    IsGone(Key),
}

/// A model as it really is.
struct Model {
    needs: u64,
    fails: bool,
    /// What its process was given, while there is one.
    limit: Option<u64>,
    ready: bool,
    stopping: bool,
}

struct World {
    plan: Plan,
    chance: Chance,
    now: Now,
    agenda: BTreeMap<(Now, u64), Happens>,
    next: u64,
    models: BTreeMap<Key, Model>,
    budget: u64,
    places: usize,
    /// Who waits, for whom and since when.
    waiting: BTreeMap<Ticket, (Key, Now)>,
    let_in: BTreeMap<Ticket, Key>,
    longest: Duration,
    answered: u64,
    /// Whether processes die, which takes time that nobody promised.
    calm: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let budget = 100;
        let limits = Limits {
            budget,
            idle: None,
            waiting: 1_000_000,
            turn: TURN,
            patience: Duration::from_secs(1 << 20),
        };
        let limits = match chance.below(3) {
            0 => Limits { idle: Some(Duration::from_secs(5)), ..limits },
            _ => limits,
        };
        let mut plan = Plan::new(limits);
        let places = 1 + chance.below(6) as usize;
        plan.handle(Event::Places { places }, Now::ZERO);
        let mut models = BTreeMap::new();
        for key in 0..2 + chance.below(5) as Key {
            let most = if chance.below(8) == 0 { 130 } else { 70 };
            let needs = 1 + chance.below(most);
            let weights = needs * (20 + chance.below(100)) / 100;
            plan.handle(Event::Added { member: key, weights }, Now::ZERO);
            let fails = chance.below(12) == 0;
            models.insert(key, Model { needs, fails, limit: None, ready: false, stopping: false });
        }
        let calm = chance.below(2) == 0;
        Self {
            plan,
            chance,
            now: Now::ZERO,
            agenda: BTreeMap::new(),
            next: 0,
            models,
            budget,
            places,
            waiting: BTreeMap::new(),
            let_in: BTreeMap::new(),
            longest: Duration::ZERO,
            answered: 0,
            calm,
        }
    }

    fn later(&mut self, after: Duration, happens: Happens) {
        self.next += 1;
        self.agenda.insert((self.now + after, self.next), happens);
    }

    fn tell(&mut self, event: Event) {
        for action in self.plan.handle(event, self.now) {
            self.obey(action);
        }
        self.check();
    }

    fn obey(&mut self, action: Action) {
        match action {
            Action::Start { member, limit } => {
                let load = self.chance.within(LOAD);
                let model = self.models.get_mut(&member).unwrap();
                assert!(model.limit.is_none(), "{member} is loaded twice");
                (model.limit, model.ready, model.stopping) = (Some(limit), false, false);
                self.later(load / 2, Happens::Tells(member));
                self.later(load, Happens::Loads(member));
            }
            Action::Stop { member } => {
                assert!(!self.let_in.values().any(|it| *it == member), "{member} is cut off");
                let model = self.models.get_mut(&member).unwrap();
                assert!(model.limit.is_some() && !model.stopping, "{member} can't be stopped");
                model.stopping = true;
                let stop = self.chance.within(STOP);
                self.later(stop, Happens::IsGone(member));
            }
            Action::LetIn { ticket } => {
                let (member, since) = self.waiting.remove(&ticket).expect("somebody who waits");
                let model = &self.models[&member];
                assert!(model.ready && !model.stopping, "{member} does not serve");
                self.longest = self.longest.max(self.now - since);
                self.answered += 1;
                self.let_in.insert(ticket, member);
                let answer = self.chance.within(ANSWER);
                self.later(answer, Happens::Leaves(ticket));
            }
            Action::Refuse { ticket, why } => {
                let (member, _) = self.waiting.remove(&ticket).expect("somebody who waits");
                let model = &self.models[&member];
                match why {
                    Refusal::TooLarge { .. } => {
                        assert!(model.needs > self.budget || model.needs * 12 / 10 > self.budget)
                    }
                    Refusal::Reason(_) => assert!(model.fails),
                    why => panic!("{ticket} is refused: {why:?}"),
                }
            }
        }
    }

    fn check(&self) {
        let live = || self.models.values().filter_map(|model| Some((model.needs, model.limit?)));
        assert!(self.plan.used() <= self.budget, "{} of the budget", self.plan.used());
        // What needs more than it was given never takes it.
        let taken: u64 = live().filter(|(needs, limit)| needs <= limit).map(|(needs, _)| needs).sum();
        assert!(taken <= self.budget, "{taken} of {} are taken", self.budget);
        assert!(live().count() <= self.places, "too many workers");
    }

    fn happens(&mut self, what: Happens) {
        match what {
            Happens::Comes => {
                let member = self.chance.below(self.models.len() as u64) as Key;
                self.next += 1;
                let ticket = self.next;
                self.waiting.insert(ticket, (member, self.now));
                if self.chance.below(10) == 0 {
                    let soon = self.chance.within(ANSWER);
                    self.later(soon, Happens::Leaves(ticket));
                }
                let until = self.now + Duration::from_secs(1 << 20);
                self.tell(Event::Came { ticket, member, manner: Manner::Request, until });
            }
            Happens::Leaves(ticket) => {
                let known = self.waiting.remove(&ticket).is_some() | self.let_in.remove(&ticket).is_some();
                if known {
                    self.tell(Event::Left { ticket });
                }
            }
            Happens::Tells(member) => {
                let model = &self.models[&member];
                if model.limit.is_some() && !model.stopping && !model.fails {
                    let bytes = model.needs;
                    self.tell(Event::Needs { member, bytes });
                }
            }
            Happens::Loads(member) => {
                let model = self.models.get_mut(&member).unwrap();
                let Some(limit) = model.limit.filter(|_| !model.stopping && !model.ready) else { return };
                let reason = || Reason { why: Why::Load, words: "it does not load".to_owned() };
                if model.fails {
                    model.limit = None;
                    self.tell(Event::Gone { member, how: Gone::Failed(reason()) });
                } else if model.needs > limit {
                    model.limit = None;
                    self.tell(Event::Gone { member, how: Gone::Small(reason()) });
                } else {
                    model.ready = true;
                    if !self.calm && self.chance.below(4) == 0 {
                        let soon = self.chance.within(ANSWER);
                        self.later(soon, Happens::Dies(member));
                    }
                    self.tell(Event::Ready { member });
                }
            }
            Happens::Dies(member) => {
                let model = self.models.get_mut(&member).unwrap();
                if model.limit.is_some() && model.ready && !model.stopping {
                    model.ready = false;
                    let cut: BTreeSet<_> = self
                        .let_in
                        .iter()
                        .filter(|(_, it)| **it == member)
                        .map(|(ticket, _)| *ticket)
                        .collect();
                    let back = self.chance.within(LOAD);
                    self.later(back, Happens::Revives(member));
                    self.tell(Event::Away { member });
                    for ticket in cut {
                        self.let_in.remove(&ticket);
                        self.tell(Event::Left { ticket });
                    }
                }
            }
            Happens::Revives(member) => {
                let model = self.models.get_mut(&member).unwrap();
                if model.limit.is_some() && !model.ready && !model.stopping {
                    model.ready = true;
                    self.tell(Event::Ready { member });
                }
            }
            Happens::IsGone(member) => {
                let model = self.models.get_mut(&member).unwrap();
                (model.limit, model.ready, model.stopping) = (None, false, false);
                self.tell(Event::Gone { member, how: Gone::Stopped });
            }
        }
    }

    /// Runs until nobody waits and nobody is answered any more.
    fn run(&mut self) {
        let pace = Duration::from_millis(100 + self.chance.below(3000));
        self.later(Duration::ZERO, Happens::Comes);
        for _ in 0..1_000_000 {
            let due = self.plan.due(self.now);
            let next = self.agenda.keys().next().map(|(at, _)| *at);
            let (at, is_due) = match (next, due) {
                (Some(next), Some(due)) if due < next => (due, true),
                (Some(next), _) => (next, false),
                // Nothing happens any more: all that is left is idle.
                (None, Some(due)) if self.models.values().any(|it| it.limit.is_some()) => (due, true),
                (None, _) => break,
            };
            assert!(at >= self.now, "time goes on");
            self.now = at;
            if is_due {
                self.tell(Event::Tick);
                continue;
            }
            let (_, what) = self.agenda.pop_first().unwrap();
            if matches!(what, Happens::Comes) && self.now < COMING {
                let pause = self.chance.within(pace);
                self.later(pause, Happens::Comes);
            }
            self.happens(what);
        }
        assert!(self.waiting.is_empty(), "{:?} wait for ever", self.waiting);
        assert!(self.let_in.is_empty());
    }
}

#[test]
fn the_budget_holds_and_nobody_starves() {
    let (mut answered, mut longest) = (0, Duration::ZERO);
    for seed in 0..RUNS {
        let mut world = World::new(seed);
        world.run();
        answered += world.answered;
        if world.calm {
            // Each member before takes a turn, its answers, its end, and two loads of whoever comes next.
            let each = TURN + ANSWER + STOP + 2 * LOAD;
            let bound = each * (world.models.len() as u32 + 1);
            assert!(world.longest <= bound, "seed {seed}: somebody waited {:?} of {bound:?}", world.longest);
            longest = longest.max(world.longest);
        }
    }
    assert!(answered > RUNS * 20, "{answered}");
    println!("{answered} requests answered; the longest wait was {longest:?}");
}
