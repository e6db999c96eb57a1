//! `steelyard policy`: the rules in force, whether a file is sound, why they decide as they do, and cases for an own CI.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use node::api::types::{Explained, PolicyChecked, PolicyView};
use registry::policy::{Action as About, CaseOutcome, Cases, DEFAULT, Policy as Rules, SCHEMA};
use registry::{Nation, Reference};

use crate::client::{Client, Need, segment};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{self, BAD, BOLD, Cell, DIM, GOOD, NAME, Table, cell, paint};

/// Largest file of cases: thousands of them.
const MAX_CASE_FILE: u64 = 8 * 1024 * 1024;

/// The rules that decide: show them, check a file, explain a decision, test cases
#[derive(Debug, Args)]
#[command(
    long_about = "The rules that decide what is admitted, mirrored, served and given to allies: show them, check a file, explain \
a decision, test cases.\n\nRules are written in Cedar. The shipped ones hold unless the settings say otherwise; a file of your \
own, named in the settings as policy.file, adds to them. A node that runs takes up a changed file by itself."
)]
pub(crate) struct Policy {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Show(Show),
    Check(Check),
    Explain(Explain),
    Test(Test),
}

/// Print the policy in force
///
/// Prints every rule that holds, in the order in which they are asked. When the policy file was changed and can't be
/// loaded, the policy before it is in force, which is told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard policy show
  steelyard policy show --rules
  steelyard policy show --shipped > policy.cedar
  steelyard policy show --schema")]
struct Show {
    /// List the rules in a line each
    #[arg(long)]
    rules: bool,
    /// Print the shipped policy instead, whatever is in force
    #[arg(long, conflicts_with = "rules")]
    shipped: bool,
    /// Print the schema instead: what a rule may ask about
    #[arg(long, conflicts_with_all = ["rules", "shipped"])]
    schema: bool,
}

/// Check a policy file
///
/// Reads the file as a node would, strictly against the schema, and tells every defect with its line and column. No node
/// is asked, and nothing is taken up.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard policy check policy.cedar
  steelyard policy check policy.cedar --alone")]
struct Check {
    /// The file [default: the one that the settings name]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Check it as a policy that stands alone, without the shipped rules
    #[arg(long)]
    alone: bool,
}

/// Explain why the policy allows or refuses a release
///
/// Asks every rule of the policy in force anew and shows what each saw and, where it refuses, what would satisfy it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard policy explain alba/smollm2
  steelyard policy explain alba/smollm2 --action serve
  steelyard policy explain alba/smollm2@1.0.0 --as borea    would a node of borea get it from here?")]
struct Explain {
    /// nation/name (channel stable), nation/name:channel, nation/name@version or b3:…
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    /// admit, mirror, serve or release [default: admit, or release with --as]
    #[arg(long, value_name = "ACTION")]
    action: Option<About>,
    /// The nation that would get it [default: this node's own]
    #[arg(long = "as", value_name = "NATION")]
    nation: Option<Nation>,
}

/// Test the policy with a file of cases
///
/// Each case says what differs from a release that nothing speaks against, and what the policy must answer. Made for an
/// operator's own continuous integration: no node and no network are needed, and it ends with exit code 5 when a case comes
/// out otherwise.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  steelyard policy test cases.toml --policy policy.cedar

A case in TOML (JSON is read too):
  [[case]]
  name = \"one ally is not enough\"
  expect = \"refuse\"
  refusedBy = [\"two-allies-vouch\"]
  [[case.evidence.attestations]]
  nation = \"borea\"
  suite = \"mmlu\"
  verdict = \"pass\"")]
struct Test {
    /// The cases, in TOML or JSON
    #[arg(value_name = "FILE")]
    cases: PathBuf,
    /// The policy file [default: the one that the settings name, or the shipped policy]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Test it as a policy that stands alone, without the shipped rules
    #[arg(long)]
    alone: bool,
}

impl Policy {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.action {
            Action::Show(show) => show.run(context).await,
            Action::Check(check) => check.run(context),
            Action::Explain(explain) => explain.run(context).await,
            Action::Test(test) => test.run(context),
        }
    }
}

