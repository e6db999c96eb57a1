//! Document 08: what a node does with its own log and those that it follows, step by step.

use crate::key::SecretKey;
use crate::log::ENTRY;
use crate::log::evidence::Evidence;
use crate::log::witness::AddCheckpoint;
use crate::store::{Extended, LogError, OwnLog, Store};
use crate::{Nation, Signed, Timestamp};
use serde_json::{Value, json};

use super::notes::checkpoint_code;
use super::witness::refusal_code;
use super::{Outcome, Runner, broken, bytes, bytes_of, items, parsed, same, text};

pub(super) const KINDS: &[(&str, Runner)] = &[("log-node", log_node)];

fn log_node(input: &Value) -> Outcome {
    let now: Timestamp = parsed(input, "now")?;
    let read = |root: &Value| Signed::parse(&bytes_of(root).map_err(broken)?).map_err(broken);
    let roots = items(input, "roots")?.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let (own, others) = roots.split_first().ok_or_else(|| broken("no root"))?;
    let home = super::folder()?;
    let store = Store::create(home.path(), own, now).map_err(broken)?;
    for root in others {
        store.pin_nation(root, root.digest(), now).map_err(broken)?;
    }
    for (at, step) in items(input, "steps")?.iter().enumerate() {
        let outcome = run(&store, step, now)?;
        if outcome != text(step, "outcome")? {
            return Err(format!("step {at} was `{outcome}`"));
        }
    }
    Ok(json!({}))
}

/// What a step that this crate refuses comes out as. Of a disk that fails nothing follows about the vector's rule.
fn refused(error: LogError) -> Result<String, String> {
    Ok(match error {
        LogError::Checkpoint(error) => checkpoint_code(&error),
        LogError::Fork { shown, evidence, .. } => {
            same(Evidence::parse(&evidence.to_json()).is_ok(), true)?;
            format!("fork {shown}")
        }
        LogError::Entries(_) => "entries".to_owned(),
        LogError::TooLong { .. } => "too-long".to_owned(),
        LogError::Disputed(_) => "disputed".to_owned(),
        LogError::Behind { .. } => "behind".to_owned(),
        LogError::Unconfirmed => "unconfirmed".to_owned(),
        LogError::Key => "key".to_owned(),
        error => return Err(broken(error)),
    })
}

/// One step; as an error why it can't be done, which no vector expects.
fn run(store: &Store, step: &Value, now: Timestamp) -> Result<String, String> {
    let nation = match step.get("nation") {
        Some(_) => parsed(step, "nation")?,
        None => store.own(),
    };
    let done = match text(step, "do")? {
        "put" => return put(store, step, now),
        "confirm" => return Ok(own(store.confirm_log())),
        "append" => return append(store, step),
        "heard" => {
            let bytes = bytes(step, "bytes")?;
            let known = store.read_checkpoint(&nation, &bytes);
            known.and_then(|known| Ok(store.heard_of_own_log(&known)?)).map(own)
        }
        "extend" => return extend(store, &nation, step),
        "dispute" => {
            let evidence = Evidence::parse(&bytes(step, "bytes")?).map_err(broken)?;
            Ok(store.dispute_log(&evidence).map_or("refused".to_owned(), |(fork, new)| {
                format!("{} {}", if new { "disputed" } else { "known" }, fork.size)
            }))
        }
        how @ ("settle" | "settle-anew") => {
            let anew = how == "settle-anew";
            let settled = if anew { store.settle_log_anew(&nation) } else { store.settle_log(&nation) }
                .map_err(broken)?;
            Ok(if settled { "settled" } else { "nothing" }.to_owned())
        }
        "cosign" => return cosign(store, step),
        "size" => Ok(store.log_size(&nation).map_err(broken)?.to_string()),
        "number" => {
            let statement = text(step, "statement")?.parse().map_err(broken)?;
            let logged = store.logged_in(&nation, &statement).map_err(broken)?;
            Ok(logged.map_or("none".to_owned(), |logged| logged.index.to_string()))
        }
        other => return Err(broken(format!("unknown step {other}"))),
    };
    done.or_else(refused)
}

fn own(state: OwnLog) -> String {
    match state {
        OwnLog::Unconfirmed => "unconfirmed".to_owned(),
        OwnLog::Confirmed => "confirmed".to_owned(),
        OwnLog::Behind { known } => format!("behind {known}"),
    }
}

fn put(store: &Store, step: &Value, now: Timestamp) -> Result<String, String> {
    let signed = Signed::parse(&bytes(step, "signed")?).map_err(broken)?;
    let statement = store.trust().verify(&signed, now).map_err(broken)?;
    let put = store.put_statement(&statement).map_err(broken)?;
    Ok(if put.new { "kept" } else { "known" }.to_owned())
}

fn secret(step: &Value) -> Result<SecretKey, String> {
    let seed: [u8; 32] = bytes(step, "key")?.try_into().map_err(|_| broken("no seed of 32 bytes"))?;
    Ok(SecretKey::from_seed(&seed))
}

/// Appends what waits; the checkpoint's note.
fn append(store: &Store, step: &Value) -> Result<String, String> {
    let appended = match store.append_log(&secret(step)?) {
        Ok(None) => return Ok("nothing".to_owned()),
        Ok(Some(appended)) => appended,
        Err(error) => return refused(error),
    };
    // What is shown is kept.
    let kept = store.log_checkpoint(&store.own()).map_err(broken)?;
    same(kept.as_ref(), Some(&appended.checkpoint))?;
    Ok(appended.checkpoint.note().to_string())
}

fn extend(store: &Store, nation: &Nation, step: &Value) -> Result<String, String> {
    let entry = |hex: &Value| {
        <[u8; ENTRY]>::try_from(bytes_of(hex).map_err(broken)?).map_err(|_| broken("no entry of a log"))
    };
    let entries = items(step, "entries")?.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    let checkpoint = store.read_checkpoint(nation, &bytes(step, "bytes")?);
    match checkpoint.and_then(|checkpoint| store.extend_log(&checkpoint, &entries)) {
        Ok(Extended::Grown(size)) => Ok(format!("grown {size}")),
        Ok(Extended::Cosigned) => Ok("cosigned".to_owned()),
        Ok(Extended::Known) => Ok("known".to_owned()),
        Err(error) => refused(error),
    }
}

/// The witness's line, or its refusal.
fn cosign(store: &Store, step: &Value) -> Result<String, String> {
    let request =
        AddCheckpoint::parse(&bytes(step, "bytes")?).map_err(|refusal| broken(refusal_code(&refusal)))?;
    match store.cosign(&request, &secret(step)?, parsed(step, "now")?) {
        Ok(answer) => Ok(answer.unwrap_or_else(|refusal| refusal_code(&refusal))),
        Err(error) => refused(error),
    }
}
