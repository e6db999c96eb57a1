//! The task's part in getting through NATs: slots at relays, what peers see and tried, and closing circuits that a direct
//! connection has replaced.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, Swarm, relay};
use tokio::sync::oneshot;

use super::behaviour::{Behaviour, BehaviourEvent};
use super::relay::Shares;
use super::task::innermost;
use crate::peers::PeerBook;
use crate::reach::{ReachBook, RelayState, Relaying, ip_of, is_circuit};

/// A circuit is closed when a direct connection to its peer has held for so long: both sides then have one. Transfers that
/// began on the circuit go on over the direct connection.
const REPLACED: Duration = Duration::from_secs(3);

type Reply = oneshot::Sender<Result<(), String>>;

/// A slot at a relay, held or asked for.
struct Slot {
    relay: PeerId,
    held: bool,
    reply: Option<Reply>,
}

/// What the task remembers of it.
pub(super) struct Nat {
    reach: Arc<ReachBook>,
    shares: Option<Arc<Shares>>,
    /// Listened addresses are announced as external ones.
    listens_in_public: bool,
    slots: HashMap<ListenerId, Slot>,
}

impl Nat {
    pub(super) fn new(reach: Arc<ReachBook>, shares: Option<Arc<Shares>>, listens_in_public: bool) -> Self {
        if shares.is_some() {
            reach.relaying(Relaying::default());
        }
        Self { reach, shares, listens_in_public, slots: HashMap::new() }
    }

    /// Asks a relay for a slot unless one is held.
    pub(super) fn reserve(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        relay: PeerId,
        address: Multiaddr,
        reply: Reply,
    ) {
        match self.slots.values_mut().find(|slot| slot.relay == relay) {
            Some(slot) if slot.held => {
                let _ = reply.send(Ok(()));
            }
            Some(slot) => slot.reply = Some(reply),
            None => match swarm.listen_on(address.with(Protocol::P2p(relay)).with(Protocol::P2pCircuit)) {
                Ok(id) => {
                    self.slots.insert(id, Slot { relay, held: false, reply: Some(reply) });
                }
                Err(error) => {
                    let _ = reply.send(Err(innermost(&error)));
                }
            },
        }
    }

    /// A listener is gone; whether it was a slot at a relay.
    pub(super) fn listener_closed(&mut self, id: ListenerId, why: Option<String>) -> bool {
        let Some(slot) = self.slots.remove(&id) else { return false };
        let why = why.unwrap_or_else(|| "the connection to it was lost".to_owned());
        self.reach.relay(slot.relay, RelayState::Failed, Some(why.clone()));
        if let Some(reply) = slot.reply {
            let _ = reply.send(Err(why));
        }
        true
    }

    /// This node listens at `address`.
    pub(super) fn listening(&self, swarm: &mut Swarm<Behaviour>, address: &Multiaddr) {
        let outside = ip_of(address).is_some_and(|ip| !ip.is_loopback());
        if self.listens_in_public && outside && !is_circuit(address) {
            self.reach.configured(address);
            swarm.add_external_address(address.clone());
        }
    }

    /// A peer that this node dialled directly sees it at `address`: from the listening port, so that this is the address to
    /// punch holes with.
    pub(super) fn observed(&self, swarm: &mut Swarm<Behaviour>, address: Multiaddr) {
        if ip_of(&address).is_some() && !is_circuit(&address) {
            self.reach.observed(&address);
            swarm.behaviour_mut().observed.add(address);
        }
    }

    /// What the behaviours tell.
    pub(super) fn on_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Circuits(relay::client::Event::ReservationReqAccepted {
                relay_peer_id,
                renewal,
                ..
            }) => {
                tracing::debug!(relay = %relay_peer_id, renewal, "a slot is held");
                for slot in self.slots.values_mut().filter(|slot| slot.relay == relay_peer_id) {
                    slot.held = true;
                    if let Some(reply) = slot.reply.take() {
                        let _ = reply.send(Ok(()));
                    }
                }
                self.reach.relay(relay_peer_id, RelayState::Reserved, None);
            }
            BehaviourEvent::Relay(event) => {
                if let Some(shares) = &self.shares {
                    self.reach.relaying(shares.follow(&event));
                }
            }
            BehaviourEvent::Punch(event) => match event.result {
                Ok(_) => {
                    tracing::info!(peer = %event.remote_peer_id, "a hole was punched: the connection is direct")
                }
                Err(error) => {
                    let why = innermost(&error);
                    tracing::info!(peer = %event.remote_peer_id, "no hole could be punched, the connection stays relayed: {why}");
                }
            },
            BehaviourEvent::Probe(event) => {
                let reached = event.result.is_ok();
                tracing::debug!(address = %event.tested_addr, by = %event.server, reached, "an address was tried from outside");
                self.reach.probed(&event.tested_addr, reached);
            }
            _ => {}
        }
    }

    /// Closes the circuits that direct connections have replaced.
    pub(super) fn tick(&self, swarm: &mut Swarm<Behaviour>, book: &PeerBook) {
        for (peer, id) in book.superseded(REPLACED) {
            tracing::debug!(%peer, "a direct connection has replaced the circuit");
            swarm.close_connection(id);
        }
    }
}
