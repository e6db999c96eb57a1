//! A worker that serves what a command needs, or one that is started for it.

use node::api::types::{AdapterInfo, Resolved, WorkerInfo, WorkerRequest, WorkerState};
use registry::{Digest, Reference};

use super::start;
use crate::client::{Client, segment};
use crate::context::Context;
use crate::failure::Failure;

/// A ready worker, and what of it was asked for.
pub(crate) struct Ready {
    pub(crate) worker: WorkerInfo,
    /// Whether it was started for this.
    pub(crate) started: bool,
    release: Digest,
}

impl Ready {
    /// The adapter that was asked for, if it was one.
    fn adapter(&self) -> Option<&AdapterInfo> {
        self.worker.adapters.iter().find(|adapter| adapter.release == self.release)
    }

    /// What was asked for.
    pub(crate) fn release(&self) -> Digest {
        self.release
    }

    /// What was asked for, as requests name it.
    pub(crate) fn model(&self) -> String {
        match self.adapter() {
            Some(_) => self.name(),
            None => self.worker.served_as.clone().unwrap_or_default(),
        }
    }

    /// What was asked for, as people do.
    pub(crate) fn name(&self) -> String {
        let (model, version) = match self.adapter() {
            Some(adapter) => (&adapter.model, &adapter.version),
            None => (&self.worker.model, &self.worker.version),
        };
        format!("{model}@{version}")
    }
}

/// A ready worker of a release, its model's or an adapter's, or one that is started for it by `request`.
pub(crate) async fn ready_or_started(
    context: &Context,
    client: &Client,
    reference: &Reference,
    request: impl FnOnce() -> Result<WorkerRequest, Failure>,
) -> Result<Ready, Failure> {
    let resolved: Resolved =
        client.get(&format!("/v1/resolve?ref={}", segment(&reference.to_string()))).await?;
    let release = resolved.release;
    let workers: Vec<WorkerInfo> = client.get("/v1/workers").await?;
    let serves = |worker: &WorkerInfo| {
        let adapters = worker.adapters.iter().filter(|adapter| adapter.withdrawn.is_none());
        worker.release == release || adapters.map(|adapter| adapter.release).any(|adapter| adapter == release)
    };
    let ready =
        |worker: &WorkerInfo| worker.state == WorkerState::Ready && worker.pool.is_none() && serves(worker);
    match workers.into_iter().find(ready) {
        Some(worker) => Ok(Ready { worker, started: false, release }),
        None => Ok(Ready { worker: start(context, client, &request()?).await?, started: true, release }),
    }
}
