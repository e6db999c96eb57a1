//! `steelyard checkout`: a release's files as a folder.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use node::api::types::{CheckedOut, CheckoutRequest, ReleaseDetail};
use registry::Reference;
use registry::oms::{FILE_NAME, SigningKey, sign_release};

use crate::client::{Client, Need};
use crate::context::{Context, absolute};
use crate::failure::{Exit, Failure};
use crate::human;
use crate::output::{self, DIM, NAME, paint};
use crate::progress::Bar;

/// Write the files of a release out as a folder, for other tools
///
/// Each file is hashed on its way, and the folder appears only when it is whole. A release that was published with
/// --oms-key holds model.sig, so that the stock client of OpenSSF Model Signing can check the folder. Whoever carries it is
/// bound by what the release says about who may have it; no recall reaches it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard checkout borea/smollm2@1.0.0 ./smollm2
  steelyard checkout borea/smollm2 ./smollm2 --oms-key model-signing.pem
  model_signing verify key ./smollm2 --signature ./smollm2/model.sig --public_key borea.pub")]
pub(crate) struct Checkout {
    /// nation/name (channel stable), nation/name:channel, nation/name@version or b3:…
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    /// The folder to write; it must not exist
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Write model.sig beside the files, signed with this ECDSA P-256 key in PEM (mode 0600), for a release that has none
    #[arg(long, value_name = "FILE")]
    oms_key: Option<PathBuf>,
}

impl Checkout {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let path = absolute(&self.folder)?.display().to_string();
        let key = self.oms_key.as_deref().map(SigningKey::load).transpose()?;
        let client = Client::open(context, Need::Folder).await?;
        let bar = Bar::new(context.progress(), &format!("writing {path}"));
        let request = CheckoutRequest { reference: self.reference.to_string(), path };
        let done: Result<CheckedOut, Failure> = client.post("/v1/checkout", &request).await;
        drop(bar);
        let signed = match (&key, &done) {
            (Some(key), Ok(done)) => sign(&client, key, done).await,
            _ => Ok(()),
        };
        client.close().await;
        let done = done?;
        signed?;
        if context.json {
            return output::json(&done);
        }
        let name = paint(NAME.bold(), format!("{}@{}", done.model, done.version));
        output::line(format!(
            "{} {name} is in {} ({}, {}).",
            output::mark(true),
            done.path,
            human::count(done.files as u64, "file"),
            human::bytes(done.bytes)
        ))?;
        for left in &done.left_out {
            output::line(paint(DIM, format!("  not in it: {left}, a record about the release")))?;
        }
        output::line(paint(DIM, format!("  releasable to {}", done.releasable_to)))
    }
}

/// Signs what was written, by the digests that it was compared with.
async fn sign(client: &Client, key: &SigningKey, done: &CheckedOut) -> Result<(), Failure> {
    let detail: ReleaseDetail = client.get(&format!("/v1/releases/{}", done.release)).await?;
    let files: Vec<_> = detail.file_list.into_iter().map(|entry| entry.file).collect();
    let bundle = sign_release(done.model.name.as_str(), &files, key)?;
    let path = Path::new(&done.path).join(FILE_NAME);
    let written = File::create_new(&path).and_then(|mut file| {
        file.write_all(&bundle)?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::new(
            Exit::Busy,
            format!("the release brings its own {FILE_NAME}, which was left as it is"),
        )
        .help("verify that one, or publish the files anew without it"),
        _ => Failure::new(Exit::Other, format!("could not write {}: {error}", path.display())),
    })
}
