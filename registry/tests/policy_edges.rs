//! Policies at their limits, and the sentences word by word.
#![cfg(feature = "policy")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use registry::log::Logged;
use registry::policy::*;
use registry::statement::*;
use registry::timestamp::DAY;
use registry::{Digest, Nation, Timestamp, Version};

const NOW: Timestamp = Timestamp::from_unix(1_790_000_000);

fn nation(name: &str) -> Nation {
    Nation::new(name).unwrap()
}

fn nations(names: &[&str]) -> BTreeSet<Nation> {
    names.iter().map(|name| nation(name)).collect()
}

/// What a rule of one's own, which always refuses, makes of a word.
fn word(facts: &Facts, word: &str) -> String {
    let text = format!(
        "@id(\"word\") @reason(\"<{{{word}}}>\") @advice(\"ask\") forbid (principal, action, resource);"
    );
    let decision = Policy::own("own", &text, false, 0).unwrap().decide(Action::Release, facts);
    let said = decision.refusals().find(|check| check.rule == "word").unwrap().detail.clone();
    said.strip_prefix('<').unwrap().strip_suffix(">; ask").unwrap().to_owned()
}

fn facts() -> Facts {
    let attestation = |name: &str, verdict| Found {
        nation: nation(name),
        suite: "s".into(),
        verdict,
        issued: Facts::default().issued,
    };
    Facts {
        own: nation("own"),
        nation: nation("dora"),
        nation_standing: Some(Standing::Suspended),
        release: Digest::of(b"told"),
        model: "alba/lark".parse().unwrap(),
        version: Version::new("7.1").unwrap(),
        standing: Some(Standing::Departed),
        format: "safetensors".into(),
        licence: "MIT".into(),
        releasable_to: Releasable::Nations(nations(&["dora", "fara"])),
        bases: vec![Base {
            release: Digest::of(b"base"),
            producer: Some(nation("borea")),
            releasable_to: Some(Releasable::Nations(nations(&["own"]))),
        }],
        signed_by: vec!["k1".into(), "k2".into()],
        threshold: 3,
        recalls: vec![recall("cora", false, "hearsay"), recall("alba", true, "leaks")],
        unsafe_files: vec![UnsafeFile { path: "m.bin".into(), why: "a pickle".into() }],
        logged: Some(Logged { index: 5, size: 9, witnesses: nations(&["alba", "borea"]), witnessed: None }),
        witnesses_required: 2,
        attestations: vec![attestation("borea", Verdict::Pass), attestation("fara", Verdict::Fail)],
        admitted: true,
        lease_age: Some(61),
        ..Facts::default()
    }
}

fn recall(by: &str, binds: bool, reason: &str) -> RecallFact {
    RecallFact { nation: nation(by), binds, reason: reason.into(), severity: Severity::Critical, issued: NOW }
}

#[test]
fn every_word_says_what_it_stands_for() {
    let facts = facts();
    let (release, ends) = (Digest::of(b"told").to_string(), facts.root_expires.to_string());
    let base = format!("{} of borea", Digest::of(b"base"));
    let recalled = format!("recalled by alba at {NOW} (critical): leaks");
    for (name, said) in [
        ("producer", "alba"),
        ("nation", "dora"),
        ("own", "own"),
        ("model", "alba/lark"),
        ("version", "7.1"),
        ("release", release.as_str()),
        ("format", "safetensors"),
        ("licence", "MIT"),
        ("standing", "departed"),
        ("nation-standing", "suspended"),
        ("root-expires", ends.as_str()),
        ("root-ends", "is valid until"),
        ("admitted-before", "; this was admitted before"),
        ("signers", "2"),
        ("threshold", "3"),
        ("signed-by", "k1, k2"),
        ("releasable-to", "dora, fara"),
        ("restricted-bases", base.as_str()),
        ("recall", recalled.as_str()),
        ("recalled-by", "cora, alba"),
        ("unsafe-files", "m.bin: a pickle"),
        ("logged", "entry 5 of the log of alba, witnessed by borea"),
        ("witnesses-required", "2 other nations"),
        ("passes", "1"),
        ("passed-by", "borea"),
        ("fails", "1"),
        ("failed-by", "fara"),
        ("lease-age", "61 s"),
    ] {
        assert_eq!(word(&facts, name), said, "{name}");
    }
}

