//! Routes about logs: for people and programs under `/v1/log`, and for any C2SP client and witness under `/log`.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use registry::{Digest, Nation};
use serde::Deserialize;

use super::Api;
use super::guard::{Path, Query, Raw};
use super::stream::blocking;
use super::types::{Done, EvidenceEntry, Examined, LogPage, LogPlace, LogRecovered, LogStatus, Monitored};
use crate::error::{Code, Problem};
use crate::log::{append, book, view, witness};
use crate::wire::LogRefusal;

type Answer<T> = Result<Json<T>, Problem>;

/// Entries of one page at most.
const MAX_PAGE: u64 = 1000;
/// Longest wait for a statement's place that a caller may ask for.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// What a cosignature over HTTP costs of the allowance that all callers share.
const COST: f64 = 4.0;
/// A whole tile and an entry never change.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

pub(super) async fn status(State(api): State<Api>) -> Answer<LogStatus> {
    Ok(Json(view::status(api.node()).await?))
}

#[derive(Deserialize)]
pub(super) struct PageQuery {
    #[serde(default)]
    from: u64,
    limit: Option<u64>,
}

pub(super) async fn entries(
    State(api): State<Api>,
    Path(nation): Path<String>,
    Query(query): Query<PageQuery>,
) -> Answer<LogPage> {
    let nation = Nation::new(&nation)?;
    let store = api.store().clone();
    let limit = query.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE);
    Ok(Json(blocking(move || view::page(&store, &nation, query.from, limit)).await?))
}

pub(super) async fn monitor(State(api): State<Api>) -> Answer<Monitored> {
    let node = api.node().clone();
    Ok(Json(blocking(move || view::monitor(&node)).await?))
}

#[derive(Deserialize)]
pub(super) struct PlaceQuery {
    /// Milliseconds to wait for the entry and for the cosignatures of the allies that are connected.
    #[serde(default)]
    wait_ms: u64,
}

pub(super) async fn place(
    State(api): State<Api>,
    Path(digest): Path<String>,
    Query(query): Query<PlaceQuery>,
) -> Answer<LogPlace> {
    let digest: Digest = digest.parse()?;
    let until = Instant::now() + Duration::from_millis(query.wait_ms).min(MAX_WAIT);
    let mut changes = api.node().logs().watch();
    loop {
        let found = view::place(api.node(), &digest).await?;
        let settled = found.logged.is_some() && found.expected.is_empty();
        let left = until.saturating_duration_since(Instant::now());
        if settled || left.is_zero() || !view::is_hopeful(api.node(), &found) {
            return Ok(Json(found));
        }
        let _ = tokio::time::timeout(left, changes.changed()).await;
    }
}

pub(super) async fn recover(State(api): State<Api>) -> Answer<LogRecovered> {
    let node = api.node();
    if !node.logs().appends() {
        return Err(Problem::new(Code::Usage, "this node does not hold its nation's log key")
            .hint("run it at the node that appends: the one with keys/log.key"));
    }
    let done = append::recover(node).await?;
    Ok(Json(LogRecovered { nation: node.store().own(), from: done.from, to: done.to, asked: done.asked }))
}

#[derive(Deserialize)]
pub(super) struct SettleQuery {
    /// Drop what is here of the log, and follow it anew from peers.
    #[serde(default)]
    anew: bool,
}

/// A person decided: the log is followed again, from what is here or from its first entry.
pub(super) async fn settle(
    State(api): State<Api>,
    Path(nation): Path<String>,
    Query(query): Query<SettleQuery>,
) -> Answer<Done> {
    let nation = Nation::new(&nation)?;
    let store = api.store().clone();
    let named = nation.clone();
    // Nothing is fetched or cosigned of it meanwhile.
    let turn = api.node().logs().turn(&nation);
    let _turn = turn.lock().await;
    if !blocking(move || Ok(book::settle(&store, &named, query.anew)?)).await? {
        return Err(Problem::new(
            Code::NotFound,
            format!("no evidence stands against the log of `{nation}`"),
        )
        .hint("`steelyard evidence ls` shows what does"));
    }
    tracing::warn!(%nation, anew = query.anew, "a person settled the dispute about this log; it is followed again");
    if query.anew && nation == api.store().own() {
        api.node().logs().begin_again();
    }
    api.node().logs().changed();
    api.node().logs().wake();
    Ok(Json(Done {}))
}

