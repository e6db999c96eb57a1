//! Garbage collection: what stays, what goes, and that it may run beside everything else.

use std::sync::atomic::{AtomicBool, Ordering};

use registry::publish::accept;
use registry::statement::*;
use registry::store::{GcReason, Store};
use registry::{Digest, admit};

use crate::help::*;

fn weights(store: &Store, release: &Digest) -> Digest {
    store.release(release).unwrap().unwrap().file("model.safetensors").unwrap().blake3
}

/// Ends the hold of a day that new blobs have, as admission does, and the pin of the publisher.
fn let_go(store: &Store, release: &Digest) {
    admit::admit(store, release, NOW).unwrap();
    store.unpin(release).unwrap();
}

#[test]
fn pins_channels_and_leases_keep_and_the_rest_goes() {
    let (_dir, store) = house("alba", &[]);
    let old = published(&store, "alba/m", "1", 1);
    let new = published(&store, "alba/m", "2", 2);
    let (old_weights, new_weights) = (weights(&store, &old), weights(&store, &new));
    // Whoever publishes keeps every version until it takes the pin back.
    let_go(&store, &new);
    admit::admit(&store, &old, NOW).unwrap();
    assert_eq!(store.gc(false).unwrap().blobs_removed, 0);
    store.unpin(&old).unwrap();

    let lease = store.lease([old]);
    assert_eq!(store.gc(false).unwrap().blobs_removed, 0);
    drop(lease);
    let lease = store.lease([old_weights]);
    let dry = store.gc(true).unwrap();
    // The map of the weights, the configuration and its map; the model card is the same in both releases.
    assert_eq!((dry.dry_run, dry.blobs_removed), (true, 3));
    drop(lease);
    let dry = store.gc(true).unwrap();
    assert!(store.has_blob(&old_weights));
    let done = store.gc(false).unwrap();
    assert_eq!(done.blobs_removed, 4);
    assert_eq!((done.bytes_freed, done.bytes_kept), (dry.bytes_freed, dry.bytes_kept));
    // Both name it, with the reason; the blobs that it shares with the other release stay and are not counted.
    for report in [&dry, &done] {
        let [gone] = report.releases.as_slice() else { panic!("{:?}", report.releases) };
        assert_eq!((gone.release, gone.reason, gone.bytes), (old, GcReason::Unpinned, done.bytes_freed));
        assert_eq!((gone.model.to_string().as_str(), gone.version.as_str()), ("alba/m", "1"));
        assert_eq!(report.loose_blobs, 0);
    }
    assert!(!store.has_blob(&old_weights) && !store.blob_path(&old_weights).exists());
    assert!(store.has_blob(&new_weights));
    assert!(admit::verify(&store, &new, NOW, &mut |_, _| {}).unwrap().is_sound());
    assert_eq!(store.gc(false).unwrap().blobs_removed, 0);
    // The statement stays, so the release can be fetched again.
    assert!(store.release(&old).unwrap().is_some());
    assert_eq!(listing(&store.home().join("tmp")).len(), 0);
}

#[test]
fn what_just_came_is_held_until_it_is_signed_for() {
    let (_dir, store) = house("alba", &[]);
    let folder = folder(1);
    let draft = draft(&store, folder.path());
    let report = store.gc(false).unwrap();
    assert_eq!((report.blobs_removed, report.blobs_held), (0, 6));
    let release = Statement::Release(release_of(&draft, "alba/m", "1"));
    accept(&store, &sign(release), NOW).unwrap();
}

#[test]
fn a_recalled_release_goes_unless_it_is_pinned() {
    let (_dir, store) = house("alba", &[]);
    let release = published(&store, "alba/m", "1", 1);
    let_go(&store, &release);
    assert_eq!(store.gc(true).unwrap().blobs_removed, 0);
    let stop = Statement::Recall(recall("alba", 1, RecallTarget::Release(release)));
    accept(&store, &sign(stop), NOW).unwrap();
    store.pin(&release, "to be examined").unwrap();
    assert_eq!(store.gc(true).unwrap().blobs_removed, 0);
    store.unpin(&release).unwrap();
    let report = store.gc(false).unwrap();
    assert_eq!((report.blobs_removed, report.releases[0].reason), (6, GcReason::Recalled));
}

#[test]
fn files_that_the_index_does_not_know_go() {
    let (_dir, store) = house("alba", &[]);
    let stray = Digest::of(b"stray");
    std::fs::write(store.blob_path(&stray), b"stray").unwrap();
    assert_eq!(store.gc(true).unwrap().orphans_removed, 1);
    assert!(store.blob_path(&stray).exists());
    let report = store.gc(false).unwrap();
    assert_eq!((report.orphans_removed, report.bytes_freed), (1, 5));
    assert!(!store.blob_path(&stray).exists());
}

/// Blobs become garbage and are wanted again, over and over, while collections run without a pause.
#[test]
fn collections_run_beside_pulls() {
    let (_a, from) = house("alba", &["borea"]);
    let releases: Vec<Digest> = (0..4).map(|i| published(&from, &format!("alba/m{i}"), "1", i)).collect();
    let (_b, to) = house("borea", &["alba"]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let (mut runs, mut removed) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                removed += to.gc(false).unwrap().blobs_removed;
                runs += 1;
            }
            (runs, removed)
        });
        let pullers: Vec<_> = releases
            .iter()
            .map(|release| {
                let (from, to) = (&from, &to);
                scope.spawn(move || {
                    for _ in 0..8 {
                        pull_under_lease(from, to, release);
                    }
                })
            })
            .collect();
        for puller in pullers {
            puller.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        let (runs, removed) = collector.join().unwrap();
        println!("{runs} collections removed {removed} blobs");
        assert!(runs > 1);
    });
    to.gc(false).unwrap();
    assert_eq!(to.usage().unwrap().blobs, 0);
}

/// A whole pull, and the proof that nothing of it is missing while its lease lives.
fn pull_under_lease(from: &Store, to: &Store, release: &Digest) {
    let lease = to.lease([*release]);
    registry::publish::learn(to, &from.statement(release).unwrap().unwrap(), NOW).unwrap();
    for file in from.release(release).unwrap().unwrap().files {
        let map = from.chunk_map(&file.chunk_map).unwrap().unwrap();
        to.put_bytes(&map.encode()).unwrap();
        // The model card and its map are the same blobs in all four releases.
        while !to.has_blob(&file.blake3) {
            match to.partial(&map) {
                Ok(partial) => {
                    fill(from, &partial, partial.missing());
                    partial.finish().unwrap();
                }
                Err(registry::store::StoreError::InUse(_)) => std::thread::yield_now(),
                Err(registry::store::StoreError::Present(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    admit::admit(to, release, NOW).unwrap();
    assert!(admit::verify(to, release, NOW, &mut |_, _| {}).unwrap().is_sound());
    drop(lease);
}

#[test]
fn collections_run_beside_publishing() {
    let (_dir, store) = house("alba", &[]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                store.gc(false).unwrap();
            }
        });
        for version in 0..6 {
            // The same folder each time: its blobs are garbage until the next release wants them.
            let release = published(&store, "alba/m", &format!("{version}"), 7);
            assert!(admit::verify(&store, &release, NOW, &mut |_, _| {}).unwrap().is_sound());
            let_go(&store, &release);
        }
        stop.store(true, Ordering::Relaxed);
        collector.join().unwrap();
    });
    let last = store.channels().unwrap()[0].1.release;
    assert!(admit::verify(&store, &last, NOW, &mut |_, _| {}).unwrap().is_sound());
}
