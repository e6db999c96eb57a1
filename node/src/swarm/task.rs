//! The task that owns the swarm.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::gossipsub::{self, MessageAcceptance, PublishError};
use libp2p::kad::store::RecordStore;
use libp2p::kad::{self, GetProvidersOk, InboundRequest, QueryId, QueryResult};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, ping};
use tokio::sync::{mpsc, oneshot};

use super::behaviour::{Behaviour, BehaviourEvent, topic};
use super::nat::Nat;
use super::{Command, Notice, StartError};
use crate::peers::PeerBook;
use crate::reach::is_circuit;
use crate::wire::MAX_GOSSIP;

/// Longest time until every listener has its address: the system answers at once.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Addresses that are taken from one peer's identification.
const MAX_ADDRESSES: usize = 16;
/// Pings missed in a row after which a connection is closed as dead.
const MAX_MISSED_PINGS: u32 = 3;
/// Dials that somebody waits for.
const MAX_DIALS: usize = 256;
/// Questions to the table that somebody waits for.
const MAX_QUERIES: usize = 256;
/// Between two looks whether circuits are still needed.
const TICK: Duration = Duration::from_secs(1);
/// How long connections may take to close at shutdown.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

type DialReply = oneshot::Sender<Result<PeerId, String>>;

pub(super) struct Task {
    swarm: Swarm<Behaviour>,
    book: Arc<PeerBook>,
    listening: Arc<Mutex<Vec<Multiaddr>>>,
    notices: mpsc::Sender<Notice>,
    dials: HashMap<ConnectionId, DialReply>,
    queries: HashMap<QueryId, (oneshot::Sender<Vec<PeerId>>, Vec<PeerId>)>,
    nat: Nat,
}

