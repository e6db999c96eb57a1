//! What a model is: its files and revisions, its branches, tags and commits, and the search for models.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use registry::reference::DEFAULT_CHANNEL;
use registry::{ChannelName, Digest, Model, Reference, Timestamp};
use serde_json::{Map, Value, json};

use super::super::Api;
use super::super::guard::Path;
use super::super::stream::blocking;
use super::caller::Caller;
use super::names::{MAIN, Names, commit};
use super::refusal::{REPO_COMMIT, Refusal};
use super::text::{encode, first};
use super::tree::pointer;
use super::{Found, find, meaning, names_of, push};
use crate::error::Problem;

/// Most models or commits of one page, and how many where nobody says.
const PAGE: usize = 1000;
/// Most letters of a search.
const MAX_SEARCH: usize = 200;
const TOTAL: HeaderName = HeaderName::from_static("x-total-count");

type Two = Result<Path<(String, String)>, Problem>;
type Three = Result<Path<(String, String, String)>, Problem>;

/// A point in time as the hub writes it.
pub(super) fn moment(at: Timestamp) -> String {
    at.to_string().replace('Z', ".000Z")
}

/// `link` with `rel="next"`.
pub(super) fn next_page(headers: &mut HeaderMap, link: &str) {
    if let Ok(value) = HeaderValue::try_from(format!("<{link}>; rel=\"next\"")) {
        headers.insert(header::LINK, value);
    }
}

pub(super) async fn model(State(api): State<Api>, caller: Caller, path: Two) -> Result<Response, Refusal> {
    let Path((nation, name)) = path?;
    describe(&api, &caller, &nation, &name, MAIN).await
}

pub(super) async fn revision(
    State(api): State<Api>,
    caller: Caller,
    path: Three,
) -> Result<Response, Refusal> {
    let Path((nation, name, revision)) = path?;
    describe(&api, &caller, &nation, &name, &revision).await
}

async fn describe(
    api: &Api,
    caller: &Caller,
    nation: &str,
    name: &str,
    revision: &str,
) -> Result<Response, Refusal> {
    let found = find(api, caller, nation, name, revision).await?;
    let mut all = card(&found);
    let blobs = caller.flag("blobs");
    let siblings = found.known.release.files.iter().map(|file| {
        if !blobs {
            return json!({ "rfilename": file.path });
        }
        let (oid, len) = pointer(file);
        json!({
            "rfilename": file.path,
            "size": file.size,
            "blobId": oid,
            "lfs": { "sha256": file.sha256.to_hex(), "size": file.size, "pointerSize": len },
        })
    });
    all.insert("siblings".to_owned(), siblings.collect());
    // Only what is asked for, where something is.
    let asked: Vec<&str> = caller
        .query
        .iter()
        .filter(|(name, _)| name == "expand")
        .flat_map(|(_, value)| value.split(','))
        .collect();
    if !asked.is_empty() {
        all.retain(|name, _| {
            matches!(name.as_str(), "_id" | "id" | "modelId") || asked.contains(&name.as_str())
        });
    }
    let mut response = Json(Value::Object(all)).into_response();
    if let Ok(value) = HeaderValue::try_from(found.known.commit()) {
        response.headers_mut().insert(REPO_COMMIT, value);
    }
    found.warn(response.headers_mut());
    Ok(response)
}

fn card(found: &Found) -> Map<String, Value> {
    let release = &found.known.release;
    let first = found.names.releases.first().map_or(release.issued, |entry| entry.issued);
    let licence = release.licence.to_ascii_lowercase();
    let mut tags = vec![release.format.clone()];
    if !licence.is_empty() {
        tags.push(format!("license:{licence}"));
    }
    let all = json!({
        "_id": found.known.digest.to_hex().get(..24),
        "id": release.model,
        "modelId": release.model,
        "author": release.model.nation,
        "sha": found.known.commit(),
        "createdAt": moment(first),
        "lastModified": moment(release.issued),
        "private": false,
        "gated": false,
        "disabled": false,
        "downloads": 0,
        "likes": 0,
        "tags": tags,
        "config": {},
        "cardData": { "license": licence },
        "spaces": [],
        "usedStorage": release.size(),
    });
    match all {
        Value::Object(all) => all,
        _ => Map::new(),
    }
}