#[test]
fn where_there_is_nothing_to_tell_the_words_say_so() {
    let ours = nation("alba");
    let none = Facts {
        own: nation("cora"),
        standing: None,
        signed_by: vec![],
        recalls: vec![],
        witnesses_required: 1,
        ..Facts::default()
    };
    for (name, said) in [
        ("standing", "unknown"),
        ("admitted-before", ""),
        ("signed-by", "nobody"),
        ("releasable-to", "all"),
        ("restricted-bases", "nothing"),
        ("recall", "not recalled"),
        ("recalled-by", "nobody"),
        ("unsafe-files", "no file runs code when it is loaded"),
        ("logged", "its place in the log of alba is not proved here"),
        ("witnesses-required", "1 other nation"),
        ("passed-by", "nobody"),
        ("failed-by", "nobody"),
        ("lease-age", "no lease is in use"),
    ] {
        assert_eq!(word(&none, name), said, "{name}");
    }
    assert_eq!(word(&Facts { own: ours, ..none.clone() }, "logged"), "it is our own");
    let alone = Logged { index: 0, size: 1, witnesses: nations(&["alba"]), witnessed: None };
    let alone = Facts { logged: Some(alone), ..none.clone() };
    assert_eq!(word(&alone, "logged"), "entry 0 of the log of alba, witnessed by no other nation");
    let hearsay = Facts { recalls: vec![recall("cora", false, "hearsay")], ..none.clone() };
    assert!(word(&hearsay, "recall").starts_with("recalled by cora"));
    // A root ends at its second.
    for (seconds, said) in [(-1, "expired at"), (0, "expired at"), (1, "is valid until")] {
        let facts = Facts { root_expires: none.now.plus(seconds), ..none.clone() };
        assert_eq!(word(&facts, "root-ends"), said, "{seconds}");
    }
}

#[test]
fn long_lists_and_texts_are_cut() {
    let keys = |count: usize| Facts {
        signed_by: (0..count).map(|at| format!("k{at}")).collect(),
        ..Facts::default()
    };
    assert_eq!(word(&keys(8), "signed-by"), "k0, k1, k2, k3, k4, k5, k6, k7");
    assert_eq!(word(&keys(9), "signed-by"), "k0, k1, k2, k3, k4, k5, k6, k7 and 1 more");
    assert_eq!(word(&keys(11), "signed-by"), "k0, k1, k2, k3, k4, k5, k6, k7 and 3 more");
    let licence = |count: usize| Facts { licence: "é".repeat(count), ..Facts::default() };
    assert_eq!(word(&licence(400), "licence"), "é".repeat(400));
    assert_eq!(word(&licence(401), "licence"), "é".repeat(400) + "…");
}

const ALL: &str = "permit (principal, action, resource);";

fn alone(text: &str) -> Result<Policy, PolicyError> {
    Policy::own("own.cedar", text, true, 0)
}

fn complaint(text: &str) -> String {
    let error = alone(text).unwrap_err();
    error.problems[0].message.clone()
}

#[test]
fn a_policy_as_large_as_the_limit_is_read_and_a_larger_one_is_not() {
    assert_eq!(MAX_POLICY, 256 << 10);
    let mut text = format!("@id(\"a\") {ALL}\n//");
    text.push_str(&"x".repeat(MAX_POLICY - text.len()));
    alone(&text).unwrap();
    text.push('x');
    assert!(complaint(&text).contains("262145 bytes"), "{}", complaint(&text));
    for witnesses in [0, 1, 7] {
        assert_eq!(Policy::shipped(witnesses).witnesses(), witnesses);
        assert_eq!(
            Policy::own("own", &format!("@id(\"a\") {ALL}"), false, witnesses).unwrap().witnesses(),
            witnesses
        );
    }
    // The default's rules count.
    let many = |count: usize| (0..count).map(|at| format!("@id(\"r{at}\") {ALL}\n")).collect::<String>();
    alone(&many(MAX_RULES)).unwrap();
    assert!(complaint(&many(MAX_RULES + 1)).contains("more than 256 rules"));
    let own = |count| Policy::own("own.cedar", &many(count), false, 0);
    assert_eq!(own(MAX_RULES - 9).unwrap().rules().len(), MAX_RULES);
    assert!(own(MAX_RULES - 8).is_err());
}

