//! The specification's vectors by the command, here and against the verifier in Python, and against implementations that err.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use serde_json::Value;
use tests::{Home, Net, python};

fn home(net: &Net) -> Home {
    net.nation("alba")
}

fn count(report: &Value, what: &str) -> u64 {
    report["all"][what].as_u64().unwrap()
}

/// Kinds of documents 08 to 10 whose runners are tests of `registry`, not yet part of it.
const TESTS_ALONE: &[&str] = &[
    "attestations",
    "bundle",
    "checkpoint",
    "cosignatures",
    "decision",
    "fork-evidence",
    "lease",
    "log-consistency",
    "log-entry",
    "log-inclusion",
    "log-node",
    "log-proof",
    "log-root",
    "note",
    "note-key",
    "policy-file",
    "tile",
    "tile-path",
    "witness",
    "witness-request",
];

/// Kinds that the verifier does not know: files of weights, cuts by content, the wire, bundles, Cedar, and what a node does
/// with it.
const BEYOND: &[&str] = &[
    "announcement",
    "availability",
    "blob-answer",
    "blob-order",
    "blob-request",
    "bundle",
    "chunk-range",
    "content-cuts",
    "decision",
    "encoded-chunk",
    "feed",
    "feed-page",
    "feed-request",
    "file-kind",
    "frame",
    "gguf",
    "gossip",
    "hello-opener",
    "log-answer",
    "log-node",
    "log-request",
    "map-limit",
    "permission",
    "policy-file",
    "provider-key",
    "safetensors",
];

#[test]
fn every_vector_comes_out_here() {
    let net = Net::new();
    let report = home(&net).json(&["conformance"]);
    let (vectors, negative) = (count(&report, "vectors"), count(&report, "negative"));
    println!("bar vectors {vectors} (goal >= 200)");
    println!("bar negative {} % (goal >= 60 %)", negative * 100 / vectors);
    assert!(vectors >= 200 && negative * 10 >= vectors * 6, "{report:#}");
    assert_eq!(count(&report, "failed"), 0, "{report:#}");
    for kind in report["unsupported_kinds"].as_array().unwrap() {
        assert!(TESTS_ALONE.contains(&kind.as_str().unwrap()), "{kind} is run nowhere");
    }
}

#[test]
fn the_verifier_in_python_agrees_on_all_that_it_knows() {
    let net = Net::new();
    let report = home(&net).json(&["conformance", "--against", &python::verifier()]);
    assert_eq!(count(&report, "failed"), 0, "{:#}", report["failures"]);
    println!("bar agreed {} of {}", count(&report, "passed"), count(&report, "vectors"));
    for kind in report["unsupported_kinds"].as_array().unwrap() {
        assert!(BEYOND.contains(&kind.as_str().unwrap()), "the verifier does not know {kind}");
    }
}

/// Whoever believes everything fails every negative vector, and is told which.
#[test]
fn an_implementation_that_believes_everything_is_found_out() {
    let net = Net::new();
    let home = home(&net);
    let credulous = "sed -u 's/.*\"id\":\\([0-9]*\\).*/{\"id\":\\1,\"ok\":{}}/'";
    let run = home.run(&["conformance", "--only", "04", "--against", credulous]);
    run.expect(4, &["expected the refusal", "did not come out"]);
    let run = home.run(&["conformance", "--only", "02", "--against", credulous, "--json"]);
    run.expect(4, &[]);
    assert!(count(&run.json(), "failed") > 100);
}

#[test]
fn an_implementation_that_does_not_speak_the_protocol_is_told_so() {
    let net = Net::new();
    let home = home(&net);
    for (command, why) in [
        ("true", "it ended"),
        ("while read -r line; do echo yes; done", "can't be read"),
        ("while read -r line; do echo '{\"id\":0,\"ok\":{}}'; done", "when 1 was asked"),
        ("while read -r line; do echo '{\"id\":1}'; done", "exactly one of"),
    ] {
        home.run(&["conformance", "--only", "04", "--against", command]).expect(4, &[why]);
    }
}

#[test]
fn vectors_of_a_folder_are_read_with_care() {
    let net = Net::new();
    let home = home(&net);
    let folder = net.folder("vectors");
    let path = folder.to_str().unwrap();
    home.run(&["conformance", "--vectors", path]).expect(3, &["holds no vectors"]);
    home.run(&["conformance", "--only", "99"]).expect(3, &["no vector is of 99"]);
    let file = net.folder("vectors/02").join("one.json");
    std::fs::write(&file, "{").unwrap();
    home.run(&["conformance", "--vectors", path]).expect(4, &["02/one.json"]);
    std::fs::write(
        &file,
        r#"{"identifiers":["NAM-001"],"title":"A false one","kind":"name","input":{"what":"nation","text":"alba"},"expect":{"error":"name"}}"#,
    )
    .unwrap();
    home.run(&["conformance", "--vectors", path]).expect(4, &["A false one", "expected the refusal `name`"]);
}
