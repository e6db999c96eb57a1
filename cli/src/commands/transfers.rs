//! `steelyard transfers`: what is being fetched, and what was.

use clap::Args;
use node::api::types::{TransferInfo, TransferState};

use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{self, DIM, NAME, paint};
use crate::transfer;

/// List transfers, running and lately over
///
/// A row for each: how far it is, its rate, the nations that bring it, and what did not have to travel, because it was here
/// or came encoded. With an ID, or with --peers for all, a row for each peer follows: what it does now, its rate, its bytes
/// and chunks, and any wrong ones.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard transfers
  steelyard transfers 3
  watch steelyard transfers --peers")]
pub(crate) struct Transfers {
    /// Only this transfer, with its peers
    #[arg(value_name = "ID")]
    id: Option<u64>,
    /// Show the peers of each transfer
    #[arg(long)]
    peers: bool,
}

impl Transfers {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let Some(client) = Client::running(context) else {
            return Err(Failure::new(Exit::Network, "no node is running here, so nothing is being fetched")
                .help(format!("start it with `{} node`", context.command())));
        };
        let transfers: Vec<TransferInfo> = match self.id {
            Some(id) => {
                let one: TransferInfo =
                    client.get(&format!("/v1/transfers/{id}")).await.map_err(|failure: Failure| {
                        failure.or_help("`steelyard transfers` lists each with its ID")
                    })?;
                if context.json {
                    return output::json(&one);
                }
                vec![one]
            }
            None => client.get("/v1/transfers").await?,
        };
        if context.json {
            return output::json(&transfers);
        }
        if transfers.is_empty() {
            output::note("Nothing was fetched since the node started.");
            return Ok(());
        }
        output::print(&transfer::table(&transfers).render())?;
        if self.peers || self.id.is_some() {
            for info in &transfers {
                with_peers(info)?;
            }
        }
        for info in &transfers {
            if let (TransferState::Failed, Some(error)) = (info.state, &info.error) {
                output::note(format!(
                    "{} {} {}: {error}",
                    output::mark(false),
                    info.id,
                    transfer::name(info)
                ));
            }
        }
        Ok(())
    }
}

fn with_peers(info: &TransferInfo) -> Result<(), Failure> {
    let shares = transfer::shares(info);
    let name = paint(NAME, transfer::name(info));
    if shares.is_empty() {
        return output::line(format!("\n{} {name}: {}", info.id, paint(DIM, "no peer brought anything")));
    }
    output::print(&format!("\n{} {name}\n{shares}", info.id))?;
    let spared = transfer::spared(info);
    if spared.is_empty() { Ok(()) } else { output::line(paint(DIM, spared)) }
}
