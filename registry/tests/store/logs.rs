//! The nations' logs as the store keeps them.

use std::fs;
use std::path::Path;

use registry::log::checkpoint::{SignedCheckpoint, note_keys};
use registry::log::evidence::Evidence;
use registry::log::tiles::Tile;
use registry::log::tree::{leaf_hash, verify_inclusion};
use registry::log::witness::{AddCheckpoint, Refusal};
use registry::log::{ENTRY, entry, statement_of};
use registry::publish;
use registry::statement::*;
use registry::store::{Extended, LogError, OwnLog, Store};
use registry::{Digest, Nation, Timestamp};

use crate::help::*;

/// A recall of alba's number `sequence`: the smallest statement.
pub(crate) fn say(store: &Store, by: &str, sequence: u64) -> Digest {
    let target = RecallTarget::Release(Digest::of(&sequence.to_le_bytes()));
    let signed = sign(Statement::Recall(recall(by, sequence, target)));
    publish::learn(store, &signed, NOW).unwrap();
    signed.digest()
}

pub(crate) fn append(store: &Store) -> SignedCheckpoint {
    store.confirm_log();
    store.append_log(&key("alba")).unwrap().unwrap().checkpoint
}

pub(crate) fn all(store: &Store, nation: &Nation) -> Vec<[u8; ENTRY]> {
    store.log_entries(nation, 0, u64::MAX).unwrap()
}

/// Everything that `from` has of alba's log goes to `to`.
pub(crate) fn follow(from: &Store, to: &Store) -> Result<Extended, LogError> {
    let alba = nation("alba");
    let checkpoint = from.log_checkpoint(&alba).unwrap().unwrap();
    let note = checkpoint.note().to_string();
    let read = to.read_checkpoint(&alba, note.as_bytes()).unwrap();
    let here = to.log_size(&alba).unwrap();
    to.extend_log(&read, &from.log_entries(&alba, here, read.size()).unwrap())
}

pub(crate) fn request(from: &Store, old: u64) -> AddCheckpoint {
    let alba = nation("alba");
    let checkpoint = from.log_checkpoint(&alba).unwrap().unwrap();
    let proof = from.log_consistency(&alba, old, checkpoint.size()).unwrap().unwrap_or_default();
    AddCheckpoint { old_size: old, proof, note: checkpoint.note().clone() }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy(&item.path(), &target);
        } else {
            fs::copy(item.path(), target).unwrap();
        }
    }
}

#[test]
fn what_was_signed_is_appended_once_and_in_order() {
    let (_dir, store) = house("alba", &["borea"]);
    let alba = nation("alba");
    assert!(matches!(store.append_log(&key("alba")), Err(LogError::Unconfirmed)));
    assert_eq!(store.confirm_log(), OwnLog::Confirmed);
    assert!(store.append_log(&key("alba")).unwrap().is_none());
    let said: Vec<Digest> = (1..=5).map(|n| say(&store, "alba", n)).collect();
    // Another nation's statement is not ours to log.
    say(&store, "borea", 1);
    assert_eq!(store.pending_log().unwrap(), said);
    let appended = store.append_log(&key("alba")).unwrap().unwrap();
    assert_eq!((appended.first, &appended.statements), (0, &said));
    assert!(store.append_log(&key("alba")).unwrap().is_none());
    assert!(matches!(store.append_log(&key("borea")), Err(LogError::Key)));
    let later = say(&store, "alba", 6);
    assert_eq!(store.append_log(&key("alba")).unwrap().unwrap().first, 5);
    let logged = store.logged(&later, NOW).unwrap().unwrap();
    assert_eq!((logged.index, logged.size, logged.witnesses.len()), (5, 6, 0));
    assert_eq!(all(&store, &alba).iter().map(|e| statement_of(e).unwrap()).collect::<Vec<_>>()[..5], said);
    assert_eq!(store.logged(&Digest::of(b"nothing"), NOW).unwrap(), None);
}

