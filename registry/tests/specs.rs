//! The documents in `specs/` against the code: each identifier has a vector, and each vector comes out as it says.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

// Documents 08 to 10 are run here for now; what is in `registry::conformance` can be run by others too.
#[cfg(feature = "store")]
#[path = "specs/attestations.rs"]
mod attestations;
#[cfg(feature = "store")]
#[path = "specs/bundles.rs"]
mod bundles;
#[path = "specs/log.rs"]
mod log;
#[cfg(feature = "store")]
#[path = "specs/log_node.rs"]
mod log_node;
mod vectors;

use std::collections::BTreeSet;

use registry::conformance;
use vectors::Runner;

fn kinds() -> Vec<(&'static str, Runner)> {
    let mut kinds = conformance::kinds();
    kinds.extend_from_slice(log::KINDS);
    #[cfg(feature = "store")]
    for more in [attestations::KINDS, bundles::KINDS, log_node::KINDS] {
        kinds.extend_from_slice(more);
    }
    kinds
}

/// Kinds that other crates run, with a test of the same form.
const ELSEWHERE: &[&str] = &[
    // Here, with the store.
    "history",
    "log-node",
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
    // Without the store, the library does not run them itself.
    #[cfg(not(feature = "store"))]
    "history",
    #[cfg(not(feature = "store"))]
    "attestations",
    #[cfg(not(feature = "store"))]
    "decision",
    #[cfg(not(feature = "store"))]
    "policy-file",
    #[cfg(not(feature = "store"))]
    "bundle",
    #[cfg(not(feature = "store"))]
    "lease",
    #[cfg(not(feature = "store"))]
    "log-node",
];

#[test]
fn every_vector_comes_out_as_it_says() {
    vectors::run(&kinds());
}

#[test]
fn every_kind_is_run_somewhere() {
    let run = kinds();
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
    "DIG-001", "MAP-001", "CUT-001", "CUT-002", "ENV-011", "NRT-018", "BLB-006", "DSC-001", "ATC-004",
    "OMS-013", "OMS-014", // What is taken, or changes nothing.
    "NRT-016", "MEM-006",
];

/// Documents whose vectors are finished. The others' join when they are.
const FINISHED: &[&str] = &["01", "02", "03", "04", "05", "06", "07", "11", "12"];

#[test]
fn every_rule_that_refuses_has_a_negative_vector() {
    let mut positive = BTreeSet::new();
    let mut negative = BTreeSet::new();
    for (path, vector) in vectors::load() {
        let document = path.parent().and_then(|folder| folder.file_name()).unwrap();
        if FINISHED.iter().any(|finished| document == *finished) {
            let tested = if vector.is_negative() { &mut negative } else { &mut positive };
            tested.extend(vector.identifiers);
        }
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

/// A vector that is damaged is told from one that fails, and nothing panics over it.
#[test]
fn a_broken_vector_is_said_to_be_broken() {
    for (kind, run) in conformance::kinds() {
        for input in
            [serde_json::json!({}), serde_json::json!(null), serde_json::json!({"bytes": 7, "text": []})]
        {
            let answer = run(&input);
            assert!(
                answer.as_ref().is_err_and(|why| why.starts_with(conformance::BROKEN)),
                "{kind}: {answer:?}"
            );
        }
    }
}
