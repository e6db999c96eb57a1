//! What is found by SHA-256, and which repositories there are: an index of every release known, followed along the feed of
//! statements as `registry::store`'s audiences are. About 150 bytes a file; filled when it is first asked for, and made of
//! statements alone, so that it says what would be where, never whether somebody may have it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use registry::digest::Sha256;
use registry::reference::{Nation, Version};
use registry::statement::{Release, Statement};
use registry::store::{MAX_FEED, Store};
use registry::{Digest, Model};

use super::error::{Code, OciError};
use super::present;
use super::{Access, Desk};

/// What a repository is called.
pub(super) const EXPECTED: &str = "a repository is called nation/name";
/// Most files of one nation's releases that are found by SHA-256: 200 MB of memory, and a hundred thousand models of ten shards.
/// What comes later is not offered here; the node's own protocols know no such limit.
const MAX_FILES_OF_NATION: usize = 1 << 20;
/// Most releases that are looked at for one blob. Each is another one with the same bytes under the same name.
const MAX_CANDIDATES: usize = 16;

/// Which part of a release something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Manifest,
    Config,
    OllamaManifest,
    OllamaConfig,
    /// The file with this number.
    File(u32),
}

/// One release.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) release: Digest,
    pub(super) version: Version,
    /// Whether our own nation may have it.
    pub(super) ours: bool,
}

/// The index.
#[derive(Default)]
pub(super) struct Shelf(Mutex<Known>);

#[derive(Default)]
pub(super) struct Known {
    /// The last statement looked at.
    seq: u64,
    entries: Vec<(Model, Entry)>,
    /// Numbers in `entries`, by arrival.
    models: BTreeMap<Model, Vec<u32>>,
    /// The models that are spelled so in lower case.
    spelled: HashMap<String, Vec<Model>>,
    objects: HashMap<Sha256, Vec<(u32, Part)>>,
    files: HashMap<Nation, usize>,
}

impl Shelf {
    /// Asks the index as it is now.
    pub(super) fn read<T>(&self, store: &Store, ask: impl FnOnce(&Known) -> T) -> Result<T, OciError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while known.seq < store.last_seq() {
            let page = store.feed(known.seq, MAX_FEED)?;
            let Some((last, _)) = page.last() else { break };
            let last = *last;
            for (_, signed) in &page {
                // What was kept was read before; a release that can't be read any more is another part's alarm.
                if let Ok(Statement::Release(release)) = signed.peek() {
                    known.add(&signed.digest(), &release, &store.own());
                }
            }
            known.seq = last;
        }
        Ok(ask(&known))
    }
}

impl Known {
    fn add(&mut self, digest: &Digest, release: &Release, own: &Nation) {
        let files = self.files.entry(release.model.nation.clone()).or_default();
        if *files + release.files.len() > MAX_FILES_OF_NATION {
            let nation = &release.model.nation;
            tracing::warn!(%nation, %digest, "a nation has too many files for the OCI interface");
            return;
        }
        *files += release.files.len();
        // At most as many as there are statements, and those fit.
        let number = self.entries.len() as u32;
        let mut object = |digest, part| self.objects.entry(digest).or_default().push((number, part));
        let whole = present::modelpack(digest, release);
        object(whole.digest, Part::Manifest);
        object(whole.config_digest, Part::Config);
        if let Ok(ollama) = present::ollama(release) {
            object(ollama.digest, Part::OllamaManifest);
            object(ollama.config_digest, Part::OllamaConfig);
        }
        for (index, file) in release.files.iter().enumerate() {
            object(file.sha256, Part::File(index as u32));
        }
        if !self.models.contains_key(&release.model) {
            let spelled = release.model.to_string().to_ascii_lowercase();
            self.spelled.entry(spelled).or_default().push(release.model.clone());
        }
        self.models.entry(release.model.clone()).or_default().push(number);
        let entry =
            Entry { release: *digest, version: release.version.clone(), ours: release.releasable_to(own) };
        self.entries.push((release.model.clone(), entry));
    }

    /// The model that is called so, or the only one that is but for its case.
    pub(super) fn model(&self, asked: &Model) -> Option<Model> {
        if self.models.contains_key(asked) {
            return Some(asked.clone());
        }
        match self.spelled.get(&asked.to_string()).map(Vec::as_slice) {
            Some([only]) => Some(only.clone()),
            _ => None,
        }
    }

    /// Every model, by name.
    pub(super) fn models(&self) -> Vec<Model> {
        self.models.keys().cloned().collect()
    }

    fn entry(&self, number: u32) -> Option<&(Model, Entry)> {
        self.entries.get(number as usize)
    }

