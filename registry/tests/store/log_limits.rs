//! The nations' logs at their limits: pages, tiles, sizes, and which checkpoint proves what.

use registry::log::checkpoint::SignedCheckpoint;
use registry::log::tiles::Tile;
use registry::log::tree::{Hash, empty_root, leaf_hash, node_hash, verify_consistency};
use registry::log::witness::Refusal;
use registry::log::{ENTRY, entry};
use registry::store::{Extended, LogError, MAX_LOG_ENTRIES, OwnLog, Store};
use registry::{Digest, Timestamp};

use crate::help::*;
use crate::logs::{append, request, say};

/// The root hash as RFC 6962 defines it.
pub(crate) fn root_of(entries: &[[u8; ENTRY]]) -> Hash {
    match entries {
        [] => empty_root(),
        [one] => leaf_hash(one),
        _ => {
            let (left, right) = entries.split_at(entries.len().next_power_of_two() / 2);
            node_hash(&root_of(left), &root_of(right))
        }
    }
}

fn entries(count: u64) -> Vec<[u8; ENTRY]> {
    (0..count).map(|number| entry(&Digest::of(&number.to_le_bytes()))).collect()
}

/// A checkpoint of alba's over the first `size` of these.
fn checkpoint(entries: &[[u8; ENTRY]], size: usize) -> SignedCheckpoint {
    SignedCheckpoint::sign(&nation("alba"), size as u64, root_of(&entries[..size]), &key("alba")).unwrap()
}

#[test]
fn a_long_log_is_read_by_pages_and_tiles() {
    const LEN: usize = 8200;
    let (_b, borea) = house("borea", &["alba"]);
    let alba = nation("alba");
    let entries = entries(LEN as u64);
    assert_eq!(borea.extend_log(&checkpoint(&entries, LEN), &entries).unwrap(), Extended::Grown(LEN as u64));
    assert_eq!(borea.log_entries(&alba, 0, u64::MAX).unwrap(), entries[..8192]);
    assert_eq!(borea.log_entries(&alba, 3, 7).unwrap(), entries[3..7]);
    assert_eq!(borea.log_entries(&alba, 8190, 9000).unwrap(), entries[8190..]);
    for (from, to) in [(7, 7), (7, 3), (8200, 8300), (9000, u64::MAX)] {
        assert!(borea.log_entries(&alba, from, to).unwrap().is_empty(), "{from} {to}");
    }
    let tile =
        |level: u8, index, width| borea.log_tile(&alba, Tile { level: Some(level), index, width }).unwrap();
    let leaves = |from: usize, to: usize| entries[from..to].iter().map(leaf).collect::<Vec<_>>();
    assert_eq!(tile(0, 31, 256).unwrap(), leaves(7936, 8192));
    assert_eq!(tile(0, 32, 8).unwrap(), leaves(8192, 8200));
    assert_eq!(tile(0, 32, 9), None);
    let above: Vec<Hash> = entries.chunks_exact(256).map(root_of).collect();
    assert_eq!(tile(1, 0, 32).unwrap(), above);
    for size in [0, 1, 255, 256, 257, 8199, LEN] {
        assert_eq!(borea.log_root(&alba, size as u64).unwrap(), Some(root_of(&entries[..size])), "{size}");
    }
    assert_eq!(borea.log_root(&alba, LEN as u64 + 1).unwrap(), None);
    let proof = |old, new| borea.log_consistency(&alba, old, new).unwrap();
    assert_eq!(proof(0, 5), Some(Vec::new()));
    assert_eq!(proof(5, LEN as u64 + 1), None);
    for (old, new) in [(1usize, LEN), (256, 300), (5, 6)] {
        let path = proof(old as u64, new as u64).unwrap();
        assert!(!path.is_empty());
        let (before, after) = (root_of(&entries[..old]), root_of(&entries[..new]));
        verify_consistency(old as u64, new as u64, &path, &before, &after).unwrap();
    }
}

fn leaf(entry: &[u8; ENTRY]) -> Hash {
    leaf_hash(entry)
}

#[test]
fn a_log_as_long_as_the_limit_is_looked_at_and_a_longer_one_is_not() {
    let (_b, borea) = house("borea", &["alba"]);
    let sized = |size| SignedCheckpoint::sign(&nation("alba"), size, [7; 32], &key("alba")).unwrap();
    for size in [MAX_LOG_ENTRIES, MAX_LOG_ENTRIES - 1] {
        assert!(matches!(borea.extend_log(&sized(size), &[]), Err(LogError::Entries(_))), "{size}");
    }
    for longer in [MAX_LOG_ENTRIES + 1, u64::MAX >> 1] {
        let error = borea.extend_log(&sized(longer), &[]).unwrap_err();
        assert!(matches!(error, LogError::TooLong { size, .. } if size == longer), "{error}");
    }
    // As many entries as the checkpoint says, neither fewer nor more.
    let entries = entries(5);
    borea.extend_log(&checkpoint(&entries, 2), &entries[..2]).unwrap();
    for wrong in [0, 1, 2, 4] {
        let brought = &entries[5 - wrong..];
        let result = borea.extend_log(&checkpoint(&entries, 5), brought);
        assert!(matches!(result, Err(LogError::Entries(_))), "{wrong}");
    }
    assert_eq!(borea.log_size(&nation("alba")).unwrap(), 2);
    borea.extend_log(&checkpoint(&entries, 5), &entries[2..]).unwrap();
}

