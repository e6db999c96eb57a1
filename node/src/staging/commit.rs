//! Taking in a commit: its content first, then its check, then one rename.

use std::collections::BTreeMap;
use std::io::{BufRead, Cursor};

use data_encoding::BASE64;
use registry::digest::Sha256;
use registry::statement::MAX_FILES;
use registry::store::Store;
use registry::{Model, Timestamp, path};

use super::error::{Result, StagingError};
use super::line::{Header, Line, MAX_INLINE, lines};
use super::refs::Author;
use super::repo::{Branch, Commit, MAIN, MAX_HISTORY, Repo, StagedFile};
use super::{Area, check};

/// Longest title of a commit, in characters.
const MAX_TITLE: usize = 200;
/// Longest message below it.
const MAX_MESSAGE: usize = 4096;

/// What a branch begins with.
#[derive(Debug, Default)]
pub(crate) struct Start {
    /// The commit that holds it.
    pub(crate) commit: Option<String>,
    /// Its files.
    pub(crate) files: BTreeMap<String, StagedFile>,
}

/// What is released of a model, for whoever stages something of it.
pub(crate) trait Releases {
    /// Whether there is anything.
    fn any(&self) -> Result<bool>;
    /// What a revision holds that means a release. One that is not whole here can't be built on.
    fn start(&self, revision: &str) -> Result<Option<Start>>;
    /// Whether a branch of this name is a channel.
    fn has_channel(&self, name: &str) -> Result<bool>;
    /// Whether a tag of this name is a version.
    fn has_version(&self, name: &str) -> Result<bool>;
    /// Content that one of the releases holds.
    fn content(&self, oid: &Sha256) -> Result<Option<StagedFile>>;
}

/// A commit that somebody wants to make.
pub(crate) struct Push<'a> {
    /// Of which model.
    pub(crate) model: &'a Model,
    /// On which branch.
    pub(crate) branch: &'a str,
    /// Who.
    pub(crate) by: &'a Author,
    /// What is released.
    pub(crate) releases: &'a dyn Releases,
    /// Where released content lies.
    pub(crate) store: &'a Store,
    /// When.
    pub(crate) now: Timestamp,
}

/// A commit that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// Its name.
    pub(crate) commit: String,
}

/// One change, whose content is here.
enum Change {
    Put(String, StagedFile),
    Remove(String),
    RemoveFolder(String),
    Copy { path: String, source: String, revision: Option<String> },
}

impl Area {
    /// Makes a commit of the lines in `body`. Nothing of it is seen before all is durable.
    pub(crate) fn push(&self, push: &Push<'_>, body: impl BufRead) -> Result<Pushed> {
        self.open()?;
        let (mut header, mut changes) = (None, Vec::new());
        lines(body, |line| {
            match line {
                Line::Header(found) => header = Some(found),
                line => changes.push(self.change(push, line)?),
            }
            Ok(())
        })?;
        let header: Header =
            header.ok_or_else(|| StagingError::Wrong("a commit begins with a line `header`".to_owned()))?;
        self.apply(push, header, changes)
    }

    fn change(&self, push: &Push<'_>, line: Line) -> Result<Change> {
        Ok(match line {
            Line::Header(_) => return Err(StagingError::Wrong("a commit has one header".to_owned())),
            Line::File { path, content, encoding } => {
                fit(&path)?;
                let content = match encoding.as_deref() {
                    Some("base64") => BASE64
                        .decode(content.as_bytes())
                        .map_err(|error| StagingError::Wrong(format!("`{path}` is no base64: {error}")))?,
                    None | Some("utf-8") => content.into_bytes(),
                    Some(_) => {
                        return Err(StagingError::Wrong(format!("`{path}` is neither base64 nor utf-8")));
                    }
                };
                let file = self.inline(&path, &content)?;
                Change::Put(path, file)
            }
            Line::LfsFile { path, oid, algo, size } => {
                fit(&path)?;
                let oid = match Sha256::from_hex(&oid) {
                    Ok(oid) if algo.as_deref().is_none_or(|algo| algo == "sha256") => oid,
                    _ => return Err(StagingError::Wrong(format!("`{path}` is not named by a SHA-256"))),
                };
                let file = self.uploaded(push, &path, &oid, size)?;
                Change::Put(path, file)
            }
            Line::DeletedFile { path } => Change::Remove(path),
            Line::DeletedFolder { path } => Change::RemoveFolder(path),
            Line::CopyFile { path, src_path, src_revision } => {
                fit(&path)?;
                Change::Copy { path, source: src_path, revision: src_revision }
            }
        })
    }

