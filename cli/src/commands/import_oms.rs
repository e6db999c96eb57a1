//! `steelyard import --oms`: a folder that was signed with OpenSSF Model Signing becomes a release of one's own nation.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser};

use super::publish::Publish;
use crate::context::Context;
use crate::failure::Failure;

/// The arguments of `import --oms`.
#[derive(Debug, Args)]
#[group(id = "oms-import")]
pub(super) struct OmsImport {
    /// Take in this folder, which was signed with OpenSSF Model Signing
    #[arg(
        long,
        value_name = "FOLDER",
        conflicts_with = "file",
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
    /// The model's name here: your nation and a name
    #[arg(
        long = "as",
        value_name = "NATION/NAME",
        requires = "oms",
        help_heading = "A folder that another tool signed"
    )]
    model: Option<String>,
    /// The version here; never reused
    #[arg(
        long = "model-version",
        value_name = "VERSION",
        requires = "oms",
        help_heading = "A folder that another tool signed"
    )]
    version: Option<String>,
    /// Further arguments of `steelyard publish`, behind `--`, such as `-- --licence MIT`
    #[arg(last = true, value_name = "ARGUMENTS", requires = "oms")]
    publish: Vec<OsString>,
}

/// The arguments of `publish`, read from a list.
#[derive(Parser)]
#[command(name = "steelyard import --oms", no_binary_name = true)]
struct Arguments {
    #[command(flatten)]
    publish: Publish,
}

impl OmsImport {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let (Some(folder), Some(signature), Some(public), Some(model), Some(version)) =
            (self.oms, self.signature, self.public_key, self.model, self.version)
        else {
            return Err(Failure::usage("name a file, or a folder with --oms"));
        };
        let mut words: Vec<OsString> = vec![folder.into()];
        for (name, value) in [
            ("--as", OsString::from(model)),
            ("--version", version.into()),
            ("--oms-signature", signature.into()),
            ("--oms-public-key", public.into()),
        ] {
            words.extend([name.into(), value]);
        }
        words.extend(self.publish);
        let arguments =
            Arguments::try_parse_from(words).map_err(|error| Failure::usage(error.to_string()))?;
        arguments.publish.run(context).await
    }
}
