//! The pool's decisions, one by one.

use super::*;

const A: Key = 0;
const B: Key = 1;
const C: Key = 2;

fn at(seconds: u64) -> Now {
    Duration::from_secs(seconds)
}

/// A plan with three members of 40 bytes each, and a budget.
fn plan(budget: u64) -> Plan {
    let (turn, patience) = (at(10), at(300));
    let mut plan = Plan::new(Limits { budget, idle: None, waiting: 4, turn, patience });
    for member in [A, B, C] {
        plan.handle(Event::Added { member, weights: 40 }, at(0));
    }
    plan
}

fn came(plan: &mut Plan, ticket: Ticket, member: Key, now: Now) -> Vec<Action> {
    plan.handle(Event::Came { ticket, member, manner: Manner::Request, until: now + at(3600) }, now)
}

/// Loads a member for `ticket`, whose answer ends at once where it is to be `idle`.
fn load(plan: &mut Plan, ticket: Ticket, member: Key, needs: u64, now: Now, idle: bool) {
    let actions = came(plan, ticket, member, now);
    assert!(matches!(actions[..], [Action::Start { .. }]), "{actions:?}");
    plan.handle(Event::Needs { member, bytes: needs }, now);
    assert_eq!(plan.handle(Event::Ready { member }, now), [Action::LetIn { ticket }]);
    if idle {
        assert_eq!(plan.handle(Event::Left { ticket }, now), []);
    }
}

fn reason(words: &str) -> Reason {
    Reason { why: Why::Load, words: words.to_owned() }
}

#[test]
fn what_was_used_longest_ago_and_is_idle_makes_room() {
    let mut plan = plan(100);
    load(&mut plan, 1, A, 45, at(1), true);
    load(&mut plan, 2, B, 45, at(2), true);
    // A is used once more, so that B is the older one.
    assert_eq!(came(&mut plan, 3, A, at(3)), [Action::LetIn { ticket: 3 }]);
    plan.handle(Event::Left { ticket: 3 }, at(4));
    assert_eq!(came(&mut plan, 4, C, at(5)), [Action::Stop { member: B }]);
    assert_eq!(came(&mut plan, 5, A, at(5)), [Action::LetIn { ticket: 5 }]);
    let actions = plan.handle(Event::Gone { member: B, how: Gone::Stopped }, at(6));
    assert_eq!(actions, [Action::Start { member: C, limit: 55 }]);
    assert_eq!(plan.used(), 100);
    plan.handle(Event::Needs { member: C, bytes: 41 }, at(6));
    assert_eq!(plan.used(), 86);
}

#[test]
fn a_busy_member_has_its_turn_and_then_gives_way() {
    let mut plan = plan(60);
    load(&mut plan, 1, A, 50, at(0), false);
    assert_eq!(came(&mut plan, 2, B, at(20)), []);
    assert_eq!(plan.due(at(20)), Some(at(30)));
    // Within its turn it goes on.
    assert_eq!(came(&mut plan, 3, A, at(29)), [Action::LetIn { ticket: 3 }]);
    assert_eq!(plan.handle(Event::Tick, at(30)), []);
    assert_eq!(came(&mut plan, 4, A, at(31)), []);
    assert!(plan.show(A).unwrap().gives_way);
    assert_eq!(plan.handle(Event::Left { ticket: 1 }, at(32)), []);
    assert_eq!(plan.handle(Event::Left { ticket: 3 }, at(33)), [Action::Stop { member: A }]);
    let actions = plan.handle(Event::Gone { member: A, how: Gone::Stopped }, at(34));
    assert_eq!(actions, [Action::Start { member: B, limit: 60 }]);
    plan.handle(Event::Needs { member: B, bytes: 50 }, at(35));
    assert_eq!(plan.handle(Event::Ready { member: B }, at(35)), [Action::LetIn { ticket: 2 }]);
    // Whoever came for A meanwhile is next, and B has its turn first.
    assert_eq!(came(&mut plan, 5, B, at(36)), [Action::LetIn { ticket: 5 }]);
    assert_eq!(plan.due(at(36)), Some(at(45)));
    // Should whoever waits for room leave, B goes on.
    plan.handle(Event::Tick, at(45));
    assert!(plan.show(B).unwrap().gives_way);
    assert_eq!(plan.handle(Event::Left { ticket: 4 }, at(46)), []);
    assert_eq!(came(&mut plan, 6, B, at(47)), [Action::LetIn { ticket: 6 }]);
}

#[test]
fn a_first_guess_that_was_too_small_is_made_good_once() {
    let mut plan = plan(100);
    load(&mut plan, 1, A, 50, at(0), true);
    assert_eq!(came(&mut plan, 2, B, at(1)), [Action::Start { member: B, limit: 50 }]);
    plan.handle(Event::Needs { member: B, bytes: 70 }, at(2));
    let small = Gone::Small(reason("it needs 70"));
    let actions = plan.handle(Event::Gone { member: B, how: small.clone() }, at(2));
    assert_eq!(actions, [Action::Stop { member: A }]);
    let actions = plan.handle(Event::Gone { member: A, how: Gone::Stopped }, at(3));
    assert_eq!(actions, [Action::Start { member: B, limit: 70 }]);
    // What still needs more is not believed.
    let actions = plan.handle(Event::Gone { member: B, how: small }, at(4));
    let why = Refusal::Reason(reason("it needs 70"));
    assert_eq!(actions, [Action::Refuse { ticket: 2, why }]);
}

