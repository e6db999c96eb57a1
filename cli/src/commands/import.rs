//! `steelyard import`: take in what `steelyard export` wrote.

use std::path::PathBuf;

use clap::Args;
use node::api::types::{ImportRequest, Imported};

use super::import_oms::OmsImport;
use super::pull;
use crate::client::{Client, Need};
use crate::context::{Context, absolute};
use crate::failure::Failure;
use crate::human;
use crate::output::{self, DIM, NAME, paint};
use crate::progress::Bar;

/// Take in a release from a file that `steelyard export` wrote
///
/// Believes nothing in the file: signatures are checked against the nations trusted here, the policy is asked, every byte is
/// hashed, and only when all of it is right is anything kept. What was recalled after the bundle was made it can't know:
/// --max-age refuses one that is too old.
///
/// With --oms it takes in a folder that was signed with OpenSSF Model Signing instead, and publishes it as your nation's own
/// release, which keeps that signature and says by whose key it was checked. It must cover every file of the folder.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard import smollm2.steelyard
  steelyard import smollm2.steelyard --max-age 7d
  steelyard import --oms ./model --signature model.sig --public-key signer.pub --as alba/model --model-version 1.0.0")]
pub(crate) struct Import {
    /// The file
    #[arg(value_name = "FILE", required_unless_present = "oms")]
    file: Option<PathBuf>,
    #[command(flatten)]
    oms: OmsImport,
    /// Refuse a bundle that was made longer ago, such as 12h or 7d [default: the setting bundle.max_age_secs]
    #[arg(long, value_name = "TIME", value_parser = human::seconds)]
    max_age: Option<u64>,
}

impl Import {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let Some(file) = self.file else {
            return self.oms.run(context).await;
        };
        let path = absolute(&file)?.display().to_string();
        let client = Client::open(context, Need::Folder).await?;
        let bar = Bar::new(context.progress(), &format!("verifying {path}"));
        let imported: Result<Imported, Failure> =
            client.post("/v1/import", &ImportRequest { path, max_age_secs: self.max_age }).await;
        drop(bar);
        client.close().await;
        let imported = imported?;
        if context.json {
            return output::json(&imported);
        }
        let name = paint(NAME.bold(), format!("{}@{}", imported.model, imported.version));
        output::line(format!(
            "{} {name} is here: {}, {} of them new.\n",
            output::mark(true),
            human::bytes(imported.bytes),
            human::bytes(imported.new_bytes)
        ))?;
        if let (Some(by), Some(made)) = (&imported.by, imported.made) {
            let age = human::relative(made, registry::Timestamp::now());
            output::line(paint(
                DIM,
                format!("  made by {by} at {made}, {age}: later recalls are not in it"),
            ))?;
        }
        if let Some(checkpoint) = &imported.checkpoint {
            let by: Vec<String> = checkpoint.witnesses.iter().map(ToString::to_string).collect();
            let by = if by.is_empty() {
                "by nobody that is trusted here".to_owned()
            } else {
                format!("by {}", by.join(", "))
            };
            let when = checkpoint.witnessed.map(|at| format!(" at {at}")).unwrap_or_default();
            let size = checkpoint.size;
            output::line(paint(
                DIM,
                format!("  proved in its producer's log of {size} entries, cosigned {by}{when}"),
            ))?;
        }
        if imported.recalls > 0 {
            output::warn(format!("{} came with it", human::count(imported.recalls as u64, "new recall")));
        }
        if let Some(first) = imported.missing.first() {
            let missing = human::count(imported.missing.len() as u64, "file");
            output::warn(format!(
                "{missing} not here yet, `{first}` first: import the other parts, or pull it"
            ));
        }
        for left in &imported.skipped {
            output::warn(format!("not kept: {left}"));
        }
        output::print(&pull::decision(&imported.decision))
    }
}
