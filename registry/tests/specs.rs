//! The documents in `specs/` against the code: each identifier has a vector, and each vector comes out as it says.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod vectors;

use std::collections::BTreeSet;

use registry::conformance;
use serde_json::{Value, json};

/// Kinds that other crates run, with a test of the same form.
const ELSEWHERE: &[&str] = &[
    // node/tests/specs.rs
    "hello",
    "verdict",
    "hello-answer",
    "verdicts",
    "hello-opener",
    "frame",
    "blob-request",
    "blob-order",
    "blob-answer",
    "availability",
    "chunk-range",
    "map-limit",
    "permission",
    "feed",
    "feed-request",
    "feed-page",
    "log-request",
    "log-answer",
    "gossip",
    "announcement",
    "provider-key",
    // Not without the store, and without the policy language.
    #[cfg(not(feature = "store"))]
    "history",
    #[cfg(not(feature = "store"))]
    "bundle",
    #[cfg(not(feature = "store"))]
    "log-node",
    #[cfg(not(feature = "policy"))]
    "decision",
    #[cfg(not(feature = "policy"))]
    "policy-file",
];

#[test]
fn every_vector_comes_out_as_it_says() {
    vectors::run(&conformance::kinds());
}

#[test]
fn every_kind_is_run_somewhere() {
    let run = conformance::kinds();
    let known: BTreeSet<&str> = run.iter().map(|(kind, _)| *kind).chain(ELSEWHERE.iter().copied()).collect();
    for (path, vector) in vectors::load() {
        assert!(known.contains(vector.kind.as_str()), "{}: nobody runs {}", path.display(), vector.kind);
    }
}

#[test]
fn every_identifier_has_a_vector_and_every_vector_an_identifier() {
    let defined = vectors::identifiers();
    let mut tested = BTreeSet::new();
    for (path, vector) in vectors::load() {
        assert!(!vector.identifiers.is_empty(), "{} names no identifier", path.display());
        for identifier in vector.identifiers {
            assert!(
                defined.contains(&identifier),
                "{} names {identifier}, which no document defines",
                path.display()
            );
            tested.insert(identifier);
        }
    }
    let untested: Vec<_> = defined.difference(&tested).collect();
    assert!(untested.is_empty(), "no vector for {untested:?}");
}

/// Rules that say how something is computed, or what is taken in spite of something: they have nothing to refuse.
const NOTHING_TO_REFUSE: &[&str] = &[
    // What a hash, an encoding, a name is; what differs comes out otherwise.
    "DIG-001", "MAP-001", "CUT-001", "CUT-002", "ENV-011", "NRT-018", "BLB-006", "DSC-001", "LOG-002",
    "LOG-016", "LOG-045", "ATC-004", "OMS-013", "OMS-014",
    // What is taken, or changes nothing.
    "NRT-016", "MEM-006", "LSE-004",
    // That something is durable before it is shown: a crash test's matter.
    "LOG-041",
];

#[test]
fn every_rule_that_refuses_has_a_negative_vector() {
    let mut positive = BTreeSet::new();
    let mut negative = BTreeSet::new();
    for (_, vector) in vectors::load() {
        let tested = if vector.is_negative() { &mut negative } else { &mut positive };
        tested.extend(vector.identifiers);
    }
    positive.retain(|rule| !negative.contains(rule) && !NOTHING_TO_REFUSE.contains(&rule.as_str()));
    assert!(positive.is_empty(), "no negative vector for {positive:?}");
}

#[test]
fn most_vectors_are_negative() {
    let all = vectors::load();
    let negative = all.iter().filter(|(_, vector)| vector.is_negative()).count();
    assert!(all.len() >= 200 && negative * 10 >= all.len() * 6, "{negative} of {} are negative", all.len());
}

/// What can stand where something else belongs; none of it is the size of anything.
fn strange() -> [Value; 8] {
    [
        json!(null),
        json!(-7),
        json!(7),
        json!("x"),
        json!([]),
        json!([[7], null]),
        json!({}),
        json!({ "hex": [] }),
    ]
}

/// Whatever stands in a vector of somebody else's, it is answered, and nothing is kept waiting or falls over.
#[test]
fn a_damaged_vector_is_answered() {
    let vectors = vectors::load();
    for (kind, run) in conformance::kinds() {
        let (path, vector) = vectors.iter().find(|(_, vector)| vector.kind == kind).unwrap();
        for key in vector.input.as_object().unwrap().keys() {
            for other in strange() {
                let mut input = vector.input.clone();
                input[key] = other;
                let answer = run(&input);
                assert!(
                    answer.is_ok() || answer.is_err_and(|why| !why.is_empty()),
                    "{}: {key}",
                    path.display()
                );
            }
        }
    }
}

/// A vector that is damaged is told from one that fails, and nothing panics over it.
#[test]
fn a_broken_vector_is_said_to_be_broken() {
    for (kind, run) in conformance::kinds() {
        for input in [json!({}), json!(null), json!({"bytes": 7, "text": []})] {
            let answer = run(&input);
            assert!(
                answer.as_ref().is_err_and(|why| why.starts_with(conformance::BROKEN)),
                "{kind}: {answer:?}"
            );
        }
    }
}
