//! Writing a bundle.

use std::collections::BTreeSet;
use std::io::{self as stdio, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tar::{Builder, EntryType, Header as TarHeader};

use super::{BundleError, FORMAT, HEADER, Header, MAX_STATEMENTS, VERSION, io};
use crate::admit;
use crate::digest::Digest;
use crate::envelope::Signed;
use crate::reference::Model;
use crate::statement::Releasable;
use crate::store::{Store, StoreError, sync_folder};

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
    /// Bytes of the bundle.
    pub bytes: u64,
    /// Which nations may have it: whoever carries the bundle is bound by that.
    pub releasable_to: Releasable,
}

/// Writes the release with its evidence to `out`, which must not exist. Each blob is hashed on its way, so that a
/// damaged one is not passed on. The file appears under its name only when it is whole and durable.
pub fn export(store: &Store, release: &Digest, out: &Path) -> Result<ExportReport, BundleError> {
    let _lease = store.lease([*release]);
    let signed = store.statement(release)?.ok_or(admit::AdmitError::NotFound(*release))?;
    let known = store.release(release)?.ok_or(admit::AdmitError::NotFound(*release))?;
    admit::complete(store, *release, &known)?;
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
    };
    let header = serde_json::to_vec(&header).unwrap_or_default();
    append(&mut archive, HEADER, header.len() as u64, &header[..]).map_err(&fail)?;
    for (digest, statement) in evidence(store, *release, signed)? {
        let json = statement.to_json();
        let name = format!("statements/{}.json", digest.to_hex());
        append(&mut archive, &name, json.len() as u64, &json[..]).map_err(&fail)?;
    }
    let mut seen = BTreeSet::new();
    for file in known.files.iter().filter(|file| seen.insert(file.chunk_map)) {
        let damaged = || BundleError::Damaged { path: file.path.clone(), blob: file.chunk_map };
        let map = store.chunk_map(&file.chunk_map)?.ok_or_else(damaged)?.encode();
        append(&mut archive, &format!("maps/{}", file.chunk_map.to_hex()), map.len() as u64, &map[..])
            .map_err(&fail)?;
    }
    seen.clear();
    for file in known.files.iter().filter(|file| seen.insert(file.blake3)) {
        let damaged = || BundleError::Damaged { path: file.path.clone(), blob: file.blake3 };
        let content = match store.open_blob(&file.blake3) {
            Err(StoreError::WrongContent { .. }) => return Err(damaged()),
            other => other?,
        };
        let mut content = Hashing { inner: content, hasher: blake3::Hasher::new() };
        append(&mut archive, &format!("blobs/{}", file.blake3.to_hex()), file.size, &mut content)
            .map_err(&fail)?;
        if content.hasher.finalize() != *file.blake3.as_bytes() {
            return Err(damaged());
        }
    }
    let file = archive.into_inner().and_then(|writer| Ok(writer.into_inner()?)).map_err(&fail)?;
    file.as_file().sync_all().map_err(&fail)?;
    let bytes = file.as_file().metadata().map_err(&fail)?.len();
    file.persist_noclobber(out).map_err(|error| match error.error.kind() {
        stdio::ErrorKind::AlreadyExists => BundleError::Exists { path: out.to_owned() },
        _ => fail(error.error),
    })?;
    sync_folder(folder)?;
    tracing::info!(%release, releasable_to = %known.releasable_to, out = %out.display(), "exported");
    Ok(ExportReport {
        path: out.to_owned(),
        release: *release,
        model: known.model.clone(),
        files: known.files.len(),
        bytes,
        releasable_to: known.releasable_to.clone(),
    })
}

/// The release, its nation's root, the channels that point to it and the recalls of it.
fn evidence(store: &Store, digest: Digest, signed: Signed) -> Result<Vec<(Digest, Signed)>, BundleError> {
    let mut evidence = Vec::new();
    if let Ok(statement) = signed.peek()
        && let Ok(member) = store.trust().member(statement.nation())
    {
        evidence.extend(member.root.roots().map(|root| (root.digest(), root.proven())));
    }
    evidence.push((digest, signed));
    let recalls = store.recalls()?.into_iter().filter(|(_, recall)| recall.target.digest() == digest);
    let channels = store.channels()?.into_iter().filter(|(_, channel)| channel.release == digest);
    let others = recalls.map(|(digest, _)| digest).chain(channels.map(|(digest, _)| digest));
    for other in others.take(MAX_STATEMENTS.saturating_sub(evidence.len())) {
        evidence.extend(store.statement(&other)?.map(|signed| (other, signed)));
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
