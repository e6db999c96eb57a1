//! Logs with two histories: what proves them, what a settlement leaves, and what our own log becomes by one.

use std::fs;

use registry::log::checkpoint::{Checkpoint, SignedCheckpoint, origin};
use registry::log::evidence::Evidence;
use registry::log::note::{MAX_NOTE, Note};
use registry::log::{ENTRY, entry};
use registry::store::{Extended, LogError, OwnLog, Store};
use registry::{Digest, Nation};

use crate::help::*;
use crate::log_limits::root_of;
use crate::logs::{all, append, follow, log_keys, say, two_faces};

fn alba() -> Nation {
    nation("alba")
}

/// Entries of a history that is the same as any other up to the third.
fn history(name: &str, count: u64) -> Vec<[u8; ENTRY]> {
    let said = |n: u64| if n < 3 { format!("shared {n}") } else { format!("{name} {n}") };
    (0..count).map(|n| entry(&Digest::of(said(n).as_bytes()))).collect()
}

fn sign(entries: &[[u8; ENTRY]]) -> SignedCheckpoint {
    SignedCheckpoint::sign(&alba(), entries.len() as u64, root_of(entries), &key("alba")).unwrap()
}

#[test]
fn two_histories_are_proved_at_any_sizes_and_one_never_is() {
    let (_b, borea) = house("borea", &["alba"]);
    let four = history("other", 4);
    assert!(borea.prove_fork(&sign(&four), &four).unwrap().is_none(), "nothing is here to contradict");
    let here = history("one", 5);
    borea.extend_log(&sign(&here), &here).unwrap();
    for (size, differs_at) in [(4, 4), (5, 5), (7, 5)] {
        let theirs = history("other", size);
        let evidence = borea.prove_fork(&sign(&theirs), &theirs).unwrap().unwrap();
        let fork = evidence.verify(&log_keys()).unwrap();
        assert_eq!((fork.nation, fork.size), (alba(), differs_at), "{size}");
        let same = history("one", size);
        assert!(borea.prove_fork(&sign(&same), &same).unwrap().is_none(), "{size}");
        // Entries that are not those signed prove nothing: too few of them, and others.
        for wrong in [&theirs[1..], &same[..]] {
            let result = borea.prove_fork(&sign(&theirs), wrong);
            assert!(matches!(result, Err(LogError::Entries(_))), "{size}");
        }
    }
    assert_eq!(borea.log_size(&alba()).unwrap(), 5);
}

#[test]
fn evidence_says_what_is_wrong_with_it_and_a_settled_fork_stays_settled() {
    let (_b, borea) = house("borea", &["alba"]);
    let (one, other) = (history("one", 6), history("other", 6));
    let (mine, theirs) = (sign(&one), sign(&other));
    let forged = SignedCheckpoint::sign(&alba(), 6, [1; 32], &key("borea")).unwrap();
    let error = borea.dispute_log(&Evidence::of_equal(&mine, &forged)).unwrap_err();
    assert!(matches!(error, LogError::Checkpoint(_)), "{error}");
    let short = sign(&other[..4]);
    let error = borea.dispute_log(&Evidence::of_prefix(&short, &mine, &[3; 32], &[])).unwrap_err();
    assert!(matches!(error, LogError::Proof(_)), "{error}");
    let error = borea.dispute_log(&Evidence::of_equal(&mine, &mine)).unwrap_err();
    assert!(matches!(error, LogError::Entries(_)), "{error}");
    assert_eq!(borea.log_evidence(&alba()).unwrap(), None);
    assert!(!borea.settle_log(&alba()).unwrap() && !borea.settle_log_anew(&alba()).unwrap());

    assert!(borea.dispute_log(&Evidence::of_equal(&mine, &theirs)).unwrap().1);
    assert!(borea.settle_log(&alba()).unwrap());
    // Whichever of the two comes first.
    assert!(!borea.dispute_log(&Evidence::of_equal(&mine, &theirs)).unwrap().1);
    assert!(!borea.dispute_log(&Evidence::of_equal(&theirs, &mine)).unwrap().1);
    assert_eq!(borea.log_evidence(&alba()).unwrap(), None);
    // Another size, and a third history, are other forks.
    borea.extend_log(&mine, &one).unwrap();
    let proof = borea.log_consistency(&alba(), 4, 6).unwrap().unwrap();
    let longer = Evidence::of_prefix(&short, &mine, &root_of(&one[..4]), &proof);
    for new in [longer, Evidence::of_equal(&mine, &sign(&history("third", 6)))] {
        assert!(borea.dispute_log(&new).unwrap().1);
        assert!(borea.settle_log(&alba()).unwrap());
    }
}