    /// Keeps a file that came within the commit. What is refused is not written at all.
    fn inline(&self, path: &str, content: &[u8]) -> Result<StagedFile> {
        if content.len() > MAX_INLINE {
            return Err(StagingError::TooLarge(format!(
                "`{path}` is over {MAX_INLINE} bytes; files of that size are uploaded before the commit"
            )));
        }
        let size = content.len() as u64;
        check::content(path, &mut Cursor::new(content), size)?;
        let mut incoming = self.incoming(size)?;
        incoming.take(content)?;
        let (sha256, size) = self.finish(incoming, None, Some(size))?;
        Ok(StagedFile { size, sha256, blob: None })
    }

    /// A file whose content was uploaded before, or is in a release.
    fn uploaded(&self, push: &Push<'_>, path: &str, oid: &Sha256, size: Option<u64>) -> Result<StagedFile> {
        let file = match self.size_of(oid) {
            Some(size) => StagedFile { size, sha256: *oid, blob: None },
            None => push.releases.content(oid)?.ok_or_else(|| {
                StagingError::Wrong(format!(
                    "`{path}`: its content (SHA-256 {oid}) is not here; it was never uploaded or lay unpublished for too long. Push again; \
                     if that does not help, remove the client's notes of what it uploaded (`.cache/huggingface` in the folder)"
                ))
            })?,
        };
        if let Some(size) = size.filter(|size| *size != file.size) {
            return Err(StagingError::Wrong(format!("`{path}` has {} bytes and not {size}", file.size)));
        }
        let checked = check::content(path, &mut self.content(push.store, &file)?, file.size);
        if matches!(checked, Err(StagingError::Refused(_))) && file.blob.is_none() {
            let _guard = self.changing();
            self.drop_if_unused(oid)?;
        }
        checked.map(|()| file)
    }

    fn apply(&self, push: &Push<'_>, header: Header, changes: Vec<Change>) -> Result<Pushed> {
        let _guard = self.changing();
        let mut repo = self.repo_or_new(push.model, push.by, push.releases, push.now)?;
        if !repo.branches.contains_key(push.branch) {
            let start = self.branch_start(push, &repo)?;
            if let (Some(parent), Some(now)) = (&header.parent_commit, &start.commit)
                && parent != now
            {
                return Err(StagingError::Stale { parent: shorten(parent), now: now.clone() });
            }
            self.begin(push.model, &mut repo, push.branch, start, push.by, push.now)?;
        } else if let Some(parent) = &header.parent_commit {
            let now = repo.branches.get(push.branch).map_or("", Branch::head);
            if parent != now {
                return Err(StagingError::Stale { parent: shorten(parent), now: now.to_owned() });
            }
        }
        let head = repo.branches.get(push.branch).map_or("", Branch::head).to_owned();
        let before = self.commit(push.model, &head)?.files;
        let files = self.changed(push, &repo, before.clone(), changes)?;
        if files == before {
            // Nothing changed: the branch stays, but it may have begun just now.
            self.put_repo(push.model, &repo)?;
            return Ok(Pushed { commit: head });
        }
        self.check_all(&files)?;
        let commit = Commit {
            parent: Some(head),
            title: header.summary.chars().filter(|c| !c.is_control()).take(MAX_TITLE).collect(),
            message: header.description.unwrap_or_default().chars().take(MAX_MESSAGE).collect(),
            by: push.by.name.clone(),
            at: push.now,
            files,
        };
        let name = self.put_commit(push.model, &commit)?;
        let mut gone = Vec::new();
        if let Some(branch) = repo.branches.get_mut(push.branch) {
            branch.commits.push(name.clone());
            branch.moved = push.now;
            gone = branch.commits.drain(..branch.commits.len().saturating_sub(MAX_HISTORY)).collect();
        }
        self.put_repo(push.model, &repo)?;
        self.drop_commits(push.model, &gone, &repo);
        Ok(Pushed { commit: name })
    }

