//! `steelyard limits`: bandwidth, while the node runs.

use clap::Args;
use node::transfer::limit::{Bandwidth, Rates};
use registry::Nation;

use crate::client::Client;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::human;
use crate::output::{self, Cell, NAME, Table, cell};

/// Show or set the bandwidth that peers may use
///
/// What is set holds at once, for transfers that run too, until the node ends; `transfer.bandwidth` in the settings holds at
/// every start. A nation's limit counts within those of the node. Only content is counted, not what the network adds to it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard limits
  steelyard limits --up 100Mbit --down none
  steelyard limits --nation alba --up 5MB

A rate is a number with kbit, Mbit, Gbit, kB, MB, GB, KiB, MiB or GiB, each a second, or none for no limit.")]
pub(crate) struct Limits {
    /// Of this nation's peers rather than of all
    #[arg(long, value_name = "NATION")]
    nation: Option<Nation>,
    /// What is sent to peers
    #[arg(long, value_name = "RATE", value_parser = rate)]
    up: Option<Rate>,
    /// What is received from peers
    #[arg(long, value_name = "RATE", value_parser = rate)]
    down: Option<Rate>,
}

/// A rate as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate(Option<u64>);

/// Units and the bytes in each.
const UNITS: [(&str, f64); 9] = [
    ("kbit", 125.0),
    ("Mbit", 125e3),
    ("Gbit", 125e6),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
];

fn rate(text: &str) -> Result<Rate, String> {
    if text == "none" {
        return Ok(Rate(None));
    }
    let text = text.trim_end_matches("/s");
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    let Some((number, bytes)) = unit else {
        return Err("write a number with its unit, such as 100Mbit or 5MB, or none".to_owned());
    };
    match number.trim().parse::<f64>() {
        // The cast saturates; what is too small is refused by the node, with its least rate.
        Ok(number) if number.is_finite() && number > 0.0 => Ok(Rate(Some((number * bytes) as u64))),
        _ => Err(format!("`{number}` is not a number above 0")),
    }
}

impl Limits {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let Some(client) = Client::running(context) else {
            return Err(Failure::new(Exit::Network, "no node is running here, so nothing is limited").help(
                format!(
                    "start it with `{} node`; `transfer.bandwidth` in its settings holds from the start",
                    context.command()
                ),
            ));
        };
        let mut bandwidth: Bandwidth = client.get("/v1/bandwidth").await?;
        if self.up.is_some() || self.down.is_some() {
            self.apply(&mut bandwidth);
            bandwidth = client.put("/v1/bandwidth", &bandwidth).await?;
        }
        if context.json {
            return output::json(&bandwidth);
        }
        let mut table = Table::new(&["peers of", "up", "down"]);
        let all = Rates { up: bandwidth.up, down: bandwidth.down };
        let nations = bandwidth.nations.iter().map(|(nation, rates)| (nation.as_str(), *rates));
        for (whose, rates) in std::iter::once(("all nations", all)).chain(nations) {
            let shown = |rate: Option<u64>| {
                Cell::from(rate.map_or("no limit".to_owned(), |rate| format!("{}/s", human::bytes(rate))))
                    .right()
            };
            table.row([cell(NAME, whose), shown(rates.up), shown(rates.down)]);
        }
        output::print(&table.render())
    }

    fn apply(&self, bandwidth: &mut Bandwidth) {
        let set = |rate: &mut Option<u64>, new: Option<Rate>| {
            if let Some(Rate(new)) = new {
                *rate = new;
            }
        };
        match &self.nation {
            None => {
                set(&mut bandwidth.up, self.up);
                set(&mut bandwidth.down, self.down);
            }
            Some(nation) => {
                let rates = bandwidth.nations.entry(nation.clone()).or_default();
                set(&mut rates.up, self.up);
                set(&mut rates.down, self.down);
                bandwidth.nations.retain(|_, rates| *rates != Rates::default());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_with_their_units() {
        assert_eq!(rate("100Mbit"), Ok(Rate(Some(12_500_000))));
        assert_eq!(rate("5 MB/s"), Ok(Rate(Some(5_000_000))));
        assert_eq!(rate("1.5MiB"), Ok(Rate(Some(1_572_864))));
        assert_eq!(rate("none"), Ok(Rate(None)));
        for wrong in ["100", "Mbit", "-1MB", "NaNMB", "5 parsecs", ""] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
