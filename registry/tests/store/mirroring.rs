//! What a mirror rule brought: kept without a pin, let go without harm to anything else.

use registry::admit;
use registry::store::Store;

use crate::help::*;

#[test]
fn a_mirrored_release_is_kept_and_let_go() {
    let (_a, from) = house("alba", &[]);
    let (_b, to) = house("borea", &["alba"]);
    let (one, two) = (published(&from, "alba/one", "1", 1), published(&from, "alba/two", "1", 2));
    for release in [&one, &two] {
        assert!(to.keep_mirrored(release, "allies").is_err(), "it is not known yet");
        pull(&from, &to, release).unwrap();
        to.keep_mirrored(release, "allies").unwrap();
    }
    assert_eq!(to.gc(false).unwrap().blobs_removed, 0);
    let again = snapshot(&to);
    let again = Store::open(again.path()).unwrap();
    assert_eq!(again.mirrored().unwrap(), to.mirrored().unwrap());
    drop(again);

    // In use, pinned: it stays.
    let lease = to.lease([one]);
    assert!(to.let_go(&one).unwrap().is_none());
    drop(lease);
    to.pin(&one, "needed").unwrap();
    assert!(to.let_go(&one).unwrap().is_none());
    to.unpin(&one).unwrap();
    let weights = to.release(&one).unwrap().unwrap().file("model.safetensors").unwrap().blake3;
    let lease = to.lease([weights]);
    assert!(to.let_go(&one).unwrap().is_none());
    drop(lease);

    // The model card is the same file in both.
    let report = to.let_go(&one).unwrap().unwrap();
    assert_eq!(report.blobs_removed, 4);
    assert!(to.admission(&one).unwrap().is_none() && !to.has_blob(&weights));
    assert!(admit::verify(&to, &two, NOW, &mut |_, _| {}).unwrap().is_sound());
    assert!(to.let_go(&one).unwrap().is_none(), "once");
    assert_eq!(to.mirrored().unwrap().iter().filter(|it| it.kept).count(), 1);
}

#[test]
fn a_channel_does_not_hold_what_was_let_go_until_somebody_fetches_it_again() {
    let (_dir, store) = house("alba", &[]);
    let release = published(&store, "alba/m", "1", 1);
    admit::admit(&store, &release, NOW).unwrap();
    store.unpin(&release).unwrap();
    store.keep_mirrored(&release, "own").unwrap();
    let copy = snapshot(&store);
    assert!(store.let_go(&release).unwrap().unwrap().blobs_removed > 0);
    assert_eq!(store.gc(false).unwrap().blobs_kept, 0);
    let from = Store::open(copy.path()).unwrap();
    pull(&from, &store, &release).unwrap();
    assert!(store.mirrored().unwrap().is_empty());
    assert_eq!(store.gc(false).unwrap().blobs_removed, 0);
}

#[test]
fn files_of_other_admitted_releases_stay() {
    let (_a, from) = house("alba", &[]);
    let (_b, to) = house("borea", &["alba"]);
    // The same weights twice; nothing but its admission speaks for the second.
    let (one, two) = (published(&from, "alba/one", "1", 1), published(&from, "alba/two", "1", 1));
    for release in [&one, &two] {
        pull(&from, &to, release).unwrap();
    }
    to.keep_mirrored(&one, "allies").unwrap();
    assert_eq!(to.let_go(&one).unwrap().unwrap().blobs_removed, 0);
    assert!(admit::verify(&to, &two, NOW, &mut |_, _| {}).unwrap().is_sound());
}
