//! Admission, recall, and reading everything again.

use std::fs;

use registry::admit::{self, AdmitError};
use registry::publish::{accept, learn};
use registry::statement::*;
use registry::timestamp::DAY;
use registry::trust::TrustError;
use registry::{Digest, policy};

use crate::help::*;

fn rule(decision: &policy::Decision) -> Vec<&str> {
    decision.refusals().map(|check| check.rule.as_str()).collect()
}

#[test]
fn a_pulled_release_is_admitted_with_its_evidence() {
    let (_a, from) = house("alba", &[]);
    let release = published(&from, "alba/m", "1", 1);
    let (_b, to) = house("borea", &["alba"]);
    learn(&to, &from.statement(&release).unwrap().unwrap(), NOW).unwrap();
    // The decision needs no bytes; admission does.
    assert!(admit::decide(&to, &release, NOW).unwrap().1.allowed);
    let error = admit::admit(&to, &release, NOW).unwrap_err();
    assert!(matches!(&error, AdmitError::Incomplete { missing, .. } if missing.len() == 3), "{error}");
    assert!(matches!(admit::admit(&to, &Digest::of(b"x"), NOW), Err(AdmitError::NotFound(_))));

    let admitted = pull(&from, &to, &release).unwrap();
    assert_eq!((admitted.release(), admitted.files().len()), (release, 3));
    let location = admitted.location("config.json").unwrap();
    assert_eq!(fs::read_to_string(location).unwrap(), "{\"seed\": 1}\n");
    let admissions = to.admissions().unwrap();
    assert_eq!((admissions.len(), admissions[0].release, admissions[0].at), (1, release, NOW));
    assert!(admissions[0].decision.allowed && admissions[0].decision.checks.len() == 7);
}

#[test]
fn trust_is_asked_each_time() {
    let (_a, from) = house("alba", &[]);
    let release = published(&from, "alba/m", "1", 1);
    let (_b, to) = house("borea", &["alba"]);
    pull(&from, &to, &release).unwrap();
    assert_eq!(to.admissions().unwrap().len(), 1);
    let late = admit::admit(&to, &release, NOW.plus(366 * DAY)).unwrap_err();
    assert!(matches!(late, AdmitError::Trust(TrustError::RootExpired { .. })), "{late}");
    admit::admit(&to, &release, NOW).unwrap();
    to.unpin_nation(&nation("alba")).unwrap();
    let gone = admit::admit(&to, &release, NOW).unwrap_err();
    assert!(matches!(gone, AdmitError::Trust(TrustError::NotPinned(_))), "{gone}");
    assert!(to.admissions().unwrap().is_empty());
}

#[test]
fn a_recall_ends_admissions_at_once() {
    let (_a, from) = house("alba", &[]);
    let release = published(&from, "alba/m", "1", 1);
    let (_b, to) = house("borea", &["alba", "cora"]);
    pull(&from, &to, &release).unwrap();
    // Another nation's recall is its own affair.
    let foreign = sign(Statement::Recall(recall("cora", 1, RecallTarget::Release(release))));
    assert!(learn(&to, &foreign, NOW).unwrap().withdrawn.is_empty());
    assert!(admit::binding_recall(&to, &release).unwrap().is_none());
    let binding = sign(Statement::Recall(recall("alba", 1, RecallTarget::Release(release))));
    assert_eq!(learn(&to, &binding, NOW).unwrap().withdrawn, [release]);
    assert!(to.admissions().unwrap().is_empty());
    let error = admit::admit(&to, &release, NOW).unwrap_err();
    let AdmitError::Refused { decision, .. } = &error else { panic!("{error}") };
    assert_eq!(rule(decision), ["not-recalled"]);
    assert!(error.to_string().contains("backdoor"));
    assert_eq!(admit::binding_recall(&to, &release).unwrap().unwrap().1.sequence, 1);
}

#[test]
fn each_new_recall_is_seen_by_the_next_decision() {
    let (_a, from) = house("alba", &[]);
    let releases = [1, 2, 3].map(|n| published(&from, "alba/m", &n.to_string(), n));
    let (_b, to) = house("borea", &["alba"]);
    for release in &releases {
        pull(&from, &to, release).unwrap();
    }
    for (n, release) in (1..).zip(&releases) {
        assert_eq!(to.recalls().unwrap().len() as u64, n - 1);
        assert!(admit::decide(&to, release, NOW).unwrap().1.allowed);
        let recall = sign(Statement::Recall(recall("alba", n, RecallTarget::Release(*release))));
        assert_eq!(learn(&to, &recall, NOW).unwrap().withdrawn, [*release]);
        assert_eq!(to.recalls().unwrap().len() as u64, n);
        assert!(!admit::decide(&to, release, NOW).unwrap().1.allowed);
        assert!(!learn(&to, &recall, NOW).unwrap().new);
    }
}

