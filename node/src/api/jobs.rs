//! Routes whose work takes long, each answered as a stream (`stream.rs`).

use std::net::SocketAddr;

use axum::extract::{Path, State};
use axum::response::Response;
use registry::serving::Options;
use registry::store::Store;
use registry::{Digest, Reference, Timestamp};
use tokio::sync::watch;

use super::guard::Body;
use super::stream::{Progress, blocking, job};
use super::types::{
    DamageEntry, DraftRequest, Drafted, PullRequest, Pulled, Resolved, Rollback, SkippedFile, SwapRequest,
    TransferInfo, VerifyDone, VerifyRequest, Work, WorkerInfo, WorkerRequest,
};
use super::{Api, admin, catalogue};
use crate::config::Worker as Settings;
use crate::error::{Code, Problem};
use crate::node::PullOptions;
use crate::serving::swap::Swap;
use crate::serving::{Follow, Start};

pub(super) async fn pull(
    State(api): State<Api>,
    Body(request): Body<PullRequest>,
) -> Result<Response, Problem> {
    let reference = catalogue::parse(&request.reference)?;
    Ok(job(move |progress| async move {
        let mut pulled = fetch(&api, reference, &progress).await?;
        if request.pin {
            let store = api.store().clone();
            let release = pulled.release;
            blocking(move || Ok(store.pin(&release, "pulled with --pin")?)).await?;
            pulled.pinned = true;
        }
        Ok(pulled)
    }))
}

/// Pulls, telling how far it is.
async fn fetch(
    api: &Api,
    reference: Reference,
    progress: &Progress<TransferInfo>,
) -> Result<Pulled, Problem> {
    let told = progress.clone();
    let options =
        PullOptions { progress: Some(Box::new(move |info| told.tell(info))), ..PullOptions::default() };
    let report = api.node().pull(reference, options).await?;
    let store = api.store().clone();
    let release = report.release;
    let missing = || Problem::new(Code::Internal, "the release pulled is not in the store");
    let (known, pinned, channels, rolled_back) = blocking(move || {
        let known = store.release(&release)?.ok_or_else(missing)?;
        let pinned = store.pins()?.iter().any(|pin| pin.release == release);
        let (mut channels, mut rolled_back) = (Vec::new(), Vec::new());
        for (_, channel) in store.channels()?.into_iter().filter(|(_, channel)| channel.release == release) {
            if let Some((_, left)) = store.rolled_back_from(&channel)? {
                let (name, reason) = (channel.channel.clone(), channel.reason.clone());
                rolled_back.push(Rollback { channel: name, from: left.version, reason });
            }
            channels.push(channel.channel);
        }
        Ok::<_, Problem>((known, pinned, channels, rolled_back))
    })
    .await?;
    Ok(Pulled {
        release,
        model: known.model,
        version: known.version,
        files: known.files.len(),
        already_here: report.transfer.bytes_resumed == report.transfer.bytes_total,
        pinned,
        channels,
        rolled_back,
        transfer: report.transfer,
        decision: report.decision,
    })
}

pub(super) async fn draft(
    State(api): State<Api>,
    Body(request): Body<DraftRequest>,
) -> Result<Response, Problem> {
    let path = admin::absolute(&request.path)?;
    let store = api.store().clone();
    Ok(job(move |progress: Progress<Work>| async move {
        blocking(move || {
            let mut tell = |at: registry::publish::Progress| {
                progress.tell(Work { path: at.path, bytes_done: at.bytes_done, bytes_total: at.bytes_total });
            };
            let draft = registry::publish::draft(&store, &path, &mut tell)?;
            Ok(Drafted {
                files: draft.files,
                format: draft.format,
                size: draft.size,
                unsafe_files: draft.unsafe_files,
                skipped: draft
                    .skipped
                    .into_iter()
                    .map(|left| SkippedFile { path: left.path, why: left.why })
                    .collect(),
                model_card: draft.model_card,
                licence: draft.licence,
                nation: store.own(),
            })
        })
        .await
    }))
}

