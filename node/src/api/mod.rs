//! The HTTP interface: one router for the Unix socket, for TCP and for commands that run without a node.
//!
//! ```text
//! Unix socket, mode 0600   everything            (Access::Local)
//! TCP, loopback by default what may be read      (Access::Public), and pushing with a token for it (hub/push/)
//! in process               everything, no socket (Access::Local)
//! ```
//!
//! **Who reads.** Nobody proves a nation over TCP: whoever reaches the port is taken for somebody of this node's own nation,
//! whose operator decided who may. (The hub interface may be set to ask for a token besides.) So it shows what is releasable to that nation and nothing else; a release that another
//! nation let slip here is shown to the operator alone.
//!
//! Answers are JSON; failures are problem details (RFC 9457, [`crate::error::Problem`]); long jobs are server-sent events.
//! `openapi.json` beside this file describes every route, and a test holds the two together; the OCI interface (`oci/`) is described by
//! its own specification, and answers and fails as that says.

mod admin;
mod attach;
mod catalogue;
mod guard;
mod hub;
mod jobs;
mod log;
mod oci;
mod oidc;
mod policy;
mod pools;
mod problem;
mod read;
pub mod server;
mod staged;
mod stream;
mod tokens;
pub mod types;
mod verdict;

pub(crate) use self::hub::text;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, on, post, put};
use registry::Timestamp;
use registry::envelope::MAX_SIGNED;
use registry::store::Store;
use tokio_util::sync::CancellationToken;

use crate::error::{Code, Problem};
use crate::node::Node;
use crate::oidc::{MAX_ID_TOKEN, People};
use crate::serving::Workers;
use crate::wire::MAX_ADD_CHECKPOINT;

/// The largest body that the socket takes is a signed statement or a nation file.
const MAX_BODY: usize = MAX_SIGNED;
/// The public interface takes no bodies but those of `add-checkpoint` and of who signs in, which have their own limits.
const MAX_PUBLIC_BODY: usize = 1024;
/// A public request that reads is answered within this, or with a problem; streams are not meant.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Who may reach a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whoever may open the socket, or this process: everything.
    Local,
    /// Whoever reaches the TCP port: reading only.
    Public,
}

/// What every handler works on. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Inner>, Access);

struct Inner {
    node: Node,
    workers: Workers,
    started: Timestamp,
    running: bool,
    http: OnceLock<SocketAddr>,
    stop: CancellationToken,
    hub: hub::Hub,
    verdicts: verdict::Verdicts,
    people: Option<People>,
    oci: Arc<oci::Oci>,
}

impl Api {
    /// The interface of `node`. `running` tells a node from a command that works on the folder by itself; `stop` is
    /// cancelled by `POST /v1/shutdown` and ends live streams.
    pub fn new(node: Node, workers: Workers, running: bool, stop: CancellationToken) -> Self {
        let started = Timestamp::now();
        let layout = crate::layout::Layout::new(&node.config().home);
        let hub = hub::Hub::new(&layout, node.store().own(), &node.config().hub);
        let (http, oci, verdicts) = (OnceLock::new(), Arc::default(), verdict::Verdicts::default());
        let people = People::new(&node.config().oidc);
        let inner = Inner { node, workers, started, running, http, stop, hub, verdicts, people, oci };
        Self(Arc::new(inner), Access::Local)
    }

    /// Tells where the public interface listens, once it does.
    pub fn listening(&self, http: SocketAddr) {
        let _ = self.0.http.set(http);
    }

    /// Throws away what was staged and not published in time, until `stop`.
    pub(crate) async fn keep_house(self, stop: CancellationToken) {
        self.hub().push.keep_house(stop).await;
    }

    fn node(&self) -> &Node {
        &self.0.node
    }

    fn store(&self) -> &Store {
        self.0.node.store()
    }

    fn access(&self) -> Access {
        self.1
    }

    fn hub(&self) -> &hub::Hub {
        &self.0.hub
    }

    fn people(&self) -> Option<&People> {
        self.0.people.as_ref()
    }

    fn verdicts(&self) -> &verdict::Verdicts {
        &self.0.verdicts
    }

    fn oci(&self) -> Arc<oci::Oci> {
        Arc::clone(&self.0.oci)
    }

    fn workers(&self) -> &Workers {
        &self.0.workers
    }
}

/// One route of the table.
struct Route {
    method: &'static str,
    path: &'static str,
    access: Access,
    handler: MethodRouter<Api>,
}

