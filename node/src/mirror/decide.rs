//! What the rules come to: (rules, what is known, what is here) -> what to fetch next, what to let go, and why. Pure.

use std::collections::{BTreeMap, BTreeSet};

use registry::{ChannelName, Digest, Model, Timestamp, Version};
use serde::{Deserialize, Serialize};

use super::rule::{Mirroring, Rule, Size};

/// What is known of one release.
#[derive(Debug, Clone)]
pub struct Fact {
    /// The model.
    pub model: Model,
    /// The version.
    pub version: Version,
    /// When it was signed.
    pub issued: Timestamp,
    /// Bytes of all its files.
    pub size: u64,
    /// The channels of its model that point to it now.
    pub channels: Vec<ChannelName>,
    /// What it derives from, over all generations known.
    pub ancestors: BTreeSet<Digest>,
    /// Whether it is admitted here.
    pub here: bool,
    /// Whether a rule brought it and keeps it.
    pub mirrored: bool,
    /// Whether a person pinned it.
    pub pinned: bool,
    /// Why the local policy refuses it.
    pub refused: Option<String>,
    /// The attempt to fetch it.
    pub attempt: Option<Attempt>,
}

/// An attempt to fetch a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// It runs.
    Running,
    /// It failed.
    Failed {
        /// Why.
        error: String,
        /// When to try again.
        again: Timestamp,
    },
}

/// What is known and what is here.
#[derive(Debug, Clone)]
pub struct World {
    /// Every release that may matter.
    pub facts: BTreeMap<Digest, Fact>,
    /// Bytes free on the disk.
    pub disk_free: u64,
    /// Now.
    pub now: Timestamp,
}

/// What becomes of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A rule brought it and keeps it.
    Kept,
    /// A rule wants it, and it is here for another reason.
    Here,
    /// It is being fetched.
    Fetching,
    /// It is fetched next.
    Queued,
    /// An attempt failed; another comes.
    Waiting,
    /// A rule wants it, and something forbids it.
    Refused,
    /// A rule brought it and it is no longer wanted, or has no room.
    LettingGo,
}

/// One release and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The release.
    pub release: Digest,
    /// The rule that wants it, by its place; none for what no rule wants any more.
    pub rule: Option<usize>,
    /// What becomes of it.
    pub state: State,
    /// Why, for people.
    pub reason: String,
    /// When the next attempt is made.
    pub again: Option<Timestamp>,
}

/// The decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Every release that a rule wants, in the order of the rules, the newest first; then what is let go.
    pub entries: Vec<Entry>,
    /// What to fetch, the most wanted first.
    pub pull: Vec<Digest>,
    /// What to let go before anything is fetched, the oldest first.
    pub let_go: Vec<Digest>,
    /// Bytes that each rule keeps or will keep.
    pub used: Vec<u64>,
}

/// Decides.
///
/// Rules come in their order, in each the releases that it names, the newest first, then their relatives. A release belongs
/// to the first rule that has room for it. What is here already for another reason costs no budget, and only what a
/// rule brought is ever let go: never what a person pinned.
pub fn decide(rules: &[Rule], mirroring: &Mirroring, world: &World) -> Plan {
    let mut plan = Plan { used: vec![0; rules.len()], ..Plan::default() };
    let mut entries: BTreeMap<Digest, Entry> = BTreeMap::new();
    let mut order = Vec::new();
    let mut room = Room { disk: world.disk_free, all: 0 };
    for (place, rule) in rules.iter().enumerate() {
        for (release, why) in wanted(rule, world) {
            let known = entries.get(&release);
            // A rule that refuses leaves it to those after it.
            if known.is_some_and(|entry| entry.state != State::Refused) {
                continue;
            }
            let Some(fact) = world.facts.get(&release) else { continue };
            let used = plan.used.get_mut(place);
            let entry = judge(release, fact, (place, rule, &why), mirroring, used, &mut room, world.now);
            match known {
                None => order.push(release),
                Some(_) if entry.state == State::Refused => continue,
                Some(_) => {}
            }
            entries.insert(release, entry);
        }
    }
    plan.entries = order.iter().filter_map(|release| entries.remove(release)).collect();
    let mut going = Vec::new();
    for entry in &mut plan.entries {
        match world.facts.get(&entry.release) {
            Some(fact) if entry.state == State::Refused && fact.mirrored && !fact.pinned => {
                entry.state = State::LettingGo;
                going.push((fact.issued, entry.release));
            }
            _ if entry.state == State::Queued => plan.pull.push(entry.release),
            _ => {}
        }
    }
    let claimed: BTreeSet<Digest> = plan.entries.iter().map(|entry| entry.release).collect();
    let left = world.facts.iter().filter(|(release, fact)| fact.mirrored && !claimed.contains(release));
    for (release, fact) in left {
        let (state, reason) = if fact.pinned {
            (State::Here, "no rule wants it any more; it is pinned".to_owned())
        } else {
            going.push((fact.issued, *release));
            (State::LettingGo, "no rule wants it any more".to_owned())
        };
        plan.entries.push(Entry { release: *release, rule: None, state, reason, again: None });
    }
    going.sort();
    plan.let_go = going.into_iter().map(|(_, release)| release).collect();
    plan
}

