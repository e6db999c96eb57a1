//! Document 12: receipts.

use serde_json::{Value, json};

use super::{Outcome, Runner, bytes, parsed};
use crate::receipt::{Receipt, ReceiptError};
use crate::timestamp::Timestamp;

pub(super) const KINDS: &[(&str, Runner)] = &[("receipt", receipt)];

fn receipt(input: &Value) -> Outcome {
    let code = |error: ReceiptError| error.code().to_owned();
    let now: Timestamp = parsed(input, "now")?;
    let text = bytes(input, "receipt")?;
    let trust = super::nations::trust_of(input)?;
    let read = Receipt::parse(&text).map_err(code)?;
    let claim = read.verify(&trust, now).map_err(code)?;
    if input.get("request").is_some() {
        claim.is_of_request(&bytes(input, "request")?).map_err(code)?;
    }
    if input.get("response").is_some() {
        claim.is_of_response(&bytes(input, "response")?).map_err(code)?;
    }
    Ok(json!({ "node": claim.node, "nation": claim.nation, "release": claim.release }))
}
