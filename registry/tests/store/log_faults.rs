//! The store's logs under faults: crashes, lost ends, old backups, two requests at once, peers that bring old or doubled
//! things.

use std::fs;
use std::path::{Path, PathBuf};

use registry::log::checkpoint::SignedCheckpoint;
use registry::log::evidence::Evidence;
use registry::log::tree::{Hash, empty_root, leaf_hash, node_hash};
use registry::log::witness::Refusal;
use registry::log::{ENTRY, entry};
use registry::store::{Extended, LogError, OwnLog, Store};
use registry::{Digest, Timestamp};

use crate::help::*;
use crate::logs::{all, append, copy, follow, request, say, two_faces};

/// A house of alba that said and logged `count` recalls, each under a checkpoint of its own.
fn logged(count: u64) -> (tempfile::TempDir, Store) {
    let (dir, store) = house("alba", &["borea", "cora"]);
    for n in 1..=count {
        say(&store, "alba", n);
        append(&store);
    }
    (dir, store)
}

fn file(home: &Path) -> PathBuf {
    home.join("log-checkpoint")
}

/// The root hash as RFC 6962 defines it.
fn root_of(entries: &[[u8; ENTRY]]) -> Hash {
    match entries {
        [] => empty_root(),
        [one] => leaf_hash(one),
        _ => {
            let (left, right) = entries.split_at(entries.len().next_power_of_two() / 2);
            node_hash(&root_of(left), &root_of(right))
        }
    }
}

#[test]
fn a_store_without_the_family_of_logs_opens() {
    let (_dir, store) = house("alba", &[]);
    let home = store.home().to_owned();
    drop(store);
    let index = home.join("index");
    let families = rocksdb::DB::list_cf(&Default::default(), &index).unwrap();
    assert!(families.iter().any(|family| family == "logs"));
    let mut db = rocksdb::DB::open_cf(&Default::default(), &index, &families).unwrap();
    db.drop_cf("logs").unwrap();
    drop(db);
    let store = Store::open(&home).unwrap();
    say(&store, "alba", 1);
    assert_eq!(append(&store).size(), 1);
}

#[test]
fn what_was_appended_is_there_after_a_kill_with_its_file() {
    let (_dir, store) = logged(3);
    let killed = snapshot(&store);
    let note = fs::read_to_string(file(killed.path())).unwrap();
    let again = Store::open(killed.path()).unwrap();
    assert_eq!(again.log_size(&nation("alba")).unwrap(), 3);
    let newest = again.log_checkpoint(&nation("alba")).unwrap().unwrap();
    assert_eq!(newest.note().to_string(), note);
    // What is kept of a checkpoint is what covers exactly the entries that are kept.
    assert_eq!(*newest.root(), root_of(&all(&again, &nation("alba"))));
    assert_eq!(again.own_log(), OwnLog::Unconfirmed);
}

#[test]
fn a_kill_between_index_and_file_is_made_good_at_the_next_start() {
    let (_dir, store) = logged(2);
    let before = fs::read(file(store.home())).unwrap();
    say(&store, "alba", 3);
    append(&store);
    for left_behind in [Some(before), None] {
        let killed = snapshot(&store);
        match left_behind {
            Some(old) => fs::write(file(killed.path()), old).unwrap(),
            None => fs::remove_file(file(killed.path())).unwrap(),
        }
        let again = Store::open(killed.path()).unwrap();
        assert_eq!(again.own_log(), OwnLog::Unconfirmed);
        let newest = again.log_checkpoint(&nation("alba")).unwrap().unwrap();
        assert_eq!(newest.size(), 3);
        assert_eq!(fs::read_to_string(file(killed.path())).unwrap(), newest.note().to_string());
    }
}

#[test]
fn an_index_that_lost_its_end_stops_the_log() {
    let (_dir, store) = logged(2);
    let killed = snapshot(&store);
    // The last record of the write-ahead log is the second append.
    let logs = listing(&killed.path().join("index"));
    let logs = logs.into_iter().filter(|(path, _)| path.extension().is_some_and(|ext| ext == "log"));
    let (path, size) = logs.max_by_key(|(_, size)| *size).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(size - 20).unwrap();
    let again = Store::open(killed.path()).unwrap();
    assert_eq!(again.own_log(), OwnLog::Behind { known: 2 });
    again.confirm_log();
    say(&again, "alba", 9);
    assert!(matches!(again.append_log(&key("alba")), Err(LogError::Behind { have: 1, known: 2 })));
    // The store as it was has what is missing.
    assert_eq!(follow(&store, &again).unwrap(), Extended::Grown(2));
    // Statements that wait were never in the log, so they come behind what was recovered.
    assert_eq!(append(&again).size(), 3);
}

