//! `steelyard publish`: a folder becomes a signed release.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use node::api::types::{Accepted, DraftRequest, Drafted, LogPlace, Resolved, Sequences, Status, Work};
use registry::attachment::Origin;
use registry::key::Key;
use registry::reference::DEFAULT_CHANNEL;
use registry::statement::{Channel, DerivedFrom, Relation, Releasable, Release, RoleName, Statement};
use registry::{ChannelName, Digest, Model, Nation, Signed, Timestamp, Version};
use serde::Serialize;

use super::attach::Extras;
use super::sign;
use super::staged::{MAIN, StagedBranch};
use crate::client::{Client, Need, segment};
use crate::context::{Context, absolute};
use crate::failure::{Exit, Failure};
use crate::human;
use crate::keys::{self, Signing};
use crate::output::{self, BOLD, Cell, DIM, NAME, Table, WARN, cell, paint};
use crate::progress::Bar;

/// How long the log's entry and the cosignatures of connected allies are waited for, in milliseconds.
const LOG_WAIT_MS: u64 = 3000;

/// Publish a folder, or what was pushed, as a signed release
///
/// Reads the folder once (BLAKE3, SHA-256 and chunks together), signs a release of it with your nation's release key, and
/// points the channel at it. The running node announces it to allies, who may have it as --releasable-to says. Files that
/// run code when they are loaded (pickles) are refused: allies would refuse them too.
///
/// With --staged, what the hub's clients pushed to a branch is published (`docs/hub.md`): the difference to the last release is
/// shown, a person says yes, and the branch is cleared. The key is read by this command alone, as always.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard publish ./smollm2 --as alba/smollm2 --version 1.0.0
  steelyard publish ./model.gguf --as alba/m --version 1.1.0 --channel beta --licence Apache-2.0
  steelyard publish --staged alba/smollm2 --version 1.2.0
  steelyard publish --staged alba/smollm2@beta --version 1.3.0-b1 --yes
  steelyard publish ./smollm2 --as alba/smollm2 --version 1.2.0 --attach slsa=provenance.json --oms-key model-signing.pem
  steelyard publish ./tuned --as alba/tuned --version 1 --derived-from borea/base@2:fine-tune --releasable-to borea,cora")]
pub(crate) struct Publish {
    /// The folder, or a single file of weights
    #[arg(value_name = "FOLDER", required_unless_present = "staged")]
    folder: Option<PathBuf>,
    /// The model's name: nation/name
    #[arg(long = "as", value_name = "NATION/NAME", required_unless_present = "staged")]
    named: Option<Model>,
    /// What was pushed to this model, and to which branch of it [default: main]
    #[arg(long, value_name = "NATION/NAME[@BRANCH]", conflicts_with_all = ["folder", "named"])]
    staged: Option<StagedBranch>,
    /// With --staged: do not ask
    #[arg(long, requires = "staged")]
    yes: bool,
    /// The version; never reused
    #[arg(long, value_name = "VERSION")]
    version: Version,
    /// The channel to point at it; `none` for no channel [default: stable, or the staged branch's name where that is not main]
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<ChannelName>,
    /// SPDX expression [default: what the model card or the weights say]
    #[arg(long, alias = "license", value_name = "SPDX")]
    licence: Option<String>,
    /// Who may have it: `all`, or nations separated by commas (none: your nation alone)
    #[arg(long, value_name = "NATIONS", default_value = "all", value_parser = parse_releasable)]
    releasable_to: Releasable,
    /// What it was made from, as REFERENCE:RELATION; relations are fine-tune, quantisation, merge, adapter, distillation
    #[arg(long, value_name = "REFERENCE:RELATION")]
    derived_from: Vec<String>,
    /// Why the channel moves, for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    extras: Extras,
    #[command(flatten)]
    signing: Signing,
    /// From where the folder was taken in, for `steelyard import`.
    #[arg(skip)]
    pub(super) origin: Option<Origin>,
}

