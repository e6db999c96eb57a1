//! Reading everything again: what is told on the way, and what each kind of damage is called.

use std::fs;

use registry::admit::{self, AdmitError, VerifyReport};
use registry::chunk::ChunkMap;
use registry::publish::learn;
use registry::statement::{File, Release, Statement};
use registry::store::Store;
use registry::{Digest, Sha256};

use crate::help::*;

fn verify(store: &Store, release: &Digest) -> (VerifyReport, Vec<u64>) {
    let mut told = Vec::new();
    let report = admit::verify(store, release, NOW, &mut |done, _| told.push(done)).unwrap();
    (report, told)
}

fn file(store: &Store, release: &Digest, path: &str) -> File {
    store.release(release).unwrap().unwrap().file(path).unwrap().clone()
}

/// The release again with something else said of it.
fn changed(store: &Store, release: &Digest, version: &str, change: impl FnOnce(&mut Release)) -> Digest {
    let mut other = store.release(release).unwrap().unwrap();
    other.version = registry::Version::new(version).unwrap();
    change(&mut other);
    learn(store, &sign(Statement::Release(other)), NOW).unwrap().digest
}

#[test]
fn what_was_read_is_counted_chunk_by_chunk_and_file_by_file() {
    let (_dir, store) = house("alba", &[]);
    let release = published(&store, "alba/m", "1", 1);
    admit::admit(&store, &release, NOW).unwrap();
    let (report, told) = verify(&store, &release);
    let files = store.release(&release).unwrap().unwrap().files;
    let mut expected = Vec::new();
    let mut done = 0;
    for file in &files {
        let map = store.chunk_map(&file.chunk_map).unwrap().unwrap();
        expected.extend((1..map.len()).map(|at| done + map.offset(at).unwrap()));
        // With its last chunk, and as a file.
        done += file.size;
        expected.extend([done; 2]);
    }
    assert_eq!(told, expected);
    assert_eq!((report.files, report.bytes, report.is_sound()), (3, done, true));
    assert!(report.withdrawn.is_empty() && report.quarantined.is_empty());
    assert_eq!(store.admissions().unwrap().len(), 1, "what is sound stays admitted");
}

#[test]
fn without_its_chunk_map_a_file_is_read_by_blocks() {
    let (_dir, store) = house("alba", &[]);
    let release = published(&store, "alba/m", "1", 1);
    let weights = file(&store, &release, "model.safetensors");
    damage(&store, &weights.chunk_map, 60, b"rot");
    damage(&store, &weights.blake3, 70, b"rot");
    let mut told = Vec::new();
    let report = admit::verify(&store, &release, NOW, &mut |done, total| told.push((done, total))).unwrap();
    let total = store.release(&release).unwrap().unwrap().size();
    assert_eq!(told.last(), Some(&(total, total)));
    // Two small files, each told twice, and five blocks of up to one MiB.
    assert_eq!(told.len(), 4 + 6);
    let steps: Vec<u64> = told.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert_eq!(steps.iter().filter(|step| **step == 1 << 20).count(), 4);
    let found: Vec<_> = report.damage.iter().map(|it| (it.blob, it.chunk, it.offset, it.len)).collect();
    assert_eq!(found, [(weights.chunk_map, None, 0, 0), (weights.blake3, None, 0, weights.size)]);
    assert!(report.damage[1].what.starts_with("the file hashes to"), "{:?}", report.damage);
    assert_eq!((report.files, report.quarantined.len()), (3, 2));
    // Gone, they are missing.
    let (report, _) = verify(&store, &release);
    assert_eq!((report.missing.len(), report.damage.len(), report.is_sound()), (1, 0, false));
}

#[test]
fn a_file_that_is_gone_or_shorter_is_damage_and_one_that_cannot_be_read_is_a_fault() {
    for (what, shorter) in [("the file is gone", false), ("the file has another length", true)] {
        let (_dir, store) = house("alba", &[]);
        let release = published(&store, "alba/m", "1", 1);
        let config = file(&store, &release, "config.json");
        let path = store.blob_path(&config.blake3);
        fs::remove_file(&path).unwrap();
        if shorter {
            fs::write(&path, b"short").unwrap();
        }
        let (report, _) = verify(&store, &release);
        let [found] = &report.damage[..] else { panic!("{:?}", report.damage) };
        assert_eq!((found.path.as_str(), found.what.as_str()), ("config.json", what));
        assert_eq!((found.offset, found.len, found.chunk), (0, config.size, None));
        assert!(!store.has_blob(&config.blake3));
    }
    let (_dir, store) = house("alba", &[]);
    let release = published(&store, "alba/m", "1", 1);
    let path = store.blob_path(&file(&store, &release, "config.json").blake3);
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("elsewhere", &path).unwrap();
    let error = admit::verify(&store, &release, NOW, &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("could not open"), "{error}");
}

