#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashSet;
use std::io::{self, Cursor, Read};

use super::*;
use crate::format::samples::{Random, safetensors_of};
use crate::format::{Layout, safetensors};

fn map_of(lens: &[u32]) -> ChunkMap {
    let chunks: Vec<Chunk> = lens
        .iter()
        .enumerate()
        .map(|(i, &len)| Chunk { digest: Digest::of(&i.to_le_bytes()), len })
        .collect();
    let blob = match chunks[..] {
        [] => Digest::of(b""),
        [only] => only.digest,
        _ => Digest::of(b"blob"),
    };
    ChunkMap::new(blob, lens.iter().map(|&len| u64::from(len)).sum(), chunks).unwrap()
}

fn random_map(random: &mut Random) -> ChunkMap {
    let count = random.below(300) as usize;
    let lens: Vec<u32> = (0..count).map(|_| 1 + random.below(u64::from(MAX_CHUNK)) as u32).collect();
    map_of(&lens)
}

#[test]
fn encoding_round_trips() {
    let mut random = Random(7);
    for _ in 0..200 {
        let map = random_map(&mut random);
        let bytes = map.encode();
        let again = ChunkMap::decode(&bytes).unwrap();
        assert_eq!(again, map);
        assert_eq!(again.digest(), Digest::of(&bytes));
    }
}

#[test]
fn look_ups_agree_with_counting() {
    let mut random = Random(8);
    for _ in 0..50 {
        let map = random_map(&mut random);
        assert_eq!(map.is_empty(), map.is_empty());
        for (i, (offset, chunk)) in map.iter().enumerate() {
            let end = offset + u64::from(chunk.len);
            assert_eq!(map.offset(i), Some(offset));
            assert_eq!(map.range(i), Some(offset..end));
            assert_eq!(map.get(i), Some(chunk));
            for at in [offset, offset + random.below(u64::from(chunk.len)), end - 1] {
                assert_eq!(map.index_at(at), Some(i));
            }
        }
        assert_eq!(map.index_at(map.size()), None);
        assert_eq!(map.index_at(u64::MAX), None);
        assert_eq!((map.offset(map.len()), map.range(map.len()), map.get(map.len())), (None, None, None));
    }
}

#[test]
fn maps_with_a_defect_are_refused_by_its_name() {
    let good = map_of(&[5, MAX_CHUNK]).encode();
    let with = |at: usize, bytes: &[u8]| {
        let mut out = good.clone();
        out[at..at + bytes.len()].copy_from_slice(bytes);
        out
    };
    let (size, count, first_len, second_len) = (40, 48, HEADER_LEN + 32, HEADER_LEN + ENTRY_LEN + 32);
    let one = map_of(&[5]).encode();
    let empty = map_of(&[]).encode();
    let cases: &[(&str, &str, Vec<u8>)] = &[
        ("no bytes", "truncated", vec![]),
        ("another magic", "magic", with(0, b"SYCN")),
        ("version 0", "version", with(4, &0u32.to_le_bytes())),
        ("version 2", "version", with(4, &2u32.to_le_bytes())),
        ("the header is cut short", "truncated", good[..HEADER_LEN - 1].to_vec()),
        ("the last entry is cut short", "truncated", good[..good.len() - 1].to_vec()),
        ("a byte behind the last entry", "trailing", [&good[..], b"\0"].concat()),
        ("an entry behind the last", "trailing", with(count, &1u32.to_le_bytes())),
        ("more entries than bytes", "truncated", with(count, &3u32.to_le_bytes())),
        ("as many entries as the limit allows", "truncated", with(count, &(MAX_CHUNKS as u32).to_le_bytes())),
        ("more entries than the limit", "too-many", with(count, &(MAX_CHUNKS as u32 + 1).to_le_bytes())),
        ("endless entries", "too-many", with(count, &u32::MAX.to_le_bytes())),
        ("a chunk of no bytes", "length", with(first_len, &0u32.to_le_bytes())),
        ("a chunk too long", "length", with(second_len, &(MAX_CHUNK + 1).to_le_bytes())),
        ("a chunk of endless length", "length", with(second_len, &u32::MAX.to_le_bytes())),
        ("a size below the sum", "sum", with(size, &4u64.to_le_bytes())),
        ("a size above the sum", "sum", with(size, &u64::MAX.to_le_bytes())),
        ("one chunk that is not the blob", "blob", {
            let mut out = one;
            out[8] ^= 1;
            out
        }),
        ("no chunks but not the empty blob", "blob", {
            let mut out = empty;
            out[8] ^= 1;
            out
        }),
    ];
    for (defect, code, bytes) in cases {
        let error = ChunkMap::decode(bytes).expect_err(defect);
        assert_eq!(error.code(), *code, "{defect}: {error}");
    }
}

