//! Reading a bundle: everything is verified before anything is kept.

mod age;
mod content;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tar::{Archive, Entry};
use tempfile::TempPath;

pub use self::age::{Checkpoint, ImportOptions};
use self::content::{Name, parse, read};
use super::{
    BundleError, FORMAT, HEADER, Header, MAX_HEADER, MAX_STATEMENT_BYTES, MAX_STATEMENTS, OLDEST, VERSION, io,
};
use crate::admit::{Brought, believe, judge};
use crate::digest::Digest;
use crate::envelope::{Signed, Verified};
use crate::log::Logged;
use crate::log::proof::LogProof;
use crate::reference::{Model, Nation};
use crate::statement::{self, Attestation, Kind, MAX_FILES, Recall, Release, Statement};
use crate::store::{Store, StoreError};
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
    /// Recalls that were new here.
    pub recalls: Vec<Digest>,
    /// The nation whose node made the bundle, as it says.
    pub by: Option<Nation>,
    /// When it was made, as it says: later recalls are not in it.
    pub made: Option<Timestamp>,
    /// Up to where it knows the producer's log, where that is proved.
    pub checkpoint: Option<Checkpoint>,
    /// Files that are not here yet, when it was a part.
    pub missing: Vec<String>,
}

/// Imports the bundle at `path`, however old it is (see [`import_with`]).
pub fn import(store: &Store, path: &Path, now: Timestamp) -> Result<ImportReport, BundleError> {
    import_with(store, path, now, ImportOptions::default())
}

/// Imports the bundle at `path`. It is read once, front to back, with a few MiB of memory for blobs of any size; what
/// was read waits in the store's temporary folder until all is verified. A refusal keeps nothing but the recalls that are
/// believed: no defect of the rest makes a recalled model good again.
pub fn import_with(
    store: &Store,
    path: &Path,
    now: Timestamp,
    options: ImportOptions,
) -> Result<ImportReport, BundleError> {
    let file = File::open(path).map_err(io(path))?;
    if !file.metadata().map_err(io(path))?.is_file() {
        return Err(BundleError::NotABundle {
            path: path.to_owned(),
            why: "it is no regular file".to_owned(),
        });
    }
    let mut archive = Archive::new(BufReader::with_capacity(BLOCK, file));
    let mut bundle = Bundle::new(store, path, now, options);
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

/// What was read so far.
struct Bundle<'a> {
    store: &'a Store,
    path: &'a Path,
    now: Timestamp,
    options: ImportOptions,
    header: Option<Header>,
    names: BTreeSet<Vec<u8>>,
    statements: BTreeMap<Digest, Signed>,
    statement_bytes: u64,
    proofs: BTreeMap<Digest, LogProof>,
    proof_bytes: u64,
    /// What the proofs prove of the producer's log.
    checkpoint: Option<Checkpoint>,
    /// What one of them proves of the release.
    logged: Option<Logged>,
    /// Set when the first map or blob comes: from then on the release is believed and allowed.
    release: Option<Verified<Release>>,
    others: Vec<Verified<Statement>>,
    skipped: Vec<String>,
    /// Verified content, each in a temporary file that is closed: there may be more of them than open files allowed.
    maps: BTreeMap<Digest, TempPath>,
    blobs: BTreeMap<Digest, TempPath>,
}