#[test]
fn an_ally_follows_entry_by_entry_and_proves_what_it_has() {
    let (_a, ours) = house("alba", &["borea"]);
    let (_b, theirs) = house("borea", &["alba"]);
    let alba = nation("alba");
    let mut said = Vec::new();
    for round in 0..40u64 {
        said.push(say(&ours, "alba", round + 1));
        append(&ours);
        if round % 7 == 3 {
            assert_eq!(follow(&ours, &theirs).unwrap(), Extended::Grown(round + 1));
            assert_eq!(follow(&ours, &theirs).unwrap(), Extended::Known);
        }
    }
    follow(&ours, &theirs).unwrap();
    let newest = theirs.log_checkpoint(&alba).unwrap().unwrap();
    for (index, digest) in said.iter().enumerate() {
        assert_eq!(theirs.logged_in(&alba, digest).unwrap().unwrap().index, index as u64);
        let proof = theirs.log_proof(&alba, digest).unwrap().unwrap();
        let leaf = leaf_hash(&entry(digest));
        verify_inclusion(&leaf, proof.index, newest.size(), &proof.path, newest.root()).unwrap();
        let root = root("alba");
        let Statement::Root(root) = root.peek().unwrap() else { panic!() };
        let keys = note_keys(&root, RoleName::Log);
        let read = registry::log::proof::LogProof::parse(&proof.to_text()).unwrap();
        assert_eq!(read.verify(digest, &alba, &keys, []).unwrap().index, index as u64);
        assert!(read.verify(&Digest::of(b"other"), &alba, &keys, []).is_err());
    }
    let tile = Tile { level: Some(0), index: 0, width: 40 };
    let hashes = theirs.log_tile(&alba, tile).unwrap().unwrap();
    assert_eq!(hashes[3], leaf_hash(&entry(&said[3])));
    assert_eq!(theirs.log_tile(&alba, Tile { width: 41, ..tile }).unwrap(), None);
}

#[test]
fn entries_that_are_not_those_signed_change_nothing() {
    let (_a, ours) = house("alba", &[]);
    let (_b, theirs) = house("borea", &["alba"]);
    let alba = nation("alba");
    (1..=9).for_each(|n| {
        say(&ours, "alba", n);
    });
    let checkpoint = append(&ours);
    let good = all(&ours, &alba);
    let mut wrong = good.clone();
    wrong[4][7] ^= 1;
    for bad in [&wrong[..], &good[..8], &[], &[good.clone(), good.clone()].concat()] {
        assert!(matches!(theirs.extend_log(&checkpoint, bad), Err(LogError::Entries(_))));
        assert_eq!(theirs.log_size(&alba).unwrap(), 0);
    }
    // Another key's checkpoint is not even read.
    let forged = SignedCheckpoint::sign(&alba, 9, *checkpoint.root(), &key("borea")).unwrap();
    assert!(theirs.read_checkpoint(&alba, forged.note().to_string().as_bytes()).is_err());
    assert!(theirs.read_checkpoint(&nation("cora"), checkpoint.note().to_string().as_bytes()).is_err());
    assert_eq!(theirs.extend_log(&checkpoint, &good).unwrap(), Extended::Grown(9));
}

#[test]
fn a_witness_cosigns_forwards_alone_and_remembers_across_restarts() {
    let (_a, ours) = house("alba", &["borea"]);
    let (dir, theirs) = house("borea", &["alba"]);
    let alba = nation("alba");
    let witness = key("borea");
    (1..=3).for_each(|n| {
        say(&ours, "alba", n);
    });
    append(&ours);
    let first = request(&ours, 0);
    let lines = theirs.cosign(&first, &witness, NOW).unwrap().unwrap();
    assert!(ours.add_cosignatures(&alba, 3, &lines).unwrap());
    assert!(!ours.add_cosignatures(&alba, 3, &lines).unwrap());
    let digest = statement_of(&all(&ours, &alba)[0]).unwrap();
    let logged = ours.logged(&digest, NOW).unwrap().unwrap();
    assert_eq!(logged.witnesses.into_iter().collect::<Vec<_>>(), [nation("borea")]);
    assert_eq!(logged.witnessed, Some(NOW));
    (4..=8).for_each(|n| {
        say(&ours, "alba", n);
    });
    append(&ours);
    // The log believes another size.
    let answer = theirs.cosign(&request(&ours, 0), &witness, NOW).unwrap();
    assert_eq!(answer, Err(Refusal::Conflict { size: 3 }));
    let mut wrong = request(&ours, 3);
    wrong.proof[0][0] ^= 1;
    assert!(matches!(theirs.cosign(&wrong, &witness, NOW).unwrap(), Err(Refusal::BadProof(_))));
    theirs.cosign(&request(&ours, 3), &witness, NOW).unwrap().unwrap();
    assert_eq!(theirs.cosigned(&alba).unwrap().unwrap().size, 8);
    // Earlier cosignatures still count for what they cover.
    assert_eq!(ours.logged(&digest, NOW).unwrap().unwrap().witnesses.len(), 1);

    drop(theirs);
    let again = Store::open(&dir.path().join("store")).unwrap();
    assert_eq!(again.cosign(&first, &witness, NOW).unwrap(), Err(Refusal::Conflict { size: 8 }));
    // The same again is answered again.
    assert!(again.cosign(&request(&ours, 8), &witness, NOW).unwrap().is_ok());
    // Nobody witnesses a log that is not pinned, or its own.
    let (_c, stranger) = house("cora", &[]);
    assert!(matches!(stranger.cosign(&first, &key("cora"), NOW).unwrap(), Err(Refusal::UnknownLog(_))));
    assert!(matches!(ours.cosign(&first, &key("alba"), NOW).unwrap(), Err(Refusal::UnknownLog(_))));
}

