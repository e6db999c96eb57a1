//! Document 02: later roots, log order, membership.

use std::collections::BTreeMap;

use registry::statement::Statement;
use registry::trust::{MembershipError, Trust, TrustError, spoken};
use registry::{Digest, Nation, Signed};
use serde_json::{Value, json};

use crate::statements::{envelope_code, now, pin, show, signed, trust_code};
use crate::vectors::{Outcome, Runner, text};

pub(crate) const KINDS: &[(&str, Runner)] =
    &[("roots", roots), ("spoken", digits), ("membership", membership), ("kept", kept)];

pub(crate) fn code(error: &MembershipError) -> &'static str {
    match error {
        MembershipError::Downgrade { .. } => "downgrade",
        MembershipError::Conflict { .. } => "membership-conflict",
        MembershipError::Step { .. } => "step",
        MembershipError::Fingerprint { .. } => "fingerprint",
        MembershipError::Foreign { .. } => "foreign",
    }
}

fn items<'a>(input: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    input.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// The trust of borea: `roots` pinned, `later` ones taken, `memberships` said.
pub(crate) fn trust_of(input: &Value) -> Result<Trust, String> {
    let mut trust = Trust::new(Nation::new("borea").unwrap());
    let first = input.get("root").into_iter().chain(items(input, "roots"));
    for root in first {
        pin(&mut trust, &signed(&json!({ "root": root }), "root")?);
    }
    for later in items(input, "later") {
        let later = signed(&json!({ "later": later }), "later")?;
        assert!(trust.rotate(&later, now(input)).map_err(|error| trust_code(&error))?);
    }
    for said in items(input, "memberships") {
        say(&mut trust, &signed(&json!({ "said": said }), "said")?, input).map_err(|e| trust_code(&e))?;
    }
    Ok(trust)
}

/// The proved places of statements in their nation's log.
pub(crate) fn log(input: &Value) -> impl Fn(&Digest) -> Result<Option<u64>, TrustError> {
    let places: BTreeMap<Digest, u64> =
        input.get("log").map(|log| serde_json::from_value(log.clone()).unwrap()).unwrap_or_default();
    move |digest| Ok(places.get(digest).copied())
}

fn say(trust: &mut Trust, signed: &Signed, input: &Value) -> Result<bool, TrustError> {
    let verified = trust.verify(signed, now(input))?;
    let Statement::Membership(membership) = verified.get() else { panic!("no membership statement") };
    trust.take(membership, verified.digest())
}

fn roots(input: &Value) -> Outcome {
    let mut trust = trust_of(input)?;
    let alba = Nation::new("alba").unwrap();
    for (at, offer) in items(input, "offers").enumerate() {
        let before = trust.member(&alba).unwrap().root.digest();
        let outcome = match signed(offer, "signed") {
            Ok(root) => {
                // Asked without a change, the answer is the same.
                let asked = trust.verify(&root, now(input)).err().map(|error| trust_code(&error));
                let outcome = match trust.rotate(&root, now(input)) {
                    Ok(true) => "taken".to_owned(),
                    Ok(false) => "known".to_owned(),
                    Err(error) => trust_code(&error),
                };
                if let Some(asked) = asked.filter(|_| matches!(outcome.as_str(), "taken" | "known")) {
                    return Err(format!("offer {at} was {outcome}, but verifying it said {asked}"));
                }
                outcome
            }
            Err(error) => error,
        };
        if outcome != text(offer, "outcome") {
            return Err(format!("offer {at} was {outcome}"));
        }
        let after = trust.member(&alba).unwrap().root.digest();
        assert_eq!(before != after, outcome == "taken", "offer {at}");
    }
    let root = &trust.member(&alba).unwrap().root;
    Ok(json!({ "version": root.version, "newest": root.digest() }))
}

fn digits(input: &Value) -> Outcome {
    Ok(json!({ "digits": spoken(&text(input, "fingerprint").parse().unwrap()) }))
}

fn membership(input: &Value) -> Outcome {
    let mut trust = trust_of(input)?;
    for (at, step) in items(input, "said").enumerate() {
        let outcome = match say(&mut trust, &signed(step, "signed")?, input) {
            Ok(_) => "taken".to_owned(),
            Err(error) => trust_code(&error),
        };
        if outcome != text(step, "outcome") {
            return Err(format!("statement {at} was {outcome}"));
        }
    }
    let member = trust.member(&Nation::new("alba").unwrap()).unwrap();
    Ok(json!({ "standing": member.standing(), "sequence": member.said().map(|said| said.sequence) }))
}

fn kept(input: &Value) -> Outcome {
    let trust = trust_of(input)?;
    let admitted = input["admitted"].as_bool().unwrap();
    let signed = Signed::parse(&crate::vectors::bytes(input, "signed")).map_err(|e| envelope_code(&e))?;
    let verified =
        trust.verify_kept(&signed, now(input), admitted, log(input)).map_err(|error| trust_code(&error))?;
    Ok(show(&verified))
}
