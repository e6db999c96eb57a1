//! Addresses under which peers see this node, as candidates for punching holes.
//!
//! libp2p's identify offers some too, but puts the listening port in the place of every port that it does not know. Behind a
//! NAT that maps to other ports, which most do, these lead nowhere; what the peer saw is right, because connections are
//! dialled from the listening port.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::task::{Context, Poll, Waker};

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};

/// Candidates that wait to be told to the other behaviours: one for each connection that comes up, and they go at once.
const MAX_WAITING: usize = 256;

/// The behaviour.
#[derive(Debug, Default)]
pub(super) struct Behaviour {
    waiting: VecDeque<Multiaddr>,
    waker: Option<Waker>,
}

impl Behaviour {
    /// A peer sees this node at `address`.
    pub(super) fn add(&mut self, address: Multiaddr) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(address);
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        if let Some(address) = self.waiting.pop_front() {
            return Poll::Ready(ToSwarm::NewExternalAddrCandidate(address));
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
