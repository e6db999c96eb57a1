//! [`Admitted`]: the typed promise that a release may be served here and that its bytes were checked.
//!
//! Only `admit.rs` makes one. It crosses into the worker's process as a [`Handoff`] over the pipe that the worker
//! inherited from the node that admitted it: the worker trusts its parent's decision, and hashes the bytes again itself.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::reference::{Model, Nation, Version};
use crate::timestamp::Timestamp;

/// One file of an admitted release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmittedFile {
    /// Path in the release.
    pub path: String,
    /// The blob's name.
    pub blob: Digest,
    /// Bytes.
    pub size: u64,
    /// Media type, as the release says.
    pub media_type: String,
    /// The chunk map's digest.
    pub chunk_map: Digest,
    /// The blob's file in the store: read-only, its content checked when it was admitted.
    pub location: PathBuf,
}

/// A release that may be served by this node.
#[derive(Debug, Clone)]
pub struct Admitted(Handoff);

/// [`Admitted`] as it is written to the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handoff {
    release: Digest,
    model: Model,
    version: Version,
    format: String,
    admitted: Timestamp,
    files: Vec<AdmittedFile>,
}

impl Handoff {
    /// The release's digest.
    pub fn release(&self) -> Digest {
        self.release
    }

    /// The model that the release is a version of.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Who made the model.
    pub fn producer(&self) -> &Nation {
        &self.model.nation
    }

    /// The files.
    pub fn files(&self) -> &[AdmittedFile] {
        &self.files
    }
}

impl Admitted {
    #[cfg(feature = "store")]
    pub(crate) fn new(
        release: &crate::Verified<crate::statement::Release>,
        admitted: Timestamp,
        locate: impl Fn(&Digest) -> PathBuf,
    ) -> Self {
        let files = release
            .files
            .iter()
            .map(|file| AdmittedFile {
                path: file.path.clone(),
                blob: file.blake3,
                size: file.size,
                media_type: file.media_type.clone(),
                chunk_map: file.chunk_map,
                location: locate(&file.blake3),
            })
            .collect();
        Self(Handoff {
            release: release.digest(),
            model: release.model.clone(),
            version: release.version.clone(),
            format: release.format.clone(),
            admitted,
            files,
        })
    }

    /// Takes over an admission in the worker. Call it only on what came over the pipe inherited from the admitting node.
    pub fn receive(handoff: Handoff) -> Self {
        Self(handoff)
    }

    /// What to write to the worker.
    pub fn handoff(&self) -> &Handoff {
        &self.0
    }

    /// The release's digest.
    pub fn release(&self) -> Digest {
        self.0.release
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.0.model
    }

    /// The version.
    pub fn version(&self) -> &Version {
        &self.0.version
    }

    /// The format that the release declares, such as `gguf`.
    pub fn format(&self) -> &str {
        &self.0.format
    }

    /// When it was admitted.
    pub fn admitted_at(&self) -> Timestamp {
        self.0.admitted
    }

    /// The files.
    pub fn files(&self) -> &[AdmittedFile] {
        &self.0.files
    }

    /// Where the blob of the file at `path` lies.
    pub fn location(&self, path: &str) -> Option<&Path> {
        self.0.files.iter().find(|file| file.path == path).map(|file| file.location.as_path())
    }
}
