//! `steelyard trust`: which nations this node believes.

mod standing;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use node::api::types::{MembershipEntry, NationEntry, PinNation, Unpinned};
use node::nation_file::{self, NationFile};
use registry::statement::Standing;
use registry::trust::{Ending, spoken};
use registry::{Digest, Nation, Timestamp};

use crate::ask;
use crate::client::{Client, Need};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::human;
use crate::output::{self, BAD, BOLD, Cell, DIM, NAME, Table, WARN, cell, paint};

/// Trust a nation, list the trusted ones, suspend or expel one
#[derive(Debug, Args)]
#[command(
    long_about = "Trust a nation, list the trusted ones, suspend or expel one.\n\nThere is no authority above the nations: each \
node pins the nations that it believes, by the fingerprint of their root, which people compare over another way than the one \
the file came by. `add` and `rm` are for this node; `invite`, `activate`, `suspend` and `expel` are signed and hold for every node of your \
nation."
)]
pub(crate) struct Trust {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Add(Add),
    Ls(Ls),
    Show(Show),
    Rm(Rm),
    Invite(standing::Invite),
    Activate(standing::Activate),
    Suspend(standing::Suspend),
    Expel(standing::Expel),
}

/// Trust the nation whose nation.json this is
///
/// Shows the root's fingerprint and asks whether you compared it with that nation's people over another way: by voice, on
/// paper, in person. A script gives the compared fingerprint itself with --fingerprint; without a terminal there is no
/// other way. The addresses in the file are remembered and dialled.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard trust add borea/nation.json
  steelyard trust add borea.json --fingerprint b3:9f2c… --peer /ip4/192.0.2.7/tcp/4801/p2p/12D3KooW…")]
struct Add {
    /// The nation.json that the ally gave you
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The fingerprint that you compared; refused if the file has another
    #[arg(long, value_name = "FINGERPRINT", value_parser = human::parse_fingerprint)]
    fingerprint: Option<Digest>,
    /// Dial this address too (a multiaddr that ends in /p2p/ID); repeat for several
    #[arg(long = "peer", value_name = "MULTIADDR")]
    peers: Vec<String>,
}

/// List the trusted nations
///
/// Each with its fingerprint's beginning, until when its root is valid, and how many of its nodes are connected.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard trust ls")]
struct Ls {}

/// Show one trusted nation
///
/// Its whole fingerprint for comparing, its roles with their keys and thresholds, and its addresses.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard trust show borea")]
struct Show {
    /// The nation
    nation: Nation,
}

/// Trust a nation no longer
///
/// Its nodes are disconnected at once, nothing new of it is believed, and workers that serve its models are stopped. What
/// it signed stays in the store as history.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard trust rm borea")]
struct Rm {
    /// The nation
    nation: Nation,
}

impl Trust {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.action {
            Action::Add(add) => add.run(context).await,
            Action::Ls(_) => list(context).await,
            Action::Show(Show { nation }) => show(context, &nation).await,
            Action::Rm(Rm { nation }) => remove(context, &nation).await,
            Action::Invite(invite) => invite.run(context).await,
            Action::Activate(activate) => activate.run(context).await,
            Action::Suspend(suspend) => suspend.run(context).await,
            Action::Expel(expel) => expel.run(context).await,
        }
    }
}

impl Add {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let file = NationFile::load(&self.file).map_err(|error| match error {
            nation_file::NationFileError::Io { ref source, .. }
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Failure::new(Exit::NotFound, error).help("name the nation.json that the ally gave you")
            }
            error => error.into(),
        })?;
        if let Some(wrong) = self.peers.iter().find(|address| !nation_file::names_peer(address)) {
            return Err(Failure::usage(format!(
                "`{wrong}` is not a multiaddr that ends in /p2p/ and a peer identifier"
            ))
            .help("such as /ip4/192.0.2.7/tcp/4801/p2p/12D3KooW…; `steelyard status` shows a node's own"));
        }
        let root = file.newest_root()?;
        let found = file.fingerprint();
        let fingerprint = match self.fingerprint {
            Some(fingerprint) => fingerprint,
            None => confirm(&root.nation, &found, root.expires).await?,
        };
        let text = file.to_json()?;
        let request = PinNation {
            file: serde_json::from_slice(&text).map_err(anyhow::Error::from)?,
            fingerprint,
            addresses: self.peers,
        };
        let client = Client::open(context, Need::Folder).await?;
        let pinned: Result<NationEntry, Failure> = client.post("/v1/nations", &request).await;
        client.close().await;
        let pinned = pinned?;
        if context.json {
            return output::json(&pinned);
        }
        output::line(format!(
            "{} {} is trusted, by its fingerprint {}.",
            output::mark(true),
            paint(NAME.bold(), &pinned.nation),
            paint(DIM, format!("b3:{}…", pinned.fingerprint.short()))
        ))?;
        match pinned.addresses.as_slice() {
            [] => {
                output::warn(format!(
                    "no address of `{}` is known; add one with `steelyard trust add {} --peer MULTIADDR`",
                    pinned.nation,
                    self.file.display()
                ));
                Ok(())
            }
            addresses => output::line(paint(DIM, format!("  dialled at {}", addresses.join(", ")))),
        }
    }
}