#[test]
fn a_rule_of_as_many_words_as_the_limit_is_read_and_a_longer_one_is_not() {
    // Twenty words and signs beside the numbers.
    let rule = |id: &str, numbers: usize| {
        let list = vec!["12"; numbers].join(", ");
        format!("@id(\"{id}\") {} when {{ [{list}].contains(12) }};\n", ALL.trim_end_matches(';'))
    };
    alone(&rule("a", 1980)).unwrap();
    assert!(complaint(&rule("a", 1981)).contains("words and signs"));
    // Each rule has its own count, and what stands between counts for nothing.
    let words = "// many words; \"in a comment\n".repeat(900);
    alone(&(rule("a", 1500) + &words + &rule("b", 1500))).unwrap();
    let error = alone(&(rule("a", 10) + &words + &rule("b", 1981))).unwrap_err();
    assert_eq!(error.problems[0].line, 902);
    // A word is one, however long: another thing is wrong with this one.
    let long = rule("a", 10).replace("[12", &format!("resource has {} && [12", "a_".repeat(3000)));
    assert!(!complaint(&long).contains("words and signs"), "{}", complaint(&long));
}

#[test]
fn rules_are_found_between_comments_and_in_spite_of_strings() {
    let text = format!(
        "// {ALL} \"; not a rule\n\
         @id(\"one\") @advice(\"a; b // \\\" ; c\") {ALL}\n\
         \n  // ; more\n\
         @id(\"two\") {ALL} @id(\"three\")\n{ALL}\n\
         \t@passed(\"\\\\\") @id(\"four\")\n\n{ALL}"
    );
    let policy = alone(&text).unwrap();
    let places: Vec<(&str, usize)> =
        policy.rules().iter().map(|rule| (rule.id.as_str(), rule.place.1)).collect();
    assert_eq!(places, [("one", 2), ("two", 5), ("three", 5), ("four", 7)]);
    assert_eq!(policy.rules()[0].advice.as_deref(), Some("a; b // \" ; c"));
    assert!(policy.rules().iter().all(|rule| !rule.forbids && rule.place.0 == "own.cedar"));
    assert_eq!(policy.texts(), [("own.cedar".to_owned(), text)]);
}

#[test]
fn names_and_sentences_have_their_limits() {
    let id = |id: &str| alone(&format!("@id(\"{id}\") {ALL}"));
    for fits in ["a", "7", "-", "z9-", "a".repeat(64).as_str()] {
        assert_eq!(id(fits).unwrap().rules()[0].id, fits);
    }
    for wrong in ["", "A", "a_b", "a b", "é", "a".repeat(65).as_str()] {
        assert!(id(wrong).is_err(), "{wrong}");
    }
    let said = |text: &str| {
        let rule = format!("@id(\"a\") @passed(\"{text}\") @reason(\"r\") @advice(\"b\") forbid");
        alone(&ALL.replace("permit", &rule))
    };
    said(&"x".repeat(1024)).unwrap();
    for wrong in ["x".repeat(1025).as_str(), "two\\nlines", "a\\tb", "{", "}", "{nobody}"] {
        assert!(said(wrong).is_err(), "{wrong}");
    }
    // Both sentences, and something in them.
    for (reason, advice, fits) in [("r", "a", true), ("", "a", false), ("r", "", false), (" ", "a", false)] {
        let text = format!("@id(\"a\") @reason(\"{reason}\") @advice(\"{advice}\") forbid");
        assert_eq!(alone(&ALL.replace("permit", &text)).is_ok(), fits, "{reason}/{advice}");
    }
    for one in ["@reason(\"r\")", "@advice(\"a\")"] {
        let text = format!("@id(\"a\") {one} forbid");
        assert!(complaint(&ALL.replace("permit", &text)).contains("without saying why"));
    }
}

