//! `steelyard root`: ceremonies at which several people make or replace a nation's root.

mod build;
mod publish;
mod show;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use registry::statement::{RoleName, Root as RootStatement, Statement};
use registry::timestamp::DAY;
use registry::trust::peek_root;
use registry::{Nation, Signed, Timestamp};
use serde_json::Value;

use self::build::{Change, Given, Least};
use crate::client::{Client, Need};
use crate::commands::sign;
use crate::context::Context;
use crate::draft::Draft;
use crate::failure::{Exit, Failure};

/// Longest life of a root, in days: long enough for any plan, short enough that somebody looks again.
const MAX_DAYS: i64 = 3650;

/// Make, sign, replace, show and publish a nation's root
#[derive(Debug, Args)]
#[command(
    long_about = "Make, sign, replace, show and publish a nation's root.\n\nA root says which keys a nation has, what each may sign, and until \
when. `init` drafts the first one, `rotate` the next one; the draft goes from person to person, and each adds a signature with `sign`, \
offline. A next root needs the signatures of those who could sign until now and of those who can from then on. docs/operations.md has \
the whole ceremony."
)]
pub(crate) struct Root {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Init(Init),
    Sign(Sign),
    Rotate(Rotate),
    Show(Show),
    Publish(Publish),
}

/// Draft a nation's first root from several people's public keys
///
/// Each person makes a key (`steelyard key new`) and says its public half. Give each role its keys and its threshold; the role witness
/// may be left out. The draft is then signed by as many root keys as the root role's threshold says.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  steelyard root init --nation alba --out root.draft \\
    --key root=<anna> --key root=<bernd> --key root=<clara> --threshold root=2 \\
    --key release=<anna> --key attest=<anna> --key recall=<anna> --key recall=<bernd> \\
    --key log=<log> --key node=<bernd> --key witness=<witness>")]
struct Init {
    /// The nation's name
    #[arg(long, value_name = "NAME")]
    nation: Nation,
    #[command(flatten)]
    given: GivenArgs,
    /// The draft to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Which keys and thresholds.
#[derive(Debug, Args)]
struct GivenArgs {
    /// A key of a role: 64 hexadecimal digits, or a key file; repeat for each
    #[arg(long = "key", value_name = "ROLE=KEY", value_parser = Given::parse)]
    keys: Vec<Given>,
    /// How many keys of a role must sign; one where nothing is said
    #[arg(long = "threshold", value_name = "ROLE=NUMBER", value_parser = Least::parse)]
    thresholds: Vec<Least>,
    /// Days until the root ends
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(i64).range(1..=MAX_DAYS))]
    expires_days: i64,
}

/// Add your signature to a root's draft
///
/// Shows what the root says and asks. Needs neither node nor network.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard root sign root.draft --key anna.key")]
struct Sign {
    /// The draft
    file: PathBuf,
    /// Your key file
    #[arg(long, value_name = "KEY")]
    key: PathBuf,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Draft a nation's next root
///
/// Begins with the newest root: this node's own, or that in a file (--from). What is not changed stays. Keys that go
/// sign nothing new from the moment that allies have the next root; what they signed before stays believed by its place
/// in the nation's log. Signed by the thresholds of both roots.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard root rotate --out next.draft --replace 3b6a27bcceb6=<new key>       # one key was stolen or lost
  steelyard root rotate --out next.draft --remove release=3b6a27bcceb6 --key release=<new key>
  steelyard root rotate --out next.draft --expires-days 730                     # the root ends soon
  steelyard root rotate --from nation.json --out next.draft --threshold root=3  # far from any node")]
struct Rotate {
    /// Begin with the newest root in this nation.json or file of envelopes [default: this node's own]
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Put a new key in the place of one, in every role: the beginning of its identifier, and the key
    #[arg(long, value_name = "IDENTIFIER=KEY", value_parser = Change::replace)]
    replace: Vec<Change>,
    /// Take a key out of a role: the beginning of its identifier
    #[arg(long, value_name = "ROLE=IDENTIFIER", value_parser = Change::remove)]
    remove: Vec<Change>,
    #[command(flatten)]
    given: GivenArgs,
    /// The draft to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Show a root: fingerprint, roles, who signed and what is missing
///
/// Of a draft, of a file of envelopes, of a nation.json, or of this node's own nation. The digits are for reading
/// aloud: eight groups of five.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard root show
  steelyard root show next.draft
  steelyard root show borea/nation.json")]
struct Show {
    /// The file [default: this node's own nation]
    file: Option<PathBuf>,
    /// The root before it, where the file has it not: to tell what is missing of its threshold
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
}

/// Hand the next root to the node, which tells every ally
///
/// It takes effect at once. Brings nation.json up to date; where this node's certificate is no longer believed and the new node
/// key is at hand, certifies the node anew.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard root publish next.draft")]
struct Publish {
    /// The signed draft
    file: PathBuf,
    /// The folder of your nation's keys, for the node's new certificate [default: keys in the node's folder]
    #[arg(long, value_name = "FOLDER", env = "STEELYARD_KEYS")]
    keys: Option<PathBuf>,
}

impl Root {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.action {
            Action::Init(init) => init.run(context).await,
            Action::Sign(sign) => sign.run(context).await,
            Action::Rotate(rotate) => rotate.run(context).await,
            Action::Show(show) => show.run(context).await,
            Action::Publish(publish) => publish::run(context, &publish.file, publish.keys.as_ref()).await,
        }
    }
}

impl Init {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let now = Timestamp::now();
        let root = RootStatement {
            nation: self.nation,
            version: 1,
            issued: now,
            expires: now.plus(self.given.expires_days * DAY),
            keys: [].into(),
            roles: [].into(),
            previous: None,
        };
        let root = build::change(root, &[], &self.given.keys, &self.given.thresholds)?;
        Draft::new(vec![Statement::Root(root)])?.save(&self.out)?;
        show::file(context, &self.out, None).await
    }
}

