//! Document 09: what a policy decides, and which policy files are refused.

use crate::policy::{Action, Facts, Policy, PolicyError};
use serde_json::{Value, json};

use super::{Outcome, Runner, broken, bytes, parsed, same};

pub(super) const KINDS: &[(&str, Runner)] = &[("decision", decision), ("policy-file", policy_file)];

fn load(text: &str, input: &Value) -> Result<Policy, PolicyError> {
    Policy::own("vector", text, input["alone"].as_bool().unwrap_or(false), 0)
}

fn decision(input: &Value) -> Outcome {
    let facts: Facts = serde_json::from_value(input["evidence"].clone()).map_err(broken)?;
    let action: Action = parsed(input, "action")?;
    let policy = match input.get("policy") {
        Some(text) => {
            load(text.as_str().ok_or_else(|| broken("the policy is no text"))?, input).map_err(broken)?
        }
        None => (*Policy::shipped(0)).clone(),
    };
    let decision = policy.decide(action, &facts);
    let mut refusing: Vec<&str> = decision.refusals().map(|check| check.rule.as_str()).collect();
    refusing.sort_unstable();
    // Whoever reads a refusal learns what was seen.
    let said = |detail: &str| !detail.is_empty() && !detail.contains('{');
    same(decision.checks.iter().all(|check| said(&check.detail)), true)?;
    Ok(json!({ "allowed": decision.allowed, "refusedBy": refusing }))
}

fn policy_file(input: &Value) -> Outcome {
    let text = String::from_utf8(bytes(input, "payload")?).map_err(broken)?;
    match load(&text, input) {
        Ok(policy) => Ok(json!({ "rules": policy.rules().len() })),
        // The line of the first defect.
        Err(error) => {
            let line = error.problems.first().map(|problem| problem.line);
            Err(line.map_or_else(|| "a refusal without a problem".to_owned(), |line| format!("line-{line}")))
        }
    }
}
