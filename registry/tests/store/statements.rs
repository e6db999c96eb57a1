//! What is kept of statements, and what is refused.

use registry::publish::{PublishError, accept, learn};
use registry::statement::*;
use registry::store::{Store, StoreError};
use registry::{Digest, Reference, Signed};

use crate::help::*;

fn put(store: &Store, statement: Statement) -> Result<registry::publish::Accepted, PublishError> {
    learn(store, &sign(statement), NOW)
}

/// A release of one file that exists nowhere.
fn release(model: &str, version: &str, seed: u8) -> Release {
    let file = File {
        path: "m.gguf".into(),
        blake3: Digest::of(&[seed]),
        sha256: registry::Sha256::from_bytes([seed; 32]),
        size: 1,
        media_type: "application/octet-stream".into(),
        chunk_map: Digest::of(&[seed, 0]),
    };
    Release {
        model: model.parse().unwrap(),
        version: registry::Version::new(version).unwrap(),
        format: "gguf".into(),
        licence: "MIT".into(),
        derived_from: vec![],
        releasable_to: Releasable::All,
        model_card: None,
        issued: NOW,
        files: vec![file],
    }
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

#[test]
fn the_feed_keeps_the_order_and_survives() {
    let (_dir, store) = house("borea", &["alba"]);
    let first = put(&store, Statement::Release(release("alba/m", "1", 1))).unwrap();
    let second = put(&store, Statement::Release(release("alba/m", "2", 2))).unwrap();
    let moved = put(&store, Statement::Channel(channel("alba/m", 1, first.digest))).unwrap();
    assert_eq!((first.seq, second.seq, moved.seq), (1, 2, 3));
    let again = put(&store, Statement::Release(release("alba/m", "1", 1))).unwrap();
    assert_eq!((again.seq, again.new), (1, false));
    let home = store.home().to_owned();
    drop(store);
    let store = Store::open(&home).unwrap();
    assert_eq!(store.last_seq(), 3);
    let digests =
        |page: Vec<(u64, Signed)>| page.into_iter().map(|(seq, s)| (seq, s.digest())).collect::<Vec<_>>();
    assert_eq!(digests(store.feed(0, 2).unwrap()), [(1, first.digest), (2, second.digest)]);
    assert_eq!(digests(store.feed(2, 99).unwrap()), [(3, moved.digest)]);
    assert!(store.feed(3, 99).unwrap().is_empty());
    assert!(store.feed(u64::MAX, 99).unwrap().is_empty());
    assert_eq!(store.resolve(&reference("alba/m")).unwrap(), Some(first.digest));
    assert_eq!(store.resolve(&reference("alba/m@2")).unwrap(), Some(second.digest));
    assert_eq!(store.resolve(&reference("alba/m@3")).unwrap(), None);
    assert_eq!(store.resolve(&reference("alba/m:beta")).unwrap(), None);
    assert_eq!(store.resolve(&Reference::Digest(second.digest)).unwrap(), Some(second.digest));
    assert_eq!(store.resolve(&Reference::Digest(moved.digest)).unwrap(), None);
    assert_eq!(store.releases().unwrap().len(), 2);
    assert!(store.release(&moved.digest).unwrap().is_none());
}

#[test]
fn a_channel_never_goes_back() {
    let (_dir, store) = house("borea", &["alba"]);
    let old = put(&store, Statement::Release(release("alba/m", "1", 1))).unwrap().digest;
    let new = put(&store, Statement::Release(release("alba/m", "2", 2))).unwrap().digest;
    put(&store, Statement::Channel(channel("alba/m", 5, new))).unwrap();
    let before = store.last_seq();

    let down = put(&store, Statement::Channel(channel("alba/m", 4, old))).unwrap_err();
    assert!(
        matches!(down, PublishError::Store(StoreError::ChannelDowngrade { have: 5, got: 4, .. })),
        "{down}"
    );
    let conflict = put(&store, Statement::Channel(channel("alba/m", 5, old))).unwrap_err();
    assert!(
        matches!(&conflict, PublishError::Store(StoreError::ChannelConflict { sequence: 5, have, got, .. }) if *have == new && *got == old),
        "{conflict}"
    );
    // The same said in other words changes nothing.
    let other = Channel { reason: "said again".into(), ..channel("alba/m", 5, new) };
    assert!(!put(&store, Statement::Channel(other)).unwrap().new);
    assert_eq!(store.last_seq(), before);
    assert_eq!(store.resolve(&reference("alba/m")).unwrap(), Some(new));

    // A rollback is visible: a higher sequence.
    put(&store, Statement::Channel(channel("alba/m", 6, old))).unwrap();
    assert_eq!(store.resolve(&reference("alba/m")).unwrap(), Some(old));
    let stable = registry::ChannelName::new("stable").unwrap();
    assert_eq!(store.next_channel_sequence(&"alba/m".parse().unwrap(), &stable).unwrap(), 7);
    assert_eq!(store.channels().unwrap().len(), 1);
}

#[test]
fn a_channel_that_points_to_another_model_is_not_followed() {
    let (_dir, store) = house("borea", &["alba"]);
    let foreign = release("borea/other", "1", 1);
    let digest = sign(Statement::Release(foreign.clone())).digest();
    put(&store, Statement::Channel(channel("alba/m", 1, digest))).unwrap();
    // Nothing is wrong yet as far as anybody can know.
    assert_eq!(store.resolve(&reference("alba/m")).unwrap(), Some(digest));
    put(&store, Statement::Release(foreign)).unwrap();
    let error = store.resolve(&reference("alba/m")).unwrap_err();
    assert!(matches!(error, StoreError::OtherModel { .. }), "{error}");
}

#[test]
fn a_version_is_never_reused() {
    let (_dir, store) = house("borea", &["alba"]);
    put(&store, Statement::Release(release("alba/m", "1", 1))).unwrap();
    let error = put(&store, Statement::Release(release("alba/m", "1", 2))).unwrap_err();
    assert!(matches!(error, PublishError::Store(StoreError::VersionConflict { .. })), "{error}");
    // Names that could run together as keys don't.
    put(&store, Statement::Release(release("alba/m", "1.1", 3))).unwrap();
    put(&store, Statement::Release(release("alba/m-1", "1", 4))).unwrap();
    assert_eq!(store.last_seq(), 3);
}

#[test]
fn further_signatures_join_and_idle_ones_do_not() {
    let (_dir, store) = house("borea", &["alba"]);
    let statement = Statement::Release(release("alba/m", "1", 1));
    let mut signed = sign(statement);
    signed.cosign(&key("a stranger"));
    let accepted = learn(&store, &signed, NOW).unwrap();
    assert_eq!(store.statement(&accepted.digest).unwrap().unwrap().envelopes().len(), 1);
    assert!(!learn(&store, &signed, NOW).unwrap().new);
    assert_eq!(store.statement(&accepted.digest).unwrap().unwrap().envelopes().len(), 1);
}

#[test]
fn only_pinned_nations_and_only_some_kinds() {
    let (_dir, store) = house("borea", &["alba"]);
    let stranger = put(&store, Statement::Release(release("cora/m", "1", 1))).unwrap_err();
    assert!(matches!(stranger, PublishError::Trust(registry::trust::TrustError::NotPinned(_))), "{stranger}");
    let root = learn(&store, &root("alba"), NOW).unwrap_err();
    assert!(matches!(root, PublishError::Kind(Kind::Root)), "{root}");
    let foreign = accept(&store, &sign(Statement::Release(release("alba/m", "1", 1))), NOW).unwrap_err();
    assert!(matches!(foreign, PublishError::Foreign { .. }), "{foreign}");
    let empty = accept(&store, &sign(Statement::Release(release("borea/m", "1", 1))), NOW).unwrap_err();
    assert!(matches!(&empty, PublishError::MissingBlobs { missing, .. } if missing.len() == 1), "{empty}");
    let nowhere = Statement::Channel(channel("borea/m", 1, Digest::of(b"nothing")));
    let nowhere = accept(&store, &sign(nowhere), NOW).unwrap_err();
    assert!(matches!(nowhere, PublishError::UnknownRelease { kind: Kind::Channel, .. }), "{nowhere}");
    assert_eq!(store.last_seq(), 0);
}

#[test]
fn recalls_are_counted_by_nation() {
    let (_dir, store) = house("borea", &["alba"]);
    let target = RecallTarget::Release(Digest::of(b"x"));
    assert_eq!(store.next_recall_sequence(&nation("alba")).unwrap(), 1);
    put(&store, Statement::Recall(recall("alba", 300, target))).unwrap();
    put(&store, Statement::Recall(recall("alba", 2, target))).unwrap();
    put(&store, Statement::Recall(recall("borea", 1, target))).unwrap();
    assert_eq!(store.next_recall_sequence(&nation("alba")).unwrap(), 301);
    assert_eq!(store.next_recall_sequence(&nation("borea")).unwrap(), 2);
    let sequences: Vec<u64> = store.recalls().unwrap().iter().map(|(_, recall)| recall.sequence).collect();
    assert_eq!(sequences, [2, 300, 1]);
}

#[test]
fn ancestors_reach_over_generations_and_name_who_made_them() {
    let (_dir, store) = house("borea", &["alba"]);
    let unknown = Digest::of(b"unknown");
    let derived = |model, version, seed, from: Digest| Release {
        derived_from: vec![DerivedFrom { release: from, relation: Relation::FineTune }],
        ..release(model, version, seed)
    };
    let base = put(&store, Statement::Release(derived("alba/m", "1", 1, unknown))).unwrap().digest;
    let middle = put(&store, Statement::Release(derived("borea/m", "1", 2, base))).unwrap().digest;
    let last = put(&store, Statement::Release(derived("alba/m", "2", 3, middle))).unwrap().digest;
    let ancestors = store.ancestors(&last).unwrap();
    assert_eq!(ancestors.len(), 3);
    let producer = |digest| ancestors[digest].as_ref().map(|it| it.producer.clone());
    assert_eq!(producer(&middle), Some(nation("borea")));
    assert_eq!(producer(&base), Some(nation("alba")));
    assert_eq!(ancestors[&unknown], None);
    assert!(store.ancestors(&unknown).unwrap().is_empty());
}
