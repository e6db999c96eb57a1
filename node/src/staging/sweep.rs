//! Throwing away: what was published, what nobody names, what is too old.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::time::{Duration, SystemTime};

use registry::digest::Sha256;
use registry::{Model, Timestamp};

use super::Area;
use super::error::{Result, StagingError, io};
use super::objects::remove;
use super::space::files;

impl Area {
    /// Every content that a commit names.
    fn named(&self) -> Result<HashSet<Sha256>> {
        let mut named = HashSet::new();
        for name in self.repo_names()? {
            let model = self.model(name);
            let Some(repo) = self.repo(&model)? else { continue };
            let commits: BTreeSet<&str> = repo.commits().collect();
            for commit in commits {
                match self.commit(&model, commit) {
                    Ok(commit) => named.extend(commit.files.values().map(|file| file.sha256)),
                    Err(StagingError::NoRevision(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(named)
    }

    /// Removes content that no commit names. The caller holds the lock of changes.
    pub(super) fn drop_if_unused(&self, oid: &Sha256) -> Result<()> {
        if !self.named()?.contains(oid) {
            self.remove_object(oid)?;
        }
        Ok(())
    }

    /// Removes what was named until now and is not any more. The caller holds the lock of changes.
    pub(super) fn drop_unused(&self) -> Result<u64> {
        self.drop_older(&self.named()?, SystemTime::now() - UNNAMED)
    }

    fn drop_older(&self, named: &HashSet<Sha256>, than: SystemTime) -> Result<u64> {
        let mut gone = Vec::new();
        files(&self.home.join("objects"), &mut |path, meta| {
            let oid = path.file_name().and_then(|name| Sha256::from_hex(name.to_str()?).ok());
            let named = oid.is_some_and(|oid| named.contains(&oid));
            if !named && meta.modified().is_ok_and(|at| at < than) {
                gone.push(path.to_owned());
            }
        })?;
        gone.iter().try_fold(0, |sum, path| Ok(sum + remove(path, &self.space)?))
    }

    /// Removes a branch that was published, if it is still at `commit`, with the content that it alone names.
    pub(crate) fn clear(&self, model: &Model, branch: &str, commit: &str) -> Result<()> {
        self.open()?;
        let _guard = self.changing();
        let missing = || StagingError::NoRevision(format!("{model} has no staged branch `{branch}`"));
        let mut repo = self.repo(model)?.ok_or_else(missing)?;
        let head = repo.branches.get(branch).ok_or_else(missing)?.head().to_owned();
        if head != commit {
            return Err(StagingError::Stale { parent: commit.to_owned(), now: head });
        }
        let gone = repo.branches.remove(branch).map(|branch| branch.commits).unwrap_or_default();
        let mut content: HashSet<Sha256> = HashSet::new();
        for commit in &gone {
            if let Ok(commit) = self.commit(model, commit) {
                content.extend(commit.files.values().map(|file| file.sha256));
            }
        }
        if repo.branches.is_empty() && repo.tags.is_empty() {
            self.drop_repo(model)?;
        } else {
            self.put_repo(model, &repo)?;
            self.drop_commits(model, &gone, &repo);
        }
        let named = self.named()?;
        for oid in content.difference(&named) {
            self.remove_object(oid)?;
        }
        self.drop_checkout(commit);
        Ok(())
    }

    /// Throws away what is too old; answers how many bytes.
    pub(super) fn sweep(&self, now: Timestamp) -> Result<u64> {
        let _guard = self.changing();
        for name in self.repo_names()? {
            let model = self.model(name);
            let Some(mut repo) = self.repo(&model)? else { continue };
            let before = repo.clone();
            let old = |moved: Timestamp| moved.plus(self.limits.age) <= now;
            repo.branches.retain(|name, branch| {
                let goes = old(branch.moved);
                if goes {
                    tracing::info!(model = %model.name, branch = name, "a staged branch was not published in time and goes");
                }
                !goes
            });
            if repo.branches.is_empty() {
                // Tags alone keep nothing: without a branch there is nothing to publish.
                self.drop_repo(&model)?;
            } else if repo != before {
                self.put_repo(&model, &repo)?;
                let gone: Vec<String> = before.commits().map(str::to_owned).collect();
                self.drop_commits(&model, &gone, &repo);
            }
        }
        let age = Duration::from_secs(self.limits.age.unsigned_abs());
        let than = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut freed = self.drop_older(&self.named()?, than)?;
        freed += self.drop_xorbs(than)?;
        self.drop_old_parts(than)?;
        Ok(freed)
    }

    fn drop_xorbs(&self, than: SystemTime) -> Result<u64> {
        let mut xorbs = Vec::new();
        files(&self.home.join("xorbs"), &mut |path, meta| {
            if meta.modified().is_ok_and(|at| at < than) {
                xorbs.push(path.to_owned());
            }
        })?;
        xorbs.iter().try_fold(0, |sum, path| Ok(sum + remove(path, &self.space)?))
    }

    /// Makes room by removing xorbs that nobody sent or used for an hour; answers how many bytes.
    pub(super) fn drop_idle_xorbs(&self) -> Result<u64> {
        self.drop_xorbs(SystemTime::now() - IDLE)
    }

    /// Uploads in parts that nobody went on with.
    fn drop_old_parts(&self, than: SystemTime) -> Result<()> {
        let folder = self.home.join("multipart");
        for entry in fs::read_dir(&folder).map_err(io("could not list", &folder))?.flatten() {
            let data = entry.path().join("data");
            let touched = fs::metadata(&data).or_else(|_| entry.metadata()).and_then(|meta| meta.modified());
            if touched.is_ok_and(|at| at < than) {
                self.drop_parts(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// A xorb that nobody sent or used for so long goes when there is no room: an upload that needs it has sent its shard by then.
const IDLE: Duration = Duration::from_secs(3600);
/// Content that no commit names is kept so long where room is made: somebody may be about to commit it.
const UNNAMED: Duration = Duration::from_secs(24 * 3600);
