//! Nations with known keys, stores in temporary folders, files of weights.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use registry::admit::{self, AdmitError};
use registry::chunk::ChunkMap;
use registry::key::SecretKey;
use registry::publish::{self, Draft};
use registry::statement::*;
use registry::store::{Partial, Store};
use registry::timestamp::DAY;
use registry::{Admitted, ChannelName, Digest, Nation, Signed, Timestamp, Version};
use tempfile::TempDir;

pub(crate) const NOW: Timestamp = Timestamp::from_unix(1_790_000_000);

pub(crate) fn nation(name: &str) -> Nation {
    Nation::new(name).unwrap()
}

/// The one key of a nation, made from its name.
pub(crate) fn key(name: &str) -> SecretKey {
    SecretKey::from_seed(Digest::of(name.as_bytes()).as_bytes())
}

/// The root of a nation whose one key plays every role.
pub(crate) fn root(name: &str) -> Signed {
    let key = key(name);
    let roles = RoleName::ALL
        .into_iter()
        .map(|role| (role, RoleKeys { keys: vec![key.id()], threshold: 1 }))
        .collect();
    let root = Root {
        nation: nation(name),
        version: 1,
        issued: NOW,
        expires: NOW.plus(365 * DAY),
        keys: BTreeMap::from([(key.id(), RootKey::Ed25519 { public: key.public() })]),
        roles,
        previous: None,
    };
    Signed::sign(&Statement::Root(root), &key)
}

/// A store of `own` that pins `allies` too.
pub(crate) fn house(own: &str, allies: &[&str]) -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(&dir.path().join("store"), &root(own), NOW).unwrap();
    for ally in allies {
        store.pin_nation(&root(ally), root(ally).digest(), NOW).unwrap();
    }
    (dir, store)
}

/// Bytes that look random and are always the same for a seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// A safetensors file of `tensors` tensors of `len` bytes each.
pub(crate) fn safetensors(seed: u64, tensors: usize, len: usize) -> Vec<u8> {
    let entries: Vec<String> = (0..tensors)
        .map(|i| {
            let (start, end) = (i * len, (i + 1) * len);
            format!(r#""t{i:03}":{{"dtype":"U8","shape":[{len}],"data_offsets":[{start},{end}]}}"#)
        })
        .collect();
    let mut header = format!("{{{}}}", entries.join(","));
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&noise(seed, tensors * len));
    file
}

/// A folder with a model card, a configuration and weights of three tensors of 1.5 MiB.
pub(crate) fn folder(seed: u64) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("README.md"), "---\nlicense: apache-2.0\n---\n# A model\n").unwrap();
    fs::write(dir.path().join("config.json"), format!("{{\"seed\": {seed}}}\n")).unwrap();
    fs::write(dir.path().join("model.safetensors"), safetensors(seed, 3, 3 << 19)).unwrap();
    dir
}

pub(crate) fn draft(store: &Store, path: &Path) -> Draft {
    publish::draft(store, path, &mut |_| {}).unwrap()
}

/// The release that a draft becomes.
pub(crate) fn release_of(draft: &Draft, model: &str, version: &str) -> Release {
    Release {
        model: model.parse().unwrap(),
        version: Version::new(version).unwrap(),
        format: draft.format.clone(),
        licence: draft.licence.clone().unwrap_or_default(),
        derived_from: vec![],
        releasable_to: Releasable::All,
        model_card: draft.model_card.clone(),
        issued: NOW,
        files: draft.files.clone(),
    }
}

pub(crate) fn sign(statement: Statement) -> Signed {
    let name = statement.nation().as_str().to_owned();
    Signed::sign(&statement, &key(&name))
}

pub(crate) fn channel(model: &str, sequence: u64, release: Digest) -> Channel {
    Channel {
        model: model.parse().unwrap(),
        channel: ChannelName::new("stable").unwrap(),
        sequence,
        release,
        reason: String::new(),
        issued: NOW,
    }
}

pub(crate) fn recall(by: &str, sequence: u64, target: RecallTarget) -> Recall {
    let (reason, severity) = ("backdoor".to_owned(), Severity::High);
    Recall { nation: nation(by), target, reason, severity, sequence, issued: NOW }
}

/// Publishes a folder made from `seed` and points the channel `stable` at it: the release's digest.
pub(crate) fn published(store: &Store, model: &str, version: &str, seed: u64) -> Digest {
    let folder = folder(seed);
    let release = release_of(&draft(store, folder.path()), model, version);
    let accepted = publish::accept(store, &sign(Statement::Release(release.clone())), NOW).unwrap();
    let next = store.next_channel_sequence(&release.model, &ChannelName::new("stable").unwrap()).unwrap();
    let moved = channel(model, next, accepted.digest);
    publish::accept(store, &sign(Statement::Channel(moved)), NOW).unwrap();
    accepted.digest
}

/// Copies a release's statement and bytes from one store to another, chunk by chunk, as a pull does.
pub(crate) fn pull(from: &Store, to: &Store, digest: &Digest) -> Result<Admitted, AdmitError> {
    let _lease = to.lease([*digest]);
    publish::learn(to, &from.statement(digest).unwrap().unwrap(), NOW).unwrap();
    for file in to.release(digest).unwrap().unwrap().files {
        let map = from.chunk_map(&file.chunk_map).unwrap().unwrap();
        assert_eq!(to.put_bytes(&map.encode()).unwrap(), file.chunk_map);
        if !to.has_blob(&file.blake3) {
            let partial = to.partial(&map).unwrap().under(*digest);
            fill(from, &partial, partial.missing());
            partial.finish().unwrap();
        }
    }
    admit::admit(to, digest, NOW)
}

/// Copies chunks from a store that has the blob.
pub(crate) fn fill(from: &Store, partial: &Partial, indexes: impl IntoIterator<Item = usize>) {
    for index in indexes {
        let bytes = from.read_chunk(&partial.blob(), partial.map(), index).unwrap().unwrap();
        partial.write_chunk(index, &bytes).unwrap();
    }
}

/// A store with one blob of `tensors` tensors of 1 MiB, and the blob's map.
pub(crate) fn seeder(tensors: usize) -> (TempDir, Store, ChunkMap) {
    let (dir, store) = house("alba", &[]);
    let path = dir.path().join("weights.safetensors");
    fs::write(&path, safetensors(1, tensors, 1 << 20)).unwrap();
    let map = store.ingest(&path, &mut |_| {}).unwrap().map;
    (dir, store, map)
}

/// Writes over bytes of a blob behind the store's back.
pub(crate) fn damage(store: &Store, blob: &Digest, offset: u64, bytes: &[u8]) {
    use std::os::unix::fs::{FileExt, PermissionsExt};
    let path = store.blob_path(blob);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(bytes, offset).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
}

/// Every file under `folder` with its length, to see that nothing changed.
pub(crate) fn listing(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                folders.push(entry.path());
            } else {
                found.insert(entry.path(), meta.len());
            }
        }
    }
    found
}

/// A copy of a store's folder as it is now: what a process that is killed now leaves behind.
pub(crate) fn snapshot(store: &Store) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(store.home(), dir.path());
    dir
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

pub(crate) fn set(digests: impl IntoIterator<Item = Digest>) -> BTreeSet<Digest> {
    digests.into_iter().collect()
}
