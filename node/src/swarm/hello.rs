//! Admission of a connection: before anything else both sides show their node certificates on its first stream
//! (`specs/05-node-identity.md`).
//!
//! It sits in the transport: a connection that was not admitted never reaches the swarm, so no protocol ever speaks with
//! a peer that is not a node of a pinned nation. TLS has proved the peer identifier by then; the certificate says
//! whose node that is.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, future::poll_fn};
use libp2p::PeerId;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint, Multiaddr};
use libp2p::multiaddr::Protocol;
use registry::envelope::EnvelopeError;
use registry::statement::NodeCertificate;
use registry::trust::{Trust, TrustError};
use registry::{Nation, Signed, Timestamp, Verified};

use crate::peers::{PeerBook, Refused};
use crate::wire::{HELLO_HEADER, HELLO_TIMEOUT, Hello, Verdict, WireError};

/// How long a refused peer may take to read why, before the connection is closed under it.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a connection is not admitted.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// We don't believe the peer's certificate.
    #[error("peer {peer} is refused: {source}")]
    Refused {
        /// The peer.
        peer: PeerId,
        /// Why.
        source: Box<TrustError>,
    },
    /// The peer does not believe ours.
    #[error("{} refused this node of `{own}`: {}", who(.nation, .peer), advice(*.verdict, .own))]
    RefusedByPeer {
        /// The peer.
        peer: PeerId,
        /// Its nation, if its certificate was believed here.
        nation: Option<Nation>,
        /// Our own nation.
        own: Nation,
        /// What it answered.
        verdict: Verdict,
    },
    /// It did not say what a hello says.
    #[error("the hello with peer {peer} failed: {source}")]
    Wire {
        /// The peer.
        peer: PeerId,
        /// How.
        source: WireError,
    },
}

fn who(nation: &Option<Nation>, peer: &PeerId) -> String {
    match nation {
        Some(nation) => format!("`{nation}` (peer {peer})"),
        None => format!("peer {peer}"),
    }
}

fn advice(verdict: Verdict, own: &Nation) -> String {
    match verdict {
        Verdict::Accepted => "it accepted".to_owned(),
        Verdict::NotPinned => {
            format!(
                "it does not trust `{own}`; its operator must run `steelyard trust add` with your nation file"
            )
        }
        Verdict::RootExpired => format!("the root of `{own}` has expired there; issue a new one"),
        Verdict::CertificateExpired => "this node's certificate has expired; renew it".to_owned(),
        Verdict::OtherPeer => {
            "this node's certificate is for another peer key; `node.json` and `keys/peer.key` do not belong together"
                .to_owned()
        }
        Verdict::BadSignature => {
            format!("this node's certificate is not signed by the node role that it knows of `{own}`")
        }
        Verdict::Malformed => "it could not read this node's certificate; are both versions current?".to_owned(),
        Verdict::Clock => "this node's certificate is from its future; check both clocks".to_owned(),
    }
}

/// Whether this side opens the stream of the hello: the client of TLS does (`[HEL-007]`).
///
/// Where both sides dial at once to punch a hole, one of them takes the part of the listener. Over TCP it then is the server of
/// TLS. Over QUIC libp2p makes a client of it all the same, as long as it dials from its listening port.
pub fn opens_hello(point: &ConnectedPoint) -> bool {
    match point {
        ConnectedPoint::Listener { .. } => false,
        ConnectedPoint::Dialer { role_override: Endpoint::Dialer, .. } => true,
        ConnectedPoint::Dialer { role_override: Endpoint::Listener, address, port_use } => {
            *port_use == PortUse::Reuse && address.iter().any(|part| part == Protocol::QuicV1)
        }
    }
}

/// Tells the present trust.
pub type TrustSource = Arc<dyn Fn() -> Arc<Trust> + Send + Sync>;

