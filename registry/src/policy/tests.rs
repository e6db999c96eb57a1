#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::*;
use crate::statement::{Severity, Standing, Verdict};

fn nation(name: &str) -> Nation {
    Nation::new(name).unwrap()
}

fn refusing(policy: &Policy, action: Action, facts: &Facts) -> Vec<String> {
    let decision = policy.decide(action, facts);
    let rules: Vec<String> = decision.refusals().map(|check| check.rule.clone()).collect();
    assert_eq!(decision.allowed, rules.is_empty());
    rules
}

/// The rules of the default policy that refuse, for each action.
fn refused(facts: &Facts) -> [Vec<String>; 4] {
    Action::ALL.map(|action| refusing(&Policy::shipped(1), action, facts))
}

/// A release that nothing speaks against, witnessed by borea.
fn good() -> Facts {
    let witnesses = BTreeSet::from([nation("borea")]);
    let logged = Logged { index: 5, size: 9, witnesses, witnessed: Some(Facts::default().now) };
    Facts { logged: Some(logged), witnesses_required: 1, ..Facts::default() }
}

const NONE: [&str; 0] = [];

#[track_caller]
fn expect(facts: &Facts, admit: &[&str], mirror: &[&str], serve: &[&str], release: &[&str]) {
    let [a, m, s, r] = refused(facts);
    assert_eq!(a, admit, "admit");
    assert_eq!(m, mirror, "mirror");
    assert_eq!(s, serve, "serve");
    assert_eq!(r, release, "release");
}

#[test]
fn nothing_speaks_against_a_good_release() {
    expect(&good(), &NONE, &NONE, &NONE, &NONE);
    let decision = Policy::shipped(1).decide(Action::Admit, &good());
    let rules: Vec<&str> = decision.checks.iter().map(|check| check.rule.as_str()).collect();
    assert_eq!(
        rules,
        [
            "active-nation",
            "signatures",
            "releasable-to-us",
            "bases-releasable",
            "not-recalled",
            "logged",
            "safe-formats"
        ]
    );
    assert!(decision.checks.iter().all(|check| check.passed && !check.detail.contains('{')));
    assert!(decision.checks[1].detail.contains("signed by 1 of the 1 required release keys of alba"));
}

#[test]
fn what_was_admitted_goes_on_being_served_when_the_ally_does_not() {
    for standing in [Some(Standing::Suspended), Some(Standing::Departed), Some(Standing::Invited), None] {
        let facts = Facts { standing, ..good() };
        expect(&facts, &["active-nation"], &["active-nation"], &NONE, &NONE);
        let admitted = Facts { admitted: true, ..facts };
        match standing {
            Some(Standing::Suspended | Standing::Departed) => expect(&admitted, &NONE, &NONE, &NONE, &NONE),
            _ => expect(&admitted, &["active-nation"], &["active-nation"], &NONE, &NONE),
        }
    }
    let mut ended = good();
    ended.root_expires = ended.now;
    expect(&ended, &["active-nation"], &["active-nation"], &NONE, &NONE);
    let detail = &Policy::shipped(1).decide(Action::Admit, &ended).checks[0].detail;
    assert!(
        detail.contains("its root expired at") && detail.contains("steelyard trust activate alba"),
        "{detail}"
    );
}

#[test]
fn only_active_allies_are_given_anything() {
    for standing in [Standing::Suspended, Standing::Departed, Standing::Invited].map(Some) {
        let facts = Facts { nation: nation("dora"), nation_standing: standing, ..good() };
        expect(&facts, &NONE, &NONE, &NONE, &["active-ally"]);
    }
}

#[test]
fn too_few_signatures_are_refused_whatever_the_policy() {
    let facts = Facts { threshold: 2, ..good() };
    expect(&facts, &["signatures"], &["signatures"], &["signatures"], &NONE);
    let lax = Policy::own("lax", "@id(\"all\") permit (principal, action, resource);", true, 0).unwrap();
    assert_eq!(refusing(&lax, Action::Admit, &facts), ["signatures"]);
    let recall = |binds| RecallFact {
        nation: nation("alba"),
        binds,
        reason: "leaks".into(),
        severity: Severity::High,
        issued: facts.now,
    };
    let recalled = Facts { recalls: vec![recall(true)], ..good() };
    let narrow = Facts { releasable_to: Releasable::Nations(BTreeSet::from([nation("borea")])), ..good() };
    for action in Action::ALL {
        assert_eq!(refusing(&lax, action, &recalled), ["not-recalled"]);
        assert_eq!(refusing(&lax, action, &narrow), ["releasable-to-us"]);
        assert_eq!(refusing(&lax, action, &Facts { recalls: vec![recall(false)], ..good() }), NONE);
    }
}

