//! Reading a bundle: everything is verified before anything is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tar::{Archive, Entry};
use tempfile::{NamedTempFile, TempPath};

use super::{
    BundleError, FORMAT, HEADER, Header, MAX_HEADER, MAX_STATEMENT_BYTES, MAX_STATEMENTS, VERSION, io,
};
use crate::admit::{believe, judge};
use crate::chunk::{ChunkMap, MAX_ENCODED};
use crate::digest::Digest;
use crate::envelope::{Signed, Verified};
use crate::reference::Model;
use crate::statement::{Kind, MAX_FILES, Recall, Release, Statement};
use crate::store::Store;
use crate::timestamp::Timestamp;
use crate::trust::{TrustError, self_signed_root};

/// Most entries of a bundle: header, statements, and a map and a blob for each file.
const MAX_ENTRIES: usize = 1 + MAX_STATEMENTS + 2 * MAX_FILES;
/// Bytes copied at a time.
const BLOCK: usize = 1024 * 1024;

type Input<'a> = Entry<'a, BufReader<File>>;

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReport {
    /// The release; admit it to serve it.
    pub release: Digest,
    /// Its model.
    pub model: Model,
    /// How many files it has.
    pub files: usize,
    /// Bytes of the blobs that were new here.
    pub new_bytes: u64,
    /// Statements that were new here.
    pub new_statements: usize,
    /// Statements in the bundle that were not kept, each with the reason.
    pub skipped: Vec<String>,
    /// Releases whose admission ended by a recall in the bundle.
    pub withdrawn: Vec<Digest>,
}

/// Imports the bundle at `path`. It is read once, front to back, with a few MiB of memory for blobs of any size; what
/// was read waits in the store's temporary folder until all is verified. A refusal keeps nothing.
pub fn import(store: &Store, path: &Path, now: Timestamp) -> Result<ImportReport, BundleError> {
    let file = File::open(path).map_err(io(path))?;
    if !file.metadata().map_err(io(path))?.is_file() {
        return Err(BundleError::NotABundle {
            path: path.to_owned(),
            why: "it is no regular file".to_owned(),
        });
    }
    let mut archive = Archive::new(BufReader::with_capacity(BLOCK, file));
    let mut bundle = Bundle::new(store, path, now);
    // Raw: extension headers, whose length the library would believe, show as entries of their own and are refused.
    for entry in archive.entries().map_err(io(path))?.raw(true) {
        let entry = entry.map_err(|error| bundle.unreadable(&error))?;
        bundle.take(entry)?;
    }
    bundle.finish()
}

/// What the archive's reader says may hold the file's own bytes: they are shown shortened and made visible.
fn said(error: &std::io::Error) -> String {
    crate::shorten(&error.to_string())
}

fn not_a_bundle(path: &Path, why: &str) -> BundleError {
    BundleError::NotABundle { path: path.to_owned(), why: why.to_owned() }
}

/// What an entry's name says that it is.
enum Name {
    Statement(Digest),
    Map(Digest),
    Blob(Digest),
}

/// What was read so far.
struct Bundle<'a> {
    store: &'a Store,
    path: &'a Path,
    now: Timestamp,
    header: Option<Header>,
    names: BTreeSet<Vec<u8>>,
    statements: BTreeMap<Digest, Signed>,
    statement_bytes: u64,
    /// Set when the first map or blob comes: from then on the release is believed and allowed.
    release: Option<Verified<Release>>,
    others: Vec<Verified<Statement>>,
    skipped: Vec<String>,
    /// Verified content, each in a temporary file that is closed: there may be more of them than open files allowed.
    maps: BTreeMap<Digest, TempPath>,
    blobs: BTreeMap<Digest, TempPath>,
}

impl<'a> Bundle<'a> {
    fn new(store: &'a Store, path: &'a Path, now: Timestamp) -> Self {
        Self {
            store,
            path,
            now,
            header: None,
            names: BTreeSet::new(),
            statements: BTreeMap::new(),
            statement_bytes: 0,
            release: None,
            others: Vec::new(),
            skipped: Vec::new(),
            maps: BTreeMap::new(),
            blobs: BTreeMap::new(),
        }
    }

