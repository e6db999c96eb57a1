//! The listeners: the Unix socket with everything, and TCP with what may be read. Connections are bounded in number and
//! in how long they may dawdle; a stop lets running requests end, within limits.

mod connections;
mod outlet;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::connections::Client;
use self::connections::{Connections, Reception};
use self::outlet::Sending;
pub(crate) use self::outlet::{MIN_PIECE, Outlet, PIECE};

/// A client may take so long to send a request's head; between two requests of a connection too.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// Most connections over the Unix socket at once: a person and their scripts.
const MAX_LOCAL: usize = 128;
/// How long running requests may take to end when the node stops.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait after a failed accept (out of file descriptors), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// TCP.
    #[error(
        "the HTTP interface can't listen on {address}: {source}; choose another with `--http` or `http.listen`"
    )]
    Tcp {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The Unix socket.
    #[error("the socket {path} can't be opened: {source}")]
    Unix {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Listeners that are bound and answer nobody yet.
#[derive(Debug)]
pub struct Listeners {
    tcp: Option<(TcpListener, SocketAddr)>,
    unix: UnixListener,
    socket: PathBuf,
}

impl Listeners {
    /// Binds the socket at `socket`, and TCP at `address`. The caller owns the home folder, so a socket that is there is
    /// a dead process's. Clients that connect from now on wait for [`Listeners::serve`].
    pub async fn bind(socket: PathBuf, address: Option<SocketAddr>) -> Result<Self, ServeError> {
        let tcp = match address {
            Some(address) => {
                let failed = |source| ServeError::Tcp { address, source };
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                let bound = listener.local_addr().map_err(failed)?;
                Some((listener, bound))
            }
            None => None,
        };
        let unix = bind_unix(&socket).map_err(|source| ServeError::Unix { path: socket.clone(), source })?;
        Ok(Self { tcp, unix, socket })
    }

    /// Where the public interface listens.
    pub fn http(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().map(|(_, bound)| *bound)
    }

    /// Answers with `local` over the socket and with `public` over TCP, until `stop`.
    pub fn serve(
        self,
        local: Router,
        public: Router,
        max_connections: u32,
        stop: CancellationToken,
    ) -> Server {
        let http = self.http();
        let tasks = TaskTracker::new();
        tasks.spawn(accept_local(self.unix, local, tasks.clone(), stop.clone()));
        if let Some((listener, _)) = self.tcp {
            let connections = Connections::new(max_connections as usize);
            tasks.spawn(accept_public(listener, public, connections, tasks.clone(), stop.clone()));
        }
        tasks.close();
        Server { http, socket: self.socket, tasks, stop }
    }
}

/// The listeners at work.
#[derive(Debug)]
pub struct Server {
    http: Option<SocketAddr>,
    socket: PathBuf,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Server {
    /// Where the public interface listens.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Stops listening and waits for running requests, no longer than the grace.
    pub async fn close(self) {
        self.stop.cancel();
        let _ = std::fs::remove_file(&self.socket);
        if tokio::time::timeout(GRACE + Duration::from_secs(1), self.tasks.wait()).await.is_err() {
            tracing::warn!("some requests did not end in time");
        }
    }
}

async fn accept_local(listener: UnixListener, router: Router, tasks: TaskTracker, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_LOCAL));
    loop {
        // A place first: further clients wait in the system's queue.
        let accepted = tokio::select! {
            accepted = async {
                let place = places.clone().acquire_owned().await;
                (place, listener.accept().await)
            } => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            (Ok(place), Ok((io, _))) => {
                let (service, stop) = (TowerToHyperService::new(router.clone()), stop.clone());
                tasks.spawn(async move {
                    serve(io, service, stop).await;
                    drop(place);
                });
            }
            (Ok(_), Err(error)) => pause(error).await,
            (Err(_), _) => return,
        }
    }
}

async fn accept_public(
    listener: TcpListener,
    router: Router,
    connections: Arc<Connections>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = async {
                let place = connections.place().await;
                (place, listener.accept().await)
            } => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            (Some(permit), Ok((io, from))) => {
                // Answers are complete; waiting for more to send only delays them.
                let _ = io.set_nodelay(true);
                let place = connections.take(permit);
                let client = Client { address: from.ip().to_canonical(), outlet: Outlet::default() };
                let io = Sending::new(io, client.outlet.clone());
                let connection = Arc::clone(&place.connection);
                let service = Reception { router: router.clone(), client, connection };
                let stop = stop.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        () = serve(io, service, stop) => {}
                        () = place.connection.give_way.cancelled() => {}
                    }
                });
            }
            (Some(_), Err(error)) => pause(error).await,
            (None, _) => return,
        }
    }
}

async fn pause(error: io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn serve<S, T>(io: S, service: T, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: hyper::service::Service<Request<Incoming>, Response = Response<Body>> + Send,
    T::Future: Send,
    T::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(GRACE, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Longest path of a Unix socket that Linux takes, its terminating zero excluded.
const MAX_SOCKET_PATH: usize = 107;

/// Calls `with` with a path to `path` that is short enough for a socket address: through the open parent folder
/// where the path itself is too long.
pub fn with_short_path<T>(path: &Path, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= MAX_SOCKET_PATH {
        return with(path);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let folder = std::fs::File::open(parent)?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&folder);
    with(&Path::new(&format!("/proc/self/fd/{fd}")).join(name))
}

/// Opens the socket inside a folder of mode 0700 and moves it to its place with mode 0600, so that there is no moment at
/// which others could connect.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let parent = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let nursery = parent.join(".socket");
    match std::fs::remove_dir_all(&nursery) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::DirBuilder::new().mode(0o700).create(&nursery)?;
    let born = nursery.join("s");
    let listener = with_short_path(&born, |short| UnixListener::bind(short))?;
    std::fs::set_permissions(&born, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&born, path)?;
    std::fs::remove_dir(&nursery)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_socket_is_private_even_at_the_end_of_a_long_path() {
        let base = std::env::temp_dir().join(format!("steelyard-socket-{}", std::process::id()));
        let deep = base.join("d".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("steelyard.sock");
        let _listener = bind_unix(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(with_short_path(&path, |short| std::os::unix::net::UnixStream::connect(short)).is_ok());
        let _second = bind_unix(&path).unwrap();
        std::fs::remove_dir_all(&base).unwrap();
    }
}
