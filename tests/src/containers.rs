//! What tests of the interface for container tools share.

use std::process::Command;
use std::time::Duration;

use crate::net::run;
use crate::{Daemon, Http, Reply, Run};

/// One run of a stock tool, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// `host:port` of a node's public interface, as images are named.
pub fn host(node: &Daemon) -> String {
    match node.public() {
        Http::Tcp(address) => address.clone(),
        Http::Unix(_) => unreachable!("the public interface is on TCP"),
    }
}

/// Reads a path of the public interface.
pub fn get(node: &Daemon, path: &str, headers: &[(&str, &str)]) -> Reply {
    node.public().try_request_with("GET", path, headers, None).expect("an answer")
}

/// Expects an error of the distribution specification.
#[track_caller]
pub fn refused(reply: &Reply, status: u16, code: &str, words: &str) {
    assert_eq!(reply.status, status, "{}", reply.text());
    let error = &reply.json()["errors"][0];
    assert_eq!(error["code"], code, "{error}");
    assert!(error["message"].as_str().expect("a text").contains(words), "{error}");
    assert_eq!(reply.header("docker-distribution-api-version"), Some("registry/2.0"));
}

/// Runs a stock tool to its end.
pub fn tool(name: &str, args: &[&str]) -> Run {
    let mut command = Command::new(name);
    command.args(args);
    run(command, LIMIT)
}
