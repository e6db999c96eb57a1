//! Documents 05 and 06 against the code: each vector of their kinds comes out as it says.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "../../registry/tests/vectors/mod.rs"]
mod vectors;

#[test]
fn every_vector_comes_out_as_it_says() {
    vectors::run(node::conformance::KINDS);
}

#[test]
fn a_broken_vector_is_said_to_be_broken() {
    for (kind, run) in node::conformance::KINDS {
        let answer = run(&serde_json::json!({}));
        let broken = answer.as_ref().is_err_and(|why| why.starts_with(registry::conformance::BROKEN));
        assert!(broken, "{kind}: {answer:?}");
    }
}
