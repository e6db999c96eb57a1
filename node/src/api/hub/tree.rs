//! A release's files as the hub shows a folder: the tree, and questions about single paths.

use std::collections::BTreeMap;
use std::ops::Bound;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use registry::Digest;
use registry::statement::File;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::Api;
use super::super::guard::{Path, Raw};
use super::super::verdict::Known;
use super::caller::Caller;
use super::info::{moment, next_page};
use super::names::COMMIT;
use super::refusal::Refusal;
use super::text::{self, encode};
use super::{Found, find};
use crate::error::Problem;
use crate::git;

/// Most entries of one page, and how many where nobody says.
const PAGE: usize = 1000;

/// An entry of a folder.
#[derive(Debug, Clone, Copy)]
enum Entry<'a> {
    File(&'a File),
    Folder(&'a str),
}

/// The text that git holds in the place of a large file (the LFS pointer): its hash and length stand in listings.
pub(super) fn pointer(file: &File) -> (String, usize) {
    let text = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n",
        file.sha256.to_hex(),
        file.size
    );
    (git::blob_hash(text.as_bytes()), text.len())
}

/// A file as listings show it.
fn file_json(file: &File) -> Value {
    let (oid, len) = pointer(file);
    json!({
        "type": "file",
        "path": file.path,
        "size": file.size,
        "oid": oid,
        "lfs": { "oid": file.sha256.to_hex(), "size": file.size, "pointerSize": len },
    })
}

impl Entry<'_> {
    fn json(&self, known: &Known, expand: bool) -> Value {
        let mut entry = match self {
            Self::File(file) => file_json(file),
            // Any name that is the same for the same folder of the same release.
            Self::Folder(path) => {
                let mut oid = Digest::of(format!("{}/{path}", known.digest).as_bytes()).to_hex();
                oid.truncate(COMMIT);
                json!({ "type": "directory", "path": path, "oid": oid, "size": 0 })
            }
        };
        if expand {
            let title = format!("version {}", known.release.version);
            let date = moment(known.release.issued);
            entry["lastCommit"] = json!({ "id": known.commit(), "title": title, "date": date });
        }
        entry
    }
}

/// The entries of a folder (`""` is the whole), by path; nothing when there is no such folder.
fn entries<'a>(known: &'a Known, folder: &str, recursive: bool) -> Option<BTreeMap<&'a str, Entry<'a>>> {
    let inside = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let mut found = BTreeMap::new();
    for file in &known.release.files {
        let Some(rest) = file.path.strip_prefix(&inside) else { continue };
        let folders = rest.match_indices('/').map(|(at, _)| &file.path[..inside.len() + at]);
        let deep = rest.contains('/');
        for folder in folders.take(if recursive { usize::MAX } else { 1 }) {
            found.insert(folder, Entry::Folder(folder));
        }
        if recursive || !deep {
            found.insert(&file.path, Entry::File(file));
        }
    }
    // A branch that was just made has no files and is there all the same.
    (folder.is_empty() || !found.is_empty()).then_some(found)
}

type Three = Result<Path<(String, String, String)>, Problem>;
type Four = Result<Path<(String, String, String, String)>, Problem>;

pub(super) async fn root(State(api): State<Api>, caller: Caller, path: Three) -> Result<Response, Refusal> {
    let Path((nation, name, revision)) = path?;
    let found = find(&api, &caller, &nation, &name, &revision).await?;
    list(&caller, &found, "")
}

pub(super) async fn folder(State(api): State<Api>, caller: Caller, path: Four) -> Result<Response, Refusal> {
    let Path((nation, name, revision, folder)) = path?;
    let found = find(&api, &caller, &nation, &name, &revision).await?;
    list(&caller, &found, folder.trim_end_matches('/'))
}

fn list(caller: &Caller, found: &Found, folder: &str) -> Result<Response, Refusal> {
    let known = &*found.known;
    let (recursive, expand) = (caller.flag("recursive"), caller.flag("expand"));
    let Some(entries) = entries(known, folder, recursive) else {
        return Err(Refusal::NoFile { path: folder.chars().take(160).collect(), commit: known.commit() });
    };
    let limit = match caller.value("limit").map(str::parse::<usize>) {
        None => PAGE,
        Some(Ok(limit)) if limit > 0 => limit.min(PAGE),
        Some(_) => return Err(Refusal::Wrong("`limit` is a number above 0".to_owned())),
    };
    let from = caller.value("cursor").map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = entries.range::<str, _>((from, Bound::Unbounded));
    let page: Vec<(&str, Entry<'_>)> =
        rest.by_ref().take(limit).map(|(path, entry)| (*path, *entry)).collect();
    let list: Vec<Value> = page.iter().map(|(_, entry)| entry.json(known, expand)).collect();
    let mut response = Json(list).into_response();
    if let (Some(_), Some((last, _))) = (rest.next(), page.last()) {
        // By the commit: a channel may move between two pages.
        let folder: String = folder
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| format!("/{}", encode(part)))
            .collect();
        let link = format!(
            "{}/api/models/{}/tree/{}{folder}?recursive={recursive}&expand={expand}&limit={limit}&cursor={}",
            caller.origin,
            known.release.model,
            known.commit(),
            encode(last),
        );
        next_page(response.headers_mut(), &link);
    }
    found.warn(response.headers_mut());
    Ok(response)
}

/// A question about paths, in JSON.
#[derive(Debug, Deserialize)]
struct Question {
    paths: Vec<String>,
    #[serde(default)]
    expand: bool,
}

fn question(headers: &HeaderMap, body: &[u8]) -> Result<Question, Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let question = if kind.starts_with("application/json") {
        serde_json::from_slice(body)
            .map_err(|error| Refusal::Wrong(format!("the question is not understood: {error}")))?
    } else {
        let pairs = text::pairs(&String::from_utf8_lossy(body));
        let expand = text::flag(&pairs, "expand");
        let paths = pairs.into_iter().filter(|(name, _)| name == "paths").map(|(_, path)| path).collect();
        Question { paths, expand }
    };
    if question.paths.len() > text::MAX_PAIRS {
        return Err(Refusal::Wrong(format!("a question names at most {} paths", text::MAX_PAIRS)));
    }
    Ok(question)
}

/// `POST /api/models/{nation}/{name}/paths-info/{revision}`. What is not there is left out.
pub(super) async fn paths(
    State(api): State<Api>,
    caller: Caller,
    path: Three,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Result<Response, Refusal> {
    let Path((nation, name, revision)) = path?;
    let question = question(&headers, &body)?;
    let found = find(&api, &caller, &nation, &name, &revision).await?;
    let known = &*found.known;
    let list = question.paths.iter().filter_map(|path| {
        let path = path.trim_matches('/');
        let file = known.file(path).map(|(_, file)| Entry::File(file));
        let inside = format!("{path}/");
        let folder = || {
            let file = known.release.files.iter().find(|file| file.path.starts_with(&inside))?;
            file.path.get(..path.len()).map(Entry::Folder)
        };
        file.or_else(folder).map(|entry| entry.json(known, question.expand))
    });
    let mut response = Json(list.collect::<Vec<_>>()).into_response();
    found.warn(response.headers_mut());
    Ok(response)
}