/// Admits connections.
pub struct Admission {
    /// Our certificate, as it is sent.
    certificate: Vec<u8>,
    own: Nation,
    trust: TrustSource,
    book: Arc<PeerBook>,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Admission {
    /// Shows `certificate`, checks others against what `trust` tells at that moment, records them in `book`.
    pub fn new(certificate: &Signed, own: Nation, trust: TrustSource, book: Arc<PeerBook>) -> Self {
        Self { certificate: certificate.to_json(), own, trust, book }
    }

    /// Lets a connection through, or closes it and says why.
    pub async fn admit(
        self: Arc<Self>,
        peer: PeerId,
        mut muxer: StreamMuxerBox,
        point: ConnectedPoint,
    ) -> Result<(PeerId, StreamMuxerBox), HelloError> {
        let talk =
            tokio::time::timeout(HELLO_TIMEOUT, self.talk(peer, &mut muxer, opens_hello(&point))).await;
        let outcome = talk.unwrap_or_else(|_| {
            let source = WireError::Timeout { what: "its certificate", limit: HELLO_TIMEOUT };
            Err(HelloError::Wire { peer, source })
        });
        match outcome {
            Ok(certificate) => {
                self.book.admit(peer, &certificate);
                Ok((peer, muxer))
            }
            Err(error) => {
                self.report(&error, point.get_remote_address());
                // The muxer writes what is still queued (the verdict) before it closes.
                let _ = tokio::time::timeout(FAREWELL, muxer.close()).await;
                Err(error)
            }
        }
    }

    fn report(&self, error: &HelloError, address: &Multiaddr) {
        let (peer, nation, code) = match error {
            HelloError::Refused { peer, source } => (peer, None, Verdict::of(source).code()),
            HelloError::RefusedByPeer { peer, nation, verdict, .. } => (peer, nation.clone(), verdict.code()),
            HelloError::Wire { peer, source } => (peer, None, source.code()),
        };
        let theirs = matches!(error, HelloError::RefusedByPeer { .. });
        self.book.refused(Refused {
            peer: *peer,
            address: address.clone(),
            nation,
            code,
            theirs,
            message: error.to_string(),
        });
    }

    async fn talk(
        &self,
        peer: PeerId,
        muxer: &mut StreamMuxerBox,
        opens: bool,
    ) -> Result<Verified<NodeCertificate>, HelloError> {
        let wire = |source| HelloError::Wire { peer, source };
        let open = poll_fn(|cx| {
            let stream = if opens { muxer.poll_outbound_unpin(cx) } else { muxer.poll_inbound_unpin(cx) };
            match (stream, muxer.poll_unpin(cx)) {
                (Poll::Ready(stream), _) => Poll::Ready(stream),
                (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
                (Poll::Pending, Poll::Ready(Ok(_))) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                (Poll::Pending, Poll::Pending) => Poll::Pending,
            }
        });
        let mut stream = open.await.map_err(|error| wire(error.into()))?;
        let exchange = async {
            let theirs = exchange(&mut stream, &self.certificate).await;
            let checked = match theirs {
                Ok(bytes) => self.check(peer, &bytes),
                Err(error) => Err(wire(error)),
            };
            let verdict = match &checked {
                Ok(_) => Verdict::Accepted,
                Err(HelloError::Refused { source, .. }) => Verdict::of(source),
                // Only a peer that speaks the protocol is answered.
                Err(HelloError::Wire { source: WireError::Io(_) | WireError::Timeout { .. }, .. }) => {
                    return checked;
                }
                Err(_) => Verdict::Malformed,
            };
            let answer = verdicts(&mut stream, verdict).await;
            match (checked, answer) {
                // Both may refuse; what we think of the peer is the better story, except when it is only a cut line.
                (Err(error), _) => Err(error),
                (Ok(_), Err(source)) => Err(wire(source)),
                (Ok(certificate), Ok(theirs)) if verdict.admits(theirs) => Ok(certificate),
                (Ok(certificate), Ok(verdict)) => Err(HelloError::RefusedByPeer {
                    peer,
                    nation: Some(certificate.nation.clone()),
                    own: self.own.clone(),
                    verdict,
                }),
            }
        };
        drive(muxer, exchange).await.map_err(|error| wire(error.into()))?
    }

    fn check(&self, peer: PeerId, bytes: &[u8]) -> Result<Verified<NodeCertificate>, HelloError> {
        let refused = |source| HelloError::Refused { peer, source: Box::new(source) };
        let signed =
            Signed::parse(bytes).map_err(|error: EnvelopeError| refused(TrustError::Envelope(error)))?;
        (self.trust)().verify_node(&signed, &peer.to_base58(), Timestamp::now()).map_err(refused)
    }
}

/// Runs `future` on a stream of `muxer`, which moves only while it is polled beside.
async fn drive<T>(muxer: &mut StreamMuxerBox, future: impl Future<Output = T>) -> io::Result<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(out) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(out));
        }
        match Pin::new(&mut *muxer).poll(cx) {
            Poll::Ready(Err(error)) => {
                // What arrived before the connection broke may still hold the peer's verdict.
                match future.as_mut().poll(cx) {
                    Poll::Ready(out) => Poll::Ready(Ok(out)),
                    Poll::Pending => Poll::Ready(Err(error)),
                }
            }
            Poll::Ready(Ok(_)) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Both send their certificate at once and read the other's.
async fn exchange(stream: &mut SubstreamBox, own: &[u8]) -> Result<Vec<u8>, WireError> {
    let hello = Hello { certificate: own.to_vec() }.encode();
    stream.write_all(&hello).await?;
    stream.flush().await?;
    let mut header = [0; HELLO_HEADER];
    read_exact(stream, &mut header).await?;
    // Over the limit is refused before a byte of it is read.
    let mut certificate = vec![0; Hello::decode_header(&header)?];
    read_exact(stream, &mut certificate).await?;
    Ok(certificate)
}

/// Both send their verdict and read the other's, then wait for the other's end, so that neither is cut off.
async fn verdicts(stream: &mut SubstreamBox, own: Verdict) -> Result<Verdict, WireError> {
    stream.write_all(&[own as u8]).await?;
    stream.flush().await?;
    let mut byte = [0; 1];
    read_exact(stream, &mut byte).await?;
    let verdict = Verdict::decode(byte[0])?;
    stream.close().await?;
    match stream.read(&mut byte).await {
        Ok(0) | Err(_) => Ok(verdict),
        Ok(_) => Err(WireError::Length { what: "hello", len: 2 }),
    }
}

async fn read_exact(stream: &mut SubstreamBox, buffer: &mut [u8]) -> Result<(), WireError> {
    stream.read_exact(buffer).await.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => WireError::Truncated { what: "hello" },
        _ => WireError::Io(error),
    })
}