impl<'a> Bundle<'a> {
    fn new(store: &'a Store, path: &'a Path, now: Timestamp, options: ImportOptions) -> Self {
        Self {
            store,
            path,
            now,
            options,
            header: None,
            names: BTreeSet::new(),
            statements: BTreeMap::new(),
            statement_bytes: 0,
            proofs: BTreeMap::new(),
            proof_bytes: 0,
            checkpoint: None,
            logged: None,
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
            Some(Name::Statement(_) | Name::Proof(_)) if self.release.is_some() => {
                refuse("statements and proofs come before maps and blobs")
            }
            Some(Name::Proof(digest)) => self.read_proof(&mut entry, &shown, size, digest),
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
        if !(OLDEST..=VERSION).contains(&header.version) {
            return Err(BundleError::Newer { found: header.version });
        }
        let own = self.store.own();
        match (&header.to, header.version) {
            (Some(to), _) if *to != own => return Err(BundleError::ForAnother { to: to.clone(), own }),
            (None, 2..) => return Err(wrong("it does not say for whom it is".to_owned())),
            _ => {}
        }
        if header.version > 1 && (header.made.is_none() || header.by.is_none()) {
            return Err(wrong("it does not say who made it and when".to_owned()));
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
        self.take_roots();
        let release = believe(self.store, &signed, self.now).map_err(|error| self.explain(error.into()))?;
        for (digest, signed) in std::mem::take(&mut self.statements) {
            match self.store.verify::<BundleError>(&signed, self.now) {
                Ok(verified) if verified.kind() == Kind::Root => {}
                Ok(verified) => self.others.push(verified),
                // Evidence of a nation that is not pinned here helps nobody here, and harms nobody.
                Err(error) => self.skipped.push(format!("{digest}: {error}")),
            }
        }
        if let Err(error) = self.prove(&release).and_then(|()| self.not_stale()) {
            return Err(self.refused(error));
        }
        self.judge(&release, |_| Ok(None))?;
        self.release = Some(release);
        Ok(())
    }

    /// Asks the policy, with everything that the bundle proves and with what is known here.
    fn judge(
        &self,
        release: &Verified<Release>,
        open: impl Fn(&statement::File) -> Result<Option<File>, StoreError>,
    ) -> Result<(), BundleError> {
        let (recalls, attestations) = (self.recalls(), self.attestations());
        let logged = self.logged.as_ref();
        let brought = Brought { recalls: &recalls, attestations: &attestations, logged };
        let decision = judge(self.store, release, &brought, self.now, open)?;
        if decision.allowed {
            return Ok(());
        }
        Err(self.refused(BundleError::Refused { release: release.digest(), decision }))
    }

    /// Takes the later roots of pinned nations, in their order: what follows may be signed by keys that they brought, or no
    /// longer by keys that they took away. Like a recall, one that is believed is kept whatever becomes of the rest.
    fn take_roots(&mut self) {
        let mut roots: Vec<(u64, &Signed)> = Vec::new();
        for signed in self.statements.values() {
            if let Ok(Statement::Root(root)) = signed.peek()
                && root.version > 1
            {
                roots.push((root.version, signed));
            }
        }
        roots.sort_by_key(|(version, _)| *version);
        for (_, signed) in roots {
            if let Err(error) = crate::publish::learn(self.store, signed, self.now) {
                self.skipped.push(format!("{}: {error}", signed.digest()));
            }
        }
    }

    /// The believed recalls that the bundle brings.
    fn recalls(&self) -> Vec<Recall> {
        let recall = |other: &Verified<Statement>| match other.get() {
            Statement::Recall(recall) => Some(recall.clone()),
            _ => None,
        };
        self.others.iter().filter_map(recall).collect()
    }

    /// The believed attestations that the bundle brings.
    fn attestations(&self) -> Vec<Attestation> {
        let attestation = |other: &Verified<Statement>| match other.get() {
            Statement::Attestation(attestation) => Some(attestation.clone()),
            _ => None,
        };
        self.others.iter().filter_map(attestation).collect()
    }

    /// Refuses the bundle, and keeps the recalls in it all the same.
    fn refused(&self, error: BundleError) -> BundleError {
        let recalls = self.others.iter().filter(|other| other.kind() == Kind::Recall);
        for recall in recalls {
            if let Err(failed) = self.store.put_statement(recall) {
                tracing::error!(digest = %recall.digest(), "a recall of a refused bundle could not be kept: {failed}");
            }
        }
        match crate::admit::withdraw_recalled(self.store) {
            Ok(_) => error,
            Err(failed) => failed.into(),
        }
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

    /// Everything was read: checks that nothing is missing, judges the content, and keeps it.
    fn finish(mut self) -> Result<ImportReport, BundleError> {
        self.believe()?;
        let digest = self.release_digest()?;
        let lacks = |what: String| BundleError::Lacks { what };
        let Some(release) = self.release.take() else { return Err(lacks(format!("its release {digest}"))) };
        let _lease = self.store.lease(release.files.iter().flat_map(|file| [file.blake3, file.chunk_map]));
        let part = self.header.as_ref().is_some_and(|header| header.part);
        let mut missing = Vec::new();
        for file in &release.files {
            if !self.maps.contains_key(&file.chunk_map) && self.store.chunk_map(&file.chunk_map)?.is_none() {
                return Err(lacks(format!("the chunk map of `{}`", file.path)));
            }
            if !self.blobs.contains_key(&file.blake3)
                && self.store.blob_size(&file.blake3)? != Some(file.size)
            {
                if !part {
                    return Err(lacks(format!("`{}`", file.path)));
                }
                missing.push(file.path.clone());
            }
        }
        // Again, now that there is content to look at.
        self.judge(&release, |file| match self.blobs.get(&file.blake3) {
            Some(staged) => File::open(staged).map(Some).map_err(crate::store::io("could not read", staged)),
            None if self.store.has_blob(&file.blake3) => self.store.open_blob(&file.blake3).map(Some),
            None => Ok(None),
        })?;
        self.keep(release, missing)
    }

    fn keep(mut self, release: Verified<Release>, missing: Vec<String>) -> Result<ImportReport, BundleError> {
        let mut report = ImportReport {
            by: self.header.as_ref().and_then(|header| header.by.clone()),
            made: self.header.as_ref().and_then(|header| header.made),
            missing,
            checkpoint: self.checkpoint.clone(),
            recalls: Vec::new(),
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
        let (nation, count) = (release.model.nation.clone(), self.count());
        for (statement, proof) in std::mem::take(&mut self.proofs) {
            self.store.keep_proof(&nation, &statement, &proof, count)?;
        }
        for (digest, staged) in std::mem::take(&mut self.maps) {
            let size = staged.metadata().map_err(crate::store::io("could not look at", &staged))?.len();
            self.store.install(staged, &digest, size, None)?;
        }
        // Whoever carried them had these bytes under this release.
        self.store.came_under(&release.digest(), self.blobs.keys().copied())?;
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
                Ok(put) => {
                    report.new_statements += usize::from(put.new);
                    if put.new && other.kind() == Kind::Recall {
                        report.recalls.push(other.digest());
                    }
                }
                Err(error) => report.skipped.push(format!("{}: {error}", other.digest())),
            }
        }
        report.withdrawn = crate::admit::withdraw_recalled(self.store)?;
        Ok(report)
    }
}
