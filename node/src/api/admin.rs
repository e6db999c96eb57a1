//! Routes that change something, over the socket alone.

use std::path::PathBuf;

use axum::Json;
use axum::extract::State;
use registry::bundle::{ExportOptions, ImportOptions, Matcher};
use registry::envelope::EnvelopeError;
use registry::statement::Statement;
use registry::{ChannelName, Model, Nation, Signed, Timestamp};
use serde::Deserialize;

use super::guard::{Body, Path, Query, Raw};
use super::stream::blocking;
use super::types::{
    Accepted, Collected, DialRequest, Done, ExportRequest, Exported, GcRequest, HaveList, HaveRequest,
    ImportRequest, Imported, NationEntry, PinEntry, PinNation, PinRequest, Proof, ReceiptRequest, Resolved,
    Sequences, Unpinned, WorkerInfo,
};
use super::{Api, catalogue};
use crate::error::{Code, Problem};
use crate::events::Event;
use crate::nation_file::{self, NationFile};
use crate::transfer::limit::Bandwidth;

type Answer<T> = Result<Json<T>, Problem>;

/// Longest reason of a pin, in bytes: one sentence.
const MAX_REASON: usize = 1024;

#[derive(Deserialize)]
pub(super) struct SequencesQuery {
    model: Option<Model>,
    channel: Option<ChannelName>,
    member: Option<Nation>,
}

pub(super) async fn sequences(
    State(api): State<Api>,
    Query(query): Query<SequencesQuery>,
) -> Answer<Sequences> {
    let store = api.store().clone();
    let sequences = blocking(move || {
        let channel = match (&query.model, &query.channel) {
            (Some(model), Some(channel)) => Some(store.next_channel_sequence(model, channel)?),
            _ => None,
        };
        let membership = query.member.as_ref().map(|member| store.next_membership_sequence(member));
        Ok(Sequences { channel, recall: store.next_recall_sequence(&store.own())?, membership })
    });
    Ok(Json(sequences.await?))
}

pub(super) async fn bandwidth(State(api): State<Api>) -> Json<Bandwidth> {
    Json(api.node().bandwidth())
}

/// Until the node ends: what the settings say holds again afterwards.
pub(super) async fn set_bandwidth(
    State(api): State<Api>,
    Body(bandwidth): Body<Bandwidth>,
) -> Answer<Bandwidth> {
    api.node().set_bandwidth(bandwidth).map_err(|rule| Problem::new(Code::Usage, rule))?;
    Ok(Json(api.node().bandwidth()))
}

pub(super) async fn statement(State(api): State<Api>, Raw(body): Raw) -> Answer<Accepted> {
    let store = api.store().clone();
    let (accepted, statement) = blocking(move || {
        let signed = Signed::parse(&body)?;
        let statement = signed.peek().map_err(EnvelopeError::from)?;
        let accepted = registry::publish::accept(&store, &signed, Timestamp::now())?;
        Ok((accepted, statement))
    })
    .await?;
    let changed = statement.clone();
    if accepted.new {
        let events = api.node().events();
        let nation = statement.nation().clone();
        events.send(Event::Statement { digest: accepted.digest, kind: accepted.kind, nation });
        if let Statement::Channel(channel) = &statement {
            let (store, channel) = (api.store().clone(), channel.clone());
            events.send(blocking(move || Ok(Event::channel(&store, channel))).await?);
        }
        if let Statement::Recall(recall) = statement {
            events.send(Event::Recall {
                digest: accepted.digest,
                nation: recall.nation,
                target: recall.target,
                severity: recall.severity,
                reason: recall.reason,
            });
        }
    }
    if accepted.new {
        api.node().trust_changed(&changed).await;
    }
    // Said again even when it is not new: whoever repeats a statement wants the allies to have it.
    api.node().announce(accepted.digest).await;
    Ok(Json(Accepted {
        digest: accepted.digest,
        kind: accepted.kind,
        seq: accepted.seq,
        new: accepted.new,
        withdrawn: accepted.withdrawn,
    }))
}