/// Every route, in the order of `openapi.json`.
fn routes() -> Vec<Route> {
    let mut table = Vec::new();
    let mut route = |method, path, access, handler| table.push(Route { method, path, access, handler });
    use Access::{Local, Public};
    route("get", "/healthz", Public, get(read::health));
    route("get", "/readyz", Public, get(read::ready));
    route("get", "/v1/openapi.json", Public, get(read::openapi));
    route("get", "/v1/status", Public, get(read::status));
    route("get", "/v1/models", Public, get(read::models));
    route("get", "/v1/models/{nation}/{name}", Public, get(read::model));
    route("get", "/v1/releases/{digest}", Public, get(read::release));
    route("get", "/v1/releases/{digest}/evidence", Public, get(read::evidence));
    route("get", "/v1/releases/{digest}/attachments", Public, get(attach::list));
    route("get", "/v1/releases/{digest}/card", Public, get(policy::card));
    route("get", "/v1/resolve", Public, get(read::resolve));
    route("get", "/v1/nations", Public, get(read::nations));
    route("get", "/v1/nations/{nation}/roots", Public, get(read::roots));
    route("get", "/v1/recalls", Public, get(read::recalls));
    route("get", "/v1/peers", Public, get(read::peers));
    route("get", "/v1/transfers", Public, get(read::transfers));
    route("get", "/v1/transfers/{id}", Public, get(read::transfer));
    route("get", "/v1/events", Public, get(read::events));
    route("get", "/v1/workers", Public, get(read::workers));
    route("get", "/v1/pins", Public, get(read::pins));
    route("get", "/v1/mirror", Public, get(read::mirror));
    route("get", "/v1/policy", Local, get(policy::show));
    route("get", "/v1/policy/explain", Local, get(policy::explain));
    route("post", "/v1/policy/check", Local, post(policy::check));
    route("get", "/v1/log", Public, get(log::status));
    route("get", "/v1/log/monitor", Local, get(log::monitor));
    route("get", "/v1/log/evidence", Public, get(log::evidence));
    route("get", "/v1/log/evidence/{name}", Public, get(log::evidence_file));
    route("get", "/v1/log/place/{digest}", Public, get(log::place));
    route("get", "/v1/log/entries/{nation}", Public, get(log::entries));
    route("get", "/log/{nation}/checkpoint", Public, get(log::checkpoint));
    route("get", "/log/{nation}/tile/{*path}", Public, get(log::tile));
    let cosigning = DefaultBodyLimit::max(MAX_ADD_CHECKPOINT);
    route("post", "/log/add-checkpoint", Public, post(log::add_checkpoint).layer(cosigning));
    route("post", "/v1/log/evidence", Local, post(log::examine));
    route("post", "/v1/log/settle/{nation}", Local, post(log::settle));
    route("post", "/v1/log/recover", Local, post(log::recover));
    route("get", "/v1/bandwidth", Local, get(admin::bandwidth));
    route("put", "/v1/bandwidth", Local, put(admin::set_bandwidth));
    route("get", "/v1/tokens", Local, get(tokens::list));
    route("post", "/v1/tokens", Local, post(tokens::create));
    route("delete", "/v1/tokens/{which}", Local, delete(tokens::revoke));
    route("get", "/v1/oidc", Public, get(oidc::issuer));
    let signing_in = DefaultBodyLimit::max(2 * MAX_ID_TOKEN);
    route("post", "/v1/oidc/token", Public, post(oidc::exchange).layer(signing_in));
    route("get", "/v1/staged", Local, get(staged::list));
    route("post", "/v1/staged/review", Local, post(staged::review));
    route("post", "/v1/staged/checkout", Local, post(staged::checkout));
    route("post", "/v1/staged/clear", Local, post(staged::clear));
    route("get", "/v1/memberships", Local, get(read::memberships));
    route("get", "/v1/sequences", Local, get(admin::sequences));
    route("post", "/v1/pull", Local, post(jobs::pull));
    route("post", "/v1/drafts", Local, post(jobs::draft));
    route("post", "/v1/statements", Local, post(admin::statement));
    route("post", "/v1/nations", Local, post(admin::pin_nation));
    route("delete", "/v1/nations/{nation}", Local, delete(admin::unpin_nation));
    route("put", "/v1/pins/{reference}", Local, put(admin::pin));
    route("delete", "/v1/pins/{reference}", Local, delete(admin::unpin));
    route("post", "/v1/gc", Local, post(admin::gc));
    route("post", "/v1/verify", Local, post(jobs::verify));
    route("post", "/v1/receipts", Local, post(admin::receipt));
    route("post", "/v1/export", Local, post(admin::export));
    route("post", "/v1/attachments", Local, post(attach::attach));
    route("post", "/v1/checkout", Local, post(attach::checkout));
    route("post", "/v1/import", Local, post(admin::import));
    route("post", "/v1/have", Local, post(admin::have));
    route("post", "/v1/workers", Local, post(jobs::serve));
    route("delete", "/v1/workers/{id}", Local, delete(admin::stop_worker));
    route("post", "/v1/workers/{id}/prove", Local, post(admin::prove_worker));
    route("post", "/v1/workers/{id}/swap", Local, post(jobs::swap));
    route("get", "/v1/pools", Public, get(pools::list));
    route("post", "/v1/pools", Local, post(pools::open));
    route("get", "/v1/pools/{id}", Public, get(pools::one));
    route("delete", "/v1/pools/{id}", Local, delete(pools::stop));
    route("post", "/v1/pools/{id}/models", Local, post(pools::add));
    route("delete", "/v1/pools/{id}/models/{model}", Local, delete(pools::remove));
    route("post", "/v1/pools/{id}/load", Local, post(pools::load));
    route("post", "/v1/pools/{id}/unload", Local, post(pools::unload));
    route("post", "/v1/peers", Local, post(admin::dial));
    route("post", "/v1/sync", Local, post(admin::sync));
    route("post", "/v1/shutdown", Local, post(admin::shutdown));
    table
}