#[test]
fn what_decodes_encodes_to_the_same_bytes() {
    let mut random = Random(9);
    let good = map_of(&[1, 2, 3]).encode();
    for n in 0..good.len() {
        assert!(ChunkMap::decode(&good[..n]).is_err());
    }
    for _ in 0..50_000 {
        let mut bytes = good.clone();
        for _ in 0..=random.below(2) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.next() as u8;
        }
        if let Ok(map) = ChunkMap::decode(&bytes) {
            assert_eq!(map.encode(), bytes);
        }
    }
}

fn built(bytes: &[u8], layout: Option<&Layout>) -> Built {
    build(bytes, bytes.len() as u64, layout, |_| Ok(())).unwrap()
}

fn layout_of(bytes: &[u8]) -> Layout {
    safetensors::read(Cursor::new(bytes), bytes.len() as u64).unwrap()
}

/// Hands out a few bytes at a time, as pipes and network file systems do.
struct Dribble<'a>(&'a [u8], Random);

impl Read for Dribble<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.1.below(4) == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let n = (1 + self.1.below(70_000) as usize).min(out.len());
        self.0.read(&mut out[..n])
    }
}

#[test]
fn one_pass_yields_digests_chunks_and_the_bytes_themselves() {
    let mut random = Random(10);
    let m = MAX_CHUNK as usize;
    for size in [0, 1, 100, 65_535, 65_536, m - 1, m, m + 1, 3 * m, 3 * m + 17, 7 * m - 1] {
        let bytes = random.bytes(size);
        let mut copy = Vec::new();
        let tee = |block: &[u8]| {
            copy.extend_from_slice(block);
            Ok(())
        };
        let built = build(Dribble(&bytes, Random(size as u64)), size as u64, None, tee).unwrap();
        assert_eq!(copy, bytes);
        assert_eq!(built.digests, crate::digest::hash_file(&bytes[..]).unwrap());
        assert_eq!((built.map.blob(), built.map.size()), (Digest::of(&bytes), size as u64));
        for (offset, chunk) in built.map.iter() {
            let content = &bytes[offset as usize..][..chunk.len as usize];
            assert_eq!(chunk.digest, Digest::of(content));
        }
        assert_eq!(self::built(&bytes, None), built, "reads of another size change nothing");
        let middle = built.map.len().saturating_sub(1);
        assert!(built.map.chunks()[..middle].iter().all(|chunk| chunk.len >= MIN_CHUNK));
    }
}

#[test]
fn damage_is_named_by_chunk_and_offset() {
    let mut random = Random(14);
    let mut bytes = random.bytes(3 * MAX_CHUNK as usize);
    let map = built(&bytes, None).map;
    map.check(&bytes[..]).unwrap();
    for (i, (offset, chunk)) in map.iter().enumerate() {
        let content = &bytes[offset as usize..][..chunk.len as usize];
        map.verify(i, content).unwrap();
        assert_eq!(map.verify(i, &content[1..]).unwrap_err().code(), "damaged");
        assert_eq!(map.verify(i, &[content, b"x"].concat()).unwrap_err().code(), "damaged");
    }
    assert_eq!(map.verify(map.len(), b"").unwrap_err().code(), "index");
    assert_eq!(map.check(&bytes[1..]).unwrap_err().code(), "damaged");
    assert_eq!(map.check(&bytes[..bytes.len() - 1]).unwrap_err().code(), "changed");
    assert_eq!(map.check(&[&bytes[..], b"x"].concat()[..]).unwrap_err().code(), "changed");
    let at = map.offset(2).unwrap();
    bytes[at as usize] ^= 1;
    let error = map.check(&bytes[..]).unwrap_err();
    assert!(matches!(error, ChunkError::Damaged { index: 2, offset, .. } if offset == at), "{error}");
    bytes[at as usize] ^= 1;
    let lie = ChunkMap::new(Digest::of(b"other"), map.size(), map.chunks().to_vec()).unwrap();
    assert_eq!(lie.check(&bytes[..]).unwrap_err().code(), "content");
}

#[test]
fn a_file_that_changes_or_fails_while_it_is_read_is_refused() {
    let bytes = vec![1u8; 3 * MAX_CHUNK as usize];
    let size = bytes.len() as u64;
    let run = |reader: &[u8], size| build(reader, size, None, |_| Ok(())).unwrap_err().code();
    assert_eq!(run(&bytes, size - 1), "changed", "grew");
    assert_eq!(run(&bytes, size + 1), "changed", "shrank");
    assert_eq!(run(&[], 1), "changed");
    let full = build(&bytes[..], size, None, |_| Err(io::ErrorKind::StorageFull.into())).unwrap_err();
    assert_eq!(full.code(), "io");
    let layout = layout_of(&safetensors_of(&[("a", &bytes)], 0));
    assert_eq!(build(&bytes[..], size, Some(&layout), |_| Ok(())).unwrap_err().code(), "layout");
}

