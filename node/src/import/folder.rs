//! The private folder in which files are gathered before they are published.
//!
//! ```text
//! HOME/import/ID/lock     held by the command that fills it
//! HOME/import/ID/part/…   files on their way
//! HOME/import/ID/done/…   files that are what they must be
//! HOME/import/ID/files/   the same by their paths, for `publish`
//! ```
//!
//! ID follows from the source and its revision, so that the same command finds what an earlier run left. What nobody came back for goes
//! after a week, or when there are too many.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hyper::header;
use registry::Digest;
use registry::digest::Sha256;
use tokio::io::AsyncWriteExt;

use super::{ImportError, Place, Plan, Planned, Source, disk, hash};
use crate::fetch_http::{Client, FetchError};

/// How long an unfinished folder waits for whoever began it.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most unfinished folders.
const MAX_FOLDERS: usize = 8;
/// How often a download that brings nothing is tried again.
const MAX_TRIES: u32 = 5;
/// How long is waited before the first of these; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(500);

/// How far it is.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The file that comes.
    pub path: String,
    /// Bytes that are here, of all files.
    pub done: u64,
    /// Bytes of all files.
    pub total: u64,
}

/// A folder that is being filled. It stays when it is dropped, for the next run.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

fn private(path: &Path) -> Result<(), ImportError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(disk(path))
}

fn lock(folder: &Path) -> Result<Option<File>, ImportError> {
    let path = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(disk(&path))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(disk(&path)(error.into())),
    }
}

