//! A staged commit as readers see a release.

use std::fs::File;
use std::sync::{Arc, PoisonError};

use registry::statement::{self, Releasable, Release};
use registry::{Digest, Model, Version};

use super::super::super::Api;
use super::super::super::verdict::Known;
use super::super::Found;
use super::super::caller::Caller;
use super::super::names::Names;
use super::super::refusal::Refusal;
use super::{may_stage, off};
use crate::staging::{Commit, StagedFile, StagingError};

/// Commits that are remembered as they are shown: an ordinary one's takes some KiB, the largest some MiB.
const MAX_VIEWS: usize = 16;
/// What readers of a staged file are told; the part before the semicolon is shown once.
const UNSIGNED: &str =
    "staged; this is staged and not signed: it becomes a release when its nation publishes it";

/// What is staged for a reader.
#[derive(Default)]
pub(in super::super) struct View {
    /// What the revision holds.
    pub(in super::super) found: Option<Found>,
    /// Whether anything of the model is staged.
    pub(in super::super) repo: bool,
}

/// What a revision of a model means in the staging area, to one who may stage.
pub(in super::super) async fn view(
    api: &Api,
    caller: &Caller,
    nation: &str,
    name: &str,
    revision: &str,
) -> Result<View, Refusal> {
    let Ok(model) = format!("{nation}/{name}").parse::<Model>() else { return Ok(View::default()) };
    if !may_stage(api, caller) || model.nation != api.hub().push.nation {
        return Ok(View::default());
    }
    let (api, revision) = (api.clone(), revision.to_owned());
    off(move || {
        let push = &api.hub().push;
        let Some(repo) = push.area.repo(&model)? else { return Ok(View::default()) };
        let Some(commit) = repo.find(&revision).map(str::to_owned) else {
            return Ok(View { found: None, repo: true });
        };
        let remembered = push.views.lock().unwrap_or_else(PoisonError::into_inner).get(&commit).cloned();
        let known = match remembered {
            Some(known) => known,
            None => {
                let found = push.area.commit(&model, &commit)?;
                let known = Arc::new(known(&model, &commit, found)?);
                let mut views = push.views.lock().unwrap_or_else(PoisonError::into_inner);
                if views.len() >= MAX_VIEWS {
                    views.clear();
                }
                views.insert(commit, Arc::clone(&known));
                known
            }
        };
        let warnings = Arc::new(vec![UNSIGNED.to_owned()]);
        Ok(View { found: Some(Found { known, names: Arc::new(Names::default()), warnings }), repo: true })
    })
    .await
}

fn known(model: &Model, name: &str, commit: Commit) -> Result<Known, StagingError> {
    let wrong = |error: &dyn std::fmt::Display| StagingError::Wrong(error.to_string());
    // The commit's name is all that is shown of it.
    let digest = Digest::from_hex(&format!("{name:0<64}")).map_err(|error| wrong(&error))?;
    let file = |(path, file): (&String, &StagedFile)| statement::File {
        path: path.clone(),
        blake3: Digest::from_bytes(*file.sha256.as_bytes()),
        sha256: file.sha256,
        size: file.size,
        media_type: "application/octet-stream".to_owned(),
        chunk_map: Digest::from_bytes(*file.sha256.as_bytes()),
    };
    let files: Vec<statement::File> = commit.files.iter().map(file).collect();
    let has = |end: &str| files.iter().any(|file| file.path.ends_with(end));
    let format = match (has(".gguf"), has(".safetensors")) {
        (true, _) => "gguf",
        (_, true) => "safetensors",
        _ => "other",
    };
    let release = Release {
        model: model.clone(),
        version: Version::new("staged").map_err(|error| wrong(&error))?,
        format: format.to_owned(),
        licence: String::new(),
        derived_from: Vec::new(),
        releasable_to: Releasable::Nations(std::collections::BTreeSet::new()),
        model_card: None,
        issued: commit.at,
        files,
    };
    Ok(Known::staged(digest, release, Arc::new(commit)))
}

/// Opens a staged file.
pub(in super::super) async fn content(api: &Api, commit: &Arc<Commit>, path: &str) -> Result<File, Refusal> {
    let (api, commit, path) = (api.clone(), Arc::clone(commit), path.to_owned());
    off(move || {
        let file = commit.files.get(&path).ok_or_else(|| StagingError::NoFile(path.clone()))?;
        api.hub().push.area.content(api.store(), file)
    })
    .await
}
