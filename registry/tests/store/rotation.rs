//! Lost and stolen keys, rehearsed on stores with their logs; and what stays when an ally goes.

use registry::admit::{self, AdmitError};
use registry::key::SecretKey;
use registry::publish::{PublishError, accept, learn};
use registry::statement::*;
use registry::store::{OwnLog, Store};
use registry::timestamp::DAY;
use registry::trust::{MembershipError, TrustError};
use registry::{ChannelName, Digest, Signed};

use crate::help::*;

fn new_key(name: &str) -> SecretKey {
    key(&format!("new {name}"))
}

/// alba's next root after the newest one of `store`: another key for these roles, signed by its one root key (and by the new
/// one where the root role changes).
fn next_root(store: &Store, roles: &[RoleName], by: &SecretKey) -> Signed {
    let trust = store.trust();
    let newest = &trust.member(&nation("alba")).unwrap().root;
    let mut root = Root::clone(newest);
    let replacement = new_key("alba");
    root.version += 1;
    root.previous = Some(newest.digest());
    root.keys.insert(replacement.id(), RootKey::Ed25519 { public: replacement.public() });
    for role in roles {
        root.roles.insert(*role, RoleKeys { keys: vec![replacement.id()], threshold: 1 });
    }
    let mut signed = Signed::sign(&Statement::Root(root), by);
    if roles.contains(&RoleName::Root) {
        signed.cosign(&replacement);
    }
    signed
}

/// Appends what waits, and copies alba's log to the others.
fn log(from: &Store, signer: &SecretKey, to: &[&Store]) {
    if from.own_log() == OwnLog::Unconfirmed {
        assert_eq!(from.confirm_log(), OwnLog::Confirmed);
    }
    from.append_log(signer).unwrap();
    let alba = nation("alba");
    let Some(checkpoint) = from.log_checkpoint(&alba).unwrap() else { return };
    for store in to {
        let here = store.log_size(&alba).unwrap();
        let entries = from.log_entries(&alba, here, checkpoint.size()).unwrap();
        let note = checkpoint.note().to_string();
        let checkpoint = store.read_checkpoint(&alba, note.as_bytes()).unwrap();
        store.extend_log(&checkpoint, &entries).unwrap();
    }
}

fn thief(release: &Release, version: &str) -> Signed {
    let mut release = release.clone();
    release.version = registry::Version::new(version).unwrap();
    Signed::sign(&Statement::Release(release), &key("alba"))
}

fn superseded(error: &PublishError) -> bool {
    matches!(error, PublishError::Trust(TrustError::Superseded { .. } | TrustError::Unordered { .. }))
}

#[test]
fn a_thief_of_the_release_key_gets_nowhere_after_the_rotation_and_what_came_before_stays() {
    let (_a, alba) = house("alba", &[]);
    let (_b, borea) = house("borea", &["alba"]);
    let (_c, cora) = house("cora", &["alba"]);
    let early = published(&alba, "alba/m", "1", 1);
    let known = alba.release(&early).unwrap().unwrap();
    pull(&alba, &borea, &early).unwrap();
    log(&alba, &key("alba"), &[&borea]);

    let root = next_root(&alba, &[RoleName::Release], &key("alba"));
    accept(&alba, &root, NOW).unwrap();
    learn(&borea, &root, NOW).unwrap();
    // Until the log shows the order, what was admitted stays, and nothing else under the old key is believed.
    admit::admit(&borea, &early, NOW).unwrap();
    assert!(superseded(&learn(&borea, &thief(&known, "2"), NOW).unwrap_err()));
    log(&alba, &key("alba"), &[&borea]);

    // The thief's later release is refused at home and abroad; the earlier one is admitted anew, also by whoever comes late.
    for store in [&alba, &borea] {
        let error = learn(store, &thief(&known, "2"), NOW).unwrap_err();
        assert!(matches!(error, PublishError::Trust(TrustError::Superseded { version: 2, .. })), "{error}");
    }
    admit::admit(&borea, &early, NOW).unwrap();
    assert!(borea.admission(&early).unwrap().is_some());
    learn(&cora, &root, NOW).unwrap();
    let statement = alba.statement(&early).unwrap().unwrap();
    let error = learn(&cora, &statement, NOW).unwrap_err();
    assert!(matches!(error, PublishError::Trust(TrustError::Unordered { .. })), "{error}");
    log(&alba, &key("alba"), &[&cora]);
    pull(&alba, &cora, &early).unwrap();
    // The nation publishes on with its new key.
    let mut next = known.clone();
    next.version = registry::Version::new("3").unwrap();
    let next = Signed::sign(&Statement::Release(next), &new_key("alba"));
    accept(&alba, &next, NOW).unwrap();
    learn(&borea, &next, NOW).unwrap();
}

