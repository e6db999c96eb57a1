//! A worker whose release is still coming: the transfer, what is handed in of it, and what the worker is told of it.
//!
//! ```text
//! decide from the signed release ── pull ──► chunk maps ──► files of their full length ──► worker started, sealed
//!                                                                                            │ what it computes on
//!            chunks of those files before all others ◄───────────────────────────────────────┘
//!            chunk verified and written ──► Order::Here ──► checked again, copied, hashed
//!            those files whole, decided anew with their content ──► Order::Answer
//! ```
//!
//! The transfer is an ordinary pull: it can be joined, seen and cancelled as any other, and admits the release when all of it is
//! here. It ends with the worker, and a later one goes on where it was.

mod gather;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use registry::admit::AdmitError;
use registry::admitted::AdmittedFile;
use registry::serving::Order;
use registry::store::{Bitmap, Store, StoreError};
use registry::{Digest, Reference, Timestamp};
use tokio::sync::{mpsc, watch};

use crate::events::TransferInfo;
use crate::node::{Node, PullError, PullOptions, blocking};
use crate::transfer::Outside;
use crate::transfer::serve::changed;

/// Orders that wait for a worker that is slow to take them.
const WAITING: usize = 64;
/// Runs of chunks in one order: a line stays short.
const RUNS: usize = 4096;
/// How often it is looked for what came, should nobody tell.
const LOOK: Duration = Duration::from_millis(50);
/// The same where a thing is awaited of which nobody tells: the first files, and the last of them to be put in its place.
const LOOK_CLOSELY: Duration = Duration::from_millis(10);
/// Between two orders at least, so that many small chunks are told of together.
const BUNCH: Duration = Duration::from_millis(10);
/// After a worker is served from what came, the rest is tried again so often when the transfer failed.
const AGAIN: Duration = Duration::from_secs(60);
/// Readers of a transfer that are workers have numbers from here on; the others count from zero.
const READERS: u64 = 1 << 63;
/// Files of a release, at most, so that the numbers of two workers' readers differ.
const READERS_EACH: u64 = 1 << 20;

/// Files that are still coming, by their blobs.
pub(super) type Growing = BTreeMap<Digest, File>;

/// What became of a transfer that a worker waits for.
pub(super) enum Fed {
    /// What the worker is told.
    Order(Order),
    /// The files that it computes on are whole, and may be served.
    Whole,
    /// They may not be served.
    Refused(AdmitError),
    /// They did not come.
    Failed(PullError),
}

/// The transfer as a worker's supervisor sees it; it is cancelled when this is dropped.
pub(super) struct Feed {
    fed: mpsc::Receiver<Fed>,
    shown: watch::Receiver<Option<TransferInfo>>,
    wants: watch::Sender<Option<Vec<usize>>>,
    /// Whether the worker may take its time no more: everything that it needs is here.
    pub(super) whole: bool,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a supervisor hears of it.
pub(super) enum News {
    Fed(Fed),
    Shown(Option<TransferInfo>),
}

impl Feed {
    /// Begins the transfer of `release` for worker `id`.
    pub(super) fn begin(node: Node, id: u64, release: Digest, files: Vec<AdmittedFile>) -> Self {
        let (tell, fed) = mpsc::channel(WAITING);
        let (show, shown) = watch::channel(None);
        let (wants, wanted) = watch::channel(None);
        let coming = Coming { node, id, release, files: Arc::new(files), tell, wanted };
        let task = tokio::spawn(coming.run(show));
        Self { fed, shown, wants, whole: false, task }
    }

    /// The worker said what it computes on. Only the first word counts.
    pub(super) fn wants(&self, files: Vec<usize>) {
        self.wants.send_if_modified(|wants| {
            let first = wants.is_none();
            if first {
                *wants = Some(files);
            }
            first
        });
    }

    /// What happens next.
    pub(super) async fn next(&mut self) -> News {
        tokio::select! {
            biased;
            Some(fed) = self.fed.recv() => {
                self.whole |= matches!(fed, Fed::Whole);
                News::Fed(fed)
            }
            Ok(()) = self.shown.changed() => News::Shown(self.shown.borrow_and_update().clone()),
            else => std::future::pending().await,
        }
    }
}

/// As [`Feed::next`], for a worker that may have none.
pub(super) async fn next(feed: &mut Option<Feed>) -> News {
    match feed {
        Some(feed) => feed.next().await,
        None => std::future::pending().await,
    }
}

struct Coming {
    node: Node,
    id: u64,
    release: Digest,
    files: Arc<Vec<AdmittedFile>>,
    tell: mpsc::Sender<Fed>,
    wanted: watch::Receiver<Option<Vec<usize>>>,
}

impl Coming {
    /// Pulls, and tells of what came, until both are done.
    async fn run(mut self, show: watch::Sender<Option<TransferInfo>>) {
        let show = Arc::new(show);
        let (node, release, shown) = (self.node.clone(), self.release, Arc::clone(&show));
        let pull = async move {
            let progress = Box::new(move |info| drop(shown.send_replace(Some(info))));
            let options = PullOptions { refresh: false, progress: Some(progress) };
            node.pull(Reference::Digest(release), options).await
        };
        tokio::pin!(pull);
        let mut pulled = None;
        {
            let told = self.tell_all();
            tokio::pin!(told);
            loop {
                tokio::select! {
                    () = &mut told => break,
                    result = &mut pull, if pulled.is_none() => match result {
                        Ok(_) => pulled = Some(Ok(())),
                        Err(error) => {
                            pulled = Some(Err(error));
                            break;
                        }
                    },
                }
            }
        }
        match pulled {
            Some(Ok(())) => {}
            Some(Err(error)) => drop(self.tell.send(Fed::Failed(error)).await),
            // The worker has what it needs; the rest of the release is fetched too.
            None => {
                if let Err(error) = pull.await {
                    self.rest(error).await;
                }
            }
        }
        show.send_replace(None);
        self.tell.closed().await;
    }

