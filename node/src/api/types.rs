//! The JSON that the HTTP interface takes and gives, shared with the command line.

mod attach;
mod catalogue;
mod jobs;
mod log;
mod mirror;
mod oidc;
mod policy;
mod pools;
mod staged;
mod status;
mod tokens;

pub use self::attach::*;
pub use self::catalogue::*;
pub use self::jobs::*;
pub use self::log::*;
pub use self::mirror::*;
pub use self::oidc::*;
pub use self::policy::*;
pub use self::pools::*;
pub use self::staged::*;
pub use self::status::*;
pub use self::tokens::*;
pub use registry::store::{GcReason, GcRelease};

pub use crate::error::{Code, Problem};
pub use crate::events::{
    AdapterInfo, Direction, Event, PeerInfo, PeerShare, PeerState, StopCause, TransferInfo, TransferState,
    WorkerInfo, WorkerState, WorkerStop,
};
pub use crate::lease::{Heard, Status as LeaseStatus};
pub use crate::reach::{Reach, Reachability, RelayInfo, RelayState, Relaying};
