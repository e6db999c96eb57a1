//! Chunks that are here already, in whatever blob, are not fetched.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;

use registry::chunk::{Chunk, ChunkMap};
use registry::publish::{accept, learn};
use registry::statement::*;
use registry::store::{Reused, Store, StoreError};
use registry::{Digest, admit};

use crate::help::*;

const KIB: usize = 1024;

/// Tensors of a small model, of sizes from a few hundred bytes to over a chunk, with odd lengths among them.
fn tensors(seed: u64) -> Vec<(String, Vec<u8>)> {
    let sizes = [900 * KIB + 13, 512, 2500 * KIB, 300 * KIB, 700, 64 * KIB, 1024 * KIB, 513, 2049 * KIB + 7];
    sizes
        .into_iter()
        .enumerate()
        .map(|(i, size)| (format!("t{i:02}"), noise(seed * 100 + i as u64, size)))
        .collect()
}

/// A safetensors file of these, with `extra` bytes of metadata.
fn file(tensors: &[(String, Vec<u8>)], extra: usize) -> Vec<u8> {
    let mut at = 0;
    let mut entries = vec![format!(r#""__metadata__":{{"note":"{}"}}"#, "x".repeat(extra))];
    for (name, bytes) in tensors {
        let (start, end) = (at, at + bytes.len());
        entries.push(format!(
            r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{start},{end}]}}"#,
            bytes.len()
        ));
        at = end;
    }
    let mut header = format!("{{{}}}", entries.join(","));
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    tensors.iter().for_each(|(_, bytes)| file.extend_from_slice(bytes));
    file
}

fn ingest(store: &Store, name: &str, content: &[u8]) -> ChunkMap {
    let path = store.home().with_file_name(name);
    fs::write(&path, content).unwrap();
    store.ingest(&path, &mut |_| {}).unwrap().map
}

/// Bytes of the chunks of `map` that no other map has.
fn new_bytes(map: &ChunkMap, others: &[&ChunkMap]) -> u64 {
    let known: BTreeSet<Digest> = others.iter().flat_map(|map| map.chunks()).map(|c| c.digest).collect();
    let mut seen = BTreeSet::new();
    map.chunks()
        .iter()
        .filter(|chunk| !known.contains(&chunk.digest) && seen.insert(chunk.digest))
        .map(|chunk| u64::from(chunk.len))
        .sum()
}

/// Takes what is here, checks that it is all but `new` bytes, fetches those and finishes.
fn completed(from: &Store, to: &Store, map: &ChunkMap, new: u64) -> Reused {
    let partial = to.partial(map).unwrap();
    let (mut told, mut last) = (0, 0);
    let taken = partial
        .take_local(&mut |bytes| {
            assert!(bytes > last);
            last = bytes;
            told += 1;
        })
        .unwrap();
    assert_eq!((told, last), (taken.chunks, taken.bytes));
    assert_eq!((partial.bytes_done(), taken.bytes), (map.size() - new, map.size() - new));
    fill(from, &partial, partial.to_fetch());
    partial.finish().unwrap();
    assert_eq!(Digest::of(&fs::read(to.blob_path(&map.blob())).unwrap()), map.blob());
    taken
}

/// A store that publishes revisions and one that has the first.
fn two(first: &[u8]) -> ((tempfile::TempDir, Store), (tempfile::TempDir, Store), ChunkMap) {
    let (from, to) = (house("alba", &[]), house("borea", &[]));
    let map = ingest(&from.1, "first.safetensors", first);
    ingest(&to.1, "first.safetensors", first);
    (from, to, map)
}

#[test]
fn a_replaced_tensor_is_all_that_is_fetched() {
    let mut tensors = tensors(1);
    let ((_a, from), (_b, to), first) = two(&file(&tensors, 0));
    tensors[2].1 = noise(77, tensors[2].1.len());
    let map = ingest(&from, "second.safetensors", &file(&tensors, 0));
    assert_eq!(new_bytes(&map, &[&first]), tensors[2].1.len() as u64);
    let taken = completed(&from, &to, &map, tensors[2].1.len() as u64);
    assert!(taken.damaged.is_empty());
}

#[test]
fn a_grown_header_moves_everything_and_costs_the_header() {
    let tensors = tensors(1);
    let ((_a, from), (_b, to), first) = two(&file(&tensors, 0));
    let map = ingest(&from, "second.safetensors", &file(&tensors, 40));
    let new = new_bytes(&map, &[&first]);
    assert!(new < 2 * KIB as u64, "{new}");
    completed(&from, &to, &map, new);
}

