//! The specification's test vectors and how this crate's kinds of them are run.
//!
//! The tests of this repository run them, and so does `steelyard conformance`, here or against another implementation. The
//! form of a vector is in `specs/vectors/README.md`. Nothing here panics: a vector that has not its kind's form is broken,
//! which is an answer of its own.

mod attestations;
#[cfg(feature = "store")]
mod bundle;
mod codec;
mod content;
#[cfg(feature = "store")]
mod history;
mod lease;
#[cfg(feature = "store")]
mod log_node;
mod nations;
mod notes;
mod oms;
#[cfg(feature = "policy")]
mod policy;
mod receipt;
mod statements;
mod tree;
mod vector;
mod witness;

use std::fmt;

use serde_json::Value;

pub use statements::{envelope_code, trust_code};
pub use vector::{Expect, Vector};

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
    for part in [
        content::KINDS,
        statements::KINDS,
        nations::KINDS,
        codec::KINDS,
        tree::KINDS,
        notes::KINDS,
        witness::KINDS,
        attestations::KINDS,
        lease::KINDS,
        oms::KINDS,
        receipt::KINDS,
    ] {
        kinds.extend_from_slice(part);
    }
    #[cfg(feature = "policy")]
    kinds.extend_from_slice(policy::KINDS);
    #[cfg(feature = "store")]
    for part in [history::KINDS, log_node::KINDS, bundle::KINDS] {
        kinds.extend_from_slice(part);
    }
    kinds
}

/// A folder of its own for a vector that needs a store: in memory where there is room for that, since each store is synced
/// as carefully as any.
#[cfg(feature = "store")]
pub fn folder() -> Result<tempfile::TempDir, String> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).map_err(broken)
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
