//! `steelyard recall`: take a release out of service, everywhere.

use std::io::{IsTerminal, Write};

use clap::{Args, ValueEnum};
use node::api::types::{ReleaseDetail, Resolved, Sequences};
use registry::statement::{Recall as Signed, RecallTarget, RoleName, Severity, Statement};
use registry::{Digest, Nation, Reference, Timestamp};
use serde::Serialize;

use super::publish::sign_and_send;
use super::sign;
use crate::ask;
use crate::client::{Client, Need, segment};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::human;
use crate::keys::{self, Signing};
use crate::output::{self, BAD, BOLD, DIM, NAME, paint};

/// Recall a release: it must no longer be served
///
/// Signs a recall with your nation's recall key and announces it. A recall of your own nation's release binds every ally;
/// one of another nation's release binds your own nation's nodes only. Workers that serve it stop within a second of
/// knowing. A recall is never taken back: a corrected model is a new release.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard recall alba/smollm2@1.0.0 --reason 'leaks its training data' --severity high
  steelyard recall alba/base@2 --reason 'poisoned' --severity critical --lineage --yes")]
pub(crate) struct Recall {
    /// nation/name (channel stable), nation/name:channel, nation/name@version or b3:…
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    /// Why, for people everywhere
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// How bad it is: every severity stops serving; it tells people how fast to look into it
    #[arg(long, value_name = "LEVEL", default_value = "high")]
    severity: Level,
    /// Recall all that derives from it too
    #[arg(long)]
    lineage: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    signing: Signing,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    Low,
    Medium,
    High,
    Critical,
}

impl From<Level> for Severity {
    fn from(level: Level) -> Self {
        match level {
            Level::Low => Self::Low,
            Level::Medium => Self::Medium,
            Level::High => Self::High,
            Level::Critical => Self::Critical,
        }
    }
}

#[derive(Serialize)]
struct Recalled {
    recall: Digest,
    release: Digest,
    nation: Nation,
    reason: String,
    severity: Severity,
    lineage: bool,
    sequence: u64,
    binds_allies: bool,
    announced: bool,
    withdrawn: Vec<Digest>,
}

impl Recall {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = Client::open(context, Need::Folder).await?;
        let recalled = self.recall(context, &client).await;
        client.close().await;
        let Some((recalled, name)) = recalled? else { return Ok(()) };
        if context.json {
            return output::json(&recalled);
        }
        let whom = if recalled.binds_allies { "every ally" } else { "this nation's own nodes" };
        output::line(format!("{} {} is recalled.", output::mark(true), paint(NAME.bold(), name)))?;
        output::print(&output::facts(&[
            ("binds", whom.to_owned()),
            ("reason", recalled.reason.clone()),
            ("severity", recalled.severity.to_string()),
            ("recall", recalled.recall.to_string()),
        ]))?;
        if !recalled.announced {
            let command = paint(BOLD, format!("{} node", context.command()));
            output::warn(format!("no node is running here: allies learn of it once one does: {command}"));
        }
        Ok(())
    }

    async fn recall(
        &self,
        context: &Context,
        client: &Client,
    ) -> Result<Option<(Recalled, String)>, Failure> {
        let key = match self.signing.draft {
            Some(_) => None,
            None => Some(keys::load(context, client, self.signing.keys.as_ref(), RoleName::Recall).await?),
        };
        let resolved: Resolved =
            client.get(&format!("/v1/resolve?ref={}", segment(&self.reference.to_string()))).await?;
        let detail: ReleaseDetail = client.get(&format!("/v1/releases/{}", resolved.release)).await?;
        let status: node::api::types::Status = client.get("/v1/status").await?;
        let own = detail.entry.model.nation == status.nation;
        let name = format!("{}@{}", resolved.model, resolved.version);
        if !self.yes && key.is_some() {
            self.confirm(&name, &detail, own).await?;
        }
        let next: Sequences = client.get("/v1/sequences").await?;
        let target = if self.lineage {
            RecallTarget::Lineage(resolved.release)
        } else {
            RecallTarget::Release(resolved.release)
        };
        let statement = Statement::Recall(Signed {
            nation: status.nation.clone(),
            target,
            reason: self.reason.clone(),
            severity: self.severity.into(),
            sequence: next.recall,
            issued: Timestamp::now(),
        });
        let accepted = match (&key, &self.signing.draft) {
            (Some(key), _) => sign_and_send(client, statement, key).await?,
            (None, Some(file)) => return sign::write_draft(context, vec![statement], file).map(|()| None),
            (None, None) => return Err(Failure::usage("neither a key nor --draft")),
        };
        let recalled = Recalled {
            recall: accepted.digest,
            release: resolved.release,
            nation: status.nation,
            reason: self.reason.clone(),
            severity: self.severity.into(),
            lineage: self.lineage,
            sequence: next.recall,
            binds_allies: own,
            announced: client.is_running(),
            withdrawn: accepted.withdrawn,
        };
        Ok(Some((recalled, name)))
    }

    async fn confirm(&self, name: &str, detail: &ReleaseDetail, own: bool) -> Result<(), Failure> {
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Err(Failure::usage("a recall is never taken back, so it needs a person's yes")
                .help("say it with --yes"));
        }
        let whom = if own { "everywhere: every ally stops serving it" } else { "on this nation's own nodes" };
        let lineage = if self.lineage { ", and all that derives from it" } else { "" };
        output::note(format!(
            "Recall {} ({}){lineage}, {whom}.",
            paint(NAME.bold(), name),
            paint(DIM, human::bytes(detail.entry.size))
        ));
        output::note(format!("Reason: {}", paint(BOLD, &self.reason)));
        let _ = write!(
            anstream::stderr().lock(),
            "{} Type the version to go on: ",
            paint(BAD, "This is never taken back.")
        );
        let answer = ask::line().await?.unwrap_or_default();
        if answer.trim() == detail.entry.version.as_str() {
            return Ok(());
        }
        Err(Failure::new(Exit::Other, "not confirmed; nothing was changed"))
    }
}
