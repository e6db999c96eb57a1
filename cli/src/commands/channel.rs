//! `steelyard channel`: move a channel to a release that is there, forward or back.

use std::path::PathBuf;

use clap::Args;
use node::api::types::{ModelEntry, ReleaseEntry, Sequences, Status};
use registry::statement::{Channel as Signed, RoleName, Statement};
use registry::{ChannelName, Digest, Model, Reference, Timestamp, Version};
use serde::Serialize;

use super::publish::sign_and_send;
use crate::client::{Client, Need, segment};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::keys;
use crate::output::{self, NAME, paint};

/// Move a channel to a release, forward or back
///
/// Signs a channel statement with your nation's release key. Moving back to an older release is a rollback: it needs a reason,
/// which every ally sees beside the channel. It does not recall what it moves away from.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard channel alba/smollm2:beta 1.1.0
  steelyard channel alba/smollm2:stable 1.0.0 --reason \"1.1.0 answers in French\"")]
pub(crate) struct Channel {
    /// nation/name (channel stable) or nation/name:channel
    #[arg(value_name = "CHANNEL")]
    reference: Reference,
    /// The version that it is to point to
    #[arg(value_name = "VERSION")]
    version: Version,
    /// Why it moves; needed to move it back
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Folder with your nation's keys [default: the node's]
    #[arg(long, value_name = "FOLDER")]
    keys: Option<PathBuf>,
}

#[derive(Serialize)]
struct Moved {
    model: Model,
    channel: ChannelName,
    sequence: u64,
    release: Digest,
    version: Version,
    rolled_back_from: Option<Version>,
    announced: bool,
}

impl Channel {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = Client::open(context, Need::Folder).await?;
        let moved = self.go(context, &client).await;
        client.close().await;
        let moved = moved?;
        if context.json {
            return output::json(&moved);
        }
        let name = paint(NAME.bold(), format!("{}:{}", moved.model, moved.channel));
        let back = moved.rolled_back_from.map_or_else(String::new, |left| format!(", back from {left}"));
        output::line(format!("{} {name} points to {}{back}.", output::mark(true), moved.version))?;
        if !moved.announced {
            output::note("No node is running here. Allies learn of it once one does.");
        }
        Ok(())
    }

    async fn go(&self, context: &Context, client: &Client) -> Result<Moved, Failure> {
        let Reference::Channel(model, channel) = &self.reference else {
            return Err(Failure::usage("name a channel, such as alba/smollm2:stable"));
        };
        let status: Status = client.get("/v1/status").await?;
        if model.nation != status.nation {
            let text =
                format!("`{model}` is of `{}`, this node belongs to `{}`", model.nation, status.nation);
            return Err(Failure::usage(text).help("only its own nation moves a model's channels"));
        }
        let entry: ModelEntry = client.get(&format!("/v1/models/{}/{}", model.nation, model.name)).await?;
        let find = |wanted: &dyn Fn(&ReleaseEntry) -> bool| entry.releases.iter().find(|it| wanted(it));
        let to = find(&|it| it.version == self.version).ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("no release {model}@{} is known here", self.version))
                .help("`steelyard ls` lists what is")
        })?;
        if to.recalled {
            let text = format!("{model}@{} is recalled; a channel to it would be of no use", self.version);
            return Err(Failure::new(Exit::Policy, text));
        }
        let now = entry.channels.iter().find(|it| it.channel == *channel);
        let left = now.and_then(|now| find(&|it| it.release == now.release));
        let back = left.filter(|left| to.issued < left.issued).map(|left| left.version.clone());
        if back.is_some() && self.reason.trim().is_empty() {
            let text =
                format!("{model}:{channel} would go back to {}, and that needs a reason", self.version);
            return Err(Failure::usage(text).help("say it with --reason; every ally sees it"));
        }
        let key = keys::load(context, client, self.keys.as_ref(), RoleName::Release).await?;
        let query = format!("/v1/sequences?model={}&channel={channel}", segment(&model.to_string()));
        let next: Sequences = client.get(&query).await?;
        let sequence = next.channel.unwrap_or(1);
        let statement = Statement::Channel(Signed {
            model: model.clone(),
            channel: channel.clone(),
            sequence,
            release: to.release,
            reason: self.reason.clone(),
            issued: Timestamp::now(),
        });
        sign_and_send(client, statement, &key).await?;
        Ok(Moved {
            model: model.clone(),
            channel: channel.clone(),
            sequence,
            release: to.release,
            version: self.version.clone(),
            rolled_back_from: back,
            announced: client.is_running(),
        })
    }
}