pub(super) async fn evidence(State(api): State<Api>) -> Answer<Vec<EvidenceEntry>> {
    let store = api.store().clone();
    Ok(Json(blocking(move || Ok(view::evidence(&store)?)).await?))
}

/// Says what evidence proves, by the keys of the nations that are pinned here; nothing is kept.
pub(super) async fn examine(State(api): State<Api>, Raw(body): Raw) -> Answer<Examined> {
    let store = api.store().clone();
    let proved = blocking(move || {
        book::prove(&store, &body)
            .map_err(|why| Problem::new(Code::Usage, format!("this proves nothing: {why}")))
    });
    Ok(Json(proved.await?.into()))
}

pub(super) async fn evidence_file(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let store = api.store().clone();
    let json = blocking(move || {
        let found = view::evidence(&store)?.into_iter().find(|entry| entry.name == name);
        let Some(entry) = found else {
            return Err(Problem::new(Code::NotFound, "there is no such evidence here")
                .hint("`steelyard evidence ls` lists what there is"));
        };
        book::read_evidence(&store, &entry.name)?
            .ok_or_else(|| Problem::new(Code::Disk, format!("{} can't be read", entry.path)))
    })
    .await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

fn unknown(nation: &Nation) -> Problem {
    Problem::new(Code::NotFound, format!("nothing of a log of `{nation}` is known here"))
}

/// C2SP tlog-tiles: the newest checkpoint. It changes, so it is not kept.
pub(super) async fn checkpoint(
    State(api): State<Api>,
    Path(nation): Path<String>,
) -> Result<Response, Problem> {
    let nation = Nation::new(&nation)?;
    let store = api.store().clone();
    let named = nation.clone();
    let head = blocking(move || Ok(book::head(&store, &named)?)).await?.ok_or_else(|| unknown(&nation))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], head.note).into_response())
}

/// C2SP tlog-tiles: a tile of hashes or of entries.
pub(super) async fn tile(
    State(api): State<Api>,
    Path((nation, path)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let nation = Nation::new(&nation)?;
    let store = api.store().clone();
    let named = nation.clone();
    let tile = blocking(move || Ok(book::tile(&store, &named, &path)?)).await?;
    let tile = tile.ok_or_else(|| {
        Problem::new(Code::NotFound, format!("the log of `{nation}` has no such tile here"))
    })?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CACHE_CONTROL, IMMUTABLE),
    ];
    Ok((headers, tile).into_response())
}

/// C2SP tlog-witness. It is on the interface for reading too: only a pinned nation's log can make it do anything, which
/// is to vouch that this log grew.
pub(super) async fn add_checkpoint(State(api): State<Api>, Raw(body): Raw) -> Result<Response, Problem> {
    let plain = |status: StatusCode, text: String| {
        (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
    };
    if !api.node().logs().allow_http(COST, Instant::now()) {
        return Ok(plain(StatusCode::TOO_MANY_REQUESTS, "asked too often; try again later\n".to_owned()));
    }
    Ok(match witness::cosign(api.node(), None, body.to_vec()).await? {
        Ok(lines) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], lines).into_response(),
        Err((LogRefusal::Conflict, size)) => {
            (StatusCode::CONFLICT, [(header::CONTENT_TYPE, "text/x.tlog.size")], format!("{size}\n"))
                .into_response()
        }
        Err((why, _)) => {
            let status = match why {
                LogRefusal::Unknown | LogRefusal::NoWitness => StatusCode::NOT_FOUND,
                LogRefusal::BadSignature | LogRefusal::Disputed => StatusCode::FORBIDDEN,
                LogRefusal::BadProof => StatusCode::UNPROCESSABLE_ENTITY,
                LogRefusal::Busy => StatusCode::TOO_MANY_REQUESTS,
                LogRefusal::Malformed | LogRefusal::Conflict => StatusCode::BAD_REQUEST,
            };
            plain(status, format!("{}\n", why.as_str()))
        }
    })
}
