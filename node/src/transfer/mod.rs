//! Pulling a release: resolve, decide, fetch from several peers at once, admit. Several pulls of one release are one.

pub(crate) mod cache;
mod fetch;
mod job;
pub mod limit;
mod outside;
pub mod plan;
pub(crate) mod serve;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod simulation;

pub(crate) use outside::Outside;
pub use serve::permission;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use registry::admit::AdmitError;
use registry::policy::Decision;
use registry::store::StoreError;
use registry::{Digest, Nation, Reference, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::events::{Event, Events, TransferInfo, TransferState};
use crate::node::{Node, blocking, guarded};

/// Transfers that are remembered, those that run included.
const MAX_HISTORY: usize = 128;
/// Transfers that run at once; each holds some MiB for each of its peers.
const MAX_RUNNING: usize = 8;

/// How to pull.
pub struct PullOptions {
    /// Whether connected peers are asked for news first, so that a channel is at its newest.
    pub refresh: bool,
    /// Told whenever the transfer moves on.
    pub progress: Option<Box<dyn Fn(TransferInfo) + Send + Sync>>,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self { refresh: true, progress: None }
    }
}

impl std::fmt::Debug for PullOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PullOptions").field("refresh", &self.refresh).finish_non_exhaustive()
    }
}

/// A pull that ended well: the release is here and admitted.
#[derive(Debug, Clone)]
pub struct PullReport {
    /// The release.
    pub release: Digest,
    /// The policy's decision, every rule's answer.
    pub decision: Decision,
    /// How it went.
    pub transfer: TransferInfo,
}

/// Why a pull failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PullError {
    /// Nobody knows it.
    #[error("`{reference}` is not known here, nor to {}{}", asked_text(*.asked), not_found_advice(*.asked))]
    NotFound {
        /// What was asked for.
        reference: String,
        /// Connected peers that were asked.
        asked: usize,
    },
    /// Nothing of its nation is believed here.
    #[error(
        "`{reference}` is of the nation `{nation}`, which is not pinned here; if you mean to trust it, compare its fingerprint with its people and run `steelyard trust add`"
    )]
    NotPinned {
        /// What was asked for.
        reference: String,
        /// Its nation.
        nation: Nation,
    },
    /// A signature, a digest or a chunk map is wrong, and nobody has it right.
    #[error("verification failed: {0}")]
    Verification(String),
    /// The local policy refuses it.
    #[error("refused by policy: {}", refusals(.0))]
    Policy(Box<Decision>),
    /// Peers can't be reached, or none has the bytes.
    #[error("{0}")]
    Network(String),
    /// The disk failed or is full.
    #[error("the store failed: {0}")]
    Disk(String),
    /// The disk is full.
    #[error("{0}; what was fetched is kept and a new pull resumes it")]
    DiskFull(String),
    /// Too many at once.
    #[error("{MAX_RUNNING} transfers are running already; wait until one ends")]
    Busy,
    /// Stopped by whoever asked for it.
    #[error("the transfer was cancelled; what was fetched is kept and a new pull resumes it")]
    Cancelled,
    /// A fault in this program.
    #[error("{0}")]
    Internal(String),
}

fn asked_text(asked: usize) -> String {
    match asked {
        0 => "any peer: none is connected".to_owned(),
        1 => "the 1 connected peer".to_owned(),
        n => format!("the {n} connected peers"),
    }
}

fn not_found_advice(asked: usize) -> &'static str {
    match asked {
        0 => "; name peers in the settings (`p2p.peers`) or connect with `steelyard peers`",
        _ => "; check the spelling, and that it is releasable to your nation",
    }
}

fn refusals(decision: &Decision) -> String {
    let each: Vec<String> =
        decision.refusals().map(|check| format!("{}: {}", check.rule, check.detail)).collect();
    each.join("; ")
}

impl From<StoreError> for PullError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::FalseMap { .. }
            | StoreError::OtherModel { .. }
            | StoreError::Envelope(_)
            | StoreError::Trust(_) => Self::Verification(error.to_string()),
            StoreError::DiskFull { .. } => Self::DiskFull(error.to_string()),
            error => Self::Disk(error.to_string()),
        }
    }
}

impl From<AdmitError> for PullError {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::Refused { decision, .. } => Self::Policy(Box::new(decision)),
            AdmitError::Store(error) => error.into(),
            AdmitError::Trust(error) => Self::Verification(error.to_string()),
            error => Self::Verification(error.to_string()),
        }
    }
}

/// One transfer's state, shared by its task and whoever watches.
pub(crate) struct Transfer {
    pub(crate) id: u64,
    pub(crate) cancel: CancellationToken,
    info: watch::Sender<TransferInfo>,
    outcome: watch::Sender<Option<Result<PullReport, PullError>>>,
    events: Events,
}

impl Transfer {
    /// The state now.
    pub(crate) fn info(&self) -> TransferInfo {
        self.info.borrow().clone()
    }

    /// Changes the state and tells everybody.
    pub(crate) fn update(&self, change: impl FnOnce(&mut TransferInfo)) {
        self.info.send_modify(change);
        self.events.send(Event::Transfer(self.info()));
    }