#[test]
fn so_many_defects_are_told_and_no_more() {
    let broken = |count: usize| alone(&format!("{ALL}\n").repeat(count)).unwrap_err();
    assert_eq!(broken(1).problems.len(), 1);
    assert!(!broken(1).to_string().contains("more)"));
    assert!(broken(2).to_string().contains("(and 1 more)"));
    let all = broken(40);
    assert_eq!(all.problems.len(), 32);
    assert!(all.to_string().contains("(and 31 more)"), "{all}");
    let lines: Vec<usize> = all.problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, (1..=32).collect::<Vec<_>>());
    // Columns are counted in characters.
    let error = alone(&format!("@id(\"a\") @advice(\"éé\") {ALL} {ALL}")).unwrap_err();
    assert_eq!((error.problems[0].line, error.problems[0].column), (1, 62));
}

/// A rule of the floor's name that lets pass what no policy can allow is overruled; one that refuses speaks for itself.
#[test]
fn the_floor_overrules_a_rule_of_its_name() {
    let rule = |condition: &str| {
        let text = format!(
            "@id(\"all\") {ALL} @id(\"not-recalled\") @reason(\"mine\") @advice(\"b\") {}",
            ALL.replace("permit", "forbid").replace(';', &format!(" when {{ {condition} }};"))
        );
        alone(&text).unwrap()
    };
    let recalled = Facts { recalls: vec![recall("alba", true, "leaks")], ..Facts::default() };
    let told = |policy: &Policy, facts: &Facts| -> Vec<(String, bool, String)> {
        let decision = policy.decide(Action::Admit, facts);
        assert_eq!(decision.allowed, decision.checks.iter().all(|check| check.passed));
        decision.checks.into_iter().map(|check| (check.rule, check.passed, check.detail)).collect()
    };
    let never = told(&rule("context.now < 0"), &recalled);
    assert_eq!(never.len(), 1);
    assert!(never[0].0 == "not-recalled" && !never[0].1 && never[0].2.contains("leaks"), "{never:?}");
    let always = told(&rule("context.now > 0"), &recalled);
    assert_eq!(always, [("not-recalled".to_owned(), false, "mine; b".to_owned())]);
    let fine = told(&rule("context.now < 0"), &Facts::default());
    assert_eq!(fine, [("not-recalled".to_owned(), true, "satisfied".to_owned())]);
    // As many signatures as the threshold, one more, one less; a release to an ally was admitted before.
    let lax = alone(&format!("@id(\"all\") {ALL}")).unwrap();
    for (count, fits) in [(1, false), (2, true), (3, true)] {
        let facts = Facts { signed_by: vec!["k".into(); count], threshold: 2, ..Facts::default() };
        for action in Action::ALL {
            let allowed = lax.decide(action, &facts).allowed;
            assert_eq!(allowed, fits || action == Action::Release, "{count} {action}");
        }
    }
}

