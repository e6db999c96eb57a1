//! `steelyard trust invite`, `activate`, `suspend`, `expel`: in which standing our nation holds another, signed for all its nodes.

use clap::Args;
use node::api::types::{NationEntry, Sequences};
use registry::statement::{Membership, Standing, Statement};
use registry::{Digest, Nation, Timestamp};
use serde::Serialize;

use crate::client::{Client, Need};
use crate::commands::publish::sign_and_send;
use crate::commands::sign;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::human;
use crate::keys::{self, Signing};
use crate::output::{self, NAME, paint};

/// Invite a nation: known and compared, but not believed yet
///
/// Signed with the root key, since it gives trust. Until it is activated, nothing of it is believed and its nodes are not
/// talked to, also where a node pins it. A nation that departed comes back by a new invitation only.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard trust invite dora --fingerprint b3:9f2c… --reason 'joins in May' --keys /media/root-keys
  steelyard trust invite alba --reason 'back with new people' --draft invite.draft")]
pub(super) struct Invite {
    #[command(flatten)]
    say: Say,
    /// The fingerprint that you compared with its people [default: the one pinned here]
    #[arg(long, value_name = "FINGERPRINT", value_parser = human::parse_fingerprint)]
    fingerprint: Option<Digest>,
}

/// Make an invited or suspended nation an ally
///
/// Signed with the root key, since it gives trust.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  steelyard trust activate alba --reason 'the audit is done' --keys /media/root-keys"
)]
pub(super) struct Activate {
    #[command(flatten)]
    say: Say,
}

/// Suspend a nation: nothing new of it is believed, on every node of yours
///
/// Signed with the recall key, which somebody reaches at any hour. Its nodes are disconnected at once. What was admitted goes on being
/// served, and its recalls are still heard.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard trust suspend alba --reason 'its release key may be stolen'")]
pub(super) struct Suspend {
    #[command(flatten)]
    say: Say,
}

/// End an alliance: the nation has departed
///
/// As suspending, and only a new invitation leads back. What was admitted goes on being served: a departing ally takes
/// nothing with it. Nothing is announced or served to its nodes.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard trust expel alba --reason 'left the alliance'")]
pub(super) struct Expel {
    #[command(flatten)]
    say: Say,
}

#[derive(Debug, Args)]
struct Say {
    /// The nation
    nation: Nation,
    /// Why, for your nation's people
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    signing: Signing,
}

#[derive(Serialize)]
struct Said {
    nation: Nation,
    standing: Standing,
    sequence: u64,
    statement: Digest,
    announced: bool,
}

impl Invite {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        self.say.run(context, Standing::Invited, self.fingerprint).await
    }
}

impl Activate {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        self.say.run(context, Standing::Active, None).await
    }
}

impl Suspend {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        self.say.run(context, Standing::Suspended, None).await
    }
}

impl Expel {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        self.say.run(context, Standing::Departed, None).await
    }
}

impl Say {
    async fn run(self, context: &Context, standing: Standing, given: Option<Digest>) -> Result<(), Failure> {
        let client = Client::open(context, Need::Folder).await?;
        let said = self.say(context, &client, standing, given).await;
        client.close().await;
        let Some(said) = said? else { return Ok(()) };
        if context.json {
            return output::json(&said);
        }
        output::line(format!(
            "{} {} is {standing} for every node of this nation.",
            output::mark(true),
            paint(NAME.bold(), &said.nation)
        ))?;
        if !said.announced {
            output::warn("no node is running here: this nation's other nodes learn of it once one does");
        }
        Ok(())
    }

    async fn say(
        &self,
        context: &Context,
        client: &Client,
        standing: Standing,
        given: Option<Digest>,
    ) -> Result<Option<Said>, Failure> {
        let nations: Vec<NationEntry> = client.get("/v1/nations").await?;
        let pinned = nations.iter().find(|entry| entry.nation == self.nation);
        let own = nations.iter().find(|entry| entry.own).map(|entry| entry.nation.clone());
        let own = own.ok_or_else(|| Failure::new(Exit::Other, "this node does not know its own nation"))?;
        let fingerprint = given.or(pinned.map(|entry| entry.fingerprint)).ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("`{}` is not pinned here", self.nation))
                .help("pin it with `steelyard trust add`, or invite it with --fingerprint")
        })?;
        let sequences: Sequences = client.get(&format!("/v1/sequences?member={}", self.nation)).await?;
        let sequence = sequences.membership.unwrap_or(1);
        let membership = Membership {
            nation: own,
            member: self.nation.clone(),
            fingerprint,
            standing,
            sequence,
            reason: self.reason.clone(),
            issued: Timestamp::now(),
        };
        let role = membership.role();
        let statement = Statement::Membership(membership);
        if let Some(file) = &self.signing.draft {
            sign::write_draft(context, vec![statement], file)?;
            return Ok(None);
        }
        let key = keys::load(context, client, self.signing.keys.as_ref(), role).await?;
        let accepted = sign_and_send(client, statement, &key).await?;
        Ok(Some(Said {
            nation: self.nation.clone(),
            standing,
            sequence,
            statement: accepted.digest,
            announced: client.is_running(),
        }))
    }
}
