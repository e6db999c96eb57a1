//! Who may ask: whoever has a key, and anybody where that is allowed.

use std::sync::{PoisonError, RwLock};

use axum::http::{HeaderMap, header};
use registry::digest::Digest;
use registry::serving::{Access, ServeKey};

use super::error::ApiError;
use crate::engine::Caller;

/// The connection that a request came on.
#[derive(Debug, Clone, Copy)]
pub struct Connection(pub u64);

/// The keys, as they are now.
#[derive(Debug)]
pub(super) struct Gatekeeper(RwLock<Access>);

impl Gatekeeper {
    pub(super) fn new(access: Access) -> Self {
        Self(RwLock::new(access))
    }

    /// Other keys from now on.
    pub(super) fn change(&self, access: Access) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = access;
    }

    /// On whose account a request with these headers is.
    pub(super) fn caller(&self, headers: &HeaderMap, connection: Connection) -> Result<Caller, ApiError> {
        let access = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token =
            given.and_then(|given| given.strip_prefix("Bearer ")).map(str::trim).filter(|t| !t.is_empty());
        let found = token.and_then(|token| {
            // Compared are hashes, so that the time that it takes tells nothing of the keys.
            let hash = Digest::of(token.as_bytes());
            access.keys.iter().find(|key: &&ServeKey| key.hash == hash)
        });
        match (found, token) {
            (Some(key), _) => Ok(Caller::Key(key.id)),
            // Clients insist on some key; where none is needed any will do.
            (None, _) if access.anonymous => Ok(Caller::Connection(connection.0)),
            (None, None) => Err(ApiError::no_key()),
            (None, Some(_)) => Err(ApiError::wrong_key()),
        }
    }
}