/// Two stores of alba that share everything up to three statements, then speak differently.
pub(crate) fn two_faces() -> (Vec<tempfile::TempDir>, Store, Store) {
    let (dir, one) = house("alba", &["borea"]);
    (1..=3).for_each(|n| {
        say(&one, "alba", n);
    });
    append(&one);
    drop(one);
    let other = tempfile::tempdir().unwrap();
    copy(&dir.path().join("store"), &other.path().join("store"));
    let one = Store::open(&dir.path().join("store")).unwrap();
    let two = Store::open(&other.path().join("store")).unwrap();
    (10..=12).for_each(|n| {
        say(&one, "alba", n);
    });
    (20..=24).for_each(|n| {
        say(&two, "alba", n);
    });
    append(&one);
    append(&two);
    (vec![dir, other], one, two)
}

pub(crate) fn log_keys() -> Vec<registry::log::note::NoteKey> {
    let root = root("alba");
    let Statement::Root(root) = root.peek().unwrap() else { panic!() };
    note_keys(&root, RoleName::Log)
}

#[test]
fn a_log_with_two_faces_is_proved_to_anybody() {
    let (_dirs, one, two) = two_faces();
    let alba = nation("alba");
    let (_b, borea) = house("borea", &["alba"]);
    follow(&one, &borea).unwrap();
    // The other face is longer: its entries do not continue ours, which any peer could have faked.
    let other = two.log_checkpoint(&alba).unwrap().unwrap();
    let rest = two.log_entries(&alba, 6, other.size()).unwrap();
    assert!(matches!(borea.extend_log(&other, &rest), Err(LogError::Entries(_))));
    // With all of its entries the log itself is convicted.
    let mut faked = all(&two, &alba);
    faked[5][3] ^= 1;
    assert!(matches!(borea.prove_fork(&other, &faked), Err(LogError::Entries(_))));
    let evidence = borea.prove_fork(&other, &all(&two, &alba)).unwrap().unwrap();
    let json = evidence.to_json();
    let fork = Evidence::parse(&json).unwrap().verify(&log_keys()).unwrap();
    assert_eq!((fork.nation, fork.size), (alba.clone(), 6));
    assert_ne!(fork.one, fork.other);

    // A third nation that follows the other face learns of a smaller checkpoint that was never its prefix.
    let (_c, cora) = house("cora", &["alba"]);
    follow(&two, &cora).unwrap();
    let smaller = one.log_checkpoint(&alba).unwrap().unwrap();
    let Err(LogError::Fork { evidence, shown, .. }) = cora.extend_log(&smaller, &[]) else {
        panic!("a fork went unseen")
    };
    assert_eq!(shown, 6);
    evidence.verify(&log_keys()).unwrap();
    // Kept, it stops the log until a person decides.
    let (_, new) = cora.dispute_log(&Evidence::parse(&json).unwrap()).unwrap();
    assert!(new);
    assert!(!cora.dispute_log(&evidence).unwrap().1);
    assert!(matches!(cora.extend_log(&other, &[]), Err(LogError::Disputed(_))));
    assert!(matches!(cora.cosign(&request(&two, 0), &key("cora"), NOW), Err(LogError::Disputed(_))));
    assert!(cora.logs().unwrap().iter().any(|log| log.nation == alba && log.disputed));
    assert!(cora.settle_log(&alba).unwrap());
    assert!(!cora.settle_log(&alba).unwrap());
    assert!(cora.extend_log(&other, &[]).is_ok());
    // Honest checkpoints convict nobody.
    assert!(cora.prove_fork(&other, &all(&two, &alba)).unwrap().is_none());
}