#[test]
fn shards_become_one_file_and_one_file_shards() {
    let (one, two) = (tensors(1), tensors(2));
    let merged: Vec<_> = one
        .iter()
        .chain(&two)
        .enumerate()
        .map(|(i, (_, bytes))| (format!("t{i:02}"), bytes.clone()))
        .collect();
    let (_a, from) = house("alba", &[]);
    let shards = [file(&one, 0), file(&two, 0)];
    let maps = [0, 1].map(|i| ingest(&from, &format!("shard{i}.safetensors"), &shards[i]));
    let whole = ingest(&from, "whole.safetensors", &file(&merged, 0));
    let (_b, to) = house("borea", &[]);
    for (i, shard) in shards.iter().enumerate() {
        ingest(&to, &format!("shard{i}.safetensors"), shard);
    }
    let new = new_bytes(&whole, &[&maps[0], &maps[1]]);
    assert!(new < 128 * KIB as u64, "{new}");
    completed(&from, &to, &whole, new);

    let (_c, to) = house("cora", &[]);
    ingest(&to, "whole.safetensors", &file(&merged, 0));
    let mut here = vec![&whole];
    for map in &maps {
        let new = new_bytes(map, &here);
        assert!(new < 128 * KIB as u64, "{new}");
        completed(&from, &to, map, new);
        here.push(map);
    }
}

#[test]
fn a_damaged_blob_is_named_and_what_it_lost_is_fetched() {
    let mut tensors = tensors(1);
    let ((_a, from), (_b, to), first) = two(&file(&tensors, 0));
    tensors[8].1[5] ^= 1;
    // Once where the bytes lie alike in both files, once where they don't.
    for extra in [0, 40] {
        let map = ingest(&from, "second.safetensors", &file(&tensors, extra));
        let lost = first.index_at(first.size() / 2).unwrap();
        damage(&to, &first.blob(), first.offset(lost).unwrap() + 9, b"rot");
        let chunk = first.get(lost).unwrap();
        let new = new_bytes(&map, &[&first]) + u64::from(chunk.len);
        let taken = completed(&from, &to, &map, new);
        assert_eq!(taken.damaged, [first.blob()]);
        // The next round must not find it in the blob that was just completed.
        quiet(&to, &map);
    }
}

/// Removes a blob as garbage.
fn quiet(store: &Store, map: &ChunkMap) {
    let path = store.home().with_file_name("again");
    fs::copy(store.blob_path(&map.blob()), &path).unwrap();
    store.gc(false).unwrap();
    fs::remove_file(store.blob_path(&map.blob())).unwrap();
}

#[test]
fn one_good_place_is_enough() {
    let tensors = tensors(1);
    let ((_a, from), (_b, to), first) = two(&file(&tensors, 0));
    let second = ingest(&to, "second.safetensors", &file(&tensors, 800));
    let lost = first.index_at(first.size() / 2).unwrap();
    damage(&to, &first.blob(), first.offset(lost).unwrap(), b"rot");
    let map = ingest(&from, "third.safetensors", &file(&tensors, 40));
    let taken = completed(&from, &to, &map, new_bytes(&map, &[&first, &second]));
    assert!(taken.damaged.iter().all(|blob| *blob == first.blob()), "{taken:?}");
}

#[test]
fn what_garbage_collection_took_is_fetched_and_what_another_blob_has_is_not() {
    let (_a, from) = house("alba", &["borea"]);
    let (_b, to) = house("borea", &["alba"]);
    let releases: Vec<Digest> = [1, 2].map(|v| published(&from, &format!("alba/m{v}"), "1", 5)).to_vec();
    for release in &releases {
        pull(&from, &to, release).unwrap();
    }
    // Both releases have the same weights; a channel's statement never came, so nothing keeps them.
    let map =
        from.chunk_map(&from.release(&releases[0]).unwrap().unwrap().files[2].chunk_map).unwrap().unwrap();
    assert!(to.has_blob(&map.blob()));
    let grown = {
        let mut content = fs::read(from.blob_path(&map.blob())).unwrap();
        let len = u64::from_le_bytes(content[..8].try_into().unwrap());
        content.splice(8 + len as usize..8 + len as usize, *b"        ");
        content[..8].copy_from_slice(&(len + 8).to_le_bytes());
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.safetensors"), content).unwrap();
        let release = release_of(&draft(&from, folder.path()), "alba/grown", "1");
        // What no release names lends nothing to what is released.
        learn(&to, &sign(Statement::Release(release.clone())), NOW).unwrap();
        from.chunk_map(&release.files[0].chunk_map).unwrap().unwrap()
    };
    let keeper = ingest(&to, "copy.safetensors", &file(&tensors(9), 0));
    assert!(to.gc(false).unwrap().blobs_removed > 0);
    assert!(!to.has_blob(&map.blob()) && to.has_blob(&keeper.blob()));
    let partial = to.partial(&grown).unwrap();
    assert_eq!(partial.take_local(&mut |_| {}).unwrap(), Reused::default());
    assert_eq!(partial.missing().len(), grown.len());
    fill(&from, &partial, partial.to_fetch());
    partial.finish().unwrap();
    // Now two blobs hold the same chunks; when one goes, the other still lends them.
    for release in &releases {
        pull(&from, &to, release).unwrap();
    }
    assert!(to.gc(false).unwrap().blobs_removed > 0);
    assert!(!to.has_blob(&map.blob()) && to.has_blob(&grown.blob()));
    completed(&from, &to, &map, new_bytes(&map, &[&grown]));
}

