//! `steelyard ls`: the models known here.

use clap::Args;
use node::api::types::{ChannelEntry, ModelEntry, Presence, ReleaseEntry};
use registry::Timestamp;

use crate::client::{Client, Need};
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::output::{self, BAD, Cell, DIM, GOOD, NAME, Table, WARN, cell};

/// List the models known here
///
/// Every release that this node has heard of, whether its bytes are here, and whether it may be served.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard ls
  steelyard ls borea
  steelyard --json ls | jq -r '.[].model'")]
pub(crate) struct Ls {
    /// Only models whose name contains this
    #[arg(value_name = "TEXT", default_value = "")]
    filter: String,
}

impl Ls {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = Client::open(context, Need::Folder).await?;
        let models: Result<Vec<ModelEntry>, Failure> = client.get("/v1/models").await;
        client.close().await;
        let mut models = models?;
        models.retain(|entry| entry.model.to_string().contains(&self.filter));
        if context.json {
            return output::json(&models);
        }
        if models.is_empty() && !self.filter.is_empty() {
            output::note(format!(
                "No model known here has `{}` in its name. `steelyard ls` lists all.",
                self.filter
            ));
            return Ok(());
        }
        if models.is_empty() {
            output::note(
                "No model is known here yet. `steelyard publish` makes one, `steelyard pull` fetches an ally's.",
            );
            return Ok(());
        }
        let now = Timestamp::now();
        let mut table =
            Table::new(&["model", "version", "channels", "format", "size", "here", "state", "signed"]);
        for entry in &models {
            let mut pointed: Vec<registry::Digest> = Vec::new();
            for release in &entry.releases {
                let names: Vec<String> =
                    entry.channels.iter().filter(|c| c.release == release.release).map(named).collect();
                pointed.push(release.release);
                let (state, style) = state(release);
                table.row([
                    cell(NAME, release.model.to_string()),
                    release.version.as_str().into(),
                    names.join(", ").into(),
                    cell(DIM, release.format.as_str()),
                    Cell::from(human::bytes(release.size)).right(),
                    cell(DIM, here(release)),
                    cell(style, state),
                    cell(DIM, human::relative(release.issued, now)),
                ]);
            }
            // A channel whose release has not arrived is worth a line too.
            for channel in entry.channels.iter().filter(|channel| !pointed.contains(&channel.release)) {
                table.row([
                    cell(NAME, entry.model.to_string()),
                    cell(DIM, "?"),
                    channel.channel.as_str().into(),
                    cell(DIM, "?"),
                    cell(DIM, "?").right(),
                    cell(DIM, "no"),
                    cell(WARN, "release unknown"),
                    cell(DIM, human::relative(channel.issued, now)),
                ]);
            }
        }
        output::print(&table.render())
    }
}

/// A channel's name, and whether it went back to where it points.
pub(super) fn named(channel: &ChannelEntry) -> String {
    match &channel.rolled_back_from {
        Some(left) => format!("{} (rolled back from {}: {})", channel.channel, left.version, reason(channel)),
        None => channel.channel.to_string(),
    }
}

fn reason(channel: &ChannelEntry) -> &str {
    if channel.reason.is_empty() { "no reason given" } else { &channel.reason }
}

fn here(release: &ReleaseEntry) -> String {
    match release.presence {
        Presence::Complete => "yes".to_owned(),
        Presence::Known => "no".to_owned(),
        Presence::Partial => {
            let percent = (release.bytes_here * 100).checked_div(release.size).unwrap_or(0);
            format!("{percent} %")
        }
    }
}

fn state(release: &ReleaseEntry) -> (String, anstyle::Style) {
    let (word, style) = if release.recalled {
        ("recalled", BAD)
    } else if release.admitted {
        ("admitted", GOOD)
    } else if release.presence == Presence::Complete {
        ("not admitted yet", WARN)
    } else {
        ("known", DIM)
    };
    let pin = if release.pinned { ", pinned" } else { "" };
    let mirrored = release.mirrored.as_ref().map_or_else(String::new, |rule| format!(", mirrored by {rule}"));
    (format!("{word}{pin}{mirrored}"), style)
}