/// Where each channel points, of those whose release is known.
fn branches(api: &Api, model: &Model, names: &Names) -> Vec<(ChannelName, Digest)> {
    let target = |channel: &ChannelName| {
        let reference = Reference::Channel(model.clone(), channel.clone());
        let release = api.store().resolve(&reference).ok().flatten()?;
        names.releases.iter().any(|entry| entry.release == release).then(|| (channel.clone(), release))
    };
    names.channels.iter().filter_map(target).collect()
}

pub(super) async fn refs(State(api): State<Api>, caller: Caller, path: Two) -> Result<Json<Value>, Refusal> {
    let Path((nation, name)) = path?;
    let staged = push::refs(&api, &caller, &nation, &name).await?;
    let (model, names) = match names_of(&api, &caller, &nation, &name).await {
        Err(Refusal::NoModel { .. }) if staged.is_some() => {
            let model = format!("{nation}/{name}").parse::<Model>();
            (model.map_err(|error| Refusal::Wrong(error.to_string()))?, Arc::default())
        }
        found => found?,
    };
    let (asked, of, known) = (api.clone(), model.clone(), names.clone());
    let branches = blocking(move || Ok(branches(&asked, &of, &known))).await?;
    let entry = |kind: &str, name: &str, release: &Digest| json!({ "name": name, "ref": format!("refs/{kind}/{name}"), "targetCommit": commit(release) });
    // `main` first: some clients take the first.
    let main = branches.iter().find(|(name, _)| name.as_str() == DEFAULT_CHANNEL);
    let main = main.filter(|_| branches.iter().all(|(name, _)| name.as_str() != MAIN));
    let main = main.map(|(_, release)| entry("heads", MAIN, release));
    let others = branches.iter().map(|(name, release)| entry("heads", name.as_str(), release));
    let tags = names.releases.iter().rev().map(|it| entry("tags", it.version.as_str(), &it.release));
    let mut branches: Vec<Value> = main.into_iter().chain(others).collect();
    let mut tags: Vec<Value> = tags.collect();
    let staged = staged.unwrap_or_default();
    for (list, kind, here) in [(&mut branches, "heads", &staged.branches), (&mut tags, "tags", &staged.tags)]
    {
        for (name, commit) in here {
            list.retain(|entry| entry["name"] != name.as_str());
            let entry = json!({ "name": name, "ref": format!("refs/{kind}/{name}"), "targetCommit": commit });
            list.insert(if name == MAIN { 0 } else { list.len() }, entry);
        }
    }
    let mut all = json!({ "branches": branches, "converts": [], "tags": tags });
    if caller.flag("include_prs") {
        all["pullRequests"] = json!([]);
    }
    Ok(Json(all))
}

/// Where a page begins, and how long it is.
fn page(caller: &Caller) -> Result<(Option<&str>, usize), Refusal> {
    let limit = match caller.value("limit") {
        None => PAGE,
        Some(text) => text
            .parse::<usize>()
            .ok()
            .filter(|limit| *limit > 0)
            .ok_or_else(|| Refusal::Wrong("`limit` is a number above 0".to_owned()))?,
    };
    Ok((caller.value("cursor"), limit.min(PAGE)))
}