#[test]
fn what_a_thief_had_slipped_in_before_is_out_once_the_log_shows_it_was_never_logged() {
    let (_a, alba) = house("alba", &[]);
    let (_b, borea) = house("borea", &["alba"]);
    let early = published(&alba, "alba/m", "1", 1);
    pull(&alba, &borea, &early).unwrap();
    let known = alba.release(&early).unwrap().unwrap();
    // The thief shows borea alone a release and moves the channel there as far as it goes.
    let stolen = thief(&known, "2");
    learn(&borea, &stolen, NOW).unwrap();
    let jump = channel("alba/m", u64::MAX, stolen.digest());
    learn(&borea, &Signed::sign(&Statement::Channel(jump), &key("alba")), NOW).unwrap();
    admit::admit(&borea, &stolen.digest(), NOW).unwrap();

    let root = next_root(&alba, &[RoleName::Release], &key("alba"));
    accept(&alba, &root, NOW).unwrap();
    learn(&borea, &root, NOW).unwrap();
    log(&alba, &key("alba"), &[&borea]);
    let error = admit::admit(&borea, &stolen.digest(), NOW).unwrap_err();
    assert!(matches!(error, AdmitError::Trust(TrustError::Superseded { .. })), "{error}");
    assert!(borea.admission(&stolen.digest()).unwrap().is_none(), "its admission is withdrawn");
    admit::admit(&borea, &early, NOW).unwrap();
    // The channel is not lost either: the nation's next move does not compete with the thief's.
    let stable = ChannelName::new("stable").unwrap();
    assert_eq!(borea.next_channel_sequence(&known.model, &stable).unwrap(), 1);
    let moved = Signed::sign(&Statement::Channel(channel("alba/m", 2, early)), &new_key("alba"));
    learn(&borea, &moved, NOW).unwrap();
    assert_eq!(borea.resolve(&"alba/m:stable".parse().unwrap()).unwrap(), Some(early));
}

#[test]
fn a_whole_nation_s_keys_are_replaced_in_one_rotation() {
    let (_a, alba) = house("alba", &[]);
    let (_b, borea) = house("borea", &["alba"]);
    let early = published(&alba, "alba/m", "1", 1);
    pull(&alba, &borea, &early).unwrap();
    log(&alba, &key("alba"), &[&borea]);
    let all = RoleName::ALL;
    let root = next_root(&alba, &all, &key("alba"));
    accept(&alba, &root, NOW).unwrap();
    learn(&borea, &root, NOW).unwrap();
    // The log goes on under the new log key; the checkpoint of the old one still counts where it is kept.
    assert!(alba.append_log(&key("alba")).is_err(), "the old log key signs no checkpoint any more");
    assert_eq!(borea.log_checkpoint(&nation("alba")).unwrap().unwrap().size(), 2);
    log(&alba, &new_key("alba"), &[&borea]);
    admit::admit(&borea, &early, NOW).unwrap();
    // The old keys are worth nothing: not for a recall, not for a root.
    let recall = Statement::Recall(recall("alba", 1, RecallTarget::Release(early)));
    assert!(superseded(&learn(&borea, &Signed::sign(&recall, &key("alba")), NOW).unwrap_err()));
    learn(&borea, &Signed::sign(&recall, &new_key("alba")), NOW).unwrap();
    let usurped = next_root(&alba, &[RoleName::Log], &key("alba"));
    assert!(learn(&borea, &usurped, NOW).is_err());
    // It lasts, and the nation comes back with both roots after it was let go.
    let home = borea.home().to_owned();
    drop(borea);
    let borea = Store::open(&home).unwrap();
    assert_eq!(borea.trust().member(&nation("alba")).unwrap().root.version, 2);
    borea.unpin_nation(&nation("alba")).unwrap();
    let first = crate::help::root("alba");
    let member = borea.pin_nation(&first, first.digest(), NOW).unwrap();
    assert_eq!((member.root.version, member.fingerprint()), (2, first.digest()));
}

