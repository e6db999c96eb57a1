//! How this node is reached from outside: what AutoNAT found, which addresses others see, and the slots that it holds at relays.
//!
//! Nothing here is contacted that the settings do not name: the relays are those of `p2p.relays`, the probes go to peers that
//! are connected anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::discovery;
use crate::node::Node;
use crate::swarm::Command;

/// Addresses that are remembered of each kind: a node has a few, and peers may claim to see any number.
const MAX_ADDRESSES: usize = 32;
/// First pause after a relay gave no slot; it doubles up to `p2p.redial_secs`.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How often it is checked that a slot is still held.
const CHECK: Duration = Duration::from_secs(1);
/// Longest time for a relay to answer a request for a slot: its connection is up by then.
const RESERVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait, before a circuit is dialled, for a peer to tell under which address it sees this node. Without one there
/// is nothing to punch a hole with; the circuit works all the same.
const OBSERVED_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks whether one did.
const OBSERVED_CHECK: Duration = Duration::from_millis(50);

/// Whether others can open connections to this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reachability {
    /// Nobody has tried yet.
    #[default]
    Unknown,
    /// An address is configured as external, or a peer has dialled one back.
    Public,
    /// Peers have tried to dial back, and none came through.
    BehindNat,
}

/// How it stands with a relay of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayState {
    /// A slot is being asked for.
    Asking,
    /// This node is reached through it.
    Reserved,
    /// It can't be reached, or gives no slot; it is asked again.
    Failed,
}

/// A relay of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayInfo {
    /// Its peer identifier.
    pub peer_id: String,
    /// How it stands.
    pub state: RelayState,
    /// Why it failed.
    pub why: Option<String>,
}

/// What this node relays for others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relaying {
    /// Peers that hold a slot here.
    pub reservations: usize,
    /// Circuits that are open.
    pub circuits: usize,
}

/// How this node is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Whether others can open connections to it.
    pub reachability: Reachability,
    /// Addresses that are configured as external, or that a peer has dialled back.
    pub confirmed: Vec<String>,
    /// Addresses under which peers see it.
    pub observed: Vec<String>,
    /// The relays of its settings.
    pub relays: Vec<RelayInfo>,
    /// What it relays, if it is a relay.
    pub relaying: Option<Relaying>,
}

#[derive(Debug, Default)]
struct State {
    configured: BTreeSet<Multiaddr>,
    probed: BTreeMap<Multiaddr, bool>,
    observed: BTreeSet<Multiaddr>,
    relays: BTreeMap<PeerId, (RelayState, Option<String>)>,
    relaying: Option<Relaying>,
}

/// Remembers how this node is reached. The swarm writes, whoever asks reads.
#[derive(Debug, Default)]
pub struct ReachBook(Mutex<State>);

impl ReachBook {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An address that the settings call external.
    pub(crate) fn configured(&self, address: &Multiaddr) {
        self.state().configured.insert(address.clone());
    }

    /// A peer tried to dial `address`, and came through or not.
    pub(crate) fn probed(&self, address: &Multiaddr, reached: bool) {
        let mut state = self.state();
        if state.probed.len() < MAX_ADDRESSES || state.probed.contains_key(address) {
            state.probed.insert(address.clone(), reached);
        }
    }

    /// A peer sees this node at `address`.
    pub(crate) fn observed(&self, address: &Multiaddr) {
        let mut state = self.state();
        if state.observed.len() < MAX_ADDRESSES {
            state.observed.insert(address.clone());
        }
    }

    /// How it stands with a relay.
    pub(crate) fn relay(&self, relay: PeerId, now: RelayState, why: Option<String>) {
        let before = self.state().relays.insert(relay, (now, why.clone()));
        if before.is_none_or(|(before, _)| before != now) {
            match (now, why) {
                (RelayState::Asking, _) => {}
                (RelayState::Reserved, _) => tracing::info!(%relay, "this node is reached through a relay"),
                (RelayState::Failed, why) => {
                    tracing::warn!(%relay, "a relay gives no slot: {}", why.unwrap_or_default());
                }
            }
        }
    }

    /// What this node relays.
    pub(crate) fn relaying(&self, now: Relaying) {
        self.state().relaying = Some(now);
    }

    fn is_observed(&self) -> bool {
        !self.state().observed.is_empty()
    }

    /// What is known now.
    pub fn view(&self) -> Reach {
        let state = self.state();
        let reached = state.probed.iter().filter(|(_, reached)| **reached).map(|(address, _)| address);
        let confirmed: BTreeSet<_> = state.configured.iter().chain(reached).collect();
        let reachability = if confirmed.iter().any(|address| is_wide(address)) {
            Reachability::Public
        } else if state.probed.iter().any(|(address, reached)| !reached && is_wide(address)) {
            Reachability::BehindNat
        } else {
            Reachability::Unknown
        };
        let relays = state.relays.iter().map(|(peer, (now, why))| RelayInfo {
            peer_id: peer.to_base58(),
            state: *now,
            why: why.clone(),
        });
        Reach {
            reachability,
            confirmed: confirmed.into_iter().map(ToString::to_string).collect(),
            observed: state.observed.iter().map(ToString::to_string).collect(),
            relays: relays.collect(),
            relaying: state.relaying,
        }
    }
}