/// Removes what nobody came back for. What can't be looked at stays.
fn sweep(all: &Path, keep: &Path) -> Result<(), ImportError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(all).map_err(disk(all))?.flatten() {
        let path = entry.path();
        let touched = entry.metadata().and_then(|metadata| metadata.modified());
        if let Some(touched) = touched.ok().filter(|_| path != keep) {
            found.push((touched, path));
        }
    }
    found.sort_by_key(|(touched, _)| std::cmp::Reverse(*touched));
    let now = SystemTime::now();
    for (at, (touched, path)) in found.into_iter().enumerate() {
        let old = now.duration_since(touched).is_ok_and(|age| age > MAX_AGE);
        if (old || at + 1 >= MAX_FOLDERS) && lock(&path).is_ok_and(|lock| lock.is_some()) {
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}

impl Folder {
    /// The folder for `source` in the node's folder `home`.
    pub fn open(home: &Path, source: &Source) -> Result<Self, ImportError> {
        let all = home.join("import");
        private(&all)?;
        let id = Digest::of(format!("{}\0{}\0{}", source.format, source.uri, source.revision).as_bytes());
        let path = all.join(id.short());
        sweep(&all, &path)?;
        for name in ["part", "done"] {
            private(&path.join(name))?;
        }
        let lock = lock(&path)?.ok_or(ImportError::Busy)?;
        Ok(Self { path, _lock: lock })
    }

    /// The files by their paths, once [`Self::fetch`] is done.
    pub fn files(&self) -> PathBuf {
        self.path.join("files")
    }

    /// Everything of it goes.
    pub fn remove(self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a folder of an import stays");
        }
    }

    /// Where a file lies once it is verified.
    fn done(&self, file: &Planned) -> PathBuf {
        self.path.join("done").join(Digest::of(file.path.as_bytes()).to_hex())
    }

    /// Brings every file of `plan` that is not here yet, verifies all of them, and lays them out by their paths; their SHA-256.
    pub async fn fetch(
        &self,
        plan: &Plan,
        client: Option<&Client>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<(String, Sha256)>, ImportError> {
        self.room(plan)?;
        let total = plan.size();
        let mut before = 0;
        let mut verified = Vec::with_capacity(plan.files.len());
        for file in &plan.files {
            let mut tell =
                |done: u64| progress(Progress { path: file.path.clone(), done: before + done, total });
            tell(0);
            let sha256 = match self.known(file).await? {
                Some(sha256) => sha256,
                None => self.bring(file, client, &mut tell).await?,
            };
            verified.push((file.path.clone(), sha256));
            before += file.size;
        }
        self.lay_out(plan)?;
        Ok(verified)
    }

    /// Refuses what the disk has no room for: what is still to come, and the store's copy of all of it.
    fn room(&self, plan: &Plan) -> Result<(), ImportError> {
        let missing = |file: &&Planned| matches!(file.place, Place::Url(_)) && !self.done(file).exists();
        let to_come = plan.files.iter().filter(missing).fold(0u64, |sum, file| sum.saturating_add(file.size));
        let needed = to_come.saturating_add(plan.size());
        let disk_of = rustix::fs::statvfs(&self.path).map_err(|error| disk(&self.path)(error.into()))?;
        let free = disk_of.f_bavail.saturating_mul(disk_of.f_frsize);
        if needed > free { Err(ImportError::Full { needed, free }) } else { Ok(()) }
    }

    /// The file from an earlier run, if it still is what it must be.
    async fn known(&self, file: &Planned) -> Result<Option<Sha256>, ImportError> {
        let at = self.done(file);
        if !at.exists() {
            return Ok(None);
        }
        match verified(&at, file).await {
            Ok(sha256) => Ok(Some(sha256)),
            Err(ImportError::Wrong { .. }) => {
                fs::remove_file(&at).map_err(disk(&at))?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn bring(
        &self,
        file: &Planned,
        client: Option<&Client>,
        tell: &mut dyn FnMut(u64),
    ) -> Result<Sha256, ImportError> {
        let done = self.done(file);
        let part = self.path.join("part").join(done.file_name().unwrap_or_default());
        match (&file.place, client) {
            (Place::File(from), _) => take(from, &part)?,
            (Place::Url(url), Some(client)) => download(client, url, &part, file.size, tell).await?,
            (Place::Url(url), None) => {
                let why = "nobody may be asked here";
                return Err(FetchError::Url { url: url.clone(), why }.into());
            }
        }
        let checked = verified(&part, file).await;
        if let Err(ImportError::Wrong { .. }) = checked {
            // What is wrong would only be completed to something wrong.
            fs::remove_file(&part).map_err(disk(&part))?;
        }
        let sha256 = checked?;
        fs::rename(&part, &done).map_err(disk(&done))?;
        Ok(sha256)
    }

    /// Links every verified file to its path. What an earlier run laid out goes first: it may have been another choice of files.
    fn lay_out(&self, plan: &Plan) -> Result<(), ImportError> {
        let files = self.files();
        match fs::remove_dir_all(&files) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(disk(&files)(error)),
            _ => {}
        }
        private(&files)?;
        for file in &plan.files {
            // Its path was checked: it stays in the folder.
            let at = files.join(&file.path);
            if let Some(parent) = at.parent() {
                private(parent)?;
            }
            fs::hard_link(self.done(file), &at).map_err(disk(&at))?;
        }
        Ok(())
    }
}

async fn verified(at: &Path, file: &Planned) -> Result<Sha256, ImportError> {
    let (at, file) = (at.to_owned(), file.clone());
    let work = tokio::task::spawn_blocking(move || hash::verify(&at, &file.path, file.size, &file.check));
    match work.await {
        Ok(checked) => checked,
        Err(error) => Err(disk("a file")(std::io::Error::other(error))),
    }
}

/// A file of this machine: the same file where that goes, else a copy.
fn take(from: &Path, part: &Path) -> Result<(), ImportError> {
    let _ = fs::remove_file(part);
    if fs::hard_link(from, part).is_err() {
        fs::copy(from, part).map_err(disk(from))?;
    }
    Ok(())
}

/// Brings the rest of a file. What is here stays for the next run, whatever happens.
async fn download(
    client: &Client,
    url: &str,
    part: &Path,
    size: u64,
    tell: &mut dyn FnMut(u64),
) -> Result<(), ImportError> {
    let mut tries = 0;
    loop {
        let have = fs::metadata(part).map_or(0, |metadata| metadata.len());
        if have == size && part.exists() {
            return Ok(());
        }
        let result = piece(client, url, part, size, have, tell).await;
        let now = fs::metadata(part).map_or(0, |metadata| metadata.len());
        tries = if now > have { 1 } else { tries + 1 };
        match result {
            Ok(()) if now == size => return Ok(()),
            Err(ImportError::Fetch(error)) if error.is_passing() && tries < MAX_TRIES => {
                tracing::debug!(%error, "a download goes on");
            }
            Ok(()) if tries < MAX_TRIES => {}
            Ok(()) => {
                let why = "it ends too early, again and again".to_owned();
                return Err(FetchError::Connect { url: url.to_owned(), why }.into());
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PAUSE * 2u32.pow(tries.min(MAX_TRIES))).await;
    }
}

/// One answer's worth of a file, from `have` on where the server can.
async fn piece(
    client: &Client,
    url: &str,
    part: &Path,
    size: u64,
    have: u64,
    tell: &mut dyn FnMut(u64),
) -> Result<(), ImportError> {
    let range = format!("bytes={have}-");
    let mut headers = vec![(header::ACCEPT_ENCODING, "identity")];
    if have > 0 && have < size {
        headers.push((header::RANGE, range.as_str()));
    }
    let answer = client.get(url, &headers).await?;
    let mut file =
        tokio::fs::OpenOptions::new().create(true).append(true).open(part).await.map_err(disk(part))?;
    let mut answer = match answer.status.as_u16() {
        206 => {
            let from = answer.header(header::CONTENT_RANGE).unwrap_or_default().to_owned();
            if !from.starts_with(&format!("bytes {have}-")) {
                let why = format!("the range `{from}`, another than the one asked for");
                return Err(FetchError::Malformed { url: url.to_owned(), why }.into());
            }
            answer
        }
        // What is here is not a beginning of what is there.
        416 => {
            file.set_len(0).await.map_err(disk(part))?;
            return Ok(());
        }
        _ => answer.good().await?,
    };
    let mut at = if answer.status.as_u16() == 206 { have } else { 0 };
    if at == 0 {
        file.set_len(0).await.map_err(disk(part))?;
    }
    let result = loop {
        match answer.next().await {
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.into()),
            Ok(Some(bytes)) => {
                at += bytes.len() as u64;
                if at > size {
                    file.set_len(0).await.map_err(disk(part))?;
                    let url = answer.url().to_owned();
                    return Err(FetchError::TooLarge { url, limit: size }.into());
                }
                file.write_all(&bytes).await.map_err(disk(part))?;
                tell(at);
            }
        }
    };
    // Durable, so that what the next run builds on is there after a crash too.
    file.flush().await.map_err(disk(part))?;
    file.sync_all().await.map_err(disk(part))?;
    result
}
