//! Document 02: later roots, log order, membership.

use std::collections::BTreeMap;

use crate::statement::Statement;
use crate::trust::{MembershipError, Trust, TrustError, spoken};
use crate::{Digest, Nation, Signed, Timestamp};
use serde_json::{Value, json};

use super::statements::{envelope_code, now, pin, show, signed, trust_code};
use super::{Outcome, Runner, broken, bytes, parsed, same, text};

pub(super) const KINDS: &[(&str, Runner)] =
    &[("roots", roots), ("spoken", digits), ("membership", membership), ("kept", kept)];

pub(super) fn code(error: &MembershipError) -> &'static str {
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
pub(super) fn trust_of(input: &Value) -> Result<Trust, String> {
    let mut trust = Trust::new(Nation::new("borea").map_err(broken)?);
    let first = input.get("root").into_iter().chain(items(input, "roots"));
    for root in first {
        pin(&mut trust, &signed(&json!({ "root": root }), "root")?)?;
    }
    for later in items(input, "later") {
        let later = signed(&json!({ "later": later }), "later")?;
        same(trust.rotate(&later, now(input)?).map_err(|error| trust_code(&error))?, true)?;
    }
    for said in items(input, "memberships") {
        say(&mut trust, &signed(&json!({ "said": said }), "said")?, now(input)?)?;
    }
    Ok(trust)
}

/// The proved places of statements in their nation's log.
pub(super) fn log(input: &Value) -> Result<impl Fn(&Digest) -> Result<Option<u64>, TrustError>, String> {
    let places: BTreeMap<Digest, u64> = match input.get("log") {
        Some(log) => serde_json::from_value(log.clone()).map_err(broken)?,
        None => BTreeMap::new(),
    };
    Ok(move |digest: &Digest| Ok(places.get(digest).copied()))
}

fn say(trust: &mut Trust, signed: &Signed, now: Timestamp) -> Result<bool, String> {
    let verified = trust.verify(signed, now).map_err(|error| trust_code(&error))?;
    let Statement::Membership(membership) = verified.get() else {
        return Err(broken("no membership statement"));
    };
    trust.take(membership, verified.digest()).map_err(|error| trust_code(&error))
}

fn roots(input: &Value) -> Outcome {
    let mut trust = trust_of(input)?;
    let alba = Nation::new("alba").map_err(broken)?;
    let mut last = String::new();
    for (at, offer) in items(input, "offers").enumerate() {
        let before = trust.member(&alba).map_err(broken)?.root.digest();
        let outcome = match signed(offer, "signed") {
            Ok(root) => {
                // Asked without a change, the answer is the same.
                let asked = trust.verify(&root, now(input)?).err().map(|error| trust_code(&error));
                let outcome = match trust.rotate(&root, now(input)?) {
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
        if outcome != text(offer, "outcome")? {
            return Err(format!("offer {at} was {outcome}"));
        }
        let after = trust.member(&alba).map_err(broken)?.root.digest();
        same(before != after, outcome == "taken")?;
        last = outcome;
    }
    if last.is_empty() {
        return Err(broken("no offers"));
    }
    if !matches!(last.as_str(), "taken" | "known") {
        return Err(last);
    }
    let root = &trust.member(&alba).map_err(broken)?.root;
    Ok(json!({ "version": root.version, "newest": root.digest() }))
}

fn digits(input: &Value) -> Outcome {
    Ok(json!({ "digits": spoken(&parsed(input, "fingerprint")?) }))
}

fn membership(input: &Value) -> Outcome {
    let mut trust = trust_of(input)?;
    let alba = Nation::new("alba").map_err(broken)?;
    let mut last = String::new();
    for (at, step) in items(input, "said").enumerate() {
        let before = trust.said(&alba).copied();
        let outcome = match say(&mut trust, &signed(step, "signed")?, now(input)?) {
            Ok(_) => "taken".to_owned(),
            Err(error) => error,
        };
        if outcome != text(step, "outcome")? {
            return Err(format!("statement {at} was {outcome}"));
        }
        // What is refused changes nothing.
        same(outcome == "taken" || before == trust.said(&alba).copied(), true)?;
        last = outcome;
    }
    if last.is_empty() {
        return Err(broken("nothing is said"));
    }
    if last != "taken" {
        return Err(last);
    }
    let member = trust.member(&alba).map_err(broken)?;
    Ok(json!({ "standing": member.standing(), "sequence": member.said().map(|said| said.sequence) }))
}

fn kept(input: &Value) -> Outcome {
    let trust = trust_of(input)?;
    let admitted = input["admitted"].as_bool().ok_or_else(|| broken("no `admitted`"))?;
    let signed = Signed::parse(&bytes(input, "signed")?).map_err(|e| envelope_code(&e))?;
    let verified =
        trust.verify_kept(&signed, now(input)?, admitted, log(input)?).map_err(|error| trust_code(&error))?;
    show(&verified)
}