pub(super) async fn pin_nation(
    State(api): State<Api>,
    Body(request): Body<PinNation>,
) -> Answer<NationEntry> {
    let store = api.store().clone();
    let (nation, addresses) = blocking(move || {
        let text = request.file.to_string();
        let file = NationFile::parse(text.as_bytes())?;
        let member = store.pin_chain(&file.root, &file.later, request.fingerprint, Timestamp::now())?;
        let nation = member.root.nation.clone();
        let addresses = file.addresses.iter().chain(&request.addresses);
        let addresses = nation_file::remember(&store, &nation, addresses)?;
        Ok((nation, addresses))
    })
    .await?;
    api.node().events().send(Event::Trust { nation: nation.clone(), pinned: true });
    // In the background: a node that is away must not hold up the answer. It is remembered and dialled again later.
    let node = api.node().clone();
    if !node.config().offline {
        tokio::spawn(async move {
            for address in addresses {
                if let Err(error) = node.dial(address).await {
                    tracing::info!(%error, "a new ally's node is not reached yet");
                }
            }
        });
    }
    let Json(nations) = super::read::nations(State(api)).await?;
    let entry = nations.into_iter().find(|entry| entry.nation == nation);
    entry.map(Json).ok_or_else(|| Problem::new(Code::Conflict, format!("`{nation}` was removed meanwhile")))
}

pub(super) async fn unpin_nation(State(api): State<Api>, Path(nation): Path<String>) -> Answer<Unpinned> {
    let nation = Nation::new(&nation)?;
    let store = api.store().clone();
    let named = nation.clone();
    let fingerprint = blocking(move || {
        let fingerprint = store.trust().member(&named)?.fingerprint();
        store.unpin_nation(&named)?;
        nation_file::forget(&store, &named)?;
        Ok(fingerprint)
    })
    .await?;
    api.node().events().send(Event::Trust { nation: nation.clone(), pinned: false });
    api.node().disconnect_nation(&nation).await;
    Ok(Json(Unpinned { nation, fingerprint }))
}

pub(super) async fn pin(
    State(api): State<Api>,
    Path(reference): Path<String>,
    Body(request): Body<PinRequest>,
) -> Answer<PinEntry> {
    if request.reason.len() > MAX_REASON || request.reason.chars().any(char::is_control) {
        let rule = format!("the reason must be one line of at most {MAX_REASON} bytes");
        return Err(Problem::new(Code::Usage, rule));
    }
    let store = api.store().clone();
    let entry = blocking(move || {
        let resolved = catalogue::resolve(&store, &reference)?;
        store.pin(&resolved.release, &request.reason)?;
        Ok(PinEntry {
            release: resolved.release,
            model: Some(resolved.model),
            version: Some(resolved.version),
            reason: request.reason,
            at: Timestamp::now(),
        })
    });
    Ok(Json(entry.await?))
}

pub(super) async fn unpin(State(api): State<Api>, Path(reference): Path<String>) -> Answer<Resolved> {
    let store = api.store().clone();
    let resolved = blocking(move || {
        let resolved = catalogue::resolve(&store, &reference)?;
        if !store.unpin(&resolved.release)? {
            return Err(Problem::new(Code::NotFound, format!("`{reference}` is not pinned"))
                .hint("`steelyard ls` shows what is"));
        }
        Ok(resolved)
    });
    Ok(Json(resolved.await?))
}

pub(super) async fn gc(State(api): State<Api>, Body(request): Body<GcRequest>) -> Answer<Collected> {
    let store = api.store().clone();
    let report = blocking(move || Ok(store.gc(request.dry_run)?)).await?;
    Ok(Json(Collected {
        dry_run: request.dry_run,
        blobs_removed: report.blobs_removed,
        bytes_freed: report.bytes_freed,
        partials_removed: report.partials_removed,
        blobs_kept: report.blobs_kept,
        bytes_kept: report.bytes_kept,
        blobs_held: report.blobs_held,
        bytes_held: report.bytes_held,
        releases: report.releases,
        loose_blobs: report.loose_blobs,
        orphans_removed: report.orphans_removed,
    }))
}

/// A path that the command made absolute: the node's own working folder means nothing to its caller.
pub(super) fn absolute(path: &str) -> Result<PathBuf, Problem> {
    let path = PathBuf::from(path);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Problem::new(Code::Usage, format!("`{}` is not an absolute path", path.display())))
}