/// The router for whoever has `access`; `hosts` are the further names that a public request may be for.
pub fn router(api: Api, access: Access, hosts: &[String]) -> Router {
    let mut router = Router::new();
    for route in routes() {
        let handler = match (access, route.access) {
            (Access::Public, Access::Local) => forbidden(route.method),
            _ => route.handler,
        };
        router = router.route(route.path, handler);
    }
    if api.node().config().hub.enabled {
        router = router.merge(hub::routes());
    }
    // What another specification describes is not in `openapi.json`.
    router = router.merge(oci::router());
    let long = match api.node().config().hub.enabled {
        true => hub::long_routes(),
        false => Router::new(),
    };
    let api = Api(api.0, access);
    let long = long.with_state(api.clone());
    let router = router.fallback(hub::unknown).method_not_allowed_fallback(wrong_method).with_state(api);
    let router = match access {
        Access::Local => router.layer(DefaultBodyLimit::max(MAX_BODY)).merge(long),
        Access::Public => {
            let hosts = guard::Hosts::new(hosts);
            router
                .layer(DefaultBodyLimit::max(MAX_PUBLIC_BODY))
                .layer(middleware::from_fn(in_time))
                .merge(long)
                .layer(middleware::from_fn(move |request, next| guard::host(hosts.clone(), request, next)))
        }
    };
    router.layer(middleware::from_fn(guard::headers)).layer(middleware::from_fn(trace))
}

fn forbidden(method: &str) -> MethodRouter<Api> {
    use axum::routing::MethodFilter;
    let filter = match method {
        "post" => MethodFilter::POST,
        "put" => MethodFilter::PUT,
        "delete" => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    };
    on(filter, || async {
        Problem::new(Code::Forbidden, "this interface is for reading only")
            .hint("use the `steelyard` command on the node's machine, which speaks to its Unix socket")
    })
}

fn unknown() -> Problem {
    Problem::new(Code::NotFound, "there is no such route").hint("GET /v1/openapi.json lists every one")
}

async fn wrong_method() -> Response {
    let mut problem = Problem::new(Code::Usage, "this route does not take that method");
    problem.status = 405;
    problem.hint("GET /v1/openapi.json lists every route with its methods").into_response()
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(READ_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let limit = READ_TIMEOUT.as_secs();
            Problem::new(Code::Busy, format!("the node could not answer within {limit} s")).into_response()
        }
    }
}

async fn trace(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().chars().take(200).collect::<String>();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    tracing::debug!(%method, path, status, took_ms = started.elapsed().as_millis() as u64, "request");
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_description_and_the_routes_are_the_same() {
        let document: serde_json::Value = serde_json::from_str(read::OPENAPI).unwrap();
        let mut described = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                assert!(operation["summary"].is_string(), "{method} {path} has no summary");
                assert!(operation["responses"].is_object(), "{method} {path} has no responses");
                let local = operation["x-access"] == "local";
                described.insert((method.clone(), path.clone(), local));
            }
        }
        let real: BTreeSet<_> = routes()
            .into_iter()
            .map(|route| (route.method.to_owned(), route.path.to_owned(), route.access == Access::Local))
            .collect();
        assert_eq!(described, real);
    }

    #[test]
    fn every_reference_in_the_description_leads_somewhere() {
        let document: serde_json::Value = serde_json::from_str(read::OPENAPI).unwrap();
        let mut open = vec![&document];
        while let Some(value) = open.pop() {
            match value {
                serde_json::Value::Object(map) => {
                    if let Some(target) = map.get("$ref").and_then(|target| target.as_str()) {
                        let pointer = target.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{target}");
                    }
                    open.extend(map.values());
                }
                serde_json::Value::Array(list) => open.extend(list),
                _ => {}
            }
        }
    }
}
