//! Log lines on standard error: of a node as it is told, of other commands only warnings.

use std::io::IsTerminal;

use tracing_subscriber::filter::EnvFilter;

use crate::args::{Command, LogFormat};
use crate::context::Context;
use crate::failure::Failure;

/// Libraries that say more than an operator wants to hear.
const QUIET: &str = "libp2p_swarm=warn,libp2p_kad=warn,libp2p_gossipsub=error,libp2p_quic=warn,libp2p_tcp=warn,netlink_proto=warn,netlink_packet_route=error";

/// Starts logging. `STEELYARD_LOG` takes directives such as `debug` or `node=trace`.
pub(crate) fn start(context: &Context, command: &Command) -> Result<(), Failure> {
    let (format, own) = match command {
        Command::Node(node) => (node.log, "info"),
        _ => (LogFormat::Text, "error"),
    };
    let own = match context.verbose {
        0 => own,
        1 => "debug",
        _ => "trace",
    };
    let directives = match std::env::var("STEELYARD_LOG") {
        Ok(directives) if !directives.is_empty() => directives,
        _ => format!("{own},{QUIET}"),
    };
    let filter = EnvFilter::try_new(&directives)
        .map_err(|error| Failure::usage(format!("STEELYARD_LOG is not understood: {error}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colours).with_target(context.verbose > 0).init();
        }
    }
    Ok(())
}
