//! Before a commit, and the commit.

use std::io::{BufReader, Seek, Write};
use std::sync::Arc;

use axum::Json;
use axum::body::Body as Raw;
use axum::extract::State;
use data_encoding::BASE64;
use registry::statement::MAX_FILE_SIZE;
use registry::{Model, Timestamp, path as paths};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::super::Api;
use super::super::super::guard::{Body, Path};
use super::super::caller::Caller;
use super::super::refusal::Refusal;
use super::body::{pour, refuse};
use super::{Released, author, off, own_model};
use crate::error::Problem;
use crate::staging::{
    Author, MAX_COMMIT_BYTES, Push, Pushed, Releases, StagedFile, StagingError, each_block, refuse_early,
};

/// A text no longer than this comes within the commit, as every empty file does; the rest is uploaded before.
const REGULAR: u64 = 256 * 1024;
/// Most files of one question, as the clients ask.
const MAX_ASKED: usize = 1024;

type Three = Result<Path<(String, String, String)>, Problem>;

/// A file that somebody wants to push.
#[derive(Debug, Deserialize)]
struct Wanted {
    path: String,
    #[serde(default)]
    sample: String,
    size: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Question {
    files: Vec<Wanted>,
}

/// The branch that a revision names.
fn branch_of(caller: &Caller, revision: &str) -> Result<String, Refusal> {
    if caller.flag("create_pr") || revision.starts_with("refs/pr/") {
        return Err(Refusal::Wrong("this node has no pull requests; push to a branch".to_owned()));
    }
    let revision = revision.strip_prefix("refs/heads/").unwrap_or(revision);
    Ok(revision.strip_prefix("staged/").unwrap_or(revision).to_owned())
}

/// `POST …/preupload/{revision}`: how each file is to come. What is sure to be refused is refused before it is uploaded.
pub(super) async fn preupload(
    State(api): State<Api>,
    caller: Caller,
    path: Three,
    body: Result<Body<Question>, Problem>,
) -> Result<Json<Value>, Refusal> {
    author(&api, &caller)?;
    let (Path((nation, name, revision)), Body(question)) = (path?, body?);
    let model = own_model(&api, &caller, &nation, &name)?;
    let branch = branch_of(&caller, &revision)?;
    if question.files.len() > MAX_ASKED {
        return Err(Refusal::Wrong(format!("a question names at most {MAX_ASKED} files")));
    }
    let answers = off(move || {
        let before = files_of(&api, &model, &branch)?;
        question.files.iter().map(|wanted| answer(&api, wanted, before.get(&wanted.path))).collect()
    });
    let answers: Vec<Value> = answers.await?;
    Ok(Json(json!({ "files": answers })))
}

/// What a branch holds, staged or released; nothing where `main` is to begin.
fn files_of(
    api: &Api,
    model: &Model,
    branch: &str,
) -> Result<std::collections::BTreeMap<String, StagedFile>, StagingError> {
    let (area, releases) = (&api.hub().push.area, Released::of(api, model)?);
    let repo = area.repo(model)?;
    if let Some(commit) = repo.as_ref().and_then(|repo| repo.find(branch)) {
        return Ok(area.commit(model, commit)?.files);
    }
    match releases.start(branch)? {
        Some(start) => Ok(start.files),
        None if repo.is_none() && !releases.any()? => Err(StagingError::NoRepo(format!(
            "{model} is neither staged nor released here; make it with `create_repo` first"
        ))),
        None if branch == crate::staging::MAIN => Ok(std::collections::BTreeMap::new()),
        None => Err(StagingError::NoRevision(format!(
            "{model} has no branch `{}`; make it with `create_branch` first",
            branch.chars().take(80).collect::<String>()
        ))),
    }
}

fn answer(api: &Api, wanted: &Wanted, before: Option<&StagedFile>) -> Result<Value, StagingError> {
    let Wanted { path, sample, size } = wanted;
    paths::check(path).map_err(|error| StagingError::Wrong(error.to_string()))?;
    let sample = BASE64.decode(sample.as_bytes());
    let sample = sample.map_err(|_| StagingError::Wrong(format!("the sample of `{path}` is no base64")))?;
    refuse_early(path, &sample)?;
    if *size > MAX_FILE_SIZE {
        return Err(StagingError::TooLarge(format!(
            "`{path}` has {size} bytes, over the limit of {MAX_FILE_SIZE}; split it into shards"
        )));
    }
    let regular = *size <= REGULAR && is_text(&sample);
    let oid = match before {
        None => None,
        Some(file) if !regular => Some(file.sha256.to_hex()),
        Some(file) if file.size <= REGULAR => Some(api.hub().push.area.git_hash(api.store(), file)?),
        Some(_) => None,
    };
    let mode = if regular { "regular" } else { "lfs" };
    Ok(json!({ "path": path, "uploadMode": mode, "shouldIgnore": false, "oid": oid }))
}

/// The sample may end within a character.
fn is_text(sample: &[u8]) -> bool {
    let valid = match std::str::from_utf8(sample) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    valid && !sample.contains(&0)
}

/// `POST …/commit/{revision}`, lines of JSON.
pub(super) async fn commit(
    State(api): State<Api>,
    caller: Caller,
    path: Three,
    body: Raw,
) -> Result<Json<Value>, Refusal> {
    let (by, model, branch) = match prepare(&api, &caller, path) {
        Ok(prepared) => prepared,
        Err(refusal) => return Err(refuse(body, refusal).await),
    };
    let url = format!("{}/{model}/commit", caller.origin);
    let area = Arc::clone(&api.hub().push.area);
    let asked = api.clone();
    let pushed = pour(&asked, body, MAX_COMMIT_BYTES, move |mut pieces| {
        // All of it first: nothing is done of a commit that is cut off.
        let mut scratch = area.scratch()?;
        each_block(&mut pieces, |bytes| scratch.write_all(bytes).map_err(crate::staging::writing))?;
        scratch.rewind().map_err(crate::staging::writing)?;
        let releases = Released::of(&api, &model)?;
        let (store, now) = (api.store(), Timestamp::now());
        let push = Push { model: &model, branch: &branch, by: &by, releases: &releases, store, now };
        area.push(&push, BufReader::new(scratch.as_file()))
    });
    let Pushed { commit } = pushed.await?;
    Ok(Json(json!({
        "success": true,
        "commitOid": commit,
        "commitUrl": format!("{url}/{commit}"),
        "hookOutput": "",
        "pullRequestUrl": null,
    })))
}

fn prepare(api: &Api, caller: &Caller, path: Three) -> Result<(Author, Model, String), Refusal> {
    let by = author(api, caller)?;
    let Path((nation, name, revision)) = path?;
    Ok((by, own_model(api, caller, &nation, &name)?, branch_of(caller, &revision)?))
}
