//! Fetching a blob: verified before written, resumed, shared, finished.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};

use registry::Digest;
use registry::chunk::{Chunk, ChunkMap};
use registry::store::{Store, StoreError, WriteError};

use crate::help::*;

#[test]
fn chunks_in_any_order_become_a_blob() {
    let (_a, from, map) = seeder(5);
    let (_b, to) = house("borea", &[]);
    let partial = to.partial(&map).unwrap();
    assert_eq!((partial.total(), partial.bytes_done()), (map.len(), 0));
    let refused = partial.finish().unwrap_err();
    assert!(matches!(refused, StoreError::Incomplete { missing, .. } if missing == map.len()), "{refused}");
    fill(&from, &partial, (0..map.len()).rev());
    assert_eq!(partial.bytes_done(), map.size());
    assert!(partial.missing().is_empty());
    assert!(!to.has_blob(&map.blob()));
    assert_eq!(partial.bytes_hashed(), 0);
    partial.finish().unwrap();
    assert_eq!(partial.bytes_hashed(), partial.bytes_done());
    partial.finish().unwrap();
    assert!(to.has_blob(&map.blob()));
    let path = to.blob_path(&map.blob());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o444);
    assert_eq!(Digest::of(&fs::read(&path).unwrap()), map.blob());
    assert!(to.partial_chunks(&map.blob()).is_none());
    drop(partial);
    assert!(matches!(to.partial(&map), Err(StoreError::Present(_))));
    assert_eq!(to.usage().unwrap().blobs, 1);
}

#[test]
fn wrong_chunks_are_refused_before_they_are_written() {
    let (_a, from, map) = seeder(3);
    let (_b, to) = house("borea", &[]);
    let partial = to.partial(&map).unwrap();
    let file = fs::File::open(to.home().join("partial").join(map.blob().to_hex())).unwrap();
    let good = from.read_chunk(&map.blob(), &map, 2).unwrap().unwrap();
    let mut bad = good.clone();
    bad[77] ^= 1;
    let wrong = partial.write_chunk(2, &bad).unwrap_err();
    assert!(matches!(wrong, WriteError::Content { index: 2, .. }) && wrong.blames_sender(), "{wrong}");
    let short = partial.write_chunk(2, &good[1..]).unwrap_err();
    assert!(matches!(short, WriteError::Length { index: 2, .. }) && short.blames_sender(), "{short}");
    let none = partial.write_chunk(map.len(), &good).unwrap_err();
    assert!(matches!(none, WriteError::Index { .. }) && none.blames_sender(), "{none}");
    assert!(!partial.have(2));
    assert_eq!(partial.bytes_done(), 0);
    let mut there = vec![1; good.len()];
    file.read_exact_at(&mut there, map.offset(2).unwrap()).unwrap();
    assert!(there.iter().all(|byte| *byte == 0));
    partial.write_chunk(2, &good).unwrap();
    partial.write_chunk(2, &good).unwrap();
    assert_eq!(partial.bytes_done(), good.len() as u64);
}

#[test]
fn what_came_survives_a_kill_and_nothing_is_served_that_was_not_synced() {
    let (_a, from, map) = seeder(6);
    let (_b, to) = house("borea", &[]);
    let partial = to.partial(&map).unwrap();
    fill(&from, &partial, [0, 2]);
    partial.flush().unwrap();
    fill(&from, &partial, [3]);
    let killed = snapshot(&to);

    let again = Store::open(killed.path()).unwrap();
    let have: Vec<usize> = again.partial_chunks(&map.blob()).unwrap().present().collect();
    assert_eq!(have, [0, 2]);
    // Served from the file although nobody fetches the blob right now.
    let chunk = again.read_chunk(&map.blob(), &map, 2).unwrap().unwrap();
    assert_eq!(Digest::of(&chunk), map.get(2).unwrap().digest);
    assert!(again.read_chunk(&map.blob(), &map, 3).unwrap().is_none());
    // Taken up, what was written without a sync is hashed and counts too.
    let resumed = again.partial(&map).unwrap();
    assert_eq!(resumed.missing(), [1, 4, 5, 6]);
    fill(&from, &resumed, resumed.missing());
    resumed.finish().unwrap();
    assert!(again.has_blob(&map.blob()));
}

