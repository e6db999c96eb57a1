//! `steelyard gc`: remove what nothing needs.

use clap::Args;
use node::api::types::{Collected, GcReason, GcRequest};

use crate::client::{Client, Need};
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::output::{self, BOLD, Cell, DIM, NAME, Table, cell, paint};

/// Remove the bytes that nothing needs
///
/// Kept are pinned releases, those that a channel points to and no recall hits, what is being served or fetched, and what
/// came within the last day. Each release that goes is named with the reason. Safe beside running pulls.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard gc --dry-run
  steelyard gc")]
pub(crate) struct Gc {
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

impl Gc {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = Client::open(context, Need::Folder).await?;
        let report: Result<Collected, Failure> =
            client.post("/v1/gc", &GcRequest { dry_run: self.dry_run }).await;
        client.close().await;
        let report = report?;
        if context.json {
            return output::json(&report);
        }
        let verb = if report.dry_run { "Would free" } else { "Freed" };
        let abandoned = match report.partials_removed {
            0 => String::new(),
            n => format!(", {}", human::count(n, "abandoned transfer")),
        };
        output::line(format!(
            "{verb} {}: {}{abandoned}.",
            paint(BOLD, human::bytes(report.bytes_freed)),
            human::count(report.blobs_removed, "file")
        ))?;
        output::print(&reasons(&report))?;
        let held = if report.blobs_held == 0 {
            String::new()
        } else {
            format!("; {} came within the last day and wait", human::bytes(report.bytes_held))
        };
        output::line(paint(DIM, format!("{} in use{held}.", human::bytes(report.bytes_kept))))
    }
}

/// Why each goes: nothing when nothing does.
fn reasons(report: &Collected) -> String {
    let mut table = Table::new(&["", "", ""]);
    for gone in &report.releases {
        let why = match gone.reason {
            GcReason::Unpinned => "not pinned, and no channel points to it",
            GcReason::Recalled => "recalled, and not pinned",
        };
        table.row([
            cell(NAME, format!("  {}@{}", gone.model, gone.version)),
            Cell::from(human::bytes(gone.bytes)).right(),
            cell(DIM, why),
        ]);
    }
    if report.loose_blobs > 0 {
        let files = human::count(report.loose_blobs, "file");
        table.row([
            cell(NAME, format!("  {files}")),
            "".into(),
            cell(DIM, "of no release: a draft never signed"),
        ]);
    }
    if report.orphans_removed > 0 {
        let files = human::count(report.orphans_removed, "file");
        table.row([cell(NAME, format!("  {files}")), "".into(), cell(DIM, "left behind by a crash")]);
    }
    if table.is_empty() {
        return String::new();
    }
    let pin = if report.dry_run && !report.releases.is_empty() {
        "  `steelyard pin REFERENCE` keeps one.\n"
    } else {
        ""
    };
    format!("{}{}", table.render(), paint(DIM, pin))
}
