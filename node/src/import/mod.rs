//! Taking in models from where others keep them: a hub of Hugging Face's kind, its clients' cache, a registry of artifacts.
//!
//! ```text
//! hf:ORG/NAME[@REVISION]              hub.rs     git hashes of small files, SHA-256 of large ones, as the hub lists them
//! hf-cache:FOLDER[@REVISION]          cache.rs   the same, as the cache names its files
//! oci:HOST/NAME[:TAG|@DIGEST]         oci.rs     SHA-256 of each layer, as the manifest lists them
//! ```
//!
//! First a [`Plan`] is made: what would come, and what it must be. Then [`folder::Folder::fetch`] brings it into a private folder, verified file
//! by file; a run that was cut off goes on where it stopped. What comes of it is published like any folder. None of this is done by
//! a node by itself: a person runs the command, and names whom it asks.

pub mod cache;
pub mod folder;
mod hash;
pub mod hub;
pub mod oci;

use std::io;
use std::path::PathBuf;

use registry::digest::Sha256;
use registry::format::{Safety, detect};
use registry::path::PathError;
use registry::statement::{MAX_FILE_SIZE, MAX_FILES};

use crate::fetch_http::FetchError;

pub use hash::GitHash;

/// Why something could not be taken in.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// No source of a known form.
    #[error("`{text}` is no source: {why}")]
    Source {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A server.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A file's path.
    #[error("a file of the source can't be in a release: {0}")]
    Path(#[from] PathError),
    /// Too much.
    #[error("the source has more than {limit} {what}; leave some out with --exclude")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Nothing to take in.
    #[error("nothing of {0} is left to take in; look at --exclude")]
    Empty(String),
    /// Not what its source says it is.
    #[error("`{path}` is not what its source says: {why}; nothing of it was kept")]
    Wrong {
        /// The file.
        path: String,
        /// What differs.
        why: String,
    },
    /// A cache that can't be read.
    #[error("{path}: {why}")]
    Cache {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An artifact of a form that is not read.
    #[error("{name}: {why}")]
    Artifact {
        /// Which.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// Files that run code.
    #[error("`{path}`{more}: {why}")]
    Unsafe {
        /// The first of them.
        path: String,
        /// How many more there are, in words.
        more: String,
        /// Why.
        why: &'static str,
    },
    /// No room.
    #[error(
        "{needed} bytes are needed beside the store's own copy and {free} are free; make room, or leave files out with --exclude"
    )]
    Full {
        /// How many are needed, the copy in the store among them.
        needed: u64,
        /// How many there are.
        free: u64,
    },
    /// Another run.
    #[error("another command is taking in the same just now; wait for it")]
    Busy,
    /// The disk.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

pub(super) fn disk(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> ImportError {
    let path = path.into();
    move |source| ImportError::Io { path, source }
}

/// What a file must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Its SHA-256.
    Sha256(Sha256),
    /// Its name as a blob of git.
    Git(GitHash),
}

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At a server.
    Url(String),
    /// On this machine.
    File(PathBuf),
}

/// One file that would come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its path in the release.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// What it must be.
    pub check: Check,
    /// Where it is.
    pub place: Place,
}

/// From where a model comes, as exactly as its source says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `huggingface-hub`, `huggingface-cache` or `oci`.
    pub format: &'static str,
    /// The model's name there.
    pub name: String,
    /// Its address.
    pub uri: String,
    /// The algorithm of `revision`: `gitCommit` or `sha256`.
    pub algorithm: &'static str,
    /// The commit or the manifest's digest in hexadecimal.
    pub revision: String,
    /// The licence that the source names beside the files.
    pub licence: Option<String>,
}

/// What would come.
#[derive(Debug, Clone)]
pub struct Plan {
    /// From where.
    pub source: Source,
    /// The files, by path.
    pub files: Vec<Planned>,
    /// What is left out, with the reason.
    pub left_out: Vec<(String, &'static str)>,
}

impl Plan {
    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }

    /// Leaves out what matches one of `exclude`, and what no release holds; refuses what would run code when it is loaded, before
    /// a byte of it comes.
    pub fn narrowed(mut self, exclude: &[String]) -> Result<Self, ImportError> {
        let mut kept = Vec::new();
        for file in self.files {
            // What leads out of the folder is refused below, not passed over.
            let hidden =
                file.path.split('/').any(|part| part.starts_with('.') && !matches!(part, "." | ".."));
            if exclude.iter().any(|pattern| matches(pattern, &file.path)) {
                self.left_out.push((file.path, "--exclude"));
            } else if hidden {
                self.left_out.push((file.path, "its name begins with a dot"));
            } else {
                kept.push(file);
            }
        }
        kept.sort_by(|a, b| a.path.cmp(&b.path));
        self.files = kept;
        self.check()?;
        Ok(self)
    }

    fn check(&self) -> Result<(), ImportError> {
        if self.files.is_empty() {
            return Err(ImportError::Empty(self.source.name.clone()));
        }
        if self.files.len() > MAX_FILES {
            return Err(ImportError::TooMany { what: "files", limit: MAX_FILES as u64 });
        }
        registry::path::check_all(self.files.iter().map(|file| file.path.as_str()))?;
        if self.files.iter().any(|file| file.size > MAX_FILE_SIZE) {
            return Err(ImportError::TooMany { what: "bytes in one file", limit: MAX_FILE_SIZE });
        }
        // By their names; `publish` looks into them too.
        let mut dangerous = self.files.iter().filter_map(|file| {
            let kind = detect(&file.path, &[]);
            kind.objection().filter(|_| kind.safety() == Safety::MayRunCode).map(|why| (&file.path, why))
        });
        match dangerous.next() {
            None => Ok(()),
            Some((path, why)) => {
                let more = match dangerous.count() {
                    0 => String::new(),
                    count => format!(" (and {count} more)"),
                };
                Err(ImportError::Unsafe { path: path.clone(), more, why })
            }
        }
    }
}

/// Whether a path matches a pattern, in which each `*` stands for anything, `/` too.
fn matches(pattern: &str, path: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = path.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(middle) = last.replace(part) {
            match rest.find(middle) {
                Some(at) => rest = &rest[at + middle.len()..],
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |end| rest.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_leave_out_what_they_say() {
        for (pattern, path, wanted) in [
            ("*.bin", "a/b.bin", true),
            ("*.bin", "a/b.bin2", false),
            ("onnx/*", "onnx/a/b", true),
            ("onnx/*", "x/onnx/a", false),
            ("a*b*c", "a--b--c", true),
            ("a*b*c", "a--c--b", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "anything", true),
            ("**", "anything", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, path), wanted, "{pattern} {path}");
        }
    }
}
