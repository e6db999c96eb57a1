//! One transfer: tells the plan what happened, does what it decides.

mod act;
mod maps;
mod read;
mod show;
mod sources;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;
use registry::chunk::{ChunkMap, MAX_CHUNK};
use registry::policy::Decision;
use registry::statement::Release;
use registry::store::{Partial, StoreError};
use registry::{Digest, Timestamp};
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::maps::MapError;
use self::read::Readers;
use self::show::Shown;
use self::sources::Sources;
use super::fetch::Told;
use super::plan::{Event as Happened, FileKey, Limits, PeerKey, Plan};
use super::serve::Source;
use super::{Outside, PullError, Transfer};
use crate::events::{Event, TransferState};
use crate::node::{Node, blocking};
use crate::wire::MAX_RANGE;

/// What waits to be told to a job from outside it.
pub(super) const OUTSIDE: usize = 64;
/// What waits to be told to a job by its peers; they wait when it is full.
const TOLD: usize = 1024;
/// How often the plan sees the time, and the world the progress.
const TICK: Duration = Duration::from_millis(250);
/// Between two looks whether a full disk has room again.
const ROOM_EVERY: Duration = Duration::from_secs(5);
/// How long a transfer waits for room on a full disk before it fails: time for a person to be called and to make some.
const ROOM_WAIT: Duration = Duration::from_secs(30 * 60);

/// What the job's own tasks tell.
enum Own {
    Told(Told),
    /// A chunk map was looked at.
    Map {
        key: PeerKey,
        file: FileKey,
        result: Result<Arc<ChunkMap>, MapError>,
    },
    /// A blob was opened, and so many of its missing bytes were taken from other blobs; `None` when it is here already.
    Opened {
        file: FileKey,
        result: Result<Option<(Partial, u64)>, StoreError>,
    },
    /// A blob was hashed and put in its place.
    Finished {
        file: FileKey,
        result: Result<(), StoreError>,
    },
    /// Peers that the provider table names.
    Providers(Vec<PeerId>),
}

struct Running<'a> {
    node: &'a Node,
    transfer: &'a Transfer,
    digest: Digest,
    release: Arc<Release>,
    plan: Plan,
    start: Instant,
    sender: mpsc::Sender<Own>,
    sources: Sources,
    /// What others who watch us are told of what came.
    source: Arc<Source>,
    maps: BTreeMap<FileKey, Arc<ChunkMap>>,
    wanted_maps: VecDeque<FileKey>,
    /// Peers that did not have a map.
    without: HashMap<FileKey, BTreeSet<PeerKey>>,
    partials: BTreeMap<FileKey, Partial>,
    /// Who reads what while it comes.
    readers: Readers,
    /// Files that are not whole yet.
    left: BTreeSet<FileKey>,
    verifying: BTreeSet<FileKey>,
    /// Blobs that are whole here, and the bytes of the files that they are.
    whole: HashSet<Digest>,
    bytes_whole: u64,
    shown: Shown,
}

