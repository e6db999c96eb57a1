//! Routes about pools: several models behind one address.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;

use super::guard::Body;
use super::stream::{Progress, job};
use super::types::{PoolInfo, PoolModelRequest, PoolRequest};
use super::{Api, catalogue, jobs};
use crate::error::{Code, Problem};
use crate::serving::ServingError;
use crate::serving::pool::{Pool, Settings, Wanted};

type Answer<T> = Result<Json<T>, Problem>;

pub(super) async fn list(State(api): State<Api>) -> Json<Vec<PoolInfo>> {
    Json(api.workers().pools().iter().map(Pool::info).collect())
}

pub(super) async fn one(State(api): State<Api>, Path(id): Path<u64>) -> Answer<PoolInfo> {
    Ok(Json(api.workers().pool(id)?.info()))
}

/// Opens a pool, and loads as many of its models as have room, unless they are to be loaded on demand.
pub(super) async fn open(
    State(api): State<Api>,
    Body(request): Body<PoolRequest>,
) -> Result<Response, Problem> {
    let settings = api.node().config().worker.clone();
    if request.references.is_empty() {
        return Err(Problem::new(
            Code::Usage,
            "`references` names no model; a pool begins with one at least",
        ));
    }
    if request.idle_secs == Some(0) {
        return Err(Problem::new(Code::Usage, "`idle_secs` is 0; leave it out to keep models loaded"));
    }
    let listen = jobs::listen(request.listen.as_deref(), &settings)?;
    let mut wanted = Vec::new();
    for text in &request.references {
        wanted.push(want(&api, text).await?);
    }
    let settings = Settings {
        listen,
        memory: request.memory,
        idle: request.idle_secs.map(Duration::from_secs),
        options: request.options.unwrap_or_else(|| jobs::default_options(&settings)),
        allow_missing: request.allow_missing,
        follow: request.follow,
    };
    let on_demand = request.on_demand;
    Ok(job(move |progress: Progress<PoolInfo>| async move {
        let pool = api.workers().open_pool(settings, wanted)?;
        let guard = pool.stop_unless_kept();
        if !on_demand {
            telling(&pool, &progress, pool.load_all()).await?;
        }
        guard.keep();
        Ok(pool.info())
    }))
}

pub(super) async fn stop(State(api): State<Api>, Path(id): Path<u64>) -> Answer<PoolInfo> {
    Ok(Json(api.workers().pool(id)?.stop().await))
}

pub(super) async fn add(
    State(api): State<Api>,
    Path(id): Path<u64>,
    Body(request): Body<PoolModelRequest>,
) -> Answer<PoolInfo> {
    let pool = api.workers().pool(id)?;
    let wanted = want(&api, &request.reference).await?;
    // Whether it is there already is said of what the others mean now.
    pool.look_again().await;
    pool.add(wanted)?;
    Ok(Json(pool.info()))
}

pub(super) async fn remove(
    State(api): State<Api>,
    Path((id, model)): Path<(u64, String)>,
) -> Answer<PoolInfo> {
    let pool = api.workers().pool(id)?;
    let member = member(&pool, &model)?;
    Ok(Json(pool.remove(member).await))
}

pub(super) async fn load(
    State(api): State<Api>,
    Path(id): Path<u64>,
    Body(request): Body<PoolModelRequest>,
) -> Result<Response, Problem> {
    let pool = api.workers().pool(id)?;
    let member = member(&pool, &request.reference)?;
    Ok(job(move |progress: Progress<PoolInfo>| async move {
        telling(&pool, &progress, pool.load_member(member)).await?;
        Ok(pool.info())
    }))
}

pub(super) async fn unload(
    State(api): State<Api>,
    Path(id): Path<u64>,
    Body(request): Body<PoolModelRequest>,
) -> Answer<PoolInfo> {
    let pool = api.workers().pool(id)?;
    pool.unload_member(member(&pool, &request.reference)?).await;
    Ok(Json(pool.info()))
}

fn member(pool: &Pool, name: &str) -> Result<u32, Problem> {
    pool.member(name).map_err(|error| Problem::new(Code::NotFound, error))
}

/// What a reference means, as a pool takes it.
async fn want(api: &Api, text: &str) -> Result<Wanted, Problem> {
    let reference = catalogue::parse(text)?;
    let resolved = jobs::resolve(api, &reference).await?;
    let (release, model, version) = (resolved.release, resolved.model, resolved.version);
    Ok(Wanted { reference, release, model, version })
}

/// Does `work`, telling how the pool is meanwhile.
async fn telling(
    pool: &Pool,
    progress: &Progress<PoolInfo>,
    work: impl Future<Output = Result<(), ServingError>>,
) -> Result<(), Problem> {
    let mut changed = pool.watch();
    tokio::pin!(work);
    loop {
        progress.tell(pool.info());
        tokio::select! {
            done = &mut work => return Ok(done?),
            Ok(()) = changed.changed() => {}
        }
    }
}
