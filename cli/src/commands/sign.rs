//! `steelyard sign`: an envelope more on a draft, offline; and handing it to the node once enough have signed.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use node::api::types::Accepted;
use registry::Digest;
use registry::key::Signer;
use registry::statement::{Kind, RecallTarget, Root, Statement};
use serde::Serialize;

use crate::client::{Client, Need};
use crate::context::Context;
use crate::draft::{Draft, Part};
use crate::failure::{Exit, Failure};
use crate::output::{self, BOLD, DIM, NAME, paint};
use crate::{ask, keys};

/// Add your signature to a draft, and hand it to the node
///
/// Where a role's threshold is over one, the command that says something writes a draft (--draft FILE) instead of signing. The
/// file goes from signer to signer by any way; each adds an envelope, offline and without a node. Whoever is last hands
/// it to a node of the nation with --submit. What is signed is shown first, and a person says yes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard publish ./model --as alba/m --version 2 --draft m2.draft
  steelyard sign m2.draft --key anna.key
  steelyard sign m2.draft --key bernd.key --submit")]
pub(crate) struct Sign {
    /// The draft; the envelope is added to it
    file: PathBuf,
    /// Your key file
    #[arg(long, value_name = "KEY", required_unless_present = "submit")]
    key: Option<PathBuf>,
    /// Then hand it to the node
    #[arg(long)]
    submit: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Serialize)]
struct Signed {
    statement: Digest,
    kind: Kind,
    says: String,
    signers: Vec<registry::key::KeyId>,
    accepted: bool,
}

impl Sign {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut draft = Draft::load(&self.file)?;
        if let Some(key) = &self.key {
            add(context, &mut draft, &self.file, key, self.yes).await?;
        }
        let accepted = if self.submit { submit(context, &draft).await? } else { Vec::new() };
        report(context, &draft, &self.file, !accepted.is_empty())
    }
}

/// Shows the draft, asks, signs every statement in it with the key in `key`, and writes it back.
pub(super) async fn add(
    context: &Context,
    draft: &mut Draft,
    file: &Path,
    key: &Path,
    yes: bool,
) -> Result<(), Failure> {
    if !yes {
        confirm(draft).await?;
    }
    let key = keys::open(context, key)?;
    let mut new = false;
    for part in &mut draft.parts {
        new |= part.sign(&key)?;
    }
    if !new {
        let message = format!("the key {} has signed all of it already", key.id().short());
        return Err(Failure::new(Exit::Busy, message));
    }
    draft.replace(file)
}

/// Hands every statement to the node, in order.
pub(super) async fn submit(context: &Context, draft: &Draft) -> Result<Vec<Accepted>, Failure> {
    let client = Client::open(context, Need::Folder).await?;
    let mut accepted = Vec::new();
    for part in &draft.parts {
        let sent = match &part.signed {
            Some(signed) => client.post_raw("/v1/statements", signed.to_json()).await,
            None => {
                Err(Failure::new(Exit::Verification, format!("{} is signed by nobody yet", part.digest())))
            }
        };
        match sent {
            Ok(one) => accepted.push(one),
            Err(failure) => {
                client.close().await;
                return Err(failure);
            }
        }
    }
    client.close().await;
    Ok(accepted)
}

async fn confirm(draft: &Draft) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(
            Failure::usage("signing needs a person who read what is signed").help("say it with --yes")
        );
    }
    for part in &draft.parts {
        output::note(format!("{}\n  {}", describe(&part.statement), paint(DIM, part.digest())));
    }
    let _ = write!(anstream::stderr().lock(), "{} ", paint(BOLD, "Sign this? Type yes:"));
    let answer = ask::line().await?.unwrap_or_default();
    if answer.trim() == "yes" {
        Ok(())
    } else {
        Err(Failure::new(Exit::Other, "not confirmed; nothing was signed"))
    }
}

/// What a statement says, in a line or two.
pub(crate) fn describe(statement: &Statement) -> String {
    let nation = paint(NAME.bold(), statement.nation());
    match statement {
        Statement::Root(root) => {
            format!("{nation}: version {} of its root, until {}", root.version, root.expires)
        }
        Statement::Node(node) => format!("{nation}: the node {} until {}", node.peer_id, node.expires),
        Statement::Release(release) => format!(
            "{nation}: release {}@{}, {} files, releasable to {}",
            release.model,
            release.version,
            release.files.len(),
            release.releasable_to
        ),
        Statement::Channel(channel) => format!(
            "{nation}: channel {}:{} move {} to {}",
            channel.model, channel.channel, channel.sequence, channel.release
        ),
        Statement::Recall(recall) => {
            let what = match recall.target {
                RecallTarget::Release(release) => format!("release {release}"),
                RecallTarget::Lineage(release) => format!("{release} and all that derives from it"),
            };
            format!("{nation}: recall of {what} ({}): {}", recall.severity, recall.reason)
        }
        Statement::Attestation(attestation) => format!(
            "{nation}: {} for {} by {}: {}",
            attestation.verdict, attestation.release, attestation.suite.name, attestation.summary
        ),
        Statement::Membership(said) => {
            format!("{nation}: {} is {} from now on: {}", said.member, said.standing, said.reason)
        }
    }
}

fn report(context: &Context, draft: &Draft, file: &Path, accepted: bool) -> Result<(), Failure> {
    let signers = |part: &Part| -> Vec<registry::key::KeyId> {
        part.signed.iter().flat_map(|signed| signed.envelopes().iter().map(|one| one.key())).collect()
    };
    if context.json {
        let all: Vec<Signed> = draft
            .parts
            .iter()
            .map(|part| Signed {
                statement: part.digest(),
                kind: part.statement.kind(),
                says: anstream::adapter::strip_str(&describe(&part.statement)).to_string(),
                signers: signers(part),
                accepted,
            })
            .collect();
        return output::json(&all);
    }
    for part in &draft.parts {
        let by: Vec<String> = signers(part).iter().map(|id| id.short()).collect();
        output::line(format!("{} {}", output::mark(true), describe(&part.statement)))?;
        output::line(paint(DIM, format!("  signed by {}", by.join(", "))))?;
    }
    if accepted {
        return output::line("The node has it, and tells the allies.");
    }
    output::note(format!(
        "{} goes to the next signer, or to the node: `steelyard sign {} --submit`",
        file.display(),
        file.display()
    ));
    Ok(())
}

/// Whether a root's own role is satisfied, and that of the one before it: what is missing, in words.
pub(super) fn missing(part: &Part, root: &Root, previous: Option<&Root>) -> Vec<String> {
    use registry::statement::RoleName;
    let mut missing = Vec::new();
    let roles = [Some((root, "its own")), previous.map(|previous| (previous, "the version before's"))];
    for (root, whose) in roles.into_iter().flatten() {
        let role = root.role(RoleName::Root);
        let valid = match part.signed.as_ref().map(|signed| signed.verify(&role)) {
            Some(Ok(verified)) => verified.signers().len(),
            Some(Err(registry::envelope::EnvelopeError::Threshold { valid, .. })) => valid,
            Some(Err(error)) => {
                missing.push(format!("{whose} root role: {error}"));
                continue;
            }
            None => 0,
        };
        if valid < role.threshold {
            missing.push(format!("{valid} of the {} signatures of {whose} root role", role.threshold));
        }
    }
    missing
}

/// Writes a draft and says what to do with it.
pub(crate) fn write_draft(context: &Context, statements: Vec<Statement>, file: &Path) -> Result<(), Failure> {
    let draft = Draft::new(statements)?;
    draft.save(file)?;
    report(context, &draft, file, false)
}
