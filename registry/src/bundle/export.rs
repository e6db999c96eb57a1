//! Writing a bundle.

use std::collections::BTreeSet;
use std::io::{self as stdio, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tar::{Builder, EntryType, Header as TarHeader};

use super::{BundleError, FORMAT, HEADER, Header, MAX_PROOF_BYTES, MAX_STATEMENTS, Matcher, VERSION, io};
use crate::admit::{self, Door, Permission};
use crate::digest::Digest;
use crate::envelope::Signed;
use crate::reference::{Model, Nation};
use crate::releasable::{self, Withheld};
use crate::statement::{File, Releasable, Release};
use crate::store::{Store, StoreError, sync_folder};
use crate::timestamp::Timestamp;

/// Most releases that this one derives from whose statements go with it: the importer's policy looks at them.
const MAX_ANCESTORS: usize = 256;

/// For whom, and what of it.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// The nation that it is for; our own where none is named.
    pub to: Option<Nation>,
    /// Only the files that fit one of these; empty for all.
    pub files: Vec<Matcher>,
    /// No files at all.
    pub without_blobs: bool,
    /// Blobs that the other side has.
    pub have: BTreeSet<Digest>,
    /// The time that is written into it.
    pub now: Timestamp,
}

impl ExportOptions {
    /// All of it, for our own nation.
    pub fn new(now: Timestamp) -> Self {
        Self { to: None, files: Vec::new(), without_blobs: false, have: BTreeSet::new(), now }
    }

    fn takes(&self, file: &File) -> bool {
        let meant = self.files.is_empty() || self.files.iter().any(|matcher| matcher.fits(&file.path));
        meant && !self.without_blobs && !self.have.contains(&file.blake3)
    }
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportReport {
    /// The file.
    pub path: PathBuf,
    /// The release.
    pub release: Digest,
    /// Its model.
    pub model: Model,
    /// How many files the release has.
    pub files: usize,
    /// How many of them are in it.
    pub files_in: usize,
    /// Bytes of the bundle.
    pub bytes: u64,
    /// The nation that it is for.
    pub to: Nation,
    /// Which nations may have it: whoever carries the bundle is bound by that.
    pub releasable_to: Releasable,
}

/// Writes the whole release with its evidence to `out` for our own nation (see [`export_with`]).
pub fn export(store: &Store, release: &Digest, out: &Path) -> Result<ExportReport, BundleError> {
    export_with(store, release, out, &ExportOptions::new(Timestamp::now()))
}

/// Writes the release with its evidence to `out`, which must not exist. What the nation that it is for may not have is
/// refused. Each blob is hashed on its way, so that a damaged one is not passed on. The file appears under its name only
/// when it is whole and durable.
pub fn export_with(
    store: &Store,
    release: &Digest,
    out: &Path,
    options: &ExportOptions,
) -> Result<ExportReport, BundleError> {
    let _lease = store.lease([*release]);
    let (known, signed) = store.signed_release(release)?.ok_or(admit::AdmitError::NotFound(*release))?;
    let to = options.to.clone().unwrap_or_else(|| store.own());
    let door = Door::open(store, options.now)?;
    let withheld = |why| BundleError::Withheld { nation: to.clone(), why };
    releasable::ally(store, &to).and(releasable::release_known(store, &known, &to)?).map_err(withheld)?;
    let permission = door.may_have_this(*release, &known, &signed, &to)?;
    allowed(&permission, options, &known, &to).map_err(withheld)?;
    for matcher in &options.files {
        if !known.files.iter().any(|file| matcher.fits(&file.path)) {
            return Err(BundleError::NoSuchFile(crate::shorten(&matcher.pattern())));
        }
    }
    let taken: Vec<&File> = known.files.iter().filter(|file| options.takes(file)).collect();
    if taken.len() == known.files.len() {
        admit::complete(store, *release, &known)?;
    }
    if out.symlink_metadata().is_ok() {
        return Err(BundleError::Exists { path: out.to_owned() });
    }
    let folder = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fail = io(out);
    let file = tempfile::Builder::new().prefix(".steelyard-export-").tempfile_in(folder).map_err(&fail)?;
    let mut archive = Builder::new(BufWriter::with_capacity(1024 * 1024, file));

    let header = Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        release: *release,
        releasable_to: known.releasable_to.to_string(),
        to: Some(to.clone()),
        by: Some(store.own()),
        made: Some(options.now),
        part: taken.len() < known.files.len(),
    };
    let header = serde_json::to_vec(&header).unwrap_or_default();
    append(&mut archive, HEADER, header.len() as u64, &header[..]).map_err(&fail)?;
    let recalled = permission == Permission::Recalled;
    let evidence = evidence(store, &door, *release, &known, signed, &to)?;
    for (digest, statement) in &evidence {
        let json = statement.to_json();
        let name = format!("statements/{}.json", digest.to_hex());
        append(&mut archive, &name, json.len() as u64, &json[..]).map_err(&fail)?;
    }
    proofs(store, &known.model.nation, &evidence, &mut archive, out)?;
    if !recalled {
        content(store, &known, &taken, &mut archive, out)?;
    }
    let file = archive.into_inner().and_then(|writer| Ok(writer.into_inner()?)).map_err(&fail)?;
    file.as_file().sync_all().map_err(&fail)?;
    let bytes = file.as_file().metadata().map_err(&fail)?.len();
    file.persist_noclobber(out).map_err(|error| match error.error.kind() {
        stdio::ErrorKind::AlreadyExists => BundleError::Exists { path: out.to_owned() },
        _ => fail(error.error),
    })?;
    sync_folder(folder)?;
    tracing::info!(%release, %to, releasable_to = %known.releasable_to, out = %out.display(), "exported");
    Ok(ExportReport {
        path: out.to_owned(),
        release: *release,
        model: known.model.clone(),
        files: known.files.len(),
        files_in: taken.len(),
        bytes,
        to,
        releasable_to: known.releasable_to,
    })
}

