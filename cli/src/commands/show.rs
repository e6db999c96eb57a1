//! `steelyard show`: everything about one release.

use clap::Args;
use node::api::types::{AttachmentEntry, Card, Evidence, LogPlace, ReleaseDetail, Resolved};
use registry::statement::Verdict;
use registry::{Reference, Timestamp};
use serde::Serialize;

use super::{attachments, ls, pull};
use crate::client::{Client, Need, segment};
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::output::{self, BAD, BOLD, Cell, DIM, GOOD, NAME, Table, WARN, cell, paint};

/// Results of one attestation in a table; `--json` has them all.
const SHOWN_RESULTS: usize = 4;

/// Show one release: files, lineage, who signed it, who vouches for it, and the decision with its reasons
///
/// The decision is made anew, by the trust, the recalls and the policy of this moment.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard show borea/smollm2
  steelyard show borea/smollm2 --card
  steelyard show alba/smollm2@1.0.0 --evidence > evidence.json")]
pub(crate) struct Show {
    /// nation/name (channel stable), nation/name:channel, nation/name@version or b3:…
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    /// Write the signed statements themselves that the decision rests on, as JSON
    #[arg(long)]
    evidence: bool,
    /// Show the model card, and who vouches for the release
    #[arg(long, conflicts_with = "evidence")]
    card: bool,
}

impl Show {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = Client::open(context, Need::Folder).await?;
        let found = self.read(&client).await;
        client.close().await;
        match found? {
            Found::Evidence(evidence) => output::json(&*evidence),
            Found::Card(_, card) if context.json => output::json(&*card),
            Found::Card(detail, card) => show_card(&detail, &card),
            Found::Detail(detail, place, attached) if context.json => {
                output::json(&Shown { detail: &detail, log: &place, attachments: &attached })
            }
            Found::Detail(detail, place, attached) => {
                report(&detail, &place)?;
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
        let detail = Box::new(client.get(&path).await?);
        if self.card {
            return Ok(Found::Card(detail, client.get(&format!("{path}/card")).await?));
        }
        let place = client.get(&format!("/v1/log/place/{}", resolved.release)).await?;
        let attached = client.get(&format!("{path}/attachments")).await?;
        Ok(Found::Detail(detail, place, attached))
    }
}

enum Found {
    Evidence(Box<Evidence>),
    Detail(Box<ReleaseDetail>, LogPlace, Vec<AttachmentEntry>),
    Card(Box<ReleaseDetail>, Box<Card>),
}

/// What programs get: the release, its place in its nation's log, and what its attachments say.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    detail: &'a ReleaseDetail,
    log: &'a LogPlace,
    attachments: &'a [AttachmentEntry],
}

/// Where in its nation's log it stands, and who vouches that everybody is shown the same log.
pub(super) fn place(place: &LogPlace) -> String {
    let Some(logged) = &place.logged else {
        return paint(WARN, format!("not yet: {}", place.waiting.as_deref().unwrap_or("it waits")));
    };
    let names: Vec<String> = logged.witnesses.iter().map(ToString::to_string).collect();
    let who = match (names.is_empty(), logged.witnessed) {
        (true, _) => paint(WARN, "cosigned by nobody yet"),
        (false, Some(at)) => {
            format!("cosigned by {}, {}", names.join(", "), human::relative(at, Timestamp::now()))
        }
        (false, None) => format!("cosigned by {}", names.join(", ")),
    };
    format!("entry {} of `{}`, {who}", logged.index, place.nation)
}

fn report(detail: &ReleaseDetail, log: &LogPlace) -> Result<(), Failure> {
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
        detail.channels.iter().map(|c| format!("{}, move {}", ls::named(c), c.sequence)).collect();
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
        ("log", place(log)),
        ("channels", if channels.is_empty() { nothing("none points to it") } else { channels.join("\n") }),
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
    vouched(detail, now)?;
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

/// Who vouches for a release, who advises against it, and whose word counts no more.
fn vouched(detail: &ReleaseDetail, now: Timestamp) -> Result<(), Failure> {
    if detail.attestations.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["attested by", "verdict", "suite", "when", "results"]);
    for entry in &detail.attestations {
        let style = match (entry.counts, entry.verdict) {
            (false, _) => DIM,
            (true, Verdict::Pass) => GOOD,
            (true, Verdict::Fail) => BAD,
            (true, Verdict::Inconclusive) => WARN,
        };
        let mut said: Vec<String> =
            entry.results.iter().take(SHOWN_RESULTS).map(|it| format!("{} {}", it.name, it.value)).collect();
        if entry.results.len() > SHOWN_RESULTS {
            said.push(format!("{} more", entry.results.len() - SHOWN_RESULTS));
        }
        said.extend(entry.why.iter().map(|why| format!("does not count: {why}")));
        table.row([
            cell(NAME, entry.nation.as_str()),
            cell(style, entry.verdict.to_string()),
            entry.suite.name.as_str().into(),
            human::relative(entry.issued, now).into(),
            cell(DIM, said.join(", ")),
        ]);
    }
    output::line("")?;
    output::print(&table.render())?;
    for entry in detail.attestations.iter().filter(|entry| !entry.summary.is_empty()) {
        output::line(format!("{} {}", paint(NAME, format!("{}:", entry.nation)), entry.summary))?;
    }
    Ok(())
}

/// The model card, line by line, with its headings marked.
fn show_card(detail: &ReleaseDetail, card: &Card) -> Result<(), Failure> {
    let entry = &detail.entry;
    output::line(paint(NAME.bold(), format!("{}@{}", entry.model, entry.version)))?;
    vouched(detail, Timestamp::now())?;
    output::line(format!("\n{}\n", paint(DIM, format!("--- {}", card.path))))?;
    for line in card.text.lines() {
        let heading = line.starts_with('#');
        output::line(if heading { paint(BOLD, line) } else { line.to_owned() })?;
    }
    if card.truncated {
        let size = human::bytes(card.size);
        output::note(format!(
            "The card goes on; it has {size}. It lies in the store as a blob of the release."
        ));
    }
    Ok(())
}
