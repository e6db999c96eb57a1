//! What this node has of a release that others watch: a whole release that is handed out by [`Lap`], or one that is being
//! fetched and grows.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use registry::Digest;
use registry::statement::Release;
use registry::store::{Store, StoreError};
use tokio::sync::watch;

use super::lap::{FileShape, Lap, MAX_LAP_CHUNKS, Span};
use crate::wire::{Have, MAX_RUNS, News};

/// Chunks remembered one by one for watchers that are behind; one that is further behind is told the whole picture again.
const MAX_LOG: usize = 64 * 1024;
/// Sources remembered at once; those that nobody holds are forgotten first.
const MAX_SOURCES: usize = 4096;

/// The sources of a node, by release.
#[derive(Debug, Default)]
pub(crate) struct Sources(Mutex<HashMap<Digest, Weak<Source>>>);

impl Sources {
    /// The source of a release; made by `make` when nobody holds one.
    pub(crate) fn get_or(&self, release: Digest, make: impl FnOnce() -> Source) -> Arc<Source> {
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = sources.get(&release).and_then(Weak::upgrade) {
            return source;
        }
        if sources.len() >= MAX_SOURCES {
            sources.retain(|_, source| source.strong_count() > 0);
        }
        let source = Arc::new(make());
        sources.insert(release, Arc::downgrade(&source));
        source
    }

    /// The source of a release, if somebody holds it.
    pub(crate) fn get(&self, release: &Digest) -> Option<Arc<Source>> {
        let sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sources.get(release).and_then(Weak::upgrade)
    }
}

#[derive(Debug)]
struct State {
    lap: Option<Lap<PeerId>>,
    /// Whether the whole release is here.
    complete: bool,
    /// Chunks that came, in their order; the first has number `log_start`.
    log: Vec<(u32, u32)>,
    log_start: u64,
    /// Watching streams of each peer: the books know a peer once.
    streams: BTreeMap<PeerId, usize>,
}

/// What this node has of one release.
#[derive(Debug)]
pub(crate) struct Source {
    state: Mutex<State>,
    begun: Instant,
    changed: watch::Sender<u64>,
}

/// How far a watcher is.
#[derive(Debug, Default)]
pub(super) struct Position {
    /// Chunks of the log that it was told of.
    log: u64,
    /// Whether it was told the whole picture.
    pictured: bool,
    /// Whether it was told that the release is complete.
    complete: bool,
}

/// What a watcher is told next.
pub(super) enum Next {
    /// These.
    News(Vec<News>),
    /// The whole picture, which is read from the store; what comes after it is in the log.
    Picture,
}

impl Source {
    /// Of a release that is whole here from the start: it is handed out in laps, from the place on that is this node's own.
    pub(super) fn seed(lap: Option<Vec<FileShape>>, own: &PeerId, release: &Digest) -> Self {
        let place = Digest::of(&[&own.to_bytes(), &release.as_bytes()[..]].concat());
        let start = place.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Self::new(true, Some(lap.map_or_else(Lap::closed, |files| Lap::new(files, start))))
    }

    /// Of a release that is being fetched.
    pub(crate) fn growing() -> Self {
        Self::new(false, None)
    }

