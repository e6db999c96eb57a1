//! `steelyard export`: one release with its evidence as one file.

use std::path::PathBuf;

use clap::Args;
use node::api::types::{ExportRequest, Exported};
use registry::{Nation, Reference};

use crate::client::{Client, Need};
use crate::context::{Context, absolute};
use crate::failure::Failure;
use crate::human;
use crate::output::{self, DIM, NAME, paint};
use crate::progress::Bar;

/// Write a release with its evidence to one file
///
/// The file holds the bytes, the chunk maps and every signed statement, so that `steelyard import` can verify all of it
/// where no network reaches. It is made for one nation, your own unless you name another, and is refused where that nation
/// may not have the release or its bytes, or your policy would not release it there. Whoever imports it by the default policy needs
/// a cosigned checkpoint of the producer's log in it: export where `steelyard log ls` shows one. Of a recalled release only
/// the statements can be exported (--without-blobs), so that the recall can be carried.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard export borea/smollm2@1.0.0 smollm2.steelyard --for cora
  steelyard export borea/smollm2@1.1.0 update.steelyard --for cora --have cora-has.json
  steelyard export borea/smollm2@1.0.0 card.steelyard --files '*.md' --files config.json")]
pub(crate) struct Export {
    /// nation/name (channel stable), nation/name:channel, nation/name@version or b3:…
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    /// The file to write; it must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The nation that it is for [default: your own]
    #[arg(long = "for", value_name = "NATION")]
    to: Option<Nation>,
    /// Only files whose path fits, with * and ?; may be given several times
    #[arg(long, value_name = "PATTERN")]
    files: Vec<String>,
    /// Statements and chunk maps alone
    #[arg(long, conflicts_with_all = ["files", "have"])]
    without_blobs: bool,
    /// Leave out what the other side has, by the list that `steelyard have` wrote there
    #[arg(long, value_name = "FILE")]
    have: Option<PathBuf>,
}

impl Export {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let path = absolute(&self.file)?.display().to_string();
        let client = Client::open(context, Need::Folder).await?;
        let bar = Bar::new(context.progress(), &format!("writing {path}"));
        let have = self.have.as_deref().map(absolute).transpose()?;
        let request = ExportRequest {
            reference: self.reference.to_string(),
            path,
            to: self.to,
            files: self.files,
            without_blobs: self.without_blobs,
            have: have.map(|path| path.display().to_string()),
        };
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
        let part = if exported.files_in < exported.files {
            format!(", {} of {} files", exported.files_in, exported.files)
        } else {
            String::new()
        };
        let text = format!("  for {}{part}; releasable to {}", exported.to, exported.releasable_to);
        output::line(paint(DIM, text))
    }
}
