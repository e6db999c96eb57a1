//! Reads the test vectors in `specs/vectors` (their form is in its README) and compares answers with them.
//!
//! Other crates include this file by path and run the kinds that they implement.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// What an implementation answers: values, or the code of the defect.
pub type Outcome = Result<Value, String>;

/// One way to run a kind of vector.
pub type Runner = fn(&Value) -> Outcome;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    #[serde(skip)]
    pub path: PathBuf,
    pub identifiers: Vec<String>,
    pub title: String,
    pub kind: String,
    pub input: Value,
    pub expect: Expect,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    Ok(Value),
    Error(String),
}

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

/// Every vector.
pub fn load() -> Vec<Vector> {
    files(&specs().join("vectors"), "json")
        .into_iter()
        .map(|path| {
            let text = std::fs::read(&path).unwrap();
            let mut vector: Vector =
                serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            vector.path = path;
            vector
        })
        .collect()
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
        let of_kind: Vec<&Vector> = vectors.iter().filter(|vector| vector.kind == *kind).collect();
        assert!(!of_kind.is_empty(), "no vector of kind {kind}");
        for vector in of_kind {
            if let Err(why) = compare(&vector.expect, runner(&vector.input)) {
                wrong.push(format!("{} ({}): {why}", vector.path.display(), vector.title));
            }
        }
    }
    assert!(wrong.is_empty(), "{} vectors disagree:\n{}", wrong.len(), wrong.join("\n"));
}

fn compare(expect: &Expect, outcome: Outcome) -> Result<(), String> {
    match (expect, outcome) {
        (Expect::Error(code), Err(found)) if *code == found => Ok(()),
        (Expect::Error(code), found) => Err(format!("expected the error `{code}`, got {found:?}")),
        (Expect::Ok(_), Err(found)) => Err(format!("expected an answer, got the error `{found}`")),
        (Expect::Ok(wanted), Ok(found)) => {
            for (key, value) in wanted.as_object().expect("`ok` is an object") {
                if found.get(key) != Some(value) {
                    return Err(format!("expected {key} = {value}, got {:?}", found.get(key)));
                }
            }
            Ok(())
        }
    }
}

/// The bytes under `key`: hexadecimal text, or a list of parts.
pub fn bytes(input: &Value, key: &str) -> Vec<u8> {
    let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).expect("hexadecimal text");
    let parts = match &input[key] {
        Value::String(text) => return hex(text),
        Value::Array(parts) => parts,
        other => panic!("no bytes under {key}: {other}"),
    };
    let mut out = Vec::new();
    for part in parts {
        let (name, value) = part.as_object().unwrap().iter().find(|(name, _)| *name != "times").unwrap();
        match name.as_str() {
            "hex" => out.extend(hex(value.as_str().unwrap())),
            "text" => out.extend(value.as_str().unwrap().bytes()),
            "u32" => out.extend(u32::try_from(number(value)).unwrap().to_le_bytes()),
            "u64" => out.extend(number(value).to_le_bytes()),
            "repeat" => {
                let times = usize::try_from(number(&part["times"])).unwrap();
                out.extend(hex(value.as_str().unwrap()).repeat(times));
            }
            other => panic!("unknown part {other}"),
        }
    }
    out
}

/// The text under `key`.
pub fn text<'a>(input: &'a Value, key: &str) -> &'a str {
    input[key].as_str().unwrap_or_else(|| panic!("no text under {key}"))
}

/// A number, given as such or as decimal text.
pub fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("no number: {value}"))
}