pub(super) async fn commits(
    State(api): State<Api>,
    caller: Caller,
    path: Three,
) -> Result<Response, Refusal> {
    let Path((nation, name, revision)) = path?;
    if let Some(staged) = push::commits(&api, &caller, &nation, &name, &revision).await? {
        let total = HeaderValue::from(staged.len());
        return Ok(([(TOTAL, total)], Json(staged)).into_response());
    }
    let (model, names) = names_of(&api, &caller, &nation, &name).await?;
    let digest = meaning(&api, &model, &names, &revision).await?;
    let (cursor, limit) = page(&caller)?;
    // The history of a release is what was issued up to it.
    let upto = names.releases.iter().position(|entry| entry.release == digest).map_or(0, |at| at + 1);
    let history: Vec<_> = names.releases.iter().take(upto).rev().collect();
    let from = match cursor {
        None => 0,
        Some(cursor) => history
            .iter()
            .position(|entry| commit(&entry.release) == cursor)
            .ok_or_else(|| Refusal::Wrong("`cursor` is no commit of this model".to_owned()))?,
    };
    let shown = history.iter().skip(from).take(limit);
    let list = shown.map(|entry| {
        json!({
            "id": commit(&entry.release),
            "title": format!("version {}", entry.version),
            "message": format!("release {}", entry.release),
            "authors": [{ "user": model.nation }],
            "date": moment(entry.issued),
        })
    });
    let mut response = Json(list.collect::<Value>()).into_response();
    let headers = response.headers_mut();
    headers.insert(TOTAL, HeaderValue::from(history.len()));
    if let Some(next) = history.get(from + limit) {
        let (origin, at, next) = (&caller.origin, commit(&digest), commit(&next.release));
        next_page(headers, &format!("{origin}/api/models/{model}/commits/{at}?limit={limit}&cursor={next}"));
    }
    Ok(response)
}

/// `GET /api/models`.
pub(super) async fn search(State(api): State<Api>, caller: Caller) -> Result<Response, Refusal> {
    let (cursor, limit) = page(&caller)?;
    let after = match cursor.map(str::parse::<Model>).transpose() {
        Ok(after) => after,
        Err(_) => return Err(Refusal::Wrong("`cursor` is no model's name".to_owned())),
    };
    let words: Vec<String> = caller
        .query
        .iter()
        .filter(|(name, _)| name == "search")
        .flat_map(|(_, value)| value.split_whitespace())
        .map(str::to_lowercase)
        .collect();
    if words.iter().map(String::len).sum::<usize>() > MAX_SEARCH {
        return Err(Refusal::Wrong(format!("a search has at most {MAX_SEARCH} letters")));
    }
    let author = caller.value("author").map(str::to_owned);
    let asked = api.clone();
    let found = blocking(move || {
        let store = asked.store();
        let trust = store.trust();
        let wanted = |model: &Model| {
            let name = model.to_string().to_lowercase();
            author.as_deref().is_none_or(|author| author == model.nation.as_str())
                && words.iter().all(|word| name.contains(word.as_str()))
                && trust.member(&model.nation).is_ok()
        };
        let mut models = asked.hub().catalogue.models(store, after.as_ref(), limit + 1, wanted)?;
        let more = models.len() > limit;
        models.truncate(limit);
        let sha = |model: &Model, names: &Names| {
            let branches = branches(&asked, model, names);
            let main = branches.iter().find(|(name, _)| matches!(name.as_str(), MAIN | DEFAULT_CHANNEL));
            main.map(|(_, release)| commit(release))
        };
        let entries: Vec<Value> =
            models.iter().map(|(model, names)| entry(model, names, sha(model, names))).collect();
        Ok((entries, models.pop().filter(|_| more).map(|(model, _)| model)))
    });
    let (entries, next) = found.await?;
    let mut response = Json(entries).into_response();
    if let Some(next) = next {
        let mut link =
            format!("{}/api/models?limit={limit}&cursor={}", caller.origin, encode(&next.to_string()));
        for name in ["search", "author"] {
            if let Some(value) = first(&caller.query, name) {
                link.push_str(&format!("&{name}={}", encode(value)));
            }
        }
        next_page(response.headers_mut(), &link);
    }
    Ok(response)
}

fn entry(model: &Model, names: &Names, sha: Option<String>) -> Value {
    let at = |entry: Option<&super::names::Entry>| entry.map(|entry| moment(entry.issued));
    json!({
        "_id": registry::Digest::of(model.to_string().as_bytes()).to_hex().get(..24),
        "id": model,
        "modelId": model,
        "author": model.nation,
        "sha": sha,
        "createdAt": at(names.releases.first()),
        "lastModified": at(names.releases.last()),
        "private": false,
        "gated": false,
        "disabled": false,
        "downloads": 0,
        "likes": 0,
        "tags": [],
    })
}
