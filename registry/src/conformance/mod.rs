//! The specification's test vectors and how this crate's kinds of them are run.
//!
//! The tests of this repository run them, and so does `steelyard conformance`, here or against another implementation. The
//! form of a vector is in `specs/vectors/README.md`. Nothing here panics: a vector that has not its kind's form is broken,
//! which is an answer of its own.

mod codec;
mod content;
#[cfg(feature = "store")]
mod history;
mod nations;
mod oms;
mod receipt;
mod statements;

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

pub use statements::{envelope_code, trust_code};

/// What an implementation answers: values, or the code of the defect. A code that begins with [`BROKEN`] means that the
/// vector itself can't be run.
pub type Outcome = Result<Value, String>;

/// One way to run a kind of vector.
pub type Runner = fn(&Value) -> Outcome;

/// How the answer begins that a vector is not of its kind's form.
pub const BROKEN: &str = "broken vector: ";
/// Longest input that a list of parts may make, in bytes: a little over the longest signed statement.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// What this crate runs: one function a kind.
pub fn kinds() -> Vec<(&'static str, Runner)> {
    let mut kinds = Vec::new();
    for part in [content::KINDS, statements::KINDS, nations::KINDS, codec::KINDS, oms::KINDS, receipt::KINDS]
    {
        kinds.extend_from_slice(part);
    }
    #[cfg(feature = "store")]
    kinds.extend_from_slice(history::KINDS);
    kinds
}

/// One vector.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    /// The rules that it tests.
    pub identifiers: Vec<String>,
    /// The defect, or what is right.
    pub title: String,
    /// What is to be done with the input.
    pub kind: String,
    /// What it is done with.
    pub input: Value,
    /// What must come out.
    pub expect: Expect,
}

/// What must come out of a vector.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// These values, and perhaps more.
    Ok(Value),
    /// A refusal, with this code here.
    Error(String),
}

impl Vector {
    /// Reads one file's content.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(json).map_err(|error| format!("{BROKEN}{error}"))
    }

    /// Whether it wants a refusal, or an answer that says no.
    pub fn is_negative(&self) -> bool {
        let refused = |outcome: &Value| {
            outcome.as_str().is_some_and(|outcome| !matches!(outcome, "kept" | "taken" | "known"))
        };
        match &self.expect {
            Expect::Error(_) => true,
            Expect::Ok(ok) => {
                // Answers, verdicts and decisions that refuse; histories in which a step is refused.
                ["admitted", "releasable", "binds", "allowed", "opens"]
                    .iter()
                    .any(|key| ok[*key] == Value::Bool(false))
                    || matches!(ok["answer"].as_str(), Some("not-found" | "recalled" | "refused"))
                    || matches!(ok["safety"].as_str(), Some("may-run-code" | "unknown"))
                    // A page that leaves something out.
                    || ok["digests"].as_array().zip(self.input["statements"].as_array()).is_some_and(
                        |(page, learnt)| page.len() < learnt.len(),
                    )
                    || ok["verdict"].as_u64().is_some_and(|verdict| verdict > 0)
                    || ["statements", "offers", "said"].iter().any(|list| {
                        let steps = self.input[*list].as_array();
                        steps.is_some_and(|steps| steps.iter().any(|step| refused(&step["outcome"])))
                    })
            }
        }
    }

    /// Compares an answer. `codes` asks for the same code of a refusal too, which another implementation need not have.
    pub fn compare(&self, outcome: &Outcome, codes: bool) -> Result<(), String> {
        match (&self.expect, outcome) {
            (_, Err(found)) if found.starts_with(BROKEN) => Err(found.clone()),
            (Expect::Error(code), Err(found)) if !codes || code == found => Ok(()),
            (Expect::Error(code), Err(found)) => Err(format!("expected the refusal `{code}`, got `{found}`")),
            (Expect::Error(code), Ok(found)) => Err(format!("expected the refusal `{code}`, got {found}")),
            (Expect::Ok(_), Err(found)) => Err(format!("expected an answer, got the refusal `{found}`")),
            (Expect::Ok(wanted), Ok(found)) => {
                let wanted = wanted.as_object().ok_or_else(|| broken("`ok` is no object"))?;
                for (key, value) in wanted {
                    if found.get(key) != Some(value) {
                        let got = found.get(key).map_or_else(|| "nothing".to_owned(), Value::to_string);
                        return Err(format!("expected {key} = {value}, got {got}"));
                    }
                }
                Ok(())
            }
        }
    }
}

