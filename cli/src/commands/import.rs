//! `steelyard import`: take in what `steelyard export` wrote.

use std::path::{Path, PathBuf};

use clap::Args;
use node::api::types::{ImportRequest, Imported};

use super::import_from::{Fetching, Remote};
use super::import_oms::{NewRelease, OmsImport};
use super::pull;
use crate::client::{Client, Need};
use crate::context::{Context, absolute};
use crate::failure::Failure;
use crate::human;
use crate::output::{self, DIM, NAME, paint};
use crate::progress::Bar;

/// Take in a model from a file, a folder, a hub, a hub's cache or a registry
///
/// Of a bundle nothing is believed: signatures are checked against the nations trusted here, the policy is asked, every byte is
/// hashed, and only when all of it is right is anything kept. What was recalled after the bundle was made it can't know: --max-age
/// refuses one that is too old.
///
/// What comes from a hub, a cache or a registry is verified file by file by the hashes that it names, refused before a byte comes if it
/// would run code when it is loaded, and published as your nation's own release, which says from where it came and when, signed. A run
/// that was cut off goes on where it stopped. This command alone asks such a server, and only the one that is named; a node never does.
///
/// With --oms it takes in a folder that was signed with OpenSSF Model Signing, and the release keeps that signature and says by whose key
/// it was checked. It must cover every file of the folder.
#[derive(Debug, Args)]
#[command(after_help = "\
Sources:
  FILE                         a bundle of `steelyard export`: another nation's release, with its evidence
  FOLDER                       published as your nation's own release, as `steelyard publish` does
  hf:ORG/NAME[@REVISION]       a model of the hub that --endpoint or HF_ENDPOINT names
  hf-cache:FOLDER[@REVISION]   the same from the cache of a hub's client: its folder models--ORG--NAME
  oci:HOST/NAME[:TAG|@DIGEST]  a model in a registry: a ModelPack artifact with raw layers, or one of Ollama's

Examples:
  steelyard import smollm2.steelyard --max-age 7d
  steelyard import ./model --as alba/model --model-version 1.0.0 -- --licence MIT
  steelyard import hf:org/model@main --endpoint https://hub.example --dry-run
  steelyard import hf:org/model --as alba/model --model-version 1.0.0 --exclude '*.bin'
  steelyard import hf-cache:./models--org--model --as alba/model --model-version 1.0.0
  steelyard import oci:registry.example/org/model:1.0 --as alba/model --model-version 1.0.0
  steelyard import --oms ./model --signature model.sig --public-key signer.pub --as alba/model --model-version 1.0.0")]
pub(crate) struct Import {
    /// What to take in
    #[arg(value_name = "SOURCE", required_unless_present = "oms")]
    source: Option<String>,
    #[command(flatten)]
    release: NewRelease,
    #[command(flatten)]
    fetching: Fetching,
    #[command(flatten)]
    oms: OmsImport,
    /// Refuse a bundle that was made longer ago, such as 12h or 7d [default: the setting bundle.max_age_secs]
    #[arg(long, value_name = "TIME", value_parser = human::seconds)]
    max_age: Option<u64>,
}

impl Import {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let Some(source) = self.source else {
            return self.oms.run(context, &self.release).await;
        };
        if let Some(from) = Remote::parse(&source)? {
            return self.fetching.run(context, from, &self.release).await;
        }
        if self.fetching.is_named() {
            return Err(Failure::usage(
                "--endpoint, --token-file, --exclude and --dry-run are for a hub, a cache or a registry",
            )
            .help("name one as hf:…, hf-cache:… or oci:…"));
        }
        if Path::new(&source).is_dir() {
            return self.release.publication(PathBuf::from(source), [])?.run(context).await;
        }
        if self.release.is_named() {
            return Err(Failure::usage(format!(
                "{source} is no folder; a bundle brings its own name and version"
            ))
            .help("leave --as, --model-version and what follows `--` out"));
        }
        bundle(context, Path::new(&source), self.max_age).await
    }
}

/// Takes in a bundle.
async fn bundle(context: &Context, file: &Path, max_age_secs: Option<u64>) -> Result<(), Failure> {
    let path = absolute(file)?.display().to_string();
    let client = Client::open(context, Need::Folder).await?;
    let bar = Bar::new(context.progress(), &format!("verifying {path}"));
    let imported: Result<Imported, Failure> =
        client.post("/v1/import", &ImportRequest { path, max_age_secs }).await;
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
        output::line(paint(DIM, format!("  made by {by} at {made}, {age}: later recalls are not in it")))?;
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
        output::warn(format!("{missing} not here yet, `{first}` first: import the other parts, or pull it"));
    }
    for left in &imported.skipped {
        output::warn(format!("not kept: {left}"));
    }
    output::print(&pull::decision(&imported.decision))
}
