//! `steelyard serve --explain`: which engine would serve a release, why not the others, and whether it fits.

use inference::engine::{self, Considered, Explanation, Verdict};
use node::api::types::{ReleaseDetail, Resolved};
use registry::Digest;
use registry::Reference;
use registry::admitted::AdmittedFile;
use registry::reference::{Model, Version};
use registry::serving::{Options, Vllm};
use serde::Serialize;

use crate::client::{Client, segment};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::human;
use crate::output::{self, BOLD, DIM, NAME, paint};

/// What programs get.
#[derive(Serialize)]
struct Explained {
    model: Model,
    version: Version,
    release: Digest,
    #[serde(flatten)]
    explanation: Explanation,
}

/// What programs get of several.
#[derive(Serialize)]
struct Together {
    models: Vec<Explained>,
    /// Bytes that all of them need.
    needs: u64,
    /// Bytes that they may need.
    budget: Option<u64>,
    /// Whether all of them can be loaded at once.
    fits: bool,
}

/// Looks at the release's files where they lie; nothing is loaded and nothing started.
pub(super) async fn explain(
    context: &Context,
    client: &Client,
    reference: &Reference,
    options: &Options,
    vllm: Option<Vllm>,
) -> Result<(), Failure> {
    let explained = look(context, client, reference, options, vllm).await?;
    if context.json {
        output::json(&explained)?;
    } else {
        report(&explained)?;
    }
    judge(context, explained.explanation.chosen().is_some(), "no engine here can serve it")
}

/// The same of several, and whether they fit together.
pub(super) async fn all(
    context: &Context,
    client: &Client,
    references: &[Reference],
    options: &Options,
    vllm: Option<Vllm>,
    memory: Option<u64>,
) -> Result<(), Failure> {
    let mut models = Vec::new();
    for reference in references {
        models.push(look(context, client, reference, options, vllm.clone()).await?);
    }
    let needs = models.iter().filter_map(needed).fold(0, u64::saturating_add);
    let budget = memory.or_else(node::serving::pool::default_budget);
    let fits = budget.is_none_or(|budget| needs <= budget);
    let served = models.iter().all(|model| model.explanation.chosen().is_some());
    if context.json {
        output::json(&Together { models, needs, budget, fits })?;
    } else {
        for model in &models {
            report(model)?;
            output::line("")?;
        }
        let may = budget.map_or_else(|| "as much as there is".to_owned(), human::bytes);
        let then = if fits {
            "all stay loaded"
        } else {
            "what was used longest ago is unloaded when another is asked for"
        };
        let sum = human::bytes(needs);
        output::line(format!(
            "{} together they need about {sum} and may have {may}: {then}",
            output::mark(fits)
        ))?;
    }
    judge(context, served, "no engine here can serve all of them")
}

/// Bytes that the engine needs that would serve it.
fn needed(explained: &Explained) -> Option<u64> {
    explained.explanation.chosen()?.memory.map(|memory| memory.total())
}

fn judge(context: &Context, good: bool, why: &str) -> Result<(), Failure> {
    if good {
        return Ok(());
    }
    let failure = Failure::new(Exit::Other, why);
    Err(if context.json { failure.reported() } else { failure })
}

async fn look(
    context: &Context,
    client: &Client,
    reference: &Reference,
    options: &Options,
    vllm: Option<Vllm>,
) -> Result<Explained, Failure> {
    let query = format!("/v1/resolve?ref={}", segment(&reference.to_string()));
    let resolved: Resolved = client.get(&query).await?;
    let detail: ReleaseDetail = client.get(&format!("/v1/releases/{}", resolved.release)).await?;
    let entry = &detail.entry;
    if let Some(absent) = detail.file_list.iter().find(|file| !file.here) {
        return Err(Failure::new(Exit::NotFound, format!("`{}` is not here", absent.file.path))
            .help(format!("fetch the release with `{} pull {reference}`", context.command())));
    }
    let files: Vec<AdmittedFile> = detail
        .file_list
        .iter()
        .map(|file| AdmittedFile {
            path: file.file.path.clone(),
            blob: file.file.blake3,
            size: file.file.size,
            media_type: file.file.media_type.clone(),
            chunk_map: file.file.chunk_map,
            location: registry::store::blob_path(&context.layout.store(), &file.file.blake3),
        })
        .collect();
    let name = entry.model.to_string();
    let options = options.clone();
    let explanation = tokio::task::spawn_blocking(move || {
        engine::explain(&name, &files, &options, engine::available_memory(), vllm.as_ref())
    });
    let explanation = explanation.await.map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
    let (model, version, release) = (entry.model.clone(), entry.version.clone(), resolved.release);
    Ok(Explained { model, version, release, explanation })
}

fn report(explained: &Explained) -> Result<(), Failure> {
    let Explained { model, version, explanation, .. } = explained;
    let name = paint(NAME.bold(), format!("{model}@{version}"));
    match explanation.chosen() {
        Some(chosen) => output::line(format!(
            "{} {name} would be served by {}",
            output::mark(true),
            paint(BOLD, chosen.engine.as_str())
        ))?,
        None => output::line(format!("{} {name} can't be served here", output::mark(false)))?,
    }
    output::line(paint(DIM, format!("  on {}", explanation.hardware)))?;
    for one in &explanation.engines {
        let verdict = match one.verdict {
            Verdict::Chosen => "chosen",
            Verdict::Possible => "could, too",
            Verdict::Impossible => "can't",
        };
        output::line(format!("\n  {} {verdict}: {}", paint(BOLD, one.engine.as_str()), one.reason))?;
        if let Some(need) = need(one) {
            output::line(paint(DIM, format!("    {need}")))?;
        }
    }
    let available = match explanation.available {
        Some(bytes) => format!("this machine has {} of memory to give", human::bytes(bytes)),
        None => "how much memory this machine has to give can't be read".to_owned(),
    };
    output::line(paint(DIM, format!("\n  {available}")))
}

fn need(one: &Considered) -> Option<String> {
    let memory = one.memory?;
    Some(format!(
        "needs about {}: {} for the weights, {} for a context of {} tokens, {} for computing",
        human::bytes(memory.total()),
        human::bytes(memory.weights),
        human::bytes(memory.cache),
        memory.context,
        human::bytes(memory.working)
    ))
}
