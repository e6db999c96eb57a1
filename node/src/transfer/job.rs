//! One transfer: tells the plan what happened, does what it decides.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libp2p::PeerId;
use registry::chunk::{ChunkError, ChunkMap, MAX_CHUNK};
use registry::policy::Decision;
use registry::statement::Release;
use registry::store::{Partial, Store, StoreError};
use registry::{Digest, Timestamp};
use tokio::sync::{Mutex, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::fetch::{Gone, Job, Session, Told};
use super::plan::{Action, Event as Happened, FileKey, Limits, PeerKey, Plan};
use super::{Outside, PullError, Transfer};
use crate::events::{Event, PeerShare, TransferState};
use crate::node::{Node, blocking, guarded};
use crate::wire::{MAX_RANGE, max_chunks};

/// What waits to be told to a job from outside it.
pub(super) const OUTSIDE: usize = 64;
/// What waits to be told to a job by its peers; they wait when it is full.
const TOLD: usize = 1024;
/// Jobs that wait for one peer: more than the plan gives at once.
const JOBS: usize = 256;
/// Chunk maps asked of one peer at once.
const MAPS_AHEAD: usize = 8;
/// How often the plan sees the time, and the world the progress.
const TICK: Duration = Duration::from_millis(250);
/// How long a transfer may find nobody to ask, before it fails. Peers that were lost may come back in this time.
const ALONE: Duration = Duration::from_secs(30);
/// The same before the first peer had it.
const ALONE_AT_FIRST: Duration = Duration::from_secs(10);
/// Between two looks for further peers while there are too few.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// A peer that did not have the release, or was lost, is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Between two tries to open a blob that another transfer fetches.
const IN_USE: Duration = Duration::from_millis(500);
/// Weight of the newest sample in the rate shown.
const RATE_WEIGHT: f64 = 0.2;

/// What the job's own tasks tell.
enum Own {
    Told(Told),
    /// A chunk map was looked at.
    Map {
        key: PeerKey,
        file: FileKey,
        result: Result<Arc<ChunkMap>, MapError>,
    },
    /// A blob was opened; `None` when it is here already.
    Opened {
        file: FileKey,
        result: Result<Option<Partial>, StoreError>,
    },
    /// A blob was hashed and put in its place.
    Finished {
        file: FileKey,
        result: Result<(), StoreError>,
    },
    /// Peers that the provider table names.
    Providers(Vec<PeerId>),
}

enum MapError {
    /// The peer's bytes are not the map.
    Wrong(String),
    /// The signed map itself is unfit.
    Unfit(String),
    Store(StoreError),
}

struct Peer {
    id: PeerId,
    jobs: mpsc::Sender<Job>,
    task: AbortHandle,
    received: Arc<AtomicU64>,
    seen: u64,
    joined: bool,
    /// Maps asked of it.
    maps: BTreeSet<FileKey>,
}

struct Running<'a> {
    node: &'a Node,
    transfer: &'a Transfer,
    digest: Digest,
    release: Arc<Release>,
    plan: Plan,
    start: Instant,
    sender: mpsc::Sender<Own>,
    peers: BTreeMap<PeerKey, Peer>,
    by_id: HashMap<PeerId, PeerKey>,
    /// Which peer each key was, those that are gone included.
    ids: BTreeMap<PeerKey, PeerId>,
    shares: BTreeMap<PeerId, PeerShare>,
    banned: HashSet<PeerId>,
    /// Peers to leave alone until then.
    later: HashMap<PeerId, Instant>,
    next_peer: PeerKey,
    maps: BTreeMap<FileKey, Arc<ChunkMap>>,
    wanted_maps: VecDeque<FileKey>,
    /// Peers that did not have a map.
    without: HashMap<FileKey, BTreeSet<PeerKey>>,
    partials: BTreeMap<FileKey, Partial>,
    /// Files that are not whole yet.
    left: BTreeSet<FileKey>,
    verifying: BTreeSet<FileKey>,
    /// Blobs that are whole here, and the bytes of the files that they are.
    whole: HashSet<Digest>,
    bytes_whole: u64,
    alone_since: Option<Instant>,
    ever_joined: bool,
    looked: Option<Instant>,
    looking: bool,
    last_why: Option<String>,
    rate: f64,
    last_done: u64,
    last_tick: Instant,
}

