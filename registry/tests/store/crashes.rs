//! What opening a store does with what a crash, a bad disk or a person left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use registry::admit;
use registry::store::{Store, StoreError};

use crate::help::*;

/// Closes a store and opens it again after `change` was made to its folder.
fn reopened(store: Store, change: impl FnOnce(&std::path::Path)) -> Result<Store, StoreError> {
    let home = store.home().to_owned();
    drop(store);
    change(&home);
    Store::open(&home)
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let (_dir, store) = house("alba", &["borea"]);
    let release = published(&store, "alba/m", "1.0", 1);
    store.pin(&release, "because").unwrap();
    admit::admit(&store, &release, NOW).unwrap();
    let killed = snapshot(&store);
    let again = Store::open(killed.path()).unwrap();
    assert_eq!(again.recovery(), &Default::default());
    assert_eq!(again.last_seq(), store.last_seq());
    assert_eq!(again.pins().unwrap(), store.pins().unwrap());
    assert_eq!(again.admissions().unwrap(), store.admissions().unwrap());
    assert!(admit::verify(&again, &release, NOW, &mut |_, _| {}).unwrap().is_sound());
}

#[test]
fn blobs_that_are_gone_or_cut_short_are_withdrawn_with_what_rests_on_them() {
    let (_dir, store) = house("alba", &[]);
    let (one, two) = (published(&store, "alba/one", "1", 1), published(&store, "alba/two", "1", 2));
    let three = published(&store, "alba/three", "1", 3);
    for release in [one, two, three] {
        admit::admit(&store, &release, NOW).unwrap();
    }
    let weights = |store: &Store, release| {
        let release = store.release(&release).unwrap().unwrap();
        release.file("model.safetensors").unwrap().blake3
    };
    let (gone, short) = (weights(&store, one), weights(&store, two));
    let store = reopened(store, |home| {
        let path = |blob: registry::Digest| home.join("blobs").join(&blob.to_hex()[..2]).join(blob.to_hex());
        fs::remove_file(path(gone)).unwrap();
        fs::set_permissions(path(short), fs::Permissions::from_mode(0o600)).unwrap();
        fs::OpenOptions::new().write(true).open(path(short)).unwrap().set_len(10).unwrap();
    })
    .unwrap();
    let recovery = store.recovery();
    assert!(recovery.is_loss());
    assert_eq!(set(recovery.withdrawn.iter().map(|withdrawn| withdrawn.blob)), set([gone, short]));
    assert_eq!(set(recovery.admissions_withdrawn.iter().copied()), set([one, two]));
    assert_eq!(store.admissions().unwrap().len(), 1);
    assert!(!store.has_blob(&gone) && !store.has_blob(&short));
    assert_eq!(listing(&store.home().join("quarantine")).len(), 1);
    let refused = admit::admit(&store, &one, NOW).unwrap_err();
    assert!(
        matches!(&refused, admit::AdmitError::Incomplete { missing, .. } if missing[0].path == "model.safetensors")
    );
}

#[test]
fn leftovers_are_removed_or_reported() {
    let (_a, from, map) = seeder(3);
    let (_dir, store) = house("alba", &[]);
    let lost = store.partial(&map).unwrap();
    fill(&from, &lost, [0]);
    drop(lost);
    let stray = noise(5, 100);
    let digest = registry::Digest::of(&stray);
    let store = reopened(store, |home| {
        fs::write(home.join("tmp/ingest-abc"), b"half").unwrap();
        fs::create_dir(home.join("tmp/folder")).unwrap();
        fs::remove_file(home.join("partial").join(map.blob().to_hex())).unwrap();
        fs::write(home.join("partial/junk"), b"junk").unwrap();
        fs::write(home.join("blobs").join(&digest.to_hex()[..2]).join(digest.to_hex()), &stray).unwrap();
    })
    .unwrap();
    let recovery = store.recovery();
    assert_eq!((recovery.temporary_removed, recovery.partials_removed), (2, 2));
    assert_eq!((recovery.orphans, recovery.orphan_bytes), (1, 100));
    assert!(!recovery.is_loss());
    assert!(store.partial_chunks(&map.blob()).is_none());
    // It was never recorded, so it is not here; putting it makes it so.
    assert!(!store.has_blob(&digest));
    assert_eq!(store.put_bytes(&stray).unwrap(), digest);
    assert!(store.has_blob(&digest));
    assert_eq!(store.gc(false).unwrap().orphans_removed, 0);
}

#[test]
fn a_kill_between_rename_and_record_costs_no_bytes() {
    let (_a, from, map) = seeder(3);
    let (_dir, store) = house("borea", &[]);
    let partial = store.partial(&map).unwrap();
    fill(&from, &partial, 0..map.len());
    drop(partial);
    let blob = map.blob();
    let store = reopened(store, |home| {
        let from = home.join("partial").join(blob.to_hex());
        fs::set_permissions(&from, fs::Permissions::from_mode(0o444)).unwrap();
        fs::rename(from, home.join("blobs").join(&blob.to_hex()[..2]).join(blob.to_hex())).unwrap();
    })
    .unwrap();
    assert_eq!(store.recovery().partials_restored, 1);
    let partial = store.partial(&map).unwrap();
    assert!(partial.missing().is_empty());
    partial.finish().unwrap();
    assert!(store.has_blob(&blob));
}

/// The index's write-ahead log with the most in it.
fn log(home: &std::path::Path) -> std::path::PathBuf {
    let logs = listing(&home.join("index"));
    let logs = logs.into_iter().filter(|(path, _)| path.extension().is_some_and(|ext| ext == "log"));
    logs.max_by_key(|(_, size)| *size).unwrap().0
}

#[test]
fn a_record_cut_short_at_the_end_is_forgotten_and_damage_before_it_is_refused() {
    let (_dir, store) = house("alba", &[]);
    for i in 0..50 {
        store.put_meta(&format!("key{i}"), &[i; 100]).unwrap();
    }
    let cut = snapshot(&store);
    let path = log(cut.path());
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
    let again = Store::open(cut.path()).unwrap();
    assert_eq!(again.get_meta("key48"), Some(vec![48; 100]));
    assert_eq!(again.get_meta("key49"), None);

    // Places all over a record in the middle, its length among them.
    let middle = bytes.len() / 2;
    for at in (middle..middle + 140).step_by(19) {
        let damaged = snapshot(&store);
        let mut bytes = bytes.clone();
        bytes[at] ^= 0xff;
        fs::write(log(damaged.path()), bytes).unwrap();
        let error = Store::open(damaged.path()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{at}: {error}");
        assert!(error.to_string().contains("backup"));
    }
}
