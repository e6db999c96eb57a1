//! `steelyard token`: who may use the hub interface.

use clap::{Args, Subcommand, ValueEnum};
use node::api::types::{Scope, TokenEntry, TokenMade, TokenRequest};
use registry::Timestamp;

use crate::client::{Client, Need, segment};
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::output::{self, BAD, Cell, DIM, NAME, Table, cell};

/// Make, list and revoke tokens of the hub interface, and sessions of people who signed in
///
/// The Hugging Face Hub's clients show a token (HF_TOKEN) to the node that HF_ENDPOINT names. Whether they must is the setting
/// `hub.anonymous`. The node keeps a token's hash alone.
#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Make a token and show it, this once
///
/// It goes to standard output alone, so that it can be put into a file without being seen.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard token create laptop
  steelyard token create builds --days 90 > token
  HF_ENDPOINT=http://127.0.0.1:4800 HF_TOKEN=$(cat token) hf download alba/smollm2")]
struct Create {
    /// What it is called
    name: String,
    /// What it is for: reading, pushing into your nation's staging area too, or looking after that too
    #[arg(long, value_enum, default_value = "read")]
    scope: ScopeName,
    /// Days until it ends [default: never]
    #[arg(long, value_name = "DAYS")]
    days: Option<u32>,
}

/// [`Scope`] as it is written.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScopeName {
    Read,
    Stage,
    Admin,
}

/// List the tokens, without themselves
///
/// When one was used last is known since the node started.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard token list")]
struct List {}

/// Take a token back, at once
///
/// Whoever shows it from now on is told that it is wrong.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  steelyard token revoke laptop\n  steelyard token revoke 3f9a0c12ab77")]
struct Revoke {
    /// The token's name or identifier
    token: String,
}

impl Token {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = Client::open(context, Need::Folder).await?;
        let done = match self.what {
            What::Create(create) => create.run(context, &client).await,
            What::List(_) => list(context, &client).await,
            What::Revoke(revoke) => revoke.run(context, &client).await,
        };
        client.close().await;
        done
    }
}

impl Create {
    async fn run(self, context: &Context, client: &Client) -> Result<(), Failure> {
        let scope = match self.scope {
            ScopeName::Read => Scope::Read,
            ScopeName::Stage => Scope::Stage,
            ScopeName::Admin => Scope::Admin,
        };
        let request = TokenRequest { name: self.name, scope, days: self.days };
        let made: TokenMade = client.post("/v1/tokens", &request).await?;
        if context.json {
            return output::json(&made);
        }
        let TokenEntry { id, name, .. } = &made.entry;
        output::note(format!("token `{name}` ({id}); it is not shown again"));
        output::line(&made.token)
    }
}

impl Revoke {
    async fn run(self, context: &Context, client: &Client) -> Result<(), Failure> {
        let gone: TokenEntry = client.delete(&format!("/v1/tokens/{}", segment(&self.token))).await?;
        if context.json {
            return output::json(&gone);
        }
        output::note(format!("token `{}` ({}) is good no more", gone.name, gone.id));
        Ok(())
    }
}

async fn list(context: &Context, client: &Client) -> Result<(), Failure> {
    let tokens: Vec<TokenEntry> = client.get("/v1/tokens").await?;
    if context.json {
        return output::json(&tokens);
    }
    if tokens.is_empty() {
        output::note("there are no tokens; `steelyard token create NAME` makes one");
        return Ok(());
    }
    let now = Timestamp::now();
    let mut table = Table::new(&["token", "id", "scope", "made", "ends", "used", "signed in"]);
    for token in tokens {
        let ends = match (token.expires, token.expired) {
            (None, _) => cell(DIM, "never"),
            (Some(at), false) => Cell::from(human::relative(at, now)),
            (Some(at), true) => cell(BAD, human::relative(at, now)),
        };
        table.row([
            cell(NAME, token.name),
            Cell::from(token.id),
            Cell::from(token.scope.as_str()),
            Cell::from(human::relative(token.created, now)),
            ends,
            token
                .used
                .map_or_else(|| cell(DIM, "not since the start"), |at| Cell::from(human::relative(at, now))),
            token.subject.map_or_else(|| cell(DIM, "-"), Cell::from),
        ]);
    }
    output::print(&table.render())
}