impl Sign {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut draft = Draft::load(&self.file)?;
        only_root(&draft)?;
        if !self.yes {
            show::file(context, &self.file, None).await?;
        }
        sign::add(context, &mut draft, &self.file, &self.key, self.yes).await?;
        show::file(context, &self.file, None).await
    }
}

impl Rotate {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let now = Timestamp::now();
        let before = match &self.from {
            Some(file) => show::chain_of(file)?,
            None => own_chain(context).await?,
        };
        let newest = before.last().ok_or_else(|| Failure::new(Exit::NotFound, "there is no root"))?;
        let mut root = peek_root(newest)?;
        root.previous = Some(newest.digest());
        root.version = root.version.saturating_add(1);
        root.issued = now;
        root.expires = now.plus(self.given.expires_days * DAY);
        let changes: Vec<Change> = self.replace.into_iter().chain(self.remove).collect();
        let root = build::change(root, &changes, &self.given.keys, &self.given.thresholds)?;
        Draft::new(vec![Statement::Root(root)])?.save(&self.out)?;
        show::with(context, &self.out, Some(newest)).await
    }
}

impl Show {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.file {
            Some(file) => show::file(context, &file, self.previous.as_deref()).await,
            None => {
                let chain = own_chain(context).await?;
                show::chain(context, &chain)
            }
        }
    }
}

/// The roots of this node's own nation, the first one first.
async fn own_chain(context: &Context) -> Result<Vec<Signed>, Failure> {
    let client = Client::open(context, Need::Folder).await?;
    let read = async {
        let status: node::api::types::Status = client.get("/v1/status").await?;
        client.get::<Vec<Value>>(&format!("/v1/nations/{}/roots", status.nation)).await
    };
    let roots = read.await;
    client.close().await;
    roots?.iter().map(|root| Ok(Signed::parse(root.to_string().as_bytes())?)).collect()
}

/// The roots of this node's own nation where there is a node's folder at all: ceremonies are held far from any.
async fn own_chain_if_any(context: &Context) -> Vec<Signed> {
    if !context.layout.is_initialised() {
        return Vec::new();
    }
    own_chain(context).await.unwrap_or_default()
}

/// The one root of a draft.
fn only_root(draft: &Draft) -> Result<(&crate::draft::Part, &RootStatement), Failure> {
    match draft.parts.as_slice() {
        [part] => match &part.statement {
            Statement::Root(root) => Ok((part, root)),
            other => Err(Failure::new(Exit::Verification, format!("this is a {}, not a root", other.kind()))
                .help("`steelyard sign` signs other drafts")),
        },
        _ => Err(Failure::new(Exit::Verification, "this draft holds several statements, not a root")),
    }
}

/// A role and the rest behind `=`.
fn role_of(text: &str) -> Result<(RoleName, &str), String> {
    let (role, rest) = text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`"))?;
    Ok((role.parse()?, rest))
}

fn is_file(text: &str) -> bool {
    Path::new(text).is_file()
}
