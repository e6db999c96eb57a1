//! A file's bytes on their way out: piece by piece, sent by the kernel where the connection can, and only while the release is
//! given. Of a release that is being fetched, only chunks that were verified.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::stream;
use registry::chunk::ChunkMap;
use registry::{Digest, statement};
use rustix::io::{Errno, ReadWriteFlags};
use tokio::time::Instant;

use super::super::Api;
use super::super::server::{MIN_PIECE, Outlet, PIECE};
use super::super::stream::blocking;
use super::super::verdict::Verdict;
use super::pulls::Running;
use super::refusal::Refusal;
use crate::node::PullError;
use crate::transfer::Outside;
use crate::transfer::serve::changed;

/// Bytes read at once where the kernel can't send the file.
const READ: usize = 256 * 1024;
/// A reader looks again so often, should it have missed that something came.
const LOOK: Duration = Duration::from_millis(250);
/// The same before the pull has begun, when nobody tells of what comes.
const LOOK_AT_FIRST: Duration = Duration::from_millis(20);

/// Where the bytes come from.
pub(super) struct Source {
    pub(super) api: Api,
    pub(super) release: Digest,
    /// The file's place in the release.
    pub(super) place: u32,
    pub(super) file: statement::File,
    /// Whether it is staged: no release, so that no recall and no policy speaks of it.
    pub(super) staged: bool,
}

/// Who waits for bytes that are being fetched.
struct Growing {
    running: Arc<Running>,
    /// Others began it, and it may be failing of what is over now.
    of_others: bool,
    reader: u64,
    wants: (u64, u64),
    map: Option<Arc<ChunkMap>>,
}

/// A range of a file, as far as it was given.
pub(super) struct Reading {
    source: Source,
    content: Option<Arc<std::fs::File>>,
    growing: Option<Growing>,
    outlet: Option<Outlet>,
    at: u64,
    end: u64,
    /// Up to where it is known to be here.
    here: u64,
    generation: u64,
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(growing) = &self.growing {
            let what = Outside::Unwant { reader: growing.reader };
            self.source.api.node().transfers_state().tell_one(&self.source.release, what);
        }
    }
}

impl Reading {
    /// Of a file that is whole here.
    pub(super) async fn whole(
        source: Source,
        range: (u64, u64),
        outlet: Option<Outlet>,
    ) -> Result<Self, Refusal> {
        let (store, blob) = (source.api.store().clone(), source.file.blake3);
        let content = blocking(move || Ok(store.open_blob(&blob)?)).await?;
        let mut reading = Self::new(source, range, outlet, None);
        (reading.content, reading.here) = (Some(Arc::new(content)), range.1);
        Ok(reading)
    }

    /// Of a staged file.
    pub(super) fn staged(
        source: Source,
        content: std::fs::File,
        range: (u64, u64),
        outlet: Option<Outlet>,
    ) -> Self {
        let mut reading = Self::new(source, range, outlet, None);
        (reading.content, reading.here) = (Some(Arc::new(content)), range.1);
        reading
    }

    /// Of a file that is being fetched, or is from now on.
    pub(super) fn growing(
        source: Source,
        range: (u64, u64),
        outlet: Option<Outlet>,
    ) -> Result<Self, Refusal> {
        let pulls = &source.api.hub().pulls;
        let reader = pulls.reader();
        let (running, of_others) = pulls.join(&source.api, source.release)?;
        let growing = Growing { running, of_others, reader, wants: range, map: None };
        Ok(Self::new(source, range, outlet, Some(growing)))
    }

    /// After a pull of others failed: whether there is a new one to wait for.
    fn begin_again(&mut self) -> bool {
        let Some(growing) = &mut self.growing else { return false };
        if !std::mem::take(&mut growing.of_others) {
            return false;
        }
        let again = self.source.api.hub().pulls.join(&self.source.api, self.source.release);
        again.map(|(running, _)| growing.running = running).is_ok()
    }

    fn new(source: Source, range: (u64, u64), outlet: Option<Outlet>, growing: Option<Growing>) -> Self {
        let generation = source.api.node().generation();
        Self { source, content: None, growing, outlet, at: range.0, end: range.1, here: range.0, generation }
    }

