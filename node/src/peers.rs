//! Who is connected, of which nation, in what standing. No I/O; the swarm tells it what happened.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::core::{ConnectedPoint, Multiaddr};
use libp2p::swarm::ConnectionId;
use registry::statement::{Capability, NodeCertificate};
use registry::trust::Trust;
use registry::{Nation, Signed, Timestamp, Verified};

use crate::events::{Direction, Event, Events, PeerInfo};

/// Peers whose standing is remembered: far more than connections are allowed, so that only strangers are forgotten.
const MAX_KNOWN: usize = 16_384;
/// Refusals kept for whoever asks.
const MAX_REFUSALS: usize = 64;
/// The same peer refused for the same reason is reported once in this time.
const REPEAT: Duration = Duration::from_secs(60);
/// Refusals reported in that time over all peers; further ones are only counted. Peer identifiers cost nothing to make.
const MAX_REPORTS: usize = 20;
/// Faults after which a peer is disconnected: signed messages and statements that are wrong can't be an accident for long.
const MAX_FAULTS: u32 = 16;
/// How long such a peer is then kept out. It would be back within a second otherwise: both sides look for each other.
const SHUNNED: Duration = Duration::from_secs(600);

/// Content bytes exchanged with a peer.
#[derive(Debug, Default)]
pub struct Counters {
    /// Sent to it.
    pub sent: AtomicU64,
    /// Received from it.
    pub received: AtomicU64,
}

impl Counters {
    /// Adds to the bytes sent.
    pub fn add_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds to the bytes received.
    pub fn add_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What a peer's certificate says of it.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Its nation.
    pub nation: Nation,
    /// Its certificate, to be checked again when trust changes or time passes.
    pub certificate: Signed,
    /// What it may do.
    pub capabilities: Vec<Capability>,
}

impl Standing {
    /// Whether its nation lets it do that.
    pub fn may(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }
}

#[derive(Debug)]
struct Link {
    id: ConnectionId,
    address: Multiaddr,
    direction: Direction,
    relayed: bool,
    since: Timestamp,
    opened: Instant,
}

#[derive(Debug)]
struct Known {
    standing: Standing,
    links: Vec<Link>,
    counters: Arc<Counters>,
    rtt: Option<Duration>,
    missed_pings: u32,
    faults: u32,
    shunned_until: Option<Instant>,
}

/// A connection that was not admitted.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The peer.
    pub peer: PeerId,
    /// Where it was.
    pub address: Multiaddr,
    /// Its nation, if it could be believed.
    pub nation: Option<Nation>,
    /// Why, in short: a verdict of the hello, or a defect of the wire.
    pub code: &'static str,
    /// Whether it was the peer that refused us.
    pub theirs: bool,
    /// Why, for people.
    pub message: String,
}

