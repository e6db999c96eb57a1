//! What a node and its worker say to each other over the worker's standard input and output, one JSON object a line.
//!
//! The input is a socket. First come the descriptors of everything that the worker will ever read or listen on
//! ([`hand`]), then a [`Launch`], and each later line is an [`Order`]; the end of its input means that the node is gone, and
//! the worker stops. Each line from the worker is a [`Report`]. A worker is not trusted: whatever it reports is bounded and
//! taken as its claim.

pub mod hand;
mod wall;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use hand::Handed;
pub use wall::{Attempt, MAX_ATTEMPTS, Wall, WallError, WallReport};

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
    /// The files whose descriptors came before this line, in that order, after that of the listener.
    pub handed: Vec<Handed>,
    /// How to run.
    pub options: Options,
    /// Walls that the operator does without where they can't be had.
    #[serde(default)]
    pub allow_missing: Vec<Wall>,
    /// How often the weights are hashed again while they are served.
    #[serde(default)]
    pub rehash: Rehash,
    /// When to stop by itself, unless it is told of a later end; nothing where no lease is needed.
    #[serde(default)]
    pub lease: Option<LeaseEnd>,
    /// Who may ask.
    #[serde(default)]
    pub access: Access,
    /// Whether it takes no connection before it is ready: another worker serves at the listener until then.
    #[serde(default)]
    pub quiet: bool,
    /// The machine's vLLM, where the operator named one. Never part of a request: it says which program runs.
    #[serde(default)]
    pub vllm: Option<Vllm>,
    /// Adapters that go with it: a request chooses the model itself or one of them.
    #[serde(default)]
    pub adapters: Vec<Adapter>,
}

/// An adapter: a release of its own, whose weights change what the model computes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Adapter {
    /// The release.
    pub admitted: Handoff,
    /// Its files whose descriptors came, behind those of the model and of the adapters before it.
    pub handed: Vec<Handed>,
}

impl Launch {
    /// Whether files were handed in whose bytes are still coming.
    pub fn is_growing(&self) -> bool {
        self.handed.iter().any(|handed| handed.growing)
    }
}

/// A vLLM that is installed on this machine, for models that one GPU can't hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vllm {
    /// Its program, such as `/opt/vllm/bin/vllm`.
    pub program: PathBuf,
    /// GPUs that share each layer.
    #[serde(default = "one")]
    pub tensor_parallel: u32,
    /// Groups of GPUs that have some layers each.
    #[serde(default = "one")]
    pub pipeline_parallel: u32,
    /// Have Ray start its processes, instead of vLLM itself.
    #[serde(default)]
    pub ray: bool,
    /// Further words of its command line, such as `--gpu-memory-utilization=0.8`.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Its environment beside what the worker sets: names that begin with `VLLM_`, `CUDA_`, `NCCL_`, `RAY_`, `OMP_` or
    /// `TORCH`.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Folders that it reads beside its own and the system's, such as that of its Python.
    #[serde(default)]
    pub read: Vec<PathBuf>,
}

fn one() -> u32 {
    1
}

impl Vllm {
    /// Most GPUs that share the work of one machine: beyond any that is built.
    pub const MAX_GPUS: u32 = 64;
    /// Beginnings of the names that may be set in its environment: how it computes, not where it looks for programs.
    pub const ENVIRONMENT: [&str; 6] = ["VLLM_", "CUDA_", "NCCL_", "RAY_", "OMP_", "TORCH"];
    /// Words of its command line that would undo what the worker sees to: which files are served, under which name, where it
    /// listens, and that no code of the release runs.
    pub const FORBIDDEN: [&str; 8] = [
        "--trust-remote-code",
        "--model",
        "--served-model-name",
        "--host",
        "--port",
        "--uds",
        "--download-dir",
        "--config",
    ];

    /// GPUs that it computes on.
    pub fn gpus(&self) -> u32 {
        self.tensor_parallel.saturating_mul(self.pipeline_parallel)
    }

    /// What is wrong with these settings, for people.
    pub fn check(&self) -> Result<(), String> {
        if !self.program.is_absolute() || self.read.iter().any(|folder| !folder.is_absolute()) {
            return Err("`program` and each of `read` are whole paths, from /".to_owned());
        }
        if self.tensor_parallel == 0 || self.pipeline_parallel == 0 || self.gpus() > Self::MAX_GPUS {
            return Err(format!(
                "`tensor_parallel` times `pipeline_parallel` is between 1 and {}",
                Self::MAX_GPUS
            ));
        }
        let name = |word: &str| word.split('=').next().unwrap_or_default().replace('_', "-");
        if let Some(word) = self.arguments.iter().find(|word| Self::FORBIDDEN.contains(&name(word).as_str()))
        {
            return Err(format!("`{word}` is not for `arguments`: the worker decides that"));
        }
        let odd = |name: &&String| !Self::ENVIRONMENT.iter().any(|beginning| name.starts_with(beginning));
        if let Some(name) = self.environment.keys().find(odd) {
            return Err(format!(
                "`{name}` can't be set in `environment`: names begin with {}",
                Self::ENVIRONMENT.join(", ")
            ));
        }
        Ok(())
    }
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
    /// vLLM, for several GPUs: a program of the machine's, which the worker watches over.
    #[serde(rename = "vllm")]
    Vllm,
}

