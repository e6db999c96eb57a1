//! libp2p, and nothing else: one task owns the swarm; everybody else sends it commands.

mod behaviour;
mod dialback;
pub mod hello;
pub mod muxer;
mod nat;
mod observed;
mod relay;
pub mod streams;
mod task;
mod tls;
pub mod transport;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use libp2p::gossipsub::{MessageAcceptance, MessageId};
use libp2p::identity::Keypair;
use libp2p::kad::RecordKey;
use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::sync::{mpsc, oneshot};

use crate::config::P2p;
use crate::peers::PeerBook;
use crate::reach::ReachBook;
use hello::{Admission, TrustSource};
use registry::{Nation, Signed};

pub use streams::Incoming;

/// Commands that wait for the swarm; their senders wait when it is full.
const COMMANDS: usize = 256;
/// Notices that wait for the node. Losing one costs the time until the next periodic synchronisation.
const NOTICES: usize = 1024;

/// What the swarm can be told.
#[derive(Debug)]
pub enum Command {
    /// Connect. Without addresses, those that discovery knows of the peer are used.
    Dial {
        /// Whom to expect, if known.
        peer: Option<PeerId>,
        /// Where, resolved to IP addresses.
        addresses: Vec<Multiaddr>,
        /// Who answered, or why nobody did.
        reply: oneshot::Sender<Result<PeerId, String>>,
    },
    /// Hold a slot at a relay that is connected, so that others reach this node through it.
    Reserve {
        /// The relay.
        relay: PeerId,
        /// Its address, resolved to an IP address.
        address: Multiaddr,
        /// Whether the slot is held, or why not.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Close every connection with a peer.
    Disconnect(PeerId),
    /// Gossip a message.
    Publish(Vec<u8>),
    /// What became of a gossiped message.
    Judge {
        /// The message.
        id: MessageId,
        /// Who brought it.
        from: PeerId,
        /// Whether it is forwarded.
        verdict: MessageAcceptance,
    },
    /// Tell the others that we have it.
    Provide(RecordKey),
    /// No longer.
    StopProviding(RecordKey),
    /// Ask who has it.
    Providers {
        /// What.
        key: RecordKey,
        /// Who has it, ourselves excluded.
        reply: oneshot::Sender<Vec<PeerId>>,
    },
    /// Close everything and end.
    Shutdown,
}

/// What the swarm tells the node.
#[derive(Debug)]
pub enum Notice {
    /// A peer's first connection is up.
    Up(PeerId),
    /// A peer's last connection is gone.
    Down(PeerId),
    /// A gossiped message, which waits for [`Command::Judge`].
    Gossip {
        /// The message.
        id: MessageId,
        /// Who brought it.
        from: PeerId,
        /// Its content.
        data: Vec<u8>,
    },
}

/// A running swarm.
#[derive(Debug, Clone)]
pub struct Network {
    commands: mpsc::Sender<Command>,
    /// Opens streams of our own protocols.
    pub streams: streams::Control,
    listening: Arc<Mutex<Vec<Multiaddr>>>,
    reach: Arc<ReachBook>,
}

impl Network {
    /// Sends a command; waits while too many wait already. Does nothing once the swarm has ended.
    pub async fn send(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::debug!("the network has ended; a command was dropped");
        }
    }

    /// How this node is reached from outside.
    pub fn reach(&self) -> &ReachBook {
        &self.reach
    }

    /// Where it listens, as libp2p resolved it.
    pub fn listening(&self) -> Vec<Multiaddr> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What comes out of a swarm that was started.
#[derive(Debug)]
pub struct Started {
    /// To command it.
    pub network: Network,
    /// What it tells.
    pub notices: mpsc::Receiver<Notice>,
    /// Streams that peers opened.
    pub incoming: Incoming,
    /// Its task, which ends after [`Command::Shutdown`].
    pub task: tokio::task::JoinHandle<()>,
}

/// Why the network could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address in the settings is wrong.
    #[error("`{address}` in the settings is not a multiaddr such as `/ip4/0.0.0.0/tcp/4801`: {why}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong.
        why: String,
    },
    /// An address can't be listened on.
    #[error("can't listen on {address}: {why}; is another node running, or the port in use?")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// What the system said.
        why: String,
    },
    /// A transport could not be made.
    #[error("the transports could not be set up: {0}")]
    Transport(#[from] io::Error),
    /// A protocol refused its settings.
    #[error("the network's protocols could not be set up: {0}")]
    Protocol(String),
}

/// Starts a swarm that admits the peers that `trust` believes.
pub async fn start(
    keypair: &Keypair,
    certificate: &Signed,
    own: Nation,
    trust: TrustSource,
    book: Arc<PeerBook>,
    settings: &P2p,
) -> Result<Started, StartError> {
    let admission = Arc::new(Admission::new(certificate, own, trust, Arc::clone(&book)));
    let own_peer = keypair.public().to_peer_id();
    let (circuit_transport, circuits) = libp2p::relay::client::new(own_peer);
    let transport = transport::build(keypair, circuit_transport, admission)?;
    let (streams, control, incoming) = streams::Behaviour::new(!settings.relay_transfers);
    let (relay, shares) = settings.relay.then(|| relay::build(own_peer, settings, Arc::clone(&book))).unzip();
    let behaviour =
        behaviour::build(keypair, settings, streams, circuits, relay).map_err(StartError::Protocol)?;
    let config = libp2p::swarm::Config::with_tokio_executor();
    let mut swarm = Swarm::new(transport, behaviour, own_peer, config);
    let mut listeners = Vec::new();
    for address in &settings.listen {
        let address = parse(address)?;
        let id = swarm
            .listen_on(address.clone())
            .map_err(|error| StartError::Listen { address: address.clone(), why: error.to_string() })?;
        listeners.push((id, address));
    }
    let reach = Arc::new(ReachBook::default());
    for address in &settings.external {
        let address = parse(address)?;
        reach.configured(&address);
        swarm.add_external_address(address);
    }
    let listening = Arc::new(Mutex::new(Vec::new()));
    let (commands, command_queue) = mpsc::channel(COMMANDS);
    let (notice_sender, notices) = mpsc::channel(NOTICES);
    // A relay without external addresses is reached where it listens.
    let nat = nat::Nat::new(Arc::clone(&reach), shares, settings.relay && settings.external.is_empty());
    let mut task = task::Task::new(swarm, book, Arc::clone(&listening), notice_sender, nat);
    task.listen(listeners).await?;
    let task = tokio::spawn(crate::node::guarded("network", task.run(command_queue)));
    let network = Network { commands, streams: control, listening, reach };
    Ok(Started { network, notices, incoming, task })
}

fn parse(address: &str) -> Result<Multiaddr, StartError> {
    address.parse().map_err(|error: libp2p::multiaddr::Error| StartError::Address {
        address: address.to_owned(),
        why: error.to_string(),
    })
}