/// Fetches what is missing of the release and admits it.
pub(super) async fn run(
    node: &Node,
    transfer: &Transfer,
    digest: Digest,
    mut outside: mpsc::Receiver<Outside>,
) -> Result<(Digest, Decision), PullError> {
    // Policy before bytes.
    let release = Arc::new(decide(node, digest).await?);
    // Whatever arrives is kept from being collected until it is admitted.
    let _lease = node.store().lease([digest]);
    let (sender, mut own) = mpsc::channel(TOLD);
    let mut running = Running::new(node, transfer, digest, release, sender);
    running.survey().await?;
    let result = running.go(&mut own, &mut outside).await;
    running.stop().await;
    result?;
    transfer.update(|info| info.state = TransferState::Verifying);
    let store = node.store().clone();
    let (admitted, decision) = blocking(move || {
        let admitted = registry::admit::admit(&store, &digest, Timestamp::now())?;
        let (_, decision) = registry::admit::decide(&store, &digest, Timestamp::now())?;
        Ok::<_, registry::admit::AdmitError>((admitted, decision))
    })
    .await?;
    node.events().send(Event::Admitted {
        release: digest,
        model: admitted.model().clone(),
        version: admitted.version().clone(),
    });
    node.provide(digest).await;
    Ok((digest, decision))
}

async fn decide(node: &Node, digest: Digest) -> Result<Release, PullError> {
    let store = node.store().clone();
    let (release, decision) =
        blocking(move || registry::admit::decide(&store, &digest, Timestamp::now())).await?;
    if decision.allowed { Ok(release.get().clone()) } else { Err(PullError::Policy(Box::new(decision))) }
}

