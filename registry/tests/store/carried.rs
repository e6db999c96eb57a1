//! Bundles of version 2: for whom, in parts, and in which order they come.

use std::fs;

use registry::bundle::{self, BundleError, ExportOptions, ImportOptions, Matcher};
use registry::publish::accept;
use registry::statement::{RecallTarget, Releasable, Statement};
use registry::store::Store;
use registry::{Digest, admit};
use tempfile::TempDir;

use super::help::*;

fn options(to: &str) -> ExportOptions {
    ExportOptions { to: Some(nation(to)), ..ExportOptions::new(NOW) }
}

/// alba's store with a release, and borea's.
fn two() -> (TempDir, Store, TempDir, Store, Digest) {
    let ((a, from), (b, to)) = (house("alba", &["borea", "cora"]), house("borea", &["alba"]));
    let release = published(&from, "alba/m", "1", 5);
    (a, from, b, to, release)
}

#[test]
fn a_bundle_is_for_one_nation() {
    let (a, from, _b, to, release) = two();
    let path = a.path().join("x");
    let report = bundle::export_with(&from, &release, &path, &options("cora")).unwrap();
    assert_eq!((report.to, report.files_in), (nation("cora"), report.files));
    let error = bundle::import(&to, &path, NOW).unwrap_err();
    assert!(matches!(error, BundleError::ForAnother { .. }), "{error}");
    let error = bundle::export_with(&from, &release, &a.path().join("y"), &options("zeta")).unwrap_err();
    assert!(matches!(error, BundleError::Withheld { .. }), "{error}");
    // For our own nation where none is named.
    bundle::export(&from, &release, &a.path().join("z")).unwrap();
    bundle::import(&from, &a.path().join("z"), NOW).unwrap();
}

#[test]
fn what_a_nation_may_not_have_is_not_exported_to_it() {
    let (_a, from) = house("alba", &["borea", "cora"]);
    let folder = folder(6);
    let mut closed = release_of(&draft(&from, folder.path()), "alba/closed", "1");
    closed.releasable_to = Releasable::Nations([nation("borea")].into());
    let closed = accept(&from, &sign(Statement::Release(closed)), NOW).unwrap().digest;
    let out = folder.path().join("bundle");
    let error = bundle::export_with(&from, &closed, &out, &options("cora")).unwrap_err();
    assert!(error.to_string().contains("borea") && !out.exists(), "{error}");
    bundle::export_with(&from, &closed, &out, &options("borea")).unwrap();
}

#[test]
fn parts_come_together_in_any_order() {
    let (a, from, b, to, release) = two();
    let at = |name: &str| a.path().join(name);
    let part = |name: &str, patterns: &[&str]| {
        let files = patterns.iter().map(|pattern| Matcher::new(pattern)).collect();
        let options = ExportOptions { files, ..options("borea") };
        bundle::export_with(&from, &release, &at(name), &options).unwrap()
    };
    assert_eq!(part("weights", &["*.safetensors"]).files_in, 1);
    assert_eq!(part("texts", &["*.md", "*.json"]).files_in, 2);
    let none = ExportOptions { files: vec![Matcher::new("*.gguf")], ..options("borea") };
    let error = bundle::export_with(&from, &release, &at("none"), &none).unwrap_err();
    assert!(matches!(error, BundleError::NoSuchFile(_)), "{error}");

    let report = bundle::import(&to, &at("weights"), NOW).unwrap();
    assert_eq!(report.missing, ["README.md", "config.json"]);
    assert!(admit::admit(&to, &release, NOW).is_err());
    // What borea has need not travel again.
    let list = b.path().join("have");
    assert_eq!(bundle::write_have(&to, &list, NOW).unwrap(), to.blobs().unwrap().len());
    assert!(matches!(bundle::write_have(&to, &list, NOW), Err(BundleError::Exists { .. })));
    let have = bundle::read_have(&list).unwrap();
    let rest = ExportOptions { have, ..options("borea") };
    let rest = bundle::export_with(&from, &release, &at("rest"), &rest).unwrap();
    assert_eq!(rest.files_in, 2);
    assert!(rest.bytes < 1 << 20, "{} bytes", rest.bytes);
    let report = bundle::import(&to, &at("rest"), NOW).unwrap();
    assert!(report.missing.is_empty());
    admit::admit(&to, &release, NOW).unwrap();
    // The other order, from nothing.
    let (_b, other) = house("borea", &["alba"]);
    bundle::import(&other, &at("texts"), NOW).unwrap();
    bundle::import(&other, &at("weights"), NOW).unwrap();
    admit::admit(&other, &release, NOW).unwrap();
}

