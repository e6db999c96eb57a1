//! Evidence against logs: what it proves, and where it is kept.

use std::fs;
use std::path::{Path, PathBuf};

use registry::log::checkpoint::CheckpointError;
use registry::log::evidence::{Evidence, EvidenceError, Fork};
use registry::store::{Store, StoreError};
use registry::{Digest, Nation};

use super::{Result, fault, nations};

/// What evidence that somebody handed over is worth.
pub(crate) enum Claim {
    /// It is about a nation or a key that is not pinned here.
    Foreign,
    /// It proves nothing.
    False(String),
    /// It proves a lie.
    Proven,
}

/// Evidence that is kept here.
pub(crate) struct Kept {
    /// Whose log.
    pub(crate) nation: Nation,
    /// What it proves, in a sentence.
    pub(crate) summary: String,
    /// The file's name.
    pub(crate) name: String,
    /// Where it lies.
    pub(crate) path: PathBuf,
}

/// What evidence proves, by the keys pinned here; or why it proves nothing.
pub(crate) fn prove(store: &Store, json: &[u8]) -> std::result::Result<Fork, EvidenceError> {
    let evidence = Evidence::parse(json)?;
    evidence.verify(&store.log_keys(&evidence.nation))
}

/// What evidence that somebody handed over is worth.
pub(crate) fn examine(store: &Store, json: &[u8]) -> Claim {
    match prove(store, json) {
        Ok(_) => Claim::Proven,
        Err(EvidenceError::Checkpoint(CheckpointError::Unsigned(_))) => Claim::Foreign,
        Err(error) => Claim::False(error.to_string()),
    }
}

/// Keeps evidence; what it is if it was not known. Its file lies beside the store's others.
pub(crate) fn keep_evidence(store: &Store, json: &[u8]) -> Result<Option<Kept>> {
    let Ok(evidence) = Evidence::parse(json) else { return Ok(None) };
    match store.dispute_log(&evidence) {
        Ok((_, false)) => Ok(None),
        Ok((fork, true)) => {
            let kept = kept(store, &fork, json);
            write_evidence(&kept, json)?;
            Ok(Some(kept))
        }
        Err(error) => {
            let error = fault(error)?;
            tracing::warn!("evidence was not kept: {error}");
            Ok(None)
        }
    }
}

fn kept(store: &Store, fork: &Fork, json: &[u8]) -> Kept {
    let name = format!("{}-{}-{}.json", fork.nation, fork.size, Digest::of(json).short());
    let summary = format!("it signed two different histories of its first {} entries", fork.size);
    let path = store.home().join("evidence").join(&name);
    Kept { nation: fork.nation.clone(), summary, name, path }
}

fn write_evidence(kept: &Kept, json: &[u8]) -> Result<()> {
    let failed = |what: &str, error: std::io::Error| {
        StoreError::Index(format!("{} could not be {what}: {error}", kept.path.display()))
    };
    let folder = kept.path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|error| failed("made room for", error))?;
    let beside = kept.path.with_extension("new");
    fs::write(&beside, json).map_err(|error| failed("written", error))?;
    fs::File::open(&beside).and_then(|file| file.sync_all()).map_err(|error| failed("synced", error))?;
    fs::rename(&beside, &kept.path).map_err(|error| failed("put in place", error))
}

/// The evidence that stands against logs. Its files are written again where they are missing.
pub(crate) fn list_evidence(store: &Store) -> Result<Vec<Kept>> {
    let mut list = Vec::new();
    for nation in nations(store) {
        let Some(json) = store.log_evidence(&nation)? else { continue };
        let Ok(fork) = prove(store, &json) else { continue };
        let kept = kept(store, &fork, &json);
        if !kept.path.exists() {
            write_evidence(&kept, &json)?;
        }
        list.push(kept);
    }
    Ok(list)
}

/// The evidence of that name.
pub(crate) fn read_evidence(store: &Store, name: &str) -> Result<Option<Vec<u8>>> {
    for nation in nations(store) {
        if let Some(json) = store.log_evidence(&nation)?
            && prove(store, &json).is_ok_and(|fork| kept(store, &fork, &json).name == name)
        {
            return Ok(Some(json));
        }
    }
    Ok(None)
}