#[test]
fn releasability_is_asked_for_whoever_gets_it() {
    let to_borea = Releasable::Nations(BTreeSet::from([nation("borea")]));
    let facts = Facts { releasable_to: to_borea, ..good() };
    let rule: &[&str] = &["releasable-to-us"];
    expect(&facts, rule, rule, rule, rule);
    let named = Facts { nation: nation("borea"), ..facts.clone() };
    expect(&named, &NONE, &NONE, &NONE, &NONE);
    let producer = Facts { nation: nation("alba"), ..facts };
    expect(&producer, &NONE, &NONE, &NONE, &NONE);
}

#[test]
fn a_restriction_on_a_base_reaches_what_was_made_of_it() {
    let base = |producer: &str, to: Releasable| Base {
        release: Digest::of(b"base"),
        producer: Some(nation(producer)),
        releasable_to: Some(to),
    };
    let to = |name: &str| Releasable::Nations(BTreeSet::from([nation(name)]));
    let with = |base| Facts { bases: vec![base], ..good() };
    let rule: &[&str] = &["bases-releasable"];
    expect(&with(base("borea", to("alba"))), rule, rule, &NONE, rule);
    // Known to be open, released to us, made by us, or its producer made the derivative too and decided about both.
    for fits in [
        base("borea", Releasable::All),
        base("borea", to("cora")),
        base("cora", to("alba")),
        base("alba", to("dora")),
    ] {
        expect(&with(fits), &NONE, &NONE, &NONE, &NONE);
    }
    let unknown = Base { release: Digest::of(b"base"), producer: None, releasable_to: None };
    expect(&with(unknown), &NONE, &NONE, &NONE, &NONE);
}

#[test]
fn the_log_and_its_witnesses_are_asked_for_what_is_not_ours() {
    let rule: &[&str] = &["logged"];
    let facts = Facts { logged: None, ..good() };
    expect(&facts, rule, rule, rule, &NONE);
    let mut few = good();
    few.witnesses_required = 2;
    expect(&few, rule, rule, rule, &NONE);
    // Its own nation is no witness, whoever says so.
    let mut own_witness = good();
    own_witness.logged.as_mut().unwrap().witnesses = BTreeSet::from([nation("alba")]);
    expect(&own_witness, rule, rule, rule, &NONE);
    let ours = Facts { own: nation("alba"), nation: nation("alba"), logged: None, ..good() };
    expect(&ours, &NONE, &NONE, &NONE, &NONE);
    let not_asked = Facts { witnesses_required: 0, logged: None, ..good() };
    expect(&not_asked, &NONE, &NONE, &NONE, &NONE);
    let detail = Policy::shipped(1).decide(Action::Admit, &facts).refusals().next().unwrap().detail.clone();
    assert!(detail.contains("the log of alba") && detail.contains("wait until alba"), "{detail}");
}

#[test]
fn files_that_run_code_are_neither_admitted_nor_served() {
    let pickle = UnsafeFile { path: "m.bin".into(), why: "a pickle".into() };
    let facts = Facts { unsafe_files: vec![pickle.clone(), pickle], ..good() };
    let rule: &[&str] = &["safe-formats"];
    expect(&facts, rule, rule, rule, &NONE);
    let decision = Policy::shipped(1).decide(Action::Admit, &facts);
    let detail = &decision.refusals().next().unwrap().detail;
    assert_eq!(detail, "m.bin: a pickle (and 1 more); ask alba for safetensors or GGUF");
}

fn found(nation_name: &str, suite: &str, verdict: Verdict) -> Found {
    Found {
        nation: nation(nation_name),
        suite: suite.into(),
        verdict,
        issued: Facts::default().now.plus(-3600),
    }
}

const TWO_VOUCH: &str = r#"
@id("two-allies-vouch")
@passed("{passes} allies vouch: {passed-by}")
@reason("{passes} allies vouch ({passed-by}), 2 must")
@advice("ask allies to evaluate it: `steelyard attest {model}`")
forbid (principal, action == Action::"admit", resource)
unless { context.passes >= 2 && context.fails == 0 };
"#;

