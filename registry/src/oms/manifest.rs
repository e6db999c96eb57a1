//! The files that a bundle speaks of, and whether a folder is made of exactly these.

use std::collections::BTreeMap;

use sha2::Digest as _;

use super::{MAX_IGNORED, MAX_NAME, OmsError};
use crate::digest::Sha256;
use crate::path;
use crate::statement::MAX_FILES;

/// How many wrong files a message names.
const SHOWN: usize = 8;

/// What a bundle signs: a folder's files with their SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    name: String,
    files: Vec<(String, Sha256)>,
    ignored: Vec<String>,
}

/// A file that is not as it was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MismatchedFile {
    /// Its path.
    pub path: String,
    /// What is wrong.
    pub what: &'static str,
}

pub(super) fn list(files: &[MismatchedFile]) -> String {
    let mut out: Vec<String> = files
        .iter()
        .take(SHOWN)
        .map(|file| format!("`{}` {}", crate::shorten(&file.path), file.what))
        .collect();
    if files.len() > SHOWN {
        out.push(format!("and {} more", files.len() - SHOWN));
    }
    out.join("; ")
}

impl Manifest {
    /// A manifest of these files, under rules stricter than the stock client's: paths as a release may have them, none
    /// twice, and no ignored path that hides a listed one. The order of the files is kept: the digest depends on it.
    pub fn new(name: String, files: Vec<(String, Sha256)>, ignored: Vec<String>) -> Result<Self, OmsError> {
        let refuse = |why: String| Err(OmsError::Files(why));
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return refuse(format!(
                "the model's name must be 1 to {MAX_NAME} bytes without control characters"
            ));
        }
        if files.is_empty() || files.len() > MAX_FILES {
            return refuse(format!("1 to {MAX_FILES} files are expected, it lists {}", files.len()));
        }
        path::check_all(files.iter().map(|(path, _)| path.as_str()))
            .map_err(|error| OmsError::Files(error.to_string()))?;
        if ignored.len() > MAX_IGNORED {
            return refuse(format!("it leaves out {} paths, over the limit of {MAX_IGNORED}", ignored.len()));
        }
        for left in &ignored {
            path::check(left).map_err(|error| OmsError::Files(format!("ignore_paths: {error}")))?;
            let hides = |file: &str| file == left || file.starts_with(&format!("{left}/"));
            if let Some((file, _)) = files.iter().find(|(file, _)| hides(file)) {
                return refuse(format!("`{}` is both listed and left out", crate::shorten(file)));
            }
        }
        Ok(Self { name, files, ignored })
    }

    /// The model's name: the folder's, where it was signed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Each file's path and SHA-256, in the signed order.
    pub fn files(&self) -> &[(String, Sha256)] {
        &self.files
    }

    /// Paths that the signer left out.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// SHA-256 over the files' digests in their order: the statement's subject.
    pub fn root(&self) -> Sha256 {
        let mut hasher = sha2::Sha256::new();
        for (_, digest) in &self.files {
            hasher.update(digest.as_bytes());
        }
        Sha256::from_bytes(hasher.finalize().into())
    }

    /// Compares with a folder's files, the bundle itself not among them. Every file must be listed and every listed one
    /// be there: what the signer left out is not signed, and so it has no place in a release that says it is.
    pub fn compare<'a>(
        &self,
        folder: impl IntoIterator<Item = (&'a str, &'a Sha256)>,
    ) -> Result<(), OmsError> {
        let mut wanted: BTreeMap<&str, &Sha256> =
            self.files.iter().map(|(path, digest)| (path.as_str(), digest)).collect();
        let mut wrong = Vec::new();
        let mut say = |path: &str, what| wrong.push(MismatchedFile { path: path.to_owned(), what });
        for (path, digest) in folder {
            match wanted.remove(path) {
                Some(signed) if signed == digest => {}
                Some(_) => say(path, "has other content"),
                None => say(path, "was not signed"),
            }
        }
        for path in wanted.keys() {
            say(path, "is missing");
        }
        if wrong.is_empty() { Ok(()) } else { Err(OmsError::Mismatch(wrong)) }
    }
}
