//! The worker supervisor: starts a process for an admitted release, watches it, and stops it when the release is recalled.
//!
//! A worker's process gets the release as a [`registry::admitted::Handoff`] on its standard input
//! ([`registry::serving`]), the descriptors of its files and of the listener that is bound here
//! ([`registry::serving::hand`]), and an empty environment. While it lives its blobs are leased, so that garbage collection
//! keeps them. Whenever a recall or an attestation
//! arrives, a nation is removed or the policy changes, every worker's release is decided anew; one that is no longer
//! allowed is told to stop, and killed if it takes longer than `run::STOP_GRACE`.
//!
//! Where the settings ask for a lease ([`crate::lease`]), the worker is told its end and every later one, and stops by
//! itself when it passes. It is then suspended: admitted and started again, at the same address, when the lease is held again.
//!
//! A worker that served and died is started again, after a pause that grows, with the same listener; one that dies again and
//! again is given up (`again.rs`).
//!
//! Adapters go with a model, each a release of its own with its own decisions (`adapters.rs`).
//!
//! A release that is still coming is served from what comes (`streaming.rs`). Another worker may take the place of one without a
//! request being lost (`swap.rs`), by hand or because a channel moved (`follow.rs`).

mod adapters;
mod again;
mod error;
mod follow;
mod listener;
pub mod pool;
mod process;
mod prove;
mod receipt;
mod run;
mod start;
mod stop;
mod streaming;
pub mod swap;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use registry::policy::{Action, RULE_RECALLED};
use registry::serving::{Options, ServeKey, StopCode, Wall};
use registry::statement::Kind;
use registry::store::Store;
use registry::{Digest, Timestamp};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Worker as Settings;
use crate::events::{Event, Events, StopCause, WorkerInfo};
use crate::layout::Layout;
use crate::lease::Leases;
use crate::node::Node;

pub use error::ServingError;

/// Workers that are over and still shown: what an operator looks back on after a recall.
const REMEMBERED: usize = 64;
/// Every worker's release is decided anew so often even when nothing arrives: roots expire by the clock alone.
const RECHECK: Duration = Duration::from_secs(60);

/// Why a worker is to stop, and since when that is known.
#[derive(Debug, Clone)]
struct StopOrder {
    cause: StopCause,
    reason: String,
    known: Instant,
}

impl StopOrder {
    fn code(&self) -> StopCode {
        match self.cause {
            StopCause::Recalled | StopCause::Withdrawn => StopCode::Recalled,
            StopCause::Requested => StopCode::Requested,
            StopCause::LeaseEnded => StopCode::LeaseEnded,
            StopCause::Damaged => StopCode::Damaged,
        }
    }
}

impl From<StopCode> for StopCause {
    fn from(code: StopCode) -> Self {
        match code {
            StopCode::Recalled => Self::Recalled,
            StopCode::Requested => Self::Requested,
            StopCode::LeaseEnded => Self::LeaseEnded,
            StopCode::Damaged => Self::Damaged,
        }
    }
}

struct Entry {
    info: watch::Sender<WorkerInfo>,
    stop: mpsc::Sender<StopOrder>,
    ask: mpsc::Sender<prove::Asked>,
    drain: mpsc::Sender<run::Draining>,
    withdraw: mpsc::Sender<(Digest, StopOrder)>,
    listener: listener::Listener,
    /// How it was started, for the one that takes its place.
    start: Start,
}

/// How a worker is to be started.
#[derive(Debug, Clone)]
pub struct Start {
    /// What was asked for.
    pub reference: String,
    /// The release.
    pub release: Digest,
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// How it runs.
    pub options: Options,
    /// Walls that it may do without, besides those of the settings.
    pub allow_missing: Vec<Wall>,
    /// The worker whose place it is to take: it serves at the same listener, and takes no connection before it is ready.
    pub replaces: Option<u64>,
    /// The release that was served there before, and the adapters that went with it.
    pub previous: Option<(Digest, Vec<Digest>)>,
    /// The channel that it is to follow.
    pub follow: Option<Follow>,
    /// The pool that it belongs to.
    pub pool: Option<u64>,
    /// Releases of adapters that go with it.
    pub adapters: Vec<Digest>,
}

/// How a worker follows a channel.
#[derive(Debug, Clone)]
pub struct Follow {
    /// The channel.
    pub reference: registry::Reference,
    /// Whether the release that was served before comes back when the one that is served is recalled.
    pub rollback: bool,
    /// Whether the old worker ends before the new one begins, where memory has no room for both.
    pub stop_first: bool,
}

