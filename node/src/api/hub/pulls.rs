//! Fetching a release while it is read: one pull for all who read it. It goes on when they leave, so that the release is whole
//! and admitted in the end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use registry::{Digest, Reference};
use tokio::sync::watch;

use super::super::Api;
use super::refusal::Refusal;
use crate::node::{PullError, PullOptions};

/// How a pull ended; nothing while it runs.
type Outcome = Option<Result<(), PullError>>;

/// A pull that runs.
#[derive(Debug)]
pub(super) struct Running(watch::Sender<Outcome>);

impl Running {
    pub(super) fn outcome(&self) -> watch::Receiver<Outcome> {
        self.0.subscribe()
    }
}

/// Every pull that somebody's reading began.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    running: Mutex<HashMap<Digest, Arc<Running>>>,
    readers: AtomicU64,
}

/// Takes a pull out of the table when its task is over, however.
struct Ending {
    api: Api,
    release: Digest,
    running: Arc<Running>,
}

impl Ending {
    fn forget(&self) {
        let mut running = self.api.hub().pulls.running();
        if running.get(&self.release).is_some_and(|known| Arc::ptr_eq(known, &self.running)) {
            running.remove(&self.release);
        }
        drop(running);
        self.api.verdicts().forget(&self.release);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.forget();
        self.running.0.send_if_modified(|outcome| {
            let untold = outcome.is_none();
            if untold {
                *outcome = Some(Err(PullError::Cancelled));
            }
            untold
        });
    }
}

impl Pulls {
    fn running(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a new reader.
    pub(super) fn reader(&self) -> u64 {
        self.readers.fetch_add(1, Ordering::Relaxed)
    }

    /// Begins to fetch `release`, or joins whoever did; whether it runs already.
    pub(super) fn join(&self, api: &Api, release: Digest) -> Result<(Arc<Running>, bool), Refusal> {
        let settings = &api.node().config().hub;
        if !settings.pull_through {
            return Err(Refusal::Refused(
                "it is not whole here, and this node fetches nothing because somebody reads it (`hub.pull_through`); its operator can `steelyard pull` it"
                    .to_owned(),
            ));
        }
        let mut running = self.running();
        if let Some(known) = running.get(&release) {
            return Ok((Arc::clone(known), true));
        }
        if running.len() >= settings.max_pulls as usize {
            let most = settings.max_pulls;
            return Err(Refusal::Busy(format!("{most} releases are being fetched for readers; try again")));
        }
        let known = Arc::new(Running(watch::Sender::new(None)));
        running.insert(release, Arc::clone(&known));
        drop(running);
        let ending = Ending { api: api.clone(), release, running: Arc::clone(&known) };
        let node = api.node().clone();
        api.node().spawn("pull-through", async move {
            let options = PullOptions { refresh: false, progress: None };
            let result = node.pull(Reference::Digest(release), options).await.map(drop);
            if let Err(error) = &result {
                tracing::warn!(%release, "what somebody reads could not be fetched: {error}");
            }
            // Out of the table first: whoever sees the end finds no running pull.
            ending.forget();
            ending.running.0.send_replace(Some(result));
        });
        Ok((known, false))
    }
}
