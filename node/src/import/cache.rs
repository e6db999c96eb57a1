//! The cache of a hub's clients: `models--ORG--NAME` with its blobs, each named by the hash that the hub told, and its snapshots
//! of links to them.

use std::fs;
use std::path::{Path, PathBuf};

use registry::digest::Sha256;
use registry::path::MAX_DEPTH;
use registry::statement::MAX_FILES;

use super::{Check, GitHash, ImportError, Place, Plan, Planned, Source, disk};

/// Most entries of a snapshot's folders.
const MAX_ENTRIES: usize = 4 * MAX_FILES;
/// Longest file of a reference: a commit and a line's end.
const MAX_REFERENCE: u64 = 64;

/// Reads `FOLDER[@REVISION]`: the folder of one model in a cache.
pub fn parse(text: &str) -> (PathBuf, Option<&str>) {
    let whole = Path::new(text);
    match text.rsplit_once('@') {
        Some((folder, revision)) if !whole.exists() && !revision.is_empty() => {
            (folder.into(), Some(revision))
        }
        _ => (whole.to_owned(), None),
    }
}

/// What the cache's folder of a model holds of a revision (`main` where none is named).
pub fn plan(folder: &Path, revision: Option<&str>) -> Result<Plan, ImportError> {
    let cache = |path: &Path, why: &str| ImportError::Cache { path: path.to_owned(), why: why.to_owned() };
    let top = folder.canonicalize().map_err(disk(folder))?;
    let called = top.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = called.strip_prefix("models--").map(|rest| rest.replace("--", "/")).ok_or_else(|| {
        cache(folder, "it is no model in a cache: such a folder is called models--ORG--NAME")
    })?;
    let commit = commit(&top, revision.unwrap_or("main"))?;
    let snapshot = top.join("snapshots").join(&commit);
    if !snapshot.is_dir() {
        return Err(cache(&snapshot, "the cache holds no such snapshot"));
    }
    let mut files = Vec::new();
    let mut open = vec![(snapshot.clone(), String::new(), 0)];
    let mut seen = 0;
    while let Some((at, prefix, depth)) = open.pop() {
        for entry in fs::read_dir(&at).map_err(disk(&at))? {
            let entry = entry.map_err(disk(&at))?;
            seen += 1;
            if seen > MAX_ENTRIES {
                return Err(ImportError::TooMany { what: "files", limit: MAX_FILES as u64 });
            }
            let own = entry.file_name();
            let own = own.to_str().ok_or_else(|| cache(&entry.path(), "its name is not UTF-8"))?;
            let path = format!("{prefix}{own}");
            let kind = entry.file_type().map_err(disk(entry.path()))?;
            if kind.is_dir() && depth < MAX_DEPTH {
                open.push((entry.path(), format!("{path}/"), depth + 1));
            } else if kind.is_symlink() {
                files.push(linked(&top, &entry.path(), path)?);
            } else {
                let why = "it is no link to a blob, so nothing says what it must be; download it anew";
                return Err(cache(&entry.path(), why));
            }
        }
    }
    let source = Source {
        format: "huggingface-cache",
        uri: format!("hf:{name}"),
        name,
        algorithm: "gitCommit",
        revision: commit,
        licence: None,
    };
    Ok(Plan { source, files, left_out: Vec::new() })
}

/// The commit that a revision means in the cache.
fn commit(top: &Path, revision: &str) -> Result<String, ImportError> {
    let is_commit = |text: &str| GitHash::from_hex(text).is_some();
    if is_commit(revision) {
        return Ok(revision.to_owned());
    }
    let wrong = |path: PathBuf, why: &str| ImportError::Cache { path, why: why.to_owned() };
    registry::path::check(revision)?;
    let path = top.join("refs").join(revision);
    let length = fs::metadata(&path).map_err(disk(&path))?.len();
    if length > MAX_REFERENCE {
        return Err(wrong(path, "it is no reference"));
    }
    let text = fs::read_to_string(&path).map_err(disk(&path))?;
    let commit = text.trim();
    if is_commit(commit) { Ok(commit.to_owned()) } else { Err(wrong(path, "it names no commit")) }
}

/// A file of a snapshot: a link to a blob of the same model.
fn linked(top: &Path, link: &Path, path: String) -> Result<Planned, ImportError> {
    let wrong = |why: &str| ImportError::Cache { path: link.to_owned(), why: why.to_owned() };
    let blob = link.canonicalize().map_err(disk(link))?;
    if blob.parent() != Some(&top.join("blobs")) {
        return Err(wrong("it leads elsewhere than to a blob of this model"));
    }
    let name = blob.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let check = match (Sha256::from_hex(name), GitHash::from_hex(name)) {
        (Ok(digest), _) => Check::Sha256(digest),
        (_, Some(git)) => Check::Git(git),
        _ => return Err(wrong("its blob is not named by a hash")),
    };
    let metadata = fs::metadata(&blob).map_err(disk(&blob))?;
    if !metadata.is_file() {
        return Err(wrong("its blob is no file"));
    }
    Ok(Planned { path, size: metadata.len(), check, place: Place::File(blob) })
}