#[test]
fn a_checkpoint_file_that_nobody_signed_is_worth_nothing() {
    let (_dir, store) = logged(1);
    for noise in [&b""[..], b"steelyard/alba\n9\n", &[0xff; 40 << 10]] {
        let killed = snapshot(&store);
        fs::write(file(killed.path()), noise).unwrap();
        assert_eq!(Store::open(killed.path()).unwrap().own_log(), OwnLog::Unconfirmed);
    }
    // One that our key did sign counts, whatever the index says.
    let killed = snapshot(&store);
    let other = SignedCheckpoint::sign(&nation("alba"), 1, [7; 32], &key("alba")).unwrap();
    fs::write(file(killed.path()), other.note().to_string()).unwrap();
    assert_eq!(Store::open(killed.path()).unwrap().own_log(), OwnLog::Behind { known: 1 });
}

#[test]
fn what_an_ally_told_of_our_log_outlives_a_restart() {
    let (dir, store) = logged(2);
    let backup = tempfile::tempdir().unwrap();
    let home = dir.path().join("store");
    drop(store);
    copy(&home, &backup.path().join("store"));
    let store = Store::open(&home).unwrap();
    let mut notes = Vec::new();
    for n in 3..=5 {
        say(&store, "alba", n);
        notes.push(append(&store));
    }
    let entries = all(&store, &nation("alba"));

    let old = backup.path().join("store");
    let again = Store::open(&old).unwrap();
    again.confirm_log();
    assert_eq!(again.heard_of_own_log(&notes[2]).unwrap(), OwnLog::Behind { known: 5 });
    // A shorter one that another ally knows does not make less of it.
    assert_eq!(again.heard_of_own_log(&notes[0]).unwrap(), OwnLog::Behind { known: 5 });
    drop(again);
    let again = Store::open(&old).unwrap();
    assert_eq!(again.own_log(), OwnLog::Behind { known: 5 });
    // A part of what is missing is not all of it, after a restart either.
    assert_eq!(again.extend_log(&notes[0], &entries[2..3]).unwrap(), Extended::Grown(3));
    assert_eq!(again.own_log(), OwnLog::Behind { known: 5 });
    drop(again);
    let again = Store::open(&old).unwrap();
    assert_eq!(again.own_log(), OwnLog::Behind { known: 5 });
    assert_eq!(again.extend_log(&notes[2], &entries[3..]).unwrap(), Extended::Grown(5));
    assert_eq!(again.own_log(), OwnLog::Unconfirmed);
    assert_eq!(again.heard_of_own_log(&notes[2]).unwrap(), OwnLog::Unconfirmed);
}

