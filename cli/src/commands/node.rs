//! `steelyard node`: the node, in the foreground.

use clap::Args;
use node::host::Host;
use node::nation_file::{self, NationFile};
use registry::{Digest, Nation};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::LogFormat;
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::output::{self, BOLD, DIM, NAME, paint};
use crate::settings::Network;

/// Run the node in the foreground
///
/// Connects with allies, serves them what they may have, keeps models current, runs workers, and answers on the Unix
/// socket in its folder (everything) and on HTTP (reading only, loopback by default). Stops in order on Ctrl-C or SIGTERM.
/// With --json one line on standard output tells when it is up, with the addresses it really listens on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steelyard node
  steelyard node --peer /dns4/node.borea.example/tcp/4801/p2p/12D3KooW…
  steelyard --json node --listen /ip4/127.0.0.1/tcp/0 --http 127.0.0.1:0")]
pub(crate) struct Node {
    #[command(flatten)]
    network: Network,
    /// How log lines on standard error look
    #[arg(long, value_name = "FORMAT", default_value = "text", env = "STEELYARD_LOG_FORMAT")]
    pub(crate) log: LogFormat,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    nation: Nation,
    fingerprint: Digest,
    peer_id: String,
    p2p: Vec<String>,
    http: Option<String>,
    socket: String,
    pid: u32,
}

impl Node {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut config = context.config()?;
        self.network.apply(&mut config)?;
        // Before anything is announced, so that no signal comes too early.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let host = Host::start(config).await?;
        let announced = announce(context, &host);
        if announced.is_ok() {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                () = host.asked_to_stop() => {}
            }
            tracing::info!("stopping");
        }
        host.stop().await;
        announced
    }
}

fn announce(context: &Context, host: &Host) -> Result<(), Failure> {
    let node = host.node();
    let trust = node.store().trust();
    let fingerprint = trust.member(trust.own())?.fingerprint();
    let ready = Ready {
        ready: true,
        nation: trust.own().clone(),
        fingerprint,
        peer_id: node.peer_id(),
        p2p: node.addresses(),
        http: host.http().map(|address| format!("http://{address}")),
        socket: context.layout.socket().display().to_string(),
        pid: std::process::id(),
    };
    if let Err(error) = refresh_nation_file(context, host) {
        tracing::warn!(%error, "nation.json could not be brought up to date");
    }
    if context.json {
        return output::json_line(&ready);
    }
    let allies: Vec<String> = trust
        .members()
        .filter(|(nation, _)| *nation != trust.own())
        .map(|(nation, _)| nation.to_string())
        .collect();
    let [first, second] = human::fingerprint(&fingerprint);
    let none =
        |list: Vec<String>, none: &str| if list.is_empty() { paint(DIM, none) } else { list.join("\n") };
    output::print(&format!("{} is up.\n\n", paint(NAME.bold(), &ready.nation)))?;
    output::print(&output::facts(&[
        ("fingerprint", format!("{first}\n{second}")),
        ("this node", ready.peer_id.clone()),
        ("peers reach it at", none(ready.p2p.clone(), "nowhere: it only dials")),
        ("http, for reading", ready.http.clone().unwrap_or_else(|| paint(DIM, "off"))),
        ("allies", none(allies, "none yet: `steelyard trust add`")),
    ]))?;
    output::line(format!(
        "\n{}",
        paint(
            DIM,
            format!(
                "Stop with Ctrl-C. In another terminal: {}",
                paint(BOLD, format!("{} status", context.command()))
            )
        )
    ))
}

/// Brings this node's addresses in `nation.json` up to date, so that the file given to allies says where it really is.
fn refresh_nation_file(context: &Context, host: &Host) -> Result<(), Failure> {
    let path = context.layout.nation();
    let Ok(mut file) = NationFile::load(&path) else { return Ok(()) };
    let own = format!("/p2p/{}", host.node().peer_id());
    let mut addresses = nation_file::reachable(host.node().config(), &host.node().peer_id());
    if addresses.is_empty() {
        addresses = nation_file::worth_telling(host.node().addresses());
    }
    let others = file.addresses.iter().filter(|address| !address.ends_with(&own)).cloned();
    let new: Vec<String> = others.chain(addresses).collect();
    if new == file.addresses {
        return Ok(());
    }
    file.addresses = new;
    let beside = path.with_extension("json.new");
    std::fs::write(&beside, file.to_json()?)?;
    Ok(std::fs::rename(&beside, &path)?)
}
