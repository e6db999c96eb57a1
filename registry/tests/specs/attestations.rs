//! Document 09: what attestations come to, what a policy decides, and which policy files are refused.

use registry::policy::{Action, Facts, Policy, in_force, tally};
use registry::statement::{Attestation, Statement};
use registry::trust::Trust;
use registry::{Digest, Nation, Signed, Timestamp};
use serde_json::{Value, json};

use crate::vectors::{Outcome, Runner, bytes, text};

pub(crate) const KINDS: &[(&str, Runner)] =
    &[("attestations", attestations), ("decision", decision), ("policy-file", policy_file)];

fn attestations(input: &Value) -> Outcome {
    let now: Timestamp = text(input, "now").parse().unwrap();
    let release: Digest = text(input, "release").parse().unwrap();
    let producer = Nation::new(text(input, "producer")).unwrap();
    let mut trust = Trust::new(Nation::new("fara").unwrap());
    for at in 0..input["roots"].as_array().unwrap().len() {
        let one = json!({ "root": input["roots"][at] });
        pin(&mut trust, &Signed::parse(&bytes(&one, "root")).unwrap());
    }
    let mut believed: Vec<Attestation> = Vec::new();
    for statement in input["statements"].as_array().unwrap() {
        let signed = Signed::parse(statement.as_str().unwrap().as_bytes()).unwrap();
        if let Ok(verified) = trust.verify(&signed, now)
            && let Statement::Attestation(attestation) = verified.get()
        {
            believed.push(attestation.clone());
        }
    }
    let count = |all: &[Attestation]| {
        tally(in_force(all, &release, now).iter().map(|it| (&it.nation, it.verdict)), &producer)
    };
    let found = count(&believed);
    // The order of arrival decides nothing.
    believed.reverse();
    assert_eq!(count(&believed), found);
    Ok(serde_json::to_value(found).unwrap())
}

fn load(text: &str, input: &Value, witnesses: u32) -> Result<Policy, registry::policy::PolicyError> {
    Policy::own("vector", text, input["alone"].as_bool().unwrap_or(false), witnesses)
}

fn decision(input: &Value) -> Outcome {
    let facts: Facts = serde_json::from_value(input["evidence"].clone()).unwrap();
    let action: Action = text(input, "action").parse().unwrap();
    let policy = match input.get("policy") {
        Some(text) => load(text.as_str().unwrap(), input, 0).unwrap(),
        None => (*Policy::shipped(0)).clone(),
    };
    let decision = policy.decide(action, &facts);
    let mut refusing: Vec<&str> = decision.refusals().map(|check| check.rule.as_str()).collect();
    refusing.sort_unstable();
    // Whoever reads a refusal learns what was seen.
    assert!(decision.checks.iter().all(|check| !check.detail.is_empty() && !check.detail.contains('{')));
    Ok(json!({ "allowed": decision.allowed, "refusedBy": refusing }))
}

fn policy_file(input: &Value) -> Outcome {
    let text = String::from_utf8(bytes(input, "payload")).unwrap();
    match load(&text, input, 0) {
        Ok(policy) => Ok(json!({ "rules": policy.rules().len() })),
        Err(error) => Err(format!("line-{}", error.problems[0].line)),
    }
}

/// Pins a root whose fingerprint nobody questions, when it was issued.
fn pin(trust: &mut Trust, signed: &Signed) {
    let Statement::Root(root) = signed.peek().unwrap() else { panic!("no root") };
    trust.pin(signed, signed.digest(), root.issued).unwrap();
}
