//! Signing in by OpenID Connect.

use serde::{Deserialize, Serialize};

/// `GET /v1/oidc`: where people sign in, for one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignInAt {
    /// The issuer, exactly as it calls itself.
    pub issuer: String,
    /// What this node is called there.
    pub client_id: String,
    /// What is asked for at the issuer.
    pub scopes: Vec<String>,
    /// The nonce that the ID token must carry; good once and for ten minutes.
    pub nonce: String,
}

/// `POST /v1/oidc/token`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignInWith {
    /// The ID token, as the issuer gave it.
    pub id_token: String,
}
