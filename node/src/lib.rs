//! How it moves: libp2p peers, transfer, mirroring, the HTTP interface and the worker processes.

pub mod api;
pub mod config;
pub mod error;
pub mod events;
pub mod identity;
pub mod layout;
pub mod nation_file;
