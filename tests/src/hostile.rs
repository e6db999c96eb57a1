//! A libp2p peer that does what it likes on the wire: it shares the node's transport (TLS, yamux) and nothing above it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::core::Endpoint;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent};
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, Transport};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::net::Home;

/// Anything on the wire that takes longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// First bytes of a hello.
const HELLO_MAGIC: &[u8] = b"SYHL";
/// The multistream-select header.
const MULTISTREAM: &str = "/multistream/1.0.0";
/// Longest multistream-select line that is read.
const MAX_LINE: usize = 1024;

/// A peer key and whatever it claims to be.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The key that TLS proves.
    pub keypair: Keypair,
    /// The node certificate shown in the hello, as it travels.
    pub certificate: Vec<u8>,
}

impl Identity {
    /// The identity of the node whose home this is.
    pub fn of(home: &Home) -> Result<Self> {
        let key = registry::key::SecretKey::load(&home.path.join("keys/peer.key"))?;
        let keypair = Keypair::ed25519_from_bytes(key.seed().to_vec())?;
        Ok(Self { keypair, certificate: std::fs::read(home.path.join("node.json"))? })
    }

    /// The libp2p identifier.
    pub fn peer_id(&self) -> PeerId {
        self.keypair.public().to_peer_id()
    }
}

/// One end of the transport.
pub struct Hostile {
    identity: Identity,
    transport: Boxed<(PeerId, StreamMuxerBox)>,
}

impl Hostile {
    /// A peer that uses `identity`.
    pub fn new(identity: Identity) -> Result<Self> {
        let transport = node::swarm::transport::bare(&identity.keypair)?;
        Ok(Self { identity, transport })
    }

    /// Connects; TLS and yamux are up afterwards, nothing was said yet.
    pub async fn dial(&mut self, address: &str) -> Result<Connection> {
        let address: Multiaddr = address.parse()?;
        let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let dial = self.transport.dial(address, options)?;
        let (peer, muxer) = timeout(PATIENCE, dial).await.context("the dial took too long")??;
        Ok(Connection::drive(peer, muxer))
    }

    /// Connects and says a proper hello.
    pub async fn join(&mut self, address: &str) -> Result<Connection> {
        let connection = self.dial(address).await?;
        let mut stream = connection.open().await?;
        let verdict = say_hello(&mut stream, &hello(&self.identity.certificate)).await?;
        if verdict != 0 {
            bail!("the node refused the hello with {verdict}");
        }
        Ok(connection)
    }

    /// Listens on loopback, and answers where.
    pub async fn listen(&mut self) -> Result<String> {
        self.transport.listen_on(ListenerId::next(), "/ip4/127.0.0.1/tcp/0".parse()?)?;
        let peer = self.identity.peer_id();
        timeout(
            PATIENCE,
            poll_fn(|cx| {
                self.poll(cx, |event| match event {
                    TransportEvent::NewAddress { listen_addr, .. } => {
                        Some(format!("{listen_addr}/p2p/{peer}"))
                    }
                    _ => None,
                })
            }),
        )
        .await
        .context("nothing to listen on")
    }

    /// Waits for the next connection and says a proper hello on it.
    pub async fn accept(&mut self) -> Result<Connection> {
        let upgrade = poll_fn(|cx| {
            self.poll(cx, |event| match event {
                TransportEvent::Incoming { upgrade, .. } => Some(upgrade),
                _ => None,
            })
        })
        .await;
        let (peer, muxer) = timeout(PATIENCE, upgrade).await.context("the upgrade took too long")??;
        let mut connection = Connection::drive(peer, muxer);
        let mut stream = connection.accept().await.context("no hello came")?;
        say_hello(&mut stream, &hello(&self.identity.certificate)).await?;
        Ok(connection)
    }

