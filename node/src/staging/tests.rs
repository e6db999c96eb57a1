#![allow(clippy::unwrap_used)]
use std::io::Cursor;

use registry::digest::{FileHasher, Sha256};
use registry::{Digest, Timestamp};

use super::*;

fn sha(content: &[u8]) -> Sha256 {
    let mut hasher = FileHasher::default();
    hasher.update(content);
    hasher.finish().sha256
}

fn area(folder: &Path, bytes: u64) -> Area {
    let nation = Nation::new("alba").unwrap();
    Area::new(folder.join("staging"), nation, Limits { bytes, age: 30 * 86_400 })
}

fn put(area: &Area, content: &[u8]) -> Sha256 {
    let mut incoming = area.incoming(content.len() as u64).unwrap();
    incoming.take(content).unwrap();
    area.finish(incoming, None, None).unwrap().0
}

#[test]
fn content_is_what_was_announced_and_room_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let area = area(folder.path(), 1000);
    let oid = put(&area, b"hello");
    assert_eq!((oid, area.size_of(&oid)), (sha(b"hello"), Some(5)));
    assert_eq!(area.space.used(), 5);
    // Twice counts once.
    put(&area, b"hello");
    assert_eq!(area.space.used(), 5);
    // Another content than was announced is not kept, nor is another length or more than there is room for.
    let mut incoming = area.incoming(5).unwrap();
    incoming.take(b"world").unwrap();
    assert!(matches!(area.finish(incoming, Some(&oid), None), Err(StagingError::Wrong(_))));
    let mut incoming = area.incoming(5).unwrap();
    assert!(matches!(incoming.take(b"longer"), Err(StagingError::TooLarge(_))));
    drop(incoming);
    assert!(matches!(area.incoming(996), Err(StagingError::Full(_))));
    let one = area.incoming(900).unwrap();
    assert!(matches!(area.incoming(96), Err(StagingError::Full(_))), "what is promised counts");
    drop(one);
    assert!(area.incoming(995).is_ok());
    assert_eq!(std::fs::read_dir(area.home.join("incoming")).unwrap().count(), 0);
    // It is counted anew.
    let again = Area::new(area.home.clone(), area.nation.clone(), area.limits);
    again.open().unwrap();
    assert_eq!(again.space.used(), 5);
}

#[test]
fn parts_are_put_together_when_all_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let area = area(folder.path(), 1000);
    let content: Vec<u8> = (0..25).collect();
    let (oid, parts) = (sha(&content), Parts { size: 25, part: 10 });
    assert_eq!(
        (parts.count(), parts.range(3), parts.range(4), parts.range(0)),
        (3, Some((20, 5)), None, None)
    );
    let take = |number, bytes: &[u8]| area.take_part(&oid, &parts, number, &mut Cursor::new(bytes));
    let third = take(3, &content[20..]).unwrap();
    let first = take(1, &content[..10]).unwrap();
    assert!(matches!(take(2, &content[..11]), Err(StagingError::TooLarge(_))));
    assert!(matches!(take(2, &content[..9]), Err(StagingError::Wrong(_))));
    assert!(take(4, b"").is_err());
    let all = |second: &str| vec![(1, first.clone()), (2, second.to_owned()), (3, third.clone())];
    assert!(area.join_parts(&oid, &parts, &all("x")).is_err());
    let bad = take(2, &[0; 10]).unwrap();
    assert!(matches!(area.join_parts(&oid, &parts, &all(&bad)), Err(StagingError::Wrong(_))));
    // What was wrong is gone as a whole.
    assert_eq!(area.space.used(), 0);
    for (number, range) in [(1, 0..10), (2, 10..20), (3, 20..25)] {
        take(number, &content[range]).unwrap();
    }
    let second = Digest::of(&content[10..20]).to_hex();
    area.join_parts(&oid, &parts, &all(&second)).unwrap();
    assert_eq!((area.size_of(&oid), area.space.used()), (Some(25), 25));
    area.join_parts(&oid, &parts, &all(&second)).unwrap();
}

#[test]
fn what_is_old_or_was_on_its_way_goes() {
    let folder = tempfile::tempdir().unwrap();
    let area = area(folder.path(), 1000);
    assert_eq!(area.keep_house(Timestamp::now()).unwrap(), 0);
    assert!(!area.home.exists(), "nothing is made before something is pushed");
    let oid = put(&area, b"hello");
    std::fs::write(area.home.join("incoming/half"), "x").unwrap();
    let again = Area::new(area.home.clone(), area.nation.clone(), area.limits);
    assert_eq!(again.keep_house(Timestamp::now()).unwrap(), 0);
    assert!(!area.home.join("incoming/half").exists() && again.size_of(&oid).is_some());
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(31 * 86_400);
    std::fs::File::open(again.object_path(&oid)).unwrap().set_modified(old).unwrap();
    assert_eq!(again.keep_house(Timestamp::now()).unwrap(), 5);
    assert_eq!((again.size_of(&oid), again.space.used()), (None, 0));
}

#[test]
fn xorbs_that_nobody_uses_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let first = area(folder.path(), 1000);
    first.open().unwrap();
    let xorb = first.home.join("xorbs/ab/x");
    std::fs::create_dir(xorb.parent().unwrap()).unwrap();
    std::fs::write(&xorb, [0; 600]).unwrap();
    let area = Area::new(first.home.clone(), first.nation.clone(), first.limits);
    assert!(matches!(area.incoming(500), Err(StagingError::Full(_))), "somebody may be about to use it");
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 3600);
    std::fs::File::open(&xorb).unwrap().set_modified(before).unwrap();
    assert!(area.incoming(500).is_ok() && !xorb.exists());
    assert_eq!(area.space.used(), 0);
}
