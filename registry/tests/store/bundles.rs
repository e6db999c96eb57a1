//! Bundles: out, in, and everything that a hostile one may try.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use registry::bundle::{self, BundleError, ExportOptions, ExportReport};
use registry::publish::accept;
use registry::statement::*;
use registry::store::Store;
use registry::{Digest, admit};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use crate::help::*;

/// One entry of an archive.
#[derive(Clone)]
struct Item {
    name: String,
    kind: EntryType,
    size: Option<u64>,
    content: Vec<u8>,
}

fn items(path: &Path) -> Vec<Item> {
    let mut archive = tar::Archive::new(fs::File::open(path).unwrap());
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            Item { name, kind: EntryType::Regular, size: None, content }
        })
        .collect()
}

fn write(path: &Path, items: &[Item]) {
    let mut builder = Builder::new(fs::File::create(path).unwrap());
    for item in items {
        let mut header = Header::new_gnu();
        header.set_entry_type(item.kind);
        // Past the library, which would refuse some of these names.
        let field = &mut header.as_gnu_mut().unwrap().name;
        field[..item.name.len()].copy_from_slice(item.name.as_bytes());
        header.set_size(item.size.unwrap_or(item.content.len() as u64));
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, &item.content[..]).unwrap();
    }
    builder.finish().unwrap();
}

struct Case {
    _dirs: [TempDir; 2],
    from: Store,
    to: Store,
    release: Digest,
    path: PathBuf,
    items: Vec<Item>,
}

/// For borea.
fn export(store: &Store, release: &Digest, out: &Path) -> Result<ExportReport, BundleError> {
    let options = ExportOptions { to: Some(nation("borea")), ..ExportOptions::new(NOW) };
    bundle::export_with(store, release, out, &options)
}

/// A bundle of a release of alba, and a store of borea that pins alba.
fn case() -> Case {
    let (a, from) = house("alba", &["borea"]);
    let release = published(&from, "alba/m", "1", 1);
    let path = a.path().join("m.bundle");
    export(&from, &release, &path).unwrap();
    let (b, to) = house("borea", &["alba"]);
    let items = items(&path);
    Case { _dirs: [a, b], from, to, release, path, items }
}

impl Case {
    /// Changes the bundle, sees that it is refused and that nothing was kept.
    fn refused(&self, change: impl FnOnce(&mut Vec<Item>)) -> BundleError {
        let mut items = self.items.clone();
        change(&mut items);
        let path = self.path.with_extension("changed");
        write(&path, &items);
        self.import_refused(&path)
    }

    fn import_refused(&self, path: &Path) -> BundleError {
        let ours = |store: &Store| {
            ["blobs", "tmp", "partial", "quarantine"].map(|folder| listing(&store.home().join(folder)))
        };
        let before = ours(&self.to);
        let error = bundle::import(&self.to, path, NOW).unwrap_err();
        assert_eq!(ours(&self.to), before, "{error}");
        assert_eq!((self.to.last_seq(), self.to.usage().unwrap().blobs), (0, 0), "{error}");
        error
    }

    fn position(&self, folder: &str) -> usize {
        self.items.iter().position(|item| item.name.starts_with(folder)).unwrap()
    }
}

#[test]
fn out_and_in_again() {
    let case = case();
    let report = bundle::import(&case.to, &case.path, NOW).unwrap();
    assert_eq!((report.release, report.files, report.new_statements), (case.release, 3, 2));
    assert_eq!(report.new_bytes, case.from.release(&case.release).unwrap().unwrap().size());
    assert!(report.skipped.is_empty());
    assert!(admit::verify(&case.to, &case.release, NOW, &mut |_, _| {}).unwrap().is_sound());
    admit::admit(&case.to, &case.release, NOW).unwrap();
    assert_eq!(case.to.resolve(&"alba/m".parse().unwrap()).unwrap(), Some(case.release));
    let again = bundle::import(&case.to, &case.path, NOW).unwrap();
    assert_eq!((again.new_statements, again.new_bytes), (0, 0));
    // What came in can go out again, byte for byte but for who wrote it.
    let copy = case.path.with_extension("copy");
    let report = export(&case.to, &case.release, &copy).unwrap();
    let (first, second) = (items(&case.path), items(&copy));
    assert_eq!(first.len(), second.len());
    for (one, other) in first.iter().zip(&second).skip(1) {
        assert_eq!((&one.name, &one.content), (&other.name, &other.content));
    }
    assert_eq!((report.bytes, report.releasable_to), (fs::metadata(&copy).unwrap().len(), Releasable::All));
}

