//! What is staged of one model: branches, tags and commits.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;

use registry::digest::Sha256;
use registry::store::Store;
use registry::{Digest, Model, Timestamp};
use serde::{Deserialize, Serialize};

use super::error::{Result, StagingError, io};
use super::{
    Area, MAX_COMMIT_FILE, MAX_REPO_FILE, make_folder, read_json, sync_folder, write_json, write_whole,
};
use crate::git;

/// Most models that something is staged of.
const MAX_REPOS: usize = 1024;
/// Commits of a branch that are kept, with their content: so far back may somebody look or go.
pub(super) const MAX_HISTORY: usize = 64;

/// The branch that clients mean when they name none.
pub(crate) const MAIN: &str = "main";

/// A file of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StagedFile {
    /// Its bytes.
    pub(crate) size: u64,
    /// SHA-256 of its content.
    pub(crate) sha256: Sha256,
    /// The blob in the store, where it came from a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) blob: Option<Digest>,
}

/// A commit. Its name is the first 40 digits of its text's digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commit {
    /// The one before, here or a release's.
    pub(crate) parent: Option<String>,
    /// The first line of what its author wrote.
    pub(crate) title: String,
    /// The rest.
    pub(crate) message: String,
    /// The name of the token by which it was made.
    pub(crate) by: String,
    /// When.
    pub(crate) at: Timestamp,
    /// Its files, by path.
    pub(crate) files: BTreeMap<String, StagedFile>,
}

impl Commit {
    /// Bytes of all files.
    pub(crate) fn size(&self) -> u64 {
        self.files.values().map(|file| file.size).sum()
    }
}

/// A branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Branch {
    /// Its commits, the newest last; never none.
    pub(crate) commits: Vec<String>,
    /// When it moved last.
    pub(crate) moved: Timestamp,
}

impl Branch {
    /// Where it points.
    pub(crate) fn head(&self) -> &str {
        self.commits.last().map_or("", String::as_str)
    }
}

/// What is staged of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Repo {
    /// When something was first staged.
    pub(crate) created: Timestamp,
    /// The identifier of the token by which.
    pub(crate) by: String,
    /// By name.
    pub(crate) branches: BTreeMap<String, Branch>,
    /// By name, the commit of each.
    pub(crate) tags: BTreeMap<String, String>,
}

impl Repo {
    pub(super) fn new(by: &str, now: Timestamp) -> Self {
        Self { created: now, by: by.to_owned(), branches: BTreeMap::new(), tags: BTreeMap::new() }
    }

    /// The commit that a revision means here.
    pub(crate) fn find(&self, revision: &str) -> Option<&str> {
        let revision = revision.strip_prefix("staged/").unwrap_or(revision);
        let branch = |name: &str| self.branches.get(name).map(Branch::head);
        let tag = |name: &str| self.tags.get(name).map(String::as_str);
        match (revision.strip_prefix("refs/heads/"), revision.strip_prefix("refs/tags/")) {
            (Some(name), _) => branch(name),
            (_, Some(name)) => tag(name),
            _ => branch(revision).or_else(|| tag(revision)).or_else(|| {
                self.commits().find(|commit| revision.len() >= 7 && commit.starts_with(revision))
            }),
        }
    }

    /// Every commit that a branch or a tag holds; some twice.
    pub(super) fn commits(&self) -> impl Iterator<Item = &str> {
        let branches = self.branches.values().flat_map(|branch| &branch.commits);
        branches.chain(self.tags.values()).map(String::as_str)
    }
}

impl Area {
    fn repo_folder(&self, model: &Model) -> PathBuf {
        // A model's name is letters, digits and inner `-`, `_`, `.`: one component that is none of the special ones.
        self.home.join("repos").join(model.name.as_str())
    }

    fn commit_path(&self, model: &Model, commit: &str) -> Result<PathBuf> {
        let hex = commit.len() == 40 && commit.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !hex {
            return Err(StagingError::NoRevision("that is no commit".to_owned()));
        }
        Ok(self.repo_folder(model).join("commits").join(commit))
    }

    /// What is staged of a model.
    pub(crate) fn repo(&self, model: &Model) -> Result<Option<Repo>> {
        read_json(&self.repo_folder(model).join("repo.json"), MAX_REPO_FILE)
    }

    /// A commit of a model.
    pub(crate) fn commit(&self, model: &Model, commit: &str) -> Result<Commit> {
        let found = read_json(&self.commit_path(model, commit)?, MAX_COMMIT_FILE)?;
        found.ok_or_else(|| StagingError::NoRevision(format!("the commit {commit} is not staged any more")))
    }

    /// Keeps a commit; durable on return. Answers its name.
    pub(super) fn put_commit(&self, model: &Model, commit: &Commit) -> Result<String> {
        let folder = self.repo_folder(model);
        make_folder(&folder)?;
        make_folder(&folder.join("commits"))?;
        let text =
            serde_json::to_vec(commit).map_err(|error| io("could not write", &folder)(error.into()))?;
        let name = git::commit_of(&Digest::of(&text));
        write_whole(&self.commit_path(model, &name)?, &text)?;
        sync_folder(&folder)?;
        Ok(name)
    }

    /// Keeps what is staged of a model: what moves its branches. Durable on return.
    pub(super) fn put_repo(&self, model: &Model, repo: &Repo) -> Result<()> {
        let folder = self.repo_folder(model);
        make_folder(&folder)?;
        write_json(&folder.join("repo.json"), repo)?;
        sync_folder(&self.home.join("repos"))
    }

    /// Throws away what is staged of a model.
    pub(super) fn drop_repo(&self, model: &Model) -> Result<()> {
        let folder = self.repo_folder(model);
        // The name first, so that a crash leaves nothing that looks whole.
        match fs::remove_file(folder.join("repo.json")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io("could not remove", &folder)(error));
            }
            _ => {}
        }
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io("could not remove", &folder)(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes commits that no branch or tag of `repo` holds any more.
    pub(super) fn drop_commits(&self, model: &Model, gone: &[String], repo: &Repo) {
        for commit in gone.iter().filter(|commit| !repo.commits().any(|kept| kept == commit.as_str())) {
            if let Ok(path) = self.commit_path(model, commit) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// The names of all models that something is staged of.
    pub(super) fn repo_names(&self) -> Result<Vec<registry::reference::Name>> {
        let folder = self.home.join("repos");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io("could not list", &folder)(error)),
        };
        let name = |entry: std::io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
        Ok(entries.filter_map(name).collect())
    }

    pub(super) fn has_place(&self) -> Result<()> {
        if self.repo_names()?.len() < MAX_REPOS {
            return Ok(());
        }
        Err(StagingError::TooLarge(format!(
            "something is staged of {MAX_REPOS} models already; publish some or throw some away"
        )))
    }

    /// The name that git has for a file's content, which is read whole: for small ones.
    pub(crate) fn git_hash(&self, store: &Store, file: &StagedFile) -> Result<String> {
        let mut content = Vec::new();
        let from = self.content(store, file)?;
        from.take(file.size).read_to_end(&mut content).map_err(|source| StagingError::Io {
            what: "could not read",
            path: file.sha256.to_hex().into(),
            source,
        })?;
        Ok(git::blob_hash(&content))
    }

    /// Opens the content of a file of a commit.
    pub(crate) fn content(&self, store: &Store, file: &StagedFile) -> Result<File> {
        if let Some(object) = self.object(&file.sha256)? {
            return Ok(object);
        }
        match &file.blob {
            Some(blob) => Ok(store.open_blob(blob)?),
            None => Err(StagingError::Wrong(format!("the content {} is not here any more", file.sha256))),
        }
    }
}
