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
struct Explained<'a> {
    model: &'a Model,
    version: &'a Version,
    release: Digest,
    #[serde(flatten)]
    explanation: &'a Explanation,
}

/// Looks at the release's files where they lie; nothing is loaded and nothing started.
pub(super) async fn explain(
    context: &Context,
    client: &Client,
    reference: &Reference,
    options: &Options,
    vllm: Option<Vllm>,
) -> Result<(), Failure> {
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
    if context.json {
        let explained = Explained {
            model: &entry.model,
            version: &entry.version,
            release: resolved.release,
            explanation: &explanation,
        };
        output::json(&explained)?;
    } else {
        report(&format!("{}@{}", entry.model, entry.version), &explanation)?;
    }
    match explanation.chosen() {
        Some(_) => Ok(()),
        None => {
            let failure = Failure::new(Exit::Other, "no engine here can serve it");
            Err(if context.json { failure.reported() } else { failure })
        }
    }
}

fn report(name: &str, explanation: &Explanation) -> Result<(), Failure> {
    let name = paint(NAME.bold(), name);
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
