//! What mirror rules come to, without a network or a store.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use node::mirror::decide::{Attempt, Fact, Plan, State, World, decide};
use node::mirror::rule::{Mirroring, Rule};
use registry::{ChannelName, Digest, Timestamp, Version};

const NOW: Timestamp = Timestamp::from_unix(1_790_000_000);
const GIB: u64 = 1 << 30;

fn id(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

/// A release `nation/model@version` of 10 GiB, on `stable`, signed `age` seconds ago.
fn fact(name: &str, age: i64) -> (Digest, Fact) {
    let (model, version) = name.split_once('@').unwrap();
    let fact = Fact {
        model: model.parse().unwrap(),
        version: Version::new(version).unwrap(),
        issued: NOW.plus(-age),
        size: 10 * GIB,
        channels: vec![ChannelName::new("stable").unwrap()],
        ancestors: BTreeSet::new(),
        here: false,
        mirrored: false,
        pinned: false,
        refused: None,
        attempt: None,
    };
    (id(name), fact)
}

fn kept(name: &str, age: i64) -> (Digest, Fact) {
    let (release, fact) = fact(name, age);
    (release, Fact { here: true, mirrored: true, ..fact })
}

fn rules(text: &str) -> Vec<Rule> {
    #[derive(serde::Deserialize)]
    struct Rules {
        mirror: Vec<Rule>,
    }
    toml::from_str::<Rules>(text).unwrap().mirror
}

fn plan(text: &str, facts: impl IntoIterator<Item = (Digest, Fact)>) -> Plan {
    let world = World { facts: facts.into_iter().collect(), disk_free: 1 << 50, now: NOW };
    decide(&rules(text), &Mirroring::default(), &world)
}

fn states(plan: &Plan) -> BTreeMap<Digest, State> {
    plan.entries.iter().map(|entry| (entry.release, entry.state)).collect()
}

fn reason<'a>(plan: &'a Plan, name: &str) -> &'a str {
    &plan.entries.iter().find(|entry| entry.release == id(name)).unwrap().reason
}

#[test]
fn the_newest_of_each_rule_comes_first() {
    let facts = [fact("alba/old@1", 90), fact("alba/new@1", 10), fact("borea/x@1", 1), fact("cora/x@1", 1)];
    let plan = plan("[[mirror]]\nnations = [\"alba\"]\n[[mirror]]\nmodels = [\"borea/*\"]", facts);
    assert_eq!(plan.pull, [id("alba/new@1"), id("alba/old@1"), id("borea/x@1")]);
    assert_eq!(plan.used, [20 * GIB, 10 * GIB]);
    assert!(plan.let_go.is_empty() && plan.entries.len() == 3);
}

#[test]
fn only_the_channels_of_the_rule_count() {
    let beta = |(release, fact): (Digest, Fact), channels: &[&str]| {
        let channels = channels.iter().map(|name| ChannelName::new(name).unwrap()).collect();
        (release, Fact { channels, ..fact })
    };
    let facts =
        || [fact("alba/m@1", 3), beta(fact("alba/m@2", 2), &["beta"]), beta(fact("alba/m@3", 1), &[])];
    assert_eq!(plan("[[mirror]]", facts()).pull, [id("alba/m@1")]);
    assert_eq!(plan("[[mirror]]\nchannels = [\"beta\"]", facts()).pull, [id("alba/m@2")]);
    assert_eq!(plan("[[mirror]]\nchannels = []", facts()).pull.len(), 3);
}

#[test]
fn budgets_hold_and_what_was_brought_makes_room_the_oldest_first() {
    let text = "[[mirror]]\nname = \"small\"\nbudget = \"20 GiB\"";
    let facts = [kept("alba/a@1", 90), kept("alba/b@1", 80), kept("alba/c@1", 70), fact("alba/d@1", 1)];
    let plan = plan(text, facts);
    assert_eq!(plan.let_go, [id("alba/a@1"), id("alba/b@1")]);
    assert_eq!(plan.pull, [id("alba/d@1")]);
    assert_eq!(states(&plan)[&id("alba/c@1")], State::Kept);
    assert!(reason(&plan, "alba/a@1").contains("the budget of small (20 GiB)"), "{plan:?}");
    assert_eq!(plan.used, [20 * GIB]);
}

#[test]
fn all_rules_share_the_node_s_budget_in_their_order() {
    let mirroring = Mirroring { budget: "10 GiB".parse().unwrap(), pulls: 1 };
    let facts: BTreeMap<_, _> = [fact("alba/a@1", 1), fact("borea/b@1", 1)].into();
    let world = World { facts, disk_free: 1 << 50, now: NOW };
    let rules = rules("[[mirror]]\nnations = [\"borea\"]\n[[mirror]]\nnations = [\"alba\"]");
    let plan = decide(&rules, &mirroring, &world);
    assert_eq!(plan.pull, [id("borea/b@1")]);
    assert!(reason(&plan, "alba/a@1").contains("the budget of all rules (10 GiB)"), "{plan:?}");
}

