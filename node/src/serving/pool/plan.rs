//! What a pool loads and unloads, and whom it lets in: decisions only. (state, event, now) -> actions; no clock, no I/O.
//!
//! Whoever asks for a member that is loaded is let in at once. For another one room is made (`room.rs`): the members that were
//! used longest ago and that answer nobody are unloaded. Where that is not enough whoever asks waits, in the order of arrival, and
//! the first who waits for room gets the next. After a short turn, the members whose room it needs take no new requests, so
//! that they end what is under way and give way: nobody waits for longer than the requests before take.
//!
//! What the members need together never exceeds the budget. A need that is not known yet is the weights' size at least; such a
//! member has all that is free until its worker says what it needs, and one that needs more than that is tried once more when
//! so much was made free.

mod event;
mod room;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod simulation;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub(super) use event::{Action, Event, Gone, Key, Limits, Manner, Now, Reason, Refusal, State, Ticket, Why};

/// The pause after the first load that failed; each further one in a row doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest such pause: what is mended is found out within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long requests under way may take when a person unloads their model; then they are cut off.
const DRAIN: Duration = Duration::from_secs(120);

/// A member.
#[derive(Debug)]
struct Member {
    state: State,
    /// Bytes of its weights' files.
    weights: u64,
    /// What a worker of it said that it needs.
    needs: Option<u64>,
    /// What it has of the budget.
    has: u64,
    /// Requests under way.
    active: usize,
    /// When the last one ended.
    used: Now,
    /// Since when it serves.
    ready: Now,
    /// It takes no new requests, since another one needs its room.
    gives_way: bool,
    /// A person unloads it, since then.
    leaving: Option<Now>,
    /// It is no member any more when it is unloaded.
    removed: bool,
    /// It needed more than it had, and is tried once more.
    again: bool,
    /// Loads that failed in a row.
    failures: u32,
    /// It is not tried before, and why.
    paused: Option<(Now, Reason)>,
}

impl Member {
    /// What is to be free before it is loaded.
    fn wants(&self) -> u64 {
        self.needs.unwrap_or(self.weights)
    }

    fn is_open(&self) -> bool {
        self.state == State::Ready && !self.gives_way && self.leaving.is_none()
    }
}

/// Somebody who waits.
#[derive(Debug, Clone)]
struct Waiting {
    ticket: Ticket,
    member: Key,
    manner: Manner,
    came: Now,
    until: Now,
}

/// How a member is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) state: State,
    pub(super) needs: Option<u64>,
    pub(super) weights: u64,
    pub(super) has: u64,
    pub(super) active: usize,
    pub(super) waiting: usize,
    /// It is unloaded, or is about to be.
    pub(super) gives_way: bool,
    /// Why it is not tried at the moment.
    pub(super) paused: Option<Reason>,
}

/// The state of one pool.
#[derive(Debug)]
pub(super) struct Plan {
    limits: Limits,
    /// Workers that there may be.
    places: usize,
    members: BTreeMap<Key, Member>,
    waiting: VecDeque<Waiting>,
    /// Those that were let in.
    active: BTreeMap<Ticket, Key>,
}

impl Plan {
    /// A pool without members.
    pub(super) fn new(limits: Limits) -> Self {
        let (members, waiting, active) = (BTreeMap::new(), VecDeque::new(), BTreeMap::new());
        Self { limits, places: usize::MAX, members, waiting, active }
    }