/// The supervisor. Cheap to clone.
#[derive(Clone)]
pub struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    layout: Layout,
    store: Store,
    events: Events,
    settings: Settings,
    leases: Arc<Leases>,
    entries: Mutex<Table>,
    keys: OnceLock<watch::Receiver<Vec<ServeKey>>>,
    /// What fetches a release that is not here.
    node: OnceLock<Node>,
    pools: Mutex<pool::Pools>,
    stopping: CancellationToken,
}

#[derive(Default)]
struct Table {
    last: u64,
    workers: BTreeMap<u64, Entry>,
}

impl Workers {
    /// A supervisor without workers, watching `events` for recalls. Call it within a Tokio runtime.
    pub fn new(home: &Path, store: Store, events: Events, settings: Settings, leases: Arc<Leases>) -> Self {
        let layout = Layout::new(home);
        let watched = events.subscribe();
        let (entries, stopping) = (Mutex::default(), CancellationToken::new());
        let (keys, node, pools) = (OnceLock::new(), OnceLock::new(), Mutex::default());
        let shared = Shared { layout, store, events, settings, leases, entries, keys, node, pools, stopping };
        let workers = Self { shared: Arc::new(shared) };
        tokio::spawn(watch_decisions(workers.clone(), watched));
        workers
    }

    /// Workers ask for these keys, as they are at any time. Only the first call counts.
    pub fn admit_by(&self, keys: watch::Receiver<Vec<ServeKey>>) {
        if self.shared.keys.set(keys).is_err() {
            tracing::warn!("there are API keys already");
        }
    }

    /// Releases that are not here are fetched by `node` while their worker starts. Only the first call counts.
    pub fn fetch_by(&self, node: Node) {
        if self.shared.node.set(node).is_err() {
            tracing::warn!("there is a node already");
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic while the lock is held leaves the table whole: every change is one assignment.
        self.shared.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every worker, the ones that are over included.
    pub fn list(&self) -> Vec<WorkerInfo> {
        self.table().workers.values().map(|entry| entry.info.borrow().clone()).collect()
    }

    /// The same with the memory that each has now.
    pub fn list_with_memory(&self) -> Vec<WorkerInfo> {
        let with_memory =
            |info: WorkerInfo| WorkerInfo { memory: info.pid.and_then(process::memory), ..info };
        self.list().into_iter().map(with_memory).collect()
    }

    /// One worker as it changes.
    pub fn watch(&self, id: u64) -> Option<watch::Receiver<WorkerInfo>> {
        self.table().workers.get(&id).map(|entry| entry.info.subscribe())
    }

    /// Tells worker `id` to stop and waits until it is gone.
    pub async fn stop(&self, id: u64, reason: &str) -> Result<WorkerInfo, ServingError> {
        let order =
            StopOrder { cause: StopCause::Requested, reason: reason.to_owned(), known: Instant::now() };
        let mut watched = self.watch(id).ok_or(ServingError::NotFound(id))?;
        self.order(id, order);
        let gone = watched.wait_for(|info| info.state.is_over()).await;
        gone.map(|info| info.clone()).map_err(|_| ServingError::NotFound(id))
    }

    /// Stops every worker of `release`, whose bytes or statement turned out wrong.
    pub fn withdraw(&self, release: &Digest, reason: &str) {
        let order =
            StopOrder { cause: StopCause::Withdrawn, reason: reason.to_owned(), known: Instant::now() };
        for (id, served, adapters) in self.live() {
            if served == *release {
                self.order(id, order.clone());
            } else if adapters.contains(release) {
                self.order_withdrawal(id, *release, order.clone());
            }
        }
    }

    /// Stops worker `id` when the guard is dropped, unless it is told to keep it.
    pub fn stop_unless_kept(&self, id: u64) -> StopGuard {
        StopGuard { workers: self.clone(), id: Some(id) }
    }

    fn order(&self, id: u64, order: StopOrder) {
        if let Some(entry) = self.table().workers.get(&id) {
            // Full means that it was told already.
            let _ = entry.stop.try_send(order);
        }
    }

    /// Stops every worker and refuses new ones.
    pub async fn shutdown(&self) {
        self.shared.stopping.cancel();
        self.close_pools();
        let live: Vec<u64> = self.live().into_iter().map(|(id, ..)| id).collect();
        let stops = live.into_iter().map(|id| self.stop(id, "the node is stopping"));
        futures::future::join_all(stops).await;
    }

    /// Each worker that is not over, its release, and those of its adapters that it still serves.
    fn live(&self) -> Vec<(u64, Digest, Vec<Digest>)> {
        let table = self.table();
        let live = table.workers.iter().filter_map(|(id, entry)| {
            let info = entry.info.borrow();
            let adapters = info.adapters.iter().filter(|adapter| adapter.withdrawn.is_none());
            let adapters = adapters.map(|adapter| adapter.release).collect();
            (!info.state.is_over()).then_some((*id, info.release, adapters))
        });
        live.collect()
    }

    /// Decides every live worker's releases anew and stops what is no longer allowed.
    pub async fn recheck(&self, known: Instant) {
        let live = self.live();
        if live.is_empty() {
            return;
        }
        let store = self.shared.store.clone();
        let decided = tokio::task::spawn_blocking(move || {
            let now = Timestamp::now();
            let decide = |(id, release, adapters): (u64, Digest, Vec<Digest>)| {
                // A worker that stops needs no word about its adapters.
                match refusal(&store, &release, now) {
                    Some(why) => vec![(id, None, why)],
                    None => {
                        let adapters = adapters.into_iter();
                        let refused = |adapter| Some((id, Some(adapter), refusal(&store, &adapter, now)?));
                        adapters.filter_map(refused).collect()
                    }
                }
            };
            live.into_iter().flat_map(decide).collect::<Vec<_>>()
        })
        .await;
        for (id, adapter, (cause, reason)) in decided.unwrap_or_default() {
            tracing::warn!(worker = id, ?adapter, %reason, "what a worker serves may no longer be served");
            let order = StopOrder { cause, reason, known };
            match adapter {
                None => self.order(id, order),
                Some(adapter) => self.order_withdrawal(id, adapter, order),
            }
        }
    }
}

/// See [`Workers::stop_unless_kept`].
pub struct StopGuard {
    workers: Workers,
    id: Option<u64>,
}

impl StopGuard {
    /// Lets the worker run.
    pub fn keep(mut self) {
        self.id = None;
    }
}

impl Drop for StopGuard {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let reason = "whoever asked for it left before it was ready".to_owned();
            self.workers.order(id, StopOrder { cause: StopCause::Requested, reason, known: Instant::now() });
        }
    }
}