pub(super) async fn export(State(api): State<Api>, Body(request): Body<ExportRequest>) -> Answer<Exported> {
    let path = absolute(&request.path)?;
    let store = api.store().clone();
    let done = blocking(move || {
        let resolved = catalogue::resolve(&store, &request.reference)?;
        let options = ExportOptions {
            to: request.to,
            files: request.files.iter().map(|pattern| Matcher::new(pattern)).collect(),
            without_blobs: request.without_blobs,
            have: match &request.have {
                Some(list) => registry::bundle::read_have(&absolute(list)?)?,
                None => Default::default(),
            },
            now: Timestamp::now(),
        };
        let report = registry::bundle::export_with(&store, &resolved.release, &path, &options)?;
        Ok(Exported {
            release: resolved.release,
            model: resolved.model,
            version: resolved.version,
            path: request.path,
            bytes: report.bytes,
            releasable_to: report.releasable_to.to_string(),
            to: report.to,
            files: report.files,
            files_in: report.files_in,
        })
    });
    Ok(Json(done.await?))
}

pub(super) async fn have(State(api): State<Api>, Body(request): Body<HaveRequest>) -> Answer<HaveList> {
    let path = absolute(&request.path)?;
    let store = api.store().clone();
    let blobs = blocking(move || Ok(registry::bundle::write_have(&store, &path, Timestamp::now())?)).await?;
    Ok(Json(HaveList { path: request.path, blobs }))
}

pub(super) async fn import(State(api): State<Api>, Body(request): Body<ImportRequest>) -> Answer<Imported> {
    let path = absolute(&request.path)?;
    let store = api.store().clone();
    let max_age = request.max_age_secs.or_else(|| {
        let secs = api.node().config().bundle.max_age_secs;
        (secs > 0).then_some(secs)
    });
    // More than fits is for ever.
    let max_age = max_age.and_then(|secs| i64::try_from(secs).ok());
    let options = ImportOptions { max_age, witnesses: api.node().config().bundle.witnesses };
    let taken = blocking(move || {
        let now = Timestamp::now();
        let report = registry::bundle::import_with(&store, &path, now, options)?;
        if report.missing.is_empty() {
            registry::admit::admit(&store, &report.release, now)?;
        } else {
            // The other disks may be days behind.
            store.pin(&report.release, "imported in part")?;
        }
        let (release, decision) = registry::admit::decide(&store, &report.release, now)?;
        let recalls = report.recalls.clone();
        let imported = Imported {
            release: report.release,
            model: release.model.clone(),
            version: release.version.clone(),
            files: report.files,
            bytes: release.size(),
            new_bytes: report.new_bytes,
            new_statements: report.new_statements,
            skipped: report.skipped,
            missing: report.missing,
            by: report.by,
            made: report.made,
            checkpoint: report.checkpoint,
            recalls: recalls.len(),
            decision,
        };
        Ok((imported, recalls))
    })
    .await;
    // A bundle that is refused may have brought a recall too.
    api.workers().recheck(std::time::Instant::now()).await;
    let (imported, recalls) = taken?;
    if imported.missing.is_empty() {
        api.node().events().send(Event::Admitted {
            release: imported.release,
            model: imported.model.clone(),
            version: imported.version.clone(),
        });
    }
    for recall in recalls {
        api.node().announce(recall).await;
    }
    api.node().announce(imported.release).await;
    Ok(Json(imported))
}

pub(super) async fn stop_worker(State(api): State<Api>, Path(id): Path<u64>) -> Answer<WorkerInfo> {
    Ok(Json(api.workers().stop(id, "stopped by hand").await?))
}

/// Believes a receipt or not; it is not kept.
pub(super) async fn receipt(
    State(api): State<Api>,
    Body(request): Body<ReceiptRequest>,
) -> Answer<registry::receipt::Claim> {
    let receipt = registry::receipt::Receipt::parse(request.receipt.as_bytes())?;
    let trust = api.store().trust();
    Ok(Json(receipt.verify(&trust, Timestamp::now())?.clone()))
}

pub(super) async fn prove_worker(State(api): State<Api>, Path(id): Path<u64>) -> Answer<Proof> {
    let (worker, attempts) = api.workers().prove(id).await?;
    Ok(Json(Proof { worker, attempts }))
}

pub(super) async fn dial(State(api): State<Api>, Body(request): Body<DialRequest>) -> Answer<Done> {
    api.node().dial(request.address).await?;
    Ok(Json(Done {}))
}

pub(super) async fn sync(State(api): State<Api>) -> Json<Done> {
    api.node().sync_now().await;
    Json(Done {})
}

pub(super) async fn shutdown(State(api): State<Api>) -> Json<Done> {
    api.0.stop.cancel();
    Json(Done {})
}
