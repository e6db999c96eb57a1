//! The HTTP interface: one router for the Unix socket, TCP and commands that run without a node.

pub mod types;