#[test]
fn export_replaces_nothing_and_passes_on_no_damage() {
    let case = case();
    let exists = export(&case.from, &case.release, &case.path).unwrap_err();
    assert!(matches!(exists, BundleError::Exists { .. }), "{exists}");
    let blob = case.from.release(&case.release).unwrap().unwrap().files[2].blake3;
    damage(&case.from, &blob, 2_000_000, b"rot");
    let out = case.path.with_extension("damaged");
    let error = export(&case.from, &case.release, &out).unwrap_err();
    assert!(matches!(&error, BundleError::Damaged { blob: named, .. } if *named == blob), "{error}");
    let left: Vec<_> = listing(out.parent().unwrap())
        .into_keys()
        .filter(|p| p.to_string_lossy().contains("export"))
        .collect();
    assert!(!out.exists() && left.is_empty(), "{left:?}");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let case = case();
    for name in [
        "../../etc/passwd",
        "/etc/passwd",
        "blobs/../../x",
        "blobs/",
        "blobs",
        "blobs/00",
        "statements/x.json",
        "other/file",
        "maps/\u{1b}[2J",
    ] {
        let error = case.refused(|items| items[2].name = name.to_owned());
        assert!(matches!(error, BundleError::Entry { .. }), "{name}: {error}");
    }
    // Upper-case digits would be a second name for one thing.
    let at = case.position("blobs/");
    let error =
        case.refused(|items| items[at].name = items[at].name.to_uppercase().replace("BLOBS", "blobs"));
    assert!(matches!(error, BundleError::Entry { .. }), "{error}");
}

#[test]
fn links_folders_and_extensions_are_refused() {
    let case = case();
    let at = case.position("blobs/");
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Directory,
        EntryType::Fifo,
        EntryType::GNULongName,
        EntryType::GNUSparse,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
    ] {
        let error = case.refused(|items| items[at].kind = kind);
        assert!(matches!(error, BundleError::Entry { .. }), "{kind:?}: {error}");
    }
}

#[test]
fn twice_and_out_of_order_are_refused() {
    let case = case();
    for folder in ["statements/", "maps/", "blobs/"] {
        let at = case.position(folder);
        let error = case.refused(|items| items.insert(at + 1, items[at].clone()));
        assert!(error.to_string().contains("twice"), "{error}");
    }
    let late = case.refused(|items| {
        let statement = items.remove(2);
        items.push(statement);
    });
    assert!(matches!(late, BundleError::Entry { .. } | BundleError::Lacks { .. }), "{late}");
    let headless = case.refused(|items| drop(items.remove(0)));
    assert!(matches!(headless, BundleError::NotABundle { .. }), "{headless}");
}

#[test]
fn bombs_are_refused_by_their_announced_size() {
    let case = case();
    let (map, blob) = (case.position("maps/"), case.position("blobs/"));
    for (at, what) in [(0, "header"), (1, "statement"), (map, "map"), (blob, "blob")] {
        let error = case.refused(|items| items[at].size = Some(1 << 40));
        let refused = matches!(error, BundleError::Entry { .. } | BundleError::NotABundle { .. });
        assert!(refused, "{what}: {error}");
    }
    let many = case.refused(|items| {
        let statement = items[1].clone();
        for i in 0..1100 {
            let name = format!("statements/{}.json", Digest::of(&[i as u8, (i >> 8) as u8]).to_hex());
            items.insert(1, Item { name, ..statement.clone() });
        }
    });
    assert!(matches!(many, BundleError::Entry { .. }), "{many}");
}

#[test]
fn other_bytes_are_refused_wherever_they_are() {
    let case = case();
    for folder in ["statements/", "maps/", "blobs/"] {
        let at = case.position(folder);
        let error = case.refused(|items| {
            let last = items[at].content.len() - 5;
            items[at].content[last] ^= 1;
        });
        let refused = matches!(error, BundleError::Entry { .. } | BundleError::Envelope(_));
        assert!(refused, "{folder}: {error}");
    }
    // The last blob, after all others were right.
    let error = case.refused(|items| *items.last_mut().unwrap().content.last_mut().unwrap() ^= 1);
    assert!(matches!(error, BundleError::Entry { .. }), "{error}");
    // A blob that the release does not name.
    let error = case.refused(|items| {
        let content = b"stowaway".to_vec();
        let name = format!("blobs/{}", Digest::of(&content).to_hex());
        items.push(Item { name, kind: EntryType::Regular, size: None, content });
    });
    assert!(matches!(error, BundleError::Entry { .. }), "{error}");
}

