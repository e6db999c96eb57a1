//! `steelyard have`: a list of what is here, for whoever makes a bundle for this node.

use std::path::PathBuf;

use clap::Args;
use node::api::types::{HaveList, HaveRequest};

use crate::client::{Client, Need};
use crate::context::{Context, absolute};
use crate::failure::Failure;
use crate::human;
use crate::output;

/// Write a list of what is here, so that a bundle for this node can leave it out
///
/// Carry the list to whoever exports: `steelyard export --have` leaves out every file that it names. It holds digests, no
/// content, and tells which models this node has.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard have cora-has.json")]
pub(crate) struct Have {
    /// The file to write; it must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Have {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let path = absolute(&self.file)?.display().to_string();
        let client = Client::open(context, Need::Folder).await?;
        let made: Result<HaveList, Failure> = client.post("/v1/have", &HaveRequest { path }).await;
        client.close().await;
        let made = made?;
        if context.json {
            return output::json(&made);
        }
        let files = human::count(made.blobs as u64, "file");
        output::line(format!("{} {} lists {files}.", output::mark(true), made.path))
    }
}