/// What `from` has of alba's log up to `size`, brought to `to`.
fn bring(from: &[[u8; ENTRY]], size: usize, to: &Store) -> Result<Extended, LogError> {
    let here = usize::try_from(to.log_size(&alba()).unwrap()).unwrap();
    to.extend_log(&sign(&from[..size]), &from[here..size])
}

#[test]
fn of_our_own_two_histories_we_take_the_other_up_to_what_was_signed_of_it() {
    let (_dirs, one, two) = two_faces();
    let (shorter, longer) = (all(&one, &alba()), all(&two, &alba()));
    let evidence = one.prove_fork(&two.log_checkpoint(&alba()).unwrap().unwrap(), &longer).unwrap().unwrap();
    for (store, theirs, ours) in [(one, &longer, &shorter), (two, &shorter, &longer)] {
        let home = store.home().to_owned();
        assert!(store.dispute_log(&evidence).unwrap().1);
        assert!(store.settle_log_anew(&alba()).unwrap());
        let behind = OwnLog::Behind { known: theirs.len() as u64 };
        assert_eq!((store.own_log(), store.log_size(&alba()).unwrap()), (behind, 0));
        assert_eq!(store.log_checkpoint(&alba()).unwrap(), None);
        drop(store);
        let store = Store::open(&home).unwrap();
        assert_eq!(store.own_log(), behind);
        assert!(matches!(store.append_log(&key("alba")), Err(LogError::Behind { have: 0, .. })));
        // What both share is taken, and leaves it behind; of what follows only the other history is.
        assert_eq!(bring(theirs, 3, &store).unwrap(), Extended::Grown(3));
        assert_eq!(store.own_log(), behind);
        let mut more = ours.clone();
        more.extend(history("more", 9).split_off(3));
        assert!(matches!(bring(&more, 10, &store), Err(LogError::Entries(_))));
        assert_eq!(bring(theirs, theirs.len(), &store).unwrap(), Extended::Grown(theirs.len() as u64));
        assert_eq!(store.own_log(), OwnLog::Unconfirmed);
        // What was signed here alone waits, and comes behind it.
        assert_eq!(store.pending_log().unwrap().len(), ours.len() - 3);
        assert_eq!(append(&store).size() as usize, theirs.len() + ours.len() - 3);
    }
}

#[test]
fn of_two_histories_that_are_both_not_here_the_longer_is_to_come() {
    let (_dirs, one, two) = two_faces();
    let longer = all(&two, &alba());
    let evidence = one.prove_fork(&two.log_checkpoint(&alba()).unwrap().unwrap(), &longer).unwrap().unwrap();
    let (_third, third) = house("alba", &["borea"]);
    say(&third, "alba", 77);
    append(&third);
    third.dispute_log(&evidence).unwrap();
    assert!(third.settle_log_anew(&alba()).unwrap());
    assert_eq!(third.own_log(), OwnLog::Behind { known: 8 });
    assert_eq!(follow(&two, &third).unwrap(), Extended::Grown(8));
    // An ally's log is only followed anew.
    let (_b, borea) = house("borea", &["alba"]);
    follow(&one, &borea).unwrap();
    borea.dispute_log(&evidence).unwrap();
    assert!(borea.settle_log_anew(&alba()).unwrap());
    assert_eq!((borea.log_size(&alba()).unwrap(), borea.own_log()), (0, OwnLog::Unconfirmed));
    assert_eq!(follow(&two, &borea).unwrap(), Extended::Grown(8));
}

