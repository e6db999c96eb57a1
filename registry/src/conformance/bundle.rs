//! Document 10: bundles.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::bundle::{self, BundleError, ImportOptions, ImportReport};
use crate::policy::Policy;
use crate::store::Store;
use crate::{Reference, Signed, Timestamp};
use serde_json::{Value, json};

use super::{Outcome, Runner, broken, bytes, bytes_of, items, number, parsed, same, text};

pub(super) const KINDS: &[(&str, Runner)] = &[("bundle", import)];

fn options(input: &Value) -> Result<ImportOptions, String> {
    let given = |key: &str| input.get(key).map(number).transpose();
    let max_age = given("maxAge")?.map(i64::try_from).transpose().map_err(broken)?;
    let witnesses = u32::try_from(given("witnesses")?.unwrap_or(0)).map_err(broken)?;
    Ok(ImportOptions { max_age, witnesses })
}

/// A store of our own nation that has pinned the others.
fn store(input: &Value, home: &Path) -> Result<Store, String> {
    let pinned: Timestamp = "2026-11-02T00:00:00Z".parse().map_err(broken)?;
    let own = Signed::parse(&bytes(input, "ownRoot")?).map_err(broken)?;
    let store = Store::create(&home.join("store"), &own, pinned).map_err(broken)?;
    for root in items(input, "roots")? {
        let root = Signed::parse(&bytes_of(root).map_err(broken)?).map_err(broken)?;
        store.pin_nation(&root, root.digest(), pinned).map_err(broken)?;
    }
    if let Some(policy) = policy(input)? {
        store.set_policy(policy);
    }
    Ok(store)
}

/// The policy that is asked, where it is not the shipped one without witnesses.
fn policy(input: &Value) -> Result<Option<Arc<Policy>>, String> {
    let witnesses = input.get("policyWitnesses").map(number).transpose()?;
    let witnesses = witnesses.map(u32::try_from).transpose().map_err(broken)?;
    Ok(match input.get("policy") {
        None => witnesses.map(Policy::shipped),
        Some(_) => {
            let own = Policy::own("vector", text(input, "policy")?, false, witnesses.unwrap_or(0));
            Some(Arc::new(own.map_err(broken)?))
        }
    })
}

fn import(input: &Value) -> Outcome {
    let now: Timestamp = parsed(input, "now")?;
    let options = options(input)?;
    let home = super::folder()?;
    let store = store(input, home.path())?;
    let path = home.path().join("bundle");
    let read = |bytes: Vec<u8>| {
        fs::write(&path, bytes).map_err(broken)?;
        Ok::<_, String>(bundle::import_with(&store, &path, now, options))
    };
    if input.get("before").is_some() {
        // What it is refused for, if so, is in another vector.
        let _ = read(bytes(input, "before")?)?;
    }
    let blobs = || Ok::<_, String>(store.usage().map_err(broken)?.blobs);
    let recalls = || Ok::<_, String>(store.recalls().map_err(broken)?.len() as u64);
    let roots = || store.trust().members().map(|(_, member)| member.root.roots().count() as u64).sum::<u64>();
    let before = (store.last_seq(), blobs()?, recalls()? + roots());
    let outcome = read(bytes(input, "bundle")?)?;
    if let Some(expected) = input.get("recallsAfter") {
        same(recalls()?, number(expected)?)?;
    }
    match outcome {
        Err(BundleError::Io { path, source }) => Err(broken(format!("{}: {source}", path.display()))),
        Err(error) => {
            // Nothing but recalls and later roots is kept.
            let (kept, allowed) = (store.last_seq() - before.0, recalls()? + roots() - before.2);
            same(kept <= allowed && blobs()? == before.1, true)?;
            Err(error.code().to_owned())
        }
        Ok(report) => shown(&store, report),
    }
}

fn shown(store: &Store, report: ImportReport) -> Outcome {
    let stable: Reference = "alba/smollm2:stable".parse().map_err(broken)?;
    Ok(json!({
        "release": report.release, "missing": report.missing, "newBytes": report.new_bytes,
        "recalls": report.recalls.len(), "skipped": report.skipped.len(),
        "stable": store.resolve(&stable).map_err(broken)?,
        "size": report.checkpoint.as_ref().map(|it| it.size),
        "witnesses": report.checkpoint.map(|it| it.witnesses),
    }))
}
