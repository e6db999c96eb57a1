//! Settings of signing in by OpenID Connect.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::oidc::is_safe;
use crate::tokens::Scope;

/// Most groups that are given something.
const MAX_GROUPS: usize = 256;
/// Longest text among these settings.
const MAX_TEXT: usize = 512;
/// Longest life of a session, in hours: who leaves a group is out within a month at the latest.
const MAX_HOURS: u32 = 720;

/// People who sign in at an issuer instead of being given a token by the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Oidc {
    /// The issuer, exactly as it calls itself; empty for none.
    pub issuer: String,
    /// What this node is called there: a public client with `http://127.0.0.1` as its redirect, on any port.
    pub client_id: String,
    /// Whom an ID token must be for; empty for `client_id`.
    pub audience: String,
    /// What a person's token is asked for at the issuer.
    pub scopes: Vec<String>,
    /// The claim that holds a person's groups; `a.b` for `b` within `a`.
    pub groups_claim: String,
    /// Hours for which a session lasts.
    pub hours: u32,
    /// What each group may do here: `read`, `stage` or `admin`. Whoever is in none of them gets no token. Last, since it
    /// is a table of its own.
    pub groups: BTreeMap<String, Scope>,
}

impl Default for Oidc {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            client_id: String::new(),
            audience: String::new(),
            scopes: vec!["openid".to_owned(), "profile".to_owned()],
            groups_claim: "groups".to_owned(),
            groups: BTreeMap::new(),
            hours: 12,
        }
    }
}

impl Oidc {
    /// Whether people may sign in.
    pub fn enabled(&self) -> bool {
        !self.issuer.is_empty()
    }

    /// Whom an ID token must be for.
    pub fn audience(&self) -> &str {
        if self.audience.is_empty() { &self.client_id } else { &self.audience }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |setting, rule: &str| Err(ConfigError::Value { setting, rule: rule.to_owned() });
        if !self.enabled() {
            return Ok(());
        }
        let fits =
            |text: &String| (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control);
        if !fits(&self.issuer) || !is_safe(&self.issuer) || self.issuer.contains(['?', '#']) {
            return wrong(
                "oidc.issuer",
                "an issuer is an https address without a query; plain HTTP is for this machine alone",
            );
        }
        if !fits(&self.client_id) {
            return wrong("oidc.client_id", "name what the issuer calls this node");
        }
        if !fits(&self.groups_claim) {
            return wrong("oidc.groups_claim", "name the claim that holds a person's groups");
        }
        if self.groups.is_empty() || self.groups.len() > MAX_GROUPS || !self.groups.keys().all(fits) {
            return wrong("oidc.groups", "name 1 to 256 groups, such as { \"ml-team\" = \"read\" }");
        }
        let plain = |scope: &String| fits(scope) && !scope.contains(char::is_whitespace);
        if self.scopes.len() > MAX_GROUPS
            || !self.scopes.iter().all(plain)
            || !self.scopes.iter().any(|one| one == "openid")
        {
            return wrong("oidc.scopes", "the scopes are words, and `openid` is among them");
        }
        if !(1..=MAX_HOURS).contains(&self.hours) {
            return wrong("oidc.hours", "a session lasts 1 to 720 hours");
        }
        Ok(())
    }
}
