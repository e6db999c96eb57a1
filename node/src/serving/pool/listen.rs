//! Accepts the connections of a pool's address, with the limits that a public one needs.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::pass::Upstreams;
use super::{Pool, front};

/// Most connections at once; more wait in the kernel. Each costs a task, buffers and connections to workers.
const MAX_CONNECTIONS: usize = 512;
/// Longest time for a request's head to arrive, and for a connection to be idle between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of a request's head.
const MAX_HEAD: usize = 32 * 1024;
/// A reader that takes nothing of an answer for so long is cut off.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long what is under way may take to hear that the pool stops: its workers are told within less.
const GRACE: Duration = Duration::from_secs(2);
/// Wait after a failed accept, which means that file descriptors ran out: without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers what comes to `listener` until the pool is closed. Call it within a Tokio runtime.
pub(super) fn begin(pool: Pool, listener: std::net::TcpListener) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    tokio::spawn(async move {
        let closing = pool.0.closing.clone();
        tokio::select! {
            () = accept(listener, front::router(pool), closing.clone()) => {}
            () = closing.cancelled() => {}
        }
    });
    Ok(())
}

async fn accept(listener: TcpListener, router: Router, closing: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (router, closing) = (router.clone(), closing.clone());
                tokio::spawn(async move {
                    serve(stream, router, closing).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, router: Router, closing: CancellationToken) {
    let stall = u32::try_from(STALL_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    // Both only make it better: small events are sent at once, and a reader that stalls is noticed.
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, stall);
    let router = TowerToHyperService::new(router);
    // They end with this connection.
    let upstreams = Upstreams::default();
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(upstreams.clone());
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(GRACE, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
