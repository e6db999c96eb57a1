//! A worker from the request to its first process.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use registry::admit::AdmitError;
use registry::admitted::{Admitted, Handoff};
use registry::lease::{Lease, LeaseEnd};
use registry::serving::{Adapter, Launch, Options, Rehash, Wall, hand};
use registry::{Digest, Timestamp};
use tokio::sync::{mpsc, watch};

use super::listener::Listener;
use super::run::{Run, told};
use super::streaming::{Feed, Growing};
use super::{Entry, ServingError, Start, Workers, adapters, forget_old, receipt};
use crate::events::{WorkerInfo, WorkerState};

impl Workers {
    /// Admits a release and starts a worker for it. The answer changes as the worker does; it is not ready yet. A release that
    /// is not here is fetched meanwhile.
    pub async fn start(&self, start: Start) -> Result<watch::Receiver<WorkerInfo>, ServingError> {
        if self.shared.stopping.is_cancelled() {
            return Err(ServingError::Stopping);
        }
        let is_counted = |worker: &WorkerInfo| !worker.state.is_over() && Some(worker.id) != start.replaces;
        let live = self.list().iter().filter(|worker| is_counted(worker)).count();
        if live >= self.shared.settings.max_workers as usize {
            return Err(ServingError::TooMany(live));
        }
        let (admitted, comes) = self.admit(start.release).await?;
        let adapters = self.admit_adapters(&start).await?;
        let all = || std::iter::once(&admitted).chain(&adapters);
        let kept = self.shared.store.lease(all().flat_map(Admitted::files).map(|file| file.blob));
        let producers = all().map(|release| &release.model().nation);
        let (lease, lease_ends) = match self.shared.leases.earliest(producers) {
            Some((producer, Lease::Ended { heard })) => {
                return Err(ServingError::Lease(self.shared.leases.why(producer, heard)));
            }
            Some((_, held)) => told(held),
            None => (None, None),
        };
        let listener = Listener::new(self.listener(&start)?);
        let launch = self.launch(admitted.handoff().clone(), &adapters, &start, lease);
        let id = {
            let mut table = self.table();
            table.last += 1;
            table.last
        };
        let (told, watched) = watch::channel(starting(id, &start, &admitted, &adapters, lease_ends));
        // One order is enough: the first one stops it, later ones change nothing. One question at a time, likewise.
        let ((stop, stops), (ask, asked), (drain, drains)) =
            (mpsc::channel(1), mpsc::channel(1), mpsc::channel(1));
        let (withdraw, withdrawals) = mpsc::channel(hand::MAX_ADAPTERS);
        let node = self.shared.node.get().filter(|_| comes).cloned();
        let files = admitted.files().to_vec();
        let feed = node.clone().map(|node| Feed::begin(node, id, start.release, files));
        let mut run = Run {
            launch,
            listener: listener.clone(),
            told: told.clone(),
            stops,
            asked,
            events: self.shared.events.clone(),
            limit: Duration::from_secs(self.shared.settings.start_secs),
            leases: Arc::clone(&self.shared.leases),
            store: self.shared.store.clone(),
            command: self.shared.settings.command.clone(),
            deaths: Vec::new(),
            notary: receipt::Notary::open(&self.shared.layout, self.shared.store.own()),
            settings: self.shared.settings.clone(),
            keys: self.shared.keys.get().cloned().unwrap_or_else(|| watch::channel(Vec::new()).1),
            drains,
            withdrawals,
            draining: false,
            feed,
            growing: Growing::new(),
        };
        let process = if node.is_none() { Some(run.spawn()?) } else { None };
        let pid = process.as_ref().and_then(|process| process.child.id());
        told.send_modify(|info| info.pid = pid);
        let follow = start.follow.clone().filter(|_| start.replaces.is_none());
        {
            let mut table = self.table();
            table.workers.insert(id, Entry { info: told, stop, ask, drain, withdraw, listener, start });
            forget_old(&mut table);
        }
        tokio::spawn(async move {
            let process = match (process, &node) {
                (None, Some(node)) => run.when_gathered(node).await,
                (process, _) => process,
            };
            if let Some(process) = process {
                run.until_gone(process).await;
            }
            drop(kept);
        });
        if let Some(follow) = follow {
            tokio::spawn(super::follow::follow(self.clone(), id, follow));
        }
        // A recall may have arrived between the admission and the entry in the table.
        self.recheck(Instant::now()).await;
        Ok(watched)
    }

