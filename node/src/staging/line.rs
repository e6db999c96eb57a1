//! The lines of a commit, as the clients send them: JSON, one operation a line.

use std::io::BufRead;

use serde::Deserialize;

use super::error::{Result, StagingError};

/// Most bytes of a commit's body: the newest client puts 100 MB of small files into one, a third more in base64.
pub(crate) const MAX_COMMIT_BYTES: u64 = 256 * 1024 * 1024;
/// Most bytes of a file that comes within a commit; larger ones are uploaded before.
pub(super) const MAX_INLINE: usize = 10 * 1024 * 1024;
/// Longest line: such a file in base64, its path and some room.
const MAX_LINE: usize = MAX_INLINE / 3 * 4 + 64 * 1024;
/// Most lines: every file of a release added and every one taken away.
const MAX_LINES: usize = 2 * registry::statement::MAX_FILES + 1;

/// What a commit says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Header {
    #[serde(default)]
    pub(super) summary: String,
    #[serde(default)]
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) parent_commit: Option<String>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "key", content = "value", rename_all = "camelCase")]
pub(super) enum Line {
    Header(Header),
    File {
        path: String,
        content: String,
        #[serde(default)]
        encoding: Option<String>,
    },
    LfsFile {
        path: String,
        oid: String,
        #[serde(default)]
        algo: Option<String>,
        #[serde(default)]
        size: Option<u64>,
    },
    DeletedFile {
        path: String,
    },
    DeletedFolder {
        path: String,
    },
    #[serde(rename_all = "camelCase")]
    CopyFile {
        path: String,
        src_path: String,
        #[serde(default)]
        src_revision: Option<String>,
    },
}

/// Reads lines until there are no more; none is held longer than `each` takes.
pub(super) fn lines(mut from: impl BufRead, mut each: impl FnMut(Line) -> Result<()>) -> Result<()> {
    let mut line = Vec::new();
    for number in 1..=MAX_LINES {
        line.clear();
        if !next(&mut from, &mut line, number)? {
            return Ok(());
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let parsed = serde_json::from_slice(&line).map_err(|error| {
            StagingError::Wrong(format!("line {number} of the commit is not understood: {error}"))
        })?;
        each(parsed)?;
    }
    match next(&mut from, &mut line, MAX_LINES)? {
        false => Ok(()),
        true => Err(StagingError::TooLarge(format!("a commit has at most {MAX_LINES} lines"))),
    }
}

/// The next line into `line`, without its end; false when there is none.
fn next(from: &mut impl BufRead, line: &mut Vec<u8>, number: usize) -> Result<bool> {
    loop {
        let here = from.fill_buf().map_err(|_| StagingError::Cut)?;
        if here.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = here.iter().position(|byte| *byte == b'\n');
        let upto = end.unwrap_or(here.len());
        if line.len() + upto > MAX_LINE {
            return Err(StagingError::TooLarge(format!(
                "line {number} of the commit is over {MAX_LINE} bytes; larger files are uploaded before the commit"
            )));
        }
        line.extend_from_slice(here.get(..upto).unwrap_or_default());
        from.consume(upto + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(true);
        }
    }
}
