//! Cases for `steelyard policy test`: evidence, and what the policy must answer.

use serde::{Deserialize, Serialize};

use super::{Action, Decision, Facts, Policy};

/// Most cases of one file. Each is one decision, well under a millisecond.
pub const MAX_CASES: usize = 10_000;

/// What a case expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// No rule refuses.
    Allow,
    /// At least one does.
    Refuse,
}

/// One case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// Its name, for people.
    pub name: String,
    /// What is to be decided about.
    #[serde(default = "admit")]
    pub action: Action,
    /// What differs from a release that nothing speaks against.
    #[serde(default)]
    pub evidence: Facts,
    /// What the answer must be.
    pub expect: Expected,
    /// Exactly the rules that must refuse, in any order; left out, any may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_by: Option<Vec<String>>,
}

fn admit() -> Action {
    Action::Admit
}

/// A file of cases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cases {
    /// The cases.
    #[serde(default, rename = "case")]
    pub cases: Vec<Case>,
}

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaseOutcome {
    /// The case's name.
    pub name: String,
    /// Whether the answer was as expected.
    pub passed: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The answer.
    pub decision: Decision,
}

impl Cases {
    /// Whether the file can be run; else why not.
    pub fn check(&self) -> Result<(), String> {
        match self.cases.len() {
            0 => Err("there are no cases in it: write [[case]] tables".to_owned()),
            n if n > MAX_CASES => Err(format!("{n} cases are over the limit of {MAX_CASES}")),
            _ => Ok(()),
        }
    }

    /// Asks the policy about each case.
    pub fn run<'a>(&'a self, policy: &'a Policy) -> impl Iterator<Item = CaseOutcome> + 'a {
        self.cases.iter().take(MAX_CASES).map(|case| case.run(policy))
    }
}

impl Case {
    /// Asks the policy.
    pub fn run(&self, policy: &Policy) -> CaseOutcome {
        let decision = policy.decide(self.action, &self.evidence);
        let refusing: Vec<&str> = decision.refusals().map(|check| check.rule.as_str()).collect();
        let expected = self.refused_by.as_ref().map(|rules| rules.iter().map(String::as_str));
        let as_expected = expected.is_none_or(|rules| sorted(rules) == sorted(refusing.iter().copied()));
        let said = if refusing.is_empty() {
            "allowed".to_owned()
        } else {
            format!("refused by {}", refusing.join(", "))
        };
        let why = match (self.expect, decision.allowed) {
            (Expected::Allow, false) => Some(format!("it was {said}, and should be allowed")),
            (Expected::Refuse, true) => Some("it was allowed, and should be refused".to_owned()),
            _ if !as_expected => {
                let rules = self.refused_by.iter().flatten().map(String::as_str).collect::<Vec<_>>();
                Some(format!("it was {said}, and should be refused by {}", rules.join(", ")))
            }
            _ => None,
        };
        CaseOutcome { name: self.name.clone(), passed: why.is_none(), why, decision }
    }
}

fn sorted<'a>(rules: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut rules: Vec<&str> = rules.collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}
