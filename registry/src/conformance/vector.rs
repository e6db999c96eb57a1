//! The form of a vector, and how an answer is compared with it.

use serde::Deserialize;
use serde_json::Value;

use super::{BROKEN, Outcome};

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
        match &self.expect {
            Expect::Error(_) => true,
            Expect::Ok(ok) => says_no(ok) || self.leaves_out(ok) || self.refuses_a_step(),
        }
    }

    /// Whether something in the input counts for nothing in the answer.
    fn leaves_out(&self, ok: &Value) -> bool {
        let fewer = |counted: usize, given: usize| counted < given;
        let given = self.input["statements"].as_array().map_or(0, Vec::len);
        match self.kind.as_str() {
            // A page that leaves a statement out.
            "feed" => ok["digests"].as_array().is_some_and(|page| fewer(page.len(), given)),
            "attestations" => {
                let said = ["passedBy", "failedBy", "inconclusiveBy"];
                fewer(said.iter().filter_map(|list| ok[*list].as_array()).map(Vec::len).sum(), given)
            }
            "note" => ok["signed"].as_array().is_some_and(|keys| keys.contains(&Value::Bool(false))),
            // One line is the log's own.
            "cosignatures" => ok["witnesses"].as_object().is_some_and(|nations| {
                let note = super::bytes(&self.input, "bytes").unwrap_or_default();
                fewer(nations.len() + 1, String::from_utf8_lossy(&note).matches("\n\u{2014} ").count())
            }),
            "bundle" => ok["skipped"].as_u64().is_some_and(|skipped| skipped > 0),
            _ => false,
        }
    }

    /// Whether a step of a history is refused.
    fn refuses_a_step(&self) -> bool {
        let refused = |outcome: &str| !matches!(outcome, "kept" | "taken" | "known");
        // Of what a node does with logs, what it answers when it does nothing.
        let undone = |outcome: &str| {
            let short = outcome.split(' ').next().unwrap_or_default();
            matches!(
                outcome,
                "unconfirmed" | "key" | "entries" | "unsigned" | "too-long" | "disputed" | "refused"
            ) || matches!(short, "behind" | "fork" | "400" | "403" | "404" | "409" | "422")
        };
        let any = |list: &str, test: &dyn Fn(&str) -> bool| {
            let steps = self.input[list].as_array();
            steps.is_some_and(|steps| steps.iter().any(|step| step["outcome"].as_str().is_some_and(test)))
        };
        ["statements", "offers", "said"].iter().any(|list| any(list, &refused)) || any("steps", &undone)
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
                let wanted = wanted.as_object().ok_or_else(|| super::broken("`ok` is no object"))?;
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

/// Whether an answer, a verdict or a decision refuses.
fn says_no(ok: &Value) -> bool {
    ["admitted", "releasable", "binds", "allowed", "opens"].iter().any(|key| ok[*key] == Value::Bool(false))
        || matches!(ok["answer"].as_str(), Some("not-found" | "recalled" | "refused"))
        || matches!(ok["safety"].as_str(), Some("may-run-code" | "unknown"))
        || ok["state"].as_str() == Some("ended")
        || ok["verdict"].as_u64().is_some_and(|verdict| verdict > 0)
}
