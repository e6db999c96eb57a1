//! `steelyard peers`: who is connected.

use clap::Args;
use node::api::types::{DialRequest, Direction, Done, PeerInfo};
use registry::Timestamp;

use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::human;
use crate::output::{self, Cell, DIM, NAME, Table, cell};

/// List the connected peers, or dial one
///
/// Only nodes of trusted nations ever appear here: everybody else is turned away before a word is exchanged.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard peers
  steelyard peers --dial /ip4/192.0.2.7/tcp/4801/p2p/12D3KooW…")]
pub(crate) struct Peers {
    /// Dial this address first
    #[arg(long, value_name = "MULTIADDR")]
    dial: Option<String>,
}

impl Peers {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let Some(client) = Client::running(context) else {
            return Err(Failure::new(Exit::Network, "no node is running here, so nobody is connected")
                .help(format!("start it with `{} node`", context.command())));
        };
        if let Some(address) = self.dial {
            client.post::<Done>("/v1/peers", &DialRequest { address }).await?;
        }
        let peers: Vec<PeerInfo> = client.get("/v1/peers").await?;
        if context.json {
            return output::json(&peers);
        }
        if peers.is_empty() {
            output::note("Nobody is connected. `steelyard doctor` looks for reasons.");
            return Ok(());
        }
        let now = Timestamp::now();
        let mut table =
            Table::new(&["nation", "peer", "address", "", "received", "sent", "round trip", "since"]);
        for peer in &peers {
            table.row([
                cell(NAME, peer.nation.as_str()),
                human::peer(&peer.peer_id).into(),
                cell(DIM, place(peer)),
                cell(DIM, if peer.direction == Direction::Inbound { "in" } else { "out" }),
                Cell::from(human::bytes(peer.received_bytes)).right(),
                Cell::from(human::bytes(peer.sent_bytes)).right(),
                Cell::from(
                    peer.rtt_ms
                        .map(|ms| if ms == 0 { "< 1 ms".to_owned() } else { human::millis(ms) })
                        .unwrap_or_default(),
                )
                .right(),
                cell(DIM, human::relative(peer.connected_at, now)),
            ]);
        }
        output::print(&table.render())
    }
}

/// Where a peer is, without its identifier.
fn place(peer: &PeerInfo) -> String {
    let front = peer.address.split("/p2p/").next().unwrap_or(&peer.address);
    if peer.relayed { format!("{front} (relay)") } else { front.to_owned() }
}