#[test]
fn what_is_heard_of_our_own_log_is_kept_when_it_is_longer() {
    let (_dir, store) = house("alba", &["borea"]);
    (1..=6).for_each(|n| {
        say(&store, "alba", n);
    });
    append(&store);
    let file = store.home().join("log-checkpoint");
    let before = fs::read(&file).unwrap();
    let other = |size| SignedCheckpoint::sign(&alba(), size, [7; 32], &key("alba")).unwrap();
    // Another history as long as ours, or shorter, stops appending; ours is still the longest that is known.
    for size in [6, 4] {
        assert_eq!(store.heard_of_own_log(&other(size)).unwrap(), OwnLog::Behind { known: 6 });
        assert_eq!(fs::read(&file).unwrap(), before);
    }
    assert_eq!(store.heard_of_own_log(&other(7)).unwrap(), OwnLog::Behind { known: 7 });
    assert_eq!(fs::read_to_string(&file).unwrap(), other(7).note().to_string());
}

/// A note of alba's log of nine entries, so many bytes long.
fn note_of(len: usize) -> String {
    let text = Checkpoint::new(&alba(), 9, [7; 32]).text();
    let signed = |padding: usize| {
        let mut note = Note::new(format!("{text}{}\n", "x".repeat(padding))).unwrap();
        note.sign(&origin(&alba()), &key("alba")).unwrap();
        note.to_string()
    };
    signed(1 + len - signed(1).len())
}

#[test]
fn the_checkpoint_beside_the_index_is_read_up_to_the_longest_note_and_never_passed_over() {
    let (_dir, store) = house("alba", &["borea"]);
    say(&store, "alba", 1);
    append(&store);
    let opened = |note: &str| {
        let killed = snapshot(&store);
        fs::write(killed.path().join("log-checkpoint"), note).unwrap();
        Store::open(killed.path()).unwrap().own_log()
    };
    let longest = note_of(MAX_NOTE);
    assert_eq!(longest.len(), MAX_NOTE);
    assert_eq!(opened(&longest), OwnLog::Behind { known: 9 });
    assert_eq!(opened(&note_of(MAX_NOTE + 1)), OwnLog::Unconfirmed);
    assert_eq!(opened(&format!("{longest}more\n")), OwnLog::Unconfirmed, "it is not cut to what would fit");
    // A file that is there and can't be opened is not one that is missing.
    let killed = snapshot(&store);
    let file = killed.path().join("log-checkpoint");
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("log-checkpoint", &file).unwrap();
    let error = Store::open(killed.path()).err().unwrap().to_string();
    assert!(error.contains("could not open"), "{error}");
}

#[test]
fn the_keys_that_sign_a_log_are_told() {
    let (_b, borea) = house("borea", &["alba"]);
    assert_eq!(borea.log_keys(&alba()), log_keys());
    let told: Vec<String> = log_keys().iter().map(ToString::to_string).collect();
    assert_eq!((borea.log_verifiers(&alba()), told.len()), (told, 1));
    assert!(borea.log_keys(&nation("cora")).is_empty() && borea.log_verifiers(&nation("cora")).is_empty());
}

#[test]
fn a_nation_witnesses_while_it_is_pinned() {
    let (_b, borea) = house("borea", &["alba", "cora"]);
    let entries = history("one", 2);
    let mut checkpoint = sign(&entries);
    let line = checkpoint.note().cosign("steelyard/cora/witness", &key("cora"), NOW).unwrap();
    checkpoint.add_lines(&line.to_string()).unwrap();
    borea.extend_log(&checkpoint, &entries).unwrap();
    let said = Digest::of(b"shared 1");
    let witnesses = || borea.logged_in(&alba(), &said).unwrap().unwrap().witnesses;
    assert_eq!(witnesses().into_iter().collect::<Vec<_>>(), [nation("cora")]);
    borea.unpin_nation(&nation("cora")).unwrap();
    assert!(witnesses().is_empty());
    borea.pin_nation(&root("cora"), root("cora").digest(), NOW).unwrap();
    assert_eq!(witnesses().len(), 1);
    borea.unpin_nation(&alba()).unwrap();
    assert_eq!(borea.log_checkpoint(&alba()).unwrap(), None);
    borea.pin_nation(&root("alba"), root("alba").digest(), NOW).unwrap();
    assert_eq!(witnesses().len(), 1);
}
