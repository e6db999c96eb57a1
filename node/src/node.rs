//! A running node: what it is made of, how it starts and ends, and what it can be asked to do. What it does with its
//! allies is in [`allies`].

mod allies;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use libp2p::PeerId;
use registry::key::{KeyError, SecretKey};
use registry::store::{Store, StoreError};
use registry::trust::TrustError;
use registry::{Reference, Signed, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::discovery;
use crate::events::{Events, PeerInfo, TransferInfo};
use crate::layout::Layout;
use crate::lease::Leases;
use crate::log::Logs;
use crate::mirror::Mirror;
use crate::peers::{PeerBook, Refused};
use crate::reach::{self, Reach};
use crate::swarm::{self, Command, Incoming, Network, Notice, StartError};
use crate::sync::Syncer;
use crate::transfer::cache::EncodedChunks;
use crate::transfer::limit::{Bandwidth, Limiter};
use crate::transfer::serve::{Maps, Sources};
use crate::transfer::{self, Transfers};
use crate::wire::MAX_CERTIFICATE;

pub use self::allies::DialError;
pub use crate::transfer::{PullError, PullOptions, PullReport};

/// Longest time for transfers to make durable what they have, at shutdown.
const DRAIN: Duration = Duration::from_secs(10);
/// Feeds served at once over all peers: each holds one page in memory.
const MAX_FEEDS: usize = 16;

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The peer key can't be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate can't be read.
    #[error("{path}: {why}; `steelyard init` makes one, and your nation's node key signs it")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The certificate is not believed, even here.
    #[error("this node's own certificate is not valid, so no peer would accept it: {0}")]
    Own(TrustError),
    /// The network could not start.
    #[error(transparent)]
    Network(#[from] StartError),
    /// The policy file can't be loaded.
    #[error(transparent)]
    Policy(#[from] crate::policy::LoadError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(crate) struct Inner {
    config: Config,
    store: Store,
    events: Events,
    peer: PeerId,
    book: Arc<PeerBook>,
    network: Option<Network>,
    transfers: Transfers,
    pub(crate) syncer: Syncer,
    logs: Logs,
    mirror: Mirror,
    maps: Maps,
    encoded: Arc<EncodedChunks>,
    sources: Sources,
    limiter: Arc<Limiter>,
    leases: Arc<Leases>,
    serving: Arc<Semaphore>,
    feeds: Arc<Semaphore>,
    /// Grows with every recall and change of trust or policy: whoever serves looks again.
    pub(crate) generation: AtomicU64,
    /// Why the policy file as it is now can't be loaded.
    policy_error: Mutex<Option<String>>,
    stop: CancellationToken,
    tasks: TaskTracker,
    swarm_task: Mutex<Option<JoinHandle<()>>>,
    started: std::time::Instant,
    first_wait: OnceLock<()>,
}

/// A node. Clones are the same node.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("peer", &self.inner.peer).finish_non_exhaustive()
    }
}

/// Runs `future`; a panic inside is logged and ends it alone.
pub(crate) async fn guarded(name: &'static str, future: impl Future<Output = ()>) {
    if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        tracing::error!(task = name, "a task failed inside this program, please report it: {text}");
    }
}

/// Runs `work` where blocking is allowed. The store's calls touch the disk.
pub(crate) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // The runtime ends, or the store panicked: the caller's work can't be done either way.
        Err(error) => Err(StoreError::Index(format!("the work was not finished: {error}")).into()),
    }
}

impl Inner {
    /// Notes why the policy file can't be loaded, or that it can; whether it could not be before.
    pub(crate) fn set_policy_error(&self, error: Option<String>) -> bool {
        let mut kept = self.policy_error.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *kept, error).is_some()
    }
}

