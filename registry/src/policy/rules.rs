//! A policy as it is loaded: Cedar rules with their sentences, validated, in the order of their files.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use cedar_policy::{
    ActionConstraint, Authorizer, Effect, PolicyId, PolicySet, Schema, ValidationMode, Validator,
};

use super::check::Problems;
use super::{Action, Check, Decision, Facts, PolicyError, cedar, sight};
use crate::digest::Digest;

/// What every policy is checked against.
pub const SCHEMA: &str = include_str!("steelyard.cedarschema");
/// The policy of a node whose settings name no other.
pub const DEFAULT: &str = include_str!("default.cedar");
/// The default's name in messages.
const DEFAULT_NAME: &str = "default.cedar";
/// Largest policy file, in bytes: thousands of lines, written by hand.
pub const MAX_POLICY: usize = 256 * 1024;
/// Most rules of a policy, the default's included. Each is asked for every decision.
pub const MAX_RULES: usize = 256;
/// Most words and signs of one rule, strings counted as one: a list of several hundred nations. What is parsed and walked
/// by recursion can't be nested deeper than that.
const MAX_TOKENS: usize = 2000;
/// Stack for reading a policy: [`MAX_TOKENS`] frames of the library's parser and type checker, which don't look at theirs.
const STACK: usize = 64 * 1024 * 1024;
/// Longest name of a rule, in bytes.
const MAX_ID: usize = 64;
/// Longest sentence of a rule, in bytes.
const MAX_SENTENCE: usize = 1024;

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name, unique in the policy.
    pub id: String,
    /// Whether it forbids; else it permits.
    pub forbids: bool,
    /// The actions that it is about.
    pub actions: Vec<Action>,
    /// Said where it does not refuse.
    pub passed: Option<String>,
    /// Said where it refuses.
    pub reason: Option<String>,
    /// What would satisfy it.
    pub advice: Option<String>,
    /// Where it stands: the file and the line.
    pub place: (String, usize),
}

/// A policy that was validated. Cheap to share; never changed.
#[derive(Debug, Clone)]
pub struct Policy {
    rules: Vec<Rule>,
    set: PolicySet,
    texts: Vec<(String, String)>,
    witnesses: u32,
}

impl Policy {
    /// The shipped policy alone; `witnesses` other nations must have witnessed what is admitted.
    pub fn shipped(witnesses: u32) -> Arc<Self> {
        static PARSED: OnceLock<Policy> = OnceLock::new();
        // A test loads it, so that the second arm is never taken; it would refuse everything.
        let parsed = PARSED.get_or_init(|| {
            Self::load(&[(DEFAULT_NAME, DEFAULT)], 0).unwrap_or_else(|error| {
                tracing::error!("{error}");
                Self { rules: Vec::new(), set: PolicySet::new(), texts: Vec::new(), witnesses: 0 }
            })
        });
        Arc::new(Self { witnesses, ..parsed.clone() })
    }

    /// A policy of one's own: added to the shipped rules, or with `alone` in their place.
    pub fn own(name: &str, text: &str, alone: bool, witnesses: u32) -> Result<Self, PolicyError> {
        let own = (name, text);
        if alone {
            Self::load(&[own], witnesses)
        } else {
            Self::load(&[(DEFAULT_NAME, DEFAULT), own], witnesses)
        }
    }

