//! Many streams over one TLS connection: a thin wrapper over the `yamux` crate (the specification is HashiCorp's).
//!
//! libp2p's own wrapper exposes neither the split size nor the windows, and the stock 16 KiB frames cost a third of the
//! processor time of a transfer.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures::{AsyncRead, AsyncWrite, future, ready};
use libp2p::core::UpgradeInfo;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use yamux::{Connection, ConnectionError, Mode, Stream};

/// Longest data frame, in bytes: the window that every stream begins with, so that larger frames would seldom form.
const SPLIT: usize = 256 * 1024;
/// Most streams of one connection, both directions together: blob and feed streams of a busy peer, with room for the
/// short ones of gossip, discovery and ping.
const MAX_STREAMS: usize = 128;
/// All receive windows of one connection together. Each stream has at least 256 KiB, which takes 32 MiB; what is above
/// lets a few streams grow with the round trip. It is also the most memory that one peer can fill.
const MAX_WINDOW: usize = 64 * 1024 * 1024;
/// Streams opened by the peer that wait to be accepted; a further one is reset.
const MAX_WAITING: usize = 64;

/// Makes a connection a [`Muxer`].
#[derive(Debug, Clone)]
pub struct Upgrade(yamux::Config);

impl Upgrade {
    /// With the limits above.
    pub fn new() -> Self {
        let mut config = yamux::Config::default();
        // In this order: the window must cover the streams at every step, or the crate panics.
        config.set_max_num_streams(MAX_STREAMS);
        config.set_max_connection_receive_window(Some(MAX_WINDOW));
        config.set_split_send_size(SPLIT);
        Self(config)
    }
}

impl Default for Upgrade {
    fn default() -> Self {
        Self::new()
    }
}

impl UpgradeInfo for Upgrade {
    type Info = &'static str;
    type InfoIter = std::iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/yamux/1.0.0")
    }
}

impl<C> InboundConnectionUpgrade<C> for Upgrade
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = future::Ready<Result<Muxer<C>, io::Error>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        future::ready(Ok(Muxer::new(socket, self.0, Mode::Server)))
    }
}

impl<C> OutboundConnectionUpgrade<C> for Upgrade
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = future::Ready<Result<Muxer<C>, io::Error>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        future::ready(Ok(Muxer::new(socket, self.0, Mode::Client)))
    }
}

/// A yamux connection as libp2p drives it.
pub struct Muxer<C> {
    connection: Connection<C>,
    waiting: VecDeque<Stream>,
    accept: Option<Waker>,
}

impl<C> std::fmt::Debug for Muxer<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Muxer").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn new(socket: C, config: yamux::Config, mode: Mode) -> Self {
        Self { connection: Connection::new(socket, config, mode), waiting: VecDeque::new(), accept: None }
    }

    /// The crate makes progress, reading and writing alike, only while it is asked for the next inbound stream.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        Poll::Ready(match ready!(self.connection.poll_next_inbound(cx)) {
            Some(result) => result,
            None => Err(ConnectionError::Closed),
        })
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin + 'static> StreamMuxer for Muxer<C> {
    type Substream = Stream;
    type Error = ConnectionError;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        if let Some(stream) = self.waiting.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        if let Poll::Ready(result) = self.poll_next(cx) {
            return Poll::Ready(result);
        }
        self.accept = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        self.connection.poll_new_outbound(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.connection.poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        let stream = ready!(self.poll_next(cx))?;
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(stream);
            if let Some(waker) = self.accept.take() {
                waker.wake();
            }
        } else {
            // Dropping it resets it, which its opener sees.
            tracing::debug!("the peer opens streams faster than they are accepted; one was reset");
        }
        // There may be more; let others run first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