#[test]
fn each_large_tensor_begins_a_chunk_and_small_ones_share() {
    let mut random = Random(11);
    let (large, small) = (random.bytes(2 * MAX_CHUNK as usize + 100), random.bytes(30_000));
    let tensors: Vec<(&str, &[u8])> = vec![
        ("n0", &small),
        ("a", &large),
        ("n1", &small),
        ("n2", &small),
        ("n3", &small),
        ("n4", &small),
        ("b", &large),
        ("n5", &small),
    ];
    let bytes = safetensors_of(&tensors, 0);
    let layout = layout_of(&bytes);
    let map = built(&bytes, Some(&layout)).map;
    let lens: Vec<u32> = map.chunks().iter().map(|chunk| chunk.len).collect();
    let m = MAX_CHUNK;
    assert_eq!(lens[0], layout.header as u32, "the header stands alone");
    assert_eq!(lens[1..], [30_000, m, m, 100, 90_000, 30_000, m, m, 100, 30_000]);
    let digests: Vec<Digest> = map.chunks().iter().map(|chunk| chunk.digest).collect();
    assert_eq!(digests[2..5], digests[7..10], "equal tensors have equal chunks wherever they stand");
    assert_eq!(
        plan(Some(&layout), bytes.len() as u64).unwrap().iter().map(|s| s.len).sum::<u64>(),
        bytes.len() as u64
    );
    assert!(plan(None, 0).unwrap().is_empty());
}

/// Bytes of `new` that a holder of `old` lacks, in thousandths of `new`.
fn lacking(old: &[&ChunkMap], new: &ChunkMap) -> u64 {
    let have: HashSet<Digest> = old.iter().flat_map(|map| map.chunks()).map(|chunk| chunk.digest).collect();
    let lack: u64 = new
        .chunks()
        .iter()
        .filter(|chunk| !have.contains(&chunk.digest))
        .map(|chunk| u64::from(chunk.len))
        .sum();
    lack * 1000 / new.size()
}

/// A model of 16 layers of about 1.3 MB each, like a small transformer: a few large tensors between small ones.
fn model(random: &mut Random) -> Vec<(String, Vec<u8>)> {
    let mut tensors = Vec::new();
    for layer in 0..16 {
        for (part, len) in [
            ("ln1", 3_000),
            ("mlp.bias", 6_000),
            ("mlp", 900_001),
            ("ln2", 3_000),
            ("q", 200_002),
            ("v", 200_003),
        ] {
            tensors.push((format!("layers.{layer}.{part}"), random.bytes(len)));
        }
    }
    tensors
}

fn save(tensors: &[(String, Vec<u8>)], spaces: usize) -> ChunkMap {
    let tensors: Vec<(&str, &[u8])> = tensors.iter().map(|(name, data)| (name.as_str(), &data[..])).collect();
    let bytes = safetensors_of(&tensors, spaces);
    built(&bytes, Some(&layout_of(&bytes))).map
}

#[test]
fn what_a_revision_shares_with_its_base_is_not_new() {
    let mut random = Random(12);
    let mut tensors = model(&mut random);
    let base = save(&tensors, 0);
    // 21 MB in all; the header is under 10 KB.
    assert_eq!(lacking(&[&base], &save(&tensors, 40)), 0, "a header that grew costs the header alone");
    let (front, back) = tensors.split_at(50);
    let shards = [save(front, 0), save(back, 0)];
    assert!(lacking(&[&shards[0], &shards[1]], &base) <= 1, "merged shards");
    let len = tensors[50].1.len();
    assert_eq!(len, 900_001);
    tensors[50].1 = random.bytes(len);
    let share = len as u64 * 1000 / base.size();
    let replaced = lacking(&[&base], &save(&tensors, 0));
    assert!((share..=share + 1).contains(&replaced), "one tensor replaced: {replaced} against {share}");
}

#[test]
fn an_insertion_moves_only_the_content_defined_cuts_around_it() {
    let mut random = Random(13);
    let mut bytes = random.bytes(16 * 1024 * 1024);
    let old = built(&bytes, None).map;
    let average = old.size() / old.len() as u64;
    assert!((150_000..500_000).contains(&average), "{average}");
    bytes.splice(5_000_000..5_000_000, *b"inserted");
    assert!(lacking(&[&old], &built(&bytes, None).map) < 100);
}
