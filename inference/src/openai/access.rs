//! Who may ask: whoever has a key, and anybody where that is allowed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use registry::digest::Digest;
use registry::serving::{Access, ServeKey};

use super::error::ApiError;
use super::{App, fields};
use crate::engine::{Caller, PushError};

/// The header that says how many seconds a request may take; a field `timeout` of the body goes before it.
const TIMEOUT_HEADER: &str = "x-request-timeout";

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

/// How many requests each key has at the moment.
type ByKey = Arc<Mutex<HashMap<u32, usize>>>;

/// Counts a request for as long as it is answered.
pub(super) struct Active {
    all: Arc<AtomicU32>,
    key: Option<(u32, ByKey)>,
}

impl Drop for Active {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
        if let Some((key, by_key)) = &self.key {
            let mut by_key = by_key.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = by_key.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    by_key.remove(key);
                }
            }
        }
    }
}

/// Who asks, and until when the answer is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) caller: Caller,
    pub(super) deadline: Instant,
}

impl Asked {
    /// With the time that the body asks for, if it does.
    pub(super) fn within(self, timeout: Option<Duration>, begun: Instant) -> Self {
        Self { deadline: timeout.map_or(self.deadline, |timeout| begun + timeout), ..self }
    }
}

impl FromRequestParts<App> for Asked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let connection = parts.extensions.get::<Connection>().copied().unwrap_or(Connection(0));
        let caller = app.0.gatekeeper.caller(&parts.headers, connection)?;
        let header = parts.headers.get(TIMEOUT_HEADER).map(|value| value.to_str().unwrap_or_default());
        let timeout = match header {
            None => fields::MAX_TIME,
            Some(seconds) => fields::within(seconds.trim().parse().unwrap_or(0.0))?,
        };
        Ok(Self { caller, deadline: Instant::now() + timeout })
    }
}

impl App {
    /// Counts a request, unless there are too many already.
    pub(super) fn enter(&self, caller: Caller) -> Result<Arc<Active>, ApiError> {
        let before = self.0.active.fetch_add(1, Ordering::Relaxed);
        let mut active = Active { all: Arc::clone(&self.0.active), key: None };
        let limit = self.0.queue.limit();
        if usize::try_from(before).is_ok_and(|before| before >= limit) {
            self.0.queue.metrics().refused();
            return Err(ApiError::refused(&PushError::Full { limit }, self.model()));
        }
        if let Caller::Key(key) = caller {
            // A quarter of the places is always left to others.
            let share = limit.saturating_sub(limit / 4).max(1);
            let mut by_key = self.0.by_key.lock().unwrap_or_else(PoisonError::into_inner);
            let count = by_key.entry(key).or_default();
            if *count >= share {
                self.0.queue.metrics().refused();
                return Err(ApiError::greedy(share));
            }
            *count += 1;
            active.key = Some((key, Arc::clone(&self.0.by_key)));
        }
        Ok(Arc::new(active))
    }
}
