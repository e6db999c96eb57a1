//! `steelyard log`: nations' logs, and what was signed in our name.

use clap::{Args, Subcommand};
use node::api::types::{Done, LogEntry, LogInfo, LogPage, LogRecovered, LogStatus, Monitored};
use registry::{Nation, Timestamp};
use serde_json::json;

use crate::client::{Client, Need};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::human;
use crate::output::{self, BAD, Cell, DIM, GOOD, NAME, Table, WARN, cell, paint};

/// Entries asked for at a time.
const PAGE: u64 = 1000;

/// Look at nations' logs: everything that they signed, in order, witnessed by their allies
#[derive(Debug, Args)]
#[command(
    long_about = "Look at nations' logs.\n\nEach nation appends everything that it signs to a log that can't be changed afterwards \
without anybody noticing. Every node follows the log of every nation that it pinned, and allies' witnesses cosign it, so that \
nobody is shown another log than the others."
)]
pub(crate) struct Log {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Ls(Ls),
    Show(Show),
    Monitor(Monitor),
    Recover(Recover),
    Settle(Settle),
}

/// List the logs that this node keeps
///
/// How long each is, who cosigned its newest checkpoint and when, and whether it was proved to lie. Below, how our own log
/// stands: what waits to be appended, and why.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard log ls")]
struct Ls {}

/// Show the entries of a nation's log
///
/// Each with its number, and what it is where the statement is known here. An entry is only a digest: what is not
/// releasable to this nation stays unknown.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  steelyard log show borea
  steelyard log show borea --from 100 --limit 20")]
struct Show {
    /// The nation [default: our own]
    #[arg(value_name = "NATION")]
    nation: Option<Nation>,
    /// The number of the first entry; the first of all is 0
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    from: u64,
    /// Entries to show
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    limit: u64,
}

/// List everything that was signed in our name, and what is alarming about it
///
/// Compares our nation's log, as allies have it too, with the statements that this node knows. An entry that nobody here
/// knows was signed without this node: by another node of the nation, or by whoever stole a key. A statement that the log
/// lacks waits, or never went through our log. Ends with exit code 4 when something is alarming.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  steelyard log monitor
  steelyard --json log monitor | jq .unknown")]
struct Monitor {}

/// Fetch what allies know of our log and this node does not
///
/// For a node that was restored from a backup: its copy of our log is older than what allies cosigned, and appending to it
/// would fork it. Nothing is appended until this was done.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard log recover")]
struct Recover {}

/// Follow a log again although it was proved to lie
///
/// For after its people explained themselves, such as by a restore from a backup that went wrong. This node goes on from
/// what it has of the log, and takes nothing that contradicts it. The evidence file stays; the same fork, brought again by a peer,
/// is not held against the log again.
///
/// With --anew this node drops what it has of the log and follows it anew, as its peers have it: for those whose copy is of the
/// history that is given up. At the node that keeps the log itself this gives up its own history for the other one in the
/// evidence: nothing is appended until `steelyard log recover` has fetched that from allies, then what was signed here and is
/// not in it is appended behind.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard log settle borea --yes
  steelyard log settle borea --anew --yes")]
struct Settle {
    /// The nation whose log it is
    nation: Nation,
    /// Give up what is here of it, and follow it anew as peers have it
    #[arg(long)]
    anew: bool,
    /// You spoke with its people
    #[arg(long)]
    yes: bool,
}

impl Settle {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        if !self.yes {
            return Err(Failure::usage(format!(
                "the log of `{}` was proved to lie; this believes it again",
                self.nation
            ))
            .help("speak with its people over another way, then say --yes"));
        }
        let client = Client::open(context, Need::Folder).await?;
        let path = format!("/v1/log/settle/{}?anew={}", self.nation, self.anew);
        let done = client.post::<Done>(&path, &json!({})).await;
        client.close().await;
        done?;
        if context.json {
            return output::json(&json!({ "nation": self.nation, "settled": true, "anew": self.anew }));
        }
        output::line(format!(
            "{} The log of {} is followed {}.",
            output::mark(true),
            paint(NAME, &self.nation),
            if self.anew { "anew, from its first entry" } else { "again" }
        ))
    }
}

