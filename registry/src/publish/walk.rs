//! Finding the files of a folder, without following anything out of it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::PublishError;
use crate::path::{self, MAX_DEPTH};
use crate::statement::{MAX_FILE_SIZE, MAX_FILES};

/// Most entries of all folders together that are looked at, files that are left out among them.
const MAX_ENTRIES: usize = 4 * MAX_FILES;

/// Something that was left out of a draft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its path in the folder.
    pub path: String,
    /// Why.
    pub why: String,
}

/// A file to take in.
pub(super) struct Found {
    /// Its path in the release.
    pub(super) path: String,
    /// Where it is.
    pub(super) source: PathBuf,
    pub(super) size: u64,
}

pub(super) struct Walk {
    pub(super) files: Vec<Found>,
    pub(super) skipped: Vec<Skipped>,
}

/// Every file under `path`, by its path in the release; or `path` alone when it is a file.
pub(super) fn walk(path: &Path) -> Result<Walk, PublishError> {
    let io = |source| PublishError::Io { path: path.to_owned(), source };
    // What the person names may be a link; what lies in it may not lead out.
    let top = path.canonicalize().map_err(io)?;
    let mut walk = Walk { files: Vec::new(), skipped: Vec::new() };
    if fs::metadata(&top).map_err(io)?.is_dir() {
        let mut seen = 0;
        folder(&top, &top, "", 0, &mut seen, &mut walk)?;
    } else {
        let name = path.file_name().or(top.file_name()).and_then(|name| name.to_str());
        let name = name.ok_or_else(|| PublishError::NotUtf8 { path: path.to_owned() })?.to_owned();
        file(&top, name, &mut walk)?;
    }
    if walk.files.len() > MAX_FILES {
        return Err(PublishError::TooMany { path: path.to_owned(), limit: MAX_FILES });
    }
    walk.files.sort_by(|a, b| a.path.cmp(&b.path));
    path::check_all(walk.files.iter().map(|file| file.path.as_str()))
        .map_err(|source| PublishError::Path { path: path.to_owned(), source })?;
    if walk.files.is_empty() {
        return Err(PublishError::Empty { path: path.to_owned(), skipped: walk.skipped });
    }
    Ok(walk)
}

fn folder(
    top: &Path,
    at: &Path,
    prefix: &str,
    depth: usize,
    seen: &mut usize,
    walk: &mut Walk,
) -> Result<(), PublishError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| PublishError::Io { path, source }
    };
    for entry in fs::read_dir(at).map_err(io(at))? {
        let entry = entry.map_err(io(at))?;
        let source = entry.path();
        *seen += 1;
        if *seen > MAX_ENTRIES || walk.files.len() > MAX_FILES {
            return Err(PublishError::TooMany { path: top.to_owned(), limit: MAX_FILES });
        }
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| PublishError::NotUtf8 { path: source.clone() })?;
        let path = format!("{prefix}{name}");
        if name.starts_with('.') {
            walk.skipped.push(Skipped { path, why: "its name begins with a dot".to_owned() });
            continue;
        }
        let mut kind = entry.file_type().map_err(io(&source))?;
        let mut real = source.clone();
        if kind.is_symlink() {
            real = source
                .canonicalize()
                .map_err(|_| PublishError::Link { path: source.clone(), what: "that leads nowhere" })?;
            if !real.starts_with(top) {
                return Err(PublishError::Link { path: source, what: "out of the folder" });
            }
            kind = fs::metadata(&real).map_err(io(&source))?.file_type();
            if kind.is_dir() {
                return Err(PublishError::Link { path: source, what: "to a folder" });
            }
        }
        if kind.is_dir() {
            // One deeper than a path may be, so that the path's own rule names the file that breaks it.
            if depth > MAX_DEPTH {
                let source = path::check(&format!("{path}/x")).err();
                return source.map_or(Ok(()), |source| Err(PublishError::Path { path: real, source }));
            }
            folder(top, &source, &format!("{path}/"), depth + 1, seen, walk)?;
        } else if kind.is_file() {
            file(&real, path, walk)?;
        } else {
            return Err(PublishError::Special { path: source });
        }
    }
    Ok(())
}

fn file(source: &Path, path: String, walk: &mut Walk) -> Result<(), PublishError> {
    let meta =
        fs::metadata(source).map_err(|error| PublishError::Io { path: source.to_owned(), source: error })?;
    if !meta.is_file() {
        return Err(PublishError::Special { path: source.to_owned() });
    }
    if meta.len() > MAX_FILE_SIZE {
        return Err(PublishError::TooLarge {
            path: source.to_owned(),
            size: meta.len(),
            limit: MAX_FILE_SIZE,
        });
    }
    path::check(&path).map_err(|error| PublishError::Path { path: source.to_owned(), source: error })?;
    walk.files.push(Found { path, source: source.to_owned(), size: meta.len() });
    Ok(())
}