impl Show {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        if self.shipped || self.schema {
            return output::print(if self.schema { SCHEMA } else { DEFAULT });
        }
        let client = Client::open(context, Need::Folder).await?;
        let view: Result<PolicyView, Failure> = client.get("/v1/policy").await;
        client.close().await;
        let view = view?;
        if context.json {
            return output::json(&view);
        }
        if let Some(error) = &view.error {
            output::warn(format!("{error}; what follows is the policy before it, which is in force"));
        }
        if self.rules {
            let mut table = Table::new(&["rule", "", "about", "where"]);
            for rule in &view.rules {
                let actions: Vec<&str> = rule.actions.iter().map(|action| action.as_str()).collect();
                table.row([
                    cell(NAME, rule.rule.as_str()),
                    (if rule.forbids { "forbids" } else { "permits" }).into(),
                    actions.join(", ").into(),
                    cell(DIM, format!("{}:{}", rule.file, rule.line)),
                ]);
            }
            return output::print(&table.render());
        }
        for (number, text) in view.texts.iter().enumerate() {
            let gap = if number == 0 { "" } else { "\n" };
            output::print(&format!("{gap}{}\n{}", paint(DIM, format!("// --- {}", text.name)), text.text))?;
        }
        Ok(())
    }
}

impl Check {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let config = context.config()?;
        let path = self.file.clone().or_else(|| node::policy::path(&config)).ok_or_else(|| {
            Failure::usage("the settings name no policy file").help("name one: steelyard policy check FILE")
        })?;
        let name = path.display().to_string();
        let text = read_policy(&path)?;
        let alone = self.alone || !config.policy.shipped;
        let checked = match Rules::own(&name, &text, alone, config.policy.witnesses) {
            Ok(policy) => {
                PolicyChecked { name, sound: true, rules: policy.rules().len(), problems: Vec::new() }
            }
            Err(error) => PolicyChecked { name, sound: false, rules: 0, problems: error.problems },
        };
        if context.json {
            output::json(&checked)?;
        } else if checked.sound {
            let beside = if alone { "" } else { ", the shipped ones included" };
            output::line(format!(
                "{} {} is sound: {} rules{beside}.",
                output::mark(true),
                checked.name,
                checked.rules
            ))?;
        } else {
            for problem in &checked.problems {
                let place = paint(BOLD, format!("{}:{}:{}:", checked.name, problem.line, problem.column));
                output::line(format!("{place} {}", problem.message))?;
                if let Some(line) = text.lines().nth(problem.line - 1) {
                    let shown: String = line.chars().take(200).collect();
                    let indent = " ".repeat(problem.column.saturating_sub(1));
                    output::line(format!("    {shown}\n    {indent}{}", paint(BAD, "^")))?;
                }
                if let Some(help) = &problem.help {
                    output::line(format!("    {} {help}", paint(NAME.bold(), "help:")))?;
                }
            }
        }
        if checked.sound {
            return Ok(());
        }
        let failure = Failure::usage(format!("{} can't be loaded", checked.name))
            .help("`steelyard policy show --schema` tells what a rule may ask about");
        Err(if context.json { failure.reported() } else { failure })
    }
}

fn read_policy(path: &Path) -> Result<String, Failure> {
    node::policy::read(path).map_err(Failure::usage)
}

impl Explain {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut query = format!("/v1/policy/explain?ref={}", segment(&self.reference.to_string()));
        if let Some(action) = self.action {
            query.push_str(&format!("&action={action}"));
        }
        if let Some(nation) = &self.nation {
            query.push_str(&format!("&as={nation}"));
        }
        let client = Client::open(context, Need::Folder).await?;
        let explained: Result<Explained, Failure> = client.get(&query).await;
        client.close().await;
        let explained = explained?;
        if context.json { output::json(&explained) } else { explain(&explained) }
    }
}

