//! `steelyard mirror`: what the mirror rules keep, want and refuse.

use clap::Args;
use node::api::types::{MirrorEntry, MirrorRule, MirrorState, MirrorStatus};
use registry::Timestamp;

use crate::client::{Client, Need};
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::output::{self, BAD, Cell, DIM, GOOD, NAME, Table, WARN, cell};

/// Show what the mirror rules keep, want and refuse
///
/// The rules stand in the settings file as `[[mirror]]`. This shows each with its budget, and each release that one of
/// them wants, with what becomes of it and why.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard mirror
  steelyard --json mirror | jq -r '.releases[] | select(.state == \"refused\") | .reason'")]
pub(crate) struct Mirror {}

impl Mirror {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = Client::open(context, Need::Folder).await?;
        let status: Result<MirrorStatus, Failure> = client.get("/v1/mirror").await;
        client.close().await;
        let status = status?;
        if context.json {
            return output::json(&status);
        }
        if status.rules.is_empty() {
            let path = context.config_path();
            output::note(format!(
                "There are no mirror rules. `[[mirror]]` in {} makes one; the node reads it when it starts.",
                path.display()
            ));
        }
        report(&status)
    }
}

fn report(status: &MirrorStatus) -> Result<(), Failure> {
    let mut rules = Table::new(&["rule", "wants", "keeps", "to come", "refused", "used", "of"]);
    for rule in &status.rules {
        rules.row(rule_cells(rule));
    }
    if status.rules.len() > 1 || status.budget.is_some() {
        rules.row([
            cell(DIM, "together"),
            "".into(),
            "".into(),
            "".into(),
            "".into(),
            Cell::from(human::bytes(status.used)).right(),
            cell(DIM, limit(status.budget)),
        ]);
    }
    if !rules.is_empty() {
        output::print(&rules.render())?;
    }
    let now = Timestamp::now();
    let mut releases = Table::new(&["release", "size", "state", "rule", "why"]);
    for entry in &status.releases {
        releases.row(entry_cells(entry, now));
    }
    if releases.is_empty() {
        return Ok(());
    }
    output::print(&format!("\n{}", releases.render()))?;
    if status.more > 0 {
        output::note(format!("{} more are not listed", status.more));
    }
    Ok(())
}

fn limit(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "no limit".to_owned(), human::bytes)
}

fn rule_cells(rule: &MirrorRule) -> [Cell; 7] {
    let number = |n: usize| Cell::from(n.to_string()).right();
    [
        cell(NAME, rule.name.as_str()),
        rule.wants.as_str().into(),
        number(rule.keeps),
        number(rule.fetches),
        number(rule.refuses),
        Cell::from(human::bytes(rule.used)).right(),
        cell(DIM, limit(rule.budget)),
    ]
}

fn entry_cells(entry: &MirrorEntry, now: Timestamp) -> [Cell; 5] {
    let (state, style) = match entry.state {
        MirrorState::Kept => ("kept", GOOD),
        MirrorState::Here => ("here", GOOD),
        MirrorState::Fetching => ("fetching", WARN),
        MirrorState::Queued => ("next", WARN),
        MirrorState::Waiting => ("waiting", WARN),
        MirrorState::Refused => ("refused", BAD),
        MirrorState::LettingGo => ("let go", DIM),
    };
    let again =
        entry.again.map_or_else(String::new, |again| format!("; again {}", human::relative(again, now)));
    [
        cell(NAME, format!("{}@{}", entry.model, entry.version)),
        Cell::from(human::bytes(entry.size)).right(),
        cell(style, state),
        cell(DIM, entry.rule.as_deref().unwrap_or("-")),
        format!("{}{again}", entry.reason).into(),
    ]
}