    fn releases(&self, model: &Model) -> impl Iterator<Item = &Entry> {
        let numbers = self.models.get(model).into_iter().flatten();
        numbers.filter_map(|number| self.entry(*number)).map(|(_, entry)| entry)
    }

    /// The releases of `model` that hold something with this digest, the newest first.
    fn holders(&self, model: &Model, digest: &Sha256, access: Access) -> Vec<(Entry, Part)> {
        let all = self.objects.get(digest).into_iter().flatten().rev();
        all.filter_map(|(number, part)| Some((self.entry(*number)?, *part)))
            .filter(|((of, entry), _)| of == model && seen(entry, access))
            .map(|((_, entry), part)| (entry.clone(), part))
            .take(MAX_CANDIDATES)
            .collect()
    }
}

fn seen(entry: &Entry, access: Access) -> bool {
    access == Access::Local || entry.ours
}

impl Desk {
    /// The releases of `model` whose existence is no secret to whoever reads, by arrival.
    pub(super) fn visible(&self, model: &Model) -> Result<Vec<Entry>, OciError> {
        let access = self.access;
        self.oci.shelf.read(&self.store, |known| {
            known.releases(model).filter(|entry| seen(entry, access)).cloned().collect()
        })
    }

    /// Those of them that hold something with this digest, the newest first.
    pub(super) fn holders(&self, model: &Model, digest: &Sha256) -> Result<Vec<(Entry, Part)>, OciError> {
        self.oci.shelf.read(&self.store, |known| known.holders(model, digest, self.access))
    }

    /// Whether a list names the release: it is admitted or our own nation's, and not recalled. What is asked for by name passes the
    /// door besides.
    pub(super) fn offered(&self, model: &Model, entry: &Entry) -> Result<bool, OciError> {
        if self.store.admission(&entry.release)?.is_none() && model.nation != self.store.own() {
            return Ok(false);
        }
        // Also of what is admitted: a recall is known a moment before it ends the admission.
        Ok(registry::admit::binding_recall(&self.store, &entry.release)?.is_none())
    }

    /// The one release of `model` among those that may be known of.
    pub(super) fn known_release(&self, model: &Model, release: &Digest) -> Result<Entry, OciError> {
        let visible = self.visible(model)?;
        visible.into_iter().find(|entry| entry.release == *release).ok_or_else(|| {
            OciError::new(Code::ManifestUnknown, format!("`{model}` has no release {release} here"))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use registry::Timestamp;
    use registry::statement::{File, Releasable};

    use super::*;

    fn release(model: &str, version: &str, releasable_to: Releasable) -> Release {
        Release {
            model: model.parse().unwrap(),
            version: version.parse().unwrap(),
            format: "gguf".to_owned(),
            licence: "MIT".to_owned(),
            derived_from: Vec::new(),
            releasable_to,
            model_card: None,
            issued: Timestamp::from_unix(0),
            files: vec![File {
                path: "m.gguf".to_owned(),
                blake3: Digest::of(b"m"),
                sha256: present::sha256(b"m"),
                size: 1,
                media_type: "application/octet-stream".to_owned(),
                chunk_map: Digest::of(b"map"),
            }],
        }
    }

    #[test]
    fn digests_lead_to_releases_of_the_name_that_was_asked() {
        let mut known = Known::default();
        let own: Nation = "borea".parse().unwrap();
        let nobody = Releasable::Nations(std::collections::BTreeSet::new());
        known.add(&Digest::of(b"1"), &release("alba/M", "1", Releasable::All), &own);
        known.add(&Digest::of(b"2"), &release("alba/M", "2", nobody), &own);
        known.add(&Digest::of(b"3"), &release("cora/m", "1", Releasable::All), &own);
        let model = known.model(&"alba/m".parse().unwrap()).unwrap();
        assert_eq!(model.to_string(), "alba/M");
        let of = |access| {
            let found = known.holders(&model, &present::sha256(b"m"), access);
            found.into_iter().map(|(entry, part)| (entry.version.to_string(), part)).collect::<Vec<_>>()
        };
        assert_eq!(of(Access::Public), [("1".to_owned(), Part::File(0))]);
        assert_eq!(of(Access::Local).len(), 2);
        assert!(known.holders(&model, &present::sha256(b"x"), Access::Local).is_empty());
        // Two that differ in case alone are reached by their exact names.
        known.add(&Digest::of(b"4"), &release("alba/m", "1", Releasable::All), &own);
        assert_eq!(known.model(&"alba/m".parse().unwrap()).unwrap().to_string(), "alba/m");
    }
}
