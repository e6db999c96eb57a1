//! The serving side of AutoNAT v2: tells a peer which of its addresses others reach, by dialling it back.
//!
//! libp2p's own would dial whatever address it is given. Here a peer is dialled back only at the IP address that it comes
//! from, so that nobody makes this node knock at the doors of a network that only this node can see; and the
//! connection is closed as soon as its purpose is fulfilled.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::task::{Context, Poll};

use libp2p::PeerId;
use libp2p::autonat::v2::server::{self, Event};
use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};

use crate::reach::{ip_of, is_circuit};

/// Dial-backs under way at once over all peers; a further one is refused, which its asker takes for a failure.
const MAX_DIALS: usize = 64;

#[derive(Debug, thiserror::Error)]
enum Denied {
    #[error("a peer is dialled back only at the address that it comes from")]
    Elsewhere,
    #[error("{MAX_DIALS} peers are being dialled back already")]
    Busy,
}

/// A connection that only dials back.
struct Dial {
    peer: PeerId,
    address: Option<Multiaddr>,
}

/// Without the peer at its end.
fn bare(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
}

/// The behaviour.
pub(super) struct Behaviour {
    inner: server::Behaviour,
    /// Where each directly connected peer comes from.
    from: HashMap<PeerId, Vec<(ConnectionId, IpAddr)>>,
    dials: HashMap<ConnectionId, Dial>,
    close: VecDeque<(PeerId, ConnectionId)>,
}

impl Behaviour {
    pub(super) fn new() -> Self {
        Self {
            inner: server::Behaviour::default(),
            from: HashMap::new(),
            dials: HashMap::new(),
            close: VecDeque::new(),
        }
    }

    fn came_from(&mut self, id: ConnectionId, peer: PeerId, remote: &Multiaddr) {
        if let (Some(ip), false) = (ip_of(remote), is_circuit(remote)) {
            self.from.entry(peer).or_default().push((id, ip));
        }
    }

    fn forget(&mut self, id: ConnectionId, peer: PeerId) {
        self.dials.remove(&id);
        if let Some(list) = self.from.get_mut(&peer) {
            list.retain(|(other, _)| *other != id);
            if list.is_empty() {
                self.from.remove(&peer);
            }
        }
    }

    fn allowed(&self, peer: &PeerId, address: &Multiaddr) -> bool {
        let known =
            |ip: IpAddr| self.from.get(peer).is_some_and(|list| list.iter().any(|(_, one)| *one == ip));
        !is_circuit(address) && ip_of(address).is_some_and(known)
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = THandler<server::Behaviour>;
    type ToSwarm = Event;

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if let Some(Dial { peer, .. }) = self.dials.get(&id) {
            if self.dials.len() > MAX_DIALS {
                return Err(ConnectionDenied::new(Denied::Busy));
            }
            if !addresses.iter().all(|address| self.allowed(peer, address)) {
                return Err(ConnectionDenied::new(Denied::Elsewhere));
            }
            if let Some(dial) = self.dials.get_mut(&id) {
                dial.address = addresses.first().map(bare);
            }
        }
        self.inner.handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.came_from(id, peer, remote);
        self.inner.handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(id, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ConnectionClosed(closed) => self.forget(closed.connection_id, closed.peer_id),
            FromSwarm::DialFailure(failure) => {
                self.dials.remove(&failure.connection_id);
            }
            // Another behaviour denied a connection that was noted here.
            FromSwarm::ListenFailure(failure) => {
                if let Some(peer) = failure.peer_id {
                    self.forget(failure.connection_id, peer);
                }
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        if let Some((peer_id, id)) = self.close.pop_front() {
            return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(id) });
        }
        let action = std::task::ready!(self.inner.poll(cx));
        match &action {
            ToSwarm::Dial { opts } => {
                if let Some(peer) = opts.get_peer_id() {
                    self.dials.insert(opts.connection_id(), Dial { peer, address: None });
                }
            }
            ToSwarm::GenerateEvent(event) => {
                let tested = Some(bare(&event.tested_addr));
                let done =
                    self.dials.iter().filter(|(_, dial)| dial.peer == event.client && dial.address == tested);
                self.close.extend(done.map(|(id, dial)| (dial.peer, *id)));
            }
            _ => {}
        }
        Poll::Ready(action)
    }
}