#[test]
fn m_of_n_distinct_nations() {
    let policy = Policy::own("own.cedar", TWO_VOUCH, false, 0).unwrap();
    let ask = |attestations: Vec<Found>| refusing(&policy, Action::Admit, &Facts { attestations, ..good() });
    let pass = |name, suite| found(name, suite, Verdict::Pass);
    assert_eq!(ask(vec![]), ["two-allies-vouch"]);
    assert_eq!(ask(vec![pass("borea", "a"), pass("borea", "b")]), ["two-allies-vouch"]);
    assert_eq!(ask(vec![pass("borea", "a"), pass("alba", "a")]), ["two-allies-vouch"], "the producer itself");
    assert_eq!(ask(vec![pass("borea", "a"), pass("dora", "a")]), NONE);
    let warned = vec![pass("borea", "a"), pass("dora", "a"), found("fara", "b", Verdict::Fail)];
    assert_eq!(ask(warned), ["two-allies-vouch"]);
    let facts = Facts { attestations: vec![pass("borea", "a")], ..good() };
    let decision = policy.decide(Action::Admit, &facts);
    let check = decision.refusals().next().unwrap();
    assert_eq!(
        check.detail,
        "1 allies vouch (borea), 2 must; ask allies to evaluate it: `steelyard attest alba/model`"
    );
    // Only the action that the rule names.
    assert_eq!(refusing(&policy, Action::Mirror, &facts), NONE);
}

#[test]
fn rules_see_suites_lineage_and_other_nations_recalls() {
    let text = r#"
@id("red-team") @reason("no fresh red-team pass by borea") @advice("ask borea")
forbid (principal, action == Action::"admit", resource)
unless { resource.hasTag("borea red-team") && resource.getTag("borea red-team").verdict == "pass"
         && resource.getTag("borea red-team").age < 86400 };
@id("no-dora") @reason("dora is in its lineage") @advice("take another")
forbid (principal, action, resource in Nation::"dora");
@id("obey-borea") @reason("recalled by {recalled-by}") @advice("take another")
forbid (principal, action, resource) when { context.recalledBy.contains(Nation::"borea") };
"#;
    let policy = Policy::own("own.cedar", text, false, 0).unwrap();
    let with = |attestations| Facts { attestations, ..good() };
    assert_eq!(refusing(&policy, Action::Admit, &with(vec![])), ["red-team"]);
    let fresh = with(vec![found("borea", "red-team", Verdict::Pass)]);
    assert_eq!(refusing(&policy, Action::Admit, &fresh), NONE);
    let mut stale = fresh.clone();
    stale.attestations[0].issued = stale.now.plus(-86400);
    assert_eq!(refusing(&policy, Action::Admit, &stale), ["red-team"]);
    let base = Base {
        release: Digest::of(b"b"),
        producer: Some(nation("dora")),
        releasable_to: Some(Releasable::All),
    };
    let derived = Facts { bases: vec![base], ..fresh.clone() };
    assert_eq!(refusing(&policy, Action::Serve, &derived), ["no-dora"]);
    assert_eq!(
        refusing(&policy, Action::Serve, &Facts { model: "dora/m".parse().unwrap(), ..fresh.clone() }),
        ["no-dora"]
    );
    let recall = RecallFact {
        nation: nation("borea"),
        binds: false,
        reason: "against our law".into(),
        severity: Severity::Low,
        issued: fresh.now,
    };
    let recalled = Facts { recalls: vec![recall], ..fresh };
    assert_eq!(refusing(&policy, Action::Serve, &recalled), ["obey-borea"]);
}

#[test]
fn a_rule_that_cant_be_evaluated_refuses() {
    let text = r#"
@id("sum") @reason("too large") @advice("take a smaller one")
forbid (principal, action, resource) when { resource.size + 9223372036854775807 < 0 };"#;
    let policy = Policy::own("own.cedar", text, false, 0).unwrap();
    assert_eq!(refusing(&policy, Action::Serve, &good()), ["sum"]);
    let detail = policy.decide(Action::Serve, &good()).refusals().next().unwrap().detail.clone();
    assert!(detail.contains("can't be evaluated"), "{detail}");
}

