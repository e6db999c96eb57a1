//! Where the vectors come from: the binary itself, or a folder.

use std::fs;
use std::path::Path;

use registry::conformance::Vector;

use crate::failure::{Exit, Failure};

/// The vectors of this version, one a line: the file's name, a tab, the JSON.
const EMBEDDED: &str = include_str!(concat!(env!("OUT_DIR"), "/vectors.jsonl"));
/// Largest file that is read as a vector, in bytes; the longest of ours has 131,287.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Most files of a folder: ten times ours.
const MAX_FILES: usize = 16_384;

/// A vector with where it is from.
pub(super) struct Named {
    /// Such as `02/envelope-no-signature.json`.
    pub(super) name: String,
    pub(super) vector: Vector,
}

impl Named {
    fn read(name: String, json: &[u8]) -> Result<Self, Failure> {
        match Vector::parse(json) {
            Ok(vector) => Ok(Self { name, vector }),
            Err(why) => Err(Failure::new(Exit::Verification, format!("{name}: {why}"))
                .help("specs/vectors/README.md says how a vector is written")),
        }
    }

    /// The document's number.
    pub(super) fn document(&self) -> &str {
        self.name.split_once('/').map_or("", |(document, _)| document)
    }
}

/// The vectors that this binary carries.
pub(super) fn embedded() -> Result<Vec<Named>, Failure> {
    let lines = EMBEDDED.lines().filter_map(|line| line.split_once('\t'));
    lines.map(|(name, json)| Named::read(name.to_owned(), json.as_bytes())).collect()
}

/// The vectors of a folder that holds one folder for each document.
pub(super) fn of_folder(folder: &Path) -> Result<Vec<Named>, Failure> {
    let fail = |path: &Path, error: std::io::Error| {
        let exit = if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Other };
        Failure::new(exit, format!("{}: {error}", path.display()))
            .help("name a folder such as specs/vectors, with a folder for each document in it")
    };
    let list = |path: &Path| -> Result<Vec<_>, Failure> {
        let entries = fs::read_dir(path).map_err(|error| fail(path, error))?;
        let paths = entries.take(MAX_FILES).map(|entry| entry.map(|entry| entry.path()));
        let mut paths = paths.collect::<Result<Vec<_>, _>>().map_err(|error| fail(path, error))?;
        paths.sort();
        Ok(paths)
    };
    let mut found = Vec::new();
    for document in list(folder)?.into_iter().filter(|path| path.is_dir()) {
        for path in list(&document)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "json"))
        {
            let size = fs::metadata(&path).map_err(|error| fail(&path, error))?.len();
            if size > MAX_FILE || found.len() >= MAX_FILES {
                let why = format!("{}: {size} bytes, or too many files", path.display());
                return Err(
                    Failure::new(Exit::Verification, why).help("these are not the specification's vectors")
                );
            }
            let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
            found.push(Named::read(name, &fs::read(&path).map_err(|error| fail(&path, error))?)?);
        }
    }
    if found.is_empty() {
        return Err(Failure::new(Exit::NotFound, format!("{} holds no vectors", folder.display()))
            .help("name a folder such as specs/vectors, with a folder for each document in it"));
    }
    Ok(found)
}
