//! Reads the test vectors in `specs/vectors` and runs them. Other crates include this file by path.
#![allow(dead_code, unused_imports, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use registry::conformance::{self, Vector};
use serde_json::Value;

pub use registry::conformance::{Outcome, Runner};

fn specs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../specs")
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Every vector, with its file.
pub fn load() -> Vec<(PathBuf, Vector)> {
    let read = |path: PathBuf| {
        let text = std::fs::read(&path).unwrap();
        let vector = Vector::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, vector)
    };
    files(&specs().join("vectors"), "json").into_iter().map(read).collect()
}

/// Every identifier, such as `MAP-006`, that a document defines as `**[MAP-006]**`.
pub fn identifiers() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in files(&specs(), "md").into_iter().filter(|path| path.parent() == Some(&specs())) {
        for part in std::fs::read_to_string(&path).unwrap().split("**[").skip(1) {
            let name = part.split("]**").next().unwrap();
            let (letters, digits) = name
                .split_once('-')
                .unwrap_or_else(|| panic!("{}: `{name}` is no identifier", path.display()));
            let fits = letters.len() == 3
                && letters.bytes().all(|b| b.is_ascii_uppercase())
                && digits.len() == 3
                && digits.bytes().all(|b| b.is_ascii_digit());
            assert!(fits, "{}: `{name}` is no identifier", path.display());
            assert!(found.insert(name.to_owned()), "{}: {name} is defined twice", path.display());
        }
    }
    found
}

/// Runs every vector of these kinds; panics with all that disagree, and when a kind has no vector at all.
pub fn run(runners: &[(&str, Runner)]) {
    let vectors = load();
    let mut wrong = Vec::new();
    for (kind, runner) in runners {
        let of_kind: Vec<_> = vectors.iter().filter(|(_, vector)| vector.kind == *kind).collect();
        assert!(!of_kind.is_empty(), "no vector of kind {kind}");
        for (path, vector) in of_kind {
            if let Err(why) = vector.compare(&runner(&vector.input), true) {
                wrong.push(format!("{} ({}): {why}", path.display(), vector.title));
            }
        }
    }
    assert!(wrong.is_empty(), "{} vectors disagree:\n{}", wrong.len(), wrong.join("\n"));
}

/// The bytes under `key`.
pub fn bytes(input: &Value, key: &str) -> Vec<u8> {
    conformance::bytes(input, key).unwrap()
}

/// The text under `key`.
pub fn text<'a>(input: &'a Value, key: &str) -> &'a str {
    conformance::text(input, key).unwrap()
}

/// A number.
pub fn number(value: &Value) -> u64 {
    conformance::number(value).unwrap()
}
