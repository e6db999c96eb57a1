//! Who is unloaded, and for whom.

use super::event::{Action, Key, Manner, Now, Refusal, State};
use super::{DRAIN, Member, Plan};

/// What is wanted: bytes and a place.
#[derive(Debug, Clone, Copy)]
struct Want {
    bytes: u64,
    places: usize,
}

impl Want {
    fn is_met(self) -> bool {
        self.bytes == 0 && self.places == 0
    }

    fn less(self, member: &Member) -> Self {
        Self { bytes: self.bytes.saturating_sub(member.has), places: self.places.saturating_sub(1) }
    }
}

impl Plan {
    /// Unloads what nobody asked for lately, what a person unloads, and what is beyond the budget since a member grew.
    pub(super) fn unload(&mut self, now: Now, actions: &mut Vec<Action>) {
        let idle = self.limits.idle;
        for (key, member) in self.members.iter_mut().filter(|(_, member)| member.state == State::Ready) {
            let forgotten = member.active == 0 && idle.is_some_and(|idle| member.used + idle <= now);
            let left = member.leaving.is_some_and(|since| member.active == 0 || since + DRAIN <= now);
            if (forgotten && !self.waiting.iter().any(|waiting| waiting.member == *key)) || left {
                member.state = State::Stopping;
                actions.push(Action::Stop { member: *key });
            }
        }
        let coming = self.coming();
        let beyond = self.used().saturating_sub(coming.0).saturating_sub(self.limits.budget);
        let want = Want { bytes: beyond, places: 0 };
        if !want.is_met() {
            let idle = self.ranked(|member| member.active == 0);
            let (chosen, _) = self.choose(want, &idle);
            self.stop(&chosen, actions);
        }
    }

    /// Loads what is waited for, in the order of arrival, as far as there is room; and makes room for the first that has none.
    pub(super) fn make_room(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some((place, key, came)) = self.seeker() {
            let Some(member) = self.members.get(&key) else { return };
            let (wants, budget) = (member.wants(), self.limits.budget);
            if wants > budget {
                self.refuse_all(key, &Refusal::TooLarge { needs: wants, budget }, actions);
                continue;
            }
            let free = budget.saturating_sub(self.used());
            let taken = self.members.values().filter(|member| member.state != State::Out).count();
            if wants <= free && taken < self.places {
                self.start(key, free, actions);
                continue;
            }
            if self.waiting.get(place).is_some_and(|waiting| waiting.manner == Manner::IfRoom) {
                if let Some(waiting) = self.waiting.remove(place) {
                    actions.push(Action::Refuse { ticket: waiting.ticket, why: Refusal::NoRoom });
                }
                continue;
            }
            let want = Want {
                bytes: wants.saturating_sub(free),
                places: taken.saturating_add(1).saturating_sub(self.places),
            };
            return self.make_way(want, came, now, actions);
        }
        self.nobody_gives_way();
    }

    /// The first who waits for a member that is not loaded: the place in the queue, the member, and since when.
    pub(super) fn seeker(&self) -> Option<(usize, Key, Now)> {
        let is_out = |key| self.members.get(&key).is_some_and(|member| member.state == State::Out);
        let mut waiting = self.waiting.iter().enumerate();
        waiting.find(|(_, it)| is_out(it.member)).map(|(place, it)| (place, it.member, it.came))
    }

    fn start(&mut self, key: Key, free: u64, actions: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(&key) else { return };
        member.state = State::Loading;
        member.has = member.needs.unwrap_or(free);
        actions.push(Action::Start { member: key, limit: member.has });
    }

    /// Stops what is idle where that is enough. Else those that had their turn take no more.
    fn make_way(&mut self, want: Want, came: Now, now: Now, actions: &mut Vec<Action>) {
        let (bytes, places) = self.coming();
        let want =
            Want { bytes: want.bytes.saturating_sub(bytes), places: want.places.saturating_sub(places) };
        if want.is_met() {
            return self.nobody_gives_way();
        }
        let idle = self.ranked(|member| member.active == 0);
        let (chosen, enough) = self.choose(want, &idle);
        if enough {
            self.nobody_gives_way();
            return self.stop(&chosen, actions);
        }
        let turn = self.limits.turn;
        let had = self.ranked(|member| member.active == 0 || came.max(member.ready) + turn <= now);
        let (chosen, enough) = self.choose(want, &had);
        self.nobody_gives_way();
        if !enough {
            return;
        }
        for key in &chosen {
            if let Some(member) = self.members.get_mut(key) {
                member.gives_way = true;
            }
        }
        let idle: Vec<Key> = chosen.into_iter().filter(|key| self.members[key].active == 0).collect();
        self.stop(&idle, actions);
    }

    /// Bytes and places that are about to be free.
    fn coming(&self) -> (u64, usize) {
        let going = self.members.values().filter(|it| it.state == State::Stopping || it.leaving.is_some());
        going.fold((0, 0), |(bytes, places), member| (member.has.saturating_add(bytes), places + 1))
    }

    /// Loaded members, those first that give way already, then those that answer nobody, then by their last use.
    fn ranked(&self, wanted: impl Fn(&Member) -> bool) -> Vec<Key> {
        let loaded = |member: &Member| member.state == State::Ready && member.leaving.is_none();
        let found = self.members.iter().filter(|(_, member)| loaded(member) && wanted(member));
        let mut found: Vec<_> =
            found.map(|(key, member)| (!member.gives_way, member.active > 0, member.used, *key)).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, _, _, key)| key).collect()
    }

    /// So many of `from` as meet `want`, and whether they do.
    fn choose(&self, mut want: Want, from: &[Key]) -> (Vec<Key>, bool) {
        let mut chosen = Vec::new();
        for key in from {
            if want.is_met() {
                break;
            }
            want = want.less(&self.members[key]);
            chosen.push(*key);
        }
        (chosen, want.is_met())
    }

    fn stop(&mut self, members: &[Key], actions: &mut Vec<Action>) {
        for key in members {
            if let Some(member) = self.members.get_mut(key) {
                (member.state, member.gives_way) = (State::Stopping, false);
                actions.push(Action::Stop { member: *key });
            }
        }
    }

    fn nobody_gives_way(&mut self) {
        self.members.values_mut().for_each(|member| member.gives_way = false);
    }
}
