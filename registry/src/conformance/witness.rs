//! Document 08: what a witness reads and answers.

use crate::Nation;
use crate::log::witness::{AddCheckpoint, Cosigned, Refusal, decide};
use serde_json::{Value, json};

use super::notes::keys;
use super::tree::{hash, hex};
use super::{Outcome, Runner, broken, bytes, number, parsed, same};

pub(super) const KINDS: &[(&str, Runner)] = &[("witness-request", witness_request), ("witness", witness)];

/// The answer, and for a 409 the size in its body.
pub(super) fn refusal_code(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Conflict { size } | Refusal::Fork { size } => format!("{} {size}", refusal.status()),
        _ => refusal.status().to_string(),
    }
}

fn witness_request(input: &Value) -> Outcome {
    let body = bytes(input, "bytes")?;
    let read = AddCheckpoint::parse(&body).map_err(|refusal| refusal_code(&refusal))?;
    // It has one form.
    same(read.to_body().as_bytes(), &body[..])?;
    let nation = read.nation().map_err(|refusal| refusal_code(&refusal))?;
    let proof: Vec<_> = read.proof.iter().map(|hash| hex(hash)).collect();
    Ok(json!({ "old": read.old_size.to_string(), "proof": proof, "nation": nation }))
}

fn witness(input: &Value) -> Outcome {
    let before = match &input["before"] {
        Value::Null => None,
        before => Some(Cosigned { size: number(&before["size"])?, root: hash(&before["root"])? }),
    };
    let nation: Nation = parsed(input, "nation")?;
    let request =
        AddCheckpoint::parse(&bytes(input, "bytes")?).map_err(|refusal| broken(refusal_code(&refusal)))?;
    let cosigned = decide(&request, &nation, &keys(&input["keys"])?, before)
        .map_err(|refusal| refusal_code(&refusal))?;
    Ok(json!({ "size": cosigned.size().to_string(), "root": hex(cosigned.root()) }))
}
