//! Nations' logs, as people are shown them.

use std::collections::BTreeSet;

use registry::log::Logged;
use registry::statement::Kind;
use registry::{Digest, Nation, Timestamp};
use serde::{Deserialize, Serialize};

/// One nation's log, as this node has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogInfo {
    /// Whose.
    pub nation: Nation,
    /// Whether it is this node's own nation's.
    pub own: bool,
    /// Entries.
    pub size: u64,
    /// The tree's root hash in base64, as it stands in the checkpoint; none before the first entry.
    pub root: Option<String>,
    /// The nations that cosigned the newest checkpoint, its own never among them.
    pub witnesses: BTreeSet<Nation>,
    /// Since when as many nations as the policy asks for had cosigned it; nothing while fewer have.
    pub witnessed: Option<Timestamp>,
    /// Whether evidence is held against it: nothing more of it is accepted.
    pub disputed: bool,
}

/// `GET /v1/log`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatus {
    /// Every log known here, the own one first.
    pub logs: Vec<LogInfo>,
    /// Whether this node appends to its nation's log: it holds the key.
    pub appends: bool,
    /// Whether it cosigns allies' logs.
    pub witness: bool,
    /// Statements of the own nation that wait to be logged.
    pub pending: u64,
    /// Why they wait, for people.
    pub waiting: Option<String>,
    /// The size of the own log that an ally knows, where that is more than this node knows.
    pub behind: Option<u64>,
    /// What an operator should look at, for people.
    pub problems: Vec<String>,
}

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its number; the first is 0.
    pub index: u64,
    /// The statement's digest.
    pub digest: Digest,
    /// What it is, where it is known here.
    pub kind: Option<Kind>,
    /// What it says in a few words, where it is known here.
    pub about: Option<String>,
    /// When it was signed, where it is known here.
    pub issued: Option<Timestamp>,
}

/// `GET /v1/log/{nation}/entries`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPage {
    /// Whose log.
    pub nation: Nation,
    /// Its size.
    pub size: u64,
    /// The entries asked for.
    pub entries: Vec<LogEntry>,
}

/// `GET /v1/log/monitor`: what was signed in our name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitored {
    /// Our nation.
    pub nation: Nation,
    /// The size of our log, as this node has it.
    pub size: u64,
    /// Every entry of it.
    pub entries: Vec<LogEntry>,
    /// Numbers of entries whose statements nobody here knows.
    pub unknown: Vec<u64>,
    /// Statements signed in our name that the log lacks.
    pub unlogged: Vec<Unlogged>,
    /// Statements signed in our name that another nation's node brought first.
    pub elsewhere: Vec<Digest>,
}

/// A statement that the log lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlogged {
    /// The statement.
    pub digest: Digest,
    /// What it is.
    pub kind: Option<Kind>,
    /// What it says in a few words.
    pub about: Option<String>,
    /// When it was signed.
    pub issued: Option<Timestamp>,
}

/// `GET /v1/log/place/{digest}`: a statement's place in its nation's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlace {
    /// The statement.
    pub digest: Digest,
    /// Whose log it belongs into.
    pub nation: Nation,
    /// What is proved of its place; nothing while it waits.
    pub logged: Option<Logged>,
    /// Why it waits, for people.
    pub waiting: Option<String>,
    /// Allies that could still cosign: pinned, connected, and not among the witnesses.
    pub expected: Vec<Nation>,
}

/// `POST /v1/log/recover`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecovered {
    /// Our nation.
    pub nation: Nation,
    /// Entries before.
    pub from: u64,
    /// Entries after.
    pub to: u64,
    /// Peers that were asked.
    pub asked: usize,
}

/// One piece of evidence that is kept here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceEntry {
    /// The name of its file in the store's folder `evidence`.
    pub name: String,
    /// Whose log it is against.
    pub nation: Nation,
    /// What it proves, in a sentence.
    pub summary: String,
    /// Where the file lies.
    pub path: String,
}

/// `POST /v1/log/evidence`: what evidence proves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examined {
    /// Whose log lied.
    pub nation: Nation,
    /// About how many of its first entries.
    pub size: u64,
    /// The root hash that one checkpoint signs for them, in base64.
    pub one: String,
    /// The one that the other checkpoint commits to.
    pub other: String,
}

impl From<registry::log::evidence::Fork> for Examined {
    fn from(fork: registry::log::evidence::Fork) -> Self {
        let text = |hash: &[u8; 32]| data_encoding::BASE64.encode(hash);
        Self { nation: fork.nation, size: fork.size, one: text(&fork.one), other: text(&fork.other) }
    }
}
