//! A whole node in one value: store, network, workers and the HTTP interface; started and stopped as one.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response};
use axum::response::IntoResponse;
use registry::statement::Standing;
use registry::store::{Store, StoreError};
use registry::trust::Member;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::api::server::{Listeners, ServeError, Server};
use crate::api::types::{Code, Problem};
use crate::api::{Access, Api, router};
use crate::config::{Config, ConfigError};
use crate::layout::Layout;
use crate::nation_file;
use crate::node::{Node, NodeError};
use crate::serving::Workers;

/// How long the network may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// There is no node in the folder.
    #[error("{0} holds no node")]
    NotInitialised(String),
    /// A setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The network.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A listener.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A task of this program failed.
    #[error("the node could not start: {0}")]
    Task(String),
}

impl From<HostError> for Problem {
    fn from(error: HostError) -> Self {
        match error {
            HostError::NotInitialised(_) => Self::new(Code::NotFound, error)
                .hint("make one with `steelyard init --nation NAME`, or name another folder with --home"),
            HostError::Config(error) => Self::new(Code::Usage, error),
            HostError::Store(error) => error.into(),
            HostError::Node(error) => error.into(),
            HostError::Serve(error) => Self::new(Code::Busy, error),
            HostError::Task(_) => Self::new(Code::Internal, error),
        }
    }
}

/// A started node.
pub struct Host {
    node: Node,
    workers: Workers,
    local: Router,
    server: Option<Server>,
    stop: CancellationToken,
}

impl Host {
    /// Opens the folder and starts everything: peers, workers, the socket and the HTTP interface.
    pub async fn start(config: Config) -> Result<Self, HostError> {
        let address = config.http.address()?;
        let (max, hosts) = (config.http.max_connections, config.http.hosts.clone());
        let socket = Layout::new(&config.home).socket();
        let (mut host, api) = Self::assemble(config, true).await?;
        let public = router(api.clone(), Access::Public, &hosts);
        // Where it listens is known before anything is answered: whoever finds the node ready finds its address too.
        match Listeners::bind(socket, address).await {
            Ok(listeners) => {
                if let Some(http) = listeners.http() {
                    api.listening(http);
                }
                host.server = Some(listeners.serve(host.local.clone(), public, max, host.stop.clone()));
                tokio::spawn(redial(host.node.clone(), host.stop.clone()));
                tokio::spawn(api.keep_house(host.stop.clone()));
                Ok(host)
            }
            Err(error) => {
                host.stop().await;
                Err(error.into())
            }
        }
    }

    /// Opens the folder for one command, without listeners. With `config.offline` there is no network either.
    pub async fn in_process(config: Config) -> Result<Self, HostError> {
        Ok(Self::assemble(config, false).await?.0)
    }

    async fn assemble(mut config: Config, running: bool) -> Result<(Self, Api), HostError> {
        config.check()?;
        let layout = Layout::new(&config.home);
        if !layout.is_initialised() {
            return Err(HostError::NotInitialised(config.home.display().to_string()));
        }
        let folder = layout.store();
        let store = tokio::task::spawn_blocking(move || Store::open(&folder))
            .await
            .map_err(|error| HostError::Task(error.to_string()))??;
        for (nation, _) in store.trust().members().filter(|(_, member)| is_active(member)) {
            let known = nation_file::remembered(&store, nation);
            let new: Vec<_> =
                known.into_iter().filter(|address| !config.p2p.peers.contains(address)).collect();
            config.p2p.peers.extend(new);
        }
        config.p2p.peers.truncate(crate::config::MAX_ADDRESSES);
        let (home, settings) = (config.home.clone(), config.worker.clone());
        let node = Node::start(config, store.clone()).await?;
        let workers = Workers::new(&home, store, node.events().clone(), settings, Arc::clone(node.leases()));
        workers.admit_by(crate::serve_keys::ServeKeys::new(layout.serve_keys()).watch());
        workers.fetch_by(node.clone());
        let stop = CancellationToken::new();
        let api = Api::new(node.clone(), workers.clone(), running, stop.clone());
        let local = router(api.clone(), Access::Local, &[]);
        Ok((Self { node, workers, local, server: None, stop }, api))
    }

    /// The network.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The worker processes.
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Where the public HTTP interface listens.
    pub fn http(&self) -> Option<std::net::SocketAddr> {
        self.server.as_ref().and_then(Server::http)
    }

    /// Answers a request as the Unix socket would.
    pub async fn request(&self, method: Method, path: &str, body: Vec<u8>) -> Response<Body> {
        let request = match Request::builder().method(method).uri(path).body(Body::from(body)) {
            Ok(request) => request,
            Err(error) => return Problem::new(Code::Usage, error).into_response(),
        };
        match self.local.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Waits until `POST /v1/shutdown`.
    pub async fn asked_to_stop(&self) {
        self.stop.cancelled().await;
    }

    /// Stops everything in order: no new requests, workers, peers. What was acknowledged is on the disk already.
    pub async fn stop(self) {
        self.stop.cancel();
        self.workers.shutdown().await;
        if let Some(server) = self.server {
            server.close().await;
        }
        if tokio::time::timeout(GOODBYE, self.node.shutdown()).await.is_err() {
            tracing::warn!("the network did not stop in time");
        }
    }
}

fn is_active(member: &Member) -> bool {
    member.standing() == Standing::Active
}

/// Keeps dialling the remembered addresses of nations that were trusted while the node ran. The ones from the settings
/// and from before the start are the network's own business.
async fn redial(node: Node, stop: CancellationToken) {
    let pause = Duration::from_secs(node.config().p2p.redial_secs);
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        let store = node.store();
        let connected = node.peers();
        let known = &node.config().p2p.peers;
        for (nation, _) in store.trust().members().filter(|(_, member)| is_active(member)) {
            for address in nation_file::remembered(store, nation) {
                let here = connected.iter().any(|peer| address.ends_with(&format!("/p2p/{}", peer.peer_id)));
                if here || known.contains(&address) {
                    continue;
                }
                if let Err(error) = node.dial(address).await {
                    tracing::debug!(%error, "an ally's node is still away");
                }
            }
        }
    }
}