#[test]
fn a_file_removed_behind_the_stores_back_is_skipped() {
    let tensors = tensors(1);
    let ((_a, from), (_b, to), first) = two(&file(&tensors, 0));
    fs::remove_file(to.blob_path(&first.blob())).unwrap();
    let map = ingest(&from, "second.safetensors", &file(&tensors, 40));
    completed(&from, &to, &map, map.size());
}

#[test]
fn a_kill_in_between_loses_at_most_what_was_not_synced() {
    let tensors = tensors(1);
    let ((_a, from), (_b, to), first) = two(&file(&tensors, 0));
    let map = ingest(&from, "second.safetensors", &file(&tensors, 40));
    let partial = to.partial(&map).unwrap();
    let mut killed = None;
    let taken = partial
        .take_local(&mut |bytes| {
            if killed.is_none() && bytes > map.size() / 2 {
                killed = Some(snapshot(&to));
            }
        })
        .unwrap();
    // What came back is durable: a process killed now finds it all.
    let after = snapshot(&to);
    let again = Store::open(after.path()).unwrap();
    assert_eq!(again.partial_chunks(&map.blob()).unwrap().count() as u64, taken.chunks);
    assert_eq!(again.partial(&map).unwrap().take_local(&mut |_| {}).unwrap(), Reused::default());
    drop(again);
    let killed = killed.unwrap();
    let again = Store::open(killed.path()).unwrap();
    let partial = again.partial(&map).unwrap();
    let before = partial.bytes_done();
    let retaken = partial.take_local(&mut |_| {}).unwrap();
    assert_eq!(before + retaken.bytes, taken.bytes);
    fill(&from, &partial, partial.to_fetch());
    partial.finish().unwrap();
    assert!(again.has_blob(&map.blob()) && again.has_blob(&first.blob()));
}

/// A map of chunks of 100 KiB by these numbers, and its content.
fn repeating(numbers: &[u64]) -> (ChunkMap, Vec<Vec<u8>>) {
    let parts: Vec<Vec<u8>> = numbers.iter().map(|&n| noise(n, 100 * KIB)).collect();
    let chunks =
        parts.iter().map(|part| Chunk { digest: Digest::of(part), len: part.len() as u32 }).collect();
    let content = parts.concat();
    (ChunkMap::new(Digest::of(&content), content.len() as u64, chunks).unwrap(), parts)
}

#[test]
fn what_a_file_repeats_is_fetched_once() {
    let (_b, to) = house("borea", &[]);
    let (map, parts) = repeating(&[1, 2, 1, 3, 1, 2, 4, 1]);
    let partial = to.partial(&map).unwrap();
    assert_eq!(partial.to_fetch(), [0, 1, 3, 6]);
    assert_eq!(partial.take_local(&mut |_| {}).unwrap(), Reused::default());
    // The last of the equal ones came first, as from a peer that has only that.
    partial.write_chunk(7, &parts[7]).unwrap();
    assert_eq!(partial.to_fetch(), [1, 3, 6]);
    let taken = partial.take_local(&mut |_| {}).unwrap();
    assert_eq!((taken.chunks, taken.bytes), (3, 3 * 100 * KIB as u64));
    for index in partial.to_fetch() {
        partial.write_chunk(index, &parts[index]).unwrap();
    }
    assert_eq!(partial.missing(), [5]);
    partial.finish().unwrap();
    assert!(to.has_blob(&map.blob()));
}

#[test]
fn a_repeat_that_the_disk_changed_is_not_copied() {
    let (_b, to) = house("borea", &[]);
    let (map, parts) = repeating(&[1, 2, 1]);
    let partial = to.partial(&map).unwrap();
    partial.write_chunk(0, &parts[0]).unwrap();
    partial.write_chunk(1, &parts[1]).unwrap();
    let path = to.home().join("partial").join(map.blob().to_hex());
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"rot", 50).unwrap();
    let error = partial.finish().unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { bad, .. } if *bad == [0]), "{error}");
    assert_eq!(partial.to_fetch(), [0]);
    partial.write_chunk(0, &parts[0]).unwrap();
    partial.finish().unwrap();
}

