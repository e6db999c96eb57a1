//! The documents in `specs/` against the code: each identifier has a vector, and each vector comes out as it says.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "specs/attestations.rs"]
mod attestations;
#[path = "specs/bundles.rs"]
mod bundles;
#[path = "specs/codec.rs"]
mod codec;
#[path = "specs/content.rs"]
mod content;
#[cfg(feature = "store")]
#[path = "specs/history.rs"]
mod history;
#[path = "specs/log.rs"]
mod log;
#[cfg(feature = "store")]
#[path = "specs/log_node.rs"]
mod log_node;
#[path = "specs/nations.rs"]
mod nations;
#[path = "specs/statements.rs"]
mod statements;
mod vectors;

use std::collections::BTreeSet;

use vectors::Runner;

/// What this crate runs: one function a kind. A new document adds a module beside `content` and its kinds here.
const KINDS: &[&[(&str, Runner)]] = &[
    content::KINDS,
    statements::KINDS,
    nations::KINDS,
    codec::KINDS,
    attestations::KINDS,
    log::KINDS,
    #[cfg(feature = "store")]
    history::KINDS,
    #[cfg(feature = "store")]
    bundles::KINDS,
    #[cfg(feature = "store")]
    log_node::KINDS,
];

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
    "gossip",
    "announcement",
    "provider-key",
];

#[test]
fn every_vector_comes_out_as_it_says() {
    vectors::run(&KINDS.concat());
}

#[test]
fn every_kind_is_run_somewhere() {
    let known: BTreeSet<&str> =
        KINDS.concat().iter().map(|(kind, _)| *kind).chain(ELSEWHERE.iter().copied()).collect();
    for vector in vectors::load() {
        assert!(
            known.contains(vector.kind.as_str()),
            "{}: nobody runs {}",
            vector.path.display(),
            vector.kind
        );
    }
}

#[test]
fn every_identifier_has_a_vector_and_every_vector_an_identifier() {
    let defined = vectors::identifiers();
    let mut tested = BTreeSet::new();
    for vector in vectors::load() {
        assert!(!vector.identifiers.is_empty(), "{} names no identifier", vector.path.display());
        for identifier in vector.identifiers {
            assert!(
                defined.contains(&identifier),
                "{} names {identifier}, which no document defines",
                vector.path.display()
            );
            tested.insert(identifier);
        }
    }
    let untested: Vec<_> = defined.difference(&tested).collect();
    assert!(untested.is_empty(), "no vector for {untested:?}");
}
