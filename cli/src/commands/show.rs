//! `steelyard show`: everything about one release.

use clap::Args;
use node::api::types::{AttachmentEntry, Evidence, ReleaseDetail, Resolved};
use registry::{Reference, Timestamp};
use serde::Serialize;

use super::{attachments, pull};
use crate::client::{Client, Need, segment};
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::output::{self, BAD, BOLD, Cell, DIM, NAME, Table, WARN, cell, paint};

/// Show one release: files, lineage, who signed it, and the decision with its reasons
///
/// The decision is made anew, by the trust, the recalls and the policy of this moment.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard show borea/smollm2
  steelyard show alba/smollm2@1.0.0 --evidence > evidence.json")]
pub(crate) struct Show {
    /// nation/name (channel stable), nation/name:channel, nation/name@version or b3:…
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    /// Write the signed statements themselves that the decision rests on, as JSON
    #[arg(long)]
    evidence: bool,
}

impl Show {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = Client::open(context, Need::Folder).await?;
        let found = self.read(&client).await;
        client.close().await;
        match found? {
            Found::Evidence(evidence) => output::json(&*evidence),
            Found::Detail(detail, attached) if context.json => {
                output::json(&Shown { detail: &detail, attachments: &attached })
            }
            Found::Detail(detail, attached) => {
                report(&detail)?;
                attachments::show(&attached)
            }
        }
    }

    async fn read(&self, client: &Client) -> Result<Found, Failure> {
        let query = format!("/v1/resolve?ref={}", segment(&self.reference.to_string()));
        let resolved: Resolved = client.get(&query).await?;
        let path = format!("/v1/releases/{}", resolved.release);
        if self.evidence {
            return Ok(Found::Evidence(client.get(&format!("{path}/evidence")).await?));
        }
        let attached = client.get(&format!("{path}/attachments")).await?;
        Ok(Found::Detail(Box::new(client.get(&path).await?), attached))
    }
}

enum Found {
    Evidence(Box<Evidence>),
    Detail(Box<ReleaseDetail>, Vec<AttachmentEntry>),
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    detail: &'a ReleaseDetail,
    attachments: &'a [AttachmentEntry],
}

fn report(detail: &ReleaseDetail) -> Result<(), Failure> {
    let now = Timestamp::now();
    let entry = &detail.entry;
    let nothing = |text: &str| paint(DIM, text);
    let signers: Vec<String> = detail.signers.iter().map(|key| key.short()).collect();
    let signed = match (signers.is_empty(), detail.threshold) {
        (true, _) => paint(BAD, "by nobody that counts"),
        (false, Some(threshold)) => {
            format!("{} of {threshold} required: {}", signers.len(), signers.join(", "))
        }
        (false, None) => signers.join(", "),
    };
    let channels: Vec<String> =
        detail.channels.iter().map(|c| format!("{} (move {})", c.channel, c.sequence)).collect();
    let lineage: Vec<String> = detail
        .derived_from
        .iter()
        .map(|base| {
            let relation =
                serde_json::to_value(base.relation).ok().and_then(|v| v.as_str().map(str::to_owned));
            format!("{} of {}", relation.unwrap_or_default(), base.release)
        })
        .collect();
    output::line(format!("{}\n", paint(NAME.bold(), format!("{}@{}", entry.model, entry.version))))?;
    output::print(&output::facts(&[
        ("release", entry.release.to_string()),
        ("signed", format!("{} ({}), {}", entry.issued, human::relative(entry.issued, now), signed)),
        ("channels", if channels.is_empty() { nothing("none points to it") } else { channels.join(", ") }),
        ("contents", human::contents(entry.files, entry.size, &entry.format)),
        ("licence", entry.licence.clone()),
        ("releasable to", detail.releasable_to.clone()),
        (
            "derived from",
            if lineage.is_empty() { nothing("nothing that it names") } else { lineage.join("\n") },
        ),
        (
            "pinned",
            detail.pin.as_ref().map_or_else(
                || nothing("no"),
                |why| if why.is_empty() { "yes".to_owned() } else { format!("yes: {why}") },
            ),
        ),
    ]))?;
    output::line("")?;
    let mut files = Table::new(&["file", "size", "here", "blob", "sha256"]);
    for file in &detail.file_list {
        files.row([
            file.file.path.as_str().into(),
            Cell::from(human::bytes(file.file.size)).right(),
            if file.here { "yes".into() } else { cell(WARN, "no") },
            cell(DIM, format!("b3:{}…", file.file.blake3.short())),
            cell(DIM, format!("{}…", &file.file.sha256.to_hex()[..12])),
        ]);
    }
    output::print(&files.render())?;
    for recall in &detail.recalls {
        output::line(format!(
            "\n{} by {} {}, severity {}: {}",
            paint(BAD.bold(), "Recalled"),
            paint(NAME, &recall.nation),
            human::relative(recall.issued, now),
            paint(BOLD, recall.severity),
            recall.reason
        ))?;
    }
    output::line("")?;
    match (&detail.decision, &detail.distrust) {
        (Some(decision), _) => output::print(&pull::decision(decision)),
        (None, why) => {
            output::line(format!("{} {}", paint(BAD, "not believed:"), why.as_deref().unwrap_or("unknown")))
        }
    }
}
