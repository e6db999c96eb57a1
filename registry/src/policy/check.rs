//! What is wrong with a policy file, with line and column.

use std::fmt;

use miette::Diagnostic;
use serde::{Deserialize, Serialize};

/// Defects listed of one file; the rest is counted.
const MAX_TOLD: usize = 32;
/// Longest message of one defect, in characters.
const MAX_MESSAGE: usize = 600;

/// One defect of a policy file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyProblem {
    /// Its line; the first is 1.
    pub line: usize,
    /// Its column in characters; the first is 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What would put it right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, " ({help})"))
    }
}

/// Why a policy is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the policy {name} is refused at {}{}; mend it and check it with `steelyard policy check`", first(.problems), more(.problems))]
pub struct PolicyError {
    /// The file's name, as it was given.
    pub name: String,
    /// What is wrong, in the order of the file; never empty.
    pub problems: Vec<PolicyProblem>,
}

fn first(problems: &[PolicyProblem]) -> String {
    problems.first().map(ToString::to_string).unwrap_or_default()
}

fn more(problems: &[PolicyProblem]) -> String {
    match problems.len() {
        0 | 1 => String::new(),
        n => format!(" (and {} more)", n - 1),
    }
}

/// Gathers the defects of one text.
pub(super) struct Problems<'a> {
    name: &'a str,
    text: &'a str,
    found: Vec<PolicyProblem>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(name: &'a str, text: &'a str) -> Self {
        Self { name, text, found: Vec::new() }
    }

    /// Notes a defect at a byte of the text.
    pub(super) fn at(&mut self, offset: usize, message: impl Into<String>, help: Option<String>) {
        if self.found.len() >= MAX_TOLD {
            return;
        }
        let before = self.text.get(..offset.min(self.text.len())).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let message: String = message.into().chars().take(MAX_MESSAGE).collect();
        self.found.push(PolicyProblem {
            line: before.matches('\n').count() + 1,
            column: before.get(start..).unwrap_or_default().chars().count() + 1,
            message,
            help,
        });
    }

    /// Notes what the policy library found.
    pub(super) fn diagnostic(&mut self, found: &(impl Diagnostic + ?Sized)) {
        let labels: Vec<_> = found.labels().into_iter().flatten().collect();
        let offset = labels.first().map_or(0, miette::LabeledSpan::offset);
        let label = labels.first().and_then(|label| label.label()).map(str::to_owned);
        let help = found.help().map(|help| help.to_string()).or(label);
        self.at(offset, found.to_string(), help);
    }

    /// Nothing where no defect was found.
    pub(super) fn into_result(self) -> Result<(), PolicyError> {
        if self.found.is_empty() { Ok(()) } else { Err(self.into_error()) }
    }

    /// What was found, in the order of the file.
    pub(super) fn into_error(mut self) -> PolicyError {
        self.found.sort_by_key(|problem| (problem.line, problem.column));
        PolicyError { name: self.name.to_owned(), problems: self.found }
    }
}