/// Whether an address goes through a relay.
pub(crate) fn is_circuit(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// The IP address that a multiaddr begins with.
pub(crate) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(ip.into()),
        Some(Protocol::Ip6(ip)) => Some(ip.into()),
        _ => None,
    }
}

/// Whether an address means something outside its own network: that a neighbour reaches it says nothing of the world.
fn is_wide(address: &Multiaddr) -> bool {
    if is_circuit(address) {
        return false;
    }
    match ip_of(address) {
        Some(IpAddr::V4(ip)) => !(ip.is_loopback() || ip.is_private() || ip.is_link_local()),
        Some(IpAddr::V6(ip)) => !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()),
        // A name that a person configured.
        None => true,
    }
}

/// Holds a slot at a relay of the settings until the node stops.
pub(crate) async fn keep_reservation(node: Node, address: String) {
    let longest = Duration::from_secs(node.config().p2p.redial_secs).max(FIRST_PAUSE);
    // The settings' check asks for a peer.
    let Ok((bare, Some(relay))) = discovery::split_peer(&address) else { return };
    let Some(network) = node.network() else { return };
    network.reach().relay(relay, RelayState::Asking, None);
    let mut pause = FIRST_PAUSE;
    loop {
        match reserve(&node, &address, &bare, relay).await {
            Ok(()) => {
                pause = FIRST_PAUSE;
                tokio::time::sleep(CHECK).await;
            }
            Err(why) => {
                network.reach().relay(relay, RelayState::Failed, Some(why));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
        }
    }
}

async fn reserve(node: &Node, address: &str, bare: &Multiaddr, relay: PeerId) -> Result<(), String> {
    let network = node.network().ok_or("there is no network")?;
    if !node.book().is_connected(&relay) {
        node.dial(address.to_owned()).await.map_err(|error| error.to_string())?;
    }
    let resolved = discovery::resolve(bare).await.map_err(|error| error.to_string())?;
    let address = resolved.into_iter().next().ok_or("the address has no meaning")?;
    let (reply, answer) = oneshot::channel();
    network.send(Command::Reserve { relay, address, reply }).await;
    match tokio::time::timeout(RESERVE_TIMEOUT, answer).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err("the network has ended".to_owned()),
        Err(_) => Err(format!("no answer in {} s", RESERVE_TIMEOUT.as_secs())),
    }
}

/// Before a circuit is dialled: connects to its relay, which tells under which address it sees this node.
pub(crate) async fn approach(node: &Node, circuit: &Multiaddr) -> Result<(), crate::node::DialError> {
    let relay: Multiaddr = circuit.iter().take_while(|part| *part != Protocol::P2pCircuit).collect();
    let Some(network) = node.network() else { return Err(crate::node::DialError::Offline) };
    // Boxed: the relay's address is dialled by the function that called this one.
    Box::pin(node.dial(relay.to_string())).await?;
    let seen = async {
        while !network.reach().is_observed() {
            tokio::time::sleep(OBSERVED_CHECK).await;
        }
    };
    if tokio::time::timeout(OBSERVED_TIMEOUT, seen).await.is_err() {
        tracing::debug!("nobody told where this node is seen; the circuit is dialled without");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reachability_follows_from_what_was_tried() {
        let book = ReachBook::default();
        assert_eq!(book.view().reachability, Reachability::Unknown);
        // A neighbour on the same network proves nothing, nor does a way through a relay.
        book.probed(&"/ip4/192.168.1.2/tcp/4801".parse().unwrap(), true);
        book.probed(&"/ip4/127.0.0.1/tcp/4801".parse().unwrap(), false);
        let relay = PeerId::random();
        book.probed(&format!("/ip4/203.0.113.9/tcp/1/p2p/{relay}/p2p-circuit").parse().unwrap(), true);
        assert_eq!(book.view().reachability, Reachability::Unknown);
        book.probed(&"/ip4/203.0.113.7/tcp/4801".parse().unwrap(), false);
        assert_eq!(book.view().reachability, Reachability::BehindNat);
        book.probed(&"/ip4/203.0.113.7/udp/4801/quic-v1".parse().unwrap(), true);
        assert_eq!(book.view().reachability, Reachability::Public);
        assert!(book.view().confirmed.contains(&"/ip4/203.0.113.7/udp/4801/quic-v1".to_owned()));
    }

    #[test]
    fn what_others_claim_to_see_is_bounded() {
        let book = ReachBook::default();
        for port in 1..=1000 {
            book.observed(&format!("/ip4/203.0.113.7/tcp/{port}").parse().unwrap());
            book.probed(&format!("/ip4/203.0.113.7/tcp/{port}").parse().unwrap(), false);
        }
        assert_eq!(book.view().observed.len(), MAX_ADDRESSES);
        assert_eq!(book.state().probed.len(), MAX_ADDRESSES);
    }
}