    fn end(&self, outcome: Result<Digest, PullError>, decision: Option<Decision>) {
        self.update(|info| {
            info.finished = Some(Timestamp::now());
            info.rate = 0;
            match &outcome {
                Ok(_) => info.state = TransferState::Done,
                Err(error) => {
                    let cancelled = matches!(error, PullError::Cancelled);
                    info.state = if cancelled { TransferState::Cancelled } else { TransferState::Failed };
                    info.error = Some(error.to_string());
                }
            }
        });
        let report = outcome.map(|release| PullReport {
            release,
            decision: decision.unwrap_or(Decision { allowed: true, checks: Vec::new() }),
            transfer: self.info(),
        });
        self.outcome.send_replace(Some(report));
    }
}

#[derive(Default)]
struct Inner {
    history: VecDeque<Arc<Transfer>>,
    /// Releases being fetched, and where their jobs listen.
    running: HashMap<Digest, (Arc<Transfer>, mpsc::Sender<Outside>)>,
}

/// All transfers of a node.
#[derive(Default)]
pub(crate) struct Transfers {
    next: AtomicU64,
    inner: Mutex<Inner>,
}

/// A place in the table of running transfers; given back when dropped.
struct Running<'a>(&'a Transfers, Digest);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.inner().running.remove(&self.1);
    }
}

enum Joined<'a> {
    First(Running<'a>, mpsc::Receiver<Outside>),
    Other(Arc<Transfer>),
    Full,
}

impl Transfers {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every transfer remembered, the newest first.
    pub(crate) fn list(&self) -> Vec<TransferInfo> {
        self.inner().history.iter().rev().map(|transfer| transfer.info()).collect()
    }

    /// Cancels a transfer; whether there was such a one that still ran.
    pub(crate) fn cancel(&self, id: u64) -> bool {
        let inner = self.inner();
        let found = inner.history.iter().find(|transfer| transfer.id == id);
        match found.filter(|transfer| !transfer.info.borrow().state.is_over()) {
            Some(transfer) => {
                transfer.cancel.cancel();
                true
            }
            None => false,
        }
    }

    /// Tells every running job.
    pub(crate) fn tell(&self, what: Outside) {
        for (_, job) in self.inner().running.values() {
            if job.try_send(what).is_err() {
                tracing::debug!(
                    "a transfer is too busy to hear of a peer or a recall; it asks again by itself"
                );
            }
        }
    }

    /// Tells the job that fetches `release`, if there is one that is not too busy: whoever waits says it again.
    pub(crate) fn tell_one(&self, release: &Digest, what: Outside) {
        if let Some((_, job)) = self.inner().running.get(release) {
            let _ = job.try_send(what);
        }
    }

    /// Cancels everything.
    pub(crate) fn cancel_all(&self) {
        for transfer in &self.inner().history {
            transfer.cancel.cancel();
        }
    }

    /// Whether nothing runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.inner().history.iter().all(|transfer| transfer.info.borrow().state.is_over())
    }

    fn begin(&self, reference: &Reference, events: &Events) -> Arc<Transfer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let info = TransferInfo {
            id,
            reference: reference.to_string(),
            release: None,
            model: None,
            version: None,
            state: TransferState::Resolving,
            bytes_total: 0,
            bytes_done: 0,
            bytes_resumed: 0,
            bytes_local: 0,
            bytes_wire: 0,
            bytes_verified: 0,
            rate: 0,
            peers: Vec::new(),
            started: Timestamp::now(),
            finished: None,
            error: None,
        };
        let transfer = Arc::new(Transfer {
            id,
            cancel: CancellationToken::new(),
            info: watch::Sender::new(info),
            outcome: watch::Sender::new(None),
            events: events.clone(),
        });
        let mut inner = self.inner();
        if inner.history.len() >= MAX_HISTORY
            && let Some(oldest) = inner.history.iter().position(|old| old.info.borrow().state.is_over())
        {
            inner.history.remove(oldest);
        }
        inner.history.push_back(Arc::clone(&transfer));
        drop(inner);
        transfer.update(|_| {});
        transfer
    }

    fn join(&self, release: Digest, transfer: &Arc<Transfer>) -> Joined<'_> {
        let mut inner = self.inner();
        if let Some((other, _)) = inner.running.get(&release) {
            return Joined::Other(Arc::clone(other));
        }
        if inner.running.len() >= MAX_RUNNING {
            return Joined::Full;
        }
        let (sender, receiver) = mpsc::channel(job::OUTSIDE);
        inner.running.insert(release, (Arc::clone(transfer), sender));
        Joined::First(Running(self, release), receiver)
    }
}

/// Cancels its transfer when whoever waits for it goes away.
struct CancelOnDrop(Option<Arc<Transfer>>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(transfer) = &self.0 {
            transfer.cancel.cancel();
        }
    }
}

