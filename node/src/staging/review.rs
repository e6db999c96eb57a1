//! What a branch would change, for whoever signs it; and its files in a folder, from which they are published.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use registry::digest::Sha256;
use registry::store::Store;
use registry::{Model, Timestamp};
use serde::{Deserialize, Serialize};

use super::check::is_hidden;
use super::error::{Result, StagingError, io};
use super::repo::{Branch, StagedFile};
use super::{Area, make_folder};

/// A branch that waits to be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// The model.
    pub model: Model,
    /// The branch.
    pub branch: String,
    /// Its newest commit.
    pub commit: String,
    /// What its author called that.
    pub title: String,
    /// The name of the token by which it was pushed.
    pub by: String,
    /// When it moved last.
    pub moved: Timestamp,
    /// When it goes, if it is not published.
    pub goes: Timestamp,
    /// How many files.
    pub files: usize,
    /// Bytes of all.
    pub size: u64,
}

/// A file of a branch, or of the release before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewFile {
    /// Its path.
    pub path: String,
    /// Bytes now; of a file that goes, bytes that it had.
    pub size: u64,
    /// Bytes that it had, where it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
}

/// What a branch would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// The branch.
    pub staged: Staged,
    /// Files that are new.
    pub added: Vec<ReviewFile>,
    /// Files with other content.
    pub changed: Vec<ReviewFile>,
    /// Files that go.
    pub removed: Vec<ReviewFile>,
    /// How many stay as they are.
    pub same: usize,
    /// Files that are not published, since a part of their path begins with a dot.
    pub left_out: Vec<String>,
}

impl Area {
    /// Every branch of every model.
    pub(crate) fn all_staged(&self) -> Result<Vec<Staged>> {
        let mut all = Vec::new();
        for name in self.repo_names()? {
            let model = self.model(name);
            let Some(repo) = self.repo(&model)? else { continue };
            for (name, branch) in &repo.branches {
                all.push(self.staged(&model, name, branch)?);
            }
        }
        Ok(all)
    }

    fn staged(&self, model: &Model, name: &str, branch: &Branch) -> Result<Staged> {
        let commit = self.commit(model, branch.head())?;
        Ok(Staged {
            model: model.clone(),
            branch: name.to_owned(),
            commit: branch.head().to_owned(),
            title: commit.title.clone(),
            by: commit.by.clone(),
            moved: branch.moved,
            goes: branch.moved.plus(self.limits.age),
            files: commit.files.len(),
            size: commit.size(),
        })
    }

    /// What publishing a branch would change of `before`: the release's files by path.
    pub(crate) fn review(
        &self,
        model: &Model,
        branch: &str,
        before: &BTreeMap<String, (Sha256, u64)>,
    ) -> Result<Review> {
        let repo = self.repo(model)?;
        let found = repo.as_ref().and_then(|repo| repo.branches.get(branch));
        let found = found.ok_or_else(|| {
            StagingError::NoRevision(format!("nothing is staged on the branch `{branch}` of {model}"))
        })?;
        let files = self.commit(model, found.head())?.files;
        let mut review = Review {
            staged: self.staged(model, branch, found)?,
            added: Vec::new(),
            changed: Vec::new(),
            removed: Vec::new(),
            same: 0,
            left_out: Vec::new(),
        };
        for (path, StagedFile { size, sha256, .. }) in &files {
            let entry = |before| ReviewFile { path: path.clone(), size: *size, before };
            match before.get(path) {
                _ if is_hidden(path) => review.left_out.push(path.clone()),
                None => review.added.push(entry(None)),
                Some((old, _)) if old == sha256 => review.same += 1,
                Some((_, old)) => review.changed.push(entry(Some(*old))),
            }
        }
        let gone = before.iter().filter(|(path, _)| !files.contains_key(*path));
        review.removed = gone
            .map(|(path, (_, size))| ReviewFile { path: path.clone(), size: *size, before: None })
            .collect();
        Ok(review)
    }

    /// The files of a commit in a folder of their own, as links where the file system has them. It goes when the branch is
    /// cleared, or when the area is next opened.
    pub(crate) fn checkout(&self, store: &Store, model: &Model, commit: &str) -> Result<PathBuf> {
        self.open()?;
        let _guard = self.changing();
        let files = self.commit(model, commit)?.files;
        let top = self.home.join("checkouts").join(commit);
        self.drop_checkout(commit);
        make_folder(&top)?;
        for (path, file) in files.iter().filter(|(path, _)| !is_hidden(path)) {
            // Paths were checked when they were pushed; what is on the disk is checked again.
            registry::path::check(path).map_err(|error| StagingError::Wrong(error.to_string()))?;
            let to = top.join(path);
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder).map_err(io("could not make", folder))?;
            }
            let object = self.object_path(&file.sha256);
            let from = match &file.blob {
                Some(blob) if !object.is_file() => store.blob_path(blob),
                _ => object,
            };
            if fs::hard_link(&from, &to).is_err() {
                fs::copy(&from, &to).map_err(io("could not bring out", &to))?;
            }
        }
        Ok(top)
    }

    pub(super) fn drop_checkout(&self, commit: &str) {
        let _ = fs::remove_dir_all(self.home.join("checkouts").join(commit));
    }
}