pub(super) async fn verify(
    State(api): State<Api>,
    Body(request): Body<VerifyRequest>,
) -> Result<Response, Problem> {
    let store = api.store().clone();
    let text = request.reference.clone();
    let resolved = blocking(move || catalogue::resolve(&store, &text)).await?;
    Ok(job(move |progress: Progress<Work>| async move {
        let mut done = check(api.store().clone(), resolved.release, progress.clone()).await?;
        if !done.sound {
            let what: Vec<String> = done.damage.iter().map(|d| format!("{}: {}", d.path, d.what)).collect();
            api.workers().withdraw(&done.release, &format!("its bytes are damaged: {}", what.join("; ")));
        }
        if !done.sound && request.repair {
            let pulled = fetch(&api, Reference::Digest(done.release), &Progress::unheard()).await?;
            let again = check(api.store().clone(), done.release, progress).await?;
            done.sound = again.sound;
            done.damage.extend(again.damage);
            done.repaired = Some(pulled.transfer);
        }
        Ok(done)
    }))
}

async fn check(
    store: Store,
    release: registry::Digest,
    progress: Progress<Work>,
) -> Result<VerifyDone, Problem> {
    blocking(move || {
        let known = store.release(&release)?.ok_or_else(|| {
            Problem::new(Code::NotFound, format!("the release {release} is not known here"))
        })?;
        let mut tell = |bytes_done, bytes_total| {
            progress.tell(Work { path: String::new(), bytes_done, bytes_total });
        };
        let report = registry::admit::verify(&store, &release, Timestamp::now(), &mut tell)?;
        let sound = report.is_sound();
        let missing = report.missing.into_iter().map(|path| DamageEntry {
            path,
            what: "it is not here".to_owned(),
            chunk: None,
            offset: None,
        });
        let damaged = report.damage.into_iter().map(|damage| DamageEntry {
            path: damage.path,
            what: damage.what,
            chunk: damage.chunk,
            offset: Some(damage.offset),
        });
        let damage: Vec<DamageEntry> = missing.chain(damaged).collect();
        Ok(VerifyDone {
            release,
            model: known.model,
            version: known.version,
            files: known.files.len(),
            bytes: report.bytes,
            sound,
            damage,
            repaired: None,
        })
    })
    .await
}

/// The settings' options for a worker.
pub(super) fn default_options(settings: &Settings) -> Options {
    let some = |value: u32| (value > 0).then_some(value);
    Options {
        threads: some(settings.threads),
        context: some(settings.context),
        parallel: some(settings.parallel),
        cache: some(settings.cache),
        max_requests: settings.max_requests,
        engine: None,
        memory: None,
    }
}

/// Where to listen, as asked for or as the settings say.
pub(super) fn listen(asked: Option<&str>, settings: &Settings) -> Result<SocketAddr, Problem> {
    let listen = asked.unwrap_or(&settings.listen);
    listen.parse().map_err(|_| {
        let shown: String = listen.chars().take(80).collect();
        Problem::new(Code::Usage, format!("`{shown}` is not an address and port such as `127.0.0.1:4810`"))
    })
}

pub(super) async fn serve(
    State(api): State<Api>,
    Body(request): Body<WorkerRequest>,
) -> Result<Response, Problem> {
    let settings = api.node().config().worker.clone();
    let listen = listen(request.listen.as_deref(), &settings)?;
    let options = request.options.clone().unwrap_or_else(|| default_options(&settings));
    let reference = catalogue::parse(&request.reference)?;
    let follow = follow(&request, &reference)?;
    let resolved = resolve(&api, &reference).await?;
    let adapters = resolve_all(&api, &request.adapters).await?;
    let (resolved, adapters) = with_base(&api, resolved, adapters, follow.is_some()).await?;
    Ok(job(move |progress: Progress<WorkerInfo>| async move {
        let start = Start {
            reference: resolved.reference,
            release: resolved.release,
            listen,
            options,
            allow_missing: request.allow_missing,
            replaces: None,
            previous: None,
            follow,
            adapters,
            pool: None,
        };
        let watched = api.workers().start(start).await?;
        until_ready(&api, watched, &progress).await
    }))
}

/// Puts another release in the place of what a worker serves.
pub(super) async fn swap(
    State(api): State<Api>,
    Path(id): Path<u64>,
    Body(request): Body<SwapRequest>,
) -> Result<Response, Problem> {
    let (reference, release, before) = match &request.reference {
        Some(text) => {
            let resolved = resolve(&api, &catalogue::parse(text)?).await?;
            (resolved.reference, resolved.release, None)
        }
        None => {
            let (previous, adapters) = api.workers().previous(id)?;
            (previous.to_string(), previous, Some(adapters))
        }
    };
    let adapters = match &request.adapters {
        Some(adapters) => Some(resolve_all(&api, adapters).await?),
        None => before,
    };
    let swap = Swap { reference, release, stop_first: request.stop_first, follow: None, adapters };
    Ok(job(move |progress: Progress<WorkerInfo>| async move {
        let watched = api.workers().swap(id, swap).await?;
        until_ready(&api, watched, &progress).await
    }))
}