#[test]
fn roots_travel_by_the_feed_and_two_of_one_version_are_an_alarm() {
    let (_a, alba) = house("alba", &[]);
    let (_b, borea) = house("borea", &["alba"]);
    let root = next_root(&alba, &[RoleName::Release], &key("alba"));
    let other = next_root(&alba, &[RoleName::Recall], &key("alba"));
    let accepted = accept(&alba, &root, NOW).unwrap();
    assert!(accepted.new);
    let fed = alba.feed(0, 10).unwrap();
    assert_eq!(fed.len(), 1);
    assert!(learn(&borea, &fed[0].1, NOW).unwrap().new);
    assert!(!learn(&borea, &fed[0].1, NOW).unwrap().new);
    for store in [&alba, &borea] {
        let error = learn(store, &other, NOW).unwrap_err();
        let PublishError::Trust(TrustError::RootConflict { version: 2, have, found, .. }) = error else {
            panic!("{error}")
        };
        assert_eq!((have, found), (root.digest(), other.digest()));
        assert_eq!(store.trust().member(&nation("alba")).unwrap().root.digest(), root.digest());
        assert_eq!(store.feed(0, 10).unwrap().len(), 1);
    }
    // A new ally takes the whole chain, though the first root has ended meanwhile.
    let mut renewed = Root::clone(&alba.trust().member(&nation("alba")).unwrap().root);
    (renewed.version, renewed.previous) = (3, Some(root.digest()));
    renewed.expires = NOW.plus(800 * DAY);
    let renewed = Signed::sign(&Statement::Root(renewed), &key("alba"));
    let late = NOW.plus(400 * DAY);
    let first = crate::help::root("alba");
    let dir = tempfile::tempdir().unwrap();
    let cora = Store::create(&dir.path().join("store"), &crate::help::root("cora"), NOW).unwrap();
    assert!(cora.pin_nation(&first, first.digest(), late).is_err());
    assert!(
        cora.pin_chain(&first, std::slice::from_ref(&renewed), first.digest(), late).is_err(),
        "one is left out"
    );
    assert!(cora.trust().member(&nation("alba")).is_err(), "and nothing was changed");
    let chain = [root.clone(), renewed.clone()];
    assert_eq!(cora.pin_chain(&first, &chain, first.digest(), late).unwrap().root.version, 3);
    assert_eq!(cora.feed(0, 10).unwrap().len(), 2, "both are passed on");
}

fn say(by: &str, member: &Store, standing: Standing, sequence: u64) -> Signed {
    let fingerprint = crate::help::root(member.own().as_str()).digest();
    sign(Statement::Membership(Membership {
        nation: nation(by),
        member: member.own(),
        fingerprint,
        standing,
        sequence,
        reason: "as agreed".into(),
        issued: NOW,
    }))
}

#[test]
fn a_departed_ally_s_admitted_releases_stay_and_others_are_refused_by_policy() {
    let (_a, alba) = house("alba", &[]);
    let (_b, borea) = house("borea", &["alba"]);
    let (kept, other) = (published(&alba, "alba/m", "1", 1), published(&alba, "alba/m", "2", 2));
    pull(&alba, &borea, &kept).unwrap();
    learn(&borea, &alba.statement(&other).unwrap().unwrap(), NOW).unwrap();
    for (sequence, standing) in [(1, Standing::Suspended), (2, Standing::Departed)] {
        accept(&borea, &say("borea", &alba, standing, sequence), NOW).unwrap();
        for now in [NOW, NOW.plus(400 * DAY)] {
            admit::admit(&borea, &kept, now).unwrap();
            let error = admit::admit(&borea, &other, now).unwrap_err();
            let AdmitError::Refused { decision, .. } = error else { panic!("{error}") };
            let rules: Vec<&str> = decision.refusals().map(|check| check.rule.as_str()).collect();
            assert_eq!(rules, ["active-nation"]);
        }
        let new = Statement::Channel(channel("alba/m", 9, kept));
        let error = learn(&borea, &sign(new), NOW).unwrap_err();
        assert!(matches!(error, PublishError::Trust(TrustError::NotActive { .. })), "{error}");
    }
    // Over a restart too; its own recall ends it.
    let home = borea.home().to_owned();
    drop(borea);
    let borea = Store::open(&home).unwrap();
    assert_eq!(borea.trust().member(&nation("alba")).unwrap().standing(), Standing::Departed);
    let error = accept(&borea, &say("borea", &alba, Standing::Active, 3), NOW).unwrap_err();
    assert!(
        matches!(error, PublishError::Trust(TrustError::Membership(MembershipError::Step { .. }))),
        "{error}"
    );
    assert_eq!(borea.next_membership_sequence(&nation("alba")), 3);
    let recalled = sign(Statement::Recall(recall("alba", 1, RecallTarget::Release(kept))));
    assert_eq!(learn(&borea, &recalled, NOW).unwrap().withdrawn, [kept]);
}

