//! `steelyard pull`: fetch, verify and admit a release.

use std::time::{Duration, Instant};

use clap::Args;
use node::api::types::{PullRequest, Pulled, TransferInfo, TransferState};
use registry::Reference;

use crate::client::{Client, Need};
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::output::{self, BAD, Cell, DIM, NAME, Table, cell, paint};
use crate::progress::Bar;

/// Fetch, verify and admit a release
///
/// Finds the release, asks the local policy before any bytes move, fetches the missing chunks from several peers at once,
/// verifies each chunk before it is kept and each file when it is whole, and admits the release. A pull that was
/// interrupted goes on where it was.
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
    client.job("/v1/pull", &request, |info: TransferInfo| show(&bar, &info)).await
}

pub(super) fn show(bar: &Bar, info: &TransferInfo) {
    match info.state {
        TransferState::Fetching => {
            bar.start_at(info.bytes_resumed);
            let from: Vec<String> =
                info.peers.iter().filter(|peer| peer.bytes > 0).map(|peer| peer.nation.to_string()).collect();
            let mut nations = from.clone();
            nations.dedup();
            let message = if nations.is_empty() {
                "fetching".to_owned()
            } else {
                format!("from {}", nations.join(", "))
            };
            bar.bytes(info.bytes_done, info.bytes_total, &message);
        }
        TransferState::Verifying => bar.bytes(info.bytes_done, info.bytes_total, "verifying"),
        _ => bar.message(&format!("finding {}", info.reference)),
    }
}

/// Who brought what; nothing without peers.
pub(super) fn shares(info: &TransferInfo) -> String {
    let mut peers: Vec<_> = info.peers.iter().filter(|peer| peer.bytes > 0 || peer.bad_chunks > 0).collect();
    peers.sort_by_key(|peer| std::cmp::Reverse(peer.bytes));
    let fetched: u64 = peers.iter().map(|peer| peer.bytes).sum();
    let mut table = Table::new(&["from", "peer", "bytes", "share", "chunks", ""]);
    for peer in peers {
        let share = (peer.bytes * 100 + fetched / 2).checked_div(fetched).unwrap_or(0);
        let fault = match (peer.bad_chunks, peer.banned) {
            (0, false) => cell(DIM, ""),
            (bad, true) => cell(BAD, format!("✗ {} with wrong bytes: banned", human::count(bad, "chunk"))),
            (bad, false) => cell(BAD, format!("✗ {} with wrong bytes", human::count(bad, "chunk"))),
        };
        table.row([
            cell(NAME, peer.nation.as_str()),
            cell(DIM, human::peer(&peer.peer_id)),
            Cell::from(human::bytes(peer.bytes)).right(),
            Cell::from(format!("{share} %")).right(),
            Cell::from(peer.chunks.to_string()).right(),
            fault,
        ]);
    }
    if table.is_empty() { String::new() } else { table.render() }
}

fn report(pulled: &Pulled, took: Duration) -> Result<(), Failure> {
    let info = &pulled.transfer;
    let name = paint(NAME.bold(), format!("{}@{}", pulled.model, pulled.version));
    if pulled.already_here {
        output::line(format!("{} {name} is here already, complete and admitted.", output::mark(true)))?;
    } else {
        let fetched = info.bytes_total.saturating_sub(info.bytes_resumed);
        let took = human::duration(took);
        output::line(format!(
            "{} {name} is here: {} fetched in {took}.",
            output::mark(true),
            human::bytes(fetched)
        ))?;
        if info.bytes_resumed > 0 {
            output::line(paint(
                DIM,
                format!(
                    "  {} of {} were here before.",
                    human::bytes(info.bytes_resumed),
                    human::bytes(info.bytes_total)
                ),
            ))?;
        }
    }
    let shares = shares(info);
    if !shares.is_empty() {
        output::print(&format!("\n{shares}"))?;
    }
    output::line(format!(
        "\n{}  {}, each chunk and each whole file by its BLAKE3 hash",
        paint(DIM, "verified"),
        human::count(pulled.files as u64, "file")
    ))?;
    output::print(&decision(&pulled.decision))?;
    output::line(format!("{}   {}", paint(DIM, "release"), pulled.release))
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
