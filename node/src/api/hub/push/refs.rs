//! Branches, tags and history of what is staged, for those who may stage.

use registry::Model;
use serde_json::{Value, json};

use super::super::super::Api;
use super::super::caller::Caller;
use super::super::info::moment;
use super::super::refusal::Refusal;
use super::{may_stage, off};

/// What is staged of a model.
#[derive(Debug, Default)]
pub(in super::super) struct Refs {
    /// Each branch and its newest commit.
    pub(in super::super) branches: Vec<(String, String)>,
    /// Each tag and its commit.
    pub(in super::super) tags: Vec<(String, String)>,
}

/// The staged branches and tags of a model, if something of it is staged.
pub(in super::super) async fn refs(
    api: &Api,
    caller: &Caller,
    nation: &str,
    name: &str,
) -> Result<Option<Refs>, Refusal> {
    let Ok(model) = format!("{nation}/{name}").parse::<Model>() else { return Ok(None) };
    if !may_stage(api, caller) || model.nation != api.hub().push.nation {
        return Ok(None);
    }
    let area = std::sync::Arc::clone(&api.hub().push.area);
    let Some(repo) = off(move || area.repo(&model)).await? else { return Ok(None) };
    let branches = repo.branches.iter().map(|(name, branch)| (name.clone(), branch.head().to_owned()));
    Ok(Some(Refs { branches: branches.collect(), tags: repo.tags.into_iter().collect() }))
}

/// The history of a staged revision, the newest first: at most so many commits as a branch keeps.
pub(in super::super) async fn commits(
    api: &Api,
    caller: &Caller,
    nation: &str,
    name: &str,
    revision: &str,
) -> Result<Option<Vec<Value>>, Refusal> {
    let Ok(model) = format!("{nation}/{name}").parse::<Model>() else { return Ok(None) };
    if !may_stage(api, caller) || model.nation != api.hub().push.nation {
        return Ok(None);
    }
    let (area, revision) = (std::sync::Arc::clone(&api.hub().push.area), revision.to_owned());
    off(move || {
        let Some(repo) = area.repo(&model)? else { return Ok(None) };
        let Some(commit) = repo.find(&revision) else { return Ok(None) };
        let history = repo.branches.values().find_map(|branch| {
            let upto = branch.commits.iter().position(|it| it == commit)?;
            branch.commits.get(..=upto)
        });
        let alone = [commit.to_owned()];
        let mut shown = Vec::new();
        for name in history.unwrap_or(&alone).iter().rev() {
            let commit = area.commit(&model, name)?;
            shown.push(json!({
                "id": name,
                "title": commit.title,
                "message": commit.message,
                "authors": [{ "user": commit.by }],
                "date": moment(commit.at),
            }));
        }
        Ok(Some(shown))
    })
    .await
}
