//! Document 10: bundles, and how long a lease holds.

use std::collections::BTreeMap;
use std::fs;

use registry::bundle::{self, ImportOptions};
use registry::lease::{Lease, Moment, Terms};
use registry::store::Store;
use registry::{Nation, Reference, Signed, Timestamp};
use serde_json::{Value, json};

use crate::vectors::{Outcome, Runner, bytes, number, text};

pub(crate) const KINDS: &[(&str, Runner)] = &[("bundle", import), ("lease", lease)];

fn import(input: &Value) -> Outcome {
    let now: Timestamp = text(input, "now").parse().unwrap();
    // In memory where there is room for that: a store for each vector, synced as carefully as any.
    let memory = std::path::Path::new("/dev/shm");
    let home = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap();
    let path = home.path().join("bundle");
    let own = Signed::parse(&bytes(input, "ownRoot")).unwrap();
    let pinned: Timestamp = "2026-11-02T00:00:00Z".parse().unwrap();
    let store = Store::create(&home.path().join("store"), &own, pinned).unwrap();
    for root in input["roots"].as_array().unwrap() {
        let root = Signed::parse(&bytes(&json!({ "root": root }), "root")).unwrap();
        store.pin_nation(&root, root.digest(), pinned).unwrap();
    }
    let max_age = input.get("maxAge").map(|age| number(age) as i64);
    let options =
        ImportOptions { max_age, witnesses: input.get("witnesses").map_or(0, |n| number(n) as u32) };
    if input.get("before").is_some() {
        fs::write(&path, bytes(input, "before")).unwrap();
        // What it is refused for, if so, is in another vector.
        let _ = bundle::import_with(&store, &path, now, options);
    }
    let before = (store.last_seq(), store.usage().unwrap().blobs);
    fs::write(&path, bytes(input, "bundle")).unwrap();
    let outcome = bundle::import_with(&store, &path, now, options);
    if let Some(recalls) = input.get("recallsAfter") {
        assert_eq!(store.recalls().unwrap().len() as u64, number(recalls));
    }
    match outcome {
        Err(error) => {
            // Nothing but recalls is kept.
            let recalls = store.recalls().unwrap().len() as u64;
            assert!(
                store.last_seq() <= before.0 + recalls && store.usage().unwrap().blobs == before.1,
                "{error}"
            );
            Err(error.code().to_owned())
        }
        Ok(report) => {
            let stable: Reference = "alba/smollm2:stable".parse().unwrap();
            Ok(json!({
                "release": report.release, "missing": report.missing, "newBytes": report.new_bytes,
                "recalls": report.recalls.len(), "skipped": report.skipped.len(),
                "stable": store.resolve(&stable).unwrap(),
                "size": report.checkpoint.as_ref().map(|it| it.size),
                "witnesses": report.checkpoint.map(|it| it.witnesses),
            }))
        }
    }
}

fn lease(input: &Value) -> Outcome {
    let moment = |value: &Value| Moment { steady_ms: number(&value[0]), wall_ms: number(&value[1]) };
    let own = Nation::new(text(input, "own")).unwrap();
    let known: Vec<&str> = input["known"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    // Who is pinned is the caller's to know.
    let heard: BTreeMap<Nation, Moment> = input["heard"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| known.contains(&name.as_str()))
        .map(|(name, at)| (Nation::new(name).unwrap(), moment(at)))
        .collect();
    let terms = Terms { seconds: number(&input["seconds"]), nations: number(&input["nations"]) as u32 };
    Ok(match terms.judge(&own, &heard, moment(&input["now"])) {
        Lease::NotNeeded => json!({ "state": "not-needed" }),
        Lease::Held(end) => json!({ "state": "held", "leftMs": end.left_ms }),
        Lease::Ended { heard } => json!({ "state": "ended", "heard": heard }),
    })
}
