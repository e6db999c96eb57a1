//! Which files of a release are a model in safetensors, and reading the small ones.

use std::io::{Read, Seek, SeekFrom};

use registry::admitted::AdmittedFile;
use serde_json::Value;

use super::config::MAX_CONFIG;
use crate::gate::VerifiedFile;

/// Most shards: the largest published checkpoints have some 200.
pub(super) const MAX_SHARDS: usize = 1024;
/// Longest index of shards, in bytes: the largest published ones have some 15 MB.
pub(super) const MAX_INDEX: u64 = 64 * 1024 * 1024;
/// Longest `tokenizer.json`, in bytes: the largest published ones have some 35 MB.
pub(super) const MAX_TOKENIZER: u64 = 128 * 1024 * 1024;

/// The architecture and its sizes.
pub(crate) const CONFIG: &str = "config.json";
/// The tokenizer.
pub(super) const TOKENIZER: &str = "tokenizer.json";
/// Its special tokens and, in most releases, the chat template.
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// The chat template, in newer releases.
pub(super) const TEMPLATE: &str = "chat_template.jinja";
/// More tokens that end an answer.
pub(super) const GENERATION: &str = "generation_config.json";
/// Which shard has which tensor.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// How sentence-transformers makes one vector of many.
pub(super) const MODULES: &str = "modules.json";
/// The pooling that `modules.json` names.
pub(super) const POOLING: &str = "1_Pooling/config.json";
/// The longest text that sentence-transformers lets through.
pub(super) const SENTENCES: &str = "sentence_bert_config.json";

/// The small files that are opened where a release has them.
const SMALL: [(&str, u64); 9] = [
    (CONFIG, MAX_CONFIG),
    (TOKENIZER, MAX_TOKENIZER),
    (TOKENIZER_CONFIG, MAX_CONFIG),
    (TEMPLATE, MAX_CONFIG),
    (GENERATION, MAX_CONFIG),
    (INDEX, MAX_INDEX),
    (MODULES, MAX_CONFIG),
    (POOLING, MAX_CONFIG),
    (SENTENCES, MAX_CONFIG),
];

/// Why the files don't make a model.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    /// A file that must be there is not.
    #[error("it has .safetensors files but no `{0}` beside them, which says how to read them")]
    Absent(&'static str),
    /// Too many shards.
    #[error("it has {0} .safetensors files; the limit is {MAX_SHARDS}")]
    Shards(usize),
    /// A small file is not small.
    #[error("`{path}` has {size} bytes; the limit is {limit}")]
    Long {
        /// Path in the release.
        path: String,
        /// Bytes.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A file could not be read.
    #[error("`{path}` can't be read: {reason}")]
    Unreadable {
        /// Path in the release.
        path: String,
        /// What the system or the parser said.
        reason: String,
    },
}

/// The files that this engine opens, by the release's own list: weights and what says how to read them, at the top.
pub(crate) fn wanted(files: &[AdmittedFile]) -> Result<Vec<&AdmittedFile>, FilesError> {
    let weights: Vec<_> = files.iter().filter(|file| is_weights(&file.path)).collect();
    if weights.len() > MAX_SHARDS {
        return Err(FilesError::Shards(weights.len()));
    }
    let mut wanted = weights;
    for (name, limit) in SMALL {
        match files.iter().find(|file| file.path == name) {
            Some(file) if file.size > limit => {
                return Err(FilesError::Long { path: file.path.clone(), size: file.size, limit });
            }
            Some(file) => wanted.push(file),
            None if name == CONFIG || name == TOKENIZER => return Err(FilesError::Absent(name)),
            None => {}
        }
    }
    Ok(wanted)
}

/// Whether a path is a file of weights at the top of the release; those in folders belong to other models (such as `onnx/`).
pub(crate) fn is_weights(path: &str) -> bool {
    path.ends_with(".safetensors") && !path.contains('/')
}

/// The opened files.
pub(super) struct Opened(Vec<VerifiedFile>);

impl Opened {
    /// Takes them over.
    pub(super) fn new(files: Vec<VerifiedFile>) -> Self {
        Self(files)
    }

    /// The bytes of a small file, if the release has it.
    pub(super) fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, FilesError> {
        let Some(file) = self.0.iter().find(|file| file.path() == name) else {
            return Ok(None);
        };
        let limit = SMALL.iter().find(|(known, _)| *known == name).map_or(MAX_CONFIG, |(_, limit)| *limit);
        if file.size() > limit {
            return Err(FilesError::Long { path: name.to_owned(), size: file.size(), limit });
        }
        let mut bytes = Vec::new();
        let mut reader = file.reader();
        let read = reader.seek(SeekFrom::Start(0)).and_then(|_| reader.take(limit).read_to_end(&mut bytes));
        read.map_err(|error| unreadable(name, &error))?;
        Ok(Some(bytes))
    }

    /// The bytes of a small file that must be there.
    pub(super) fn required(&self, name: &'static str) -> Result<Vec<u8>, FilesError> {
        self.bytes(name)?.ok_or(FilesError::Absent(name))
    }

    /// A small file as JSON, `null` if the release has none.
    pub(super) fn json(&self, name: &str) -> Result<Value, FilesError> {
        match self.bytes(name)? {
            None => Ok(Value::Null),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| unreadable(name, &error)),
        }
    }

    /// The files of weights.
    pub(super) fn into_weights(self) -> Vec<VerifiedFile> {
        self.0.into_iter().filter(|file| is_weights(file.path())).collect()
    }
}

fn unreadable(path: &str, error: &dyn std::fmt::Display) -> FilesError {
    FilesError::Unreadable { path: path.to_owned(), reason: error.to_string() }
}