#[test]
fn a_lineage_recall_reaches_what_derives_from_it() {
    let (_dir, store) = house("alba", &[]);
    let base = published(&store, "alba/base", "1", 1);
    let folder = folder(2);
    let mut tuned = release_of(&draft(&store, folder.path()), "alba/tuned", "1");
    tuned.derived_from = vec![DerivedFrom { release: base, relation: Relation::FineTune }];
    let tuned = accept(&store, &sign(Statement::Release(tuned)), NOW).unwrap().digest;
    admit::admit(&store, &tuned, NOW).unwrap();
    let lineage = sign(Statement::Recall(recall("alba", 1, RecallTarget::Lineage(base))));
    assert_eq!(accept(&store, &lineage, NOW).unwrap().withdrawn, [tuned]);
}

#[test]
fn what_is_not_for_us_or_runs_code_is_refused() {
    let (_a, from) = house("alba", &[]);
    let folder = folder(1);
    fs::write(folder.path().join("extra.json"), b"\x80\x04\x95pickle").unwrap();
    let mut release = release_of(&draft(&from, folder.path()), "alba/m", "1");
    release.releasable_to = Releasable::Nations([nation("cora")].into());
    let digest = accept(&from, &sign(Statement::Release(release)), NOW).unwrap().digest;
    let (_b, to) = house("borea", &["alba"]);
    let error = pull(&from, &to, &digest).unwrap_err();
    let AdmitError::Refused { decision, .. } = &error else { panic!("{error}") };
    // Found by its content: its name is harmless.
    assert_eq!(rule(decision), ["releasable-to-us", "safe-formats"]);
    assert!(to.admissions().unwrap().is_empty());
}

#[test]
fn damage_is_named_to_the_chunk_and_put_aside() {
    let (_dir, store) = house("alba", &[]);
    let (release, twin) = (published(&store, "alba/m", "1", 1), published(&store, "alba/m", "2", 1));
    admit::admit(&store, &release, NOW).unwrap();
    admit::admit(&store, &twin, NOW).unwrap();
    let files = store.release(&release).unwrap().unwrap().files;
    let file = files.iter().find(|file| file.path == "model.safetensors").unwrap();
    let map = store.chunk_map(&file.chunk_map).unwrap().unwrap();
    let offset = map.offset(2).unwrap();
    damage(&store, &file.blake3, offset + 3, b"rot");

    let mut seen = (0, 0);
    let report = admit::verify(&store, &release, NOW, &mut |done, total| seen = (done, total)).unwrap();
    assert_eq!(seen.0, seen.1);
    assert!(!report.is_sound());
    let [found] = &report.damage[..] else { panic!("{:?}", report.damage) };
    assert_eq!((found.path.as_str(), found.blob, found.chunk), ("model.safetensors", file.blake3, Some(2)));
    assert_eq!((found.offset, found.len), (offset, u64::from(map.get(2).unwrap().len)));
    assert_eq!(report.quarantined.len(), 1);
    assert!(report.quarantined[0].starts_with(store.home().join("quarantine")));
    assert_eq!(set(report.withdrawn.iter().copied()), set([release, twin]));
    assert!(!store.has_blob(&file.blake3) && store.admissions().unwrap().is_empty());
    let again = admit::verify(&store, &release, NOW, &mut |_, _| {}).unwrap();
    assert_eq!((again.missing.len(), again.damage.len()), (1, 0));
    // Fetched anew it is whole again.
    let folder = folder(1);
    draft(&store, folder.path());
    assert!(admit::verify(&store, &release, NOW, &mut |_, _| {}).unwrap().is_sound());
    admit::admit(&store, &release, NOW).unwrap();
}

#[test]
fn a_damaged_chunk_map_is_found() {
    let (_dir, store) = house("alba", &[]);
    let release = published(&store, "alba/m", "1", 1);
    let map = store.release(&release).unwrap().unwrap().file("config.json").unwrap().chunk_map;
    damage(&store, &map, 60, b"rot");
    let report = admit::verify(&store, &release, NOW, &mut |_, _| {}).unwrap();
    assert_eq!((report.damage.len(), report.damage[0].blob), (1, map));
    assert!(!store.has_blob(&map));
}
