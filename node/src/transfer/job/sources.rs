//! Who can be asked: looking for peers, taking them up, letting them go.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use libp2p::PeerId;
use registry::chunk::MAX_CHUNK;
use tokio::sync::{Mutex, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{Own, Running};
use crate::events::{Event, PeerShare, PeerState};
use crate::node::guarded;
use crate::transfer::PullError;
use crate::transfer::fetch::{Cancels, Gone, Job, Session};
use crate::transfer::plan::{Event as Happened, FileKey, PeerKey};
use crate::wire::{MAX_RANGE, Refusal};

/// What waits to be told by one peer.
const TOLD: usize = 1024;
/// Jobs that wait for one peer: more than the plan gives at once.
const JOBS: usize = 256;
/// How long a transfer may find nobody to ask, before it fails. Peers that were lost may come back in this time.
pub(super) const ALONE: Duration = Duration::from_secs(30);
/// The same before the first peer had it.
pub(super) const ALONE_AT_FIRST: Duration = Duration::from_secs(10);
/// Between two questions to the provider table while there are too few peers.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Between two looks at the peers that are connected.
const LOOK: Duration = Duration::from_secs(1);
/// A peer that was lost is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// A peer that did not have the release is asked again after this time, since it may have begun to fetch it; each time
/// after twice as long, up to the other.
const ASK_WHETHER: Duration = Duration::from_secs(1);
const ASK_WHETHER_MOST: Duration = Duration::from_secs(30);

/// A source.
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) jobs: mpsc::Sender<Job>,
    pub(super) cancels: Cancels,
    task: AbortHandle,
    pub(super) received: Arc<AtomicU64>,
    pub(super) seen: u64,
    pub(super) joined: bool,
    /// Maps asked of it.
    pub(super) maps: BTreeSet<FileKey>,
}

/// Who can be asked, and what became of those who were.
#[derive(Default)]
pub(super) struct Sources {
    pub(super) peers: BTreeMap<PeerKey, Peer>,
    by_id: HashMap<PeerId, PeerKey>,
    /// Which peer each key was, those that are gone included.
    ids: BTreeMap<PeerKey, PeerId>,
    pub(super) shares: BTreeMap<PeerId, PeerShare>,
    pub(super) banned: HashSet<PeerId>,
    /// Peers to leave alone until then.
    pub(super) later: HashMap<PeerId, Instant>,
    /// How often in a row a peer said that it does not have the release.
    refusals: HashMap<PeerId, u32>,
    next: PeerKey,
    pub(super) alone_since: Option<Instant>,
    pub(super) ever_joined: bool,
    looked: Option<Instant>,
    asked: Option<Instant>,
    looking: bool,
    pub(super) last_why: Option<String>,
}

impl Sources {
    /// Ends every peer's part.
    pub(super) fn close(&mut self) {
        for peer in self.peers.values() {
            peer.task.abort();
        }
        self.peers.clear();
        self.by_id.clear();
        self.alone_since = None;
        self.looking = false;
    }

    pub(super) fn joined(&mut self, key: PeerKey) {
        self.ever_joined = true;
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.joined = true;
        }
    }

    pub(super) fn share(&mut self, key: PeerKey) -> Option<&mut PeerShare> {
        self.shares.get_mut(self.ids.get(&key)?)
    }

    /// Lets a peer go.
    pub(super) fn remove(&mut self, key: PeerKey, state: PeerState) -> Option<Peer> {
        let peer = self.peers.remove(&key)?;
        peer.task.abort();
        self.by_id.remove(&peer.id);
        if let Some(share) = self.share(key) {
            share.rate = 0;
            if share.state != PeerState::Banned {
                share.state = state;
            }
        }
        Some(peer)
    }
}

