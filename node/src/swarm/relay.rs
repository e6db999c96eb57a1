//! Relaying between nodes that can't reach each other (circuit relay v2), with limits that fit weights.
//!
//! A relay sees ciphertext only: the two ends of a circuit run TLS, the muxer and the hello between themselves. It is used by
//! nodes of pinned nations alone, since nobody else gets a connection. The shares are counted by nation, because a nation
//! makes as many peers as it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libp2p::PeerId;
use libp2p::core::Multiaddr;
use libp2p::relay::{Behaviour, Config, Event, Status};
use registry::Nation;

use crate::config::P2p;
use crate::peers::PeerBook;
use crate::reach::Relaying;

/// Slots over all nations: each is a connection that is open anyway and an entry in a table.
const MAX_RESERVATIONS: usize = 512;
/// Slots of one nation: more nodes behind NATs than a nation names to one relay.
const MAX_NATION_RESERVATIONS: usize = 64;
/// Slots of one peer, over its connections.
const MAX_PEER_RESERVATIONS: usize = 2;
/// How long a slot is held; its holder renews it before. Short enough that the dead go within the hour.
const RESERVATION: Duration = Duration::from_secs(3600);
/// Circuits over all nations: each costs two copies of every byte, so that more would only share the same line.
const MAX_CIRCUITS: usize = 128;
/// Circuits that one peer may open: one for each peer that it fetches from at once, by default.
const MAX_PEER_CIRCUITS: usize = 16;
/// The longest time that the protocol can tell of a circuit, in seconds; libp2p panics above it.
const MAX_SECS: u64 = u32::MAX as u64;

/// What is relayed now.
#[derive(Debug, Default)]
struct Load {
    reserved: BTreeSet<PeerId>,
    circuits: BTreeMap<(PeerId, PeerId), usize>,
}

/// Counts what is relayed, by nation.
#[derive(Debug)]
pub(super) struct Shares {
    load: Mutex<Load>,
    book: Arc<PeerBook>,
    nation_circuits: usize,
}

impl Shares {
    fn load(&self) -> MutexGuard<'_, Load> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_of(&self, peer: &PeerId, nation: &Nation) -> bool {
        self.book.nation(peer).is_some_and(|other| other == *nation)
    }

    /// Whether a peer may have a slot: its own is always renewed.
    fn may_reserve(&self, peer: &PeerId) -> bool {
        let Some(nation) = self.book.nation(peer) else { return false };
        let load = self.load();
        load.reserved.contains(peer)
            || load.reserved.iter().filter(|other| self.is_of(other, &nation)).count()
                < MAX_NATION_RESERVATIONS
    }

    /// Whether a peer may open a circuit.
    fn may_open(&self, peer: &PeerId) -> bool {
        let Some(nation) = self.book.nation(peer) else { return false };
        let load = self.load();
        let own = load.circuits.iter().filter(|((from, _), _)| self.is_of(from, &nation));
        own.map(|(_, count)| count).sum::<usize>() < self.nation_circuits
    }

    /// Follows what the relay says of itself; answers what is relayed now.
    pub(super) fn follow(&self, event: &Event) -> Relaying {
        let mut load = self.load();
        match event {
            Event::ReservationReqAccepted { src_peer_id, renewed } => {
                if !renewed {
                    tracing::info!(peer = %src_peer_id, nation = ?self.book.nation(src_peer_id), "a peer is reached through this relay");
                }
                load.reserved.insert(*src_peer_id);
            }
            Event::ReservationReqDenied { src_peer_id, status } => {
                tracing::warn!(peer = %src_peer_id, nation = ?self.book.nation(src_peer_id), "a slot was refused: {status:?}");
            }
            // Said of each connection that closes, with a slot or without.
            Event::ReservationClosed { src_peer_id } if !self.book.is_connected(src_peer_id) => {
                load.reserved.remove(src_peer_id);
            }
            Event::ReservationClosed { .. } => {}
            Event::ReservationTimedOut { src_peer_id } => {
                load.reserved.remove(src_peer_id);
            }
            Event::CircuitReqAccepted { src_peer_id, dst_peer_id } => {
                tracing::debug!(from = %src_peer_id, to = %dst_peer_id, "a circuit is open");
                *load.circuits.entry((*src_peer_id, *dst_peer_id)).or_default() += 1;
            }
            Event::CircuitReqDenied { src_peer_id, dst_peer_id, status } => {
                tracing::debug!(from = %src_peer_id, to = %dst_peer_id, "a circuit was refused: {status:?}");
            }
            Event::CircuitClosed { src_peer_id, dst_peer_id, error } => {
                match error {
                    // What libp2p says at either limit, and when one of the two ends goes.
                    Some(why) => {
                        tracing::info!(from = %src_peer_id, to = %dst_peer_id, "a circuit was cut: {why}");
                    }
                    None => tracing::debug!(from = %src_peer_id, to = %dst_peer_id, "a circuit is closed"),
                }
                let key = (*src_peer_id, *dst_peer_id);
                if let Some(count) = load.circuits.get_mut(&key) {
                    *count -= 1;
                    if *count == 0 {
                        load.circuits.remove(&key);
                    }
                }
            }
            _ => {}
        }
        Relaying { reservations: load.reserved.len(), circuits: load.circuits.values().sum() }
    }
}

/// The relay that `settings` asks for.
pub(super) fn build(own: PeerId, settings: &P2p, book: Arc<PeerBook>) -> (Behaviour, Arc<Shares>) {
    let nation_circuits = settings.relay_nation_circuits as usize;
    let shares = Arc::new(Shares { load: Mutex::default(), book, nation_circuits });
    // libp2p's limits of the rate of requests by peer and by address stay.
    let mut config = Config {
        max_reservations: MAX_RESERVATIONS,
        max_reservations_per_peer: MAX_PEER_RESERVATIONS,
        reservation_duration: RESERVATION,
        max_circuits: MAX_CIRCUITS,
        max_circuits_per_peer: MAX_PEER_CIRCUITS,
        max_circuit_duration: Duration::from_secs(
            (u64::from(settings.relay_circuit_hours) * 3600).min(MAX_SECS),
        ),
        max_circuit_bytes: u64::from(settings.relay_circuit_mib) << 20,
        ..Config::default()
    };
    let reserving = Arc::clone(&shares);
    config.reservation_rate_limiters.push(Box::new(
        move |peer: PeerId, _: &Multiaddr, _: std::time::Instant| reserving.may_reserve(&peer),
    ));
    let opening = Arc::clone(&shares);
    config
        .circuit_src_rate_limiters
        .push(Box::new(move |peer: PeerId, _: &Multiaddr, _: std::time::Instant| opening.may_open(&peer)));
    let mut behaviour = Behaviour::new(own, config);
    // The operator says that this node is reached; waiting for a probe would leave its allies without a way meanwhile.
    behaviour.set_status(Some(Status::Enable));
    (behaviour, shares)
}