impl EngineName {
    /// Those that are part of this program, in the order in which they are considered.
    pub const EMBEDDED: [Self; 2] = [Self::LlamaCpp, Self::Candle];
    /// All of them.
    pub const ALL: [Self; 3] = [Self::LlamaCpp, Self::Candle, Self::Vllm];

    /// As people write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LlamaCpp => "llama.cpp",
            Self::Candle => "candle",
            Self::Vllm => "vllm",
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
        found.ok_or_else(|| format!("the engines are {}", Self::ALL.map(Self::as_str).join(", ")))
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
    /// Bytes of memory that it may need at most; by default what the machine has to give. One that takes another's place may
    /// need what that one leaves of them.
    pub memory: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: None,
            context: None,
            parallel: None,
            cache: None,
            max_requests: 64,
            engine: None,
            memory: None,
        }
    }
}

/// How often weights that are served are hashed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rehash {
    /// Seconds between two rounds; 0 for never.
    pub every_secs: u64,
    /// Most MiB read in a second, so that serving does not feel it.
    pub mib_per_sec: u32,
}

impl Default for Rehash {
    fn default() -> Self {
        Self { every_secs: 6 * 3600, mib_per_sec: 256 }
    }
}

/// Why a worker stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCode {
    /// The release was recalled.
    Recalled,
    /// A person or the node's shutdown asked for it.
    Requested,
    /// The lease ended: the allies were not heard for too long. It is started again when they are.
    LeaseEnded,
    /// The weights changed under it, or somebody opened them for writing.
    Damaged,
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
    /// These chunks of a file that was handed in as growing were written to it; the worker checks them itself.
    Here {
        /// The file's place among the release's files.
        file: usize,
        /// The first chunk of each run, and how many.
        runs: Vec<(u32, u32)>,
    },
    /// Every growing file that the worker asked for is whole, and the release may be served with what is in them: answer.
    /// A worker without growing files needs no such order.
    Answer,
    /// Another worker serves at the listener: take no more connections, end the requests that are under way, and stop.
    Drain {
        /// Why, for people.
        reason: String,
        /// After so many milliseconds, what is still under way is told the reason and cut off.
        limit_ms: u64,
    },
    /// An adapter may not be served any more: its requests end, and later ones are refused. The model and the other adapters go on.
    Withdraw {
        /// The adapter's release.
        release: Digest,
        /// Why.
        code: StopCode,
        /// Why, for people.
        reason: String,
    },
    /// Try to break out, and report every attempt.
    Prove(Proving),
    /// The receipt that was asked for.
    Receipt {
        /// Of which question.
        id: u64,
        /// Its text, or why there is none.
        receipt: Result<String, String>,
    },
}

/// What a worker asks its node to sign. The node takes the digests as the worker's word, and knows the rest itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signing {
    /// Comes back with the receipt.
    pub id: u64,
    /// BLAKE3 of the request's body.
    pub request: Digest,
    /// BLAKE3 of the response's body, without the receipt.
    pub response: Digest,
    /// Numbers of the request that choose tokens, by their names.
    pub sampling: BTreeMap<String, serde_json::Number>,
    /// The adapter that was computed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Digest>,
}

/// What a worker is to try its walls with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proving {
    /// Comes back with the report.
    pub id: u64,
    /// The node's process, which is attacked.
    pub node: u32,
    /// Addresses to connect to, besides one on this host.
    pub connect: Vec<SocketAddr>,
    /// Files that a worker has no business with, such as the node's keys; each is opened for reading.
    pub read: Vec<PathBuf>,
    /// A folder in which a file is made.
    pub write: PathBuf,
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
    /// It does not fit into this machine's memory.
    Memory,
    /// A wall of the worker's could not be built.
    Sealing,
    /// The launch line could not be understood.
    Protocol,
}

/// A line from a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// Its walls stand; nothing of the release was read yet.
    Sealed {
        /// The kernel's version.
        kernel: String,
        /// Every wall, also those that the operator does without.
        walls: Vec<WallReport>,
    },
    /// It asks for a receipt.
    Sign(Signing),
    /// It tried its walls.
    Proof {
        /// Of which order.
        id: u64,
        /// Every attempt.
        attempts: Vec<Attempt>,
    },
    /// Which of the growing files it computes on, by their places among the release's files, in the order of need.
    Wants {
        /// The files.
        files: Vec<usize>,
    },
    /// How busy it is, whenever that changed lately.
    Load {
        /// Requests that are being answered or wait.
        requests: u32,
    },
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
    /// It stopped, as ordered or by itself, and ends.
    Stopped {
        /// Why.
        code: StopCode,
        /// Why, for people.
        reason: String,
        /// Requests that were cut off.
        active_requests: u32,
    },
    /// How much memory the model needs, reckoned from its headers, before it is looked whether it fits.
    Needs {
        /// Weights, cache and what computing takes.
        bytes: u64,
    },
}