    /// Takes what happened and answers what is to be done.
    pub(super) fn handle(&mut self, event: Event, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Added { member, weights } => drop(self.members.insert(member, Member::new(weights, now))),
            Event::Other { member, weights } => self.other(member, weights),
            Event::Removed { member } => self.leave(member, true, now, &mut actions),
            Event::Unload { member } => self.leave(member, false, now, &mut actions),
            Event::Came { ticket, member, manner, until } => {
                let waiting = Waiting { ticket, member, manner, came: now, until };
                if let Err(why) = self.came(&waiting, now) {
                    actions.push(Action::Refuse { ticket, why });
                }
            }
            Event::Left { ticket } => self.left(ticket, now),
            Event::Needs { member, bytes } => self.needs(member, bytes),
            Event::Ready { member } => self.ready(member, now),
            Event::Away { member } => {
                if let Some(member) = self.members.get_mut(&member).filter(|it| it.state == State::Ready) {
                    (member.state, member.gives_way) = (State::Loading, false);
                }
            }
            Event::Gone { member, how } => self.gone(member, how, now, &mut actions),
            Event::Places { places } => self.places = places,
            Event::Tick => {}
        }
        self.expire(now, &mut actions);
        // Before it is looked who is idle: what was loaded just now is for those who wait for it.
        self.let_in(&mut actions);
        self.unload(now, &mut actions);
        self.make_room(now, &mut actions);
        self.let_in(&mut actions);
        actions
    }

    fn came(&mut self, waiting: &Waiting, now: Now) -> Result<(), Refusal> {
        let full = self.waiting.len() >= self.limits.waiting;
        let member = self.members.get_mut(&waiting.member).filter(|member| !member.removed);
        let member = member.ok_or(Refusal::Removed)?;
        if waiting.manner == Manner::Request {
            if let Some((_, why)) = member.paused.as_ref().filter(|(until, _)| *until > now) {
                return Err(Refusal::Reason(why.clone()));
            }
        } else {
            (member.paused, member.failures) = (None, 0);
        }
        if full && !member.is_open() {
            return Err(Refusal::Full { limit: self.limits.waiting });
        }
        self.waiting.push_back(waiting.clone());
        Ok(())
    }

    fn left(&mut self, ticket: Ticket, now: Now) {
        match self.active.remove(&ticket).and_then(|member| self.members.get_mut(&member)) {
            Some(member) => {
                member.active = member.active.saturating_sub(1);
                member.used = now;
            }
            None => self.waiting.retain(|waiting| waiting.ticket != ticket),
        }
    }

    /// Another release is what the member means now: nothing is known of it.
    fn other(&mut self, member: Key, weights: u64) {
        if let Some(member) = self.members.get_mut(&member) {
            (member.weights, member.needs) = (weights, None);
            (member.failures, member.paused, member.again) = (0, None, false);
        }
    }

    fn needs(&mut self, member: Key, bytes: u64) {
        let Some(member) = self.members.get_mut(&member) else { return };
        member.needs = Some(bytes);
        match member.state {
            // One that needs more than it has is about to say so, and to end.
            State::Loading => member.has = member.has.min(bytes),
            // Another worker took its place, with a release of another size.
            State::Ready => member.has = bytes,
            State::Out | State::Stopping => {}
        }
    }

    fn ready(&mut self, member: Key, now: Now) {
        let Some(member) = self.members.get_mut(&member).filter(|it| it.state == State::Loading) else {
            return;
        };
        // A worker that said nothing of its need is taken to need what its weights do.
        member.has = member.has.min(member.wants());
        (member.state, member.ready, member.used) = (State::Ready, now, now);
        (member.failures, member.paused, member.again) = (0, None, false);
    }

    fn gone(&mut self, key: Key, how: Gone, now: Now, actions: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(&key) else { return };
        let had = std::mem::take(&mut member.has);
        let was_told = member.state == State::Stopping;
        (member.state, member.gives_way, member.leaving) = (State::Out, false, None);
        if member.removed {
            self.members.remove(&key);
            return self.refuse_all(key, &Refusal::Removed, actions);
        }
        let reason = match how {
            Gone::Stopped | Gone::Crowded => return,
            Gone::Small(_) if !member.again && member.needs.is_some_and(|needs| needs > had) => {
                member.again = true;
                return;
            }
            // A load that was broken off did not fail.
            Gone::Small(_) | Gone::Failed(_) if was_told => return,
            Gone::Small(reason) | Gone::Failed(reason) => {
                let pause = FIRST_PAUSE.saturating_mul(1 << member.failures.min(16)).min(LONGEST_PAUSE);
                member.failures = member.failures.saturating_add(1);
                member.paused = Some((now + pause, reason.clone()));
                reason
            }
            Gone::Refused(reason) => reason,
        };
        member.again = false;
        self.refuse_all(key, &Refusal::Reason(reason), actions);
    }

    fn refuse_all(&mut self, member: Key, why: &Refusal, actions: &mut Vec<Action>) {
        self.waiting.retain(|waiting| {
            if waiting.member == member {
                actions.push(Action::Refuse { ticket: waiting.ticket, why: why.clone() });
            }
            waiting.member != member
        });
    }

    fn leave(&mut self, key: Key, removed: bool, now: Now, actions: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(&key) else { return };
        if removed {
            member.removed = true;
        }
        match member.state {
            State::Out if removed => drop(self.members.remove(&key)),
            State::Loading => {
                member.state = State::Stopping;
                actions.push(Action::Stop { member: key });
            }
            State::Ready => drop(member.leaving.get_or_insert(now)),
            State::Out | State::Stopping => {}
        }
        if removed {
            self.refuse_all(key, &Refusal::Removed, actions);
        }
    }

    /// Whoever waited for too long is told.
    fn expire(&mut self, now: Now, actions: &mut Vec<Action>) {
        let (members, patience) = (&self.members, self.limits.patience);
        self.waiting.retain(|waiting| {
            let Waiting { ticket, member, until, came, .. } = *waiting;
            let has_room = members.get(&member).is_some_and(|member| member.state == State::Loading);
            let why = if until <= now {
                Refusal::Late
            } else if came + patience <= now && !has_room {
                Refusal::NoRoom
            } else {
                return true;
            };
            actions.push(Action::Refuse { ticket, why });
            false
        });
    }

    fn let_in(&mut self, actions: &mut Vec<Action>) {
        let (members, active) = (&mut self.members, &mut self.active);
        self.waiting.retain(|waiting| {
            let Waiting { ticket, member: key, .. } = *waiting;
            let Some(member) = members.get_mut(&key).filter(|member| member.is_open()) else { return true };
            member.active += 1;
            active.insert(ticket, key);
            actions.push(Action::LetIn { ticket });
            false
        });
    }

    /// When something is to be done although nothing happens.
    pub(super) fn due(&self, now: Now) -> Option<Now> {
        let Limits { idle, turn, patience, .. } = self.limits;
        let waits = self.waiting.iter().flat_map(|it| [it.until, it.came + patience]);
        let first = self.seeker().map(|(_, _, came)| came);
        let members = self.members.values().filter(|member| member.state == State::Ready);
        let of_members = members.flat_map(|member| {
            let idles = idle.filter(|_| member.active == 0).map(|idle| member.used + idle);
            let turns = first.map(|came| came.max(member.ready) + turn);
            [idles, turns, member.leaving.map(|since| since + DRAIN)]
        });
        waits.chain(of_members.flatten()).filter(|at| *at > now).min()
    }

    /// How a member is.
    pub(super) fn show(&self, key: Key) -> Option<Shown> {
        let member = self.members.get(&key)?;
        Some(Shown {
            state: member.state,
            needs: member.needs,
            weights: member.weights,
            has: member.has,
            active: member.active,
            waiting: self.waiting.iter().filter(|waiting| waiting.member == key).count(),
            gives_way: member.gives_way || member.leaving.is_some(),
            paused: member.paused.as_ref().map(|(_, why)| why.clone()),
        })
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// What of the budget is taken.
    pub(super) fn used(&self) -> u64 {
        self.members.values().map(|member| member.has).fold(0, u64::saturating_add)
    }

    /// What may be taken at most.
    pub(super) fn budget(&self) -> u64 {
        self.limits.budget
    }
}

impl Member {
    fn new(weights: u64, now: Now) -> Self {
        Self {
            state: State::Out,
            weights,
            needs: None,
            has: 0,
            active: 0,
            used: now,
            ready: now,
            gives_way: false,
            leaving: None,
            removed: false,
            again: false,
            failures: 0,
            paused: None,
        }
    }
}