impl Log {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.action {
            Action::Ls(_) => list(context).await,
            Action::Show(show) => show.run(context).await,
            Action::Monitor(_) => monitor(context).await,
            Action::Recover(_) => recover(context).await,
            Action::Settle(settle) => settle.run(context).await,
        }
    }
}

async fn list(context: &Context) -> Result<(), Failure> {
    let client = Client::open(context, Need::Folder).await?;
    let status = client.get::<LogStatus>("/v1/log").await;
    client.close().await;
    let status = status?;
    if context.json {
        return output::json(&status);
    }
    let mut table = Table::new(&["nation", "entries", "witnesses", "", "root"]);
    for log in &status.logs {
        table.row([
            cell(NAME, log.nation.to_string()),
            Cell::from(log.size.to_string()).right(),
            witnesses(log),
            state(log),
            cell(DIM, log.root.clone().unwrap_or_default()),
        ]);
    }
    output::print(&table.render())?;
    let mut facts = vec![(
        "this node",
        match (status.appends, status.witness) {
            (true, true) => "appends to our log and cosigns allies'",
            (true, false) => "appends to our log",
            (false, true) => "cosigns allies' logs",
            (false, false) => "follows logs; it holds no key of a log or witness",
        }
        .to_owned(),
    )];
    if status.pending > 0 {
        let why = status.waiting.clone().unwrap_or_default();
        facts.push(("waiting", format!("{}: {why}", human::count(status.pending, "statement"))));
    }
    output::print(&format!("\n{}", output::facts(&facts)))?;
    for problem in &status.problems {
        output::warn(problem);
    }
    Ok(())
}

/// Who cosigned, and when.
fn witnesses(log: &LogInfo) -> Cell {
    if log.witnesses.is_empty() {
        return cell(if log.size == 0 { DIM } else { WARN }, "none");
    }
    let names: Vec<String> = log.witnesses.iter().map(ToString::to_string).collect();
    let when = log.witnessed.map(|at| format!(" {}", human::relative(at, Timestamp::now())));
    cell(GOOD, format!("{}{}", names.join(", "), when.unwrap_or_default()))
}

fn state(log: &LogInfo) -> Cell {
    match (log.disputed, log.own) {
        (true, _) => cell(BAD, "lied"),
        (false, true) => cell(DIM, "our own"),
        (false, false) => "".into(),
    }
}

impl Show {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = Client::open(context, Need::Folder).await?;
        let read = self.read(&client).await;
        client.close().await;
        let page = read?;
        if context.json {
            return output::json(&page);
        }
        output::line(format!(
            "The log of {} has {}.\n",
            paint(NAME.bold(), &page.nation),
            human::count(page.size, "entry")
        ))?;
        output::print(&entries(page.entries.iter()).render())
    }

    async fn read(&self, client: &Client) -> Result<LogPage, Failure> {
        let nation = match &self.nation {
            Some(nation) => nation.clone(),
            None => client.get::<node::api::types::Status>("/v1/status").await?.nation,
        };
        let mut whole: Option<LogPage> = None;
        let mut from = self.from;
        let mut left = self.limit;
        loop {
            let path = format!("/v1/log/entries/{nation}?from={from}&limit={}", left.min(PAGE));
            let page: LogPage = client.get(&path).await?;
            let got = page.entries.len() as u64;
            match &mut whole {
                Some(whole) => whole.entries.extend(page.entries),
                None => whole = Some(page),
            }
            (from, left) = (from + got, left.saturating_sub(got));
            match whole {
                Some(whole) if got == 0 || left == 0 => return Ok(whole),
                _ => {}
            }
        }
    }
}