/// What was published.
#[derive(Serialize)]
pub(super) struct Published {
    release: Digest,
    model: Model,
    version: Version,
    channel: Option<ChannelName>,
    sequence: Option<u64>,
    format: String,
    licence: String,
    size: u64,
    files: usize,
    releasable_to: String,
    announced: bool,
    /// The release's place in the log, when it was signed.
    log: Option<LogPlace>,
    /// Where it waits for signatures, when it was not signed.
    pub(super) draft: Option<PathBuf>,
}

fn parse_releasable(text: &str) -> Result<Releasable, String> {
    match text {
        "all" => Ok(Releasable::All),
        "none" => Ok(Releasable::Nations(BTreeSet::new())),
        list => list
            .split(',')
            .map(|name| Nation::new(name.trim()).map_err(|error| error.to_string()))
            .collect::<Result<_, _>>()
            .map(Releasable::Nations),
    }
}

impl Publish {
    /// The model's name.
    pub(super) fn model(&self) -> Result<&Model, Failure> {
        let named = self.named.as_ref().or(self.staged.as_ref().map(|staged| &staged.model));
        named.ok_or_else(|| Failure::usage("a release needs a name").help("say it with --as NATION/NAME"))
    }

    /// The channel that is moved.
    pub(super) fn channel(&self) -> Result<ChannelName, Failure> {
        let branch = self.staged.as_ref().filter(|staged| staged.branch != MAIN);
        match (&self.channel, branch) {
            (Some(channel), _) => Ok(channel.clone()),
            (None, None) => ChannelName::new(DEFAULT_CHANNEL).map_err(Failure::usage),
            (None, Some(staged)) => ChannelName::new(&staged.branch).map_err(|error| {
                Failure::usage(error).help("say which channel is to point at the release with --channel")
            }),
        }
    }

    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        if let Some(staged) = &self.staged {
            return super::staged::publish(&self, staged, context).await;
        }
        let folder = self.folder.as_ref().ok_or_else(|| Failure::usage("name a folder to publish"))?;
        let folder = absolute(folder)?;
        if !folder.exists() {
            return Err(Failure::new(Exit::NotFound, format!("{} is not there", folder.display()))
                .help("name a folder, or a single file of weights"));
        }
        let client = Client::open(context, Need::Folder).await?;
        let published = self.publish(context, &client, &folder).await;
        client.close().await;
        let (published, draft) = published?;
        tell(context, &published, &draft)
    }

    /// Whether a person asked that nobody is asked.
    pub(super) fn yes(&self) -> bool {
        self.yes
    }

    pub(super) async fn publish(
        &self,
        context: &Context,
        client: &Client,
        folder: &Path,
    ) -> Result<(Published, Drafted), Failure> {
        // Whatever can be known to fail fails before a hundred gigabytes are read.
        let model = self.model()?;
        self.refuse_other_nation(client).await?;
        let key = match self.signing.draft {
            Some(_) => None,
            None => Some(keys::load(context, client, self.signing.keys.as_ref(), RoleName::Release).await?),
        };
        self.refuse_taken(client).await?;
        let derived_from = self.lineage(client).await?;
        let extras = self.extras.prepare(folder)?;
        let mut draft = self.draft(context, client, folder).await?;
        extras.add(client, model, &mut draft, self.origin.as_ref(), key.as_ref()).await?;
        let licence = self.licence(&draft)?;

        let release = Release {
            model: model.clone(),
            version: self.version.clone(),
            format: draft.format.clone(),
            licence: licence.clone(),
            derived_from,
            releasable_to: self.releasable_to.clone(),
            model_card: draft.model_card.clone(),
            issued: Timestamp::now(),
            files: draft.files.clone(),
        };
        let release = Statement::Release(release);
        let digest = Digest::of(&release.to_payload());
        let channel = self.point(client, digest).await?;
        let sequence = channel.as_ref().map(|channel| channel.sequence);
        let channel = channel.map(Statement::Channel);
        match (&key, &self.signing.draft) {
            (Some(key), _) => {
                for statement in std::iter::once(release).chain(channel) {
                    sign_and_send(client, statement, key).await?;
                }
            }
            (None, Some(file)) => {
                sign::write_draft(context, std::iter::once(release).chain(channel).collect(), file)?;
            }
            (None, None) => return Err(Failure::usage("neither a key nor --draft")),
        }
        // The log grows within a moment, and allies cosign it; who publishes should see that, and not wait for those away.
        let wait = if client.is_running() { LOG_WAIT_MS } else { 0 };
        let log = match &self.signing.draft {
            None => Some(client.get(&format!("/v1/log/place/{digest}?wait_ms={wait}")).await?),
            Some(_) => None,
        };
        let published = Published {
            release: digest,
            model: model.clone(),
            version: self.version.clone(),
            channel: sequence.and(Some(self.channel()?)),
            sequence,
            format: draft.format.clone(),
            licence,
            size: draft.size,
            files: draft.files.len(),
            releasable_to: self.releasable_to.to_string(),
            announced: client.is_running(),
            log,
            draft: self.signing.draft.clone(),
        };
        Ok((published, draft))
    }

    /// Fails where publishing would, before anything is fetched that would be published.
    pub(super) async fn refuse_early(&self, context: &Context) -> Result<(), Failure> {
        let client = Client::open(context, Need::Folder).await?;
        let checked = match self.refuse_other_nation(&client).await {
            Ok(()) => self.refuse_taken(&client).await,
            failed => failed,
        };
        client.close().await;
        checked
    }

    pub(super) async fn refuse_other_nation(&self, client: &Client) -> Result<(), Failure> {
        let own = client.get::<Status>("/v1/status").await?.nation;
        let model = self.model()?;
        let (wanted, name) = (&model.nation, &model.name);
        if own == *wanted {
            return Ok(());
        }
        Err(Failure::usage(format!("this node belongs to `{own}` and can't publish for `{wanted}`"))
            .help(format!("publish as {own}/{name}, or use a node of `{wanted}`")))
    }

    pub(super) async fn refuse_taken(&self, client: &Client) -> Result<(), Failure> {
        let reference = format!("{}@{}", self.model()?, self.version);
        match client.get::<Resolved>(&format!("/v1/resolve?ref={}", segment(&reference))).await {
            Ok(taken) => Err(Failure::new(
                Exit::Busy,
                format!("{reference} is published already, as {}", taken.release),
            )
            .help("a version is never reused: choose another with --version")),
            Err(failure) if failure.exit == Exit::NotFound => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    async fn lineage(&self, client: &Client) -> Result<Vec<DerivedFrom>, Failure> {
        let mut bases = Vec::new();
        for text in &self.derived_from {
            let wrong = |why: &str| {
                Failure::usage(format!("--derived-from `{text}`: {why}"))
                    .help("write REFERENCE:RELATION, such as borea/base@2:fine-tune; relations are fine-tune, quantisation, merge, adapter, distillation")
            };
            let Some((reference, relation)) = text.rsplit_once(':') else {
                return Err(wrong("the relation is missing"));
            };
            let relation: Relation = serde_json::from_value(serde_json::Value::String(relation.to_owned()))
                .map_err(|_| wrong(&format!("`{relation}` is no relation")))?;
            let base: Resolved = client.get(&format!("/v1/resolve?ref={}", segment(reference))).await?;
            bases.push(DerivedFrom { release: base.release, relation });
        }
        Ok(bases)
    }

    async fn draft(&self, context: &Context, client: &Client, folder: &Path) -> Result<Drafted, Failure> {
        let bar = Bar::new(context.progress(), "reading");
        let request = DraftRequest { path: folder.display().to_string() };
        let draft: Drafted = client
            .job("/v1/drafts", &request, |work: Work| {
                bar.bytes(work.bytes_done, work.bytes_total, &work.path)
            })
            .await?;
        drop(bar);
        if let [first, rest @ ..] = draft.unsafe_files.as_slice() {
            let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
            return Err(Failure::new(Exit::Policy, format!("{}: {}{more}", first.path, first.why)).help(
                "convert the weights to safetensors or GGUF and leave this file out; no ally's policy would admit it",
            ));
        }
        Ok(draft)
    }

    fn licence(&self, draft: &Drafted) -> Result<String, Failure> {
        let source = || self.origin.as_ref().and_then(|origin| origin.licence.clone());
        self.licence.clone().or_else(|| draft.licence.clone()).or_else(source).ok_or_else(|| {
            Failure::usage("neither the model card nor the weights name a licence")
                .help("say it with --licence, such as --licence Apache-2.0")
        })
    }

    /// The channel's next statement.
    async fn point(&self, client: &Client, release: Digest) -> Result<Option<Channel>, Failure> {
        let (model, name) = (self.model()?, self.channel()?);
        if name.as_str() == "none" {
            return Ok(None);
        }
        let query = format!("/v1/sequences?model={}&channel={name}", segment(&model.to_string()));
        let next: Sequences = client.get(&query).await?;
        let sequence = next.channel.unwrap_or(1);
        let channel = Channel {
            model: model.clone(),
            channel: name,
            sequence,
            release,
            reason: self.reason.clone(),
            issued: Timestamp::now(),
        };
        Ok(Some(channel))
    }
}

/// Signs a statement here, where the key is, and hands it to the node.
pub(super) async fn sign_and_send(
    client: &Client,
    statement: Statement,
    key: &Key,
) -> Result<Accepted, Failure> {
    statement.check().map_err(Failure::usage)?;
    client.post_raw("/v1/statements", Signed::sign_by(&statement, key)?.to_json()).await
}

/// Says what was published. Its draft, where it was not signed, was shown already.
pub(super) fn tell(context: &Context, published: &Published, draft: &Drafted) -> Result<(), Failure> {
    if published.draft.is_some() {
        return Ok(());
    }
    if context.json {
        return output::json(published);
    }
    report(context, published, draft)
}

fn report(context: &Context, published: &Published, draft: &Drafted) -> Result<(), Failure> {
    let channel = match (&published.channel, published.sequence) {
        (Some(channel), Some(1)) => format!("{channel} (new)"),
        (Some(channel), Some(sequence)) => format!("{channel} (move {sequence})"),
        _ => paint(DIM, "none"),
    };
    output::print(&format!(
        "{} Published {}.\n\n",
        output::mark(true),
        paint(NAME.bold(), format!("{}@{}", published.model, published.version))
    ))?;
    output::print(&output::facts(&[
        ("release", published.release.to_string()),
        ("channel", channel),
        ("contents", human::contents(published.files, published.size, &published.format)),
        ("licence", published.licence.clone()),
        ("releasable to", published.releasable_to.clone()),
        ("log", published.log.as_ref().map(super::show::place).unwrap_or_default()),
    ]))?;
    output::line("")?;
    let mut table = Table::new(&["file", "size", "blob"]);
    for file in &draft.files {
        table.row([
            file.path.as_str().into(),
            Cell::from(human::bytes(file.size)).right(),
            cell(DIM, format!("b3:{}…", file.blake3.short())),
        ]);
    }
    for left in &draft.skipped {
        table.row([
            cell(DIM, left.path.as_str()),
            cell(DIM, "left out").right(),
            cell(WARN, left.why.as_str()),
        ]);
    }
    output::print(&table.render())?;
    if !published.announced {
        let command = paint(BOLD, format!("{} node", context.command()));
        output::note(format!("\nNo node is running here. Allies learn of it once one does: {command}"));
    }
    Ok(())
}