/// Which channel a worker is to follow, if it is to.
fn follow(request: &WorkerRequest, reference: &Reference) -> Result<Option<Follow>, Problem> {
    if !request.follow {
        return Ok(None);
    }
    if matches!(reference, Reference::Digest(_) | Reference::Version(..)) {
        return Err(Problem::new(
            Code::Usage,
            format!(
                "`{reference}` names one release, which never moves; name a channel, such as `alba/model:stable`"
            ),
        ));
    }
    let (rollback, stop_first) = (request.rollback_to_previous, request.stop_first);
    Ok(Some(Follow { reference: reference.clone(), rollback, stop_first }))
}

/// What a reference means; peers are asked where nothing of it is known here.
pub(super) async fn resolve(api: &Api, reference: &Reference) -> Result<Resolved, Problem> {
    let look = || {
        let (store, text) = (api.store().clone(), reference.to_string());
        blocking(move || catalogue::resolve(&store, &text))
    };
    match look().await {
        Err(problem) if problem.code == Code::NotFound && api.node().is_online() => {
            api.node().sync_now().await;
            look().await
        }
        resolved => resolved,
    }
}

async fn resolve_all(api: &Api, references: &[String]) -> Result<Vec<Digest>, Problem> {
    let mut releases = Vec::with_capacity(references.len());
    for text in references {
        releases.push(resolve(api, &catalogue::parse(text)?).await?.release);
    }
    Ok(releases)
}

/// What is served where a release is asked for: itself, or, when it is an adapter, the model that it was made for with it.
async fn with_base(
    api: &Api,
    asked: Resolved,
    mut adapters: Vec<Digest>,
    follows: bool,
) -> Result<(Resolved, Vec<Digest>), Problem> {
    let (store, release) = (api.store().clone(), asked.release);
    let known = blocking(move || store.release(&release).map_err(Problem::from)).await?;
    let bases = known.as_ref().map(registry::admit::bases).unwrap_or_default();
    let usage =
        |why: String| Err(Problem::new(Code::Usage, format!("{} is an adapter{why}", asked.reference)));
    match bases[..] {
        [] => Ok((asked, adapters)),
        [_] if follows => {
            usage(" and can't be followed; serve its model with `--follow` and `--adapter`".to_owned())
        }
        [base] => {
            adapters.insert(0, asked.release);
            let base =
                Resolved { reference: base.to_string(), ..resolve(api, &Reference::Digest(base)).await? };
            Ok((base, adapters))
        }
        _ => usage(format!(" for {} models; serve one of them and name it with `--adapter`", bases.len())),
    }
}

/// Tells how far a worker is until it serves. Whoever leaves before does not want it.
async fn until_ready(
    api: &Api,
    mut watched: watch::Receiver<WorkerInfo>,
    progress: &Progress<WorkerInfo>,
) -> Result<WorkerInfo, Problem> {
    let guard = api.workers().stop_unless_kept(watched.borrow().id);
    loop {
        let info = watched.borrow_and_update().clone();
        match info.state {
            crate::events::WorkerState::Ready => {
                guard.keep();
                return Ok(info);
            }
            state if state.is_over() => return Err(ended_early(&info)),
            _ => progress.tell(info),
        }
        if watched.changed().await.is_err() {
            return Err(Problem::new(Code::Internal, "the worker's supervisor ended"));
        }
    }
}

fn ended_early(info: &WorkerInfo) -> Problem {
    match (&info.stop, &info.error) {
        (Some(stop), _) if stop.cause != crate::events::StopCause::Requested => Problem::new(
            Code::PolicyRefused,
            format!("{} stopped before it was ready: {}", info.reference, stop.reason),
        ),
        (Some(stop), _) => Problem::new(Code::Cancelled, format!("the worker was stopped: {}", stop.reason)),
        (None, error) => {
            let why = error.as_deref().unwrap_or("no reason is known");
            // A transfer that is still shown is what failed.
            let code = if info.transfer.is_some() { Code::Network } else { Code::Worker };
            Problem::new(code, format!("the worker for {} failed: {why}", info.reference))
        }
    }
}