    /// What a branch that is not staged begins with: the channel of its name, or for `main` nothing.
    fn branch_start(&self, push: &Push<'_>, repo: &Repo) -> Result<Start> {
        match push.releases.start(push.branch)? {
            // A version or a digest is no branch.
            Some(start) if push.releases.has_channel(push.branch)? => Ok(start),
            _ if push.branch == MAIN => Ok(Start::default()),
            _ => {
                let shown: String = push.branch.chars().take(80).collect();
                let known: Vec<&str> = repo.branches.keys().map(String::as_str).take(12).collect();
                Err(StagingError::NoRevision(format!(
                    "{} has no branch `{shown}` to push to ({}); make it with `create_branch` first",
                    push.model,
                    if known.is_empty() { "nothing is staged".to_owned() } else { known.join(", ") }
                )))
            }
        }
    }

    fn changed(
        &self,
        push: &Push<'_>,
        repo: &Repo,
        mut files: BTreeMap<String, StagedFile>,
        changes: Vec<Change>,
    ) -> Result<BTreeMap<String, StagedFile>> {
        for change in changes {
            match change {
                Change::Put(path, file) => {
                    // Something may have been thrown away since it was looked at.
                    let here = file.blob.is_some() || self.size_of(&file.sha256).is_some();
                    if !here {
                        return Err(StagingError::Wrong(format!(
                            "the content of `{path}` is gone; push again"
                        )));
                    }
                    files.insert(path, file);
                }
                Change::Remove(path) => {
                    let path = path.trim_matches('/');
                    if files.remove(path).is_none() {
                        return Err(StagingError::NoFile(shorten(path)));
                    }
                }
                Change::RemoveFolder(path) => {
                    let inside = format!("{}/", path.trim_matches('/'));
                    let before = files.len();
                    files.retain(|path, _| !path.starts_with(&inside));
                    if files.len() == before {
                        return Err(StagingError::NoFile(shorten(&path)));
                    }
                }
                Change::Copy { path, source, revision } => {
                    let found = match revision.as_deref() {
                        None => files.get(&source).cloned(),
                        Some(revision) => match repo.find(revision) {
                            Some(commit) => self.commit(push.model, commit)?.files.remove(&source),
                            None => {
                                push.releases.start(revision)?.and_then(|mut it| it.files.remove(&source))
                            }
                        },
                    };
                    let file = found.ok_or_else(|| StagingError::NoFile(shorten(&source)))?;
                    check::content(&path, &mut self.content(push.store, &file)?, file.size)?;
                    files.insert(path, file);
                }
            }
            if files.len() > 2 * MAX_FILES {
                break;
            }
        }
        Ok(files)
    }

    fn check_all(&self, files: &BTreeMap<String, StagedFile>) -> Result<()> {
        if files.len() > MAX_FILES {
            return Err(StagingError::TooLarge(format!(
                "a release has at most {MAX_FILES} files, and this commit would hold {}",
                files.len()
            )));
        }
        path::check_all(files.keys().map(String::as_str))
            .map_err(|error| StagingError::Wrong(error.to_string()))
    }
}

fn fit(path: &str) -> Result<()> {
    path::check(path).map_err(|error| StagingError::Wrong(error.to_string()))
}

fn shorten(text: &str) -> String {
    text.chars().take(120).collect()
}
