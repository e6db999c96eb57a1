//! `steelyard pin`, `steelyard unpin`: what garbage collection keeps.

use clap::Args;
use node::api::types::{PinEntry, PinRequest, Resolved};
use registry::Reference;

use crate::client::{Client, Need, segment};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, NAME, paint};

/// Keep a release against garbage collection
///
/// A pinned release stays even when no channel points to it any more. What you publish is pinned by itself.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard pin borea/smollm2@1.0.0 --reason 'in production until March'")]
pub(crate) struct Pin {
    /// nation/name (channel stable), nation/name:channel, nation/name@version or b3:…
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    /// Why, for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Keep a release no longer
///
/// Its bytes go with the next `steelyard gc`, unless a channel still points to it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard unpin borea/smollm2@1.0.0")]
pub(crate) struct Unpin {
    /// nation/name (channel stable), nation/name:channel, nation/name@version or b3:…
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
}

fn path(reference: &Reference) -> String {
    format!("/v1/pins/{}", segment(&reference.to_string()))
}

impl Pin {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = Client::open(context, Need::Folder).await?;
        let pinned: Result<PinEntry, Failure> =
            client.put(&path(&self.reference), &PinRequest { reason: self.reason }).await;
        client.close().await;
        let pinned = pinned?;
        if context.json {
            return output::json(&pinned);
        }
        output::line(format!("{} {} is kept.", output::mark(true), paint(NAME, &self.reference)))
    }
}

impl Unpin {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = Client::open(context, Need::Folder).await?;
        let done: Result<Resolved, Failure> = client.delete(&path(&self.reference)).await;
        client.close().await;
        let done = done?;
        if context.json {
            return output::json(&done);
        }
        output::line(format!("{} {} is no longer pinned.", output::mark(true), paint(NAME, &self.reference)))
    }
}
