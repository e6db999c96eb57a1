//! Tokens of the hub interface.

use serde::{Deserialize, Serialize};

pub use crate::tokens::{Scope, TokenEntry};

/// `POST /v1/tokens`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// What it is called.
    pub name: String,
    /// What it is for.
    pub scope: Scope,
    /// Days until it ends; for ever where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
}

/// A token, for the only time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenMade {
    /// The token itself.
    pub token: String,
    /// What is kept of it.
    pub entry: TokenEntry,
}