#[test]
fn a_release_that_says_another_sha256_is_wrong_itself() {
    let (_dir, store) = house("alba", &[]);
    let release = published(&store, "alba/m", "1", 1);
    let wrong =
        changed(&store, &release, "2", |release| release.files[0].sha256 = Sha256::from_bytes([3; 32]));
    admit::admit(&store, &wrong, NOW).unwrap();
    let (report, _) = verify(&store, &wrong);
    assert_eq!((report.damage.len(), report.quarantined.len()), (1, 0));
    assert!(report.damage[0].what.starts_with("its SHA-256 is"), "{:?}", report.damage);
    assert_eq!(report.withdrawn, [wrong], "it is not served on");
    assert!(store.admissions().unwrap().is_empty());
    assert!(verify(&store, &release).0.is_sound());
}

#[test]
fn a_chunk_map_of_another_file_is_refused_wherever_it_is_asked() {
    let (_dir, store) = house("alba", &[]);
    let (release, other) = (published(&store, "alba/m", "1", 1), published(&store, "alba/n", "1", 2));
    let path = "model.safetensors";
    let (mine, theirs) = (file(&store, &release, path), file(&store, &other, path));
    assert_eq!(mine.size, theirs.size);
    // Of the same length but of another blob, and of this blob but another length.
    let map = store.chunk_map(&mine.chunk_map).unwrap().unwrap();
    let shorter = &map.chunks()[..map.len() - 1];
    let len = shorter.iter().map(|chunk| u64::from(chunk.len)).sum();
    let shorter = ChunkMap::new(mine.blake3, len, shorter.to_vec()).unwrap();
    let wrong = [("2", theirs.chunk_map), ("3", store.put_bytes(&shorter.encode()).unwrap())];
    for (version, wrong) in wrong {
        let named = changed(&store, &release, version, |release| {
            release.files.iter_mut().find(|file| file.path == path).unwrap().chunk_map = wrong;
        });
        for result in [
            admit::admit(&store, &named, NOW).map(|_| ()),
            admit::verify(&store, &named, NOW, &mut |_, _| {}).map(|_| ()),
        ] {
            assert!(matches!(result, Err(AdmitError::WrongMap { map, .. }) if map == wrong), "{result:?}");
        }
    }
}

#[test]
fn what_is_missing_and_what_is_refused_is_said() {
    let (_a, from) = house("alba", &[]);
    let release = published(&from, "alba/m", "1", 1);
    let (_b, to) = house("borea", &["alba"]);
    learn(&to, &from.statement(&release).unwrap().unwrap(), NOW).unwrap();
    let said = || admit::admit(&to, &release, NOW).unwrap_err().to_string();
    let first = from.release(&release).unwrap().unwrap().files[0].path.clone();
    assert!(
        said().starts_with(&format!("3 files of the release {release} are not here, `{first}` first")),
        "{}",
        said()
    );
    for file in from.release(&release).unwrap().unwrap().files.iter().skip(1) {
        let map = from.chunk_map(&file.chunk_map).unwrap().unwrap();
        to.put_bytes(&map.encode()).unwrap();
        let partial = to.partial(&map).unwrap().under(release);
        fill(&from, &partial, partial.missing());
        partial.finish().unwrap();
    }
    assert!(said().starts_with("1 file of the release"), "{}", said());
    // A name is enough to refuse a file that is not here yet.
    let (_c, cora) = house("cora", &["alba"]);
    let config = |release: &mut Release| {
        release.files.iter_mut().find(|file| file.path == "config.json").unwrap().path = "config.pkl".into()
    };
    let pickled = changed(&from, &release, "2", config);
    learn(&cora, &from.statement(&pickled).unwrap().unwrap(), NOW).unwrap();
    let decision = admit::decide(&cora, &pickled, NOW).unwrap().1;
    let refusals: Vec<_> = decision.refusals().map(|check| check.rule.as_str()).collect();
    assert_eq!(refusals, ["safe-formats"]);
    let error = admit::admit(&cora, &pickled, NOW).unwrap_err().to_string();
    assert!(error.contains("safe-formats: ") && error.contains("config.pkl"), "{error}");
    assert!(admit::binding_recall(&to, &Digest::of(b"unknown")).unwrap().is_none());
}
