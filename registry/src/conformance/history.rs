//! Document 03: what a reader keeps when statements arrive one after the other.

use crate::store::{Store, StoreError};
use crate::trust::Trust;
use crate::{Nation, Reference, Signed, Timestamp};
use serde_json::{Value, json};

use super::statements::pin;
use super::{Outcome, Runner, broken, bytes, items, text};

pub(super) const KINDS: &[(&str, Runner)] = &[("history", history)];

fn history(input: &Value) -> Outcome {
    let now: Timestamp = text(input, "now")?.parse().map_err(broken)?;
    let root = Signed::parse(&bytes(input, "root")?).map_err(broken)?;
    let mut trust = Trust::new(Nation::new("alba").map_err(broken)?);
    pin(&mut trust, &root)?;
    let home = super::folder()?;
    let store = Store::create(home.path(), &root, now).map_err(broken)?;
    for (at, step) in items(input, "statements")?.iter().enumerate() {
        let signed = Signed::parse(&bytes(step, "signed")?).map_err(broken)?;
        let statement = trust.verify(&signed, now).map_err(broken)?;
        let outcome = match store.put_statement(&statement) {
            Ok(_) => "kept",
            Err(StoreError::ChannelDowngrade { .. }) => "downgrade",
            Err(StoreError::ChannelConflict { .. }) => "conflict",
            Err(StoreError::VersionConflict { .. }) => "version-conflict",
            Err(error) => return Err(broken(error)),
        };
        if outcome != text(step, "outcome")? {
            return Err(format!("statement {at} was {outcome}"));
        }
    }
    let stable: Reference = "alba/smollm2:stable".parse().map_err(broken)?;
    Ok(json!({ "stable": store.resolve(&stable).map_err(broken)? }))
}
