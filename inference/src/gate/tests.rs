//! Files that are right, and every way in which they are not.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use registry::chunk::{Chunk, ChunkMap};
use registry::serving::{FailCode, StopCode};

use super::*;
use crate::halt::Cause;
use crate::tiny::Scratch;

fn admitted(location: &Path, content: &[u8]) -> AdmittedFile {
    AdmittedFile {
        path: "weights.gguf".to_owned(),
        blob: Digest::of(content),
        size: content.len() as u64,
        media_type: "application/octet-stream".to_owned(),
        chunk_map: Digest::of(b"no map is read here"),
        location: location.to_owned(),
    }
}

fn refusal(file: &AdmittedFile) -> GateError {
    open(file, &|_| {}, &Halt::default()).err().unwrap()
}

#[test]
fn right_bytes_are_opened_and_stay_the_same_whatever_happens_to_the_name() {
    let scratch = Scratch::new();
    let content = vec![7u8; 700_001];
    let location = scratch.file("blob", &content);
    let total = AtomicU64::new(0);
    let file = admitted(&location, &content);
    let opened = open_all(
        &[&file, &file],
        &|done| {
            total.fetch_max(done, Ordering::Relaxed);
        },
        &Halt::default(),
    )
    .unwrap();
    assert_eq!(total.into_inner(), 2 * content.len() as u64);
    fs::remove_file(&location).unwrap();
    fs::write(&location, b"something else").unwrap();
    assert_eq!(fs::read(opened.first().unwrap().engine_path()).unwrap(), content);
}