/// Why `release` may not be served, if so. What can't be decided is not served.
fn refusal(store: &Store, release: &Digest, now: Timestamp) -> Option<(StopCause, String)> {
    match registry::admit::decide_for(store, Action::Serve, &store.own(), release, now) {
        Ok((_, decision)) if decision.allowed => None,
        Ok((_, decision)) => {
            let recalled = decision.refusals().any(|check| check.rule == RULE_RECALLED);
            let cause = if recalled { StopCause::Recalled } else { StopCause::Withdrawn };
            let why: Vec<&str> = decision.refusals().map(|check| check.detail.as_str()).collect();
            Some((cause, why.join("; ")))
        }
        Err(error) => Some((StopCause::Withdrawn, error.to_string())),
    }
}

fn forget_old(table: &mut Table) {
    let over: Vec<u64> = table
        .workers
        .iter()
        .filter(|(_, entry)| entry.info.borrow().state.is_over())
        .map(|(id, _)| *id)
        .collect();
    for id in over.iter().take(over.len().saturating_sub(REMEMBERED)) {
        table.workers.remove(id);
    }
}

async fn watch_decisions(workers: Workers, mut watched: broadcast::Receiver<Event>) {
    let stopping = workers.shared.stopping.clone();
    let mut clock = tokio::time::interval(RECHECK);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let known = tokio::select! {
            event = watched.recv() => match event {
                Ok(Event::Recall { .. } | Event::Trust { .. } | Event::Policy { .. }) => Instant::now(),
                Ok(Event::Statement { kind: Kind::Attestation, .. }) => Instant::now(),
                // Something was missed; it may have been a recall.
                Err(broadcast::error::RecvError::Lagged(_)) => Instant::now(),
                Err(broadcast::error::RecvError::Closed) => return,
                Ok(_) => continue,
            },
            _ = clock.tick() => Instant::now(),
            () = stopping.cancelled() => return,
        };
        workers.recheck(known).await;
    }
}
