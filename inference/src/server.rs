//! Accepts connections, with the limits that a public address needs.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use registry::serving::StopCode;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::halt::{Cause, Halt};
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
/// How long a connection that was accepted just before this server stops may take to ask.
const FIRST_REQUEST: Duration = Duration::from_secs(2);
/// How often it is looked whether it did.
const FIRST_REQUEST_LOOK: Duration = Duration::from_millis(5);
/// Wait after a failed accept, which means that file descriptors ran out: without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a worker whose place another one takes ends.
#[derive(Debug)]
pub(crate) struct Draining {
    /// Why, for people.
    pub(crate) reason: String,
    /// What is under way then is cut off.
    pub(crate) limit: Duration,
}

/// How a server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Not,
    /// Whoever has connected is answered once.
    Gently,
    /// Only what is under way is answered.
    Now,
}

/// A listening server.
pub(crate) struct Server {
    address: SocketAddr,
    stopping: watch::Sender<Stop>,
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
        let (stopping, stop) = watch::channel(Stop::Not);
        let accepting = tokio::spawn(accept(listener, router, stop));
        Ok(Self { address, stopping, accepting })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections and waits until the answers that are under way are sent, at most `grace`.
    pub(crate) async fn stop(self, grace: Duration) {
        self.end(Stop::Now, grace).await;
    }

    /// The same, but a connection that was accepted and has not asked yet is answered too: its client can't know that this server
    /// stops, and lost the other one to it.
    pub(crate) async fn drain(self, limit: Duration) {
        self.end(Stop::Gently, limit).await;
    }

    async fn end(self, how: Stop, grace: Duration) {
        self.stopping.send_replace(how);
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

/// A server that is opened later than it is made, and closed in several ways.
pub(crate) struct Closing {
    listener: Option<std::net::TcpListener>,
    router: Router,
    server: Option<Server>,
    /// It takes no more connections, and waits for the answers that are under way.
    draining: Option<tokio::task::JoinHandle<()>>,
}

impl Closing {
    /// Takes nothing yet.
    pub(crate) fn new(listener: std::net::TcpListener, router: Router) -> Self {
        Self { listener: Some(listener), router, server: None, draining: None }
    }

    /// Takes connections from now on, if it did not before.
    pub(crate) fn open(&mut self) -> std::io::Result<()> {
        if let Some(listener) = self.listener.take() {
            self.server = Some(Server::on(listener, self.router.clone())?);
        }
        Ok(())
    }

    /// Where it takes connections, once it does.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        let server = self.server.as_ref().map(Server::address);
        server.ok_or_else(|| std::io::ErrorKind::NotConnected.into())
    }

    /// Takes no more connections, waits for the answers that are under way, and then orders the stop; at the latest when the
    /// limit has passed, or when another stop is ordered.
    pub(crate) async fn drain(&mut self, draining: Draining, halt: &Halt) {
        let Draining { reason, limit } = draining;
        let Some(server) = self.server.take() else { return };
        // It is never cut off by this: whatever is left at the limit is told why first.
        let mut drained = tokio::spawn(server.drain(limit.saturating_mul(2)));
        let reason = tokio::select! {
            biased;
            _ = halt.wait() => None,
            _ = &mut drained => {
                halt.set(Cause { code: StopCode::Requested, reason });
                return;
            }
            () = tokio::time::sleep(limit) => Some(format!("{reason}; this request took longer than {} s", limit.as_secs())),
        };
        self.draining = Some(drained);
        if let Some(reason) = reason {
            halt.set(Cause { code: StopCode::Requested, reason });
        }
    }

    /// As [`Server::stop`].
    pub(crate) async fn stop(self, grace: Duration) {
        if let Some(server) = self.server {
            server.stop(grace).await;
        }
        if let Some(draining) = self.draining
            && tokio::time::timeout(grace, draining).await.is_err()
        {
            tracing::debug!("connections are cut off");
        }
    }
}

async fn accept(listener: TcpListener, router: Router, mut stop: watch::Receiver<Stop>) -> JoinSet<()> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut count = 0;
    loop {
        let next = tokio::select! {
            _ = told(&mut stop) => return connections,
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
async fn told(stop: &mut watch::Receiver<Stop>) -> Stop {
    stop.wait_for(|stop| *stop != Stop::Not).await.map_or(Stop::Now, |stop| *stop)
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
    mut stop: watch::Receiver<Stop>,
    _place: OwnedSemaphorePermit,
) {
    let stall = u32::try_from(STALL_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    // Both only make it better: small events are sent at once, and a reader that stalls is noticed.
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, stall);
    let router = TowerToHyperService::new(router);
    let asked = Arc::new(AtomicBool::new(false));
    let asks = Arc::clone(&asked);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        asks.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(number);
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let stopped = tokio::select! {
        ended = connection.as_mut() => Err(ended),
        how = told(&mut stop) => Ok(how),
    };
    let ended = match stopped {
        Err(ended) => Some(ended),
        // The library closes what has not asked.
        Ok(Stop::Gently) => first_request(connection.as_mut(), &asked).await,
        Ok(_) => None,
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

/// Goes on until a connection has asked, at most [`FIRST_REQUEST`]; how it ended, if it did.
async fn first_request<C: Future>(mut connection: Pin<&mut C>, asked: &AtomicBool) -> Option<C::Output> {
    let until = tokio::time::Instant::now() + FIRST_REQUEST;
    while !asked.load(Ordering::Relaxed) && tokio::time::Instant::now() < until {
        if let Ok(ended) = tokio::time::timeout(FIRST_REQUEST_LOOK, connection.as_mut()).await {
            return Some(ended);
        }
    }
    None
}
