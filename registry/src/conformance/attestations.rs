//! Document 09: what attestations come to.

use crate::policy::{in_force, tally};
use crate::statement::{Attestation, Statement};
use crate::trust::Trust;
use crate::{Digest, Nation, Signed, Timestamp};
use serde_json::Value;

use super::statements::pin;
use super::{Outcome, Runner, broken, bytes_of, items, parsed, same, text};

pub(super) const KINDS: &[(&str, Runner)] = &[("attestations", attestations)];

fn attestations(input: &Value) -> Outcome {
    let now: Timestamp = parsed(input, "now")?;
    let release: Digest = text(input, "release")?.parse().map_err(broken)?;
    let producer: Nation = parsed(input, "producer")?;
    let mut trust = Trust::new(Nation::new("fara").map_err(broken)?);
    for root in items(input, "roots")? {
        pin(&mut trust, &Signed::parse(&bytes_of(root).map_err(broken)?).map_err(broken)?)?;
    }
    let mut believed: Vec<Attestation> = Vec::new();
    for statement in items(input, "statements")? {
        let signed = Signed::parse(statement.as_str().unwrap_or_default().as_bytes()).map_err(broken)?;
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
    same(&count(&believed), &found)?;
    serde_json::to_value(found).map_err(|error| error.to_string())
}
