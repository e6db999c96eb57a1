//! Routes that read.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use registry::envelope::EnvelopeError;
use registry::statement::{RoleName, Root, Statement};
use registry::trust::{Ending, Member, Trust};
use registry::{Model, Nation, Timestamp, Verified};
use serde::Deserialize;
use serde_json::Value;

use super::guard::{Path, Query};
use super::stream::blocking;
use super::types::{
    Evidence, Health, MembershipEntry, MirrorStatus, ModelEntry, NationEntry, PeerInfo, PinEntry,
    RecallEntry, ReleaseDetail, Resolved, RoleEntry, RootEnding, Status, TransferInfo, Usage, WorkerInfo,
};
use super::{Api, catalogue};
use crate::error::{Code, Problem};
use crate::events::Event;
use crate::nation_file;

/// The description of every route.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

type Answer<T> = Result<Json<T>, Problem>;

pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "ok".to_owned(), warnings: Vec::new() })
}

pub(super) async fn ready(State(api): State<Api>) -> Answer<Health> {
    let node = api.node();
    let config = node.config();
    if node.addresses().is_empty() && !config.offline && !config.p2p.listen.is_empty() {
        return Err(Problem::new(Code::Busy, "the node does not listen for peers yet"));
    }
    let warnings = crate::log::view::status(node).await?.problems;
    Ok(Json(Health { status: "ok".to_owned(), warnings }))
}

pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

pub(super) async fn status(State(api): State<Api>) -> Answer<Status> {
    let store = api.store().clone();
    let (usage, trust) = blocking(move || Ok((store.usage()?, store.trust()))).await?;
    let own = trust.member(trust.own())?;
    let node = api.node();
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        nation: trust.own().clone(),
        fingerprint: own.fingerprint(),
        root_expires: own.root.expires,
        root_version: own.root.version,
        endings: endings(&trust, Timestamp::now()),
        peer_id: node.peer_id(),
        running: api.0.running,
        started: api.0.started,
        addresses: node.addresses(),
        reach: node.reach(),
        http: api.0.http.get().map(|address| format!("http://{address}")),
        peers: node.peers().len(),
        nations: trust.members().count(),
        transfers: node.transfers().iter().filter(|transfer| !transfer.state.is_over()).count(),
        workers: api.workers().list().iter().filter(|worker| !worker.state.is_over()).count(),
        statements: api.store().last_seq(),
        usage: Usage {
            blobs: usage.blobs,
            bytes: usage.bytes,
            partial_bytes: usage.partial_bytes,
            disk_free: usage.disk_free,
        },
        lease: node.leases().status(),
    }))
}

/// The roots that end within 90 days, the nearest first.
fn endings(trust: &Trust, now: Timestamp) -> Vec<RootEnding> {
    let entry = |(nation, member): (&Nation, &Member)| RootEnding {
        nation: nation.clone(),
        expires: member.root.expires,
        ending: Ending::of(member.root.expires, now),
    };
    let mut endings: Vec<_> =
        trust.members().map(entry).filter(|entry| entry.ending != Ending::Far).collect();
    endings.sort_by_key(|entry| entry.expires);
    endings
}

pub(super) async fn models(State(api): State<Api>) -> Answer<Vec<ModelEntry>> {
    let (store, access) = (api.store().clone(), api.access());
    Ok(Json(blocking(move || catalogue::Catalogue::read_for(&store, access)?.models()).await?))
}

pub(super) async fn model(
    State(api): State<Api>,
    Path((nation, name)): Path<(String, String)>,
) -> Answer<ModelEntry> {
    let model: Model = format!("{nation}/{name}").parse()?;
    let (store, access) = (api.store().clone(), api.access());
    let models = blocking(move || catalogue::Catalogue::read_for(&store, access)?.models()).await?;
    let missing = || Problem::new(Code::NotFound, format!("no release of `{model}` is known here"));
    models.into_iter().find(|entry| entry.model == model).map(Json).ok_or_else(missing)
}

pub(super) async fn release(State(api): State<Api>, Path(digest): Path<String>) -> Answer<ReleaseDetail> {
    let digest = digest.parse()?;
    let (store, access) = (api.store().clone(), api.access());
    Ok(Json(blocking(move || catalogue::Catalogue::read_for(&store, access)?.detail(&digest)).await?))
}

pub(super) async fn evidence(State(api): State<Api>, Path(digest): Path<String>) -> Answer<Evidence> {
    let digest = digest.parse()?;
    let (store, access) = (api.store().clone(), api.access());
    Ok(Json(blocking(move || catalogue::Catalogue::read_for(&store, access)?.evidence(&digest)).await?))
}

#[derive(Deserialize)]
pub(super) struct ResolveQuery {
    #[serde(rename = "ref")]
    reference: String,
}

pub(super) async fn resolve(State(api): State<Api>, Query(query): Query<ResolveQuery>) -> Answer<Resolved> {
    let (store, access) = (api.store().clone(), api.access());
    Ok(Json(blocking(move || catalogue::resolve_for(&store, &query.reference, access)).await?))
}