#[test]
fn thousands_of_repeats_are_one_chunk_to_fetch() {
    let (_b, to) = house("borea", &[]);
    let zeros = vec![0; 4 * KIB];
    let chunk = Chunk { digest: Digest::of(&zeros), len: zeros.len() as u32 };
    let content = vec![0; zeros.len() * 5000];
    let map = ChunkMap::new(Digest::of(&content), content.len() as u64, vec![chunk; 5000]).unwrap();
    let partial = to.partial(&map).unwrap();
    assert_eq!(partial.to_fetch(), [0]);
    partial.write_chunk(0, &zeros).unwrap();
    partial.finish().unwrap();
    // Another blob of the same chunk is made from it whole.
    let longer = ChunkMap::new(Digest::of(&[&content[..], &zeros].concat()), 5001 * 4096, vec![chunk; 5001]);
    let longer = to.partial(&longer.unwrap()).unwrap();
    assert_eq!(longer.take_local(&mut |_| {}).unwrap().chunks, 5001);
    longer.finish().unwrap();
}

/// A small XFS, which can share extents, where the system lets us make one.
struct Xfs(tempfile::TempDir);

impl Xfs {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
        fs::create_dir(&mount).unwrap();
        fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
        let ran = |command: &mut std::process::Command| {
            let quiet = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            quiet.status().is_ok_and(|status| status.success())
        };
        let make = ran(std::process::Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image));
        if make && ran(std::process::Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount)) {
            return Some(Self(dir));
        }
        println!("skipped: this needs mkfs.xfs and the right to mount");
        None
    }

    fn mount(&self) -> std::path::PathBuf {
        self.0.path().join("mount")
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.mount()).status();
    }
}

#[test]
fn where_the_file_system_can_share_what_is_taken_needs_no_room() {
    let Some(xfs) = Xfs::new() else { return };
    let mut tensors = tensors(1);
    let (_a, from) = house("alba", &[]);
    let to = Store::create(&xfs.mount().join("store"), &root("borea"), NOW).unwrap();
    ingest(&to, "first.safetensors", &file(&tensors, 0));
    fs::remove_file(to.home().with_file_name("first.safetensors")).unwrap();
    tensors[0].1 = noise(78, tensors[0].1.len());
    let map = ingest(&from, "second.safetensors", &file(&tensors, 0));
    let before = to.usage().unwrap().disk_free;
    completed(&from, &to, &map, tensors[0].1.len() as u64);
    let took = before.saturating_sub(to.usage().unwrap().disk_free);
    assert!(took < map.size() / 2, "{took} of {} bytes", map.size());
}

/// Borea holds a model of alba's that only borea may have; cora names its chunks in a release of its own.
#[test]
fn a_restricted_blob_lends_nothing_to_a_wider_release() {
    let (_a, alba) = house("alba", &["cora"]);
    let content = file(&tensors(3), 0);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.safetensors"), &content).unwrap();
    let mut secret = release_of(&draft(&alba, folder.path()), "alba/secret", "1");
    secret.releasable_to = Releasable::Nations([nation("borea")].into());
    let secret = accept(&alba, &sign(Statement::Release(secret)), NOW).unwrap().digest;

    fs::write(folder.path().join("model.safetensors"), file(&tensors(3), 40)).unwrap();
    let (_c, cora) = house("cora", &[]);
    let mut copy = release_of(&draft(&cora, folder.path()), "cora/copy", "1");
    let map = cora.chunk_map(&copy.files[0].chunk_map).unwrap().unwrap();
    let mut take = |releasable: Releasable, lends: bool| {
        copy.releasable_to = releasable;
        let (_b, to) = house("borea", &["alba", "cora"]);
        pull(&alba, &to, &secret).unwrap();
        learn(&to, &sign(Statement::Release(copy.clone())), NOW).unwrap();
        let taken = to.partial(&map).unwrap().take_local(&mut |_| {}).unwrap();
        assert_eq!(taken.chunks > 0, lends, "{taken:?}");
    };
    take(Releasable::All, false);
    take(Releasable::Nations([nation("borea")].into()), false);
    copy.model = "alba/copy".parse().unwrap();
    let own = |to: &Store| learn(to, &sign(Statement::Release(copy.clone())), NOW).unwrap();
    let (_b, to) = house("borea", &["alba"]);
    pull(&alba, &to, &secret).unwrap();
    own(&to);
    assert!(to.partial(&map).unwrap().take_local(&mut |_| {}).unwrap().chunks > 0);
    admit::admit(&to, &secret, NOW).unwrap();
}