#[test]
fn what_is_not_permitted_names_what_would_be() {
    let text = "@id(\"ours\") @advice(\"A\") permit (principal, action == Action::\"admit\", resource in Nation::\"dora\");
        @id(\"theirs\") permit (principal, action == Action::\"admit\", resource in Nation::\"fara\");
        @id(\"serving\") @advice(\"C\") permit (principal, action == Action::\"serve\", resource in Nation::\"fara\");
        @id(\"size\") @reason(\"r\") @advice(\"a\") forbid (principal, action, resource) when { resource.size > 200000000 };";
    let policy = alone(text).unwrap();
    let refusals = |action, facts: &Facts| -> Vec<(String, String)> {
        let decision = policy.decide(action, facts);
        decision.refusals().map(|check| (check.rule.clone(), check.detail.clone())).collect()
    };
    let pair = |rule: &str, detail: &str| vec![(rule.to_owned(), detail.to_owned())];
    assert_eq!(
        refusals(Action::Admit, &Facts::default()),
        pair("permitted", "no `permit` covers it: A; theirs")
    );
    assert_eq!(refusals(Action::Serve, &Facts::default()), pair("permitted", "no `permit` covers it: C"));
    assert_eq!(
        refusals(Action::Mirror, &Facts::default()),
        pair("permitted", "no rule of the policy permits `mirror`; add a `permit` for it")
    );
    // A rule that refuses is enough said.
    let large = Facts { size: 200_000_001, ..Facts::default() };
    assert_eq!(refusals(Action::Admit, &large), pair("size", "r; a"));
    let actions: Vec<usize> = policy.rules().iter().map(|rule| rule.actions.len()).collect();
    assert_eq!(actions, [1, 1, 1, 4]);
}

#[test]
fn as_many_cases_as_the_limit_are_run_and_no_more() {
    let case = |expect, action, refused_by: Option<Vec<&str>>| Case {
        name: "c".into(),
        action,
        evidence: Facts { threshold: 2, ..Facts::default() },
        expect,
        refused_by: refused_by.map(|rules| rules.into_iter().map(str::to_owned).collect()),
    };
    let many = |count| Cases { cases: vec![case(Expected::Refuse, Action::Admit, None); count] };
    assert!(many(0).check().is_err());
    many(1).check().unwrap();
    many(MAX_CASES).check().unwrap();
    assert!(many(MAX_CASES + 1).check().unwrap_err().contains("10001"));
    let policy = Policy::shipped(0);
    for (case, why) in [
        (case(Expected::Refuse, Action::Admit, None), None),
        (case(Expected::Refuse, Action::Admit, Some(vec!["signatures", "signatures"])), None),
        (
            case(Expected::Refuse, Action::Admit, Some(vec!["logged", "b"])),
            Some("it was refused by signatures, and should be refused by logged, b"),
        ),
        (
            case(Expected::Allow, Action::Serve, None),
            Some("it was refused by signatures, and should be allowed"),
        ),
        (case(Expected::Allow, Action::Release, None), None),
        (case(Expected::Refuse, Action::Release, None), Some("it was allowed, and should be refused")),
        (
            case(Expected::Allow, Action::Release, Some(vec!["logged"])),
            Some("it was allowed, and should be refused by logged"),
        ),
    ] {
        let outcome = case.run(&policy);
        assert_eq!((outcome.why.as_deref(), outcome.passed), (why, why.is_none()));
        assert_eq!(outcome.decision.allowed, case.action == Action::Release);
    }
    let read: Cases = serde_json::from_str("{\"case\": [{\"name\": \"x\", \"expect\": \"allow\"}]}").unwrap();
    assert_eq!(read.cases[0].action, Action::Admit);
}

#[test]
fn what_is_left_out_of_the_facts_is_filled_in() {
    let facts = Facts::default();
    assert_eq!(facts.issued, facts.now.plus(-DAY));
    let told = "{\"recalls\": [{\"nation\": \"alba\", \"binds\": true}],
        \"attestations\": [{\"nation\": \"alba\", \"suite\": \"s\", \"verdict\": \"pass\"}]}";
    let read: Facts = serde_json::from_str(told).unwrap();
    assert_eq!((read.recalls[0].severity, read.recalls[0].issued), (Severity::High, facts.issued));
    assert_eq!(read.attestations[0].issued, facts.issued);
    for action in Action::ALL {
        assert_eq!(action.to_string().parse::<Action>().unwrap(), action);
    }
    assert!("fly".parse::<Action>().unwrap_err().contains("`fly` is no action"));
}

/// The shipped rules ask for enough, and for no exact number; each refuses at each of its doors, with its own advice.
#[test]
fn more_than_enough_is_enough() {
    let shipped = Policy::shipped(1);
    let signed = |count, threshold| Facts {
        signed_by: vec!["k".into(); count],
        threshold,
        logged: Some(Logged { index: 1, size: 2, witnesses: nations(&["borea", "dora"]), witnessed: None }),
        witnesses_required: 1,
        ..Facts::default()
    };
    for action in Action::ALL {
        for (count, threshold) in [(2, 2), (3, 2), (9, 1)] {
            assert!(shipped.decide(action, &signed(count, threshold)).allowed, "{action} {count}");
        }
    }
    for action in [Action::Admit, Action::Mirror, Action::Serve] {
        let decision = shipped.decide(action, &signed(1, 2));
        let refusals: Vec<_> = decision.refusals().collect();
        assert_eq!(refusals.len(), 1);
        assert_eq!(
            refusals[0].detail,
            "signed by 1 of the 2 required release keys of alba: k; ask alba for the missing signatures"
        );
        assert_eq!(decision.checks.iter().filter(|check| check.rule == "signatures").count(), 1);
    }
}
