//! Bundles with proofs, at a node that follows no log and at one that knows better.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use registry::bundle::{self, BundleError, ExportOptions};
use registry::log::checkpoint::{SignedCheckpoint, witness_name};
use registry::log::evidence::Evidence;
use registry::policy::Policy;
use registry::store::Store;
use registry::{Digest, Nation, Timestamp, admit};
use tempfile::TempDir;

use crate::help::*;
use crate::logs::{append, follow, request, say};

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
    /// These nations cosign alba's newest checkpoint at these times.
    fn cosign(&self, by: &[(&str, Timestamp)]) {
        let newest = self.alba.log_checkpoint(&nation("alba")).unwrap().unwrap();
        for (who, at) in by {
            let line = newest.note().cosign(&witness_name(&nation(who)), &key(who), *at).unwrap();
            self.alba.add_cosignatures(&nation("alba"), newest.size(), &line.to_string()).unwrap();
        }
    }

    /// A bundle for borea, after these nations cosigned at these times.
    fn bundle(&self, name: &str, by: &[(&str, Timestamp)]) -> PathBuf {
        self.cosign(by);
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
fn of_two_proofs_the_one_with_more_witnesses_counts() {
    let case = case();
    let one = case.bundle("one", &[("cora", NOW)]);
    let two = case.bundle("two", &[("dora", NOW)]);
    let logged = || {
        let logged = case.borea.logged(&case.release, NOW).unwrap().unwrap();
        (logged.size, logged.witnesses.len())
    };
    let size = case.alba.log_size(&nation("alba")).unwrap();
    for (path, witnesses) in [(&one, 1), (&two, 2), (&one, 2)] {
        bundle::import(&case.borea, path, NOW).unwrap();
        assert_eq!(logged(), (size, witnesses), "{path:?}");
    }
    // The copy of the log that is followed later: with fewer witnesses, and with as many.
    say(&case.alba, "alba", 1);
    append(&case.alba);
    for (by, expected) in [(None, (size, 2)), (Some("cora"), (size, 2)), (Some("dora"), (size + 1, 2))] {
        by.iter().for_each(|by| case.cosign(&[(by, NOW)]));
        follow(&case.alba, &case.borea).unwrap();
        assert_eq!(logged(), expected, "{by:?}");
    }
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

#[test]
fn a_rule_may_ask_how_long_ago_allies_were_heard() {
    const RULE: &str = r#"
@id("fresh")
@reason("allies were heard {lease-age} ago")
@advice("connect with them")
forbid (principal, action == Action::"admit", resource)
when { context has leaseAge && context.leaseAge >= 60 };
"#;
    let (_dir, store) = house("alba", &["borea"]);
    let release = published(&store, "alba/m", "1", 1);
    store.set_policy(Policy::own("rules", RULE, false, 0).unwrap().into());
    let allowed = || admit::decide(&store, &release, NOW).unwrap().1.allowed;
    assert!(allowed(), "where no lease is in use, nothing is told of one");
    for (age, expected) in [(Some(59), true), (Some(60), false), (None, true)] {
        store.set_lease_age(Arc::new(move |producer: &Nation| age.filter(|_| producer.as_str() == "alba")));
        assert_eq!(allowed(), expected, "{age:?}");
    }
}
