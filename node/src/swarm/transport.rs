//! The transports: TCP with TLS 1.3 and yamux, QUIC, and circuits through relays with TLS 1.3 and yamux from end to end; all
//! behind the admission of [`super::hello`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{PeerId, Transport, quic, relay, tcp};

use super::hello::Admission;
use super::{muxer, tls};

/// Longest time for TCP, TLS and the choice of a muxer together; the hello has its own limit. libp2p gives the answer to "can you
/// dial me?" ten seconds, the dial included: one that fails later would be told as silence, and asked again for ever.
const SETUP_TIMEOUT: Duration = Duration::from_secs(7);
/// A QUIC connection without a packet for so long is gone; the keep-alive comes three times as often.
const QUIC_IDLE_MS: u32 = 30_000;
/// Interval of QUIC's keep-alive packets.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Streams that a peer may have open over QUIC, as over yamux.
const QUIC_STREAMS: u32 = 128;
/// Receive window of one QUIC stream, in bytes: 4 MiB at 80 ms is 400 Mbit/s for each of a peer's four streams.
const QUIC_STREAM_WINDOW: u32 = 4 * 1024 * 1024;
/// Receive window of one QUIC connection, in bytes.
const QUIC_WINDOW: u32 = 16 * 1024 * 1024;

/// An established, authenticated and admitted connection.
pub type Output = (PeerId, StreamMuxerBox);

/// All transports, whose connections come out only after `admission` has let them pass. A circuit is a line like TCP: the relay
/// carries what the two ends encrypt for each other, and each end checks the other's certificate itself.
pub fn build(
    keypair: &Keypair,
    circuits: relay::client::Transport,
    admission: Arc<Admission>,
) -> io::Result<Boxed<Output>> {
    let circuits = circuits
        .upgrade(Version::V1Lazy)
        .authenticate(tls::Config::new(keypair)?)
        .multiplex(muxer::Upgrade::new())
        .timeout(SETUP_TIMEOUT)
        .boxed();
    let all = circuits.or_transport(bare(keypair)?).map(|either, _| either.into_inner());
    Ok(all
        .and_then(move |(peer, muxer), point| async move { admission.admit(peer, muxer, point).await })
        .boxed())
}

/// TCP and QUIC without admission: TLS proves the peer identifier, nothing else.
pub fn bare(keypair: &Keypair) -> io::Result<Boxed<Output>> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(tls::Config::new(keypair)?)
        .multiplex(muxer::Upgrade::new())
        .timeout(SETUP_TIMEOUT)
        .boxed();
    let mut config = quic::Config::new(keypair);
    config.handshake_timeout = SETUP_TIMEOUT;
    config.max_idle_timeout = QUIC_IDLE_MS;
    config.keep_alive_interval = QUIC_KEEP_ALIVE;
    config.max_concurrent_stream_limit = QUIC_STREAMS;
    config.max_stream_data = QUIC_STREAM_WINDOW;
    config.max_connection_data = QUIC_WINDOW;
    let quic = quic::tokio::Transport::new(config)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    Ok(tcp.or_transport(quic).map(|either, _| either.into_inner()).boxed())
}