#[derive(Debug, Default)]
struct Refusals {
    count: u64,
    recent: VecDeque<Refused>,
    reported: HashMap<(PeerId, &'static str), Instant>,
}

/// All that is known about peers. Locks are held for look-ups only.
#[derive(Debug)]
pub struct PeerBook {
    known: Mutex<BTreeMap<PeerId, Known>>,
    refusals: Mutex<Refusals>,
    events: Events,
}

impl PeerBook {
    /// An empty book that tells `events` what changes.
    pub fn new(events: Events) -> Self {
        Self { known: Mutex::default(), refusals: Mutex::default(), events }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<PeerId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a peer whose certificate was believed; its connection comes up next.
    pub fn admit(&self, peer: PeerId, certificate: &Verified<NodeCertificate>) {
        let standing = Standing {
            nation: certificate.nation.clone(),
            certificate: certificate.signed().clone(),
            capabilities: certificate.capabilities.clone(),
        };
        let mut known = self.known();
        if known.len() >= MAX_KNOWN && !known.contains_key(&peer) {
            known.retain(|_, other| !other.links.is_empty());
        }
        match known.get_mut(&peer) {
            Some(entry) => entry.standing = standing,
            None => {
                let entry = Known {
                    standing,
                    links: Vec::new(),
                    counters: Arc::default(),
                    rtt: None,
                    missed_pings: 0,
                    faults: 0,
                    shunned_until: None,
                };
                known.insert(peer, entry);
            }
        }
    }

    /// A connection is up. Returns whether it is the peer's first.
    pub fn up(&self, peer: PeerId, id: ConnectionId, point: &ConnectedPoint) -> bool {
        let mut known = self.known();
        let Some(entry) = known.get_mut(&peer) else { return false };
        entry.links.push(Link {
            id,
            address: address_of(point),
            direction: if point.is_dialer() { Direction::Outbound } else { Direction::Inbound },
            relayed: point.is_relayed(),
            since: Timestamp::now(),
            opened: Instant::now(),
        });
        let first = entry.links.len() == 1;
        if first {
            entry.missed_pings = 0;
            let nation = entry.standing.nation.clone();
            drop(known);
            tracing::info!(%peer, %nation, "peer connected");
            self.events.send(Event::PeerUp { peer: peer.to_base58(), nation });
        }
        first
    }

    /// Whether a peer is kept out for what it did.
    pub fn is_shunned(&self, peer: &PeerId) -> bool {
        let until = self.known().get(peer).and_then(|entry| entry.shunned_until);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// A connection is gone. Returns whether it was the peer's last.
    pub fn down(&self, peer: PeerId, id: ConnectionId) -> bool {
        let mut known = self.known();
        let Some(entry) = known.get_mut(&peer) else { return false };
        let before = entry.links.len();
        entry.links.retain(|link| link.id != id);
        let last = before > 0 && entry.links.is_empty();
        if last {
            let nation = entry.standing.nation.clone();
            drop(known);
            tracing::info!(%peer, %nation, "peer disconnected");
            self.events.send(Event::PeerDown { peer: peer.to_base58(), nation });
        }
        last
    }

    /// A connected peer's standing.
    pub fn standing(&self, peer: &PeerId) -> Option<Standing> {
        self.known().get(peer).filter(|entry| !entry.links.is_empty()).map(|entry| entry.standing.clone())
    }

    /// A known peer's nation, connected or not.
    pub fn nation(&self, peer: &PeerId) -> Option<Nation> {
        self.known().get(peer).map(|entry| entry.standing.nation.clone())
    }

    /// A known peer's byte counters.
    pub fn counters(&self, peer: &PeerId) -> Arc<Counters> {
        self.known().get(peer).map(|entry| Arc::clone(&entry.counters)).unwrap_or_default()
    }

    /// Whether the peer is connected.
    pub fn is_connected(&self, peer: &PeerId) -> bool {
        self.known().get(peer).is_some_and(|entry| !entry.links.is_empty())
    }

    /// The connected peers.
    pub fn connected(&self) -> Vec<(PeerId, Nation)> {
        let known = self.known();
        let up = known.iter().filter(|(_, entry)| !entry.links.is_empty());
        up.map(|(peer, entry)| (*peer, entry.standing.nation.clone())).collect()
    }

    /// Whether that connection was dialled by this node, and not through a relay.
    pub fn dialled_directly(&self, peer: &PeerId, id: ConnectionId) -> bool {
        let known = self.known();
        let link = known.get(peer).and_then(|entry| entry.links.iter().find(|link| link.id == id));
        link.is_some_and(|link| link.direction == Direction::Outbound && !link.relayed)
    }

    /// Connections through relays with peers that have had a direct connection for `age`.
    pub fn superseded(&self, age: Duration) -> Vec<(PeerId, ConnectionId)> {
        let known = self.known();
        let direct = known.iter().filter(|(_, entry)| {
            entry.links.iter().any(|link| !link.relayed && link.opened.elapsed() >= age)
        });
        let links = direct.flat_map(|(peer, entry)| entry.links.iter().map(move |link| (*peer, link)));
        links.filter(|(_, link)| link.relayed).map(|(peer, link)| (peer, link.id)).collect()
    }

    /// The connected peers that may be fetched from.
    pub fn servers(&self) -> Vec<PeerId> {
        let known = self.known();
        let up = known.iter().filter(|(_, entry)| !entry.links.is_empty());
        up.filter(|(_, entry)| entry.standing.may(Capability::Serve)).map(|(peer, _)| *peer).collect()
    }

    /// The connected peers, as the API shows them.
    pub fn list(&self) -> Vec<PeerInfo> {
        let known = self.known();
        let info = known.iter().filter_map(|(peer, entry)| {
            // What is used: a direct connection before one through a relay.
            let link = entry.links.iter().find(|link| !link.relayed).or(entry.links.first())?;
            Some(PeerInfo {
                peer_id: peer.to_base58(),
                nation: entry.standing.nation.clone(),
                address: link.address.to_string(),
                direction: link.direction,
                relayed: link.relayed,
                connected_at: link.since,
                sent_bytes: entry.counters.sent.load(Ordering::Relaxed),
                received_bytes: entry.counters.received.load(Ordering::Relaxed),
                rtt_ms: entry.rtt.map(|rtt| u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX)),
                capabilities: entry.standing.capabilities.iter().filter_map(capability).collect(),
            })
        });
        info.collect()
    }

    /// How long the last ping to a peer took.
    pub fn round_trip(&self, peer: &PeerId) -> Option<Duration> {
        self.known().get(peer).and_then(|entry| entry.rtt)
    }

    /// A ping came back after `rtt`, or did not. Returns how many were missed in a row.
    pub fn pinged(&self, peer: &PeerId, rtt: Option<Duration>) -> u32 {
        let mut known = self.known();
        let Some(entry) = known.get_mut(peer) else { return 0 };
        match rtt {
            Some(_) => {
                entry.rtt = rtt;
                entry.missed_pings = 0;
            }
            None => entry.missed_pings = entry.missed_pings.saturating_add(1),
        }
        entry.missed_pings
    }

    /// A peer sent something that no honest peer sends. Returns whether it should be disconnected.
    pub fn fault(&self, peer: &PeerId, code: &str, message: &str) -> bool {
        let mut known = self.known();
        let Some(entry) = known.get_mut(peer) else { return false };
        entry.faults = entry.faults.saturating_add(1);
        let (faults, nation) = (entry.faults, entry.standing.nation.clone());
        if faults >= MAX_FAULTS {
            entry.faults = 0;
            entry.shunned_until = Some(Instant::now() + SHUNNED);
        }
        drop(known);
        tracing::warn!(%peer, %nation, code, "{message}");
        // The first says it; the last says what follows from it.
        if faults == 1 || faults >= MAX_FAULTS {
            self.events.send(Event::Alert {
                code: code.to_owned(),
                message: message.to_owned(),
                peer: Some(peer.to_base58()),
                nation: Some(nation),
            });
        }
        faults >= MAX_FAULTS
    }

    /// Connected peers whose certificate `trust` no longer believes.
    pub fn unbelieved(&self, trust: &Trust, now: Timestamp) -> Vec<(PeerId, String)> {
        let up: Vec<(PeerId, Signed)> = {
            let known = self.known();
            let up = known.iter().filter(|(_, entry)| !entry.links.is_empty());
            up.map(|(peer, entry)| (*peer, entry.standing.certificate.clone())).collect()
        };
        let check = |(peer, certificate): (PeerId, Signed)| {
            let error = trust.verify_node(&certificate, &peer.to_base58(), now).err()?;
            Some((peer, error.to_string()))
        };
        up.into_iter().filter_map(check).collect()
    }

    /// A connection was not admitted: counted, and reported unless it was said just now.
    pub fn refused(&self, refused: Refused) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.count += 1;
        let now = Instant::now();
        refusals.reported.retain(|_, at| now.duration_since(*at) < REPEAT);
        let key = (refused.peer, refused.code);
        let quiet = refusals.reported.contains_key(&key) || refusals.reported.len() >= MAX_REPORTS;
        if !quiet {
            refusals.reported.insert(key, now);
        }
        if refusals.recent.len() >= MAX_REFUSALS {
            refusals.recent.pop_front();
        }
        refusals.recent.push_back(refused.clone());
        drop(refusals);
        if quiet {
            return;
        }
        tracing::warn!(peer = %refused.peer, address = %refused.address, code = refused.code, "{}", refused.message);
        self.events.send(Event::Alert {
            code: if refused.theirs { "refused_by_peer" } else { "peer_refused" }.to_owned(),
            message: refused.message,
            peer: Some(refused.peer.to_base58()),
            nation: refused.nation,
        });
    }

    /// How many connections were not admitted since the start.
    pub fn refused_count(&self) -> u64 {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// The latest of them, oldest first.
    pub fn recent_refusals(&self) -> Vec<Refused> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).recent.iter().cloned().collect()
    }
}

/// The remote address; of a circuit that the peer opened, the relay's with the peer behind it.
fn address_of(point: &ConnectedPoint) -> Multiaddr {
    match point {
        ConnectedPoint::Listener { local_addr, send_back_addr } if point.is_relayed() => {
            local_addr.iter().chain(send_back_addr.iter()).collect()
        }
        _ => point.get_remote_address().clone(),
    }
}

fn capability(capability: &Capability) -> Option<String> {
    match capability {
        Capability::Fetch => Some("fetch".to_owned()),
        Capability::Serve => Some("serve".to_owned()),
        Capability::Unknown => None,
    }
}
