//! How it moves: libp2p peers, transfer, mirroring, the HTTP interface and the worker processes.

pub mod api;
pub mod config;
pub mod conformance;
pub mod discovery;
pub mod error;
pub mod events;
pub mod fetch_http;
pub mod gossip;
pub mod host;
pub mod identity;
pub mod import;
pub mod layout;
pub mod lease;
pub mod log;
pub mod mirror;
pub mod nation_file;
pub mod node;
pub mod peers;
pub mod policy;
pub mod reach;
pub mod serving;
pub mod swarm;
pub mod sync;
pub mod transfer;
pub mod wire;
