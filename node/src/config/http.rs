//! Settings of the HTTP interface.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{ConfigError, shown};

/// The HTTP interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Where the read-only interface listens; empty for nowhere. Port 0 lets the system choose.
    pub listen: String,
    /// Names that a request's `Host` may have besides this machine's loopback names and `listen` itself.
    pub hosts: Vec<String>,
    /// Most connections at once; further ones wait, and those that nobody uses make room.
    pub max_connections: u32,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: "127.0.0.1:4800".to_owned(), hosts: Vec::new(), max_connections: 1024 }
    }
}

impl Http {
    /// Where to listen; `None` for nowhere.
    pub fn address(&self) -> Result<Option<SocketAddr>, ConfigError> {
        if self.listen.is_empty() {
            return Ok(None);
        }
        self.listen.parse().map(Some).map_err(|_| ConfigError::Value {
            setting: "http.listen",
            rule: format!("`{}` is not an address and port such as `127.0.0.1:4800`", shown(&self.listen)),
        })
    }
}