    fn load(texts: &[(&str, &str)], witnesses: u32) -> Result<Self, PolicyError> {
        let read = || {
            let mut policy = Self { rules: Vec::new(), set: PolicySet::new(), texts: Vec::new(), witnesses };
            texts.iter().try_for_each(|(name, text)| policy.add(name, text))?;
            Ok(policy)
        };
        std::thread::scope(|scope| {
            let reader = std::thread::Builder::new().name("policy".to_owned()).stack_size(STACK);
            match reader.spawn_scoped(scope, read).map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(read)) => read,
                Ok(Err(_)) | Err(_) => {
                    let (name, text) = texts.last().copied().unwrap_or_default();
                    let mut problems = Problems::new(name, text);
                    problems.at(
                        0,
                        "it could not be read for want of a thread, or by a fault of the parser",
                        None,
                    );
                    Err(problems.into_error())
                }
            }
        })
    }

    /// How many other nations must have witnessed what is admitted.
    pub fn witnesses(&self) -> u32 {
        self.witnesses
    }

    /// The rules, in the order of the files.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The files' names and texts.
    pub fn texts(&self) -> &[(String, String)] {
        &self.texts
    }

    /// What tells this policy from another: the digest of its texts and of the number of witnesses.
    pub fn digest(&self) -> Digest {
        let mut bytes = self.witnesses.to_le_bytes().to_vec();
        for (_, text) in &self.texts {
            bytes.extend_from_slice(Digest::of(text.as_bytes()).as_bytes());
        }
        Digest::of(&bytes)
    }

    /// Reads, checks and adds the rules of one file.
    fn add(&mut self, name: &str, text: &str) -> Result<(), PolicyError> {
        let mut problems = Problems::new(name, text);
        if text.len() > MAX_POLICY {
            problems.at(0, format!("{} bytes is over the limit of {MAX_POLICY}", text.len()), None);
            return problems.into_result();
        }
        let mut places = Places::of(text);
        if let Some(offset) = places.overlong {
            let help = "divide it into several".to_owned();
            problems.at(offset, format!("a rule of more than {MAX_TOKENS} words and signs"), Some(help));
            return problems.into_result();
        }
        let parsed: PolicySet = match text.parse() {
            Ok(parsed) => parsed,
            Err(errors) => {
                let errors: cedar_policy::ParseErrors = errors;
                errors.iter().for_each(|error| problems.diagnostic(error));
                return problems.into_result();
            }
        };
        if parsed.templates().next().is_some() {
            problems.at(0, "a policy has no templates (`?principal`, `?resource`)", None);
        }
        let mut policies: Vec<_> = parsed.policies().collect();
        policies.sort_by_key(|policy| number(policy.id()));
        if policies.len() + self.rules.len() > MAX_RULES {
            problems.at(0, format!("more than {MAX_RULES} rules"), None);
            return problems.into_result();
        }
        for policy in policies {
            let rule = match read(policy, name, &mut places) {
                Ok(rule) => rule,
                Err((offset, message, help)) => {
                    problems.at(offset, message, help);
                    continue;
                }
            };
            let known = self.rules.iter().find(|known| known.id == rule.id);
            if let Some(known) = known {
                let (file, line) = &known.place;
                let offset = places.offset_of(&rule.id);
                let help = "choose another name".to_owned();
                problems.at(
                    offset,
                    format!("the rule `{}` is there already: {file}:{line}", rule.id),
                    Some(help),
                );
                continue;
            }
            // The name is new, so this can't fail; were it not, the rule would be reported, not dropped.
            if let Err(error) = self.set.add(policy.new_id(PolicyId::new(&rule.id))) {
                problems.at(places.offset_of(&rule.id), error.to_string(), None);
            }
            self.rules.push(rule);
        }
        problems.into_result()?;
        self.validate(name, text)?;
        self.texts.push((name.to_owned(), text.to_owned()));
        Ok(())
    }

    /// Checks all rules strictly against the schema. A warning refuses too: a rule that can never apply, or a character
    /// that looks like another, is a mistake or worse.
    fn validate(&self, name: &str, text: &str) -> Result<(), PolicyError> {
        let mut problems = Problems::new(name, text);
        let schema: Schema = match SCHEMA.parse::<Schema>() {
            Ok(schema) => schema,
            Err(error) => {
                problems.at(0, format!("the schema can't be read: {error}"), None);
                return problems.into_result();
            }
        };
        let result = Validator::new(schema).validate(&self.set, ValidationMode::Strict);
        result.validation_errors().for_each(|error| problems.diagnostic(error));
        result.validation_warnings().for_each(|warning| problems.diagnostic(warning));
        problems.into_result()
    }

    /// Asks every rule that is about `action`.
    pub fn decide(&self, action: Action, facts: &Facts) -> Decision {
        let mut checks = Vec::new();
        let answer = cedar::request(action, facts)
            .map(|(request, entities)| Authorizer::new().is_authorized(&request, &self.set, &entities));
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => {
                let detail = format!("the evidence can't be told to the policy: {why}; please report it");
                checks.push(Check { rule: "policy".to_owned(), passed: false, detail });
                return Decision { allowed: false, checks };
            }
        };
        let allowed = answer.decision() == cedar_policy::Decision::Allow;
        let determining: Vec<&str> = answer.diagnostics().reason().map(AsRef::as_ref).collect();
        let failed: BTreeMap<&str, String> = answer
            .diagnostics()
            .errors()
            .map(|cedar_policy::AuthorizationError::PolicyEvaluationError(error)| {
                (error.policy_id().as_ref(), error.inner().to_string())
            })
            .collect();
        for rule in self.rules.iter().filter(|rule| rule.actions.contains(&action)) {
            if let Some(why) = failed.get(rule.id.as_str()) {
                // Cedar leaves a rule out that it can't evaluate. Here that refuses: the rule was written to be asked.
                let detail = format!(
                    "the rule can't be evaluated: {why}; mend it, or guard what may be missing with `has`"
                );
                checks.push(Check { rule: rule.id.clone(), passed: false, detail });
            } else if rule.forbids {
                // One that forbids determines an answer only where the answer is no.
                let refuses = determining.contains(&rule.id.as_str());
                checks.push(Check {
                    rule: rule.id.clone(),
                    passed: !refuses,
                    detail: rule.detail(refuses, facts),
                });
            }
        }
        if !allowed && checks.iter().all(|check| check.passed) {
            checks.push(self.not_permitted(action, facts));
        }
        floor(action, facts, &mut checks);
        Decision { allowed: checks.iter().all(|check| check.passed), checks }
    }

    /// No rule forbids, and none permits either.
    fn not_permitted(&self, action: Action, facts: &Facts) -> Check {
        let permits = self.rules.iter().filter(|rule| !rule.forbids && rule.actions.contains(&action));
        let advice: Vec<String> = permits.map(|rule| rule.detail(true, facts)).collect();
        let detail = match advice.as_slice() {
            [] => format!("no rule of the policy permits `{action}`; add a `permit` for it"),
            advice => format!("no `permit` covers it: {}", advice.join("; ")),
        };
        Check { rule: "permitted".to_owned(), passed: false, detail }
    }
}

