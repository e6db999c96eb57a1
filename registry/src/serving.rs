//! What a node and its worker say to each other over the worker's standard input and output, one JSON object a line.
//!
//! The first line to the worker is a [`Launch`], each later one an [`Order`]; the end of its input means that the node
//! is gone, and the worker stops. Each line from the worker is a [`Report`].

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::admitted::Handoff;
use crate::digest::Digest;
use crate::lease::LeaseEnd;

/// Longest line either side reads, in bytes: a hand-off of a release with very many files fits.
pub const MAX_LINE: usize = 16 * 1024 * 1024;

/// The first line to a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launch {
    /// What to serve.
    pub admitted: Handoff,
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// How to run.
    pub options: Options,
    /// When to stop by itself, unless it is told of a later end; nothing where no lease is needed.
    #[serde(default)]
    pub lease: Option<LeaseEnd>,
    /// Who may ask.
    #[serde(default)]
    pub access: Access,
}

/// Who may ask a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    /// Whether anybody may, without a key.
    pub anonymous: bool,
    /// Keys with which one may.
    pub keys: Vec<ServeKey>,
}

impl Default for Access {
    /// Anybody: what a worker on loopback does.
    fn default() -> Self {
        Self { anonymous: true, keys: Vec::new() }
    }
}

/// An API key, as its checker knows it: the key itself is nowhere but with whoever uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServeKey {
    /// Tells keys apart; never given twice.
    pub id: u32,
    /// Whose it is, for people.
    pub name: String,
    /// The key's BLAKE3.
    pub hash: Digest,
}

/// An engine, as people name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineName {
    /// llama.cpp, for GGUF.
    #[serde(rename = "llama.cpp")]
    LlamaCpp,
    /// candle, for safetensors.
    #[serde(rename = "candle")]
    Candle,
}

impl EngineName {
    /// All of them, in the order in which they are considered.
    pub const ALL: [Self; 2] = [Self::LlamaCpp, Self::Candle];

    /// As people write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LlamaCpp => "llama.cpp",
            Self::Candle => "candle",
        }
    }
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EngineName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|engine| engine.as_str() == text);
        found.ok_or_else(|| format!("the engines are {}", Self::ALL.map(Self::as_str).join(" and ")))
    }
}

/// How a worker runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Compute threads; by default one fewer than the cores, at least one.
    pub threads: Option<u32>,
    /// Tokens of context; by default the model's own, up to a limit of the worker's.
    pub context: Option<u32>,
    /// Requests computed at once; by default 8.
    pub parallel: Option<u32>,
    /// Tokens that all requests and the beginnings kept of ended ones may have together; by default, and at least, the
    /// context.
    pub cache: Option<u32>,
    /// Requests running or waiting at once; one more is answered 503.
    pub max_requests: u32,
    /// The engine that must be taken; by default the first that can.
    pub engine: Option<EngineName>,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads: None, context: None, parallel: None, cache: None, max_requests: 64, engine: None }
    }
}

/// Why a worker is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCode {
    /// The release was recalled.
    Recalled,
    /// A person or the node's shutdown asked for it.
    Requested,
    /// The lease ended: the allies were not heard for too long. It is started again when they are.
    LeaseEnded,
}

/// A later line to a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Stop serving now.
    Stop {
        /// Why.
        code: StopCode,
        /// Why, for people; running requests are answered with it.
        reason: String,
    },
    /// The lease was renewed: its end is this one now. One that has ended already is not renewed.
    Lease(LeaseEnd),
    /// Other keys from now on.
    Access(Access),
}

/// Why a worker could not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailCode {
    /// A blob's bytes are not those that were admitted.
    HashMismatch,
    /// A blob can't be read.
    Unreadable,
    /// No engine serves this format.
    UnsupportedFormat,
    /// The engine refused the model.
    Engine,
    /// The address can't be listened on.
    Listen,
    /// The launch line could not be understood.
    Protocol,
}

/// A line from a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// Hashing the blobs.
    Verifying {
        /// Bytes hashed.
        bytes_done: u64,
        /// Bytes in all.
        bytes_total: u64,
    },
    /// The engine loads.
    Loading {
        /// Such as `llama.cpp`.
        engine: String,
    },
    /// It serves.
    Ready {
        /// Where.
        address: SocketAddr,
        /// The name that `/v1/models` shows.
        model: String,
        /// The release.
        release: Digest,
        /// The engine.
        engine: String,
        /// Milliseconds that loading took, hashing excluded.
        load_ms: u64,
        /// Milliseconds that hashing took.
        verify_ms: u64,
    },
    /// It could not start, and ends.
    Failed {
        /// Why.
        code: FailCode,
        /// Why and what to do, for people.
        message: String,
    },
    /// It stopped as ordered, and ends.
    Stopped {
        /// Why.
        code: StopCode,
        /// Why, for people.
        reason: String,
        /// Requests that were cut off.
        active_requests: u32,
    },
}