#[test]
fn one_flipped_bit_is_refused_with_both_digests_and_the_way_out() {
    let scratch = Scratch::new();
    let mut content = vec![7u8; 300_000];
    let file = admitted(&scratch.file("blob", b""), &content);
    content[299_999] ^= 1;
    fs::write(&file.location, &content).unwrap();
    let error = refusal(&file);
    let text = error.to_string();
    assert!(matches!(error, GateError::HashMismatch { .. }), "{text}");
    assert_eq!(error.code(), FailCode::HashMismatch);
    for part in
        ["weights.gguf", &file.blob.to_string(), &Digest::of(&content).to_string(), "steelyard verify"]
    {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_wrong_length_is_refused_without_hashing() {
    let scratch = Scratch::new();
    for content in [&b"short"[..], b"much longer than it was"] {
        let file = AdmittedFile { size: 9, ..admitted(&scratch.file("blob", content), b"nine byte") };
        assert!(matches!(refusal(&file), GateError::Size { expected_size: 9, .. }));
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let scratch = Scratch::new();
    for location in [scratch.path().to_owned(), scratch.path().join("absent")] {
        let error = refusal(&admitted(&location, b"content"));
        assert!(matches!(error, GateError::NotHanded { .. }), "{error}");
        assert_eq!(error.code(), FailCode::Unreadable);
    }
}

/// A file of three and a half blocks in chunks of 700,000 bytes, as it is handed in with its map.
fn mapped(scratch: &Scratch, content: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Opened {
    let chunks =
        content.chunks(700_000).map(|part| Chunk { digest: Digest::of(part), len: part.len() as u32 });
    let map = ChunkMap::new(Digest::of(content), content.len() as u64, chunks.collect()).unwrap();
    let encoded = map.encode();
    let mut on_disk = content.to_vec();
    change(&mut on_disk);
    let file = AdmittedFile { chunk_map: map.digest(), ..admitted(&scratch.file("blob", &on_disk), content) };
    let handed = scratch.file("blob.map", &encoded);
    Opened::handed(&file, File::open(&file.location).unwrap(), Some(File::open(handed).unwrap()))
}

fn noise(len: usize) -> Vec<u8> {
    let words = (0..len as u64 / 8 + 1).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(21));
    words.flat_map(u64::to_le_bytes).take(len).collect()
}

#[test]
fn every_length_is_hashed_by_several_threads_as_by_one() {
    let scratch = Scratch::new();
    let lengths =
        [0, 1, 1024, 1025, 1 << 20, (1 << 20) + 1, (1 << 20) + 1024, (2 << 20) + 17_000, 5 << 20, 7_777_777];
    let files: Vec<AdmittedFile> = lengths
        .into_iter()
        .map(|len| {
            let content = noise(len);
            admitted(&scratch.file(&len.to_string(), &content), &content)
        })
        .collect();
    let total = AtomicU64::new(0);
    let each: Vec<&AdmittedFile> = files.iter().collect();
    let progress = |done| {
        total.fetch_max(done, Ordering::Relaxed);
    };
    open_all(&each, &progress, &Halt::default()).unwrap();
    assert_eq!(total.into_inner(), lengths.iter().sum::<usize>() as u64);
    for (len, file) in lengths.into_iter().zip(&files).skip(1) {
        let mut content = noise(len);
        content[len / 2] ^= 4;
        fs::write(&file.location, content).unwrap();
        assert!(matches!(refusal(file), GateError::HashMismatch { .. }), "{len}");
    }
}

#[test]
fn a_flipped_bit_is_found_in_its_chunk() {
    let scratch = Scratch::new();
    let content = noise(3_500_000);
    verify_all(vec![mapped(&scratch, &content, |_| {})], &|_| {}, &Halt::default()).unwrap();
    for (at, chunk, offset) in [(0, 0, 0), (699_999, 0, 0), (700_000, 1, 700_000), (3_499_999, 4, 2_800_000)]
    {
        let opened = mapped(&scratch, &content, |bytes| bytes[at] ^= 1);
        let error = verify_all(vec![opened], &|_| {}, &Halt::default()).unwrap_err();
        let GateError::HashMismatch { place, .. } = &error else { panic!("{error}") };
        assert_eq!(*place, Place::Chunk { chunk, offset, len: 700_000, wrong: 1 }, "{at}");
        let said = format!("chunk {chunk}, 700000 bytes from byte {offset}");
        assert!(error.to_string().contains(&said) && error.to_string().contains("weights.gguf"), "{error}");
    }
    let twice = mapped(&scratch, &content, |bytes| (bytes[5] ^= 1, bytes[900_000] ^= 1).1);
    let error = verify_all(vec![twice], &|_| {}, &Halt::default()).unwrap_err();
    assert!(error.to_string().contains("and so have 1 more"), "{error}");
}

#[test]
fn a_map_of_another_file_says_nothing() {
    let scratch = Scratch::new();
    let content = noise(1_400_000);
    let mut opened = mapped(&scratch, &content, |bytes| bytes[7] ^= 1);
    opened.chunk_map = Digest::of(b"another");
    let error = verify_all(vec![opened], &|_| {}, &Halt::default()).unwrap_err();
    assert!(matches!(error, GateError::HashMismatch { place: Place::Unknown, .. }), "{error}");
}

#[test]
fn hashing_again_finds_what_changed_meanwhile() {
    let scratch = Scratch::new();
    let content = noise(2_100_000);
    let files = verify_all(vec![mapped(&scratch, &content, |_| {})], &|_| {}, &Halt::default()).unwrap();
    let halt = Halt::default();
    let how = registry::serving::Rehash { every_secs: 1, mib_per_sec: 1000 };
    rehash::start(files.iter(), how, halt.clone()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(!halt.is_set());
    let writer = fs::OpenOptions::new().write(true).open(scratch.path().join("blob")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&writer, &[content[1_500_000] ^ 1], 1_500_000).unwrap();
    let begun = std::time::Instant::now();
    while !halt.is_set() {
        assert!(begun.elapsed().as_secs() < 20, "nothing was found");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let cause = halt.cause().unwrap();
    assert_eq!(cause.code, StopCode::Damaged);
    assert!(cause.reason.contains("chunk 2, 700000 bytes from byte 1400000"), "{}", cause.reason);
}

#[test]
fn a_recall_ends_the_hashing() {
    let scratch = Scratch::new();
    let file = admitted(&scratch.file("blob", b"content"), b"content");
    let halt = Halt::default();
    halt.set(Cause { code: StopCode::Recalled, reason: "bad".to_owned() });
    assert!(matches!(open(&file, &|_| {}, &halt), Err(GateError::Halted { .. })));
}