/// Fetches what is missing of the release and admits it.
pub(super) async fn run(
    node: &Node,
    transfer: &Transfer,
    digest: Digest,
    mut outside: mpsc::Receiver<Outside>,
) -> Result<(Digest, Decision), PullError> {
    // Policy before bytes. The log may be a moment behind the statement.
    crate::log::wait::for_policy(node, digest).await;
    let release = Arc::new(decide(node, digest).await?);
    // Whatever arrives is kept from being collected until it is admitted.
    let _lease = node.store().lease([digest]);
    let mut sources = Sources::default();
    loop {
        let (sender, mut own) = mpsc::channel(TOLD);
        let mut running = Running::new(node, transfer, digest, Arc::clone(&release), sender, sources);
        let result = match running.survey().await {
            Ok(()) => running.go(&mut own, &mut outside).await,
            Err(error) => Err(error),
        };
        running.stop().await;
        match result {
            Ok(()) => {
                running.source.completed();
                break;
            }
            Err(PullError::DiskFull(why)) => {
                // Peers that were found false stay banned.
                sources = std::mem::take(&mut running.sources);
                drop(running);
                wait_for_room(node, transfer, &release, &why).await?;
            }
            Err(error) => return Err(error),
        }
    }
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

/// A full disk stops a transfer, it does not end it: what came is durable, and it goes on when there is room.
async fn wait_for_room(
    node: &Node,
    transfer: &Transfer,
    release: &Release,
    why: &str,
) -> Result<(), PullError> {
    tracing::warn!("the transfer of {} waits: {why}", release.model);
    let until = Instant::now() + ROOM_WAIT;
    transfer.update(|info| {
        info.rate = 0;
        info.error = Some(format!("waits for room on the disk: {why}"));
    });
    let before = free(node).await;
    loop {
        tokio::select! {
            () = transfer.cancel.cancelled() => return Err(PullError::Cancelled),
            () = tokio::time::sleep(ROOM_EVERY) => {}
        }
        // Room that was there before did not suffice.
        if free(node).await > before {
            transfer.update(|info| info.error = None);
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(PullError::DiskFull(why.to_owned()));
        }
    }
}

async fn free(node: &Node) -> u64 {
    let store = node.store().clone();
    blocking(move || store.usage()).await.map_or(0, |usage| usage.disk_free)
}

impl<'a> Running<'a> {
    fn new(
        node: &'a Node,
        transfer: &'a Transfer,
        digest: Digest,
        release: Arc<Release>,
        sender: mpsc::Sender<Own>,
        sources: Sources,
    ) -> Self {
        let settings = &node.config().transfer;
        let streams = u64::from(settings.streams_per_peer);
        let limits = Limits {
            max_window: (streams * u64::from(settings.window) * u64::from(MAX_CHUNK)).max(MAX_RANGE),
            first_window: MAX_RANGE,
            stall: Duration::from_secs(settings.stall_secs),
            in_order: false,
        };
        let source = node.sources().get_or(digest, Source::growing);
        Self {
            node,
            transfer,
            digest,
            release,
            plan: Plan::new(limits),
            start: Instant::now(),
            sender,
            sources,
            source,
            maps: BTreeMap::new(),
            wanted_maps: VecDeque::new(),
            without: HashMap::new(),
            partials: BTreeMap::new(),
            readers: Readers::default(),
            left: BTreeSet::new(),
            verifying: BTreeSet::new(),
            whole: HashSet::new(),
            bytes_whole: 0,
            shown: Shown::default(),
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
            info.bytes_local = 0;
        });
        for (file, map) in maps {
            self.add_map(file, map)?;
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
            self.look_for_peers(true);
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.left.is_empty() {
            tokio::select! {
                () = self.transfer.cancel.cancelled() => return Err(PullError::Cancelled),
                Some(what) = own.recv() => self.on_own(what)?,
                Some(what) = outside.recv() => match what {
                    Outside::Up(peer) => self.came_up(peer),
                    Outside::Reconsider => {
                        decide(self.node, self.digest).await?;
                    }
                    Outside::Want { reader, file, from, to } => self.want(reader, file, from, to)?,
                    Outside::Unwant { reader } => self.unwant(reader)?,
                },
                _ = tick.tick() => self.on_tick()?,
            }
        }
        self.show();
        Ok(())
    }

    /// Ends every peer's part and makes what was fetched durable, so that a later pull resumes it.
    async fn stop(&mut self) {
        self.sources.close();
        // While what is half here still counts.
        self.show();
        let partials: Vec<Partial> = std::mem::take(&mut self.partials).into_values().collect();
        let flushed = blocking(move || partials.iter().try_for_each(Partial::flush)).await;
        if let Err(error) = flushed {
            tracing::warn!("what was fetched could not be made durable: {error}");
        }
    }

    fn on_own(&mut self, what: Own) -> Result<(), PullError> {
        match what {
            Own::Told(told) => self.on_told(told),
            Own::Map { key, file, result } => self.on_map(key, file, result),
            Own::Opened { file, result } => match result? {
                Some((partial, local)) => {
                    let missing: Vec<u32> =
                        partial.to_fetch().into_iter().map(|index| index as u32).collect();
                    let here = partial.bytes_done();
                    self.transfer.update(|info| {
                        info.bytes_local += local;
                        info.bytes_resumed += here.saturating_sub(local);
                    });
                    self.shown.known(here);
                    let bits = partial.bitmap();
                    self.source.kept(file, bits.present().map(|index| index as u32));
                    self.partials.insert(file, partial);
                    self.happened(Happened::Opened { file, missing })
                }
                None => {
                    self.is_whole(file);
                    self.happened(Happened::Opened { file, missing: Vec::new() })
                }
            },
            Own::Finished { file, result } => {
                self.verifying.remove(&file);
                match result {
                    Ok(()) => {
                        self.partials.remove(&file);
                        self.is_whole(file);
                        Ok(())
                    }
                    // The disk changed what was written: those chunks are fetched again.
                    Err(StoreError::Damaged { blob, bad }) => {
                        tracing::warn!(
                            "{} chunks of {blob} changed on the disk and are fetched again",
                            bad.len()
                        );
                        let missing = bad.into_iter().map(|index| index as u32).collect();
                        let lens = self.lens(file);
                        self.happened(Happened::Damaged { file, lens, missing })
                    }
                    Err(error) => Err(error.into()),
                }
            }
            Own::Providers(peers) => {
                self.providers(peers);
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

    fn on_told(&mut self, told: Told) -> Result<(), PullError> {
        match told {
            Told::Joined { key, seed } => {
                self.sources.joined(key);
                self.ask_for_maps();
                self.happened(Happened::Joined { peer: key, seed })
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
            Told::News { key, news } => self.happened(Happened::Available { peer: key, news }),
            Told::Kept { key, file, chunks } => {
                self.source.kept(file, chunks.iter().map(|(index, _)| *index));
                if let Some(share) = self.sources.share(key) {
                    share.chunks += chunks.len() as u64;
                    share.bytes += chunks.iter().map(|(_, len)| u64::from(*len)).sum::<u64>();
                }
                for (index, _) in chunks {
                    self.happened(Happened::Chunk { file, index })?;
                }
                Ok(())
            }
            Told::Finished { request } => self.happened(Happened::Finished { request }),
            Told::Refused { request } => self.happened(Happened::Refused { request }),
            Told::Corrupt { key, file, index, why } => {
                let path = self.path(file);
                self.ban(key, &format!("chunk {index} of `{path}`"), &why);
                self.drop_peer(key)
            }
            Told::Disk { error } => Err(error.into()),
            Told::Gone { key, why } => self.gone(key, why),
        }
    }

    fn path(&self, file: FileKey) -> String {
        self.release.files.get(file as usize).map(|file| file.path.clone()).unwrap_or_default()
    }

    /// The length of each chunk of a file, as far as its map is here.
    fn lens(&self, file: FileKey) -> Vec<u32> {
        let map = self.maps.get(&file);
        map.map(|map| map.chunks().iter().map(|chunk| chunk.len).collect()).unwrap_or_default()
    }
}
