//! Pushing, as the hub's clients do it, into the staging area of this node's own nation. `docs/hub.md` says what they get.
//!
//! Whoever pushes shows a token of scope `stage` or `admin`. To them a staged branch stands in the place of the channel of its
//! name, so that a client finds again what it pushed; everybody else sees releases alone.

mod body;
mod commit;
mod lfs;
mod refs;
mod released;
mod repos;
mod seal;
mod view;
mod xet;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post, put};
use registry::{Model, Nation, Timestamp};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub(super) use self::refs::{commits, refs};
pub(in super::super) use self::released::Released;
pub(super) use self::view::{content, view};

use self::seal::Seals;
use super::super::Api;
use super::super::verdict::Known;
use super::caller::Caller;
use super::refusal::Refusal;
use crate::config;
use crate::staging::{Area, Author, Limits, StagingError};
use crate::tokens::Scope;

/// Largest JSON of a question: the samples of 256 files, or a model card.
const MAX_JSON: usize = 4 * 1024 * 1024;
/// Shards whose files are put together at once: each keeps a core and the disk busy.
const SHARDS: usize = 2;
/// Uploads that are written at once, each by a thread of its own; further ones wait. The Xet client alone has up to 64.
const UPLOADS: usize = 128;
/// How often what is too old is thrown away.
const KEEP_HOUSE: Duration = Duration::from_secs(3600);
const GIB: u64 = 1024 * 1024 * 1024;

/// What pushing remembers.
#[derive(Debug)]
pub(in super::super) struct Push {
    /// The staging area.
    pub(in super::super) area: Arc<Area>,
    nation: Nation,
    enabled: bool,
    seals: Seals,
    /// Commits as they are shown, by name.
    views: Mutex<HashMap<String, Arc<Known>>>,
    shards: Arc<Semaphore>,
    uploads: Semaphore,
}

impl Push {
    pub(super) fn new(home: PathBuf, nation: Nation, settings: &config::Hub) -> Self {
        let limits = Limits {
            bytes: settings.staging_gib.saturating_mul(GIB),
            age: i64::from(settings.staging_days) * registry::timestamp::DAY,
        };
        Self {
            area: Arc::new(Area::new(home, nation.clone(), limits)),
            nation,
            enabled: settings.push,
            seals: Seals::new(),
            views: Mutex::default(),
            shards: Arc::new(Semaphore::new(SHARDS)),
            uploads: Semaphore::new(UPLOADS),
        }
    }