    /// What a worker may be started with, and whether its bytes are still to come.
    pub(super) async fn admit(&self, release: Digest) -> Result<(Admitted, bool), ServingError> {
        let store = self.shared.store.clone();
        let here = move || registry::admit::serve(&store, &release, Timestamp::now());
        let refused = match blocking(here).await? {
            Ok(admitted) => return Ok((admitted, false)),
            Err(error) => error,
        };
        let Some(node) = self.shared.node.get().filter(|node| node.is_online()) else {
            return Err(refused.into());
        };
        if !matches!(refused, AdmitError::Incomplete { .. } | AdmitError::Refused { .. }) {
            return Err(refused.into());
        }
        // The log may be a moment behind the statement.
        crate::log::wait::for_policy(node, release).await;
        let store = self.shared.store.clone();
        let again = move || match registry::admit::serve(&store, &release, Timestamp::now()) {
            Ok(admitted) => Ok((admitted, false)),
            Err(AdmitError::Incomplete { .. }) => {
                Ok((registry::admit::serve_ahead(&store, &release, Timestamp::now())?, true))
            }
            Err(error) => Err(error),
        };
        Ok(blocking(again).await??)
    }

    fn listener(&self, start: &Start) -> Result<TcpListener, ServingError> {
        let address = start.listen;
        let listen = |source| ServingError::Listen { address, source };
        let Some(id) = start.replaces else { return TcpListener::bind(address).map_err(listen) };
        let table = self.table();
        let entry = table.workers.get(&id).ok_or(ServingError::NotFound(id))?;
        entry.listener.try_clone().map_err(listen)
    }

    /// What a worker may need at most. One that takes another's place may need what that one leaves of the limit of both; a
    /// pool's has no limit then, since the pool makes room afterwards.
    fn leaves(&self, start: &Start) -> Option<u64> {
        let limit = start.options.memory?;
        let Some(old) = start.replaces else { return Some(limit) };
        let needs = self.entry(old).ok().and_then(|(old, _)| old.needs);
        if start.pool.is_some() { None } else { Some(limit.saturating_sub(needs.unwrap_or(0))) }
    }

    fn launch(
        &self,
        admitted: Handoff,
        adapters: &[Admitted],
        start: &Start,
        lease: Option<LeaseEnd>,
    ) -> Launch {
        let settings = &self.shared.settings;
        let mut options: Options = start.options.clone();
        options.memory = self.leaves(start);
        let allow_missing: Vec<Wall> =
            start.allow_missing.iter().chain(&settings.allow_missing).copied().collect();
        let rehash = Rehash { every_secs: settings.rehash_secs, mib_per_sec: settings.rehash_mib_per_sec };
        let keys = self.shared.keys.get().map(|keys| keys.borrow().clone()).unwrap_or_default();
        let access = settings.access(start.listen, keys);
        let (quiet, vllm) = (start.replaces.is_some(), settings.vllm.clone());
        let handed = Vec::new;
        let adapters = adapters
            .iter()
            .map(|adapter| Adapter { admitted: adapter.handoff().clone(), handed: handed() })
            .collect();
        let handed = handed();
        Launch { admitted, handed, options, allow_missing, rehash, lease, access, quiet, vllm, adapters }
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ServingError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ServingError::Stopping)
}

/// A worker that was just asked for.
fn starting(
    id: u64,
    start: &Start,
    admitted: &Admitted,
    beside: &[Admitted],
    lease_ends: Option<Timestamp>,
) -> WorkerInfo {
    WorkerInfo {
        id,
        reference: start.reference.clone(),
        release: admitted.release(),
        model: admitted.model().clone(),
        version: admitted.version().clone(),
        state: WorkerState::Starting,
        bytes_done: 0,
        bytes_total: admitted.files().iter().map(|file| file.size).sum(),
        address: None,
        served_as: None,
        engine: None,
        pid: None,
        load_ms: None,
        verify_ms: None,
        started: Timestamp::now(),
        lease_ends,
        kernel: None,
        walls: Vec::new(),
        restarts: 0,
        transfer: None,
        requests: 0,
        memory: None,
        needs: None,
        pool: start.pool,
        replaces: start.replaces,
        replaced_by: None,
        previous: start.previous.as_ref().map(|(release, _)| *release),
        follows: start.follow.as_ref().map(|follow| follow.reference.to_string()),
        stop: None,
        error: None,
        adapters: beside.iter().map(adapters::shown).collect(),
    }
}

/// Where a worker of this address listens, whose port the system may have chosen.
pub(super) fn listens(info: &WorkerInfo, start: &Start) -> SocketAddr {
    info.address.unwrap_or(start.listen)
}
