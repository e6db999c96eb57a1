//! `steelyard import --oms`: a folder that was signed with OpenSSF Model Signing becomes a release of one's own nation.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser};

use super::publish::Publish;
use crate::context::Context;
use crate::failure::Failure;

/// The release that an import makes, where it makes one.
#[derive(Debug, Args)]
pub(super) struct NewRelease {
    /// The model's name here: your nation and a name
    #[arg(long = "as", value_name = "NATION/NAME", help_heading = "The release that it becomes")]
    model: Option<String>,
    /// The version here; never reused
    #[arg(long = "model-version", value_name = "VERSION", help_heading = "The release that it becomes")]
    version: Option<String>,
    /// Further arguments of `steelyard publish`, behind `--`, such as `-- --licence MIT`
    #[arg(last = true, value_name = "ARGUMENTS")]
    publish: Vec<OsString>,
}

/// The arguments of `publish`, read from a list.
#[derive(Parser)]
#[command(name = "steelyard import", no_binary_name = true)]
struct Arguments {
    #[command(flatten)]
    publish: Publish,
}

impl NewRelease {
    /// Whether anything of it was named.
    pub(super) fn is_named(&self) -> bool {
        self.model.is_some() || self.version.is_some() || !self.publish.is_empty()
    }

    /// The publication of `folder`, with further arguments.
    pub(super) fn publication(
        &self,
        folder: PathBuf,
        more: impl IntoIterator<Item = (&'static str, OsString)>,
    ) -> Result<Publish, Failure> {
        let (Some(model), Some(version)) = (&self.model, &self.version) else {
            return Err(Failure::usage(
                "what is taken in becomes a release of your nation, which needs a name",
            )
            .help("add --as NATION/NAME --model-version VERSION"));
        };
        let mut words: Vec<OsString> = vec![folder.into()];
        let named = [("--as", OsString::from(model)), ("--version", version.into())];
        for (name, value) in named.into_iter().chain(more) {
            words.extend([name.into(), value]);
        }
        words.extend(self.publish.iter().cloned());
        Arguments::try_parse_from(words)
            .map(|arguments| arguments.publish)
            .map_err(|error| Failure::usage(error.to_string()))
    }
}

/// The arguments of `import --oms`.
#[derive(Debug, Args)]
#[group(id = "oms-import")]
pub(super) struct OmsImport {
    /// Take in this folder, which was signed with OpenSSF Model Signing
    #[arg(
        long,
        value_name = "FOLDER",
        conflicts_with = "source",
        requires_all = ["signature", "public_key", "model", "version"],
        help_heading = "A folder that another tool signed"
    )]
    oms: Option<PathBuf>,
    /// Its signature bundle
    #[arg(long, value_name = "FILE", requires = "oms", help_heading = "A folder that another tool signed")]
    signature: Option<PathBuf>,
    /// Its signer's public key, in PEM (ECDSA P-256)
    #[arg(long, value_name = "FILE", requires = "oms", help_heading = "A folder that another tool signed")]
    public_key: Option<PathBuf>,
}

impl OmsImport {
    pub(super) async fn run(self, context: &Context, release: &NewRelease) -> Result<(), Failure> {
        let (Some(folder), Some(signature), Some(public)) = (self.oms, self.signature, self.public_key)
        else {
            return Err(Failure::usage("name a source, or a folder with --oms"));
        };
        let more = [("--oms-signature", signature.into()), ("--oms-public-key", public.into())];
        release.publication(folder, more)?.run(context).await
    }
}