impl Node {
    /// Starts a node on an open store, with its network unless `config.offline`.
    pub async fn start(config: Config, store: Store) -> Result<Self, NodeError> {
        store.set_policy(crate::policy::load(&config)?);
        let layout = Layout::new(&config.home);
        let key = SecretKey::load(&layout.peer_key())?;
        let keypair =
            crate::identity::keypair(&key).map_err(|error| StartError::Protocol(error.to_string()))?;
        let peer = keypair.public().to_peer_id();
        let events = Events::new();
        let book = Arc::new(PeerBook::new(events.clone()));
        let epoch = Syncer::epoch(&store)?;
        let logs = Logs::load(&layout, &store);
        let (network, rest) = if config.offline {
            (None, None)
        } else {
            let certificate = own_certificate(&layout, &store, &peer)?;
            let trusting = store.clone();
            let trust: swarm::hello::TrustSource = Arc::new(move || trusting.trust());
            let started =
                swarm::start(&keypair, &certificate, store.own(), trust, Arc::clone(&book), &config.p2p)
                    .await?;
            (Some(started.network), Some((started.notices, started.incoming, started.task)))
        };
        let limiter = Arc::new(Limiter::new(config.transfer.bandwidth.clone()));
        let inner = Inner {
            serving: Arc::new(Semaphore::new(config.transfer.max_serving as usize)),
            feeds: Arc::new(Semaphore::new(MAX_FEEDS)),
            leases: {
                let leases = Arc::new(Leases::new(config.lease.clone(), store.clone()));
                leases.tell();
                leases
            },
            config,
            store,
            events,
            peer,
            book,
            network,
            transfers: Transfers::default(),
            syncer: Syncer::new(epoch),
            logs,
            mirror: Mirror::default(),
            maps: Maps::default(),
            encoded: Arc::default(),
            sources: Sources::default(),
            limiter,
            generation: AtomicU64::new(0),
            policy_error: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            swarm_task: Mutex::default(),
            started: std::time::Instant::now(),
            first_wait: OnceLock::new(),
        };
        let node = Self { inner: Arc::new(inner) };
        if let Some((notices, incoming, task)) = rest {
            *node.inner.swarm_task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
            node.run(notices, incoming);
        }
        Ok(node)
    }

    fn run(&self, notices: mpsc::Receiver<Notice>, incoming: Incoming) {
        self.spawn("notices", self.clone().watch_notices(notices));
        self.spawn("trust", self.clone().watch_trust());
        self.spawn("synchronisation", self.clone().sync_regularly());
        self.spawn("lease", crate::lease::keep(self.clone()));
        self.spawn("provide", self.clone().provide_all());
        self.spawn("policy", crate::policy::watch(self.clone()));
        self.spawn("mirroring", crate::mirror::run(self.clone()));
        let Incoming { mut sync, mut blob, mut log } = incoming;
        let node = self.clone();
        self.spawn("blob streams", async move {
            while let Some(inbound) = blob.recv().await {
                node.spawn("serve", transfer::serve::serve(node.clone(), inbound));
            }
        });
        let node = self.clone();
        self.spawn("feed streams", async move {
            while let Some(inbound) = sync.recv().await {
                node.spawn("feed", crate::sync::serve(node.clone(), inbound));
            }
        });
        let node = self.clone();
        self.spawn("log streams", async move {
            while let Some(inbound) = log.recv().await {
                node.spawn("log", crate::log::serve::serve(node.clone(), inbound));
            }
        });
        crate::log::run(self);
        for address in &self.config().p2p.peers {
            self.spawn("dial", discovery::keep_connected(self.clone(), address.clone()));
        }
        for address in &self.config().p2p.relays {
            self.spawn("relay", reach::keep_reservation(self.clone(), address.clone()));
        }
    }

    /// Runs a task until it ends or the node stops; a panic in it is logged.
    pub(crate) fn spawn<T>(&self, name: &'static str, future: impl Future<Output = T> + Send + 'static) {
        let stop = self.inner.stop.clone();
        self.inner.tasks.spawn(guarded(name, async move {
            tokio::select! {
                _ = future => {}
                () = stop.cancelled() => {}
            }
        }));
    }

