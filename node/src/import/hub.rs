//! A hub that speaks Hugging Face's interface: what a model's revision holds, with the hub's own hashes.

use std::collections::BTreeSet;

use hyper::header;
use registry::digest::Sha256;
use registry::statement::MAX_FILES;
use serde::Deserialize;

use super::{Check, GitHash, ImportError, Place, Plan, Planned, Source};
use crate::fetch_http::{Client, FetchError};

/// Longest answer about a model, or page of its files.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// Most pages of files: of a thousand entries each, folders among them, more than any release may have.
const MAX_PAGES: usize = 64;
/// Largest file that is not kept apart and so named by git's hash alone: the hub's own limit is 10 MB.
const MAX_GIT: u64 = 64 * 1024 * 1024;
/// Longest owner, name or revision.
const MAX_WORD: usize = 200;
/// The revision where none is named.
const MAIN: &str = "main";

/// A model of a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubModel {
    name: String,
    revision: String,
}

impl HubModel {
    /// Reads `ORG/NAME[@REVISION]`, or `NAME` alone as old models are called.
    pub fn parse(text: &str) -> Result<Self, ImportError> {
        let wrong = |why| ImportError::Source { text: text.chars().take(MAX_WORD).collect(), why };
        let (name, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let plain = |word: &str| {
            !word.is_empty()
                && word.len() <= MAX_WORD
                && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
                && !matches!(word, "." | "..")
        };
        if name.split('/').count() > 2 || !name.split('/').all(plain) {
            return Err(wrong("write hf:ORG/NAME or hf:ORG/NAME@REVISION"));
        }
        // Branches may hold a `/`, as `refs/pr/1` does.
        if !revision.split('/').all(plain) || revision.len() > MAX_WORD {
            return Err(wrong("a revision is a branch, a tag or a commit"));
        }
        Ok(Self { name: name.to_owned(), revision: revision.to_owned() })
    }
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(rename = "cardData", default)]
    card: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    oid: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    lfs: Option<Large>,
}

#[derive(Deserialize)]
struct Large {
    oid: String,
    size: u64,
}

/// `text` as one segment of an address.
pub(super) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn malformed(url: &str, why: impl ToString) -> ImportError {
    FetchError::Malformed { url: url.to_owned(), why: why.to_string() }.into()
}

/// Asks the hub at `endpoint` (`https://hub.example`, also with a path) what `model` holds.
pub async fn plan(client: &Client, endpoint: &str, model: &HubModel) -> Result<Plan, ImportError> {
    let endpoint = endpoint.trim_end_matches('/');
    let HubModel { name, revision } = model;
    let url = format!("{endpoint}/api/models/{name}/revision/{}", segment(revision));
    let answer = client.get(&url, &[(header::ACCEPT, "application/json")]).await?.good().await?;
    let info: Info =
        serde_json::from_slice(&answer.bytes(MAX_ANSWER).await?).map_err(|error| malformed(&url, error))?;
    if GitHash::from_hex(&info.sha).is_none() {
        return Err(malformed(&url, "its `sha` is no commit of 40 hexadecimal digits"));
    }
    let commit = info.sha;
    let licence = info
        .card
        .as_ref()
        .and_then(|card| card.get("license")?.as_str())
        .filter(|text| text.len() <= MAX_WORD && !text.chars().any(char::is_control))
        .map(str::to_owned);
    let mut files = Vec::new();
    for entry in entries(client, endpoint, name, &commit).await? {
        files.push(planned(endpoint, name, &commit, entry)?);
    }
    let source = Source {
        format: "huggingface-hub",
        name: name.clone(),
        uri: format!("{endpoint}/{name}"),
        algorithm: "gitCommit",
        revision: commit,
        licence,
    };
    Ok(Plan { source, files, left_out: Vec::new() })
}

/// Every file of a commit, page by page.
async fn entries(
    client: &Client,
    endpoint: &str,
    name: &str,
    commit: &str,
) -> Result<Vec<Entry>, ImportError> {
    let mut url = format!("{endpoint}/api/models/{name}/tree/{commit}?recursive=true");
    let mut asked = BTreeSet::new();
    let mut found: Vec<Entry> = Vec::new();
    loop {
        if asked.len() >= MAX_PAGES || !asked.insert(url.clone()) {
            return Err(malformed(&url, "its list of files does not end"));
        }
        let answer = client.get(&url, &[(header::ACCEPT, "application/json")]).await?.good().await?;
        let next = answer.header(header::LINK).and_then(next_page).map(str::to_owned);
        let page: Vec<Entry> = serde_json::from_slice(&answer.bytes(MAX_ANSWER).await?)
            .map_err(|error| malformed(&url, error))?;
        found.extend(page.into_iter().filter(|entry| entry.kind == "file"));
        if found.len() > 4 * MAX_FILES {
            return Err(ImportError::TooMany { what: "files", limit: 4 * MAX_FILES as u64 });
        }
        match next {
            None => return Ok(found),
            // A page is asked for where the first was, whatever host the link names.
            Some(next) => {
                let query = next.split_once('?').map(|(_, query)| query).unwrap_or_default();
                url = format!("{endpoint}/api/models/{name}/tree/{commit}?{query}");
            }
        }
    }
}

/// The address of the next page in a `Link` header.
fn next_page(header: &str) -> Option<&str> {
    header.split(',').find_map(|one| {
        let (address, more) = one.trim().strip_prefix('<')?.split_once('>')?;
        more.contains("rel=\"next\"").then_some(address)
    })
}

fn planned(endpoint: &str, name: &str, commit: &str, entry: Entry) -> Result<Planned, ImportError> {
    let wrong =
        |why: &str| ImportError::Wrong { path: entry.path.chars().take(200).collect(), why: why.to_owned() };
    let (size, check) = match &entry.lfs {
        Some(large) => {
            let hex = large.oid.strip_prefix("sha256:").unwrap_or(&large.oid);
            let digest = Sha256::from_hex(hex).map_err(|_| wrong("the hub names no SHA-256 of it"))?;
            (large.size, Check::Sha256(digest))
        }
        None if entry.size > MAX_GIT => {
            return Err(wrong("the hub names no SHA-256 of it, and it is too large for less"));
        }
        None => {
            let git = GitHash::from_hex(&entry.oid).ok_or_else(|| wrong("the hub names no hash of it"))?;
            (entry.size, Check::Git(git))
        }
    };
    let path: Vec<String> = entry.path.split('/').map(segment).collect();
    let url = format!("{endpoint}/{name}/resolve/{commit}/{}", path.join("/"));
    Ok(Planned { path: entry.path, size, check, place: Place::Url(url) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_and_revisions() {
        let model = HubModel::parse("org/name@refs/pr/1").unwrap();
        assert_eq!((model.name.as_str(), model.revision.as_str()), ("org/name", "refs/pr/1"));
        assert_eq!(HubModel::parse("gpt2").unwrap().revision, MAIN);
        for wrong in ["", "a/b/c", "../x", "a/..", "a/b@", "a/b@../x", "a b/c", "a/b?x", "a/b@x%2f"] {
            assert!(HubModel::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_next_page_is_the_one_that_says_so() {
        assert_eq!(next_page("<https://x/a?cursor=1>; rel=\"next\""), Some("https://x/a?cursor=1"));
        assert_eq!(next_page("<a>; rel=\"prev\", <b>; rel=\"next\""), Some("b"));
        assert_eq!(next_page("<a>; rel=\"prev\""), None);
        assert_eq!(segment("a b#?.bin"), "a%20b%23%3F.bin");
    }
}