#[test]
fn of_requests_at_once_from_one_size_one_is_cosigned() {
    let (_dirs, one, two) = two_faces();
    let (dir, borea) = house("borea", &["alba"]);
    let requests = [request(&one, 0), request(&two, 0)];
    let answers: Vec<_> = std::thread::scope(|scope| {
        let ask = |at: usize| {
            let (borea, request) = (&borea, &requests[at % 2]);
            scope.spawn(move || (at % 2, borea.cosign(request, &key("borea"), NOW).unwrap()))
        };
        let running: Vec<_> = (0..8).map(ask).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let cosigned: Vec<_> = answers.iter().filter(|(_, answer)| answer.is_ok()).collect();
    assert_eq!(cosigned.len(), 1, "{answers:?}");
    let size = [6, 8][cosigned[0].0];
    for (_, answer) in &answers {
        assert!(answer.is_ok() || *answer == Err(Refusal::Conflict { size }), "{answer:?}");
    }
    drop(borea);
    let again = Store::open(&dir.path().join("store")).unwrap();
    assert_eq!(again.cosigned(&nation("alba")).unwrap().unwrap().size, size);
}

#[test]
fn a_witness_contradicts_neither_what_it_cosigned_nor_what_it_followed() {
    let (_dirs, one, two) = two_faces();
    let (_b, borea) = house("borea", &["alba"]);
    follow(&one, &borea).unwrap();
    let longer = request(&two, 0);
    // It has six entries of the one face and is asked for eight of the other: it can't tell yet.
    assert!(borea.cosign(&longer, &key("borea"), NOW).unwrap().is_ok());
    let (_c, cora) = house("cora", &["alba"]);
    follow(&two, &cora).unwrap();
    let answer = cora.cosign(&request(&one, 0), &key("cora"), NOW).unwrap();
    assert_eq!(answer, Err(Refusal::Fork { size: 6 }));
    assert_eq!(cora.cosigned(&nation("alba")).unwrap(), None);
}

#[test]
fn a_log_that_lied_is_not_appended_to() {
    let (_dirs, one, two) = two_faces();
    let alba = nation("alba");
    let other = two.log_checkpoint(&alba).unwrap().unwrap();
    let evidence: Evidence = one.prove_fork(&other, &all(&two, &alba)).unwrap().unwrap();
    assert!(one.dispute_log(&evidence).unwrap().1);
    say(&one, "alba", 99);
    assert!(matches!(one.append_log(&key("alba")), Err(LogError::Disputed(_))));
    assert_eq!(one.log_size(&alba).unwrap(), 6);
    assert!(one.settle_log(&alba).unwrap());
    assert_eq!(append(&one).size(), 7);
}

#[test]
fn old_checkpoints_do_not_pile_up() {
    let (_a, ours) = logged(30);
    let (_b, theirs) = house("borea", &["alba", "cora"]);
    let alba = nation("alba");
    follow(&ours, &theirs).unwrap();
    let entries = all(&ours, &alba);
    let earlier = |size: u64| {
        let root = root_of(&entries[..size as usize]);
        SignedCheckpoint::sign(&alba, size, root, &key("alba")).unwrap()
    };
    let noise = "\u{2014} steelyard/dora/witness AAAAAAAAAAAAAAAA\n";
    for size in (1..30).rev() {
        let mut checkpoint = earlier(size);
        checkpoint.add_lines(noise).unwrap();
        assert_eq!(theirs.extend_log(&checkpoint, &[]).unwrap(), Extended::Known, "{size}");
    }
    assert_eq!(theirs.log_checkpoints(&alba).unwrap().len(), 1);
    // One that a nation cosigned says more than the newest.
    let mut cosigned = earlier(12);
    let line = cosigned.note().cosign("steelyard/cora/witness", &key("cora"), NOW).unwrap();
    cosigned.add_lines(&line.to_string()).unwrap();
    assert_eq!(theirs.extend_log(&cosigned, &[]).unwrap(), Extended::Cosigned);
    assert_eq!(theirs.extend_log(&cosigned, &[]).unwrap(), Extended::Known);
    let sizes = || -> Vec<u64> {
        theirs.log_checkpoints(&alba).unwrap().iter().map(SignedCheckpoint::size).collect()
    };
    assert_eq!(sizes(), [30, 12]);
    // And no more once a later one says as much.
    let mut later = earlier(20);
    let line = later.note().cosign("steelyard/cora/witness", &key("cora"), NOW).unwrap();
    later.add_lines(&line.to_string()).unwrap();
    assert_eq!(theirs.extend_log(&later, &[]).unwrap(), Extended::Cosigned);
    assert_eq!(sizes(), [30, 20]);
    assert_eq!(theirs.extend_log(&cosigned, &[]).unwrap(), Extended::Known);
}

#[test]
fn a_later_cosignature_takes_the_earlier_ones_place() {
    let (_a, ours) = logged(1);
    let alba = nation("alba");
    let checkpoint = ours.log_checkpoint(&alba).unwrap().unwrap();
    let line = |seconds: i64| {
        let at = Timestamp::from_unix(NOW.unix() + seconds);
        checkpoint.note().cosign("steelyard/borea/witness", &key("borea"), at).unwrap().to_string()
    };
    assert!(ours.add_cosignatures(&alba, 1, &line(10)).unwrap());
    assert!(ours.add_cosignatures(&alba, 1, &line(20)).unwrap());
    assert!(!ours.add_cosignatures(&alba, 1, &line(5)).unwrap());
    assert!(!ours.add_cosignatures(&alba, 2, &line(30)).unwrap());
    let kept = ours.log_checkpoint(&alba).unwrap().unwrap();
    assert_eq!(kept.note().signatures().len(), 2);
    let digest = registry::log::statement_of(&all(&ours, &alba)[0]).unwrap();
    let logged = ours.logged(&digest, NOW).unwrap().unwrap();
    assert_eq!(logged.witnessed, Some(Timestamp::from_unix(NOW.unix() + 20)));
}

#[test]
fn of_equal_entries_that_come_together_the_first_is_the_place() {
    let (_b, borea) = house("borea", &["alba"]);
    let alba = nation("alba");
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    let entries = [entry(&b), entry(&a), entry(&b), entry(&a), entry(&a)];
    let sign = |size: usize| {
        SignedCheckpoint::sign(&alba, size as u64, root_of(&entries[..size]), &key("alba")).unwrap()
    };
    assert_eq!(borea.extend_log(&sign(4), &entries[..4]).unwrap(), Extended::Grown(4));
    assert_eq!(borea.extend_log(&sign(5), &entries[4..]).unwrap(), Extended::Grown(5));
    for (digest, index) in [(a, 1), (b, 0)] {
        assert_eq!(borea.logged_in(&alba, &digest).unwrap().unwrap().index, index);
    }
}