#[test]
fn a_nation_is_invited_before_it_is_pinned() {
    let (_a, alba) = house("alba", &[]);
    let (_b, borea) = house("borea", &[]);
    let first = crate::help::root("alba");
    accept(&borea, &say("borea", &alba, Standing::Invited, 1), NOW).unwrap();
    let member = borea.pin_nation(&first, first.digest(), NOW).unwrap();
    assert_eq!(member.standing(), Standing::Invited);
    let release = published(&alba, "alba/m", "1", 1);
    let statement = alba.statement(&release).unwrap().unwrap();
    assert!(learn(&borea, &statement, NOW).is_err());
    accept(&borea, &say("borea", &alba, Standing::Active, 2), NOW).unwrap();
    learn(&borea, &statement, NOW).unwrap();
    // Another nation under that name is not the one that was invited.
    let dir = tempfile::tempdir().unwrap();
    let cora = Store::create(&dir.path().join("store"), &crate::help::root("cora"), NOW).unwrap();
    accept(&cora, &say("cora", &alba, Standing::Invited, 1), NOW).unwrap();
    let mut impostor = Root::clone(&alba.trust().member(&nation("alba")).unwrap().root);
    impostor.expires = NOW.plus(DAY);
    let impostor = sign(Statement::Root(impostor));
    assert!(cora.pin_nation(&impostor, impostor.digest(), NOW).is_err());
    assert_ne!(impostor.digest(), Digest::of(b""));
}

/// A thief of the recall key tells two of alba's nodes, which don't keep the log, that its allies are gone for good.
#[test]
fn what_a_thief_said_of_allies_is_out_once_the_log_shows_that_it_came_later() {
    let ((_a, alba), (_b, borea), (_c, cora)) =
        (house("alba", &["borea", "cora"]), house("borea", &[]), house("cora", &[]));
    let ((_s, second), (_t, third)) = (house("alba", &["borea", "cora"]), house("alba", &["borea", "cora"]));
    for (sequence, standing) in [(1, Standing::Suspended), (2, Standing::Active)] {
        for store in [&alba, &second, &third] {
            learn(store, &say("alba", &borea, standing, sequence), NOW).unwrap();
        }
    }
    log(&alba, &key("alba"), &[&second, &third]);
    let lies = [&borea, &cora].map(|ally| say("alba", ally, Standing::Departed, u64::MAX));
    let standing = |store: &Store, of: &str| store.trust().member(&nation(of)).unwrap().standing();
    for store in [&second, &third] {
        lies.iter().for_each(|lie| drop(learn(store, lie, NOW).unwrap()));
        assert_eq!(
            (standing(store, "borea"), standing(store, "cora")),
            (Standing::Departed, Standing::Departed)
        );
    }
    let root = next_root(&alba, &[RoleName::Recall], &key("alba"));
    accept(&alba, &root, NOW).unwrap();
    // The second node has the root first, the third one the log.
    learn(&second, &root, NOW).unwrap();
    assert_eq!(standing(&second, "borea"), Standing::Departed, "nothing shows the order yet");
    log(&alba, &key("alba"), &[&second, &third]);
    learn(&third, &root, NOW).unwrap();
    for store in [&second, &third] {
        assert_eq!((standing(store, "borea"), standing(store, "cora")), (Standing::Active, Standing::Active));
        assert_eq!(store.next_membership_sequence(&nation("borea")), 3);
        assert_eq!(store.next_membership_sequence(&nation("cora")), 1);
        // The thief is not heard again.
        for lie in &lies {
            assert!(superseded(&learn(store, lie, NOW).unwrap_err()));
        }
    }
    // It lasts, and the nation speaks on with its new key.
    let home = second.home().to_owned();
    drop(second);
    let second = Store::open(&home).unwrap();
    assert_eq!(standing(&second, "borea"), Standing::Active);
    let statement = say("alba", &borea, Standing::Suspended, 3).peek().unwrap();
    let next = Signed::sign(&statement, &new_key("alba"));
    for store in [&alba, &second, &third] {
        learn(store, &next, NOW).unwrap();
        assert_eq!(standing(store, "borea"), Standing::Suspended);
    }
}
