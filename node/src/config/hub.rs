//! Settings of the hub interface.

use serde::{Deserialize, Serialize};

/// The Hugging Face Hub's interface, on the HTTP interface's port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hub {
    /// Whether it is there.
    pub enabled: bool,
    /// Whether models are given to those who show no token.
    pub anonymous: bool,
    /// Whether what is known but not here is fetched from allies when somebody reads it.
    pub pull_through: bool,
    /// Most releases fetched at once because somebody reads them.
    pub max_pulls: u32,
    /// Seconds for which a reader waits for the next bytes of what is being fetched before it is cut off.
    pub wait_secs: u64,
    /// Requests a minute, and at once, from each address and with each token; 0 for no limit.
    pub requests_per_minute: u32,
    /// Whether tokens of scope `stage` push into the staging area.
    pub push: bool,
    /// GiB that the staging area holds at most.
    pub staging_gib: u64,
    /// Days after which what was pushed and not published goes.
    pub staging_days: u32,
}

impl Hub {
    /// Each number, with the least and the most that it may be.
    pub(super) fn ranges(&self) -> [(&'static str, u64, u64, u64); 5] {
        [
            ("hub.max_pulls", self.max_pulls.into(), 1, 64),
            ("hub.wait_secs", self.wait_secs, 1, 3_600),
            ("hub.requests_per_minute", self.requests_per_minute.into(), 0, 10_000_000),
            ("hub.staging_gib", self.staging_gib, 1, 1 << 20),
            ("hub.staging_days", self.staging_days.into(), 1, 3_650),
        ]
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            enabled: true,
            anonymous: true,
            pull_through: true,
            max_pulls: 4,
            wait_secs: 60,
            // A snapshot of the largest models takes two requests for each of some hundred files.
            requests_per_minute: 6000,
            push: true,
            // Two of the largest open models, each as it was sent and as it was put together.
            staging_gib: 512,
            // Clients remember for three weeks what they sent.
            staging_days: 30,
        }
    }
}
