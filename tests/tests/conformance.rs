//! The specification's vectors by the command, here and against the verifier in Python, and against implementations that err.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::Path;

use serde_json::Value;
use tests::{Home, Net, python};

fn home(net: &Net) -> Home {
    net.nation("alba")
}

fn count(report: &Value, what: &str) -> u64 {
    report["all"][what].as_u64().unwrap()
}

#[test]
fn every_vector_comes_out_here() {
    let net = Net::new();
    let report = home(&net).json(&["conformance"]);
    let (vectors, negative) = (count(&report, "vectors"), count(&report, "negative"));
    println!("bar vectors {vectors} (goal >= 200)");
    println!("bar negative {} % (goal >= 60 %)", negative * 100 / vectors);
    assert!(vectors >= 200 && negative * 10 >= vectors * 6, "{report:#}");
    assert_eq!(count(&report, "failed"), 0, "{report:#}");
    assert_eq!(count(&report, "passed"), vectors, "{}", report["unsupported_kinds"]);
}

#[test]
fn the_verifier_in_python_agrees_on_all() {
    let net = Net::new();
    let report = home(&net).json(&["conformance", "--against", &python::verifier()]);
    assert_eq!(count(&report, "failed"), 0, "{:#}", report["failures"]);
    println!("bar agreed {} of {}", count(&report, "passed"), count(&report, "vectors"));
    assert_eq!(count(&report, "unsupported"), 0, "{}", report["unsupported_kinds"]);
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

/// The example in `specs/README.md` is run here, and the kit says of it what stands there.
#[test]
fn the_example_in_the_documents_comes_out_as_they_say() {
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("../specs/README.md");
    let text = std::fs::read_to_string(text).unwrap();
    let block = |language: &str| {
        let (_, rest) = text.split_once(&format!("```{language}\n")).unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    let net = Net::new();
    let home = home(&net);
    let file = net.folder("example").join("digests.py");
    let command = format!("'{}' -B '{}'", python::interpreter().display(), file.display());
    let args = ["conformance", "--only", "01", "--against", &command];

    std::fs::write(&file, block("python")).unwrap();
    let shown = block("text");
    // The table's numbers grow with the vectors; what is said below it stays.
    let (_, said) = shown.split_once("\u{2717} ").unwrap();
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    home.run(&args).expect(4, &lines);

    std::fs::write(&file, block("python").replace("0-9a-fA-F", "0-9a-f")).unwrap();
    let report = home.json(&args);
    assert_eq!((count(&report, "failed"), count(&report, "passed")), (0, 16), "{report:#}");
}