fn explain(explained: &Explained) -> Result<(), Failure> {
    let verdict = match explained.decision.allowed {
        true => paint(GOOD.bold(), "allowed"),
        false => paint(BAD.bold(), "refused"),
    };
    let name = paint(NAME.bold(), format!("{}@{}", explained.model, explained.version));
    output::line(format!("{name}: {} for {} is {verdict}.\n", explained.action, explained.nation))?;
    for check in &explained.decision.checks {
        let place = explained.rules.iter().find(|rule| rule.rule == check.rule);
        let place =
            place.map_or_else(|| "built in".to_owned(), |rule| format!("{}:{}", rule.file, rule.line));
        output::line(format!(
            "{} {}  {}\n    {}",
            output::mark(check.passed),
            paint(BOLD, &check.rule),
            paint(DIM, place),
            check.detail.replace("; ", "\n    ")
        ))?;
    }
    let evidence = &explained.evidence;
    let tally = evidence.tally();
    let names = |nations: &std::collections::BTreeSet<Nation>| {
        let names: Vec<&str> = nations.iter().map(Nation::as_str).collect();
        if names.is_empty() { paint(DIM, "nobody") } else { names.join(", ") }
    };
    output::line("")?;
    output::print(&output::facts(&[
        ("producer", evidence.producer().to_string()),
        ("signed by", evidence.signed_by.join(", ")),
        ("releasable to", evidence.releasable_to.to_string()),
        ("derives from", evidence.bases.len().to_string()),
        ("recalls", evidence.recalls.len().to_string()),
        (
            "log",
            evidence.logged.as_ref().map_or_else(
                || paint(DIM, "not proved here"),
                |logged| {
                    format!(
                        "entry {} of {}, witnessed by {}",
                        logged.index,
                        logged.size,
                        names(&logged.witnesses)
                    )
                },
            ),
        ),
        ("vouched for by", names(&tally.passed_by)),
        ("advised against by", names(&tally.failed_by)),
    ]))
}

impl Test {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let config = context.config()?;
        let policy = match self.policy.clone().or_else(|| node::policy::path(&config)) {
            Some(path) => {
                let alone = self.alone || !config.policy.shipped;
                let (name, text) = (path.display().to_string(), read_policy(&path)?);
                Rules::own(&name, &text, alone, config.policy.witnesses).map_err(Failure::usage)?.into()
            }
            None => Rules::shipped(config.policy.witnesses),
        };
        let cases = read_cases(&self.cases)?;
        let outcomes: Vec<CaseOutcome> = cases.run(&policy).collect();
        let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
        if context.json {
            output::json(&outcomes)?;
        } else {
            report(&outcomes, failed)?;
        }
        if failed == 0 {
            return Ok(());
        }
        let failure =
            Failure::new(Exit::Policy, format!("{failed} of {} cases came out otherwise", outcomes.len()));
        Err(if context.json { failure.reported() } else { failure })
    }
}

fn report(outcomes: &[CaseOutcome], failed: usize) -> Result<(), Failure> {
    let mut table = Table::new(&["", "", ""]);
    for outcome in outcomes {
        table.row([
            cell(if outcome.passed { GOOD } else { BAD }, if outcome.passed { "✓" } else { "✗" }),
            Cell::from(outcome.name.as_str()),
            cell(DIM, outcome.why.clone().unwrap_or_default()),
        ]);
    }
    output::print(&table.render())?;
    output::line(format!("{} cases, {failed} otherwise than expected", outcomes.len()))
}

fn read_cases(path: &Path) -> Result<Cases, Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::usage(format!("the cases {}: {why}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    file.take(MAX_CASE_FILE + 1).read_to_string(&mut text).map_err(|error| failed(&error))?;
    if text.len() as u64 > MAX_CASE_FILE {
        return Err(failed(&format!("more than {MAX_CASE_FILE} bytes")));
    }
    let json = path.extension().is_some_and(|extension| extension == "json");
    let cases: Cases = if json {
        serde_json::from_str(&text).map_err(|error| failed(&error))?
    } else {
        toml::from_str(&text).map_err(|error| failed(&error))?
    };
    cases.check().map_err(|why| failed(&why))?;
    Ok(cases)
}