#[test]
fn what_was_noted_and_is_not_on_the_disk_is_fetched_again() {
    let (_a, from, map) = seeder(6);
    let (_b, to) = house("borea", &[]);
    let partial = to.partial(&map).unwrap();
    fill(&from, &partial, [0, 2]);
    partial.flush().unwrap();
    fill(&from, &partial, [3, 4]);
    let killed = snapshot(&to);
    // As after a power cut: the note of chunk 3 came to the disk, its bytes did not.
    let path = killed.path().join("partial").join(map.blob().to_hex());
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0; 100], map.offset(3).unwrap()).unwrap();
    let again = Store::open(killed.path()).unwrap();
    let resumed = again.partial(&map).unwrap();
    assert_eq!(resumed.missing(), [1, 3, 5, 6]);
    fill(&from, &resumed, resumed.missing());
    resumed.finish().unwrap();
    assert!(again.has_blob(&map.blob()));
}

#[test]
fn letting_go_keeps_what_came() {
    let (_a, from, map) = seeder(4);
    let (_b, to) = house("borea", &[]);
    let partial = to.partial(&map).unwrap();
    fill(&from, &partial, [1]);
    drop(partial);
    assert!(to.partial(&map).unwrap().have(1));
}

#[test]
fn one_at_a_time_and_its_clones_together() {
    let (_a, from, map) = seeder(24);
    let (_b, to) = house("borea", &[]);
    let partial = to.partial(&map).unwrap();
    assert!(matches!(to.partial(&map), Err(StoreError::InUse(_))));
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (partial, from, to, map) = (partial.clone(), &from, &to, &map);
            scope.spawn(move || {
                // Each chunk is written by two of them.
                fill(from, &partial, (0..map.len()).filter(|i| i % 4 == worker || (i + 1) % 4 == worker));
                let served = to.read_chunk(&map.blob(), map, worker).unwrap().unwrap();
                assert_eq!(Digest::of(&served), map.get(worker).unwrap().digest);
            });
        }
    });
    assert_eq!(partial.bytes_done(), map.size());
    partial.finish().unwrap();
    assert!(to.has_blob(&map.blob()));
}

#[test]
fn a_chunk_that_the_disk_changed_is_found_and_fetched_again() {
    let (_a, from, map) = seeder(4);
    let (_b, to) = house("borea", &[]);
    let partial = to.partial(&map).unwrap();
    fill(&from, &partial, 0..map.len());
    let path = to.home().join("partial").join(map.blob().to_hex());
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"rot", map.offset(3).unwrap() + 5).unwrap();
    let error = partial.finish().unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { bad, .. } if *bad == [3]), "{error}");
    assert_eq!(partial.missing(), [3]);
    assert!(!to.has_blob(&map.blob()));
    fill(&from, &partial, [3]);
    partial.finish().unwrap();
    assert!(to.has_blob(&map.blob()));
}

#[test]
fn a_false_map_is_told_from_a_bad_disk() {
    let (_b, to) = house("borea", &[]);
    let chunks: Vec<Vec<u8>> = (0..3).map(|seed| noise(seed, 1000)).collect();
    let listed = chunks.iter().map(|chunk| Chunk { digest: Digest::of(chunk), len: 1000 }).collect();
    let map = ChunkMap::new(Digest::of(b"something else"), 3000, listed).unwrap();
    let partial = to.partial(&map).unwrap();
    for (index, chunk) in chunks.iter().enumerate() {
        partial.write_chunk(index, chunk).unwrap();
    }
    let error = partial.finish().unwrap_err();
    assert!(matches!(&error, StoreError::FalseMap { map: named, .. } if *named == map.digest()), "{error}");
    drop(partial);
    assert!(to.partial_chunks(&map.blob()).is_none());
    assert_eq!(listing(&to.home().join("partial")).len(), 0);
}