/// What no policy can allow.
fn floor(action: Action, facts: &Facts, checks: &mut Vec<Check>) {
    let mut refuse = |rule: &str, detail: String| {
        if !checks.iter().any(|check| check.rule == rule && !check.passed) {
            checks.retain(|check| check.rule != rule);
            checks.push(Check { rule: rule.to_owned(), passed: false, detail });
        }
    };
    if !facts.releasable() {
        let text = "releasable to {releasable-to}, not to {nation}; ask {producer} for a release that names {nation}";
        refuse("releasable-to-us", sight::say(text, facts));
    }
    if facts.binding_recall().is_some() {
        refuse(super::RULE_RECALLED, sight::say("{recall}; move to a release that is not recalled", facts));
    }
    if action != Action::Release && facts.signed_by.len() < facts.threshold {
        let text = "signed by {signers} of the {threshold} required release keys of {producer}: {signed-by}";
        refuse("signatures", sight::say(text, facts));
    }
}

impl Rule {
    /// What it says.
    fn detail(&self, refuses: bool, facts: &Facts) -> String {
        if !refuses {
            return self
                .passed
                .as_ref()
                .map_or_else(|| "satisfied".to_owned(), |text| sight::say(text, facts));
        }
        let sentences = [&self.reason, &self.advice].into_iter().flatten();
        let said: Vec<String> = sentences.map(|text| sight::say(text, facts)).collect();
        if said.is_empty() { self.id.clone() } else { said.join("; ") }
    }
}

type Defect = (usize, String, Option<String>);

