//! Document 03: what a reader keeps when statements arrive one after the other.

use registry::store::{Store, StoreError};
use registry::trust::Trust;
use registry::{Nation, Reference, Signed, Timestamp};
use serde_json::{Value, json};

use crate::statements::pin;
use crate::vectors::{Outcome, Runner, bytes, text};

pub(crate) const KINDS: &[(&str, Runner)] = &[("history", history)];

fn history(input: &Value) -> Outcome {
    let now: Timestamp = text(input, "now").parse().unwrap();
    let root = Signed::parse(&bytes(input, "root")).unwrap();
    let mut trust = Trust::new(Nation::new("alba").unwrap());
    pin(&mut trust, &root);
    let home = tempfile::tempdir().unwrap();
    let store = Store::create(home.path(), &root, now).unwrap();
    for (at, step) in input["statements"].as_array().unwrap().iter().enumerate() {
        let signed = Signed::parse(&bytes(step, "signed")).unwrap();
        let statement = trust.verify(&signed, now).unwrap();
        let outcome = match store.put_statement(&statement) {
            Ok(_) => "kept",
            Err(StoreError::ChannelDowngrade { .. }) => "downgrade",
            Err(StoreError::ChannelConflict { .. }) => "conflict",
            Err(StoreError::VersionConflict { .. }) => "version-conflict",
            Err(error) => panic!("{error}"),
        };
        if outcome != text(step, "outcome") {
            return Err(format!("statement {at} was {outcome}"));
        }
    }
    let stable: Reference = "alba/smollm2:stable".parse().unwrap();
    Ok(json!({ "stable": store.resolve(&stable).unwrap() }))
}