/// The answer that a vector has not its kind's form.
pub fn broken(why: impl fmt::Display) -> String {
    format!("{BROKEN}{why}")
}

/// What must be so whatever the vector says; a difference is a fault here.
pub fn same<T: PartialEq + fmt::Debug>(one: T, other: T) -> Result<(), String> {
    if one == other { Ok(()) } else { Err(format!("these must be the same: {one:?} and {other:?}")) }
}

/// The bytes under `key`: hexadecimal text, or a list of parts.
pub fn bytes(input: &Value, key: &str) -> Result<Vec<u8>, String> {
    bytes_of(&input[key]).map_err(|why| broken(format!("{key}: {why}")))
}

/// The bytes that `value` stands for.
pub fn bytes_of(value: &Value) -> Result<Vec<u8>, String> {
    let parts = match value {
        Value::String(text) => return hex(text),
        Value::Array(parts) => parts,
        _ => return Err("neither hexadecimal text nor a list of parts".to_owned()),
    };
    let mut out = Vec::new();
    for part in parts {
        let part_of = |name: &str| part.get(name);
        let text_of = |value: &Value| value.as_str().map(str::to_owned).ok_or("a part is no text");
        if let Some(value) = part_of("hex") {
            out.extend(hex(&text_of(value)?)?);
        } else if let Some(value) = part_of("text") {
            out.extend(text_of(value)?.bytes());
        } else if let Some(value) = part_of("u32") {
            let value = u32::try_from(number(value)?).map_err(|_| "a u32 is too large")?;
            out.extend(value.to_le_bytes());
        } else if let Some(value) = part_of("u64") {
            out.extend(number(value)?.to_le_bytes());
        } else if let Some(value) = part_of("repeat") {
            let (unit, times) = (hex(&text_of(value)?)?, size(&part["times"])?);
            if unit.len().saturating_mul(times).saturating_add(out.len()) > MAX_BYTES {
                return Err(format!("more than {MAX_BYTES} bytes"));
            }
            out.extend(unit.repeat(times));
        } else {
            return Err(format!("unknown part {part}"));
        }
    }
    Ok(out)
}

fn hex(text: &str) -> Result<Vec<u8>, String> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|error| format!("not hexadecimal: {error}"))
}

/// The text under `key`.
pub fn text<'a>(input: &'a Value, key: &str) -> Result<&'a str, String> {
    input[key].as_str().ok_or_else(|| broken(format!("no text under {key}")))
}

/// What the text under `key` reads as.
pub fn parsed<T: std::str::FromStr>(input: &Value, key: &str) -> Result<T, String>
where
    T::Err: fmt::Display,
{
    text(input, key)?.parse().map_err(|error| broken(format!("{key}: {error}")))
}

/// A number, given as such or as decimal text.
pub fn number(value: &Value) -> Result<u64, String> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    number.ok_or_else(|| broken(format!("no number: {value}")))
}

/// A number that is a length or a count here.
pub fn size(value: &Value) -> Result<usize, String> {
    usize::try_from(number(value)?).map_err(broken)
}

/// The list under `key`.
pub fn items<'a>(input: &'a Value, key: &str) -> Result<&'a [Value], String> {
    input[key].as_array().map(Vec::as_slice).ok_or_else(|| broken(format!("no list under {key}")))
}