    /// Why the next entry's head can't be read.
    fn unreadable(&self, error: &std::io::Error) -> BundleError {
        let entries = self.names.len();
        if entries == 0 {
            return not_a_bundle(self.path, "it does not begin like a file that `steelyard export` wrote");
        }
        not_a_bundle(
            self.path,
            &format!(
                "it is damaged after its entry {entries} ({}); nothing was kept; copy it again",
                said(error)
            ),
        )
    }

    fn take(&mut self, mut entry: Input<'_>) -> Result<(), BundleError> {
        let name = entry.path_bytes().into_owned();
        let shown = crate::shorten(&String::from_utf8_lossy(&name));
        let refuse = |why: &str| Err(BundleError::Entry { name: shown.clone(), why: why.to_owned() });
        let size = match entry.header().entry_size() {
            Ok(size) => size,
            Err(error) => return refuse(&format!("its size can't be read: {}", said(&error))),
        };
        if !entry.header().entry_type().is_file() {
            return refuse("a bundle holds plain files only");
        }
        if self.names.len() >= MAX_ENTRIES {
            return refuse("a bundle does not have so many entries");
        }
        if !self.names.insert(name.clone()) {
            return refuse("it is there twice");
        }
        if self.header.is_none() {
            if name != HEADER.as_bytes() {
                return Err(not_a_bundle(
                    self.path,
                    &format!("its first entry is `{shown}`, not `{HEADER}`"),
                ));
            }
            self.header = Some(self.read_header(&mut entry, size)?);
            return Ok(());
        }
        match parse(&name) {
            None => refuse("a bundle has no such entry"),
            Some(Name::Statement(_)) if self.release.is_some() => {
                refuse("statements come before maps and blobs")
            }
            Some(Name::Statement(digest)) => self.read_statement(&mut entry, &shown, size, digest),
            Some(Name::Map(digest)) => {
                self.believe()?;
                self.read_map(&mut entry, &shown, size, digest)
            }
            Some(Name::Blob(digest)) => {
                self.believe()?;
                self.read_blob(&mut entry, &shown, size, digest)
            }
        }
    }

    fn read_header(&self, entry: &mut Input<'_>, size: u64) -> Result<Header, BundleError> {
        let wrong = |why: String| not_a_bundle(self.path, &format!("its header is refused: {why}"));
        if size > MAX_HEADER {
            return Err(wrong(format!("{size} bytes is over the limit of {MAX_HEADER}")));
        }
        let bytes = read(entry, size).map_err(&wrong)?;
        let header: Header = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if header.format != FORMAT {
            return Err(wrong(format!("its format is `{}`", crate::shorten(&header.format))));
        }
        if header.version != VERSION {
            return Err(BundleError::Newer { found: header.version });
        }
        Ok(header)
    }

    fn read_statement(
        &mut self,
        entry: &mut Input<'_>,
        name: &str,
        size: u64,
        digest: Digest,
    ) -> Result<(), BundleError> {
        let refuse = |why: String| BundleError::Entry { name: name.to_owned(), why };
        self.statement_bytes = self.statement_bytes.saturating_add(size);
        if self.statements.len() >= MAX_STATEMENTS || self.statement_bytes > MAX_STATEMENT_BYTES {
            let why = format!("more than {MAX_STATEMENTS} statements or {MAX_STATEMENT_BYTES} bytes of them");
            return Err(refuse(why));
        }
        let bytes = read(entry, size).map_err(refuse)?;
        let signed = Signed::parse(&bytes)?;
        if signed.digest() != digest {
            return Err(refuse(format!("its payload's digest is {}", signed.digest())));
        }
        self.statements.insert(digest, signed);
        Ok(())
    }