#[test]
fn evidence_that_proves_nothing_is_refused() {
    let (_dirs, one, two) = two_faces();
    let alba = nation("alba");
    let (small, large) =
        (one.log_checkpoint(&alba).unwrap().unwrap(), two.log_checkpoint(&alba).unwrap().unwrap());
    let keys = log_keys();
    assert!(Evidence::of_equal(&small, &small).verify(&keys).is_err());
    // Two sizes without a proof.
    assert!(Evidence::of_equal(&small, &large).verify(&keys).is_err());
    let prefix = two.log_root(&alba, small.size()).unwrap().unwrap();
    let proof = two.log_consistency(&alba, small.size(), large.size()).unwrap().unwrap();
    let good = Evidence::of_prefix(&small, &large, &prefix, &proof);
    good.verify(&keys).unwrap();
    assert!(good.verify(&[]).is_err());
    assert!(Evidence::of_prefix(&small, &large, small.root(), &proof).verify(&keys).is_err());
    assert!(Evidence::of_prefix(&small, &large, &prefix, &proof[1..]).verify(&keys).is_err());
    let forged = SignedCheckpoint::sign(&alba, 6, [1; 32], &key("borea")).unwrap();
    assert!(Evidence::of_equal(&small, &forged).verify(&keys).is_err());
    let (_b, borea) = house("borea", &["alba"]);
    assert!(borea.dispute_log(&Evidence::of_equal(&small, &small)).is_err());
    assert_eq!(borea.log_evidence(&alba).unwrap(), None);
    borea.dispute_log(&good).unwrap();
}

#[test]
fn an_old_backup_does_not_fork_the_log() {
    let (dir, store) = house("alba", &["borea"]);
    let home = dir.path().join("store");
    (1..=3).for_each(|n| {
        say(&store, "alba", n);
    });
    append(&store);
    drop(store);
    let backup = tempfile::tempdir().unwrap();
    copy(&home, &backup.path().join("store"));

    let store = Store::open(&home).unwrap();
    (4..=9).for_each(|n| {
        say(&store, "alba", n);
    });
    append(&store);
    let (_b, borea) = house("borea", &["alba"]);
    follow(&store, &borea).unwrap();
    drop(store);

    // The index alone is old: the checkpoint beside it tells.
    fs::remove_dir_all(home.join("index")).unwrap();
    copy(&backup.path().join("store/index"), &home.join("index"));
    let store = Store::open(&home).unwrap();
    assert_eq!(store.own_log(), OwnLog::Behind { known: 9 });
    assert_eq!(store.confirm_log(), OwnLog::Behind { known: 9 });
    say(&store, "alba", 50);
    assert!(matches!(store.append_log(&key("alba")), Err(LogError::Behind { have: 3, known: 9 })));
    drop(store);

    // All of it is old: an ally tells, before anything is appended.
    fs::remove_dir_all(&home).unwrap();
    copy(&backup.path().join("store"), &home);
    let store = Store::open(&home).unwrap();
    assert_eq!(store.own_log(), OwnLog::Unconfirmed);
    let alba = nation("alba");
    let known = borea.log_checkpoint(&alba).unwrap().unwrap();
    assert_eq!(store.heard_of_own_log(&known).unwrap(), OwnLog::Behind { known: 9 });
    say(&store, "alba", 50);
    assert!(store.append_log(&key("alba")).is_err());
    // What allies followed heals it.
    assert_eq!(follow(&borea, &store).unwrap(), Extended::Grown(9));
    assert_eq!(store.own_log(), OwnLog::Unconfirmed);
    let checkpoint = append(&store);
    assert_eq!(checkpoint.size(), 10);
    assert_eq!(follow(&store, &borea).unwrap(), Extended::Grown(10));
    drop(store);
    assert_eq!(Store::open(&home).unwrap().own_log(), OwnLog::Unconfirmed);
}

#[test]
fn many_checkpoints_leave_few() {
    let (_a, ours) = house("alba", &["borea", "cora"]);
    let alba = nation("alba");
    let mut cosigned = 0;
    for n in 1..=60u64 {
        say(&ours, "alba", n);
        let checkpoint = append(&ours);
        if n % 10 == 0 {
            let by = if n % 20 == 0 { "borea" } else { "cora" };
            let name = format!("steelyard/{by}/witness");
            let line = checkpoint.note().cosign(&name, &key(by), Timestamp::from_unix(NOW.unix() + n as i64));
            ours.add_cosignatures(&alba, n, &line.unwrap().to_string()).unwrap();
            cosigned += 1;
        }
    }
    assert_eq!(cosigned, 6);
    // The newest, and the last that each of the two cosigned.
    let sizes: Vec<u64> = ours.log_checkpoints(&alba).unwrap().iter().map(SignedCheckpoint::size).collect();
    assert_eq!(sizes.first(), Some(&60));
    assert!(sizes.len() <= 3, "{sizes:?}");
    let first = statement_of(&all(&ours, &alba)[0]).unwrap();
    assert_eq!(ours.logged(&first, NOW).unwrap().unwrap().witnesses.len(), 1);
    // Noise is not kept.
    let noise = "\u{2014} steelyard/dora/witness AAAAAAAAAAAAAAAA\n";
    assert!(!ours.add_cosignatures(&alba, 60, noise).unwrap());
    assert!(!ours.log_checkpoint(&alba).unwrap().unwrap().note().to_string().contains("dora"));
}
