//! `steelyard pull`: fetch, verify and admit a release.

use std::time::{Duration, Instant};

use clap::Args;
use node::api::types::{PullRequest, Pulled, TransferInfo};
use registry::Reference;

use crate::client::{Client, Need};
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::output::{self, Cell, DIM, NAME, Table, cell, paint};
use crate::progress::Bar;
use crate::transfer;

/// Fetch, verify and admit a release
///
/// Finds the release, asks the local policy before any bytes move, fetches the missing chunks from several peers at once,
/// verifies each chunk before it is kept and each file when it is whole, and admits the release. A pull that was
/// interrupted goes on where it was. Garbage collection keeps what a channel points to; --pin keeps any other release.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard pull borea/smollm2
  steelyard pull borea/smollm2@1.0.0 --pin
  steelyard --json pull b3:4be1… | jq .transfer.peers")]
pub(crate) struct Pull {
    /// nation/name (channel stable), nation/name:channel, nation/name@version or b3:…
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    /// Keep it against garbage collection
    #[arg(long)]
    pin: bool,
}

impl Pull {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = Client::open(context, Need::Network).await?;
        let started = Instant::now();
        let pulled = pull(context, &client, &self.reference, self.pin).await;
        let took = started.elapsed();
        client.close().await;
        let pulled = pulled?;
        if context.json {
            return output::json(&pulled);
        }
        report(&pulled, took)
    }
}

/// Pulls with a live line of progress.
async fn pull(
    context: &Context,
    client: &Client,
    reference: &Reference,
    pin: bool,
) -> Result<Pulled, Failure> {
    let bar = Bar::new(context.progress(), &format!("finding {reference}"));
    let request = PullRequest { reference: reference.to_string(), pin };
    client.job("/v1/pull", &request, |info: TransferInfo| transfer::show(&bar, &info)).await
}

fn report(pulled: &Pulled, took: Duration) -> Result<(), Failure> {
    let info = &pulled.transfer;
    let name = paint(NAME.bold(), format!("{}@{}", pulled.model, pulled.version));
    if pulled.already_here {
        output::line(format!("{} {name} is here already, complete and admitted.", output::mark(true)))?;
    } else {
        let took = human::duration(took);
        output::line(format!(
            "{} {name} is here: {} fetched in {took}.",
            output::mark(true),
            human::bytes(transfer::fetched(info))
        ))?;
        let spared = transfer::spared(info);
        if !spared.is_empty() {
            output::line(paint(DIM, format!("  {spared}.")))?;
        }
    }
    let shares = transfer::shares(info);
    if !shares.is_empty() {
        output::print(&format!("\n{shares}"))?;
    }
    output::line(format!(
        "\n{}  {}, each chunk and each whole file by its BLAKE3 hash",
        paint(DIM, "verified"),
        human::count(pulled.files as u64, "file")
    ))?;
    output::print(&decision(&pulled.decision))?;
    output::line(format!("{}   {}", paint(DIM, "release"), pulled.release))?;
    for back in &pulled.rolled_back {
        let reason = if back.reason.is_empty() { "no reason given" } else { &back.reason };
        output::warn(format!("{} was rolled back from {}: {reason}", back.channel, back.from));
    }
    if !pulled.pinned && pulled.channels.is_empty() {
        output::warn(format!(
            "not pinned, and no channel points to it: a later `steelyard gc` would remove it; `steelyard pin {}@{}` keeps it",
            pulled.model, pulled.version
        ));
    }
    Ok(())
}

/// The policy's answers, a line each.
pub(super) fn decision(decision: &registry::policy::Decision) -> String {
    let mut table = Table::new(&["", "", ""]);
    for (number, check) in decision.checks.iter().enumerate() {
        let (mark, style) = if check.passed { ("✓", output::GOOD) } else { ("✗", output::BAD) };
        let head = match (number, decision.allowed) {
            (0, true) => "admitted",
            (0, false) => "refused",
            _ => "",
        };
        table.row([
            cell(DIM, format!("{head:<8}")),
            cell(style, mark),
            Cell::from(check.rule.as_str()),
            cell(DIM, check.detail.as_str()),
        ]);
    }
    table.render()
}
