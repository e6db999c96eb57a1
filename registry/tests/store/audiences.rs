//! Whose bytes these are: what was restricted stays restricted, whoever names its digest.

use std::fs;

use registry::publish::{accept, learn};
use registry::releasable::{self, Withheld};
use registry::statement::{Releasable, Release, Statement};
use registry::store::{Reader, Store};
use registry::{Digest, admit};
use tempfile::TempDir;

use super::help::*;

const PATH: &str = "model.safetensors";

/// A folder of one file, so that two releases of it are of the same blob.
fn one_file(seed: u64) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(PATH), safetensors(seed, 3, 3 << 19)).unwrap();
    dir
}

fn only(names: &[&str]) -> Releasable {
    Releasable::Nations(names.iter().map(|name| nation(name)).collect())
}

/// Publishes a folder's one file on `store` as `model`, for `to`.
fn publish_for(store: &Store, folder: &TempDir, model: &str, to: Releasable) -> (Digest, Release) {
    let mut release = release_of(&draft(store, folder.path()), model, "1");
    release.releasable_to = to;
    let digest = accept(store, &sign(Statement::Release(release.clone())), NOW).unwrap().digest;
    (digest, release)
}

/// The same blob under another name and for others, by somebody who need not have it.
fn naming(release: &Release, model: &str, to: Releasable) -> Statement {
    Statement::Release(Release { model: model.parse().unwrap(), releasable_to: to, ..release.clone() })
}

fn may(store: &Store, release: &Digest, to: &str) -> bool {
    releasable::release(store, release, &nation(to)).unwrap().is_ok()
}

const ALL: [&str; 4] = ["alba", "borea", "cora", "dora"];

fn ally(name: &str) -> (TempDir, Store) {
    let others: Vec<&str> = ALL.into_iter().filter(|other| *other != name).collect();
    house(name, &others)
}

#[test]
fn a_release_that_names_a_restricted_blob_is_served_to_nobody_new() {
    let folder = one_file(1);
    let ((_a, alba), (_b, borea)) = (ally("alba"), ally("borea"));
    let (secret, release) = publish_for(&alba, &folder, "alba/secret", only(&["borea", "dora"]));
    pull(&alba, &borea, &secret).unwrap();
    // cora learnt the digests somehow; it has none of the bytes.
    for to in [Releasable::All, only(&["alba", "borea", "dora"])] {
        let version = if to == Releasable::All { "cora/all" } else { "cora/some" };
        let named = sign(naming(&release, version, to));
        for store in [&alba, &borea] {
            let wide = learn(store, &named, NOW).unwrap().digest;
            // It is whole here, and our own nation may serve it: it may have the bytes.
            assert!(admit::admit(store, &wide, NOW).is_ok());
            let why = releasable::release(store, &wide, &nation("cora")).unwrap().unwrap_err();
            assert!(matches!(why, Withheld::Narrower { .. }), "{why}");
            assert!(!store.may_give(&release.files[0].blake3, Reader::Everybody).unwrap());
            // Who may have alba's release may have its bytes under any name.
            assert!(may(store, &wide, "dora"));
        }
        assert!(
            !releasable::to_everybody(&borea, &borea.release(&named.digest()).unwrap().unwrap()).unwrap()
        );
    }
    assert!(!may(&borea, &secret, "cora"));
}

#[test]
fn bytes_that_came_under_the_wider_release_may_go_where_it_goes() {
    let folder = one_file(1);
    let ((_a, alba), (_c, cora), (_b, borea)) = (ally("alba"), ally("cora"), ally("borea"));
    let (secret, _) = publish_for(&alba, &folder, "alba/secret", only(&["borea"]));
    // cora has the same file by itself, and gives it to all.
    let (open, _) = publish_for(&cora, &folder, "cora/open", Releasable::All);
    pull(&cora, &borea, &open).unwrap();
    pull(&alba, &borea, &secret).unwrap();
    assert!(may(&borea, &open, "dora"));
    assert!(!may(&borea, &secret, "dora"));
    // In the other order its bytes are not fetched again: this node has no proof that cora had them.
    let (_b, borea) = ally("borea");
    pull(&alba, &borea, &secret).unwrap();
    pull(&cora, &borea, &open).unwrap();
    assert!(!may(&borea, &open, "dora"));
}

#[test]
fn a_narrow_release_by_another_takes_nothing_away() {
    let folder = one_file(1);
    let ((_a, alba), (_b, borea)) = (ally("alba"), ally("borea"));
    let (open, release) = publish_for(&alba, &folder, "alba/open", Releasable::All);
    let narrow = learn(&borea, &sign(naming(&release, "dora/mine", only(&["borea"]))), NOW).unwrap().digest;
    pull(&alba, &borea, &open).unwrap();
    assert!(may(&borea, &open, "cora"));
    assert!(!may(&borea, &narrow, "cora"));
}

