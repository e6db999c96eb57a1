//! Making models, branches and tags, and throwing them away.

use registry::{Model, Timestamp};

use super::Area;
use super::commit::{Releases, Start};
use super::error::{Result, StagingError};
use super::repo::{Branch, Commit, MAIN, Repo};

/// Most branches of a model: one for each thing that is being prepared.
const MAX_BRANCHES: usize = 64;
/// Most tags of a model.
const MAX_TAGS: usize = 256;
/// Longest name of a branch or a tag, in bytes.
const MAX_REF: usize = 100;

/// Whether `name` may be a branch's or a tag's.
fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+');
    let part = |part: &str| !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with('.');
    let hex = name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let reserved =
        ["refs/", "staged/"].iter().any(|prefix| name.starts_with(prefix)) || name == "HEAD" || hex;
    if name.len() <= MAX_REF
        && name.chars().all(plain)
        && name.split('/').all(part)
        && !name.contains("..")
        && !reserved
    {
        return Ok(());
    }
    let shown: String = name.chars().take(MAX_REF).collect();
    Err(StagingError::Wrong(format!(
        "`{shown}` can't be a branch or a tag: write at most {MAX_REF} letters, digits and inner `-`, `_`, `.`, `+`, `/`"
    )))
}

/// Who changes something.
#[derive(Debug, Clone)]
pub(crate) struct Author {
    /// The token's identifier.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// Whether it looks after what others staged.
    pub(crate) admin: bool,
}

impl Area {
    /// Makes a model's place, with an empty branch `main`.
    pub(crate) fn create_repo(
        &self,
        model: &Model,
        by: &Author,
        releases: &dyn Releases,
        now: Timestamp,
    ) -> Result<()> {
        self.open()?;
        let _guard = self.changing();
        if self.repo(model)?.is_some() || releases.start("main")?.is_some() {
            return Err(StagingError::Exists(format!("{model} is there already")));
        }
        self.has_place()?;
        let mut repo = Repo::new(&by.id, now);
        self.begin(model, &mut repo, MAIN, Start::default(), by, now)?;
        self.put_repo(model, &repo)
    }

    /// Throws away all that is staged of a model.
    pub(crate) fn delete_repo(&self, model: &Model, by: &Author) -> Result<()> {
        self.open()?;
        let _guard = self.changing();
        let repo = self.repo(model)?;
        let repo = repo.ok_or_else(|| StagingError::NoRepo(format!("nothing is staged of {model}")))?;
        if repo.by != by.id && !by.admin {
            return Err(StagingError::Forbidden(format!(
                "what is staged of {model} was begun with another token; throwing it away takes one of scope `admin`"
            )));
        }
        self.drop_repo(model)?;
        self.drop_unused()?;
        Ok(())
    }

    /// A commit of the files of `start`, as the first of a branch.
    pub(super) fn begin(
        &self,
        model: &Model,
        repo: &mut Repo,
        branch: &str,
        start: Start,
        by: &Author,
        now: Timestamp,
    ) -> Result<()> {
        let title = match &start.commit {
            Some(_) => "begin from what is released".to_owned(),
            None => "initial commit".to_owned(),
        };
        let commit = Commit {
            parent: start.commit,
            title,
            message: String::new(),
            by: by.name.clone(),
            at: now,
            files: start.files,
        };
        let name = self.put_commit(model, &commit)?;
        repo.branches.insert(branch.to_owned(), Branch { commits: vec![name], moved: now });
        Ok(())
    }

    /// What `revision` holds, staged or released.
    fn start(&self, model: &Model, repo: &Repo, revision: &str, releases: &dyn Releases) -> Result<Start> {
        if let Some(commit) = repo.find(revision) {
            let files = self.commit(model, commit)?.files;
            return Ok(Start { commit: Some(commit.to_owned()), files });
        }
        releases.start(revision)?.ok_or_else(|| {
            let shown: String = revision.chars().take(MAX_REF).collect();
            StagingError::NoRevision(format!("{model} has no revision `{shown}`"))
        })
    }

