//! Why a worker could not be started or stopped.

use std::net::SocketAddr;

use registry::Digest;

/// Why a worker could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// As many as the settings allow.
    #[error("{0} workers run already, the limit of `worker.max_workers`; stop one first")]
    TooMany(usize),
    /// It may not be served.
    #[error(transparent)]
    Admit(#[from] registry::admit::AdmitError),
    /// The process could not be started.
    #[error("the worker `{program}` can't be started: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The address can't be listened on.
    #[error("can't listen on {address}: {source}. Choose another address or port with `--listen`")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Too few allies were heard.
    #[error("{0}")]
    Lease(String),
    /// It does not serve at the moment.
    #[error("worker {0} is not ready; `steelyard status` shows how far it is")]
    NotReady(u64),
    /// It is trying its walls for somebody else.
    #[error("worker {0} is trying its walls already; ask again when it has")]
    Proving(u64),
    /// It did not answer.
    #[error("worker {0} did not report on its walls, so nothing is proved; the node's log may say why")]
    Unproved(u64),
    /// No such worker.
    #[error("there is no worker {0}")]
    NotFound(u64),
    /// It is what is served already.
    #[error("worker {0} serves that release already")]
    Same(u64),
    /// Another worker takes its place already.
    #[error("the place of worker {0} is being taken already; `steelyard workers` shows by which")]
    Swapping(u64),
    /// There is nothing to go back to.
    #[error(
        "nothing was served in the place of worker {0} before; name a release to `steelyard workers swap`"
    )]
    NoPrevious(u64),
    /// An adapter is not served with this model.
    #[error(transparent)]
    Adapter(#[from] registry::admit::AdapterError),
    /// It serves nothing by itself.
    #[error("{0} is an adapter; serve the model that it was made for, and name it with `--adapter`")]
    AdapterAlone(String),
    /// An adapter is not here, and could not be fetched.
    #[error("the adapter {adapter} could not be fetched: {source}")]
    AdapterFetch {
        /// Its release.
        adapter: Digest,
        /// What became of the transfer.
        source: Box<crate::node::PullError>,
    },
    /// More than a worker takes.
    #[error("{0} adapters are too many; a worker takes {max}", max = registry::serving::hand::MAX_ADAPTERS)]
    TooManyAdapters(usize),
    /// It is a pool's, which looks after it.
    #[error(
        "worker {0} belongs to pool {1}, which starts and stops it; `steelyard pools remove` and `add` put another release in its place, and `--follow` follows a channel"
    )]
    Pooled(u64, u64),
    /// No such pool.
    #[error("there is no pool {0}; `steelyard pools` lists them")]
    NoPool(u64),
    /// As many as there may be.
    #[error("{0} pools run already, which is the most; stop one first")]
    TooManyPools(usize),
    /// What a pool is to hold can't be.
    #[error("{0}")]
    Members(String),
    /// A model of a pool could not be loaded.
    #[error("{0}")]
    Unloaded(String),
    /// A model of a pool may not be served.
    #[error("{0}")]
    Refused(String),
    /// The node stops.
    #[error("the node is stopping")]
    Stopping,
}
