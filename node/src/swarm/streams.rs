//! Streams of our own protocols: inbound ones come out of bounded queues, outbound ones are opened on request.
//!
//! `libp2p-stream` loses bursts of inbound streams behind a queue of length zero; here each protocol has a queue, each
//! peer a limit, and what is over is reset and counted.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, Stream, StreamProtocol};
use tokio::sync::{mpsc, oneshot};

use crate::reach::is_circuit;
use crate::wire::{
    BLOB_PROTOCOL, LOG_PROTOCOL, MAX_BLOB_STREAMS, MAX_LOG_STREAMS, MAX_SYNC_STREAMS, SYNC_PROTOCOL,
};

/// Inbound streams of one protocol that wait to be served, over all peers.
const QUEUE: usize = 256;
/// Requests for outbound streams that wait on one connection.
const OPENING: usize = 64;
/// Longest time to open a stream: a round trip for the choice of protocol, on a busy connection.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection younger than that is not used while there is another: it may be one that dials back and goes.
const SETTLED: Duration = Duration::from_secs(2);
/// How long content waits, on a fresh connection through a relay, for a direct one: a hole is punched by then or not at all soon.
const PUNCHED: Duration = Duration::from_secs(5);
/// Between two looks whether there is one.
const PUNCHED_CHECK: Duration = Duration::from_millis(100);

/// Our protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// [`SYNC_PROTOCOL`].
    Sync,
    /// [`BLOB_PROTOCOL`].
    Blob,
    /// [`LOG_PROTOCOL`].
    Log,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Sync, Self::Blob, Self::Log];

    const fn name(self) -> StreamProtocol {
        StreamProtocol::new(match self {
            Self::Sync => SYNC_PROTOCOL,
            Self::Blob => BLOB_PROTOCOL,
            Self::Log => LOG_PROTOCOL,
        })
    }

    /// Streams of one peer that are served at once.
    const fn limit(self) -> usize {
        match self {
            Self::Sync => MAX_SYNC_STREAMS,
            Self::Blob => MAX_BLOB_STREAMS,
            Self::Log => MAX_LOG_STREAMS,
        }
    }
}

/// Why no stream could be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No connection.
    #[error("peer {0} is not connected")]
    NotConnected(PeerId),
    /// Too many opens at once.
    #[error("too many streams to peer {0} are being opened; try again later")]
    Busy(PeerId),
    /// The peer does not speak it.
    #[error("peer {0} does not speak this protocol; its version may be older or newer")]
    Unsupported(PeerId),
    /// Only through a relay, and the settings keep content off relays.
    #[error("peer {0} is connected through a relay only, and `p2p.relay_transfers` is off here or there")]
    Relayed(PeerId),
    /// It did not answer, or the connection broke.
    #[error("peer {0} did not open the stream: {1}")]
    Failed(PeerId, String),
}

/// An inbound stream.
#[derive(Debug)]
pub struct Inbound {
    /// Who opened it.
    pub peer: PeerId,
    /// The stream.
    pub stream: Stream,
    /// Counts towards the peer's limit while it is held.
    pub slot: Slot,
}