    /// Runs a task that ends by itself when the node stops.
    pub(crate) fn spawn_to_end(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.inner.tasks.spawn(future);
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// What happens here.
    pub fn events(&self) -> &Events {
        &self.inner.events
    }

    /// This node's peer identifier.
    pub fn peer_id(&self) -> String {
        self.inner.peer.to_base58()
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(crate) fn own_peer(&self) -> PeerId {
        self.inner.peer
    }

    pub(crate) fn book(&self) -> &PeerBook {
        &self.inner.book
    }

    pub(crate) fn network(&self) -> Option<&Network> {
        self.inner.network.as_ref()
    }

    pub(crate) fn logs(&self) -> &Logs {
        &self.inner.logs
    }

    /// How long it has been running.
    pub(crate) fn age(&self) -> Duration {
        self.inner.started.elapsed()
    }

    pub(crate) fn maps(&self) -> &Maps {
        &self.inner.maps
    }

    pub(crate) fn encoded(&self) -> &Arc<EncodedChunks> {
        &self.inner.encoded
    }

    pub(crate) fn sources(&self) -> &Sources {
        &self.inner.sources
    }

    pub(crate) fn limiter(&self) -> &Arc<Limiter> {
        &self.inner.limiter
    }

    /// The lease on which this node serves.
    pub fn leases(&self) -> &Arc<Leases> {
        &self.inner.leases
    }

    /// Why the policy file as it is now can't be loaded; the policy before it is in force.
    pub fn policy_error(&self) -> Option<String> {
        self.inner.policy_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The bandwidth limits in force.
    pub fn bandwidth(&self) -> Bandwidth {
        (*self.inner.limiter.bandwidth()).clone()
    }

    /// Sets the bandwidth limits; they hold from the next piece on, until the node ends. Settings stay as they are.
    pub fn set_bandwidth(&self, bandwidth: Bandwidth) -> Result<(), String> {
        bandwidth.check()?;
        tracing::info!(?bandwidth, "bandwidth limits changed");
        self.inner.limiter.set(bandwidth);
        Ok(())
    }

    pub(crate) fn mirror(&self) -> &Mirror {
        &self.inner.mirror
    }

    pub(crate) fn transfers_state(&self) -> &Transfers {
        &self.inner.transfers
    }

    /// Whether it has a network.
    pub fn is_online(&self) -> bool {
        self.inner.network.is_some()
    }

    /// The connected peers.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.inner.book.list()
    }

    /// How many connections were not admitted since the start, and the latest of them.
    pub fn refusals(&self) -> (u64, Vec<Refused>) {
        (self.inner.book.refused_count(), self.inner.book.recent_refusals())
    }

    /// Where peers reach this node: listened addresses and configured external ones, each with `/p2p/` and its identifier.
    pub fn addresses(&self) -> Vec<String> {
        let Some(network) = self.network() else { return Vec::new() };
        let mut out: Vec<String> = network.listening().iter().map(ToString::to_string).collect();
        out.extend(self.config().p2p.external.iter().cloned());
        let peer = self.peer_id();
        for address in &mut out {
            if !address.contains("/p2p/") {
                address.push_str("/p2p/");
                address.push_str(&peer);
            }
        }
        out
    }

    /// How this node is reached from outside.
    pub fn reach(&self) -> Reach {
        self.network().map(|network| network.reach().view()).unwrap_or_default()
    }

    /// Every transfer that is remembered, the newest first.
    pub fn transfers(&self) -> Vec<TransferInfo> {
        self.inner.transfers.list()
    }

    /// Cancels a transfer; whether it still ran.
    pub fn cancel_transfer(&self, id: u64) -> bool {
        self.inner.transfers.cancel(id)
    }

    /// Fetches a release and admits it. Dropping the future cancels it; a later pull resumes.
    pub async fn pull(&self, reference: Reference, options: PullOptions) -> Result<PullReport, PullError> {
        transfer::pull(self, reference, options).await
    }

    /// Counts recalls and changes of trust.
    pub(crate) fn generation(&self) -> u64 {
        self.inner.generation.load(Ordering::Acquire)
    }

    pub(crate) fn serving_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.inner.serving).try_acquire_owned().ok()
    }

    pub(crate) async fn feed_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.inner.feeds).acquire_owned().await.ok()
    }

    /// Ends transfers (what they have is kept), closes connections, stops every task.
    pub async fn shutdown(&self) {
        self.inner.transfers.cancel_all();
        let drained = async {
            while !self.inner.transfers.is_idle() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!(
                "transfers did not end in {} s; they resume from their last durable state",
                DRAIN.as_secs()
            );
        }
        if let Some(network) = self.network() {
            network.send(Command::Shutdown).await;
        }
        let task = self.inner.swarm_task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // An error says that it was ended already.
            let _ = task.await;
        }
        self.inner.stop.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(DRAIN, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in {} s", DRAIN.as_secs());
        }
    }
}

/// Our certificate, checked as peers will check it.
fn own_certificate(layout: &Layout, store: &Store, peer: &PeerId) -> Result<Signed, NodeError> {
    let path = layout.certificate();
    let failed = |why: String| NodeError::Certificate { path: path.clone(), why };
    let text = read_bounded(&path).map_err(|error| failed(error.to_string()))?;
    let signed = Signed::parse(&text).map_err(|error| failed(error.to_string()))?;
    store.trust().verify_node(&signed, &peer.to_base58(), Timestamp::now()).map_err(NodeError::Own)?;
    if signed.to_json().len() > MAX_CERTIFICATE {
        return Err(failed(format!("it is over the limit of {MAX_CERTIFICATE} bytes")));
    }
    Ok(signed)
}

fn read_bounded(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(4 * MAX_CERTIFICATE as u64).read_to_end(&mut text)?;
    Ok(text)
}