    /// Tries again to fetch what the worker does not compute on. When that shows that the release may not be served after all, the
    /// worker ends.
    async fn rest(&self, mut error: PullError) {
        loop {
            if matches!(error, PullError::Policy(_) | PullError::Verification(_)) {
                return drop(self.tell.send(Fed::Failed(error)).await);
            }
            tracing::warn!(worker = self.id, release = %self.release, "the rest of a release that is served did not come, and is tried again: {error}");
            tokio::time::sleep(AGAIN).await;
            let options = PullOptions { refresh: false, progress: None };
            match self.node.pull(Reference::Digest(self.release), options).await {
                Ok(_) => return,
                Err(next) => error = next,
            }
        }
    }

    /// Tells the worker of everything that it computes on, and then that it may answer.
    async fn tell_all(&mut self) {
        let Ok(wants) = self.wanted.wait_for(Option::is_some).await.map(|wants| wants.clone()) else {
            return;
        };
        let wants = wants.unwrap_or_default();
        let mut told: Vec<Told> =
            wants.iter().filter_map(|place| Some(Told::new(*place, self.files.get(*place)?))).collect();
        loop {
            // Before looking: what comes meanwhile is told.
            let mut changes = self.node.sources().get(&self.release).map(|source| source.changes());
            let store = self.node.store().clone();
            let looked = blocking(move || {
                let orders = told.iter_mut().filter(|file| !file.whole).map(|file| file.look(&store));
                let orders = orders.collect::<Result<Vec<_>, _>>()?;
                Ok::<_, StoreError>((told, orders.into_iter().flatten().collect::<Vec<_>>()))
            });
            let orders;
            (told, orders) = match looked.await {
                Ok(looked) => looked,
                Err(error) => return drop(self.tell.send(Fed::Failed(error.into())).await),
            };
            for order in orders {
                if self.tell.send(Fed::Order(order)).await.is_err() {
                    return;
                }
            }
            if told.iter().all(|file| file.whole) {
                self.unwant(&told);
                return drop(self.tell.send(self.decide().await).await);
            }
            self.want(&told);
            let pause = if told.iter().all(|file| file.left == 0) { LOOK_CLOSELY } else { LOOK };
            tokio::time::sleep(BUNCH).await;
            tokio::select! {
                () = changed(&mut changes) => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Whether it may be served, now that every file that is computed on is here.
    async fn decide(&self) -> Fed {
        decide(self.node.store(), self.release).await.map_or_else(Fed::Refused, |()| Fed::Whole)
    }

    fn reader(&self, place: usize) -> u64 {
        READERS + self.id * READERS_EACH + place as u64
    }

    /// What is computed on goes before everything else of the release. A transfer that was told before says nothing to it.
    fn want(&self, told: &[Told]) {
        for file in told.iter().filter(|file| file.left > 0) {
            let (reader, place) = (self.reader(file.place), file.place as u32);
            let want = Outside::Want { reader, file: place, from: 0, to: file.size };
            self.node.transfers_state().tell_one(&self.release, want);
        }
    }

    fn unwant(&self, told: &[Told]) {
        for file in told {
            let what = Outside::Unwant { reader: self.reader(file.place) };
            self.node.transfers_state().tell_one(&self.release, what);
        }
    }
}

/// Decides about a release with what of it is here.
async fn decide(store: &Store, release: Digest) -> Result<(), AdmitError> {
    let store = store.clone();
    blocking(move || registry::admit::serve_ahead(&store, &release, Timestamp::now()).map(drop)).await
}

/// How far the worker was told of one file.
struct Told {
    place: usize,
    blob: Digest,
    size: u64,
    map: Digest,
    told: Option<Bitmap>,
    /// Chunks that it was not told of.
    left: usize,
    /// Whether the blob is in its place, hashed as a whole.
    whole: bool,
}

impl Told {
    fn new(place: usize, file: &AdmittedFile) -> Self {
        let AdmittedFile { blob, size, chunk_map: map, .. } = *file;
        Self { place, blob, size, map, told: None, left: usize::MAX, whole: false }
    }

    /// What the worker is to be told of what came since.
    fn look(&mut self, store: &Store) -> Result<Vec<Order>, StoreError> {
        if self.told.is_none() {
            let Some(map) = store.chunk_map(&self.map)? else { return Ok(Vec::new()) };
            (self.told, self.left) = (Some(Bitmap::new(map.len())), map.len());
        }
        let Some(told) = &mut self.told else { return Ok(Vec::new()) };
        // In this order: between the two the blob may be put in its place.
        let here = match store.is_chunk_here(&self.blob, 0) {
            Some(_) => store.partial_chunks(&self.blob),
            None => None,
        };
        self.whole = here.is_none() && store.has_blob(&self.blob);
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for index in 0..told.len() {
            let came = self.whole || here.as_ref().is_some_and(|here| here.get(index));
            if !came || !told.set(index, true) {
                continue;
            }
            self.left = self.left.saturating_sub(1);
            match runs.last_mut() {
                Some((first, count)) if *first + *count == index as u32 => *count += 1,
                _ => runs.push((index as u32, 1)),
            }
        }
        let file = self.place;
        Ok(runs.chunks(RUNS).map(|runs| Order::Here { file, runs: runs.to_vec() }).collect())
    }
}
