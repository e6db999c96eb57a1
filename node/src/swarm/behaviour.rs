//! The protocols of the swarm and their settings.

use std::time::Duration;

use libp2p::autonat::v2::client as autonat;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, MessageId, ValidationMode};
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{StreamProtocol, dcutr, identify, kad, ping, relay};

use super::{dialback, observed, streams};
use crate::config::P2p;
use crate::wire::{ANNOUNCE_TOPIC, IDENTIFY_PROTOCOL, KAD_PROTOCOL, MAX_GOSSIP};

/// Connections being set up at once, in each direction: strangers can fill no more.
const MAX_PENDING: u32 = 64;
/// Connections with one peer: both sides may dial at once, over TCP, over QUIC and through relays, and dial back.
const MAX_PER_PEER: u32 = 8;
/// Room for the protobuf around a gossiped message.
const GOSSIP_ENVELOPE: usize = 4096;
/// How long a gossiped message is remembered so that it is not taken twice.
const GOSSIP_MEMORY: Duration = Duration::from_secs(120);
/// Releases that this node may announce to the table: more than libp2p's default of 1,024.
const MAX_PROVIDED: usize = 65_536;
/// Provider records kept for others.
const MAX_RECORDS: usize = 262_144;
/// Providers of one release.
const MAX_PROVIDERS: usize = 64;
/// Longest time to ask the table.
const QUERY_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a provider record is valid, and how often it is renewed. Records are lost when their keepers restart.
const PROVIDER_TTL: Duration = Duration::from_secs(24 * 3600);
const PROVIDER_RENEWAL: Duration = Duration::from_secs(2 * 3600);
/// Between two pings; also how soon a dead connection is noticed, times the pings that may be missed.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: connection_limits::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) kad: kad::Behaviour<MemoryStore>,
    pub(super) gossip: gossipsub::Behaviour,
    /// Is reached through relays, and reaches others through them.
    pub(super) circuits: relay::client::Behaviour,
    /// Relays for others, if the settings say so.
    pub(super) relay: Toggle<relay::Behaviour>,
    /// Makes a direct connection out of one through a relay.
    pub(super) punch: dcutr::Behaviour,
    /// Asks peers whether they can dial this node.
    pub(super) probe: autonat::Behaviour,
    /// Answers those who ask.
    pub(super) dialback: dialback::Behaviour,
    pub(super) observed: observed::Behaviour,
    pub(super) streams: streams::Behaviour,
}

/// The one topic.
pub(super) fn topic() -> IdentTopic {
    IdentTopic::new(ANNOUNCE_TOPIC)
}

pub(super) fn build(
    keypair: &Keypair,
    settings: &P2p,
    streams: streams::Behaviour,
    circuits: relay::client::Behaviour,
    relay: Option<relay::Behaviour>,
) -> Result<Behaviour, String> {
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING))
        .with_max_pending_outgoing(Some(MAX_PENDING))
        .with_max_established(Some(settings.max_connections))
        .with_max_established_per_peer(Some(MAX_PER_PEER));
    let identify = identify::Config::new(IDENTIFY_PROTOCOL.to_owned(), keypair.public())
        .with_agent_version(concat!("steelyard/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_push_listen_addr_updates(true);
    let ping = ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT);
    Ok(Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping),
        kad: table(keypair),
        gossip: gossip(keypair)?,
        circuits,
        relay: Toggle::from(relay),
        punch: dcutr::Behaviour::new(keypair.public().to_peer_id()),
        probe: autonat::Behaviour::default(),
        dialback: dialback::Behaviour::new(),
        observed: observed::Behaviour::default(),
        streams,
    })
}

/// Kademlia: provider records only. Values are not kept for anybody.
fn table(keypair: &Keypair) -> kad::Behaviour<MemoryStore> {
    let id = keypair.public().to_peer_id();
    let store = MemoryStoreConfig {
        max_records: 0,
        max_value_bytes: 0,
        max_providers_per_key: MAX_PROVIDERS,
        max_provided_keys: MAX_PROVIDED.max(MAX_RECORDS),
    };
    let mut config = kad::Config::new(StreamProtocol::new(KAD_PROTOCOL));
    config
        .set_query_timeout(QUERY_TIMEOUT)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_provider_record_ttl(Some(PROVIDER_TTL))
        .set_provider_publication_interval(Some(PROVIDER_RENEWAL));
    let mut table = kad::Behaviour::with_config(id, MemoryStore::with_config(id, store), config);
    // Left to itself it stays a client until an external address is confirmed, which never happens in a private network.
    table.set_mode(Some(kad::Mode::Server));
    table
}

fn gossip(keypair: &Keypair) -> Result<gossipsub::Behaviour, String> {
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        // Nothing is forwarded before it was judged.
        .validate_messages()
        .max_transmit_size(MAX_GOSSIP + GOSSIP_ENVELOPE)
        .duplicate_cache_time(GOSSIP_MEMORY)
        // By content: the same recall from two nodes is one message.
        .message_id_fn(|message| MessageId::from(blake3::hash(&message.data).as_bytes().to_vec()))
        .build()
        .map_err(|error| error.to_string())?;
    let mut gossip = gossipsub::Behaviour::new(MessageAuthenticity::Signed(keypair.clone()), config)
        .map_err(str::to_owned)?;
    gossip.subscribe(&topic()).map_err(|error| error.to_string())?;
    Ok(gossip)
}
