//! Mirroring: what the rules keep, want and refuse.

use registry::{Digest, Model, Timestamp, Version};
use serde::{Deserialize, Serialize};

pub use crate::mirror::decide::State as MirrorState;

/// `GET /v1/mirror`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorStatus {
    /// The rules, in their order.
    pub rules: Vec<MirrorRule>,
    /// Bytes that all rules may keep together; `null` without a limit.
    pub budget: Option<u64>,
    /// Bytes that they keep or are about to.
    pub used: u64,
    /// Most releases fetched at once.
    pub pulls: u32,
    /// Every release that a rule wants or brought.
    pub releases: Vec<MirrorEntry>,
    /// How many more there are than are listed.
    pub more: usize,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorRule {
    /// Its name.
    pub name: String,
    /// What it wants, for people.
    pub wants: String,
    /// Largest release that it fetches, in bytes; `null` without a limit.
    pub max_release: Option<u64>,
    /// Bytes that it may keep; `null` without a limit.
    pub budget: Option<u64>,
    /// Bytes that it keeps or is about to.
    pub used: u64,
    /// Releases that are here.
    pub keeps: usize,
    /// Releases being fetched, or waiting to be.
    pub fetches: usize,
    /// Releases that something forbids, and those that are let go.
    pub refuses: usize,
}

/// One release that a rule wants or brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorEntry {
    /// The release.
    pub release: Digest,
    /// Its model.
    pub model: Model,
    /// Its version.
    pub version: Version,
    /// Bytes of all its files.
    pub size: u64,
    /// The rule that wants it; `null` when none does any more.
    pub rule: Option<String>,
    /// What becomes of it.
    pub state: MirrorState,
    /// Why, for people.
    pub reason: String,
    /// When the next attempt is made, where one failed.
    pub again: Option<Timestamp>,
}