#[test]
fn what_no_rule_permits_is_refused() {
    let text = r#"
@id("ours") @advice("only what alba made is served")
permit (principal, action in [Action::"admit", Action::"serve"], resource in Nation::"alba");"#;
    let policy = Policy::own("own.cedar", text, true, 0).unwrap();
    assert_eq!(refusing(&policy, Action::Admit, &good()), NONE);
    let other = Facts { model: "borea/m".parse().unwrap(), ..good() };
    assert_eq!(refusing(&policy, Action::Admit, &other), ["permitted"]);
    let detail = policy.decide(Action::Admit, &other).checks[0].detail.clone();
    assert!(detail.contains("only what alba made is served"), "{detail}");
    assert_eq!(refusing(&policy, Action::Mirror, &good()), ["permitted"]);
}

/// What a text is refused for: line, column, message.
fn defect(text: &str) -> (usize, usize, String) {
    let error = Policy::own("own.cedar", text, false, 0).unwrap_err();
    assert!(error.to_string().contains("own.cedar") && error.to_string().contains("steelyard policy check"));
    let problem = &error.problems[0];
    (
        problem.line,
        problem.column,
        format!("{} {}", problem.message, problem.help.clone().unwrap_or_default()),
    )
}

#[test]
fn a_broken_policy_is_refused_with_line_and_column() {
    let rule = |body: &str| format!("// one line\n@id(\"mine\") @reason(\"r\") @advice(\"a\")\n{body}");
    for (text, line, column, says) in [
        (rule("forbid (principal, action, resource) when { context.nope };"), 3, 45, "nope"),
        (rule("forbid (principal, action, resource) when { resource.size == \"1\" };"), 3, 45, "Long"),
        (
            rule("forbid (principal, action, resource) when { resource.getTag(\"b s\").age > 1 };"),
            3,
            45,
            "tag",
        ),
        (rule("forbid (principal, action == Action::\"fly\", resource);"), 2, 1, "`fly` is no action"),
        (rule("forbid (principal, action, resource) when {"), 3, 44, "unexpected"),
        (rule("forbid (principal == ?principal, action, resource);"), 1, 1, "template"),
        ("\nforbid (principal, action, resource);".to_owned(), 2, 1, "@id"),
        ("@id(\"a b\") permit (principal, action, resource);".to_owned(), 1, 1, "no rule's name"),
        ("@id(\"x\") forbid (principal, action, resource);".to_owned(), 1, 1, "without saying why"),
        (
            "@id(\"x\") @reason(\"{king}\") @advice(\"a\") forbid (principal, action, resource);".to_owned(),
            1,
            1,
            "king",
        ),
        ("@id(\"x\") @because(\"r\") permit (principal, action, resource);".to_owned(), 1, 1, "because"),
        (
            "\n @id(\"logged\") permit (principal, action, resource);".to_owned(),
            2,
            6,
            "there already: default.cedar",
        ),
    ] {
        let (at_line, at_column, message) = defect(&text);
        assert!(message.contains(says), "{text}: {message}");
        assert_eq!((at_line, at_column), (line, column), "{text}: {message}");
    }
    let twice = rule("permit (principal, action, resource);").repeat(2);
    assert!(defect(&twice).2.contains("own.cedar:2"), "{:?}", defect(&twice));
}

#[test]
fn policies_are_bounded() {
    let long = format!("// {}\n", "x".repeat(MAX_POLICY));
    assert!(defect(&long).2.contains("over the limit"));
    let many: String =
        (0..MAX_RULES).map(|n| format!("@id(\"r{n}\") permit (principal, action, resource);\n")).collect();
    assert!(defect(&many).2.contains("rules"));
    assert!(Policy::own("own.cedar", &many, true, 0).is_ok());
    // Nested as deeply as fits: an answer, not a crash; deeper is not read at all.
    let nested = |open: &str, close: &str, depth: usize| {
        let (open, close) = (open.repeat(depth), close.repeat(depth));
        format!("@id(\"d\") permit (principal, action, resource) when {{ {open}true{close} }};")
    };
    for (open, close, tokens) in [
        ("(", ")", 2),
        ("!", "", 1),
        ("true && ", "", 3),
        ("if true then true else ", "", 5),
        ("[", "].contains(true)", 6),
    ] {
        let deep = nested(open, close, (2000 - 20) / tokens);
        if let Ok(policy) = Policy::own("own.cedar", &deep, true, 0) {
            let _ = policy.decide(Action::Admit, &good());
        }
        let error = Policy::own("own.cedar", &nested(open, close, 4000), true, 0).unwrap_err();
        assert!(error.to_string().contains("words and signs"), "{error}");
    }
}