/// Pulls `reference`; dropping the future cancels the transfer.
pub(crate) async fn pull(
    node: &Node,
    reference: Reference,
    options: PullOptions,
) -> Result<PullReport, PullError> {
    if node.transfers_state().inner().history.iter().filter(|old| !old.info.borrow().state.is_over()).count()
        >= MAX_HISTORY
    {
        return Err(PullError::Busy);
    }
    let transfer = node.transfers_state().begin(&reference, node.events());
    let mut guard = CancelOnDrop(Some(Arc::clone(&transfer)));
    let mut outcome = transfer.outcome.subscribe();
    let mut info = transfer.info.subscribe();
    let PullOptions { refresh, progress } = options;
    let task = run(node.clone(), Arc::clone(&transfer), reference, refresh);
    // Not ended with the node's other tasks: it still makes durable what it has.
    node.spawn_to_end(guarded("transfer", async move {
        // A panic inside is caught by `guarded`; whoever waits must still be told.
        let fallen = Fallen(Arc::clone(&transfer));
        let (result, decision) = match task.await {
            Ok((release, decision)) => (Ok(release), Some(decision)),
            Err(error) => (Err(error), None),
        };
        transfer.end(result, decision);
        drop(fallen);
    }));
    loop {
        tokio::select! {
            changed = info.changed(), if progress.is_some() => {
                if changed.is_ok() && let Some(progress) = &progress {
                    let state = info.borrow_and_update().clone();
                    progress(state);
                }
            }
            ended = outcome.wait_for(Option::is_some) => {
                guard.0 = None;
                return match ended.ok().and_then(|outcome| outcome.clone()) {
                    Some(outcome) => outcome,
                    None => Err(PullError::Internal("the transfer ended without an outcome".to_owned())),
                };
            }
        }
    }
}

/// Ends a transfer whose task panicked.
struct Fallen(Arc<Transfer>);

impl Drop for Fallen {
    fn drop(&mut self) {
        if self.0.outcome.borrow().is_none() {
            let error =
                PullError::Internal("the transfer failed inside this program; its log says where".to_owned());
            self.0.end(Err(error), None);
        }
    }
}

async fn run(
    node: Node,
    transfer: Arc<Transfer>,
    reference: Reference,
    refresh: bool,
) -> Result<(Digest, Decision), PullError> {
    let release = tokio::select! {
        () = transfer.cancel.cancelled() => return Err(PullError::Cancelled),
        release = resolve(&node, &reference, refresh) => release?,
    };
    transfer.update(|info| info.release = Some(release));
    loop {
        match node.transfers_state().join(release, &transfer) {
            Joined::Full => return Err(PullError::Busy),
            Joined::Other(other) => match follow(&transfer, &other).await {
                // Whoever began it does not want it any more; this one goes on with it.
                Err(PullError::Cancelled) if !transfer.cancel.is_cancelled() => {}
                followed => return followed,
            },
            Joined::First(_running, outside) => return job::run(&node, &transfer, release, outside).await,
        }
    }
}

/// Waits for another pull of the same release, showing its state as this one's.
async fn follow(transfer: &Transfer, other: &Transfer) -> Result<(Digest, Decision), PullError> {
    let mut info = other.info.subscribe();
    let mut outcome = other.outcome.subscribe();
    loop {
        tokio::select! {
            () = transfer.cancel.cancelled() => return Err(PullError::Cancelled),
            ended = outcome.wait_for(Option::is_some) => {
                let ended = ended.ok().and_then(|outcome| outcome.clone());
                return match ended {
                    Some(Ok(report)) => Ok((report.release, report.decision)),
                    Some(Err(error)) => Err(error),
                    None => Err(PullError::Internal("the transfer ended without an outcome".to_owned())),
                };
            }
            changed = info.changed() => if changed.is_ok() {
                let theirs = info.borrow_and_update().clone();
                if theirs.state.is_over() {
                    continue;
                }
                transfer.update(|info| {
                    let own = (info.id, info.reference.clone(), info.started);
                    *info = theirs;
                    (info.id, info.reference, info.started) = own;
                });
            }
        }
    }
}

/// The release that `reference` means, peers asked where that is wanted or needed.
async fn resolve(node: &Node, reference: &Reference, refresh: bool) -> Result<Digest, PullError> {
    let look = || {
        let (store, reference) = (node.store().clone(), reference.clone());
        blocking(move || {
            // A digest resolves to itself; what counts is whether its statement is here.
            let found = store.resolve(&reference)?;
            Ok::<_, StoreError>(match found {
                Some(digest) if store.release(&digest)?.is_some() => Some(digest),
                _ => None,
            })
        })
    };
    let fixed = matches!(reference, Reference::Digest(_) | Reference::Version(..));
    if (fixed || !refresh)
        && let Some(digest) = look().await.map_err(PullError::from)?
    {
        return Ok(digest);
    }
    if let Some(model) = reference.model()
        && node.store().trust().member(&model.nation).is_err()
    {
        return Err(PullError::NotPinned { reference: reference.to_string(), nation: model.nation.clone() });
    }
    let asked = node.sync_now().await;
    match look().await.map_err(PullError::from)? {
        Some(digest) => Ok(digest),
        None => Err(PullError::NotFound { reference: reference.to_string(), asked }),
    }
}
