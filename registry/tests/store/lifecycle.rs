//! Creating, opening, owning.

use std::fs;

use registry::Digest;
use registry::store::{LAYOUT, Store, StoreError};
use registry::trust::TrustError;

use crate::help::*;

#[test]
fn one_process_owns_a_store() {
    let (_dir, store) = house("alba", &[]);
    let busy = Store::open(store.home()).unwrap_err();
    assert!(matches!(&busy, StoreError::Busy { home } if home == store.home()), "{busy}");
    assert!(busy.to_string().contains("a node or another command is running"));
    let home = store.home().to_owned();
    drop(store);
    assert_eq!(Store::open(&home).unwrap().own(), nation("alba"));
}

#[test]
fn only_a_store_is_opened_and_none_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::NotAHome { .. })));
    assert_eq!(listing(dir.path()).len(), 0);
    let home = dir.path().join("a/b");
    drop(Store::create(&home, &root("alba"), NOW).unwrap());
    assert!(matches!(Store::create(&home, &root("borea"), NOW), Err(StoreError::Exists { .. })));
}

#[test]
fn an_interrupted_creation_is_taken_up_again() {
    let (_dir, store) = house("alba", &[]);
    let home = store.home().to_owned();
    drop(store);
    fs::remove_file(home.join("layout")).unwrap();
    assert!(matches!(Store::open(&home), Err(StoreError::NotAHome { .. })));
    let store = Store::create(&home, &root("borea"), NOW).unwrap();
    assert_eq!(store.own(), nation("borea"));
    assert_eq!(store.trust().members().count(), 1);
}

#[test]
fn a_newer_layout_is_refused_by_its_version() {
    let (_dir, store) = house("alba", &[]);
    let home = store.home().to_owned();
    drop(store);
    fs::write(home.join("layout"), "steelyard-store 7\n").unwrap();
    let error = Store::open(&home).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 7, known: LAYOUT, .. }), "{error}");
    assert!(error.to_string().contains("upgrade"));
    for text in ["", "steelyard-store 0", "steelyard-store x", "something else", &"7".repeat(1000)] {
        fs::write(home.join("layout"), text).unwrap();
        assert!(matches!(Store::open(&home), Err(StoreError::Layout { .. })), "{text}");
    }
}

#[test]
fn pinned_nations_stay_pinned() {
    let (_dir, store) = house("alba", &["borea"]);
    let wrong = store.pin_nation(&root("cora"), Digest::of(b"another"), NOW).unwrap_err();
    assert!(matches!(wrong, StoreError::Trust(TrustError::Fingerprint { .. })), "{wrong}");
    store.pin_nation(&root("cora"), root("cora").digest(), NOW).unwrap();
    store.unpin_nation(&nation("borea")).unwrap();
    assert!(matches!(store.unpin_nation(&nation("alba")), Err(StoreError::Trust(TrustError::Own(_)))));
    let home = store.home().to_owned();
    drop(store);
    let store = Store::open(&home).unwrap();
    let trust = store.trust();
    let members: Vec<_> = trust.members().map(|(nation, member)| (nation.as_str(), member.pinned)).collect();
    assert_eq!(members, [("alba", NOW), ("cora", NOW)]);
}

#[test]
fn notes_are_kept_and_bounded() {
    let (_dir, store) = house("alba", &[]);
    store.put_meta("cursor/peer", b"42").unwrap();
    // A note can't reach the store's own records.
    store.put_meta("own", b"borea").unwrap();
    assert!(matches!(store.put_meta(&"k".repeat(257), b""), Err(StoreError::NoteTooLarge { .. })));
    assert!(matches!(store.put_meta("k", &[0; 70_000]), Err(StoreError::NoteTooLarge { .. })));
    let home = store.home().to_owned();
    drop(store);
    let store = Store::open(&home).unwrap();
    assert_eq!(store.get_meta("cursor/peer").as_deref(), Some(&b"42"[..]));
    assert_eq!(store.get_meta("cursor/other"), None);
    assert_eq!(store.own(), nation("alba"));
}