/// What the policy's `release` action said. Of a recalled release the statements alone may go: the recall among them is what
/// must travel.
fn allowed(
    permission: &Permission,
    options: &ExportOptions,
    known: &Release,
    to: &Nation,
) -> Result<(), Withheld> {
    match permission {
        Permission::Allowed => Ok(()),
        Permission::Recalled if options.without_blobs => Ok(()),
        Permission::Recalled => Err(Withheld::Recalled),
        Permission::Refused(decision) => Err(Withheld::Policy(admit::reasons(decision))),
        Permission::Unknown | Permission::NotReleasable => Err(Withheld::NotReleasable {
            producer: known.model.nation.clone(),
            to: known.releasable_to.to_string(),
            nation: to.clone(),
        }),
    }
}

/// That the producer's statements stand in its log, as far as this node knows.
fn proofs(
    store: &Store,
    producer: &Nation,
    evidence: &[(Digest, Signed)],
    archive: &mut Builder<impl Write>,
    out: &Path,
) -> Result<(), BundleError> {
    let mut bytes = 0;
    for (digest, _) in evidence {
        let Some(proof) = store.any_proof(producer, digest)? else { continue };
        let text = proof.to_text();
        bytes += text.len() as u64;
        if bytes > MAX_PROOF_BYTES {
            break;
        }
        append(archive, &format!("proofs/{}", digest.to_hex()), text.len() as u64, &text[..])
            .map_err(io(out))?;
    }
    Ok(())
}

/// The chunk maps of all files, then the blobs of those taken.
fn content(
    store: &Store,
    known: &Release,
    taken: &[&File],
    archive: &mut Builder<impl Write>,
    out: &Path,
) -> Result<(), BundleError> {
    let fail = io(out);
    let mut seen = BTreeSet::new();
    for file in known.files.iter().filter(|file| seen.insert(file.chunk_map)) {
        let damaged = || BundleError::Damaged { path: file.path.clone(), blob: file.chunk_map };
        let map = store.chunk_map(&file.chunk_map)?.ok_or_else(damaged)?.encode();
        append(archive, &format!("maps/{}", file.chunk_map.to_hex()), map.len() as u64, &map[..])
            .map_err(&fail)?;
    }
    seen.clear();
    for file in taken.iter().filter(|file| seen.insert(file.blake3)) {
        let damaged = || BundleError::Damaged { path: file.path.clone(), blob: file.blake3 };
        let content = match store.open_blob(&file.blake3) {
            Err(StoreError::WrongContent { .. }) => return Err(damaged()),
            other => other?,
        };
        let mut content = Hashing { inner: content, hasher: blake3::Hasher::new() };
        append(archive, &format!("blobs/{}", file.blake3.to_hex()), file.size, &mut content)
            .map_err(&fail)?;
        if content.hasher.finalize() != *file.blake3.as_bytes() {
            return Err(damaged());
        }
    }
    Ok(())
}

/// What the importer's decision rests on, as far as its nation may have it: the roots, the release and what it derives
/// from, the model's channels, every recall by its producer, and every recall of it or its bases by anybody.
fn evidence(
    store: &Store,
    door: &Door<'_>,
    digest: Digest,
    known: &Release,
    signed: Signed,
    to: &Nation,
) -> Result<Vec<(Digest, Signed)>, BundleError> {
    let producer = &known.model.nation;
    let mut evidence = Vec::new();
    if let Ok(member) = store.trust().member(producer) {
        evidence.extend(member.root.roots().map(|root| (root.digest(), root.proven())));
    }
    evidence.push((digest, signed));
    let ancestors = store.ancestors(&digest)?;
    let about = |target: &Digest| *target == digest || ancestors.contains_key(target);
    let recalls = store.recalls()?.into_iter();
    let recalls = recalls.filter(|(_, it)| it.nation == *producer || about(&it.target.digest()));
    let channels = store.channels()?.into_iter().filter(|(_, channel)| channel.model == known.model);
    let others = recalls
        .map(|(id, _)| id)
        .chain(channels.map(|(id, _)| id))
        .chain(store.attestations(&digest)?.into_iter().map(|(id, _)| id))
        .chain(ancestors.keys().copied().take(MAX_ANCESTORS));
    let mut seen = BTreeSet::from([digest]);
    for other in others.filter(|other| seen.insert(*other)) {
        let Some(signed) = store.statement(&other)? else { continue };
        if door.may_learn(&signed, to)? {
            evidence.push((other, signed));
        }
        if evidence.len() >= MAX_STATEMENTS {
            break;
        }
    }
    Ok(evidence)
}

fn append(archive: &mut Builder<impl Write>, name: &str, size: u64, content: impl Read) -> stdio::Result<()> {
    let mut header = TarHeader::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o444);
    header.set_mtime(0);
    header.set_cksum();
    // A file that is shorter than it was would shift everything behind it; `complete` and `open_blob` saw its length.
    archive.append(&header, content.take(size))
}

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> stdio::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..n).unwrap_or_default());
        Ok(n)
    }
}