/// Every release that a rule wants, with why: those that it names, the newest first, then their relatives.
fn wanted(rule: &Rule, world: &World) -> Vec<(Digest, String)> {
    let newest = |mut list: Vec<(Digest, String)>| {
        let issued = |release: &Digest| world.facts.get(release).map(|fact| fact.issued);
        list.sort_by(|(a, _), (b, _)| issued(b).cmp(&issued(a)).then(a.cmp(b)));
        list
    };
    let named = |fact: &Fact| {
        if !rule.names(&fact.model) {
            return None;
        }
        if rule.channels.is_empty() {
            return Some("every release is wanted".to_owned());
        }
        let on = fact.channels.iter().find(|channel| rule.channels.contains(channel))?;
        Some(format!("channel `{on}` points to it"))
    };
    let direct =
        newest(world.facts.iter().filter_map(|(release, fact)| Some((*release, named(fact)?))).collect());
    let names = |release: &Digest| {
        world
            .facts
            .get(release)
            .map_or_else(|| release.to_string(), |fact| format!("{}@{}", fact.model, fact.version))
    };
    let mut relatives: BTreeMap<Digest, String> = BTreeMap::new();
    if rule.lineage.bases() {
        for (release, _) in &direct {
            for base in world.facts.get(release).into_iter().flat_map(|fact| &fact.ancestors) {
                relatives.entry(*base).or_insert_with(|| format!("{} derives from it", names(release)));
            }
        }
    }
    if rule.lineage.derived() {
        let bases: BTreeSet<Digest> = direct.iter().map(|(release, _)| *release).collect();
        for (release, fact) in &world.facts {
            if let Some(base) = fact.ancestors.iter().find(|base| bases.contains(base)) {
                relatives.entry(*release).or_insert_with(|| format!("it derives from {}", names(base)));
            }
        }
    }
    for (release, _) in &direct {
        relatives.remove(release);
    }
    direct.into_iter().chain(newest(relatives.into_iter().collect())).collect()
}

/// Bytes to give away.
struct Room {
    /// Free on the disk.
    disk: u64,
    /// Kept by all rules so far.
    all: u64,
}

fn judge(
    release: Digest,
    fact: &Fact,
    (place, rule, why): (usize, &Rule, &str),
    mirroring: &Mirroring,
    used: Option<&mut u64>,
    room: &mut Room,
    now: Timestamp,
) -> Entry {
    let entry = |state, reason: String, again| Entry { release, rule: Some(place), state, reason, again };
    if fact.here && (!fact.mirrored || fact.pinned) {
        let how = if fact.pinned { "pinned" } else { "fetched or published by hand" };
        return entry(State::Here, format!("{why}; here already, {how}"), None);
    }
    if let Some(refused) = &fact.refused {
        return entry(State::Refused, format!("refused by policy: {refused}"), None);
    }
    let size = Size::new(fact.size);
    if !rule.max_release.fits(fact.size) {
        let limit = rule.max_release;
        return entry(
            State::Refused,
            format!("it has {size}, over the rule's limit of {limit} for one"),
            None,
        );
    }
    let (mine, all) = (used.as_ref().map_or(0, |used| **used), room.all);
    let (of, budget) = if !rule.budget.fits(mine.saturating_add(fact.size)) {
        (format!("the budget of {}", rule.title(place)), rule.budget)
    } else if !mirroring.budget.fits(all.saturating_add(fact.size)) {
        ("the budget of all rules".to_owned(), mirroring.budget)
    } else {
        if let Some(used) = used {
            *used += fact.size;
        }
        room.all += fact.size;
        let (state, reason, again) = next(fact, why, room, now);
        return entry(state, reason, again);
    };
    entry(
        State::Refused,
        format!("no room: it has {size}, and {of} ({budget}) is taken by what is wanted more"),
        None,
    )
}

/// What to do about a release that there is room for.
fn next(fact: &Fact, why: &str, room: &mut Room, now: Timestamp) -> (State, String, Option<Timestamp>) {
    if fact.here {
        return (State::Kept, why.to_owned(), None);
    }
    match &fact.attempt {
        Some(Attempt::Running) => return (State::Fetching, why.to_owned(), None),
        Some(Attempt::Failed { error, again }) if *again > now => {
            return (State::Waiting, error.clone(), Some(*again));
        }
        _ => {}
    }
    match room.disk.checked_sub(fact.size) {
        Some(left) => {
            room.disk = left;
            (State::Queued, why.to_owned(), None)
        }
        None => {
            let free = Size::new(room.disk);
            (
                State::Waiting,
                format!("it has {}, and {free} are free on the disk", Size::new(fact.size)),
                None,
            )
        }
    }
}