#[test]
fn a_list_of_what_is_there_is_read_with_care() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("have");
    for wrong in [
        "",
        "[]",
        r#"{"format":"other","version":1,"nation":"cora","made":"2026-11-23T12:00:00Z","blobs":[]}"#,
        r#"{"format":"steelyard-have","version":2,"nation":"cora","made":"2026-11-23T12:00:00Z","blobs":[]}"#,
        r#"{"format":"steelyard-have","version":1,"nation":"cora","made":"2026-11-23T12:00:00Z","blobs":["b3:00"]}"#,
        r#"{"format":"steelyard-have","version":1,"nation":"cora","made":"2026-11-23T12:00:00Z","blobs":[],"more":1}"#,
    ] {
        fs::write(&path, wrong).unwrap();
        assert!(matches!(bundle::read_have(&path), Err(BundleError::NotAList { .. })), "{wrong}");
    }
}

#[test]
fn an_older_bundle_takes_nothing_back() {
    let (a, from, _b, to, release) = two();
    let at = |name: &str| a.path().join(name);
    bundle::export_with(&from, &release, &at("old"), &options("borea")).unwrap();
    bundle::import(&to, &at("old"), NOW).unwrap();
    admit::admit(&to, &release, NOW).unwrap();
    let second = published(&from, "alba/m", "2", 6);
    let recall = recall("alba", 1, RecallTarget::Release(release));
    accept(&from, &sign(Statement::Recall(recall)), NOW).unwrap();
    bundle::export_with(&from, &second, &at("new"), &options("borea")).unwrap();
    let report = bundle::import(&to, &at("new"), NOW).unwrap();
    // The recall of the first release came with the second, as every recall of its producer.
    assert_eq!((report.recalls.len(), &report.withdrawn[..]), (1, &[release][..]));
    let error = bundle::import(&to, &at("old"), NOW).unwrap_err();
    assert!(matches!(error, BundleError::Refused { .. }), "{error}");
    assert_eq!(to.recalls().unwrap().len(), 1);
    assert_eq!(to.resolve(&"alba/m".parse().unwrap()).unwrap(), Some(second));
    let channel = to.channels().unwrap().remove(0).1;
    assert!(to.rolled_back_from(&channel).unwrap().is_none());
}

#[test]
fn a_stale_bundle_is_told_as_stale() {
    let (a, from, _b, to, release) = two();
    let path = a.path().join("x");
    bundle::export_with(&from, &release, &path, &options("borea")).unwrap();
    let old = ImportOptions { max_age: Some(3600), ..ImportOptions::default() };
    let error = bundle::import_with(&to, &path, NOW.plus(3601), old).unwrap_err();
    assert!(error.to_string().contains("stale") && error.to_string().contains("3601 s"), "{error}");
    let report = bundle::import_with(&to, &path, NOW.plus(3600), old).unwrap();
    assert_eq!((report.made, report.by), (Some(NOW), Some(nation("alba"))));
}

#[test]
fn a_rollback_is_seen_until_the_channel_moves_on() {
    let (_a, from) = house("alba", &[]);
    let folder = folder(7);
    let mut release = release_of(&draft(&from, folder.path()), "alba/m", "1");
    let first = accept(&from, &sign(Statement::Release(release.clone())), NOW).unwrap().digest;
    (release.version, release.issued) = ("2".parse().unwrap(), NOW.plus(60));
    let second = accept(&from, &sign(Statement::Release(release)), NOW).unwrap().digest;
    let point = |sequence, to| {
        accept(&from, &sign(Statement::Channel(channel("alba/m", sequence, to))), NOW).unwrap();
        let now = from.channels().unwrap().remove(0).1;
        from.rolled_back_from(&now).unwrap().map(|(left, _)| left)
    };
    assert_eq!(point(1, first), None);
    assert_eq!(point(2, second), None);
    assert_eq!(point(3, first), Some(second));
    assert_eq!(point(4, second), None);
}