/// A place among a peer's served streams; given back when dropped.
#[derive(Debug)]
pub struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(counter: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let add = |now: usize| (now < limit).then_some(now + 1);
        counter.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).ok()?;
        Some(Self(Arc::clone(counter)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

type Reply = oneshot::Sender<Result<Stream, OpenError>>;

#[derive(Debug)]
struct Open {
    protocol: Protocol,
    reply: Reply,
}

/// Where a connection takes requests for streams.
#[derive(Debug)]
struct Link {
    id: ConnectionId,
    relayed: bool,
    since: Instant,
    requests: mpsc::Sender<Open>,
}

/// The connection to use: a direct one before one through a relay; the newest that has settled, since an older one may be
/// closing; else the oldest.
fn best(links: &[Link]) -> Option<&Link> {
    let direct: Vec<&Link> = links.iter().filter(|link| !link.relayed).collect();
    let eligible = if direct.is_empty() { links.iter().collect() } else { direct };
    let settled = eligible.iter().rev().find(|link| link.since.elapsed() >= SETTLED);
    settled.or(eligible.first()).copied()
}

/// Each peer's connections, the oldest first.
type Connections = HashMap<PeerId, Vec<Link>>;

/// Both ends share it; a lock is never held across an await.
#[derive(Debug, Default)]
struct Shared {
    connections: Mutex<Connections>,
    /// Inbound streams reset because a limit was reached.
    reset: AtomicU64,
    /// Content stays off connections through relays.
    direct_only: bool,
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens streams. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Control(Arc<Shared>);

impl Control {
    /// Opens a stream to a connected peer.
    pub async fn open(&self, peer: PeerId, protocol: Protocol) -> Result<Stream, OpenError> {
        if protocol == Protocol::Blob {
            self.wait_for_direct(peer).await;
        }
        let (reply, answer) = oneshot::channel();
        {
            let connections = self.0.connections();
            let link =
                connections.get(&peer).and_then(|links| best(links)).ok_or(OpenError::NotConnected(peer))?;
            if link.relayed && self.0.direct_only && protocol == Protocol::Blob {
                return Err(OpenError::Relayed(peer));
            }
            link.requests.try_send(Open { protocol, reply }).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => OpenError::Busy(peer),
                mpsc::error::TrySendError::Closed(_) => OpenError::NotConnected(peer),
            })?;
        }
        match tokio::time::timeout(OPEN_TIMEOUT, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(OpenError::NotConnected(peer)),
            Err(_) => Err(OpenError::Failed(peer, format!("no answer in {} s", OPEN_TIMEOUT.as_secs()))),
        }
    }

    /// Weights can wait a moment: a hole is punched as soon as a circuit is up.
    async fn wait_for_direct(&self, peer: PeerId) {
        let hopeful = || {
            let connections = self.0.connections();
            let link = connections.get(&peer).and_then(|links| best(links));
            link.is_some_and(|link| link.relayed && link.since.elapsed() < PUNCHED)
        };
        while hopeful() {
            tokio::time::sleep(PUNCHED_CHECK).await;
        }
    }

    /// Inbound streams that were reset because a limit was reached.
    pub fn reset_count(&self) -> u64 {
        self.0.reset.load(Ordering::Relaxed)
    }
}

/// Where inbound streams of each protocol come out.
#[derive(Debug)]
pub struct Incoming {
    /// Feeds asked for.
    pub sync: mpsc::Receiver<Inbound>,
    /// Content asked for.
    pub blob: mpsc::Receiver<Inbound>,
    /// Logs asked for.
    pub log: mpsc::Receiver<Inbound>,
}

/// The behaviour.
#[derive(Debug)]
pub struct Behaviour {
    shared: Arc<Shared>,
    sync: mpsc::Sender<Inbound>,
    blob: mpsc::Sender<Inbound>,
    log: mpsc::Sender<Inbound>,
    /// Served streams by peer, so that several connections of one peer share its limit.
    served: HashMap<PeerId, [Arc<AtomicUsize>; 3]>,
}

impl Behaviour {
    /// A behaviour, the handle that opens streams, and the queues of inbound ones. With `direct_only`, content is neither
    /// fetched nor served through relays.
    pub fn new(direct_only: bool) -> (Self, Control, Incoming) {
        let control = Control(Arc::new(Shared { direct_only, ..Shared::default() }));
        let (sync, sync_queue) = mpsc::channel(QUEUE);
        let (blob, blob_queue) = mpsc::channel(QUEUE);
        let (log, log_queue) = mpsc::channel(QUEUE);
        let behaviour = Self { shared: Arc::clone(&control.0), sync, blob, log, served: HashMap::new() };
        (behaviour, control, Incoming { sync: sync_queue, blob: blob_queue, log: log_queue })
    }

    fn handler(&mut self, id: ConnectionId, peer: PeerId, relayed: bool) -> Handler {
        let (sender, requests) = mpsc::channel(OPENING);
        let link = Link { id, relayed, since: Instant::now(), requests: sender };
        self.shared.connections().entry(peer).or_default().push(link);
        Handler {
            peer,
            relayed,
            requests,
            shared: Arc::clone(&self.shared),
            sync: self.sync.clone(),
            blob: self.blob.clone(),
            log: self.log.clone(),
            served: self.served.entry(peer).or_default().clone(),
        }
    }

    fn forget(&mut self, id: ConnectionId, peer: PeerId) {
        let mut connections = self.shared.connections();
        if let Some(list) = connections.get_mut(&peer) {
            list.retain(|link| link.id != id);
            if list.is_empty() {
                connections.remove(&peer);
                self.served.remove(&peer);
            }
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(id, peer, is_circuit(local)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(id, peer, is_circuit(address)))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(closed) => self.forget(closed.connection_id, closed.peer_id),
            // Another behaviour may deny a connection for which a handler was made already.
            FromSwarm::DialFailure(failure) => {
                if let Some(peer) = failure.peer_id {
                    self.forget(failure.connection_id, peer);
                }
            }
            FromSwarm::ListenFailure(failure) => {
                if let Some(peer) = failure.peer_id {
                    self.forget(failure.connection_id, peer);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// One of our protocols on a new stream.
#[derive(Debug, Clone)]
pub struct Offer(Vec<Protocol>);

/// A protocol as multistream-select names it.
#[derive(Debug, Clone)]
pub struct Named(Protocol, StreamProtocol);

impl AsRef<str> for Named {
    fn as_ref(&self) -> &str {
        self.1.as_ref()
    }
}

impl UpgradeInfo for Offer {
    type Info = Named;
    type InfoIter = std::vec::IntoIter<Named>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.iter().map(|&protocol| Named(protocol, protocol.name())).collect::<Vec<_>>().into_iter()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (Protocol, Stream);
    type Error = Infallible;
    type Future = future::Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, info: Named) -> Self::Future {
        future::ready(Ok((info.0, stream)))
    }
}

impl OutboundUpgrade<Stream> for Offer {
    type Output = Stream;
    type Error = Infallible;
    type Future = future::Ready<Result<Stream, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: Named) -> Self::Future {
        future::ready(Ok(stream))
    }
}

/// One connection's part.
#[derive(Debug)]
pub struct Handler {
    peer: PeerId,
    relayed: bool,
    requests: mpsc::Receiver<Open>,
    shared: Arc<Shared>,
    sync: mpsc::Sender<Inbound>,
    blob: mpsc::Sender<Inbound>,
    log: mpsc::Sender<Inbound>,
    served: [Arc<AtomicUsize>; 3],
}

impl Handler {
    fn accept(&self, protocol: Protocol, stream: Stream) {
        let [sync, blob, log] = &self.served;
        let (counter, queue) = match protocol {
            Protocol::Sync => (sync, &self.sync),
            Protocol::Blob => (blob, &self.blob),
            Protocol::Log => (log, &self.log),
        };
        let taken = Slot::take(counter, protocol.limit())
            .is_some_and(|slot| queue.try_send(Inbound { peer: self.peer, stream, slot }).is_ok());
        if !taken {
            self.shared.reset.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(peer = %self.peer, ?protocol, "a stream over the limit was reset");
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, ()> {
        let direct_only = self.relayed && self.shared.direct_only;
        let offered =
            Protocol::ALL.into_iter().filter(|protocol| !direct_only || *protocol != Protocol::Blob);
        SubstreamProtocol::new(Offer(offered.collect()), ())
    }

    /// Only nodes of pinned nations get here; their connections are kept for the next announcement.
    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        match self.requests.poll_recv(cx) {
            Poll::Ready(Some(Open { protocol, reply })) => {
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                    protocol: SubstreamProtocol::new(Offer(vec![protocol]), reply).with_timeout(OPEN_TIMEOUT),
                })
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Reply>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (protocol, stream),
                ..
            }) => self.accept(protocol, stream),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: reply,
            }) => {
                // Whoever asked may have given up; the stream is then dropped and closed.
                let _ = reply.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: reply, error }) => {
                let error = match error {
                    StreamUpgradeError::NegotiationFailed if self.relayed => OpenError::Relayed(self.peer),
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported(self.peer),
                    StreamUpgradeError::Timeout => {
                        OpenError::Failed(self.peer, "no answer in time".to_owned())
                    }
                    StreamUpgradeError::Io(error) => OpenError::Failed(self.peer, error.to_string()),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = reply.send(Err(error));
            }
            _ => {}
        }
    }
}
