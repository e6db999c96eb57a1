//! `steelyard gc`: remove what nothing needs.

use clap::Args;
use node::api::types::{Collected, GcRequest};

use crate::client::{Client, Need};
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::output::{self, BOLD, DIM, paint};

/// Remove the bytes that nothing needs
///
/// Kept are pinned releases, those that a channel points to, what is being served or fetched, and what came within the last
/// day. Safe beside running pulls.
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
        output::line(format!(
            "{verb} {}: {}, {}.",
            paint(BOLD, human::bytes(report.bytes_freed)),
            human::count(report.blobs_removed, "file"),
            human::count(report.partials_removed, "abandoned transfer")
        ))?;
        let held = if report.blobs_held == 0 {
            String::new()
        } else {
            format!("; {} came within the last day and wait", human::bytes(report.bytes_held))
        };
        output::line(paint(DIM, format!("{} in use{held}.", human::bytes(report.bytes_kept))))
    }
}
