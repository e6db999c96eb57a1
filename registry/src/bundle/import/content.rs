//! The entries of a bundle: their names, their bytes against their digests.

use std::io::{Read, Write};

use tempfile::NamedTempFile;

use super::super::MAX_PROOF_BYTES;
use super::{BLOCK, Bundle, BundleError, Input};
use crate::chunk::{ChunkMap, MAX_ENCODED};
use crate::digest::Digest;
use crate::log::proof::{LogProof, MAX_PROOF_FILE};

/// What an entry's name says that it is.
pub(super) enum Name {
    Statement(Digest),
    Proof(Digest),
    Map(Digest),
    Blob(Digest),
}

impl Bundle<'_> {
    pub(super) fn read_proof(
        &mut self,
        entry: &mut Input<'_>,
        name: &str,
        size: u64,
        statement: Digest,
    ) -> Result<(), BundleError> {
        let refuse = |why: String| BundleError::Entry { name: name.to_owned(), why };
        self.proof_bytes = self.proof_bytes.saturating_add(size);
        if size > MAX_PROOF_FILE as u64 || self.proof_bytes > MAX_PROOF_BYTES {
            return Err(refuse("it is larger than any proof, or they are too many".to_owned()));
        }
        if !self.statements.contains_key(&statement) {
            return Err(refuse("it is of a statement that does not come before it".to_owned()));
        }
        let bytes = read(entry, size).map_err(refuse)?;
        let proof = LogProof::parse(&bytes).map_err(|error| refuse(error.to_string()))?;
        self.proofs.insert(statement, proof);
        Ok(())
    }

    pub(super) fn read_map(
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

    pub(super) fn read_blob(
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
}

/// Understands an entry's name; nothing but these exact forms is one.
pub(super) fn parse(name: &[u8]) -> Option<Name> {
    let name = std::str::from_utf8(name).ok()?;
    let (folder, file) = name.split_once('/')?;
    match folder {
        "statements" => Digest::from_hex(file.strip_suffix(".json")?).ok().map(Name::Statement),
        "proofs" => Digest::from_hex(file).ok().map(Name::Proof),
        "maps" => Digest::from_hex(file).ok().map(Name::Map),
        "blobs" => Digest::from_hex(file).ok().map(Name::Blob),
        _ => None,
    }
}

/// Reads exactly `size` bytes; the caller has bounded it.
pub(super) fn read(entry: &mut Input<'_>, size: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    entry.by_ref().take(size).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 == size { Ok(bytes) } else { Err("it ends too early".to_owned()) }
}