impl Running<'_> {
    /// Takes up peers that are connected and, where there are few, those that the provider table names.
    pub(super) fn look_for_peers(&mut self, few: bool) {
        if self.sources.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            self.sources.looked = Some(Instant::now());
            for peer in self.node.book().servers() {
                self.connect(peer);
            }
        }
        let due = self.sources.asked.is_none_or(|at| at.elapsed() >= LOOK_AGAIN);
        if !few || !due || self.sources.looking {
            return;
        }
        (self.sources.looking, self.sources.asked) = (true, Some(Instant::now()));
        let (node, digest, sender) = (self.node.clone(), self.digest, self.sender.clone());
        self.node.spawn("providers", async move {
            let peers = node.providers(digest).await;
            let _ = sender.send(Own::Providers(peers)).await;
        });
    }

    pub(super) fn providers(&mut self, peers: Vec<PeerId>) {
        self.sources.looking = false;
        for peer in peers {
            if self.node.book().is_connected(&peer) {
                self.connect(peer);
            } else {
                let node = self.node.clone();
                // Coming up, it is told to every running transfer.
                self.node.spawn("dial", async move { node.dial_peer(peer).await });
            }
        }
    }

    /// Takes up a peer that has just connected, at once: whatever it was left alone for is over with its last connection.
    pub(super) fn came_up(&mut self, peer: PeerId) {
        self.sources.later.remove(&peer);
        self.connect(peer);
    }

    pub(super) fn connect(&mut self, peer: PeerId) {
        let settings = &self.node.config().transfer;
        let sources = &mut self.sources;
        let known = sources.by_id.contains_key(&peer) || sources.banned.contains(&peer);
        let later = sources.later.get(&peer).is_some_and(|until| Instant::now() < *until);
        let serves = self.node.book().servers().contains(&peer);
        if known || later || !serves || sources.peers.len() >= settings.max_peers as usize {
            return;
        }
        let (Some(network), Some(nation)) = (self.node.network(), self.node.book().nation(&peer)) else {
            return;
        };
        let key = sources.next;
        sources.next += 1;
        let (jobs, queue) = mpsc::channel(JOBS);
        let (told, mut telling) = mpsc::channel(TOLD);
        let received = Arc::new(AtomicU64::new(0));
        let ahead = (settings.window as usize * MAX_CHUNK as usize / MAX_RANGE as usize).max(1);
        let cancels = Cancels::default();
        let session = Session {
            key,
            peer,
            nation: nation.clone(),
            release: self.digest,
            content: Arc::clone(&self.release),
            control: network.streams.clone(),
            told,
            jobs: Arc::new(Mutex::new(queue)),
            cancels: cancels.clone(),
            received: Arc::clone(&received),
            counters: self.node.book().counters(&peer),
            limiter: Arc::clone(self.node.limiter()),
            source: Arc::clone(&self.source),
            encoded: Arc::clone(self.node.encoded()),
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
        sources.by_id.insert(peer, key);
        sources.ids.insert(key, peer);
        sources.shares.entry(peer).or_insert_with(|| PeerShare {
            peer_id: peer.to_base58(),
            nation,
            state: PeerState::Idle,
            bytes: 0,
            bytes_wire: 0,
            rate: 0,
            chunks: 0,
            bad_chunks: 0,
            banned: false,
        });
        let task = task.abort_handle();
        let maps = BTreeSet::new();
        let peer = Peer { id: peer, jobs, cancels, task, received, seen: 0, joined: false, maps };
        sources.peers.insert(key, peer);
    }

    pub(super) fn ban(&mut self, key: PeerKey, what: &str, why: &str) {
        let Some(peer) = self.sources.peers.get(&key) else { return };
        self.sources.banned.insert(peer.id);
        let (id, nation) = (peer.id.to_base58(), self.node.book().nation(&peer.id));
        let of = nation.as_ref().map(|nation| format!(" of `{nation}`")).unwrap_or_default();
        let message = format!(
            "peer {id}{of} sent wrong bytes for {what} of {}: {why}; it is not asked again in this transfer",
            self.release.model
        );
        tracing::warn!("{message}");
        self.sources.last_why = Some(message.clone());
        if let Some(share) = self.sources.share(key) {
            share.bad_chunks += 1;
            share.banned = true;
            share.state = PeerState::Banned;
        }
        self.node.events().send(Event::Alert {
            code: "corrupt_chunk".to_owned(),
            message,
            peer: Some(id),
            nation,
        });
    }

    pub(super) fn gone(&mut self, key: PeerKey, why: Gone) -> Result<(), PullError> {
        if let Some(peer) = self.sources.peers.get(&key) {
            let (id, joined) = (peer.id, peer.joined);
            let wait = match why {
                Gone::Refused(Refusal::NotFound) if !joined => {
                    let times = self.sources.refusals.entry(id).or_default();
                    *times += 1;
                    (ASK_WHETHER * 2u32.saturating_pow(*times - 1)).min(ASK_WHETHER_MOST)
                }
                _ => ASK_AGAIN,
            };
            if !matches!(why, Gone::Over) {
                tracing::debug!(peer = %id, "a source was lost: {why}");
                self.sources.last_why = Some(format!("peer {id}: {why}"));
            }
            self.sources.later.insert(id, Instant::now() + wait);
        }
        self.drop_peer(key)
    }

    pub(super) fn drop_peer(&mut self, key: PeerKey) -> Result<(), PullError> {
        let Some(peer) = self.sources.remove(key, PeerState::Gone) else { return Ok(()) };
        self.wanted_maps.extend(peer.maps);
        self.ask_for_maps();
        self.happened(Happened::Lost { peer: key })
    }

    /// Why nobody can be asked.
    pub(super) fn nobody(&self) -> PullError {
        let connected = self.node.book().connected().len();
        let why =
            self.sources.last_why.clone().map(|why| format!("; the last one: {why}")).unwrap_or_default();
        if !self.sources.banned.is_empty() && self.sources.peers.values().all(|peer| !peer.joined) {
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
}