    /// Waits until the first bytes are here, at most `limit`: what fails before that can still be said.
    pub(super) async fn first(&mut self, limit: Duration) -> Result<(), Refusal> {
        match tokio::time::timeout(limit, self.wait()).await {
            Ok(Err(Failed::Pull(error))) => Err(error.into()),
            Ok(Err(error)) => Err(Refusal::Unreachable(error.to_string())),
            // It goes on in the body.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// The body. A failure cuts the connection, since the length was announced.
    pub(super) fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(Some(self), |reading| async move {
            let mut reading = reading?;
            match reading.next().await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(reading))),
                Ok(None) => None,
                Err(error) => {
                    tracing::info!(path = reading.source.file.path, "a file is cut off: {error}");
                    Some((Err(error), None))
                }
            }
        }))
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Failed> {
        if self.at >= self.end {
            return Ok(None);
        }
        self.still_given().await?;
        self.wait().await?;
        let Some(content) = self.content.clone() else { return Err(Failed::Gone) };
        let (at, len) = (self.at, (self.here - self.at).min(PIECE as u64) as usize);
        let bytes = match &self.outlet {
            Some(outlet) if len >= MIN_PIECE => {
                if !is_cached(&content, at, len) {
                    let content = Arc::clone(&content);
                    off_the_reactor(move || warm(&content, at, len)).await?;
                }
                outlet.stand_in(&content, at, len)
            }
            _ => off_the_reactor(move || read(&content, at, len.min(READ))).await?,
        };
        self.at += bytes.len() as u64;
        Ok(Some(bytes))
    }

    /// Looks again after every recall and every change of trust.
    async fn still_given(&mut self) -> Result<(), Failed> {
        let generation = self.source.api.node().generation();
        if generation == self.generation || self.source.staged {
            return Ok(());
        }
        let api = &self.source.api;
        match api.verdicts().of(api, self.source.release).await {
            Ok(Verdict::Given(_)) => {
                self.generation = generation;
                Ok(())
            }
            _ => Err(Failed::Withdrawn),
        }
    }

    /// Waits until something from `at` on is here.
    async fn wait(&mut self) -> Result<(), Failed> {
        if self.at < self.here {
            return Ok(());
        }
        let api = self.source.api.clone();
        let Some(growing) = &self.growing else { return Err(Failed::Gone) };
        let (mut outcome, reader, (from, to)) = (growing.running.outcome(), growing.reader, growing.wants);
        let patience = Duration::from_secs(api.node().config().hub.wait_secs);
        let until = Instant::now() + patience;
        loop {
            // Before looking: what comes meanwhile is told.
            let mut changes = api.node().sources().get(&self.source.release).map(|source| source.changes());
            let ended = outcome.borrow_and_update().clone();
            if self.look().await? {
                return Ok(());
            }
            match ended {
                Some(Err(_)) if self.begin_again() => {
                    let Some(growing) = &self.growing else { return Err(Failed::Gone) };
                    outcome = growing.running.outcome();
                    continue;
                }
                Some(Err(error)) => return Err(Failed::Pull(error)),
                Some(Ok(())) => return Err(Failed::Gone),
                None => {}
            }
            if Instant::now() >= until {
                return Err(Failed::Stalled(patience));
            }
            let file = self.source.place;
            let want = Outside::Want { reader, file, from, to };
            api.node().transfers_state().tell_one(&self.source.release, want);
            let pause = if changes.is_some() { LOOK } else { LOOK_AT_FIRST };
            tokio::select! {
                () = changed(&mut changes) => {}
                _ = outcome.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Whether something from `at` on is here now.
    async fn look(&mut self) -> Result<bool, Failed> {
        let store = self.source.api.store().clone();
        let blob = self.source.file.blake3;
        let Some(growing) = &mut self.growing else { return Ok(true) };
        if growing.map.is_none() {
            let (store, digest) = (store.clone(), self.source.file.chunk_map);
            let map = blocking(move || Ok(store.chunk_map(&digest)?)).await?;
            growing.map = map.map(Arc::new);
        }
        let Some(map) = growing.map.clone() else { return Ok(false) };
        let (Some(first), false) = (map.index_at(self.at), map.blob() != blob) else { return Ok(false) };
        let mut here = self.at;
        for index in first..map.len() {
            match store.is_chunk_here(&blob, index) {
                Some(true) => here = map.range(index).map_or(here, |range| range.end).min(self.end),
                Some(false) => break,
                None if index == first => return self.look_whole().await,
                None => break,
            }
            if here >= self.end || here - self.at >= PIECE as u64 {
                break;
            }
        }
        if here > self.at && self.content.is_none() {
            let content = blocking(move || Ok(store.open_growing(&blob)?)).await?;
            self.content = content.map(Arc::new);
        }
        if here > self.at && self.content.is_some() {
            self.here = here;
        }
        Ok(self.here > self.at)
    }

    /// Whether the whole file is here, when no transfer has it open.
    async fn look_whole(&mut self) -> Result<bool, Failed> {
        let (store, blob) = (self.source.api.store().clone(), self.source.file.blake3);
        let content = blocking(move || match store.has_blob(&blob) {
            true => Ok(Some(store.open_blob(&blob)?)),
            false => Ok(None),
        });
        if let Some(content) = content.await? {
            (self.content, self.here) = (Some(Arc::new(content)), self.end);
        }
        Ok(self.here > self.at)
    }
}

/// Why a body ends early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("it was recalled or is not given any more")]
    Withdrawn,
    #[error("its bytes are not here any more")]
    Gone,
    #[error("nothing of it came for {} s", .0.as_secs())]
    Stalled(Duration),
    #[error(transparent)]
    Pull(#[from] PullError),
    #[error(transparent)]
    Problem(#[from] crate::error::Problem),
    #[error(transparent)]
    Io(#[from] io::Error),
}

async fn off_the_reactor<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Whether both ends of a piece are in memory, so that sending it won't wait for the disk. Where the file system can't tell, yes.
fn is_cached(content: &std::fs::File, at: u64, len: usize) -> bool {
    let cached = |at| {
        let mut byte = [0];
        let slices = &mut [io::IoSliceMut::new(&mut byte)];
        let looked = rustix::io::preadv2(content, slices, at, ReadWriteFlags::NOWAIT);
        !matches!(looked, Err(Errno::AGAIN))
    };
    cached(at) && cached(at + len as u64 - 1)
}

/// Reads a piece from the disk into memory.
fn warm(content: &std::fs::File, at: u64, len: usize) -> io::Result<()> {
    let mut block = vec![0; READ];
    let end = at + len as u64;
    let mut at = at;
    while at < end {
        let most = block.len().min((end - at) as usize);
        match content.read_at(block.get_mut(..most).unwrap_or_default(), at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => at += read as u64,
        }
    }
    Ok(())
}

fn read(content: &std::fs::File, at: u64, len: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; len];
    content.read_exact_at(&mut bytes, at)?;
    Ok(bytes.into())
}