#[test]
fn the_shipped_policy_names_each_of_its_rules_place() {
    let policy = Policy::shipped(0);
    assert_eq!(policy.rules().len(), 9);
    for rule in policy.rules() {
        let line = DEFAULT.lines().nth(rule.place.1 - 1).unwrap();
        assert_eq!(line, format!("@id(\"{}\")", rule.id));
        assert!(!rule.forbids || rule.passed.is_some(), "{}", rule.id);
    }
    assert_ne!(policy.digest(), Policy::shipped(1).digest());
}

#[test]
fn cases_are_compared_with_the_answer() {
    let cases: Cases = serde_json::from_value(serde_json::json!({ "case": [
        { "name": "good", "expect": "allow" },
        { "name": "pickle", "expect": "refuse", "refusedBy": ["safe-formats"],
          "evidence": { "unsafeFiles": [{ "path": "a.bin", "why": "a pickle" }] } },
        { "name": "wrong", "expect": "refuse" },
        { "name": "by another rule", "expect": "refuse", "refusedBy": ["logged"], "evidence": { "standing": "departed" } },
        { "name": "a base", "action": "release", "expect": "refuse", "refusedBy": ["bases-releasable"], "evidence": {
            "nation": "dora",
            "bases": [{ "release": Digest::of(b"x"), "producer": "borea", "releasableTo": ["alba"] }] } },
    ] }))
    .unwrap();
    cases.check().unwrap();
    let outcomes: Vec<_> = cases.run(&Policy::shipped(0)).collect();
    let passed: Vec<bool> = outcomes.iter().map(|outcome| outcome.passed).collect();
    assert_eq!(passed, [true, true, false, false, true], "{outcomes:?}");
    assert!(
        outcomes[3]
            .why
            .as_ref()
            .unwrap()
            .contains("refused by active-nation, and should be refused by logged")
    );
    assert!(Cases::default().check().is_err());
    assert!(
        serde_json::from_str::<Cases>(
            "{\"case\": [{\"name\": \"x\", \"expect\": \"allow\", \"evidence\": {\"colour\": 1}}]}"
        )
        .is_err()
    );
}

#[test]
fn a_thousand_decisions_take_well_under_a_second() {
    let policy = Policy::own("own.cedar", TWO_VOUCH, false, 1).unwrap();
    let facts = Facts {
        attestations: (0..32).map(|n| found("borea", &format!("s{n}"), Verdict::Pass)).collect(),
        ..good()
    };
    let begun = std::time::Instant::now();
    for _ in 0..1000 {
        let _ = policy.decide(Action::Admit, &facts);
    }
    println!("1000 decisions in {:?}", begun.elapsed());
    // Ten times what a loaded machine needs without optimisation.
    assert!(begun.elapsed().as_secs() < 30);
}

/// The blocks of a language in a Markdown text.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence)
        .skip(1)
        .filter_map(|rest| rest.split_once("```").map(|(block, _)| block.to_owned()))
        .collect()
}

#[test]
fn the_examples_for_operators_are_sound() {
    let examples = blocks(include_str!("../../../docs/policy.md"), "cedar");
    assert_eq!(examples.len(), 5);
    let all = examples.concat();
    let policy = Policy::own("docs/policy.md", &all, false, 0).unwrap();
    let attestations = vec![found("borea", "mmlu", Verdict::Pass), found("dora", "mmlu", Verdict::Pass)];
    let fits = Facts { attestations, format: "safetensors".into(), ..good() };
    assert_eq!(refusing(&policy, Action::Admit, &fits), NONE);
    let base = Base {
        release: Digest::of(b"b"),
        producer: Some(nation("nowaria")),
        releasable_to: Some(Releasable::All),
    };
    let health = Facts { bases: vec![base], model: "alba/health-triage".parse().unwrap(), ..fits.clone() };
    assert_eq!(refusing(&policy, Action::Serve, &health), ["no-nowaria-for-health"]);
    assert_eq!(refusing(&policy, Action::Admit, &good()), ["two-of-three-vouch", "only-safetensors"]);
}
