//! What the other side has already, and which files are meant: what an exporter leaves out.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{BundleError, io};
use crate::digest::Digest;
use crate::reference::Nation;
use crate::store::{Store, sync_folder};
use crate::timestamp::Timestamp;

/// The format's name in the list.
const FORMAT: &str = "steelyard-have";
/// The version of the format.
const VERSION: u32 = 1;
/// Most blobs in a list: some thousands of models.
pub const MAX_HAVE: usize = 1024 * 1024;
/// Most bytes of a list: 70 a blob, and room.
const MAX_BYTES: u64 = 96 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    format: String,
    version: u32,
    /// Whose node it is.
    nation: Nation,
    made: Timestamp,
    blobs: Vec<Digest>,
}

/// Writes a list of every whole blob here to `out`, which must not exist; how many there are.
pub fn write_have(store: &Store, out: &Path, now: Timestamp) -> Result<usize, BundleError> {
    let blobs = store.blobs()?;
    let count = blobs.len();
    let list = List { format: FORMAT.to_owned(), version: VERSION, nation: store.own(), made: now, blobs };
    let json = serde_json::to_vec(&list).unwrap_or_default();
    let folder = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fail = io(out);
    let mut file = tempfile::Builder::new().prefix(".steelyard-have-").tempfile_in(folder).map_err(&fail)?;
    file.write_all(&json).and_then(|()| file.as_file().sync_all()).map_err(&fail)?;
    file.persist_noclobber(out).map_err(|error| match error.error.kind() {
        std::io::ErrorKind::AlreadyExists => BundleError::Exists { path: out.to_owned() },
        _ => fail(error.error),
    })?;
    sync_folder(folder)?;
    Ok(count)
}

/// Reads such a list, of another's.
pub fn read_have(path: &Path) -> Result<BTreeSet<Digest>, BundleError> {
    let wrong = |why: String| BundleError::NotAList { path: path.to_owned(), why };
    let mut bytes = Vec::new();
    File::open(path).map_err(io(path))?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io(path))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(wrong(format!("it is over the limit of {MAX_BYTES} bytes")));
    }
    let list: List =
        serde_json::from_slice(&bytes).map_err(|error| wrong(crate::shorten(&error.to_string())))?;
    if list.format != FORMAT || list.version != VERSION {
        return Err(wrong(format!("its format is not `{FORMAT}`, version {VERSION}")));
    }
    if list.blobs.len() > MAX_HAVE {
        return Err(wrong(format!("it names more than {MAX_HAVE} blobs")));
    }
    Ok(list.blobs.into_iter().collect())
}

/// Names of files with `*` for any characters and `?` for one.
#[derive(Debug, Clone)]
pub struct Matcher(Vec<char>);

impl Matcher {
    /// Of a pattern that a person wrote.
    pub fn new(pattern: &str) -> Self {
        Self(pattern.chars().collect())
    }

    /// The pattern.
    pub fn pattern(&self) -> String {
        self.0.iter().collect()
    }

    /// Whether the path fits. Linear in the path for each `*`.
    pub fn fits(&self, path: &str) -> bool {
        let path: Vec<char> = path.chars().collect();
        let (mut at, mut next) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while at < path.len() {
            match self.0.get(next) {
                Some('*') => {
                    star = Some((next, at));
                    next += 1;
                }
                Some(wanted) if *wanted == '?' || path.get(at) == Some(wanted) => {
                    at += 1;
                    next += 1;
                }
                _ => match star {
                    Some((from, upto)) => {
                        star = Some((from, upto + 1));
                        (next, at) = (from + 1, upto + 1);
                    }
                    None => return false,
                },
            }
        }
        self.0.get(next..).unwrap_or_default().iter().all(|rest| *rest == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_paths() {
        let fits = |pattern: &str, path: &str| Matcher::new(pattern).fits(path);
        assert!(fits("*.json", "config.json") && fits("*", "a/b") && fits("a/*/c?", "a/b/b/cd"));
        assert!(fits("", "") && fits("**a", "aaa") && !fits("*.json", "config.jsonl"));
        assert!(!fits("a", "") && !fits("", "a") && !fits("?", "") && fits("*b*b", "abab"));
    }
}