#[test]
fn what_is_missing_is_named() {
    let case = case();
    for folder in ["maps/", "blobs/"] {
        let at = case.position(folder);
        let error = case.refused(|items| drop(items.remove(at)));
        assert!(matches!(error, BundleError::Lacks { .. }), "{folder}: {error}");
    }
    let name = format!("statements/{}.json", case.release.to_hex());
    let error = case.refused(|items| items.retain(|item| item.name != name));
    assert!(matches!(error, BundleError::Lacks { .. }), "{error}");
    // Cut off anywhere.
    let whole = fs::read(&case.path).unwrap();
    let cut = case.path.with_extension("cut");
    for keep in [0, 100, 600, 1024, whole.len() / 2, whole.len() - 600_000] {
        fs::write(&cut, &whole[..keep]).unwrap();
        case.import_refused(&cut);
    }
    fs::write(&cut, noise(3, 100_000)).unwrap();
    assert!(matches!(case.import_refused(&cut), BundleError::NotABundle { .. }));
}

#[test]
fn a_newer_bundle_says_so() {
    let case = case();
    let error = case.refused(|items| {
        let text = String::from_utf8(items[0].content.clone()).unwrap();
        items[0].content = text.replace("\"version\":2", "\"version\":9").into_bytes();
    });
    assert!(matches!(error, BundleError::Newer { found: 9 }), "{error}");
}

#[test]
fn a_nation_that_is_not_pinned_is_named_with_its_fingerprint() {
    let case = case();
    case.to.unpin_nation(&nation("alba")).unwrap();
    let error = case.import_refused(&case.path);
    let fingerprint = root("alba").digest();
    assert!(
        matches!(&error, BundleError::NotPinned { fingerprint: found, .. } if *found == fingerprint),
        "{error}"
    );
    assert!(error.to_string().contains(&fingerprint.to_string()));
}

#[test]
fn what_policy_refuses_changes_nothing() {
    let (a, from) = house("alba", &["borea"]);
    let folder = folder(1);
    let mut release = release_of(&draft(&from, folder.path()), "alba/m", "1");
    release.releasable_to = Releasable::Nations([nation("cora")].into());
    let digest = accept(&from, &sign(Statement::Release(release)), NOW).unwrap().digest;
    let path = a.path().join("secret.bundle");
    assert!(matches!(export(&from, &digest, &path), Err(BundleError::Withheld { .. })));
    let report = bundle::export(&from, &digest, &path).unwrap();
    assert_eq!(report.releasable_to.to_string(), "cora");
    let (b, to) = house("borea", &["alba"]);
    // Whoever carries it says that it is for us.
    let mut items = items(&path);
    let header = String::from_utf8(items[0].content.clone()).unwrap();
    items[0].content = header.replace("\"for\":\"alba\"", "\"for\":\"borea\"").into_bytes();
    write(&path, &items);
    let case = Case { _dirs: [a, b], from, to, release: digest, path, items };
    let error = case.import_refused(&case.path);
    assert!(matches!(error, BundleError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("releasable-to-us"));
}

#[test]
fn a_recall_in_the_bundle_counts() {
    let (a, from) = house("alba", &["borea"]);
    let release = published(&from, "alba/m", "1", 1);
    accept(&from, &sign(Statement::Recall(recall("alba", 1, RecallTarget::Release(release)))), NOW).unwrap();
    let path = a.path().join("recalled.bundle");
    // Its bytes go to nobody any more; the statements must, or the recall could not be carried.
    assert!(matches!(export(&from, &release, &path), Err(BundleError::Withheld { .. })));
    let options = ExportOptions { to: Some(nation("borea")), without_blobs: true, ..ExportOptions::new(NOW) };
    bundle::export_with(&from, &release, &path, &options).unwrap();
    assert!(
        items(&path).iter().all(|item| !item.name.starts_with("blobs") && !item.name.starts_with("maps"))
    );
    let (_b, to) = house("borea", &["alba"]);
    let error = bundle::import(&to, &path, NOW).unwrap_err();
    assert!(matches!(error, BundleError::Refused { .. }), "{error}");
    // The recall is kept, and nothing else.
    assert_eq!((to.recalls().unwrap().len(), to.last_seq(), to.usage().unwrap().blobs), (1, 1, 0));
}

#[test]
fn dangerous_content_is_found_before_anything_is_kept() {
    let (a, from) = house("alba", &["borea"]);
    let folder = folder(1);
    fs::write(folder.path().join("extra.json"), b"\x80\x04\x95pickle").unwrap();
    let release = release_of(&draft(&from, folder.path()), "alba/m", "1");
    let digest = accept(&from, &sign(Statement::Release(release)), NOW).unwrap().digest;
    let path = a.path().join("m.bundle");
    export(&from, &digest, &path).unwrap();
    let (b, to) = house("borea", &["alba"]);
    let items = items(&path);
    let case = Case { _dirs: [a, b], from, to, release: digest, path, items };
    let error = case.import_refused(&case.path);
    assert!(matches!(error, BundleError::Refused { .. }), "{error}");
}