#[test]
fn what_needs_more_than_there_is_is_refused_with_both_numbers() {
    let mut plan = plan(100);
    load(&mut plan, 1, A, 50, at(0), true);
    assert_eq!(came(&mut plan, 2, B, at(1)), [Action::Start { member: B, limit: 50 }]);
    plan.handle(Event::Needs { member: B, bytes: 170 }, at(2));
    let small = Gone::Small(reason("it needs 170"));
    let actions = plan.handle(Event::Gone { member: B, how: small }, at(2));
    // Nobody is unloaded for it, and the next one is told at once.
    let why = Refusal::TooLarge { needs: 170, budget: 100 };
    assert_eq!(actions, [Action::Refuse { ticket: 2, why: why.clone() }]);
    assert_eq!(came(&mut plan, 3, B, at(3)), [Action::Refuse { ticket: 3, why }]);
    // Another release may be smaller.
    plan.handle(Event::Other { member: B, weights: 20 }, at(4));
    assert_eq!(came(&mut plan, 4, B, at(4)), [Action::Start { member: B, limit: 50 }]);
}

#[test]
fn what_fails_is_left_alone_for_a_growing_while_unless_a_person_asks() {
    let mut plan = plan(100);
    let mut now = at(0);
    let mut ticket = 0;
    for pause in [250, 500, 1000] {
        ticket += 1;
        assert_eq!(came(&mut plan, ticket, A, now), [Action::Start { member: A, limit: 100 }]);
        let failed = Gone::Failed(reason("no"));
        let actions = plan.handle(Event::Gone { member: A, how: failed }, now);
        let why = Refusal::Reason(reason("no"));
        assert_eq!(actions, [Action::Refuse { ticket, why: why.clone() }]);
        let soon = now + Duration::from_millis(pause - 1);
        assert_eq!(came(&mut plan, 99, A, soon), [Action::Refuse { ticket: 99, why }]);
        now += Duration::from_millis(pause);
    }
    let asks = Event::Came { ticket: 9, member: A, manner: Manner::Person, until: at(3600) };
    plan.handle(Event::Gone { member: A, how: Gone::Failed(reason("no")) }, now);
    assert_eq!(plan.handle(asks, now), [Action::Start { member: A, limit: 100 }]);
}

#[test]
fn places_are_a_budget_too_and_the_queue_is_bounded() {
    let mut plan = plan(1000);
    plan.handle(Event::Places { places: 1 }, at(0));
    load(&mut plan, 1, A, 50, at(0), true);
    assert_eq!(came(&mut plan, 2, B, at(1)), [Action::Stop { member: A }]);
    let actions = plan.handle(Event::Gone { member: A, how: Gone::Stopped }, at(1));
    assert_eq!(actions, [Action::Start { member: B, limit: 1000 }]);
    for ticket in 3..6 {
        assert_eq!(came(&mut plan, ticket, C, at(2)), []);
    }
    assert_eq!(came(&mut plan, 6, C, at(2)), [Action::Refuse { ticket: 6, why: Refusal::Full { limit: 4 } }]);
    // Nobody waits for ever.
    let actions = plan.handle(Event::Tick, at(302));
    assert_eq!(
        actions.iter().filter(|it| matches!(it, Action::Refuse { why: Refusal::NoRoom, .. })).count(),
        3
    );
}

#[test]
fn a_person_unloads_and_removes_and_what_is_idle_is_forgotten() {
    let mut plan = Plan { limits: Limits { idle: Some(at(60)), ..plan(200).limits }, ..plan(200) };
    load(&mut plan, 1, A, 50, at(0), false);
    assert_eq!(plan.handle(Event::Unload { member: A }, at(1)), []);
    assert_eq!(came(&mut plan, 2, A, at(2)), []);
    assert_eq!(plan.handle(Event::Left { ticket: 1 }, at(3)), [Action::Stop { member: A }]);
    // Whoever came meanwhile has it loaded again.
    let actions = plan.handle(Event::Gone { member: A, how: Gone::Stopped }, at(4));
    assert!(matches!(actions[..], [Action::Start { member: A, .. }]), "{actions:?}");
    plan.handle(Event::Ready { member: A }, at(5));
    assert_eq!(plan.handle(Event::Left { ticket: 2 }, at(6)), []);
    assert_eq!(plan.due(at(6)), Some(at(66)));
    assert_eq!(plan.handle(Event::Tick, at(66)), [Action::Stop { member: A }]);
    plan.handle(Event::Gone { member: A, how: Gone::Stopped }, at(67));
    load(&mut plan, 3, B, 50, at(70), false);
    plan.handle(Event::Removed { member: B }, at(71));
    assert_eq!(came(&mut plan, 4, B, at(71)), [Action::Refuse { ticket: 4, why: Refusal::Removed }]);
    // What does not end is cut off.
    assert_eq!(plan.handle(Event::Tick, at(71) + DRAIN), [Action::Stop { member: B }]);
    plan.handle(Event::Gone { member: B, how: Gone::Stopped }, at(300));
    assert!(plan.show(B).is_none());
}

#[test]
fn only_where_there_is_room_means_that_nobody_is_unloaded() {
    let mut plan = plan(100);
    load(&mut plan, 1, A, 80, at(0), true);
    let asks = |ticket, member| Event::Came { ticket, member, manner: Manner::IfRoom, until: at(3600) };
    let actions = plan.handle(asks(2, B), at(1));
    assert_eq!(actions, [Action::Refuse { ticket: 2, why: Refusal::NoRoom }]);
    assert_eq!(plan.handle(asks(3, A), at(1)), [Action::LetIn { ticket: 3 }]);
}