impl Task {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        book: Arc<PeerBook>,
        listening: Arc<Mutex<Vec<Multiaddr>>>,
        notices: mpsc::Sender<Notice>,
        nat: Nat,
    ) -> Self {
        Self { swarm, book, listening, notices, dials: HashMap::new(), queries: HashMap::new(), nat }
    }

    /// Waits until each listener has an address, so that a port in use is an error at the start.
    pub(super) async fn listen(
        &mut self,
        mut waiting: Vec<(ListenerId, Multiaddr)>,
    ) -> Result<(), StartError> {
        let all = async {
            while !waiting.is_empty() {
                match self.swarm.select_next_some().await {
                    SwarmEvent::NewListenAddr { listener_id, address } => {
                        waiting.retain(|(id, _)| *id != listener_id);
                        self.add_listening(address);
                    }
                    SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                        if let Some((_, address)) = waiting.iter().find(|(id, _)| *id == listener_id) {
                            let why = reason.err().map_or("closed".to_owned(), |error| error.to_string());
                            return Err(StartError::Listen { address: address.clone(), why });
                        }
                    }
                    other => self.on_event(other),
                }
            }
            Ok(())
        };
        match tokio::time::timeout(LISTEN_TIMEOUT, all).await {
            Ok(result) => result,
            Err(_) => Err(StartError::Protocol("no listener got an address in time".to_owned())),
        }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                command = commands.recv() => match command {
                    Some(Command::Shutdown) | None => break,
                    Some(command) => self.on_command(command),
                },
                _ = tick.tick() => self.nat.tick(&mut self.swarm, &self.book),
            }
        }
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // An error says that it is gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self.swarm.connected_peers().next().is_some() {
                let event = self.swarm.select_next_some().await;
                self.on_event(event);
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            tracing::debug!("some peers did not close in time");
        }
    }

    fn add_listening(&mut self, address: Multiaddr) {
        tracing::info!(%address, "listening");
        self.nat.listening(&mut self.swarm, &address);
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if !listening.contains(&address) {
            listening.push(address);
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Dial { peer, addresses, reply } => self.dial(peer, addresses, reply),
            Command::Reserve { relay, address, reply } => {
                self.nat.reserve(&mut self.swarm, relay, address, reply);
            }
            Command::Disconnect(peer) => {
                let _ = self.swarm.disconnect_peer_id(peer);
            }
            Command::Publish(data) => self.publish(data),
            Command::Judge { id, from, verdict } => {
                self.swarm.behaviour_mut().gossip.report_message_validation_result(&id, &from, verdict);
            }
            Command::Provide(key) => {
                if let Err(error) = self.swarm.behaviour_mut().kad.start_providing(key) {
                    tracing::warn!("a release could not be announced to the provider table: {error}");
                }
            }
            Command::StopProviding(key) => self.swarm.behaviour_mut().kad.stop_providing(&key),
            Command::Providers { key, reply } => {
                // Beyond the limit the question is dropped, which its asker takes for no answer.
                if self.queries.len() < MAX_QUERIES {
                    let id = self.swarm.behaviour_mut().kad.get_providers(key);
                    self.queries.insert(id, (reply, Vec::new()));
                }
            }
            // Ends the loop before it gets here.
            Command::Shutdown => {}
        }
    }

    fn dial(&mut self, peer: Option<PeerId>, addresses: Vec<Multiaddr>, reply: DialReply) {
        if let Some(peer) = peer
            && self.swarm.is_connected(&peer)
        {
            let _ = reply.send(Ok(peer));
            return;
        }
        // A person's dial is not refused because one is under way by itself: that one may be to an address of yesterday.
        let options = match (peer, addresses.is_empty()) {
            (Some(peer), true) => DialOpts::peer_id(peer).condition(PeerCondition::Disconnected).build(),
            (Some(peer), false) => {
                DialOpts::peer_id(peer).condition(PeerCondition::Disconnected).addresses(addresses).build()
            }
            (None, _) => match addresses.into_iter().next() {
                Some(address) => DialOpts::unknown_peer_id().address(address).build(),
                None => {
                    let _ = reply.send(Err("no address to dial".to_owned()));
                    return;
                }
            },
        };
        let id = options.connection_id();
        if self.dials.len() >= MAX_DIALS {
            let _ = reply.send(Err("too many connections are being opened; try again later".to_owned()));
            return;
        }
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials.insert(id, reply);
            }
            Err(error) => {
                let _ = reply.send(Err(describe(&error)));
            }
        }
    }

    fn publish(&mut self, data: Vec<u8>) {
        if data.len() > MAX_GOSSIP {
            tracing::warn!(
                bytes = data.len(),
                "an announcement is too long to gossip; peers learn of it when they synchronise"
            );
            return;
        }
        match self.swarm.behaviour_mut().gossip.publish(topic(), data) {
            Ok(_) | Err(PublishError::Duplicate | PublishError::NoPeersSubscribedToTopic) => {}
            Err(error) => tracing::warn!("an announcement could not be gossiped: {error}"),
        }
    }

    fn notify(&self, notice: Notice) {
        if self.notices.try_send(notice).is_err() {
            tracing::warn!(
                "the node is too busy for news of its network; it catches up at the next synchronisation"
            );
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. }
                if self.book.is_shunned(&peer_id) =>
            {
                tracing::debug!(peer = %peer_id, "kept out for what it did");
                self.swarm.close_connection(connection_id);
                if let Some(reply) = self.dials.remove(&connection_id) {
                    let _ = reply.send(Err("it is kept out for a while for what it did".to_owned()));
                }
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                if self.book.up(peer_id, connection_id, &endpoint) {
                    self.notify(Notice::Up(peer_id));
                }
                // A punched hole is not an address at which the peer is found.
                if matches!(endpoint, ConnectedPoint::Dialer { role_override: Endpoint::Dialer, .. }) {
                    let address = endpoint.get_remote_address().clone();
                    self.swarm.behaviour_mut().kad.add_address(&peer_id, address);
                }
                if let Some(reply) = self.dials.remove(&connection_id) {
                    let _ = reply.send(Ok(peer_id));
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                if let Some(cause) = cause {
                    tracing::debug!(peer = %peer_id, "connection closed: {cause}");
                }
                if self.book.down(peer_id, connection_id) {
                    self.notify(Notice::Down(peer_id));
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                let why = describe(&error);
                tracing::debug!(peer = ?peer_id, "dial failed: {why}");
                if let Some(reply) = self.dials.remove(&connection_id) {
                    let _ = reply.send(Err(why));
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(from = %send_back_addr, "inbound connection failed: {error}");
            }
            SwarmEvent::NewListenAddr { address, .. } => self.add_listening(address),
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listening
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .retain(|other| *other != address);
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!("a listener failed: {error}"),
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                self.listening
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .retain(|address| !addresses.contains(address));
                let why = reason.as_ref().err().map(|error| innermost(error));
                if !self.nat.listener_closed(listener_id, why)
                    && let Err(error) = reason
                {
                    tracing::error!(?addresses, "a listener closed: {error}");
                }
            }
            // Found by probing, or a slot at a relay: whoever is connected learns of it now rather than in minutes.
            SwarmEvent::ExternalAddrConfirmed { .. } => {
                let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
                self.swarm.behaviour_mut().identify.push(peers);
            }
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received { connection_id, peer_id, info }) => {
                if self.book.dialled_directly(&peer_id, connection_id) {
                    self.nat.observed(&mut self.swarm, info.observed_addr);
                }
                self.learn_addresses(peer_id, info.listen_addrs);
            }
            BehaviourEvent::Ping(ping::Event { peer, connection, result }) => {
                let missed = self.book.pinged(&peer, result.ok());
                if missed >= MAX_MISSED_PINGS {
                    tracing::warn!(%peer, "no answer to {MAX_MISSED_PINGS} pings; the connection is closed");
                    self.swarm.close_connection(connection);
                }
            }
            BehaviourEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message }) => {
                let notice =
                    Notice::Gossip { id: message_id.clone(), from: propagation_source, data: message.data };
                if self.notices.try_send(notice).is_err() {
                    let verdict = MessageAcceptance::Ignore;
                    let gossip = &mut self.swarm.behaviour_mut().gossip;
                    gossip.report_message_validation_result(&message_id, &propagation_source, verdict);
                }
            }
            BehaviourEvent::Kad(event) => self.on_table(event),
            event => self.nat.on_event(event),
        }
    }

    fn on_table(&mut self, event: kad::Event) {
        match event {
            kad::Event::InboundRequest { request: InboundRequest::AddProvider { record: Some(record) } } => {
                if let Err(error) = self.swarm.behaviour_mut().kad.store_mut().add_provider(record) {
                    tracing::debug!("a provider record was not kept: {error}");
                }
            }
            kad::Event::OutboundQueryProgressed {
                id,
                result: QueryResult::GetProviders(result),
                step,
                ..
            } => {
                let own = *self.swarm.local_peer_id();
                if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = result
                    && let Some((_, found)) = self.queries.get_mut(&id)
                {
                    for peer in providers {
                        if peer != own && !found.contains(&peer) && found.len() < MAX_QUERIES {
                            found.push(peer);
                        }
                    }
                }
                if step.last
                    && let Some((reply, found)) = self.queries.remove(&id)
                {
                    let _ = reply.send(found);
                }
            }
            _ => {}
        }
    }

    /// Keeps where a peer says that it listens. Loopback addresses count only where the peer is on this machine, circuits
    /// only through relays that are nodes of pinned nations: others would not let this node in.
    fn learn_addresses(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let local = self.book.list().iter().any(|info| {
            info.peer_id == peer.to_base58()
                && info.address.parse().is_ok_and(|address| is_loopback(&address))
        });
        let table = &mut self.swarm.behaviour_mut().kad;
        for address in
            addresses.into_iter().filter(|address| local || !is_loopback(address)).take(MAX_ADDRESSES)
        {
            let relay = address.iter().take_while(|part| *part != Protocol::P2pCircuit).last();
            if is_circuit(&address)
                && !matches!(relay, Some(Protocol::P2p(relay)) if self.book.nation(&relay).is_some())
            {
                continue;
            }
            table.add_address(&peer, address);
        }
    }
}

fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}

/// What a failed dial means, the innermost reason of each address included.
fn describe(error: &DialError) -> String {
    match error {
        DialError::Transport(errors) => {
            let each: Vec<String> =
                errors.iter().map(|(address, error)| format!("{address}: {}", innermost(error))).collect();
            each.join("; ")
        }
        DialError::WrongPeerId { obtained, address } => {
            format!(
                "{address} answered as peer {obtained}, not as the one expected; check the `/p2p/` part of the address"
            )
        }
        DialError::NoAddresses => "no address of this peer is known".to_owned(),
        other => innermost(other),
    }
}

pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