/// Reads one rule's annotations and scope.
fn read(policy: &cedar_policy::Policy, file: &str, places: &mut Places<'_>) -> Result<Rule, Defect> {
    let at = places.next();
    let defect = |message: String, help: &str| (at, message, (!help.is_empty()).then(|| help.to_owned()));
    let Some(id) = policy.annotation("id") else {
        return Err(defect("a rule without a name".to_owned(), "write @id(\"its-name\") before it"));
    };
    let fits = (1..=MAX_ID).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !fits {
        let rule = format!("at most {MAX_ID} lowercase letters, digits and `-`");
        return Err(defect(format!("`{}` is no rule's name", crate::shorten(id)), &rule));
    }
    for (key, text) in policy.annotations() {
        if !["id", "passed", "reason", "advice"].contains(&key) {
            let help = "@id, @passed, @reason and @advice are known";
            return Err(defect(format!("`{id}` has the unknown annotation @{}", crate::shorten(key)), help));
        }
        if text.len() > MAX_SENTENCE || text.chars().any(char::is_control) {
            let help = format!("one line of at most {MAX_SENTENCE} bytes");
            return Err(defect(format!("@{key} of `{id}` does not fit"), &help));
        }
        if let Err(why) = sight::parts(text) {
            return Err(defect(format!("@{key} of `{id}` has {why}"), ""));
        }
    }
    let said = |key: &str| policy.annotation(key).map(str::to_owned).filter(|text| !text.trim().is_empty());
    let forbids = policy.effect() == Effect::Forbid;
    if forbids && (said("reason").is_none() || said("advice").is_none()) {
        let help = "a refusal says what was seen and what would satisfy it: @reason(\"…\") @advice(\"…\")";
        return Err(defect(format!("`{id}` forbids without saying why"), help));
    }
    Ok(Rule {
        id: id.to_owned(),
        forbids,
        actions: actions(policy.action_constraint()).map_err(|name| {
            defect(format!("`{name}` is no action"), "admit, mirror, serve and release are")
        })?,
        passed: said("passed"),
        reason: said("reason"),
        advice: said("advice"),
        place: (file.to_owned(), places.line(at)),
    })
}

/// The actions of a rule's scope; else the name of one that is none.
fn actions(constraint: ActionConstraint) -> Result<Vec<Action>, String> {
    let uids = match constraint {
        ActionConstraint::Any => return Ok(Action::ALL.to_vec()),
        ActionConstraint::In(uids) => uids,
        ActionConstraint::Eq(uid) => vec![uid],
    };
    let named = uids.iter().map(|uid| {
        let name: &str = uid.id().unescaped();
        name.parse::<Action>().map_err(|_| crate::shorten(name))
    });
    named.collect()
}

/// The parser names rules `policy0`, `policy1`, … in the order of the file.
fn number(id: &PolicyId) -> usize {
    let text: &str = id.as_ref();
    text.strip_prefix("policy").and_then(|digits| digits.parse().ok()).unwrap_or(usize::MAX)
}

/// Where the rules of a text begin, told by the words `permit` and `forbid` outside of comments and strings.
struct Places<'a> {
    text: &'a str,
    starts: std::vec::IntoIter<usize>,
    /// Where a rule begins that is longer than any may be.
    overlong: Option<usize>,
}

impl<'a> Places<'a> {
    fn of(text: &'a str) -> Self {
        let mut starts = Vec::new();
        let (mut begin, mut quoted, mut word, mut at) = (None, false, false, 0);
        let (mut tokens, mut overlong) = (0, None);
        let bytes = text.as_bytes();
        while let Some(byte) = bytes.get(at) {
            let rest = bytes.get(at..).unwrap_or_default();
            let within = std::mem::replace(&mut word, byte.is_ascii_alphanumeric() || *byte == b'_');
            match byte {
                b'\\' if quoted => at += 1,
                b'"' => quoted = !quoted,
                _ if quoted => {}
                b'/' if rest.starts_with(b"//") => {
                    at += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
                    continue;
                }
                b';' => {
                    starts.extend(begin.take());
                    tokens = 0;
                }
                byte if byte.is_ascii_whitespace() => {}
                byte => {
                    let begin = *begin.get_or_insert(at);
                    // Commas and colons hold lists and names together; nothing nests by them.
                    tokens += usize::from(!(within && word || matches!(byte, b',' | b':')));
                    if tokens > MAX_TOKENS {
                        overlong.get_or_insert(begin);
                    }
                }
            }
            at += 1;
        }
        Self { text, starts: starts.into_iter(), overlong }
    }

    /// Where the next rule begins.
    fn next(&mut self) -> usize {
        self.starts.next().unwrap_or(0)
    }

    fn line(&self, offset: usize) -> usize {
        self.text.get(..offset).unwrap_or_default().matches('\n').count() + 1
    }

    /// Where the rule's name stands.
    fn offset_of(&self, id: &str) -> usize {
        self.text.find(&format!("\"{id}\"")).unwrap_or(0)
    }
}