impl<'a> Running<'a> {
    fn new(
        node: &'a Node,
        transfer: &'a Transfer,
        digest: Digest,
        release: Arc<Release>,
        sender: mpsc::Sender<Own>,
    ) -> Self {
        let settings = &node.config().transfer;
        let streams = u64::from(settings.streams_per_peer);
        let limits = Limits {
            max_window: (streams * u64::from(settings.window) * u64::from(MAX_CHUNK)).max(MAX_RANGE),
            first_window: MAX_RANGE,
            stall: Duration::from_secs(settings.stall_secs),
        };
        let now = Instant::now();
        Self {
            node,
            transfer,
            digest,
            release,
            plan: Plan::new(limits),
            start: now,
            sender,
            peers: BTreeMap::new(),
            by_id: HashMap::new(),
            ids: BTreeMap::new(),
            shares: BTreeMap::new(),
            banned: HashSet::new(),
            later: HashMap::new(),
            next_peer: 0,
            maps: BTreeMap::new(),
            wanted_maps: VecDeque::new(),
            without: HashMap::new(),
            partials: BTreeMap::new(),
            left: BTreeSet::new(),
            verifying: BTreeSet::new(),
            whole: HashSet::new(),
            bytes_whole: 0,
            alone_since: None,
            ever_joined: false,
            looked: None,
            looking: false,
            last_why: None,
            rate: 0.0,
            last_done: 0,
            last_tick: now,
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// What is here already: whole blobs, chunk maps. The same content under two paths is fetched once.
    async fn survey(&mut self) -> Result<(), PullError> {
        let (store, release) = (self.node.store().clone(), Arc::clone(&self.release));
        let (whole, maps, needed) = blocking(move || {
            let (mut whole, mut maps, mut needed) = (HashSet::new(), BTreeMap::new(), Vec::new());
            let mut seen = HashSet::new();
            for (key, file) in release.files.iter().enumerate() {
                let here = store.has_blob(&file.blake3);
                // A map is part of what is kept even where the blob was here: others will ask for it.
                let map = store.chunk_map(&file.chunk_map)?;
                if here {
                    whole.insert(file.blake3);
                }
                if (here && map.is_some()) || !seen.insert(file.blake3) {
                    continue;
                }
                match map {
                    Some(map) => {
                        maps.insert(key as FileKey, Arc::new(map));
                    }
                    None => needed.push((file.size, key as FileKey)),
                }
            }
            needed.sort_unstable();
            Ok::<_, StoreError>((whole, maps, needed))
        })
        .await
        .map_err(PullError::from)?;
        self.bytes_whole =
            self.release.files.iter().filter(|file| whole.contains(&file.blake3)).map(|file| file.size).sum();
        self.whole = whole;
        self.wanted_maps = needed.into_iter().map(|(_, key)| key).collect();
        self.left = maps.keys().copied().chain(self.wanted_maps.iter().copied()).collect();
        self.transfer.update(|info| {
            info.model = Some(self.release.model.clone());
            info.version = Some(self.release.version.clone());
            info.state = TransferState::Fetching;
            info.bytes_total = self.release.size();
            info.bytes_done = self.bytes_whole;
            info.bytes_resumed = self.bytes_whole;
        });
        for (file, map) in maps {
            self.add_map(file, map).await?;
        }
        Ok(())
    }

    async fn go(
        &mut self,
        own: &mut mpsc::Receiver<Own>,
        outside: &mut mpsc::Receiver<Outside>,
    ) -> Result<(), PullError> {
        if !self.left.is_empty() {
            if !self.node.is_online() {
                return Err(PullError::Network(
                    "this node is offline and the release is not whole here; start it with its network"
                        .to_owned(),
                ));
            }
            self.look_for_peers();
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.left.is_empty() {
            tokio::select! {
                () = self.transfer.cancel.cancelled() => return Err(PullError::Cancelled),
                Some(what) = own.recv() => self.on_own(what).await?,
                Some(what) = outside.recv() => match what {
                    Outside::Up(peer) => self.connect(peer),
                    Outside::Reconsider => {
                        decide(self.node, self.digest).await?;
                    }
                },
                _ = tick.tick() => self.on_tick().await?,
            }
        }
        self.show();
        Ok(())
    }

    /// Ends every peer's part and makes what was fetched durable, so that a later pull resumes it.
    async fn stop(&mut self) {
        for peer in self.peers.values() {
            peer.task.abort();
        }
        self.peers.clear();
        let partials: Vec<Partial> = std::mem::take(&mut self.partials).into_values().collect();
        let flushed = blocking(move || partials.iter().try_for_each(Partial::flush)).await;
        if let Err(error) = flushed {
            tracing::warn!("what was fetched could not be made durable: {error}");
        }
        self.show();
    }

    async fn on_own(&mut self, what: Own) -> Result<(), PullError> {
        match what {
            Own::Told(told) => self.on_told(told).await,
            Own::Map { key, file, result } => self.on_map(key, file, result).await,
            Own::Opened { file, result } => match result? {
                Some(partial) => {
                    let missing = partial.missing().into_iter().map(|index| index as u32).collect();
                    let resumed = partial.bytes_done();
                    self.transfer.update(|info| info.bytes_resumed += resumed);
                    self.last_done += resumed;
                    self.partials.insert(file, partial);
                    self.happened(Happened::Opened { file, missing }).await
                }
                None => {
                    self.is_whole(file);
                    self.happened(Happened::Opened { file, missing: Vec::new() }).await
                }
            },
            Own::Finished { file, result } => {
                self.verifying.remove(&file);
                if let Err(error) = result {
                    return Err(error.into());
                }
                self.partials.remove(&file);
                self.is_whole(file);
                Ok(())
            }
            Own::Providers(peers) => {
                self.looking = false;
                for peer in peers {
                    if self.node.book().is_connected(&peer) {
                        self.connect(peer);
                    } else {
                        let node = self.node.clone();
                        // Coming up, it is told to every running transfer.
                        self.node.spawn("dial", async move { node.dial_peer(peer).await });
                    }
                }
                Ok(())
            }
        }
    }

    /// A blob is whole here: every file that it is counts, under however many paths.
    fn is_whole(&mut self, file: FileKey) {
        self.left.remove(&file);
        let Some(blob) = self.release.files.get(file as usize).map(|file| file.blake3) else { return };
        if self.whole.insert(blob) {
            let same = self.release.files.iter().filter(|file| file.blake3 == blob);
            self.bytes_whole += same.map(|file| file.size).sum::<u64>();
        }
    }

    async fn on_told(&mut self, told: Told) -> Result<(), PullError> {
        match told {
            Told::Joined { key, complete } => {
                self.ever_joined = true;
                if let Some(peer) = self.peers.get_mut(&key) {
                    peer.joined = true;
                }
                self.ask_for_maps();
                self.happened(Happened::Joined { peer: key, complete }).await
            }
            Told::Map { key, file, bytes } => {
                self.check_map(key, file, bytes);
                Ok(())
            }
            Told::NoMap { key, file } => {
                self.without.entry(file).or_default().insert(key);
                self.want_map_again(key, file);
                Ok(())
            }
            Told::Have { key, file, have } => {
                self.happened(Happened::Available { peer: key, file, have }).await
            }
            Told::Kept { key, request, chunks } => {
                if let Some(share) = self.share(key) {
                    share.chunks += chunks.len() as u64;
                    share.bytes += chunks.iter().map(|(_, len)| u64::from(*len)).sum::<u64>();
                }
                for (index, _) in chunks {
                    self.happened(Happened::Chunk { request, index }).await?;
                }
                Ok(())
            }
            Told::Finished { request } => self.happened(Happened::Finished { request }).await,
            Told::Refused { request } => self.happened(Happened::Refused { request }).await,
            Told::Corrupt { key, file, index, why } => {
                let path = self.path(file);
                self.ban(key, &format!("chunk {index} of `{path}`"), &why);
                self.drop_peer(key).await
            }
            Told::Disk { why } => Err(PullError::Disk(why)),
            Told::Gone { key, why } => self.gone(key, why).await,
        }
    }

    fn share(&mut self, key: PeerKey) -> Option<&mut PeerShare> {
        self.shares.get_mut(self.ids.get(&key)?)
    }

    fn path(&self, file: FileKey) -> String {
        self.release.files.get(file as usize).map(|file| file.path.clone()).unwrap_or_default()
    }

    fn ban(&mut self, key: PeerKey, what: &str, why: &str) {
        let Some(peer) = self.peers.get(&key) else { return };
        self.banned.insert(peer.id);
        let (id, nation) = (peer.id.to_base58(), self.node.book().nation(&peer.id));
        let of = nation.as_ref().map(|nation| format!(" of `{nation}`")).unwrap_or_default();
        let message = format!(
            "peer {id}{of} sent wrong bytes for {what} of {}: {why}; it is not asked again in this transfer",
            self.release.model
        );
        tracing::warn!("{message}");
        self.last_why = Some(message.clone());
        if let Some(share) = self.share(key) {
            share.bad_chunks += 1;
            share.banned = true;
        }
        self.node.events().send(Event::Alert {
            code: "corrupt_chunk".to_owned(),
            message,
            peer: Some(id),
            nation,
        });
    }

    async fn gone(&mut self, key: PeerKey, why: Gone) -> Result<(), PullError> {
        if let Some(peer) = self.peers.get(&key) {
            if !matches!(why, Gone::Over) {
                tracing::debug!(peer = %peer.id, "a source was lost: {why}");
                self.last_why = Some(format!("peer {}: {why}", peer.id));
            }
            self.later.insert(peer.id, Instant::now() + ASK_AGAIN);
        }
        self.drop_peer(key).await
    }

    async fn drop_peer(&mut self, key: PeerKey) -> Result<(), PullError> {
        let Some(peer) = self.peers.remove(&key) else { return Ok(()) };
        peer.task.abort();
        self.by_id.remove(&peer.id);
        for file in peer.maps {
            self.wanted_maps.push_front(file);
        }
        self.ask_for_maps();
        self.happened(Happened::Lost { peer: key }).await
    }

    /// Peers that are connected, and those that the table names.
    fn look_for_peers(&mut self) {
        for peer in self.node.book().servers() {
            self.connect(peer);
        }
        if self.looking {
            return;
        }
        self.looking = true;
        self.looked = Some(Instant::now());
        let (node, digest, sender) = (self.node.clone(), self.digest, self.sender.clone());
        self.node.spawn("providers", async move {
            let peers = node.providers(digest).await;
            let _ = sender.send(Own::Providers(peers)).await;
        });
    }

    fn connect(&mut self, peer: PeerId) {
        let settings = &self.node.config().transfer;
        let known = self.by_id.contains_key(&peer) || self.banned.contains(&peer);
        let later = self.later.get(&peer).is_some_and(|until| Instant::now() < *until);
        let serves = self.node.book().servers().contains(&peer);
        if known || later || !serves || self.peers.len() >= settings.max_peers as usize {
            return;
        }
        let (Some(network), Some(nation)) = (self.node.network(), self.node.book().nation(&peer)) else {
            return;
        };
        let key = self.next_peer;
        self.next_peer += 1;
        let (jobs, queue) = mpsc::channel(JOBS);
        let (told, mut telling) = mpsc::channel(TOLD);
        let received = Arc::new(AtomicU64::new(0));
        let ahead = (settings.window as usize * MAX_CHUNK as usize / MAX_RANGE as usize).max(1);
        let session = Session {
            key,
            peer,
            release: self.digest,
            control: network.streams.clone(),
            told,
            jobs: Arc::new(Mutex::new(queue)),
            received: Arc::clone(&received),
            counters: self.node.book().counters(&peer),
            streams: settings.streams_per_peer as usize,
            ahead,
        };
        let sender = self.sender.clone();
        let forward = async move {
            while let Some(told) = telling.recv().await {
                if sender.send(Own::Told(told)).await.is_err() {
                    return;
                }
            }
        };
        let task = tokio::spawn(guarded("source", async move {
            tokio::join!(session.run(), forward);
        }));
        self.by_id.insert(peer, key);
        self.ids.insert(key, peer);
        self.shares.entry(peer).or_insert_with(|| PeerShare {
            peer_id: peer.to_base58(),
            nation,
            state: Default::default(),
            bytes: 0,
            bytes_wire: 0,
            rate: 0,
            chunks: 0,
            bad_chunks: 0,
            banned: false,
        });
        let task = task.abort_handle();
        let peer = Peer { id: peer, jobs, task, received, seen: 0, joined: false, maps: BTreeSet::new() };
        self.peers.insert(key, peer);
    }

    /// Spreads the chunk maps that are still wanted over the peers.
    fn ask_for_maps(&mut self) {
        let mut rest = VecDeque::new();
        while let Some(file) = self.wanted_maps.pop_front() {
            let without = self.without.get(&file);
            let least = self
                .peers
                .iter()
                .filter(|(key, peer)| {
                    peer.joined
                        && peer.maps.len() < MAPS_AHEAD
                        && without.is_none_or(|keys| !keys.contains(key))
                })
                .min_by_key(|(_, peer)| peer.maps.len())
                .map(|(key, _)| *key);
            let size = self.release.files.get(file as usize).map_or(0, |file| file.size);
            let asked = least.and_then(|key| self.peers.get_mut(&key)).is_some_and(|peer| {
                peer.jobs.try_send(Job::Map { file, size }).is_ok() && peer.maps.insert(file)
            });
            if !asked {
                rest.push_back(file);
            }
        }
        self.wanted_maps = rest;
    }

    fn want_map_again(&mut self, key: PeerKey, file: FileKey) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.maps.remove(&file);
        }
        self.wanted_maps.push_back(file);
        self.ask_for_maps();
    }

    fn check_map(&self, key: PeerKey, file: FileKey, bytes: Vec<u8>) {
        let Some(wanted) = self.release.files.get(file as usize).cloned() else { return };
        let (store, sender) = (self.node.store().clone(), self.sender.clone());
        self.node.spawn("chunk map", async move {
            let checked = tokio::task::spawn_blocking(move || keep_map(&store, &wanted, &bytes)).await;
            let result = checked.unwrap_or_else(|_| Err(MapError::Unfit("reading it failed".to_owned())));
            let _ = sender.send(Own::Map { key, file, result }).await;
        });
    }

    async fn on_map(
        &mut self,
        key: PeerKey,
        file: FileKey,
        result: Result<Arc<ChunkMap>, MapError>,
    ) -> Result<(), PullError> {
        match result {
            Ok(map) => {
                if let Some(peer) = self.peers.get_mut(&key) {
                    peer.maps.remove(&file);
                }
                self.ask_for_maps();
                self.add_map(file, map).await
            }
            Err(MapError::Wrong(why)) => {
                let path = self.path(file);
                self.ban(key, &format!("the chunk map of `{path}`"), &why);
                self.drop_peer(key).await
            }
            Err(MapError::Unfit(why)) => {
                let producer = &self.release.model.nation;
                Err(PullError::Verification(format!(
                    "the chunk map that `{producer}` signed for `{}` is unfit: {why}; ask `{producer}` for a new release",
                    self.path(file)
                )))
            }
            Err(MapError::Store(error)) => Err(error.into()),
        }
    }

    async fn add_map(&mut self, file: FileKey, map: Arc<ChunkMap>) -> Result<(), PullError> {
        let lens = map.chunks().iter().map(|chunk| chunk.len).collect();
        self.maps.insert(file, map);
        self.happened(Happened::File { file, lens }).await
    }

    /// Tells the plan and does what it decides.
    async fn happened(&mut self, event: Happened) -> Result<(), PullError> {
        let now = self.now();
        let mut todo: VecDeque<Action> = self.plan.handle(event, now).into();
        while let Some(action) = todo.pop_front() {
            match action {
                Action::Open { file } => self.open(file),
                Action::AskHave { peer, file } => {
                    let chunks = self.maps.get(&file).map_or(0, |map| map.len());
                    self.give(peer, Job::Have { file, chunks });
                }
                Action::Fetch { peer, request, file, first, count } => {
                    let given = self.partials.get(&file).cloned().is_some_and(|partial| {
                        self.give(peer, Job::Chunks { request, file, first, count, partial })
                    });
                    if !given {
                        todo.extend(self.plan.handle(Happened::Lost { peer }, now));
                    }
                }
                Action::Leave { peer } => {
                    if let Some(gone) = self.peers.remove(&peer) {
                        tracing::info!(peer = %gone.id, "a source brings too little and is left");
                        self.last_why = Some(format!("peer {} brought next to nothing", gone.id));
                        gone.task.abort();
                        self.by_id.remove(&gone.id);
                        // It may be better later, but it is not waited for.
                        self.later.insert(gone.id, Instant::now() + ALONE);
                        self.wanted_maps.extend(gone.maps);
                    }
                }
                Action::Complete { file } => self.complete(file),
            }
        }
        Ok(())
    }

    fn give(&self, key: PeerKey, job: Job) -> bool {
        self.peers.get(&key).is_some_and(|peer| peer.jobs.try_send(job).is_ok())
    }

    fn open(&self, file: FileKey) {
        let Some(map) = self.maps.get(&file).cloned() else { return };
        let (store, sender, cancel) =
            (self.node.store().clone(), self.sender.clone(), self.transfer.cancel.clone());
        self.node.spawn("open", async move {
            let result = loop {
                let (store, map) = (store.clone(), Arc::clone(&map));
                let opened = blocking(move || match store.partial(&map) {
                    Ok(partial) => Ok(Some(partial)),
                    Err(StoreError::Present(_)) => Ok(None),
                    Err(error) => Err(error),
                });
                match opened.await {
                    // Another release that shares the blob is being fetched: wait for that.
                    Err(StoreError::InUse(_)) if !cancel.is_cancelled() => tokio::time::sleep(IN_USE).await,
                    result => break result,
                }
            };
            let _ = sender.send(Own::Opened { file, result }).await;
        });
    }

    fn complete(&mut self, file: FileKey) {
        let Some(partial) = self.partials.get(&file).cloned() else { return };
        self.verifying.insert(file);
        let sender = self.sender.clone();
        self.node.spawn("finish", async move {
            let result = blocking(move || partial.finish()).await;
            let _ = sender.send(Own::Finished { file, result }).await;
        });
    }

    async fn on_tick(&mut self) -> Result<(), PullError> {
        let received: Vec<(PeerKey, u64)> = self
            .peers
            .iter_mut()
            .filter_map(|(key, peer)| {
                let all = peer.received.load(Ordering::Relaxed);
                let new = all.saturating_sub(peer.seen);
                peer.seen = all;
                (new > 0).then_some((*key, new))
            })
            .collect();
        for (peer, bytes) in received {
            self.happened(Happened::Bytes { peer, bytes }).await?;
        }
        self.happened(Happened::Tick).await?;
        self.show();
        let joined = self.peers.values().any(|peer| peer.joined);
        let waiting = self.plan.is_stuck() || !self.wanted_maps.is_empty();
        let alone = waiting && (!joined || self.plan.is_stuck());
        if !alone && self.verifying.is_empty() {
            self.alone_since = None;
        }
        let few = alone || (waiting && self.peers.len() < 2);
        if few && self.looked.is_none_or(|at| at.elapsed() >= LOOK_AGAIN) {
            self.look_for_peers();
        }
        if !alone {
            return Ok(());
        }
        let since = *self.alone_since.get_or_insert_with(Instant::now);
        let limit = if self.ever_joined { ALONE } else { ALONE_AT_FIRST };
        if since.elapsed() < limit {
            return Ok(());
        }
        Err(self.nobody())
    }

    /// Why nobody can be asked.
    fn nobody(&self) -> PullError {
        let connected = self.node.book().connected().len();
        let why = self.last_why.clone().map(|why| format!("; the last one: {why}")).unwrap_or_default();
        if !self.banned.is_empty() && self.peers.values().all(|peer| !peer.joined) {
            return PullError::Verification(format!(
                "every peer that has {} sent wrong bytes{why}; what was verified is kept, try again when another peer has it",
                self.release.model
            ));
        }
        let text = match connected {
            0 => "no peer is connected".to_owned(),
            n => {
                format!("none of the {n} connected peers can give what is missing of {}", self.release.model)
            }
        };
        PullError::Network(format!("{text}{why}; what was fetched is kept and a new pull resumes it"))
    }

    /// Shows the world how far it is.
    fn show(&mut self) {
        let here: u64 = self.partials.values().map(Partial::bytes_done).sum();
        let done = self.bytes_whole + here;
        let passed = self.last_tick.elapsed().as_secs_f64();
        if passed > 0.05 {
            let latest = done.saturating_sub(self.last_done) as f64 / passed;
            self.rate += (latest - self.rate) * RATE_WEIGHT;
            (self.last_done, self.last_tick) = (done, Instant::now());
        }
        let rate = self.rate as u64;
        let shares: Vec<PeerShare> =
            self.shares.values().filter(|share| share.chunks + share.bad_chunks > 0).cloned().collect();
        let now = self.transfer.info();
        if now.bytes_done != done || now.peers != shares || now.rate != rate {
            self.transfer.update(|info| {
                info.bytes_done = done;
                info.rate = rate;
                info.peers = shares;
            });
        }
    }
}

/// Checks a map's bytes against the signed digest and the file, and keeps it.
fn keep_map(
    store: &Store,
    file: &registry::statement::File,
    bytes: &[u8],
) -> Result<Arc<ChunkMap>, MapError> {
    let found = Digest::of(bytes);
    if found != file.chunk_map {
        return Err(MapError::Wrong(format!("{} was expected, {found} came", file.chunk_map)));
    }
    // From here on the bytes are those that the publisher signed.
    let map = ChunkMap::decode(bytes).map_err(|error: ChunkError| MapError::Unfit(error.to_string()))?;
    if map.blob() != file.blake3 || map.size() != file.size {
        return Err(MapError::Unfit("it belongs to another file".to_owned()));
    }
    if map.len() as u64 > max_chunks(file.size) {
        return Err(MapError::Unfit(format!("{} chunks are too many for {} bytes", map.len(), file.size)));
    }
    store.put_bytes(bytes).map_err(MapError::Store)?;
    Ok(Arc::new(map))
}
