//! `steelyard conformance`: the specification's test vectors, here or against another implementation.

mod against;
mod vectors;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use registry::conformance::{Outcome, Runner};
use serde::Serialize;

use self::against::Other;
use self::vectors::Named;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::human;
use crate::output::{self, BAD, Cell, DIM, GOOD, Table, WARN, cell, paint};
use crate::progress::Bar;

/// Failures that are listed; `--json` has all.
const SHOWN: usize = 40;

/// Run the specification's test vectors, here or against another implementation
///
/// The vectors are part of this binary. With --against, a command of yours is started and asked about each: one JSON object a
/// line on its standard input, one a line as its answer. specs/vectors/README.md describes the vectors and this protocol. It
/// must refuse what is to be refused, with whatever code, and give the values that are expected otherwise.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard conformance
  steelyard conformance --only 02 --only 03 --json
  steelyard conformance --against 'python3 -m verifier'")]
pub(crate) struct Conformance {
    /// Read the vectors from this folder instead
    #[arg(long, value_name = "FOLDER")]
    vectors: Option<PathBuf>,
    /// The command that starts another implementation
    #[arg(long, value_name = "COMMAND")]
    against: Option<String>,
    /// Only the vectors of this document, such as 02; may be given several times
    #[arg(long, value_name = "DOCUMENT")]
    only: Vec<String>,
    /// The other implementation must give our code for each refusal too
    #[arg(long, requires = "against")]
    codes: bool,
}

/// Counts of one document, or of all.
#[derive(Debug, Default, Clone, Serialize)]
struct Count {
    vectors: usize,
    negative: usize,
    passed: usize,
    failed: usize,
    unsupported: usize,
}

#[derive(Serialize)]
struct Failed {
    vector: String,
    title: String,
    why: String,
}

#[derive(Serialize)]
struct Report {
    against: Option<String>,
    documents: BTreeMap<String, Count>,
    all: Count,
    failures: Vec<Failed>,
    unsupported_kinds: BTreeSet<String>,
}

impl Conformance {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut vectors = match &self.vectors {
            Some(folder) => vectors::of_folder(folder)?,
            None => vectors::embedded()?,
        };
        if !self.only.is_empty() {
            vectors.retain(|named| self.only.iter().any(|only| only == named.document()));
            if vectors.is_empty() {
                return Err(Failure::new(
                    Exit::NotFound,
                    format!("no vector is of {}", self.only.join(", ")),
                )
                .help("name documents by their numbers, such as --only 02"));
            }
        }
        let report = match &self.against {
            Some(command) => against(context, command, vectors, self.codes).await?,
            None => tokio::task::spawn_blocking(move || here(&vectors))
                .await
                .map_err(|error| Failure::new(Exit::Other, error))?,
        };
        if context.json {
            output::json(&report)?;
        } else {
            show(&report)?;
        }
        if report.all.failed == 0 {
            return Ok(());
        }
        let failed = human::count(report.all.failed as u64, "vector");
        let failure =
            Failure::new(Exit::Verification, format!("{failed} did not come out as the specification says"));
        Err(if context.json { failure.reported() } else { failure })
    }
}

fn here(vectors: &[Named]) -> Report {
    let runners: BTreeMap<&str, Runner> =
        registry::conformance::kinds().into_iter().chain(node::conformance::KINDS.iter().copied()).collect();
    let mut report = Report::new(None);
    for named in vectors {
        let runner = runners.get(named.vector.kind.as_str());
        report.take(named, runner.map(|run| run(&named.vector.input)), true);
    }
    report
}

async fn against(
    context: &Context,
    command: &str,
    vectors: Vec<Named>,
    codes: bool,
) -> Result<Report, Failure> {
    let mut other = Other::start(command)?;
    let mut report = Report::new(Some(command.to_owned()));
    let bar = Bar::new(context.progress(), "asking the other implementation");
    for named in &vectors {
        let answer = other.ask(&named.vector).await?;
        report.take(named, answer, codes);
    }
    drop(bar);
    other.close().await;
    Ok(report)
}

impl Report {
    fn new(against: Option<String>) -> Self {
        Self {
            against,
            documents: BTreeMap::new(),
            all: Count::default(),
            failures: Vec::new(),
            unsupported_kinds: BTreeSet::new(),
        }
    }

    fn take(&mut self, named: &Named, answer: Option<Outcome>, codes: bool) {
        let vector = &named.vector;
        let document = self.documents.entry(named.document().to_owned()).or_default();
        let outcome = answer.map(|answer| vector.compare(&answer, codes));
        for count in [document, &mut self.all] {
            count.vectors += 1;
            count.negative += usize::from(vector.is_negative());
            match &outcome {
                None => count.unsupported += 1,
                Some(Ok(())) => count.passed += 1,
                Some(Err(_)) => count.failed += 1,
            }
        }
        match outcome {
            None => {
                self.unsupported_kinds.insert(vector.kind.clone());
            }
            Some(Err(why)) => {
                let (vector, title) = (named.name.clone(), vector.title.clone());
                self.failures.push(Failed { vector, title, why });
            }
            Some(Ok(())) => {}
        }
    }
}

fn show(report: &Report) -> Result<(), Failure> {
    let mut table = Table::new(&["document", "vectors", "negative", "passed", "failed", "unsupported"]);
    let all = [("all", &report.all)];
    for (name, count) in report.documents.iter().map(|(name, count)| (name.as_str(), count)).chain(all) {
        let styled = |style, n: usize| cell(if n == 0 { DIM } else { style }, n.to_string()).right();
        table.row([
            name.into(),
            Cell::from(count.vectors.to_string()).right(),
            Cell::from(format!("{} ({} %)", count.negative, count.negative * 100 / count.vectors.max(1)))
                .right(),
            styled(GOOD, count.passed),
            styled(BAD, count.failed),
            styled(WARN, count.unsupported),
        ]);
    }
    output::print(&table.render())?;
    for failed in report.failures.iter().take(SHOWN) {
        output::line(format!(
            "\n{} {}\n  {}\n  {}",
            output::mark(false),
            failed.title,
            failed.why,
            paint(DIM, &failed.vector)
        ))?;
    }
    if report.failures.len() > SHOWN {
        output::note(format!("{} more; --json lists them all", report.failures.len() - SHOWN));
    }
    if !report.unsupported_kinds.is_empty() {
        let kinds: Vec<&str> = report.unsupported_kinds.iter().map(String::as_str).collect();
        output::line(format!("\nNot supported: {}", kinds.join(", ")))?;
    }
    Ok(())
}
