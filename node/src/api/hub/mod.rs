//! The Hugging Face Hub's interface: its clients work with `HF_ENDPOINT` set to this node and nothing else
//! changed. `docs/hub.md` says what they get.
//!
//! A model is `nation/name`; a release is a commit, named by the first 40 digits of its digest; channels are branches, `main`
//! among them, and versions are tags. What is given is what our nation may have and our policy serves, as on every public
//! route. A release that is known but not here is answered from its signed statement, and fetched from allies while it is read.
//!
//! The routes are the hub's, so they are not in `openapi.json`.

mod body;
mod caller;
mod conditions;
mod file;
mod info;
mod names;
mod pulls;
mod push;
mod rate;
mod refusal;
pub(crate) mod text;
mod tree;
mod unwelcome;
mod warned;
mod who;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use registry::{Digest, Model, Nation, Reference};

pub(super) use self::names::commit;
pub(super) use self::push::{Released, long_routes};
pub(super) use self::unwelcome::Unwelcome;
pub(super) use self::who::unknown;

use self::caller::Caller;
use self::names::{Catalogue, Meaning, Names};
use self::pulls::Pulls;
use self::rate::Rates;
use self::refusal::Refusal;
use self::warned::Warned;
use super::Api;
use super::stream::blocking;
use super::verdict::{Known, Verdict};
use crate::config;
use crate::layout::Layout;
use crate::tokens::Tokens;

/// Largest body of a question about paths: as many as a question may name, of ordinary length.
const MAX_QUESTION: usize = 256 * 1024;

/// What the interface remembers.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) tokens: Tokens,
    rates: Rates,
    catalogue: Catalogue,
    warned: Warned,
    pulls: Pulls,
    pub(super) push: push::Push,
}

impl Hub {
    /// Of a node of `nation`, with the tokens and the staging area of its home folder.
    pub(super) fn new(layout: &Layout, nation: Nation, settings: &config::Hub) -> Self {
        Self {
            tokens: Tokens::load(layout.tokens()),
            rates: Rates::new(settings.requests_per_minute),
            push: push::Push::new(layout.staging(), nation, settings),
            catalogue: Catalogue::default(),
            warned: Warned::default(),
            pulls: Pulls::default(),
        }
    }
}

/// Every route.
pub(super) fn routes() -> Router<Api> {
    let file = || get(file::resolve);
    Router::new()
        .route("/api/whoami-v2", get(who::whoami))
        .route("/api/models", get(info::search))
        .route("/api/models/{name}", get(who::no_model))
        .route("/api/models/{nation}/{name}", get(info::model))
        .route("/api/models/{nation}/{name}/auth-check", get(who::auth_check))
        .route("/api/models/{nation}/{name}/revision/{revision}", get(info::revision))
        .route("/api/models/{nation}/{name}/refs", get(info::refs))
        .route("/api/models/{nation}/{name}/commits/{revision}", get(info::commits))
        .route("/api/models/{nation}/{name}/tree/{revision}", get(tree::root))
        .route("/api/models/{nation}/{name}/tree/{revision}/{*path}", get(tree::folder))
        .route(
            "/api/models/{nation}/{name}/paths-info/{revision}",
            post(tree::paths).layer(DefaultBodyLimit::max(MAX_QUESTION)),
        )
        .route("/api/datasets/{*rest}", get(who::no_model))
        .route("/api/spaces/{*rest}", get(who::no_model))
        .route("/{nation}/{name}/resolve/{revision}/{*path}", file())
        .route("/{nation}/{name}/raw/{revision}/{*path}", file())
        .merge(push::routes())
}

/// A release that is given, and what its reader should know besides.
struct Found {
    known: Arc<Known>,
    names: Arc<Names>,
    warnings: Arc<Vec<String>>,
}

/// A model's names, if there is anything of it that our nation may have.
async fn names_of(
    api: &Api,
    caller: &Caller,
    nation: &str,
    name: &str,
) -> Result<(Model, Arc<Names>), Refusal> {
    let text = format!("{nation}/{name}");
    let shown: String = text.chars().take(160).collect();
    let Ok(model) = text.parse::<Model>() else {
        return Err(caller.no_model(format!("`{shown}` is no model's name: a model is `nation/name`")));
    };
    let (asked, wanted) = (api.clone(), model.clone());
    let names = blocking(move || {
        let store = asked.store();
        if store.trust().member(&wanted.nation).is_err() {
            return Ok(None);
        }
        Ok(asked.hub().catalogue.model(store, &wanted)?)
    });
    match names.await? {
        Some(names) => Ok((model, names)),
        None => Err(caller.no_model(format!(
            "`{shown}` is not known to this node, or not for those who read here; its operator can `steelyard pull` it"
        ))),
    }
}

/// The release that a revision of a model means.
async fn meaning(api: &Api, model: &Model, names: &Arc<Names>, revision: &str) -> Result<Digest, Refusal> {
    let (asked, of, known, text) = (api.clone(), model.clone(), Arc::clone(names), revision.to_owned());
    let found = blocking(move || {
        let store = asked.store();
        let channel = |name: &registry::ChannelName| {
            let reference = Reference::Channel(of.clone(), name.clone());
            store.resolve(&reference).unwrap_or_else(|error| {
                tracing::warn!("{reference} can't be followed: {error}");
                None
            })
        };
        Ok(known.find(&text, channel))
    });
    let shown: String = revision.chars().take(80).collect();
    match found.await? {
        Meaning::Release(digest) => Ok(digest),
        Meaning::Nothing => {
            Err(Refusal::NoRevision(format!("{model} has no revision `{shown}`; it has {}", names.words())))
        }
        Meaning::Several => Err(Refusal::NoRevision(format!(
            "several releases of {model} begin with `{shown}`; write more of the digest"
        ))),
    }
}

/// The release of a model that is meant, if it is given.
async fn find(
    api: &Api,
    caller: &Caller,
    nation: &str,
    name: &str,
    revision: &str,
) -> Result<Found, Refusal> {
    // To those who may stage, what is staged stands before what is released.
    let staged = push::view(api, caller, nation, name, revision).await?;
    if let Some(found) = staged.found {
        return Ok(found);
    }
    let (model, names) = match names_of(api, caller, nation, name).await {
        Err(Refusal::NoModel { .. }) if staged.repo => {
            let shown: String = revision.chars().take(80).collect();
            return Err(Refusal::NoRevision(format!("{nation}/{name} has nothing staged as `{shown}`")));
        }
        found => found?,
    };
    let digest = meaning(api, &model, &names, revision).await?;
    let warnings = api.hub().warned.of(api, &model, &names).await?;
    match api.verdicts().of(api, digest).await? {
        Verdict::Given(known) => Ok(Found { known, names, warnings }),
        Verdict::Hidden => Err(caller.no_model(format!("{model} is not for those who read here"))),
        Verdict::Recalled(warning) => Err(Refusal::Recalled { warning }),
        Verdict::Refused(why) => Err(Refusal::Refused(why)),
    }
}