pub(super) async fn nations(State(api): State<Api>) -> Answer<Vec<NationEntry>> {
    let trust = api.store().trust();
    let peers = api.node().peers();
    let now = Timestamp::now();
    let entry = |nation: &registry::Nation, member: &registry::trust::Member| NationEntry {
        nation: nation.clone(),
        own: nation == trust.own(),
        fingerprint: member.fingerprint(),
        version: member.root.version,
        expires: member.root.expires,
        expired: member.root.expires <= now,
        ending: Ending::of(member.root.expires, now),
        standing: member.standing(),
        sequence: member.said().map(|said| said.sequence),
        pinned: member.pinned,
        addresses: nation_file::remembered(api.store(), nation),
        peers: peers.iter().filter(|peer| peer.nation == *nation).count(),
        roles: RoleName::ALL
            .into_iter()
            .map(|name| {
                let role = member.root.role(name);
                RoleEntry {
                    role: name.to_string(),
                    keys: role.keys.keys().copied().collect(),
                    threshold: role.threshold,
                }
            })
            .collect(),
    };
    Ok(Json(trust.members().map(|(nation, member)| entry(nation, member)).collect()))
}

/// What our nation said of others last.
pub(super) async fn memberships(State(api): State<Api>) -> Answer<Vec<MembershipEntry>> {
    let store = api.store().clone();
    let entries = blocking(move || {
        let mut entries = Vec::new();
        for (_, said) in store.trust().memberships() {
            let signed = store.statement(&said.statement)?;
            let statement = signed.map(|signed| signed.peek()).transpose().map_err(EnvelopeError::from)?;
            let Some(Statement::Membership(membership)) = statement else { continue };
            entries.push(MembershipEntry {
                member: membership.member,
                standing: membership.standing,
                sequence: membership.sequence,
                fingerprint: membership.fingerprint,
                reason: membership.reason,
                issued: membership.issued,
                statement: said.statement,
            });
        }
        Ok(entries)
    });
    Ok(Json(entries.await?))
}

/// A nation's roots, the first one first, as they travel.
pub(super) async fn roots(State(api): State<Api>, Path(nation): Path<String>) -> Answer<Vec<Value>> {
    let trust = api.store().trust();
    let member = trust.member(&Nation::new(&nation)?)?;
    let text = |root: &Verified<Root>| serde_json::from_slice(&root.proven().to_json());
    let roots: Result<Vec<Value>, _> = member.root.roots().map(text).collect();
    Ok(Json(roots.map_err(|error| Problem::new(Code::Internal, error))?))
}

pub(super) async fn recalls(State(api): State<Api>) -> Answer<Vec<RecallEntry>> {
    let (store, access) = (api.store().clone(), api.access());
    Ok(Json(blocking(move || Ok(catalogue::Catalogue::read_for(&store, access)?.recalls())).await?))
}

pub(super) async fn peers(State(api): State<Api>) -> Json<Vec<PeerInfo>> {
    Json(api.node().peers())
}

pub(super) async fn transfers(State(api): State<Api>) -> Json<Vec<TransferInfo>> {
    Json(api.node().transfers())
}

pub(super) async fn transfer(State(api): State<Api>, Path(id): Path<u64>) -> Answer<TransferInfo> {
    let found = api.node().transfers().into_iter().find(|transfer| transfer.id == id);
    found.map(Json).ok_or_else(|| Problem::new(Code::NotFound, format!("there is no transfer {id}")))
}

#[derive(Deserialize)]
pub(super) struct EventsQuery {
    #[serde(default)]
    kinds: String,
}

pub(super) async fn events(
    State(api): State<Api>,
    Query(query): Query<EventsQuery>,
) -> Result<Response, Problem> {
    let kinds: Vec<String> =
        query.kinds.split(',').map(str::trim).filter(|kind| !kind.is_empty()).map(str::to_owned).collect();
    if let Some(unknown) = kinds.iter().find(|kind| !Event::NAMES.contains(&kind.as_str())) {
        let shown: String = unknown.chars().take(40).collect();
        return Err(Problem::new(Code::Usage, format!("there are no events `{shown}`"))
            .hint(format!("the kinds are {}", Event::NAMES.join(", "))));
    }
    let (store, access) = (api.store().clone(), api.access());
    let wanted = move |event: Event| {
        let named = kinds.is_empty() || kinds.iter().any(|kind| kind == event.name());
        let (store, event) = (store.clone(), named.then_some(event));
        async move {
            let event = event?;
            let told =
                blocking(move || Ok(catalogue::may_see(&store, access, &event)?.then_some(event))).await;
            told.unwrap_or_else(|problem| {
                tracing::error!("an event is not told: whether it may be can't be read: {}", problem.detail);
                None
            })
        }
    };
    Ok(super::stream::events(api.node().events().subscribe(), wanted, api.0.stop.clone()))
}

pub(super) async fn workers(State(api): State<Api>) -> Json<Vec<WorkerInfo>> {
    Json(api.workers().list_with_memory())
}

pub(super) async fn mirror(State(api): State<Api>) -> Answer<MirrorStatus> {
    Ok(Json(crate::mirror::status(api.node()).await?))
}

pub(super) async fn pins(State(api): State<Api>) -> Answer<Vec<PinEntry>> {
    let (store, access) = (api.store().clone(), api.access());
    Ok(Json(blocking(move || Ok(catalogue::Catalogue::read_for(&store, access)?.pins())).await?))
}
