//! What is released of a model, for whoever stages something of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use registry::digest::Sha256;
use registry::statement::Release;
use registry::store::Store;
use registry::{ChannelName, Digest, Model, Reference};

use super::super::super::Api;
use super::super::names::{Meaning, Names};
use crate::git::commit_of;
use crate::staging::{MAIN, Releases, StagedFile, StagingError, Start};

/// Releases of a model, the newest first, whose files are looked at for content that is here already.
const LOOKED_AT: usize = 32;

/// What is released of a model.
pub(in super::super::super) struct Released {
    store: Store,
    model: Model,
    names: Option<Arc<Names>>,
}

impl Released {
    /// Of `model`. Blocks.
    pub(in super::super::super) fn of(api: &Api, model: &Model) -> Result<Self, StagingError> {
        let names = api.hub().catalogue.model(api.store(), model)?;
        Ok(Self { store: api.store().clone(), model: model.clone(), names })
    }

    fn find(&self, revision: &str) -> Option<Digest> {
        let channel = |name: &ChannelName| {
            let reference = Reference::Channel(self.model.clone(), name.clone());
            self.store.resolve(&reference).ok().flatten()
        };
        match self.names.as_ref()?.find(revision, channel) {
            Meaning::Release(digest) => Some(digest),
            Meaning::Nothing | Meaning::Several => None,
        }
    }

    /// The release that a channel points to, else the newest.
    pub(in super::super::super) fn last(
        &self,
        channel: &str,
    ) -> Result<Option<(Digest, Release)>, StagingError> {
        let newest = || self.names.as_ref()?.releases.last().map(|entry| entry.release);
        let Some(digest) = self.find(channel).or_else(newest) else { return Ok(None) };
        Ok(self.store.release(&digest)?.map(|release| (digest, release)))
    }
}

fn staged(file: &registry::statement::File) -> StagedFile {
    StagedFile { size: file.size, sha256: file.sha256, blob: Some(file.blake3) }
}

impl Releases for Released {
    fn any(&self) -> Result<bool, StagingError> {
        Ok(self.names.is_some())
    }

    fn start(&self, revision: &str) -> Result<Option<Start>, StagingError> {
        let Some(digest) = self.find(revision) else { return Ok(None) };
        let Some(release) = self.store.release(&digest)? else { return Ok(None) };
        if let Some(missing) = release.files.iter().find(|file| !self.store.has_blob(&file.blake3)) {
            return Err(StagingError::Wrong(format!(
                "{}@{} is not whole on this node (`{}` is missing), so that nothing can be built on it; its operator can `steelyard pull {}@{}`",
                self.model, release.version, missing.path, self.model, release.version
            )));
        }
        let files: BTreeMap<_, _> =
            release.files.iter().map(|file| (file.path.clone(), staged(file))).collect();
        Ok(Some(Start { commit: Some(commit_of(&digest)), files }))
    }

    fn has_channel(&self, name: &str) -> Result<bool, StagingError> {
        let Some(names) = &self.names else { return Ok(false) };
        let known = names.channels.iter().any(|channel| channel.as_str() == name);
        Ok((known || name == MAIN) && self.find(&format!("refs/heads/{name}")).is_some())
    }

    fn has_version(&self, name: &str) -> Result<bool, StagingError> {
        let Some(names) = &self.names else { return Ok(false) };
        Ok(names.releases.iter().any(|entry| entry.version.as_str() == name))
    }

    fn content(&self, oid: &Sha256) -> Result<Option<StagedFile>, StagingError> {
        let Some(names) = &self.names else { return Ok(None) };
        for entry in names.releases.iter().rev().take(LOOKED_AT) {
            let Some(release) = self.store.release(&entry.release)? else { continue };
            let found =
                release.files.iter().find(|file| file.sha256 == *oid && self.store.has_blob(&file.blake3));
            if let Some(file) = found {
                return Ok(Some(staged(file)));
            }
        }
        Ok(None)
    }
}
