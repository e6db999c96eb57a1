//! The files of a folder against a release: what lacks, what differs, what is there besides.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use registry::attachment::Kind;
use registry::digest::hash_file;
use registry::statement::{File, Release};

use super::SnapshotError;

/// Most entries, and most folders within each other, that are looked at: a release has at most 16,384 files of 16 parts each.
const MAX_ENTRIES: usize = 262_144;
const MAX_DEPTH: usize = 24;
/// What clients keep beside the files that they fetched.
const ASIDE: [&str; 2] = [".steelyard", ".cache/huggingface"];
/// So many names are shown.
const SHOWN: usize = 5;

/// What a folder is, compared with a release.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Files that are not there.
    pub missing: Vec<String>,
    /// Files with other bytes, or that are no plain files.
    pub changed: Vec<String>,
    /// What is there and not in the release.
    pub extra: Vec<String>,
    /// Files that are right.
    pub checked: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Findings {
    pub(super) fn is_wrong(&self, partial: bool) -> bool {
        !self.changed.is_empty()
            || !self.extra.is_empty()
            || self.checked == 0
            || (!partial && !self.missing.is_empty())
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (&self.changed, "differ from what was signed"),
            (&self.extra, "are not in it"),
            (&self.missing, "lack"),
        ];
        let mut first = true;
        for (paths, words) in all.into_iter().filter(|(paths, _)| !paths.is_empty()) {
            let shown: Vec<_> = paths.iter().take(SHOWN).map(|path| format!("{path:?}")).collect();
            let more = paths.len().saturating_sub(SHOWN);
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            write!(f, "{}{}{rest} {words}", if first { "" } else { "; " }, shown.join(", "))?;
            first = false;
        }
        if first { f.write_str("no file of it is there") } else { Ok(()) }
    }
}

/// Every entry below `folder` that is no folder; a link to one is told as itself and never followed.
fn list(folder: &Path) -> Result<BTreeSet<String>, SnapshotError> {
    let (mut found, mut count) = (BTreeSet::new(), 0);
    let mut open = vec![(String::new(), 0)];
    while let Some((inside, depth)) = open.pop() {
        let at = folder.join(&inside);
        let failed = |source| SnapshotError::Io { path: at.clone(), source };
        for entry in fs::read_dir(&at).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            count += 1;
            if count > MAX_ENTRIES || depth > MAX_DEPTH {
                return Err(failed(std::io::Error::other("it holds more than a release can")));
            }
            // A name that is no UTF-8 is no release's, whatever it is shown as.
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if inside.is_empty() { name } else { format!("{inside}/{name}") };
            if ASIDE.contains(&path.as_str()) {
                continue;
            }
            if entry.file_type().map_err(failed)?.is_dir() {
                open.push((path, depth + 1));
            } else {
                found.insert(path);
            }
        }
    }
    Ok(found)
}

/// Whether the file holds what was signed: length, BLAKE3 and SHA-256, of one reading.
fn same(path: &Path, file: &File) -> std::io::Result<bool> {
    // Not to wait for whoever feeds a pipe.
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    let opened = OpenOptions::new().read(true).custom_flags(flags as i32).open(path)?;
    let known = opened.metadata()?;
    if !known.is_file() || known.len() != file.size {
        return Ok(false);
    }
    // One byte more than it may have tells that it grew meanwhile.
    let found = hash_file(opened.take(file.size.saturating_add(1)))?;
    Ok(found.size == file.size && found.blake3 == file.blake3 && found.sha256 == file.sha256)
}

/// Reads every file of `folder` once.
pub(super) fn compare(folder: &Path, release: &Release) -> Result<Findings, SnapshotError> {
    let mut here = list(folder)?;
    let mut findings = Findings::default();
    for file in &release.files {
        if !here.remove(&file.path) {
            // The record of an import is a part of the release that folders leave out.
            if Kind::of(&file.media_type) != Some(Kind::Import) {
                findings.missing.push(file.path.clone());
            }
        } else if same(&folder.join(&file.path), file).unwrap_or(false) {
            findings.checked += 1;
            findings.bytes += file.size;
        } else {
            findings.changed.push(file.path.clone());
        }
    }
    findings.extra = here.into_iter().collect();
    Ok(findings)
}
