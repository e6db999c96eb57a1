//! Another worker in the place of one that serves, without a connection being refused or a request being lost.
//!
//! ```text
//! old   serves ───────────────────────────────► takes no more, ends what is under way ──► gone
//! new          admitted, hashed, loaded, sealed ► accepts at the same listener
//! ```
//!
//! The listener is one socket that both processes have: what connects meanwhile waits in it for whoever accepts. Should the new
//! one fail before it is ready, the old one goes on and nobody noticed.

use std::time::Duration;

use registry::Digest;
use tokio::sync::watch;

use super::run::Draining;
use super::start::listens;
use super::{Follow, ServingError, Start, Workers};
use crate::events::{WorkerInfo, WorkerState};

/// How long requests that are under way may take when another worker takes the place of theirs: most answers take seconds, and
/// two models in memory are a burden.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(120);

/// What is to take a worker's place.
#[derive(Debug, Clone)]
pub struct Swap {
    /// What was asked for.
    pub reference: String,
    /// The release.
    pub release: Digest,
    /// Whether the old worker ends before the new one begins: nobody is answered meanwhile.
    pub stop_first: bool,
    /// The channel that the new one follows.
    pub follow: Option<Follow>,
    /// The adapters that go with the new one; the same as before if absent.
    pub adapters: Option<Vec<Digest>>,
}

impl Workers {
    /// Starts a worker that takes the place of worker `id` when it is ready; the new one as it changes.
    pub async fn swap(&self, id: u64, swap: Swap) -> Result<watch::Receiver<WorkerInfo>, ServingError> {
        let (old, started) = self.entry(id)?;
        if old.state.is_over() {
            return Err(ServingError::NotFound(id));
        }
        // Its channel moved, or a person wants another release than the pool's.
        if let Some(pool) = old.pool.filter(|_| swap.follow.is_none()) {
            return Err(ServingError::Pooled(id, pool));
        }
        let Swap { reference, release, stop_first, follow, adapters } = swap;
        let adapters = adapters.unwrap_or_else(|| started.adapters.clone());
        if old.release == release && started.adapters == adapters {
            return Err(ServingError::Same(id));
        }
        if self.list().iter().any(|other| other.replaces == Some(id) && !other.state.is_over()) {
            return Err(ServingError::Swapping(id));
        }
        if old.state != WorkerState::Ready && !swap.stop_first {
            return Err(ServingError::NotReady(id));
        }
        let start = Start {
            listen: listens(&old, &started),
            reference,
            release,
            replaces: (!stop_first).then_some(id),
            previous: Some((old.release, started.adapters)),
            follow: follow.clone(),
            adapters,
            ..started
        };
        let name = format!("{}@{} gives its place to {}", old.model, old.version, start.reference);
        tracing::info!(worker = id, %release, stop_first, "{name}");
        if stop_first {
            // Two that follow one channel would not know which of them is to.
            let start = Start { follow: None, ..start };
            self.stop(id, &name).await?;
            let watched = self.start(start).await?;
            self.replaced(id, &watched);
            if let Some(follow) = follow {
                let next = watched.borrow().id;
                self.follows(next, &follow);
            }
            return Ok(watched);
        }
        let watched = self.start(start).await?;
        let (workers, mut next) = (self.clone(), watched.clone());
        tokio::spawn(async move {
            let settled = next.wait_for(|info| info.state.is_settled()).await;
            let ready = settled.is_ok_and(|info| info.state == WorkerState::Ready);
            if ready {
                workers.hand_over(id, &next, &name);
            }
        });
        Ok(watched)
    }

    /// The release that was served in the place of worker `id` before, and the adapters that went with it.
    pub fn previous(&self, id: u64) -> Result<(Digest, Vec<Digest>), ServingError> {
        let (_, started) = self.entry(id)?;
        started.previous.ok_or(ServingError::NoPrevious(id))
    }

    /// The new worker accepts: the old one ends.
    fn hand_over(&self, id: u64, next: &watch::Receiver<WorkerInfo>, name: &str) {
        self.replaced(id, next);
        let draining =
            Draining { reason: format!("another release is served here now: {name}"), limit: DRAIN_LIMIT };
        if let Some(entry) = self.table().workers.get(&id) {
            // Full means that it was told already; closed, that it is gone.
            let _ = entry.drain.try_send(draining);
        }
    }

    pub(super) fn replaced(&self, id: u64, next: &watch::Receiver<WorkerInfo>) {
        let next = next.borrow().id;
        if let Some(entry) = self.table().workers.get(&id) {
            entry.info.send_modify(|info| info.replaced_by = Some(next));
        }
    }

    /// Notes that worker `id` follows a channel, by a task that is there already.
    pub(super) fn follows(&self, id: u64, follow: &Follow) {
        if let Some(entry) = self.table().workers.get_mut(&id) {
            entry.start.follow = Some(follow.clone());
            entry.info.send_modify(|info| info.follows = Some(follow.reference.to_string()));
        }
    }

    /// A worker and how it was started.
    pub(super) fn entry(&self, id: u64) -> Result<(WorkerInfo, Start), ServingError> {
        let table = self.table();
        let entry = table.workers.get(&id).ok_or(ServingError::NotFound(id))?;
        let info = entry.info.borrow().clone();
        Ok((info, entry.start.clone()))
    }
}