    /// Throws away what is too old, until `stop`.
    pub(in super::super) async fn keep_house(&self, stop: CancellationToken) {
        loop {
            let area = Arc::clone(&self.area);
            match tokio::task::spawn_blocking(move || area.keep_house(Timestamp::now())).await {
                Ok(Ok(0)) => {}
                Ok(Ok(bytes)) => tracing::info!(bytes, "what was staged and not published in time is gone"),
                Ok(Err(error)) => tracing::warn!(%error, "the staging area could not be looked through"),
                Err(error) => tracing::error!(%error, "a blocking job failed"),
            }
            tokio::select! {
                () = tokio::time::sleep(KEEP_HOUSE) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// Routes that answer at once.
pub(super) fn routes() -> Router<Api> {
    let json = || DefaultBodyLimit::max(MAX_JSON);
    Router::new()
        .route("/api/repos/create", post(repos::create).layer(json()))
        .route("/api/repos/delete", delete(repos::remove).layer(json()))
        .route("/api/validate-yaml", post(repos::validate).layer(json()))
        .route(
            "/api/models/{nation}/{name}/branch/{*branch}",
            post(repos::branch).delete(repos::unbranch).layer(json()),
        )
        .route(
            "/api/models/{nation}/{name}/tag/{*revision}",
            post(repos::tag).delete(repos::untag).layer(json()),
        )
        .route("/api/models/{nation}/{name}/preupload/{revision}", post(commit::preupload).layer(json()))
        .route("/api/models/{nation}/{name}/xet-write-token/{revision}", get(xet::token))
        .route("/{nation}/{name}/info/lfs/objects/batch", post(lfs::batch).layer(json()))
        .route("/{nation}/{name}/info/lfs/verify", post(lfs::verify).layer(json()))
        .route("/xet/v1/chunks/{prefix}/{hash}", get(xet::chunk))
}

/// Routes whose bodies are long or whose work is: they have their own limits in time.
pub(in super::super) fn long_routes() -> Router<Api> {
    Router::new()
        .route("/api/models/{nation}/{name}/commit/{revision}", post(commit::commit))
        .route("/{nation}/{name}/info/lfs/content/{oid}", put(lfs::put).post(lfs::join))
        .route("/xet/v1/xorbs/{prefix}/{hash}", post(xet::xorb))
        .route("/xet/v1/shards", post(xet::shard))
        .route("/xet/v2/shards", post(xet::newer))
}

/// Whether a bearer may push at all.
fn may_stage(api: &Api, caller: &Caller) -> bool {
    let scope = caller.bearer.as_ref().map(|bearer| bearer.scope);
    api.hub().push.enabled && matches!(scope, Some(Scope::Stage | Scope::Admin))
}

/// Who pushes, if they may.
fn author(api: &Api, caller: &Caller) -> Result<Author, Refusal> {
    if !api.hub().push.enabled {
        return Err(Refusal::ReadOnly);
    }
    let Some(bearer) = &caller.bearer else {
        return Err(Refusal::push(
            401,
            Some("RepoNotFound"),
            "pushing takes a token of scope `stage`; ask this node's operator for one",
        ));
    };
    if bearer.scope == Scope::Read {
        return Err(Refusal::push(
            403,
            None,
            "this token is for reading; pushing takes one of scope `stage` (`steelyard token create NAME --scope stage`)",
        ));
    }
    let (id, name) = (bearer.id.clone(), bearer.name.clone());
    Ok(Author { id, name, admin: bearer.scope == Scope::Admin })
}

/// The model to push to: one of this node's own nation.
fn own_model(api: &Api, caller: &Caller, nation: &str, name: &str) -> Result<Model, Refusal> {
    let text = format!("{nation}/{name}");
    let shown: String = text.chars().take(160).collect();
    let Ok(model) = text.parse::<Model>() else {
        return Err(caller.no_model(format!("`{shown}` is no model's name: a model is `nation/name`")));
    };
    let own = &api.hub().push.nation;
    if model.nation != *own {
        return Err(Refusal::push(
            403,
            None,
            format!("this node belongs to `{own}`, which alone can be pushed to here: {own}/{}", model.name),
        ));
    }
    Ok(model)
}

/// Runs what blocks.
async fn off<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StagingError> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) => {
            tracing::error!(%error, "a blocking job failed");
            Err(Refusal::Internal("a job inside the node failed; its log says more".to_owned()))
        }
    }
}

impl From<StagingError> for Refusal {
    fn from(error: StagingError) -> Self {
        let (status, code) = match &error {
            StagingError::NoRepo(_) => (404, Some("RepoNotFound")),
            StagingError::NoRevision(_) => (404, Some("RevisionNotFound")),
            StagingError::NoFile(_) => (404, Some("EntryNotFound")),
            StagingError::Exists(_) => (409, None),
            StagingError::Stale { .. } => (412, None),
            StagingError::Wrong(_) | StagingError::Refused(_) | StagingError::Cut => (400, None),
            StagingError::TooLarge(_) => (413, None),
            StagingError::Full(_) => (507, None),
            StagingError::Busy => return Self::Busy(error.to_string()),
            StagingError::Forbidden(_) => (403, None),
            StagingError::Store(_) | StagingError::Io { .. } => {
                tracing::error!("a push failed: {error}");
                return Self::Internal("the node could not keep it; its log says more".to_owned());
            }
        };
        Self::push(status, code, error.to_string())
    }
}