#[test]
fn another_map_of_the_same_blob_begins_anew() {
    let (_b, to) = house("borea", &[]);
    let content = noise(1, 3000);
    let map = |cut: usize| {
        let (one, two) = content.split_at(cut);
        let chunks = [one, two].map(|part| Chunk { digest: Digest::of(part), len: part.len() as u32 });
        ChunkMap::new(Digest::of(&content), 3000, chunks.to_vec()).unwrap()
    };
    to.partial(&map(1000)).unwrap().write_chunk(0, &content[..1000]).unwrap();
    let partial = to.partial(&map(2000)).unwrap();
    assert_eq!(partial.missing(), [0, 1]);
    assert!(to.read_chunk(&Digest::of(&content), &map(1000), 0).unwrap().is_none());
    partial.write_chunk(0, &content[..2000]).unwrap();
    partial.write_chunk(1, &content[2000..]).unwrap();
    partial.finish().unwrap();
}

#[test]
fn an_empty_blob_needs_no_chunk() {
    let (_b, to) = house("borea", &[]);
    let map = ChunkMap::new(Digest::of(b""), 0, vec![]).unwrap();
    to.partial(&map).unwrap().finish().unwrap();
    assert_eq!(to.blob_size(&Digest::of(b"")).unwrap(), Some(0));
}

#[test]
fn a_blob_that_can_never_fit_is_refused_at_once_and_leaves_nothing() {
    let (_b, to) = house("borea", &[]);
    let free = to.usage().unwrap().disk_free;
    let chunk = Chunk { digest: Digest::of(b"x"), len: 1 << 20 };
    let count = (free >> 20) as usize + 4096;
    if count > registry::chunk::MAX_CHUNKS {
        println!("skipped: more free space than a chunk map can name");
        return;
    }
    let map = ChunkMap::new(Digest::of(b"huge"), (count as u64) << 20, vec![chunk; count]).unwrap();
    match to.partial(&map) {
        Err(error) => assert!(matches!(error, StoreError::DiskFull { .. }), "{error}"),
        Ok(_) => println!("skipped: this file system sets nothing aside"),
    }
    assert!(listing(&to.home().join("partial")).values().all(|size| *size == 0 || *size == map.size()));
}

/// A small file system of its own, where the system lets us make one.
struct Small(tempfile::TempDir);

impl Small {
    fn new(megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={megabytes}m");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(dir.path())
            .stderr(std::process::Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        println!("skipped: mounting a file system needs more rights than this test has");
        None
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_named_and_the_transfer_goes_on_once_there_is_room() {
    let Some(small) = Small::new(24) else { return };
    let (_a, from, map) = seeder(12);
    let to = Store::create(&small.0.path().join("store"), &root("borea"), NOW).unwrap();
    let hog = small.0.path().join("hog");
    fs::write(&hog, vec![1; 12 << 20]).unwrap();
    let full = to.partial(&map).unwrap_err();
    assert!(matches!(full, StoreError::DiskFull { .. }) && full.to_string().contains("make room"), "{full}");
    fs::remove_file(&hog).unwrap();
    let partial = to.partial(&map).unwrap();
    fill(&from, &partial, 0..5);
    partial.flush().unwrap();
    drop(partial);
    // The next blob does not fit beside it; what came of the first stays.
    let other = small.0.path().join("other.safetensors");
    let write = fs::write(&other, safetensors(9, 10, 1 << 20));
    if write.is_ok() {
        let error = to.ingest(&other, &mut |_| {}).unwrap_err();
        assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    }
    let _ = fs::remove_file(&other);
    let partial = to.partial(&map).unwrap();
    assert_eq!(partial.missing(), (5..map.len()).collect::<Vec<_>>());
    fill(&from, &partial, 5..map.len());
    partial.finish().unwrap();
    assert!(to.has_blob(&map.blob()));
}