    /// Believes the release and asks the policy, before the first of its bytes is read.
    fn believe(&mut self) -> Result<(), BundleError> {
        if self.release.is_some() {
            return Ok(());
        }
        let digest = self.release_digest()?;
        let lacks = || BundleError::Lacks { what: format!("its release {digest}") };
        let signed = self.statements.remove(&digest).ok_or_else(lacks)?;
        let release = believe(self.store, &signed, self.now).map_err(|error| self.explain(error.into()))?;
        let mut recalls: Vec<Recall> = self.store.recalls()?.into_iter().map(|(_, recall)| recall).collect();
        for (digest, signed) in std::mem::take(&mut self.statements) {
            match self.store.verify::<BundleError>(&signed, self.now) {
                Ok(verified) if verified.kind() == Kind::Root => {}
                Ok(verified) => {
                    if let Statement::Recall(recall) = verified.get() {
                        recalls.push(recall.clone());
                    }
                    self.others.push(verified);
                }
                // Evidence of a nation that is not pinned here helps nobody here, and harms nobody.
                Err(error) => self.skipped.push(format!("{digest}: {error}")),
            }
        }
        let decision = judge(self.store, &release, &recalls, self.now, |_| Ok(None))?;
        if !decision.allowed {
            return Err(BundleError::Refused { release: digest, decision });
        }
        self.release = Some(release);
        Ok(())
    }

    fn release_digest(&self) -> Result<Digest, BundleError> {
        self.header
            .as_ref()
            .map(|header| header.release)
            .ok_or_else(|| not_a_bundle(self.path, "it is empty"))
    }

    /// Where the nation is not pinned, says which fingerprint to compare.
    fn explain(&self, error: BundleError) -> BundleError {
        let BundleError::Trust(TrustError::NotPinned(nation)) = error else { return error };
        let root = self.statements.values().filter_map(|signed| self_signed_root(signed).ok());
        match root.into_iter().find(|root| root.nation == nation) {
            Some(root) => BundleError::NotPinned { nation, fingerprint: root.digest() },
            None => TrustError::NotPinned(nation).into(),
        }
    }

    fn read_map(
        &mut self,
        entry: &mut Input<'_>,
        name: &str,
        size: u64,
        digest: Digest,
    ) -> Result<(), BundleError> {
        let refuse = |why: &str| BundleError::Entry { name: name.to_owned(), why: why.to_owned() };
        let files = self.release.iter().flat_map(|release| &release.files);
        let Some(file) = files.clone().find(|file| file.chunk_map == digest) else {
            return Err(refuse("the release does not name it"));
        };
        // Longer than any map of a file of this size could be, were each chunk a byte.
        if size > MAX_ENCODED as u64 {
            return Err(refuse("it is larger than any chunk map"));
        }
        let bytes = read(entry, size).map_err(|why| refuse(&why))?;
        if Digest::of(&bytes) != digest {
            return Err(refuse("its content has another digest"));
        }
        let map = ChunkMap::decode(&bytes)
            .map_err(|source| BundleError::Map { map: digest, source: Box::new(source) })?;
        if map.blob() != file.blake3 || map.size() != file.size {
            return Err(refuse("it is of another file than the release says"));
        }
        let mut staged = self.store.stage(size)?;
        staged.write_all(&bytes).map_err(crate::store::io("could not write", staged.path()))?;
        self.maps.insert(digest, staged.into_temp_path());
        Ok(())
    }

    fn read_blob(
        &mut self,
        entry: &mut Input<'_>,
        name: &str,
        size: u64,
        digest: Digest,
    ) -> Result<(), BundleError> {
        let refuse = |why: String| BundleError::Entry { name: name.to_owned(), why };
        let mut files = self.release.iter().flat_map(|release| &release.files);
        let Some(file) = files.find(|file| file.blake3 == digest) else {
            return Err(refuse("the release does not name it".to_owned()));
        };
        if size != file.size {
            return Err(refuse(format!("it has {size} bytes, the release says {}", file.size)));
        }
        let mut staged: NamedTempFile = self.store.stage(size)?;
        let mut hasher = blake3::Hasher::new();
        let mut block = vec![0; BLOCK];
        let mut left = size;
        while left > 0 {
            let want = left.min(BLOCK as u64) as usize;
            let part = block.get_mut(..want).unwrap_or_default();
            entry.read_exact(part).map_err(|error| refuse(format!("it ends too early: {error}")))?;
            hasher.update(part);
            staged.write_all(part).map_err(crate::store::io("could not write", staged.path()))?;
            left -= want as u64;
        }
        if hasher.finalize() != *digest.as_bytes() {
            return Err(refuse("its content has another digest".to_owned()));
        }
        self.blobs.insert(digest, staged.into_temp_path());
        Ok(())
    }