#[test]
fn a_producer_widens_what_is_its_own() {
    let folder = one_file(1);
    let ((_a, alba), (_b, borea)) = (ally("alba"), ally("borea"));
    let (secret, release) = publish_for(&alba, &folder, "alba/secret", only(&["borea"]));
    pull(&alba, &borea, &secret).unwrap();
    let open = learn(&borea, &sign(naming(&release, "alba/open", Releasable::All)), NOW).unwrap().digest;
    assert!(may(&borea, &open, "dora"));
    assert!(!may(&borea, &secret, "dora"));
}

/// A transfer under one release is taken up under another: the parts stay what they were.
#[test]
fn parts_of_a_restricted_blob_are_not_given_under_a_wider_release() {
    let folder = one_file(1);
    let ((_a, alba), (_b, borea)) = (ally("alba"), ally("borea"));
    let (secret, release) = publish_for(&alba, &folder, "alba/secret", only(&["borea"]));
    learn(&borea, &alba.statement(&secret).unwrap().unwrap(), NOW).unwrap();
    let wide = learn(&borea, &sign(naming(&release, "cora/all", Releasable::All)), NOW).unwrap().digest;
    let map = alba.chunk_map(&release.files[0].chunk_map).unwrap().unwrap();
    borea.put_bytes(&map.encode()).unwrap();
    // Before anything came there is only the map, which is alba's too.
    assert!(!releasable::file(&borea, &release.files[0], &nation("dora")).unwrap());
    let partial = borea.partial(&map).unwrap().under(secret);
    fill(&alba, &partial, [0]);
    assert!(!may(&borea, &wide, "dora"));
    drop(partial);
    let partial = borea.partial(&map).unwrap().under(wide);
    fill(&alba, &partial, partial.missing());
    assert!(!may(&borea, &wide, "dora"));
    partial.finish().unwrap();
    assert!(!may(&borea, &wide, "dora"));
    assert!(!may(&borea, &secret, "dora"));
    // And over a restart.
    let home = borea.home().to_owned();
    drop((partial, borea));
    let borea = Store::open(&home).unwrap();
    assert!(!may(&borea, &wide, "dora"));
}

/// The same chunks in another file: nothing is taken from a blob by way of a second release that names it.
#[test]
fn naming_a_blob_does_not_make_it_lend() {
    let folder = one_file(1);
    let ((_a, alba), (_b, borea), (_c, cora)) = (ally("alba"), ally("borea"), ally("cora"));
    let (secret, release) = publish_for(&alba, &folder, "alba/secret", only(&["borea"]));
    pull(&alba, &borea, &secret).unwrap();
    learn(&borea, &sign(naming(&release, "cora/all", Releasable::All)), NOW).unwrap();
    // The header is longer, the tensors are the same.
    let mut grown = safetensors(1, 3, 3 << 19);
    let header = u64::from_le_bytes(grown[..8].try_into().unwrap()) + 64;
    grown.splice(..8, header.to_le_bytes());
    let end = header as usize - 64 + 8;
    grown.splice(end..end, [b' '; 64]);
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join(PATH), grown).unwrap();
    let (copy, copied) = publish_for(&cora, &other, "cora/copy", Releasable::All);
    let map = cora.chunk_map(&copied.files[0].chunk_map).unwrap().unwrap();
    learn(&borea, &cora.statement(&copy).unwrap().unwrap(), NOW).unwrap();
    let partial = borea.partial(&map).unwrap().under(copy);
    assert_eq!(partial.take_local(&mut |_| {}).unwrap().chunks, 0);
}

#[test]
fn an_unpinned_nation_is_no_ally() {
    let folder = one_file(1);
    let (_a, alba) = ally("alba");
    let (open, _) = publish_for(&alba, &folder, "alba/open", Releasable::All);
    assert!(may(&alba, &open, "dora"));
    releasable::ally(&alba, &nation("dora")).unwrap();
    assert!(releasable::ally(&alba, &nation("zeta")).is_err());
    alba.unpin_nation(&nation("dora")).unwrap();
    let why = releasable::ally(&alba, &nation("dora")).unwrap_err();
    assert!(matches!(why, Withheld::NotPinned(_)), "{why}");
}

#[test]
fn a_suspended_nation_may_have_nothing_until_it_is_active_again() {
    use registry::statement::{Membership, Standing};
    let folder = one_file(1);
    let (_a, alba) = ally("alba");
    let (open, _) = publish_for(&alba, &folder, "alba/open", Releasable::All);
    let say = |sequence, standing| {
        let said = Membership {
            nation: nation("alba"),
            member: nation("dora"),
            fingerprint: root("dora").digest(),
            standing,
            sequence,
            reason: String::new(),
            issued: NOW,
        };
        accept(&alba, &sign(Statement::Membership(said)), NOW).unwrap();
    };
    for (sequence, standing, given) in [
        (1, Standing::Invited, false),
        (2, Standing::Active, true),
        (3, Standing::Suspended, false),
        (4, Standing::Active, true),
        (5, Standing::Departed, false),
    ] {
        say(sequence, standing);
        assert_eq!(may(&alba, &open, "dora"), given, "{standing}");
        let release = Statement::Release(alba.release(&open).unwrap().unwrap());
        assert_eq!(releasable::statement(&alba, &release, &nation("dora")).unwrap(), given, "{standing}");
    }
    assert!(may(&alba, &open, "borea"));
}
