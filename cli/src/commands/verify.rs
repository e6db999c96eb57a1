//! `steelyard verify`: read every byte of a release again, or judge a receipt.

mod receipt;

use std::path::PathBuf;

use clap::Args;
use node::api::types::{VerifyDone, VerifyRequest, Work};
use registry::Reference;

use crate::client::{Client, Need};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::human;
use crate::output::{self, BAD, DIM, NAME, paint};
use crate::progress::Bar;
use crate::transfer;

/// Damaged places listed for people; --json has them all.
const SHOWN: usize = 4;

/// Read and hash every byte of a release again
///
/// Verifies the signatures by today's trust, then each chunk and each file. A damaged file is set aside and its release's
/// admission withdrawn, workers that serve it are stopped; with --repair it is fetched again from peers at once.
///
/// With --receipt, nothing is read but a receipt that a node gave for an answer: whether the node that it names signed it, and
/// whether a nation pinned here vouched for that node. It is the node's claim about the answer, not a proof. Offline.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard verify borea/smollm2
  steelyard verify borea/smollm2 --repair
  curl -D head -H 'steelyard-receipt: yes' -d @question.json http://127.0.0.1:4810/v1/completions > answer.json
  steelyard verify --receipt head --request question.json --response answer.json")]
pub(crate) struct Verify {
    /// nation/name (channel stable), nation/name:channel, nation/name@version or b3:…
    #[arg(value_name = "REFERENCE", required_unless_present = "receipt")]
    reference: Option<Reference>,
    /// Fetch what is damaged or missing again from peers
    #[arg(long, conflicts_with = "receipt")]
    repair: bool,
    /// A receipt: its JSON, the head of an answer that carries it, or a streamed answer
    #[arg(long, value_name = "FILE", conflicts_with = "reference")]
    receipt: Option<PathBuf>,
    /// The body of the request that the receipt must be about
    #[arg(long, value_name = "FILE", requires = "receipt")]
    request: Option<PathBuf>,
    /// The body of the response that the receipt must be about
    #[arg(long, value_name = "FILE", requires = "receipt")]
    response: Option<PathBuf>,
}

impl Verify {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let Some(reference) = &self.reference else { return self.judge_receipt(context).await };
        let need = if self.repair { Need::Network } else { Need::Folder };
        let client = Client::open(context, need).await?;
        let bar = Bar::new(context.progress(), &format!("verifying {reference}"));
        let request = VerifyRequest { reference: reference.to_string(), repair: self.repair };
        let done: Result<VerifyDone, Failure> = client
            .job("/v1/verify", &request, |work: Work| {
                bar.bytes(work.bytes_done, work.bytes_total, "verifying")
            })
            .await;
        drop(bar);
        client.close().await;
        let done = done?;
        if context.json {
            output::json(&done)?;
        } else {
            report(&done)?;
        }
        if done.sound {
            return Ok(());
        }
        let failure =
            Failure::new(Exit::Verification, format!("{}@{} is damaged here", done.model, done.version))
                .help(format!("`steelyard verify {reference} --repair` fetches it again"));
        Err(if context.json { failure.reported() } else { failure })
    }
}

fn report(done: &VerifyDone) -> Result<(), Failure> {
    let name = paint(NAME.bold(), format!("{}@{}", done.model, done.version));
    for damage in done.damage.iter().take(SHOWN) {
        let place = match (damage.chunk, damage.offset) {
            (Some(chunk), Some(offset)) => format!("chunk {chunk}, at byte {offset}: wrong content"),
            _ => damage.what.clone(),
        };
        output::line(format!("{} {}  {}", output::mark(false), damage.path, paint(BAD, place)))?;
    }
    if let Some(more) = done.damage.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        output::line(paint(DIM, format!("  and {more} more")))?;
    }
    if let Some(repair) = &done.repaired {
        output::line(format!("\nFetched again:\n{}", transfer::shares(repair).trim_end()))?;
    }
    if done.sound {
        let again = if done.repaired.is_some() { "is whole again" } else { "is sound" };
        output::line(format!(
            "{} {name} {again}: {}, {}, every chunk and file as signed.",
            output::mark(true),
            human::count(done.files as u64, "file"),
            human::bytes(done.bytes)
        ))?;
        output::line(paint(DIM, format!("  {}", done.release)))?;
    }
    Ok(())
}