/// Asks a person. Trust is not given by a script that nobody watches.
async fn confirm(nation: &Nation, found: &Digest, expires: Timestamp) -> Result<Digest, Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failure::usage(format!("trusting `{nation}` needs a person to compare its fingerprint"))
            .help(format!("compare it with {nation}'s people, then give it: --fingerprint {found}")));
    }
    let [first, second] = human::fingerprint(found);
    output::note(format!("The file is of the nation {}, valid until {expires}.", paint(NAME.bold(), nation)));
    output::note(format!("\n  {}\n  {}\n", paint(BOLD, first), paint(BOLD, second)));
    output::note(format!("  or, as digits: {}\n", paint(BOLD, spoken(found))));
    output::note(
        "Compare this fingerprint with that nation's people over another way than the one the file came by.",
    );
    let _ = write!(
        anstream::stderr().lock(),
        "Is it the same on their side? Type the nation's name to trust it: "
    );
    let answer = ask::line().await?.unwrap_or_default();
    if answer.trim() == nation.as_str() {
        return Ok(*found);
    }
    Err(Failure::new(Exit::Policy, format!("`{nation}` was not confirmed; nothing was changed")))
}

async fn nations(context: &Context) -> Result<Vec<NationEntry>, Failure> {
    let client = Client::open(context, Need::Folder).await?;
    let nations = client.get("/v1/nations").await;
    client.close().await;
    nations
}

/// Why our nation holds another in its standing; nothing where nothing was said.
async fn reason(context: &Context, nation: &Nation) -> Result<Option<String>, Failure> {
    let client = Client::open(context, Need::Folder).await?;
    let said: Result<Vec<MembershipEntry>, Failure> = client.get("/v1/memberships").await;
    client.close().await;
    let said = said?.into_iter().find(|said| said.member == *nation);
    Ok(said.map(|said| said.reason).filter(|reason| !reason.is_empty()))
}

async fn list(context: &Context) -> Result<(), Failure> {
    let nations = nations(context).await?;
    if context.json {
        return output::json(&nations);
    }
    let now = Timestamp::now();
    let mut table = Table::new(&["nation", "fingerprint", "valid until", "standing", "nodes connected", ""]);
    for nation in &nations {
        let until = human::relative(nation.expires, now);
        table.row([
            cell(NAME, nation.nation.as_str()),
            cell(DIM, format!("b3:{}…", nation.fingerprint.short())),
            cell(
                match nation.ending {
                    Ending::Ended => BAD,
                    Ending::Far => anstyle::Style::new(),
                    Ending::Planned | Ending::Soon | Ending::Urgent => WARN,
                },
                until,
            ),
            match nation.standing {
                Standing::Active => cell(anstyle::Style::new(), "active"),
                standing => cell(WARN, standing.to_string()),
            },
            Cell::from(nation.peers.to_string()).right(),
            cell(DIM, if nation.own { "this node's own" } else { "" }),
        ]);
    }
    output::print(&table.render())
}

fn unknown(nation: &Nation) -> Failure {
    Failure::new(Exit::NotFound, format!("`{nation}` is not trusted here"))
        .help("`steelyard trust ls` lists who is")
}

async fn show(context: &Context, wanted: &Nation) -> Result<(), Failure> {
    let nations = nations(context).await?;
    let Some(nation) = nations.into_iter().find(|nation| nation.nation == *wanted) else {
        return Err(unknown(wanted));
    };
    if context.json {
        return output::json(&nation);
    }
    let now = Timestamp::now();
    let [first, second] = human::fingerprint(&nation.fingerprint);
    let standing = match reason(context, wanted).await? {
        Some(reason) => format!("{}: {reason}", nation.standing),
        None => nation.standing.to_string(),
    };
    let roles: Vec<String> = nation
        .roles
        .iter()
        .map(|role| {
            let keys: Vec<String> = role.keys.iter().map(|key| key.short()).collect();
            format!(
                "{:<8} {} of {}  {}",
                role.role,
                role.threshold,
                role.keys.len(),
                paint(DIM, keys.join(" "))
            )
        })
        .collect();
    let addresses =
        if nation.addresses.is_empty() { paint(DIM, "none known") } else { nation.addresses.join("\n") };
    output::print(&output::facts(&[
        ("nation", paint(NAME.bold(), &nation.nation)),
        ("fingerprint", format!("{}\n{}", paint(BOLD, first), paint(BOLD, second))),
        ("read aloud", paint(BOLD, spoken(&nation.fingerprint))),
        ("as text", nation.fingerprint.to_string()),
        ("standing", standing),
        ("root", format!("version {}", nation.version)),
        ("trusted since", human::relative(nation.pinned, now)),
        ("valid until", format!("{} ({})", nation.expires, human::relative(nation.expires, now))),
        ("nodes connected", nation.peers.to_string()),
        ("addresses", addresses),
        ("roles", roles.join("\n")),
    ]))
}

async fn remove(context: &Context, nation: &Nation) -> Result<(), Failure> {
    let client = Client::open(context, Need::Folder).await?;
    let done: Result<Unpinned, Failure> = client.delete(&format!("/v1/nations/{nation}")).await;
    client.close().await;
    let done = done.map_err(|failure| match failure.exit {
        Exit::NotFound => unknown(nation),
        _ => failure,
    })?;
    if context.json {
        return output::json(&done);
    }
    output::line(format!("{} {} is no longer trusted.", output::mark(true), paint(NAME, nation)))
}