fn entries<'a>(list: impl Iterator<Item = &'a LogEntry>) -> Table {
    let now = Timestamp::now();
    let mut table = Table::new(&["entry", "kind", "", "signed", "statement"]);
    for entry in list {
        table.row([
            Cell::from(entry.index.to_string()).right(),
            match entry.kind {
                Some(kind) => Cell::from(kind.to_string()),
                None => cell(WARN, "unknown here"),
            },
            cell(NAME, entry.about.clone().unwrap_or_default()),
            cell(DIM, entry.issued.map(|at| human::relative(at, now)).unwrap_or_default()),
            cell(DIM, entry.digest.to_string()),
        ]);
    }
    table
}

async fn monitor(context: &Context) -> Result<(), Failure> {
    let client = Client::open(context, Need::Folder).await?;
    let read = client.get::<Monitored>("/v1/log/monitor").await;
    let status = client.get::<LogStatus>("/v1/log").await;
    client.close().await;
    let (seen, status) = (read?, status?);
    let alarms = alarms(&seen, &status);
    if context.json {
        let mut document = serde_json::to_value(&seen).map_err(anyhow::Error::from)?;
        document["alarms"] = json!(alarms);
        output::json(&document)?;
    } else {
        output::print(&entries(seen.entries.iter()).render())?;
        if !seen.unlogged.is_empty() {
            let mut table = Table::new(&["not in the log", "", "statement"]);
            for entry in &seen.unlogged {
                table.row([
                    Cell::from(entry.kind.map(|kind| kind.to_string()).unwrap_or_default()),
                    cell(NAME, entry.about.clone().unwrap_or_default()),
                    cell(DIM, entry.digest.to_string()),
                ]);
            }
            output::print(&format!("\n{}", table.render()))?;
        }
        for alarm in &alarms {
            output::warn(alarm);
        }
    }
    if alarms.is_empty() {
        if !context.json {
            output::line(format!(
                "\n{} Everything in the log of {} is known here, and nothing is missing from it.",
                output::mark(true),
                paint(NAME, &seen.nation)
            ))?;
        }
        return Ok(());
    }
    let failure = Failure::new(Exit::Verification, "something signed in our name needs a look")
        .help("ask who signed it; if nobody did, a key is stolen: rotate it, and recall what it signed");
    Err(if context.json { failure.reported() } else { failure })
}

/// What is alarming, a sentence each.
fn alarms(seen: &Monitored, status: &LogStatus) -> Vec<String> {
    let mut alarms = Vec::new();
    if !seen.unknown.is_empty() {
        let numbers: Vec<String> = seen.unknown.iter().take(10).map(ToString::to_string).collect();
        let more = if seen.unknown.len() > 10 { ", …" } else { "" };
        alarms.push(format!(
            "nobody here knows the statements of {} of our log: {}{more}",
            if seen.unknown.len() == 1 { "one entry" } else { "some entries" },
            numbers.join(", ")
        ));
    }
    for digest in &seen.elsewhere {
        alarms.push(format!(
            "another nation's node brought {digest}, signed in our name, before this node had it"
        ));
    }
    if !seen.unlogged.is_empty() && (!status.appends || status.behind.is_some()) {
        alarms.push(format!(
            "our log lacks {}: {}",
            human::count(seen.unlogged.len() as u64, "statement"),
            status.waiting.as_deref().unwrap_or("they are being logged")
        ));
    }
    alarms.extend(status.problems.iter().cloned());
    alarms
}

async fn recover(context: &Context) -> Result<(), Failure> {
    let client = Client::open(context, Need::Network).await?;
    let done = client.post::<LogRecovered>("/v1/log/recover", &json!({})).await;
    client.close().await;
    let done = done?;
    if context.json {
        return output::json(&done);
    }
    let asked = human::count(done.asked as u64, "peer");
    if done.from == done.to {
        return output::line(format!(
            "{} Our log is whole here: none of {asked} knows more than its {} entries.",
            output::mark(true),
            done.to
        ));
    }
    output::line(format!(
        "{} Our log has {} entries again; {} of them came from allies ({asked} asked).",
        output::mark(true),
        done.to,
        done.to - done.from
    ))?;
    output::note(
        "Their statements follow as far as allies may have them; `steelyard log monitor` shows what is still unknown.",
    );
    Ok(())
}