    fn new(complete: bool, lap: Option<Lap<PeerId>>) -> Self {
        let state = State { lap, complete, log: Vec::new(), log_start: 0, streams: BTreeMap::new() };
        Self { state: Mutex::new(state), begun: Instant::now(), changed: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Chunks came and were kept.
    pub(crate) fn kept(&self, file: u32, chunks: impl Iterator<Item = u32>) {
        {
            let mut state = self.state();
            state.log.extend(chunks.map(|chunk| (file, chunk)));
            if state.log.len() > MAX_LOG {
                let over = state.log.len() - MAX_LOG / 2;
                state.log.drain(..over);
                state.log_start += over as u64;
            }
        }
        self.wake();
    }

    /// The release is whole now.
    pub(crate) fn completed(&self) {
        self.state().complete = true;
        self.wake();
    }

    fn wake(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// Told whenever something came.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A stream of `peer` watches until what comes back is dropped.
    pub(super) fn watch(self: &Arc<Self>, peer: PeerId) -> Watching {
        {
            let now = self.now();
            let mut state = self.state();
            let streams = state.streams.entry(peer).or_default();
            *streams += 1;
            if *streams == 1
                && let Some(lap) = &mut state.lap
            {
                lap.join(peer, now);
            }
        }
        self.wake();
        Watching { source: Arc::clone(self), peer }
    }

    /// Whether anybody asks us for this release at the moment.
    pub(crate) fn is_watched(&self) -> bool {
        !self.state().streams.is_empty()
    }

    /// Chunks are about to be sent to a peer.
    pub(super) fn served(&self, peer: PeerId, span: Span, bytes: u64) {
        let now = self.now();
        let mut state = self.state();
        if let Some(lap) = &mut state.lap {
            lap.served(peer, span, bytes, now);
            drop(state);
            self.wake();
        }
    }

    /// A piece went to a peer.
    pub(super) fn active(&self, peer: &PeerId) {
        let now = self.now();
        if let Some(lap) = &mut self.state().lap {
            lap.active(peer, now);
        }
    }

    /// Time passed.
    pub(super) fn tick(&self) {
        let now = self.now();
        let mut state = self.state();
        if let Some(lap) = &mut state.lap {
            lap.tick(now);
        }
    }

    pub(super) fn next(&self, peer: &PeerId, position: &mut Position) -> Next {
        let mut state = self.state();
        if let Some(lap) = &mut state.lap {
            return Next::News(lap.news(peer));
        }
        if state.complete {
            return Next::News(match std::mem::replace(&mut position.complete, true) {
                true => Vec::new(),
                false => vec![News { file: None, replaces: false, have: Have::Everything }],
            });
        }
        let end = state.log_start + state.log.len() as u64;
        if !position.pictured || position.log < state.log_start {
            (position.pictured, position.log) = (true, end);
            return Next::Picture;
        }
        let from = (position.log - state.log_start) as usize;
        let news = as_runs(state.log.get(from..).unwrap_or_default());
        position.log = end;
        Next::News(news)
    }
}

/// Takes its place among the watchers back when it is dropped.
#[derive(Debug)]
pub(super) struct Watching {
    source: Arc<Source>,
    peer: PeerId,
}

impl Drop for Watching {
    fn drop(&mut self) {
        let now = self.source.now();
        let mut state = self.source.state();
        let left = state.streams.get_mut(&self.peer).map_or(0, |streams| {
            *streams -= 1;
            *streams
        });
        if left == 0 {
            state.streams.remove(&self.peer);
            if let Some(lap) = &mut state.lap {
                lap.leave(self.peer, now);
            }
        }
        drop(state);
        self.source.wake();
    }
}

/// Chunks as runs, file by file.
fn as_runs(chunks: &[(u32, u32)]) -> Vec<News> {
    let mut files: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for &(file, chunk) in chunks {
        files.entry(file).or_default().push(chunk);
    }
    let mut news = Vec::new();
    for (file, mut chunks) in files {
        chunks.sort_unstable();
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for chunk in chunks {
            match runs.last_mut() {
                Some((first, count)) if *first + *count == chunk => *count += 1,
                _ => runs.push((chunk, 1)),
            }
        }
        news.extend(runs.chunks(MAX_RUNS).map(|runs| News {
            file: Some(file),
            replaces: false,
            have: Have::Runs(runs.to_vec()),
        }));
    }
    news
}

/// The whole picture of a release that is being fetched: what of each file is here.
pub(super) fn picture(store: &Store, release: &Release) -> Result<Vec<News>, StoreError> {
    let mut news = vec![News { file: None, replaces: true, have: Have::Nothing }];
    for (file, entry) in (0u32..).zip(&release.files) {
        let have = if store.has_blob(&entry.blake3) {
            Have::Everything
        } else {
            match store.partial_chunks(&entry.blake3) {
                Some(bits) if bits.count() > 0 => Have::Some(bits.to_bytes()),
                _ => continue,
            }
        };
        news.push(News { file: Some(file), replaces: false, have });
    }
    Ok(news)
}

/// The shapes of a release's files, unless there is too much of it to keep books.
pub(super) fn shapes(store: &Store, release: &Release) -> Result<Option<Vec<FileShape>>, StoreError> {
    let mut shapes = Vec::with_capacity(release.files.len());
    let mut all = 0;
    for file in &release.files {
        let Some(map) = store.chunk_map(&file.chunk_map)? else { return Ok(None) };
        // At most MAX_CHUNKS, which fits.
        let chunks = map.len() as u32;
        all += u64::from(chunks);
        if all > MAX_LAP_CHUNKS {
            return Ok(None);
        }
        shapes.push(FileShape { chunks, mean: file.size / u64::from(chunks.max(1)) });
    }
    Ok(Some(shapes))
}

/// Waits until `changes` tells that something came; for ever where nothing is being fetched, or any more.
pub(crate) async fn changed(changes: &mut Option<watch::Receiver<u64>>) {
    if let Some(changes) = changes
        && changes.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
