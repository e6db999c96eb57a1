//! Several models behind one address, over the interface.

use registry::serving::{Options, Wall};
use serde::{Deserialize, Serialize};

pub use crate::serving::pool::{MemberState, PoolInfo, PoolMember};

/// `POST /v1/pools`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolRequest {
    /// What to serve.
    pub references: Vec<String>,
    /// Where to listen; the settings' default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Bytes of memory that the models may need together; what the machine has to give, less a tenth, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Seconds after which a model that nobody asks for is unloaded; never if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_secs: Option<u64>,
    /// Whether nothing is loaded before somebody asks for it.
    #[serde(default)]
    pub on_demand: bool,
    /// How to run each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Options>,
    /// Walls that the workers may do without, besides those of the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_missing: Vec<Wall>,
    /// Whether each reference is a channel that is followed.
    #[serde(default)]
    pub follow: bool,
}

/// `POST /v1/pools/{id}/models`, `/load` and `/unload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolModelRequest {
    /// A release, or a model of the pool.
    pub reference: String,
}
