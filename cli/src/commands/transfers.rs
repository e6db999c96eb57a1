//! `steelyard transfers`: what is being fetched, and what was.

use clap::Args;
use node::api::types::{TransferInfo, TransferState};
use registry::Timestamp;

use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::human;
use crate::output::{self, BAD, Cell, DIM, GOOD, NAME, Table, WARN, cell};

/// List transfers, running and lately over
///
/// Each with how far it is, its rate, and how many bytes came from which nation.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard transfers
  watch steelyard transfers")]
pub(crate) struct Transfers {}

impl Transfers {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let Some(client) = Client::running(context) else {
            return Err(Failure::new(Exit::Network, "no node is running here, so nothing is being fetched")
                .help(format!("start it with `{} node`", context.command())));
        };
        let transfers: Vec<TransferInfo> = client.get("/v1/transfers").await?;
        if context.json {
            return output::json(&transfers);
        }
        if transfers.is_empty() {
            output::note("Nothing was fetched since the node started.");
            return Ok(());
        }
        let now = Timestamp::now();
        let mut table = Table::new(&["release", "state", "done", "of", "rate", "from", "started"]);
        for transfer in &transfers {
            let name = match (&transfer.model, &transfer.version) {
                (Some(model), Some(version)) => format!("{model}@{version}"),
                _ => transfer.reference.clone(),
            };
            let (state, style) = match transfer.state {
                TransferState::Resolving => ("finding", WARN),
                TransferState::Fetching => ("fetching", WARN),
                TransferState::Verifying => ("verifying", WARN),
                TransferState::Done => ("done", GOOD),
                TransferState::Failed => ("failed", BAD),
                TransferState::Cancelled => ("cancelled", DIM),
            };
            let from: Vec<String> = transfer
                .peers
                .iter()
                .filter(|peer| peer.bytes > 0 || peer.banned)
                .map(|peer| {
                    let banned = if peer.banned { " (banned)" } else { "" };
                    format!("{} {}{banned}", peer.nation, human::bytes(peer.bytes))
                })
                .collect();
            let rate = if transfer.state == TransferState::Fetching {
                format!("{}/s", human::bytes(transfer.rate))
            } else {
                String::new()
            };
            table.row([
                cell(NAME, name),
                cell(style, state),
                Cell::from(human::bytes(transfer.bytes_done)).right(),
                Cell::from(human::bytes(transfer.bytes_total)).right(),
                Cell::from(rate).right(),
                from.join(", ").into(),
                cell(DIM, human::relative(transfer.started, now)),
            ]);
        }
        output::print(&table.render())?;
        for transfer in &transfers {
            if let Some(error) = &transfer.error {
                output::note(format!("{} {}: {error}", output::mark(false), transfer.reference));
            }
        }
        Ok(())
    }
}