#[test]
fn a_rule_that_refuses_leaves_it_to_the_next() {
    let text = "[[mirror]]\nmax_release = \"1 GiB\"\n[[mirror]]\nmodels = [\"alba/*\"]";
    let plan = plan(text, [fact("alba/a@1", 1), fact("borea/b@1", 1)]);
    assert_eq!(plan.pull, [id("alba/a@1")]);
    assert_eq!((plan.used[0], plan.used[1]), (0, 10 * GIB));
    assert!(reason(&plan, "borea/b@1").contains("limit of 1 GiB"), "{plan:?}");
}

#[test]
fn what_a_person_keeps_costs_nothing_and_is_never_let_go() {
    let (release, by_hand) = kept("alba/hand@1", 1);
    let (other, pinned) = kept("alba/pinned@1", 2);
    let (gone, unwanted) = kept("cora/pinned@1", 3);
    let facts = [
        (release, Fact { mirrored: false, ..by_hand }),
        (other, Fact { pinned: true, ..pinned }),
        (gone, Fact { pinned: true, ..unwanted }),
    ];
    let plan = plan("[[mirror]]\nnations = [\"alba\"]\nbudget = \"0 B\"", facts);
    assert!(plan.let_go.is_empty() && plan.pull.is_empty());
    assert!(states(&plan).values().all(|state| *state == State::Here), "{plan:?}");
    assert_eq!(plan.used, [0]);
}

#[test]
fn what_policy_refuses_is_not_fetched_and_let_go_where_it_is_here() {
    let recalled = |(release, fact): (Digest, Fact)| {
        (release, Fact { here: false, refused: Some("recall: backdoor".to_owned()), ..fact })
    };
    let plan = plan("[[mirror]]", [recalled(fact("alba/a@1", 1)), recalled(kept("alba/b@1", 1))]);
    assert_eq!(plan.let_go, [id("alba/b@1")]);
    assert!(plan.pull.is_empty());
    assert_eq!(reason(&plan, "alba/a@1"), "refused by policy: recall: backdoor");
}

#[test]
fn what_no_rule_wants_any_more_goes() {
    let (release, moved_on) = kept("alba/m@1", 50);
    let facts = [(release, Fact { channels: vec![], ..moved_on }), kept("cora/x@1", 60), fact("alba/m@2", 1)];
    let plan = plan("[[mirror]]\nnations = [\"alba\"]", facts);
    assert_eq!(plan.let_go, [id("cora/x@1"), id("alba/m@1")]);
    assert_eq!(plan.pull, [id("alba/m@2")]);
    assert_eq!(reason(&plan, "alba/m@1"), "no rule wants it any more");
}

#[test]
fn lineage_comes_after_what_is_named() {
    let (tuned, child) = fact("alba/tuned@1", 50);
    let facts = || {
        let (base, grandchild) = (fact("borea/base@1", 1), fact("cora/quantised@1", 2));
        let ancestors = BTreeSet::from([base.0]);
        let of_both = BTreeSet::from([base.0, tuned]);
        [
            (tuned, Fact { ancestors, ..child.clone() }),
            base,
            (grandchild.0, Fact { ancestors: of_both, ..grandchild.1 }),
            fact("dora/other@1", 1),
        ]
    };
    let wanted = |lineage: &str| {
        plan(&format!("[[mirror]]\nmodels = [\"alba/*\"]\nchannels = []\nlineage = \"{lineage}\""), facts())
    };
    assert_eq!(wanted("none").pull, [tuned]);
    assert_eq!(wanted("bases").pull, [tuned, id("borea/base@1")]);
    assert_eq!(wanted("derived").pull, [tuned, id("cora/quantised@1")]);
    let both = wanted("both");
    assert_eq!(both.pull, [tuned, id("borea/base@1"), id("cora/quantised@1")]);
    assert_eq!(reason(&both, "borea/base@1"), "alba/tuned@1 derives from it");
    assert_eq!(reason(&both, "cora/quantised@1"), "it derives from alba/tuned@1");
}

#[test]
fn attempts_and_the_disk_are_heeded() {
    let attempt =
        |(release, fact): (Digest, Fact), attempt| (release, Fact { attempt: Some(attempt), ..fact });
    let failed = |again| Attempt::Failed { error: "nobody has it".to_owned(), again };
    let facts = [
        attempt(fact("alba/running@1", 1), Attempt::Running),
        attempt(fact("alba/later@1", 2), failed(NOW.plus(9))),
        attempt(fact("alba/again@1", 3), failed(NOW)),
        fact("alba/no-room@1", 4),
    ];
    let world = World { facts: facts.into(), disk_free: 15 * GIB, now: NOW };
    let plan = decide(&rules("[[mirror]]"), &Mirroring::default(), &world);
    assert_eq!(plan.pull, [id("alba/again@1")]);
    let states = states(&plan);
    assert_eq!(states[&id("alba/running@1")], State::Fetching);
    assert_eq!(
        (states[&id("alba/later@1")], states[&id("alba/no-room@1")]),
        (State::Waiting, State::Waiting)
    );
    assert_eq!(
        plan.entries.iter().find(|it| it.release == id("alba/later@1")).unwrap().again,
        Some(NOW.plus(9))
    );
    assert!(reason(&plan, "alba/no-room@1").contains("free on the disk"), "{plan:?}");
}
