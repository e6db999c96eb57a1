//! The connections of the public port: bounded in number, and those that nobody uses make room when all places are taken.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::outlet::Outlet;

/// A connection without a request for so long gives way when others wait for a place.
const IDLE: Duration = Duration::from_secs(1);
/// How often idle connections are looked for while somebody waits.
const LOOK: Duration = Duration::from_millis(250);

/// Who is at the other end of a connection, and how files are sent to it. An extension of each request.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// Where from.
    pub(crate) address: IpAddr,
    /// For bodies that are files.
    pub(crate) outlet: Outlet,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    requests: AtomicUsize,
    idle_since: Mutex<Instant>,
    /// Ends it.
    pub(super) give_way: CancellationToken,
}

impl Connection {
    fn idle(&self) -> MutexGuard<'_, Instant> {
        self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All connections of a listener.
#[derive(Debug)]
pub(super) struct Connections {
    places: Arc<Semaphore>,
    all: Mutex<BTreeMap<u64, Arc<Connection>>>,
    next: Mutex<u64>,
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    number: u64,
    pub(super) connection: Arc<Connection>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.all().remove(&self.number);
    }
}

impl Connections {
    pub(super) fn new(most: usize) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(most));
        Arc::new(Self { places, all: Mutex::default(), next: Mutex::default() })
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Connection>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place. While there is none, connections without a request are ended.
    pub(super) async fn place(self: &Arc<Self>) -> Option<OwnedSemaphorePermit> {
        loop {
            let wait = tokio::time::timeout(LOOK, Arc::clone(&self.places).acquire_owned());
            match wait.await {
                Ok(permit) => return permit.ok(),
                Err(_) => self.make_room(),
            }
        }
    }

    /// Ends every connection that was idle for [`IDLE`].
    fn make_room(&self) {
        for connection in self.all().values() {
            if connection.requests.load(Ordering::Acquire) == 0 && connection.idle().elapsed() >= IDLE {
                connection.give_way.cancel();
            }
        }
    }

    /// Takes a place for a connection that was accepted.
    pub(super) fn take(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        let connection = Arc::new(Connection {
            requests: AtomicUsize::new(0),
            idle_since: Mutex::new(Instant::now()),
            give_way: CancellationToken::new(),
        });
        let number = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next
        };
        self.all().insert(number, Arc::clone(&connection));
        Place { connections: Arc::clone(self), number, connection, _permit: permit }
    }
}

/// A request that runs, its answer's body included.
#[derive(Debug)]
struct Busy(Arc<Connection>);

impl Busy {
    fn new(connection: &Arc<Connection>) -> Self {
        connection.requests.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(connection))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.idle() = Instant::now();
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The router for one connection.
#[derive(Debug, Clone)]
pub(super) struct Reception {
    pub(super) router: Router,
    pub(super) client: Client,
    pub(super) connection: Arc<Connection>,
}

impl hyper::service::Service<Request<Incoming>> for Reception {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.client.clone());
        let (router, busy) = (self.router.clone(), Busy::new(&self.connection));
        Box::pin(async move {
            let response = router.oneshot(request).await?;
            Ok(response.map(|body| Body::new(Held { body, _busy: busy })))
        })
    }
}

/// A body that holds its connection's place against those who look for idle ones.
struct Held {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
