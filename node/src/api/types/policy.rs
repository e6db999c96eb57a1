//! The policy in force, and why it decides as it does.

use registry::policy::{Action, Decision, Facts, PolicyProblem};
use registry::{Digest, Model, Nation, Version};
use serde::{Deserialize, Serialize};

/// `GET /v1/policy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// What tells this policy from others.
    pub digest: Digest,
    /// How many other nations must have witnessed what is admitted.
    pub witnesses: u32,
    /// The texts, in the order in which they hold.
    pub texts: Vec<PolicyText>,
    /// The rules, in the order of the texts.
    pub rules: Vec<PolicyRule>,
    /// Why the policy file as it is now can't be loaded; what is shown here is the policy before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One text of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyText {
    /// The file.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// One rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// Its name.
    pub rule: String,
    /// Whether it forbids; else it permits.
    pub forbids: bool,
    /// What it is about.
    pub actions: Vec<Action>,
    /// The file where it stands.
    pub file: String,
    /// Its line there.
    pub line: usize,
    /// What would satisfy it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// `GET /v1/policy/explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The release.
    pub release: Digest,
    /// Its model.
    pub model: Model,
    /// Its version.
    pub version: Version,
    /// What is decided about.
    pub action: Action,
    /// The nation that would get it.
    pub nation: Nation,
    /// Every rule's answer.
    pub decision: Decision,
    /// The rules that answered, with where they stand; those that are built in stand nowhere.
    pub rules: Vec<PolicyRule>,
    /// What they saw.
    pub evidence: Facts,
}

/// `POST /v1/policy/check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyCheckRequest {
    /// The file's name, for messages.
    #[serde(default)]
    pub name: String,
    /// Its text.
    pub text: String,
    /// Whether the shipped rules hold beside it; left out, as the settings say.
    #[serde(default)]
    pub shipped: Option<bool>,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChecked {
    /// The file's name.
    pub name: String,
    /// Whether it can be loaded.
    pub sound: bool,
    /// How many rules hold then, the shipped ones included.
    pub rules: usize,
    /// What is wrong.
    pub problems: Vec<PolicyProblem>,
}

/// `GET /v1/releases/{digest}/card`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Path of the model card in the release.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// Its text, without control characters.
    pub text: String,
    /// Whether the text is cut.
    pub truncated: bool,
}