/// A store of alba whose index says that its log has so many entries, none of which is there.
fn as_long_as(size: u64) -> (tempfile::TempDir, Store) {
    let (dir, store) = house("alba", &[]);
    say(&store, "alba", 1);
    let home = store.home().to_owned();
    drop(store);
    let index = home.join("index");
    let families = rocksdb::DB::list_cf(&Default::default(), &index).unwrap();
    let db = rocksdb::DB::open_cf(&Default::default(), &index, &families).unwrap();
    let place = [b"alba\0c".as_slice(), &size.to_be_bytes()].concat();
    let checkpoint = SignedCheckpoint::sign(&nation("alba"), size, [7; 32], &key("alba")).unwrap();
    db.put_cf(db.cf_handle("logs").unwrap(), place, checkpoint.note().to_string()).unwrap();
    drop(db);
    (dir, Store::open(&home).unwrap())
}

#[test]
fn our_own_log_grows_to_the_limit_and_no_further() {
    for (size, full) in [(MAX_LOG_ENTRIES - 1, false), (MAX_LOG_ENTRIES, true), (MAX_LOG_ENTRIES + 1, true)] {
        let (_dir, alba) = as_long_as(size);
        assert_eq!((alba.log_size(&nation("alba")).unwrap(), alba.confirm_log()), (size, OwnLog::Confirmed));
        // Where there is room, it is the entries that are missing.
        match alba.append_log(&key("alba")).unwrap_err() {
            LogError::TooLong { size: longer, .. } => assert_eq!((longer, full), (size + 1, true)),
            error => assert!(!full, "{size}: {error}"),
        }
    }
}

#[test]
fn a_checkpoint_proves_what_it_covers_and_the_newest_of_equal_ones_is_taken() {
    let (_b, borea) = house("borea", &["alba", "cora", "dora"]);
    let alba = nation("alba");
    let entries = entries(5);
    let number = |n: u64| Digest::of(&n.to_le_bytes());
    let cosigned = |size, by: &str, seconds| {
        let mut checkpoint = checkpoint(&entries, size);
        let at = Timestamp::from_unix(NOW.unix() + seconds);
        let line = checkpoint.note().cosign(&format!("steelyard/{by}/witness"), &key(by), at).unwrap();
        checkpoint.add_lines(&line.to_string()).unwrap();
        checkpoint
    };
    borea.extend_log(&cosigned(2, "cora", 1), &entries[..2]).unwrap();
    borea.extend_log(&checkpoint(&entries, 3), &entries[2..3]).unwrap();
    let place = |n| {
        let logged = borea.logged_in(&alba, &number(n)).unwrap().unwrap();
        let witnesses: Vec<String> = logged.witnesses.iter().map(ToString::to_string).collect();
        (logged.index, logged.size, witnesses.join(" "))
    };
    assert_eq!(place(1), (1, 2, "cora".to_owned()));
    assert_eq!(place(2), (2, 3, String::new()), "the first checkpoint ends before it");
    // Of two with as many witnesses, the newer one.
    borea.extend_log(&cosigned(4, "dora", 2), &entries[3..4]).unwrap();
    assert_eq!(place(1), (1, 4, "dora".to_owned()));
    assert_eq!(place(3), (3, 4, "dora".to_owned()));
    assert_eq!(borea.logged_in(&alba, &number(4)).unwrap(), None);
    borea.extend_log(&checkpoint(&entries, 5), &entries[4..]).unwrap();
    let state = borea.logs().unwrap().into_iter().find(|state| state.nation == alba).unwrap();
    assert_eq!((state.size, state.witnesses.len(), state.witnessed, state.disputed), (5, 0, 4, false));
    let proof = borea.log_proof(&alba, &number(2)).unwrap().unwrap();
    assert_eq!(proof.index, 2);
}

#[test]
fn nobody_witnesses_its_own_log_nor_a_strangers() {
    let (_a, ours) = house("alba", &["borea"]);
    say(&ours, "alba", 1);
    append(&ours);
    let asked = request(&ours, 0);
    let answer = ours.cosign(&asked, &key("alba"), NOW).unwrap();
    assert!(matches!(answer, Err(Refusal::UnknownLog(_))), "{answer:?}");
    let (_c, cora) = house("cora", &["borea"]);
    let answer = cora.cosign(&asked, &key("cora"), NOW).unwrap();
    assert!(matches!(answer, Err(Refusal::UnknownLog(_))), "{answer:?}");
    assert_eq!(cora.cosigned(&nation("alba")).unwrap(), None);
}
