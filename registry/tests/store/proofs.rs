//! Bundles with proofs, at a node that follows no log and at one that knows better.

use std::fs;
use std::path::PathBuf;

use registry::bundle::{self, BundleError, ExportOptions};
use registry::log::checkpoint::{SignedCheckpoint, witness_name};
use registry::log::evidence::Evidence;
use registry::policy::Policy;
use registry::store::Store;
use registry::{Digest, Timestamp, admit};
use tempfile::TempDir;

use crate::help::*;
use crate::logs::{append, follow, request};

/// alba's store with a release that is logged, and borea's under the default policy, which knows cora too.
struct Case {
    _dirs: [TempDir; 2],
    alba: Store,
    borea: Store,
    release: Digest,
    folder: PathBuf,
}

fn case() -> Case {
    let (a, alba) = house("alba", &["borea", "cora", "dora"]);
    let (b, borea) = house("borea", &["alba", "cora", "dora"]);
    borea.set_policy(Policy::shipped(1));
    let release = published(&alba, "alba/m", "1", 1);
    append(&alba);
    let folder = a.path().to_owned();
    Case { _dirs: [a, b], alba, borea, release, folder }
}

impl Case {
    /// A bundle for borea, after these nations cosigned at these times.
    fn bundle(&self, name: &str, by: &[(&str, Timestamp)]) -> PathBuf {
        let newest = self.alba.log_checkpoint(&nation("alba")).unwrap().unwrap();
        for (who, at) in by {
            let line = newest.note().cosign(&witness_name(&nation(who)), &key(who), *at).unwrap();
            self.alba.add_cosignatures(&nation("alba"), newest.size(), &line.to_string()).unwrap();
        }
        let path = self.folder.join(name);
        let options = ExportOptions { to: Some(nation("borea")), ..ExportOptions::new(NOW) };
        bundle::export_with(&self.alba, &self.release, &path, &options).unwrap();
        path
    }

    fn rules(&self, error: &BundleError) -> Vec<String> {
        let BundleError::Refused { decision, .. } = error else { panic!("{error}") };
        decision.refusals().map(|check| check.rule.clone()).collect()
    }
}

#[test]
fn the_default_policy_takes_what_a_bundle_proves() {
    let case = case();
    let error = bundle::import(&case.borea, &case.bundle("bare", &[]), NOW).unwrap_err();
    assert_eq!(case.rules(&error), ["logged"]);
    let future = case.bundle("future", &[("cora", NOW.plus(601))]);
    assert_eq!(case.rules(&bundle::import(&case.borea, &future, NOW).unwrap_err()), ["logged"]);
    // What was refused proves nothing later.
    assert_eq!((case.borea.last_seq(), case.borea.logged(&case.release, NOW).unwrap()), (0, None));
    // The same cosignature counts once this clock has come near it.
    bundle::import(&case.borea, &future, NOW.plus(1)).unwrap();
    admit::admit(&case.borea, &case.release, NOW.plus(1)).unwrap();
    let error = admit::decide(&case.borea, &case.release, NOW).unwrap().1;
    assert!(!error.allowed, "and no earlier");
    // It lasts, and is handed on.
    let home = case.borea.home().to_owned();
    drop(case.borea);
    let borea = Store::open(&home).unwrap();
    borea.set_policy(Policy::shipped(1));
    assert!(admit::serve(&borea, &case.release, NOW.plus(1)).is_ok());
    let next = case.folder.join("next");
    let options = ExportOptions { to: Some(nation("cora")), ..ExportOptions::new(NOW.plus(1)) };
    bundle::export_with(&borea, &case.release, &next, &options).unwrap();
    let (_c, cora) = house("cora", &["alba", "borea", "dora"]);
    cora.set_policy(Policy::shipped(1));
    let report = bundle::import(&cora, &next, NOW.plus(1)).unwrap();
    assert_eq!(report.checkpoint.unwrap().witnesses, [nation("cora")]);
}

#[test]
fn it_is_witnessed_since_the_quorum_was() {
    let case = case();
    case.borea.set_policy(Policy::shipped(2));
    let path = case.bundle("two", &[("cora", NOW.plus(-1000)), ("dora", NOW)]);
    let report = bundle::import(&case.borea, &path, NOW).unwrap();
    assert_eq!(report.checkpoint.unwrap().witnessed, Some(NOW.plus(-1000)));
    let logged = case.borea.logged(&case.release, NOW).unwrap().unwrap();
    assert_eq!((logged.witnesses.len(), logged.witnessed), (2, Some(NOW.plus(-1000))));
    case.borea.set_policy(Policy::shipped(1));
    assert_eq!(case.borea.logged(&case.release, NOW).unwrap().unwrap().witnessed, Some(NOW));
    case.borea.set_policy(Policy::shipped(3));
    assert_eq!(case.borea.logged(&case.release, NOW).unwrap().unwrap().witnessed, None);
}

#[test]
fn a_proof_from_another_history_is_refused_and_so_is_one_of_a_log_that_lied() {
    let case = case();
    let path = case.bundle("m", &[("cora", NOW)]);
    // borea follows alba's log where it says something else.
    let (_t, twin) = house("alba", &["borea", "cora"]);
    published(&twin, "alba/other", "1", 9);
    append(&twin);
    follow(&twin, &case.borea).unwrap();
    let error = bundle::import(&case.borea, &path, NOW).unwrap_err();
    assert!(matches!(&error, BundleError::Proof { why, .. } if why.contains("two histories")), "{error}");
    assert_eq!((case.borea.last_seq(), case.borea.usage().unwrap().blobs), (0, 0));
    // Proved to lie, its proofs are worth nothing until a person settled it.
    let (_n, fresh) = house("borea", &["alba", "cora"]);
    fresh.set_policy(Policy::shipped(1));
    let head =
        |store: &Store| -> SignedCheckpoint { store.log_checkpoint(&nation("alba")).unwrap().unwrap() };
    fresh.dispute_log(&Evidence::of_equal(&head(&case.alba), &head(&twin))).unwrap();
    let error = bundle::import(&fresh, &path, NOW).unwrap_err();
    assert!(matches!(&error, BundleError::Proof { why, .. } if why.contains("proved to lie")), "{error}");
    assert!(fresh.settle_log(&nation("alba")).unwrap());
    bundle::import(&fresh, &path, NOW).unwrap();
    admit::admit(&fresh, &case.release, NOW).unwrap();
    assert!(fs::metadata(&path).is_ok());
    // A witness that follows one history says what it cosigned last, not what it was asked about.
    let answer = case.borea.cosign(&request(&case.alba, 0), &key("borea"), NOW).unwrap();
    assert_eq!(answer, Err(registry::log::witness::Refusal::Fork { size: 0 }));
}