    /// Everything was read: checks that nothing is missing, judges the content, and keeps it.
    fn finish(mut self) -> Result<ImportReport, BundleError> {
        self.believe()?;
        let digest = self.release_digest()?;
        let lacks = |what: String| BundleError::Lacks { what };
        let Some(release) = self.release.take() else { return Err(lacks(format!("its release {digest}"))) };
        let _lease = self.store.lease(release.files.iter().flat_map(|file| [file.blake3, file.chunk_map]));
        for file in &release.files {
            if !self.maps.contains_key(&file.chunk_map) && self.store.chunk_map(&file.chunk_map)?.is_none() {
                return Err(lacks(format!("the chunk map of `{}`", file.path)));
            }
            if !self.blobs.contains_key(&file.blake3)
                && self.store.blob_size(&file.blake3)? != Some(file.size)
            {
                return Err(lacks(format!("`{}`", file.path)));
            }
        }
        let mut recalls: Vec<Recall> = self.store.recalls()?.into_iter().map(|(_, recall)| recall).collect();
        recalls.extend(self.others.iter().filter_map(|other| match other.get() {
            Statement::Recall(recall) => Some(recall.clone()),
            _ => None,
        }));
        // Again, now that there is content to look at.
        let decision =
            judge(self.store, &release, &recalls, self.now, |file| match self.blobs.get(&file.blake3) {
                Some(staged) => {
                    File::open(staged).map(Some).map_err(crate::store::io("could not read", staged))
                }
                None => self.store.open_blob(&file.blake3).map(Some),
            })?;
        if !decision.allowed {
            return Err(BundleError::Refused { release: digest, decision });
        }
        self.keep(release)
    }

    fn keep(mut self, release: Verified<Release>) -> Result<ImportReport, BundleError> {
        let mut report = ImportReport {
            release: release.digest(),
            model: release.model.clone(),
            files: release.files.len(),
            new_bytes: 0,
            new_statements: 0,
            skipped: std::mem::take(&mut self.skipped),
            withdrawn: Vec::new(),
        };
        // First what can be refused: a version that is another release here already.
        let put = self.store.put_statement(&release.clone().into_statement())?;
        report.new_statements += usize::from(put.new);
        for (digest, staged) in std::mem::take(&mut self.maps) {
            let size = staged.metadata().map_err(crate::store::io("could not look at", &staged))?.len();
            self.store.install(staged, &digest, size, None)?;
        }
        for file in &release.files {
            let Some(staged) = self.blobs.remove(&file.blake3) else { continue };
            if !self.store.has_blob(&file.blake3) {
                report.new_bytes += file.size;
            }
            let map = self.store.chunk_map(&file.chunk_map)?;
            self.store.install(
                staged,
                &file.blake3,
                file.size,
                map.as_ref().map(|map| (map, file.chunk_map)),
            )?;
        }
        for other in &self.others {
            match self.store.put_statement(other) {
                Ok(put) => report.new_statements += usize::from(put.new),
                Err(error) => report.skipped.push(format!("{}: {error}", other.digest())),
            }
        }
        report.withdrawn = crate::admit::withdraw_recalled(self.store)?;
        Ok(report)
    }
}

/// Understands an entry's name; nothing but these exact forms is one.
fn parse(name: &[u8]) -> Option<Name> {
    let name = std::str::from_utf8(name).ok()?;
    let (folder, file) = name.split_once('/')?;
    match folder {
        "statements" => Digest::from_hex(file.strip_suffix(".json")?).ok().map(Name::Statement),
        "maps" => Digest::from_hex(file).ok().map(Name::Map),
        "blobs" => Digest::from_hex(file).ok().map(Name::Blob),
        _ => None,
    }
}

/// Reads exactly `size` bytes; the caller has bounded it.
fn read(entry: &mut Input<'_>, size: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    entry.by_ref().take(size).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 == size { Ok(bytes) } else { Err("it ends too early".to_owned()) }
}
