//! Document 08: what a node does with its own log and those that it follows, step by step.

use registry::key::SecretKey;
use registry::log::ENTRY;
use registry::log::checkpoint::SignedCheckpoint;
use registry::log::evidence::Evidence;
use registry::log::witness::AddCheckpoint;
use registry::store::{Extended, LogError, OwnLog, Store};
use registry::{Nation, Signed, Timestamp};
use serde_json::{Value, json};

use crate::log::{checkpoint_code, refusal_code};
use crate::vectors::{Outcome, Runner, bytes, text};

pub(crate) const KINDS: &[(&str, Runner)] = &[("log-node", log_node)];

fn log_node(input: &Value) -> Outcome {
    let now: Timestamp = text(input, "now").parse().unwrap();
    let home = tempfile::tempdir().unwrap();
    let roots: Vec<Signed> = input["roots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|root| Signed::parse(&bytes(&json!({ "root": root }), "root")).unwrap())
        .collect();
    let store = Store::create(home.path(), &roots[0], now).unwrap();
    for root in &roots[1..] {
        store.pin_nation(root, root.digest(), now).unwrap();
    }
    for (at, step) in input["steps"].as_array().unwrap().iter().enumerate() {
        let outcome = run(&store, step, now);
        if outcome != text(step, "outcome") {
            return Err(format!("step {at} was `{outcome}`"));
        }
    }
    Ok(json!({}))
}

fn run(store: &Store, step: &Value, now: Timestamp) -> String {
    let nation =
        step.get("nation").map_or_else(|| store.own(), |name| Nation::new(name.as_str().unwrap()).unwrap());
    let done = match text(step, "do") {
        "put" => {
            let statement =
                store.trust().verify(&Signed::parse(&bytes(step, "signed")).unwrap(), now).unwrap();
            Ok(if store.put_statement(&statement).unwrap().new { "kept" } else { "known" }.to_owned())
        }
        "confirm" => Ok(own(store.confirm_log())),
        "append" => append(store, step),
        "heard" => store
            .read_checkpoint(&nation, &bytes(step, "bytes"))
            .and_then(|known| Ok(store.heard_of_own_log(&known)?))
            .map(own),
        "extend" => extend(store, &nation, step),
        "dispute" => {
            let evidence = Evidence::parse(&bytes(step, "bytes")).unwrap();
            let disputed = store.dispute_log(&evidence);
            Ok(disputed.map_or("refused".to_owned(), |(fork, new)| {
                format!("{} {}", if new { "disputed" } else { "known" }, fork.size)
            }))
        }
        "settle" => Ok(if store.settle_log(&nation).unwrap() { "settled" } else { "nothing" }.to_owned()),
        "cosign" => cosign(store, step),
        "size" => Ok(store.log_size(&nation).unwrap().to_string()),
        "number" => {
            let logged = store.logged_in(&nation, &text(step, "statement").parse().unwrap()).unwrap();
            Ok(logged.map_or("none".to_owned(), |logged| logged.index.to_string()))
        }
        other => panic!("unknown step {other}"),
    };
    done.unwrap_or_else(|error| code(&error))
}

fn own(state: OwnLog) -> String {
    match state {
        OwnLog::Unconfirmed => "unconfirmed".to_owned(),
        OwnLog::Confirmed => "confirmed".to_owned(),
        OwnLog::Behind { known } => format!("behind {known}"),
    }
}

fn code(error: &LogError) -> String {
    match error {
        LogError::Checkpoint(error) => return checkpoint_code(error),
        LogError::Fork { shown, evidence, .. } => {
            assert!(Evidence::parse(&evidence.to_json()).is_ok());
            return format!("fork {shown}");
        }
        LogError::Entries(_) => "entries",
        LogError::TooLong { .. } => "too-long",
        LogError::Disputed(_) => "disputed",
        LogError::Behind { .. } => "behind",
        LogError::Unconfirmed => "unconfirmed",
        LogError::Key => "key",
        error => panic!("{error}"),
    }
    .to_owned()
}

fn secret(step: &Value) -> SecretKey {
    SecretKey::from_seed(&bytes(step, "key").try_into().unwrap())
}

/// Appends what waits; the checkpoint's note.
fn append(store: &Store, step: &Value) -> Result<String, LogError> {
    let Some(appended) = store.append_log(&secret(step))? else { return Ok("nothing".to_owned()) };
    let kept = store.log_checkpoint(&store.own()).unwrap().unwrap();
    assert_eq!(kept, appended.checkpoint, "what is shown is kept");
    Ok(kept.note().to_string())
}

fn extend(store: &Store, nation: &Nation, step: &Value) -> Result<String, LogError> {
    let checkpoint: SignedCheckpoint = store.read_checkpoint(nation, &bytes(step, "bytes"))?;
    let entry = |hex: &Value| <[u8; ENTRY]>::try_from(bytes(&json!({ "entry": hex }), "entry")).unwrap();
    let entries: Vec<_> = step["entries"].as_array().unwrap().iter().map(entry).collect();
    Ok(match store.extend_log(&checkpoint, &entries)? {
        Extended::Grown(size) => format!("grown {size}"),
        Extended::Cosigned => "cosigned".to_owned(),
        Extended::Known => "known".to_owned(),
    })
}

/// The witness's line, or its refusal.
fn cosign(store: &Store, step: &Value) -> Result<String, LogError> {
    let request = AddCheckpoint::parse(&bytes(step, "bytes")).unwrap();
    let answer = store.cosign(&request, &secret(step), text(step, "now").parse().unwrap())?;
    Ok(answer.unwrap_or_else(|refusal| refusal_code(&refusal)))
}
