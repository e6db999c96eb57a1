//! Accepts connections, with the limits that a public address needs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::openai::Connection;

/// Most connections at once; more wait in the kernel. Each costs a task and buffers, far fewer than this are
/// at work.
const MAX_CONNECTIONS: usize = 512;
/// Longest time for a request's head to arrive, and for a connection to be idle between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of a request's head.
const MAX_HEAD: usize = 32 * 1024;
/// A reader that takes nothing of an answer for so long is cut off.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Wait after a failed accept, which means that file descriptors ran out: without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening server.
pub(crate) struct Server {
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    accepting: tokio::task::JoinHandle<JoinSet<()>>,
}

impl Server {
    /// Listens on `address`, port 0 for any.
    #[cfg(test)]
    pub(crate) async fn start(address: SocketAddr, router: Router) -> std::io::Result<Self> {
        Self::on(std::net::TcpListener::bind(address)?, router)
    }

    /// Answers with `router` from now on what comes to `listener`. Call it within a Tokio runtime.
    pub(crate) fn on(listener: std::net::TcpListener, router: Router) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let (stopping, stop) = watch::channel(false);
        let accepting = tokio::spawn(accept(listener, router, stop));
        Ok(Self { address, stopping, accepting })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections and waits until the answers that are under way are sent, at most `grace`.
    pub(crate) async fn stop(self, grace: Duration) {
        self.stopping.send_replace(true);
        let drain = async {
            if let Ok(mut connections) = self.accepting.await {
                while connections.join_next().await.is_some() {}
            }
        };
        if tokio::time::timeout(grace, drain).await.is_err() {
            tracing::debug!("connections are cut off");
        }
    }
}

async fn accept(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) -> JoinSet<()> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut count = 0;
    loop {
        let next = tokio::select! {
            () = told(&mut stop) => return connections,
            next = next(&listener, &places) => next,
        };
        // Ended ones are forgotten, so that the set stays as small as the places allow.
        while connections.try_join_next().is_some() {}
        match next {
            Ok((stream, place)) => {
                count += 1;
                connections.spawn(serve(stream, Connection(count), router.clone(), stop.clone(), place));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Waits for the order to stop; a server that is gone has given it.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn serve(
    stream: TcpStream,
    number: Connection,
    router: Router,
    mut stop: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    let stall = u32::try_from(STALL_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    // Both only make it better: small events are sent at once, and a reader that stalls is noticed.
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, stall);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(number);
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = told(&mut stop) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