    fn poll<T>(
        &mut self,
        cx: &mut std::task::Context<'_>,
        mut take: impl FnMut(
            TransportEvent<<Boxed<(PeerId, StreamMuxerBox)> as Transport>::ListenerUpgrade, std::io::Error>,
        ) -> Option<T>,
    ) -> Poll<T> {
        loop {
            match Pin::new(&mut self.transport).poll(cx) {
                Poll::Ready(event) => {
                    if let Some(value) = take(event) {
                        return Poll::Ready(value);
                    }
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// A hello that carries `certificate`.
pub fn hello(certificate: &[u8]) -> Vec<u8> {
    let mut out = HELLO_MAGIC.to_vec();
    out.extend(1u32.to_le_bytes());
    out.extend((certificate.len() as u32).to_le_bytes());
    out.extend(certificate);
    out
}

/// Sends `hello`, reads the other's, accepts it, and answers the other's verdict.
pub async fn say_hello(stream: &mut SubstreamBox, hello: &[u8]) -> Result<u8> {
    timeout(PATIENCE, async {
        stream.write_all(hello).await?;
        stream.flush().await?;
        let mut header = [0; 12];
        stream.read_exact(&mut header).await.context("the other's hello")?;
        let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        let mut certificate = vec![0; length as usize];
        stream.read_exact(&mut certificate).await.context("the other's certificate")?;
        stream.write_all(&[0]).await?;
        stream.flush().await?;
        let mut verdict = [0];
        stream.read_exact(&mut verdict).await.context("the other's verdict")?;
        stream.close().await?;
        Ok(verdict[0])
    })
    .await
    .context("the hello took too long")?
}

/// A connection whose muxer is driven by a task of its own.
#[derive(Debug)]
pub struct Connection {
    /// The other end.
    pub peer: PeerId,
    open: mpsc::Sender<oneshot::Sender<SubstreamBox>>,
    inbound: mpsc::Receiver<SubstreamBox>,
    over: tokio::task::JoinHandle<()>,
}

impl Connection {
    fn drive(peer: PeerId, mut muxer: StreamMuxerBox) -> Self {
        let (open, mut wanted) = mpsc::channel::<oneshot::Sender<SubstreamBox>>(64);
        let (tell, inbound) = mpsc::channel(256);
        let mut waiting: Vec<oneshot::Sender<SubstreamBox>> = Vec::new();
        let over = tokio::spawn(poll_fn(move |cx| {
            loop {
                let mut moved = false;
                while let Poll::Ready(Some(reply)) = wanted.poll_recv(cx) {
                    waiting.push(reply);
                }
                if !waiting.is_empty() {
                    match muxer.poll_outbound_unpin(cx) {
                        Poll::Ready(Ok(stream)) => {
                            let _ = waiting.remove(0).send(stream);
                            moved = true;
                        }
                        Poll::Ready(Err(_)) => return Poll::Ready(()),
                        Poll::Pending => {}
                    }
                }
                match muxer.poll_inbound_unpin(cx) {
                    Poll::Ready(Ok(stream)) => {
                        // What nobody takes is dropped, as a rude peer would.
                        let _ = tell.try_send(stream);
                        moved = true;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
                match muxer.poll_unpin(cx) {
                    Poll::Ready(Ok(_)) => moved = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
                if !moved {
                    return Poll::Pending;
                }
            }
        }));
        Self { peer, open, inbound, over }
    }

    /// Opens a stream; nothing is negotiated on it.
    pub async fn open(&self) -> Result<SubstreamBox> {
        let (tell, told) = oneshot::channel();
        self.open.send(tell).await.ok().context("the connection is closed")?;
        timeout(PATIENCE, told).await.context("no stream")?.context("the connection is closed")
    }

    /// Opens a stream and negotiates `protocol` on it.
    pub async fn speak(&self, protocol: &str) -> Result<SubstreamBox> {
        let mut stream = self.open().await?;
        timeout(PATIENCE, propose(&mut stream, protocol)).await.context("no negotiation")??;
        Ok(stream)
    }

    /// The next stream that the other end opens.
    pub async fn accept(&mut self) -> Option<SubstreamBox> {
        self.inbound.recv().await
    }

    /// Whether the other end closed the connection.
    pub fn is_closed(&self) -> bool {
        self.over.is_finished()
    }

    /// Waits until the other end closed the connection; false when it did not within `limit`.
    pub async fn closed_within(&mut self, limit: Duration) -> bool {
        timeout(limit, &mut self.over).await.is_ok()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.over.abort();
    }
}

async fn write_line(stream: &mut (impl AsyncWrite + Unpin), line: &str) -> Result<()> {
    let length = line.len() + 1;
    let mut out = Vec::new();
    // A varint of at most two bytes is enough for [`MAX_LINE`].
    if length < 128 {
        out.push(length as u8);
    } else {
        out.extend([(length & 0x7f) as u8 | 0x80, (length >> 7) as u8]);
    }
    out.extend(line.as_bytes());
    out.push(b'\n');
    stream.write_all(&out).await?;
    stream.flush().await?;
    Ok(())
}

async fn read_line(stream: &mut (impl AsyncRead + Unpin)) -> Result<String> {
    let mut length = 0;
    for shift in [0, 7] {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    if length == 0 || length > MAX_LINE {
        bail!("a multistream line of {length} bytes");
    }
    let mut line = vec![0; length];
    stream.read_exact(&mut line).await?;
    line.pop();
    Ok(String::from_utf8(line)?)
}

/// Proposes one protocol, as multistream-select 1.0.0 says it.
pub async fn propose(stream: &mut SubstreamBox, protocol: &str) -> Result<()> {
    write_line(stream, MULTISTREAM).await?;
    write_line(stream, protocol).await?;
    for expected in [MULTISTREAM, protocol] {
        let line = read_line(stream).await?;
        if line != expected {
            bail!("{protocol} was answered with `{line}`");
        }
    }
    Ok(())
}

/// Answers proposals until one is among `known`; the others are refused.
pub async fn choose(stream: &mut SubstreamBox, known: &[&str]) -> Result<String> {
    let header = read_line(stream).await?;
    if header != MULTISTREAM {
        bail!("not multistream: `{header}`");
    }
    write_line(stream, MULTISTREAM).await?;
    loop {
        let line = read_line(stream).await?;
        if known.contains(&line.as_str()) {
            write_line(stream, &line).await?;
            return Ok(line);
        }
        write_line(stream, "na").await?;
    }
}

/// A frame: type, length, body.
pub fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(body);
    out
}

/// Reads a frame of at most 1 MiB.
pub async fn read_frame(stream: &mut SubstreamBox) -> Result<(u8, Vec<u8>)> {
    let mut header = [0; 5];
    stream.read_exact(&mut header).await?;
    let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if length > 1 << 20 {
        bail!("a frame of {length} bytes");
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((header[0], body))
}