    /// Makes a branch at `from`.
    pub(crate) fn create_branch(
        &self,
        model: &Model,
        branch: &str,
        from: Option<&str>,
        by: &Author,
        releases: &dyn Releases,
        now: Timestamp,
    ) -> Result<()> {
        check_name(branch)?;
        self.open()?;
        let _guard = self.changing();
        let mut repo = self.repo_or_new(model, by, releases, now)?;
        if repo.branches.contains_key(branch) || releases.has_channel(branch)? {
            return Err(StagingError::Exists(format!("the branch `{branch}` of {model} is there already")));
        }
        if repo.branches.len() >= MAX_BRANCHES {
            return Err(StagingError::TooLarge(format!("{MAX_BRANCHES} branches of a model are the limit")));
        }
        let from = from.unwrap_or(MAIN);
        match repo.find(from).map(str::to_owned) {
            Some(commit) => {
                repo.branches.insert(branch.to_owned(), Branch { commits: vec![commit], moved: now });
            }
            None => {
                let start = self.start(model, &repo, from, releases)?;
                self.begin(model, &mut repo, branch, start, by, now)?;
            }
        }
        self.put_repo(model, &repo)
    }

    /// Throws a branch away.
    pub(crate) fn delete_branch(&self, model: &Model, branch: &str, releases: &dyn Releases) -> Result<()> {
        self.open()?;
        let _guard = self.changing();
        let missing = || StagingError::NoRevision(format!("{model} has no staged branch `{branch}`"));
        let mut repo = self.repo(model)?.ok_or_else(missing)?;
        let Some(gone) = repo.branches.remove(branch) else {
            return Err(if releases.has_channel(branch)? {
                StagingError::Forbidden(format!("`{branch}` is a channel: only its nation's key moves it"))
            } else {
                missing()
            });
        };
        self.put_repo(model, &repo)?;
        self.drop_commits(model, &gone.commits, &repo);
        Ok(())
    }

    /// Makes a tag at `revision`.
    pub(crate) fn create_tag(
        &self,
        model: &Model,
        tag: &str,
        revision: &str,
        by: &Author,
        releases: &dyn Releases,
        now: Timestamp,
    ) -> Result<()> {
        check_name(tag)?;
        self.open()?;
        let _guard = self.changing();
        let mut repo = self.repo_or_new(model, by, releases, now)?;
        if repo.tags.contains_key(tag) || releases.has_version(tag)? {
            return Err(StagingError::Exists(format!("the tag `{tag}` of {model} is there already")));
        }
        if repo.tags.len() >= MAX_TAGS {
            return Err(StagingError::TooLarge(format!("{MAX_TAGS} tags of a model are the limit")));
        }
        let commit = repo.find(revision).map(str::to_owned);
        let commit = commit.ok_or_else(|| {
            StagingError::NoRevision(format!(
                "only what is staged can be tagged: a release has its version, and `{revision}` of {model} is not staged"
            ))
        })?;
        repo.tags.insert(tag.to_owned(), commit);
        self.put_repo(model, &repo)
    }

    /// Throws a tag away.
    pub(crate) fn delete_tag(&self, model: &Model, tag: &str, releases: &dyn Releases) -> Result<()> {
        self.open()?;
        let _guard = self.changing();
        let missing = || StagingError::NoRevision(format!("{model} has no staged tag `{tag}`"));
        let mut repo = self.repo(model)?.ok_or_else(missing)?;
        let Some(gone) = repo.tags.remove(tag) else {
            return Err(if releases.has_version(tag)? {
                StagingError::Forbidden(format!("`{tag}` is a published version, which stays"))
            } else {
                missing()
            });
        };
        self.put_repo(model, &repo)?;
        self.drop_commits(model, &[gone], &repo);
        Ok(())
    }

    /// What is staged of a model, or a place for it where the model is released. Not kept before [`Self::put_repo`].
    pub(super) fn repo_or_new(
        &self,
        model: &Model,
        by: &Author,
        releases: &dyn Releases,
        now: Timestamp,
    ) -> Result<Repo> {
        if let Some(repo) = self.repo(model)? {
            return Ok(repo);
        }
        if !releases.any()? {
            return Err(StagingError::NoRepo(format!(
                "{model} is neither staged nor released here; make it with `create_repo` first"
            )));
        }
        self.has_place()?;
        Ok(Repo::new(&by.id, now))
    }
}
