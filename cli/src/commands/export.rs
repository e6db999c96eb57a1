//! `steelyard export`: one release with its evidence as one file.

use std::path::PathBuf;

use clap::Args;
use node::api::types::{ExportRequest, Exported};
use registry::Reference;

use crate::client::{Client, Need};
use crate::context::{Context, absolute};
use crate::failure::Failure;
use crate::human;
use crate::output::{self, DIM, NAME, paint};
use crate::progress::Bar;

/// Write a release with its evidence to one file
///
/// The file holds the bytes, the chunk maps and every signed statement, so that `steelyard import` can verify all of it
/// where no network reaches. Whoever carries it is bound by what the release says about who may have it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard export borea/smollm2@1.0.0 smollm2.steelyard")]
pub(crate) struct Export {
    /// nation/name (channel stable), nation/name:channel, nation/name@version or b3:…
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    /// The file to write; it must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Export {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let path = absolute(&self.file)?.display().to_string();
        let client = Client::open(context, Need::Folder).await?;
        let bar = Bar::new(context.progress(), &format!("writing {path}"));
        let request = ExportRequest { reference: self.reference.to_string(), path };
        let exported: Result<Exported, Failure> = client.post("/v1/export", &request).await;
        drop(bar);
        client.close().await;
        let exported = exported?;
        if context.json {
            return output::json(&exported);
        }
        let name = paint(NAME.bold(), format!("{}@{}", exported.model, exported.version));
        output::line(format!(
            "{} {name} is in {} ({}).",
            output::mark(true),
            exported.path,
            human::bytes(exported.bytes)
        ))?;
        output::line(paint(DIM, format!("  releasable to {}", exported.releasable_to)))
    }
}
