//! `steelyard doctor`: what may be wrong, and what to do about it.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::Args;
use node::api::types::{LogStatus, ModelEntry, NationEntry, PeerInfo, Presence, Status as State};
use node::config::Config;
use registry::key::{KeyError, KeyFile};
use registry::statement::{RoleName, Standing, Statement};
use registry::trust::Ending;
use registry::{Signed, Timestamp};
use serde::Serialize;

use crate::client::{Client, Need};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::human;
use crate::output::{self, BAD, Cell, DIM, GOOD, Table, WARN, cell};

/// Less free disk than this deserves a warning: one small model's worth.
const DISK_WARNING: u64 = 10 * 1024 * 1024 * 1024;
/// Less than this is a failure: statements and the index still need room.
const DISK_FAILURE: u64 = 256 * 1024 * 1024;
/// When this program was written: a clock before it is wrong.
const WRITTEN: Timestamp = Timestamp::from_unix(1_793_000_000);

/// Look for what may be wrong, and say what to do about it
///
/// Looks at keys and their modes, the ends of root and certificate, disk space, ports, the clock, the store and the
/// connections. Changes nothing. Ends with exit code 1 if anything failed.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard doctor")]
pub(crate) struct Doctor {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    grade: Grade,
    finding: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, check: &'static str, grade: Grade, finding: impl Into<String>, remedy: &str) {
        let remedy = (grade != Grade::Ok && !remedy.is_empty()).then(|| remedy.to_owned());
        self.0.push(Finding { check, grade, finding: finding.into(), remedy });
    }
}

impl Doctor {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        if !context.layout.is_initialised() {
            return Err(Failure::new(Exit::NotFound, format!("{} holds no node", context.home().display()))
                .help("make one with `steelyard init --nation NAME`, or name another folder with --home"));
        }
        let mut found = Findings::default();
        let config = match context.config() {
            Ok(config) => {
                found.add(
                    "settings",
                    Grade::Ok,
                    format!("{} is understood", context.config_path().display()),
                    "",
                );
                Some(config)
            }
            Err(failure) => {
                found.add(
                    "settings",
                    Grade::Fail,
                    failure.problem.detail,
                    "correct the file; `steelyard init` elsewhere shows a fresh one",
                );
                None
            }
        };
        keys(context, &mut found);
        clock(&mut found);
        certificate(context, &mut found);
        match Client::open(context, Need::Folder).await {
            Ok(client) => {
                let running = client.is_running();
                let asked = ask(&client, &mut found).await;
                client.close().await;
                if let Err(failure) = asked {
                    found.add("node", Grade::Fail, failure.problem.detail, "look at the node's log");
                }
                if let Some(config) = config.filter(|_| !running) {
                    ports(&config, &mut found);
                }
            }
            Err(failure) => {
                let hint = failure.problem.hint.clone().unwrap_or_default();
                found.add("store", Grade::Fail, failure.problem.detail, &hint);
            }
        }
        report(context, &found.0)
    }
}

fn keys(context: &Context, found: &mut Findings) {
    let folder = context.layout.keys();
    let mode = |path: &Path| std::fs::metadata(path).map(|data| data.permissions().mode() & 0o777);
    match mode(&folder) {
        Ok(mode) if mode & 0o077 == 0 => {
            found.add("keys", Grade::Ok, format!("{} is closed to others", folder.display()), "")
        }
        Ok(mode) => found.add(
            "keys",
            Grade::Fail,
            format!("{} has mode {mode:03o}: others may look in", folder.display()),
            &format!("chmod 700 {}", folder.display()),
        ),
        Err(error) => found.add(
            "keys",
            Grade::Fail,
            format!("{}: {error}", folder.display()),
            "restore it from a backup",
        ),
    }
    let mut check = |name: &str, path: &Path, needed: bool| match KeyFile::load(path) {
        Ok(_) => {}
        Err(KeyError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            if needed {
                found.add(
                    "keys",
                    Grade::Fail,
                    format!("the {name} key is missing"),
                    "restore it from a backup, or join anew with `steelyard init --join`",
                );
            }
        }
        Err(error) => {
            found.add("keys", Grade::Fail, error.to_string(), &format!("chmod 600 {}", path.display()))
        }
    };
    check("peer", &context.layout.peer_key(), true);
    for role in RoleName::ALL {
        check(role.as_str(), &context.layout.key(role), false);
    }
    if context.layout.key(RoleName::Root).exists() {
        found.add(
            "keys",
            Grade::Warn,
            "the root key lies on this machine",
            "move keys/root.key to a place offline; the node never needs it",
        );
    }
}

fn clock(found: &mut Findings) {
    let now = Timestamp::now();
    if now < WRITTEN {
        found.add(
            "clock",
            Grade::Fail,
            format!("it is {now} here, which can't be"),
            "set the clock: signatures and their ends depend on it",
        );
    } else {
        found.add("clock", Grade::Ok, format!("it is {now}"), "");
    }
}

fn ends(found: &mut Findings, check: &'static str, what: &str, at: Timestamp, remedy: &str) {
    let now = Timestamp::now();
    let when = human::relative(at, now);
    let grade = match Ending::of(at, now) {
        Ending::Ended => Grade::Fail,
        Ending::Planned | Ending::Soon | Ending::Urgent => Grade::Warn,
        Ending::Far => Grade::Ok,
    };
    let verb = if at <= now { "ended" } else { "ends" };
    found.add(check, grade, format!("{what} {verb} {when} ({at})"), remedy);
}

fn certificate(context: &Context, found: &mut Findings) {
    let path = context.layout.certificate();
    let read = std::fs::read(&path).map_err(|error| error.to_string());
    let parsed = read.and_then(|text| {
        let signed = Signed::parse(&text).map_err(|error| error.to_string())?;
        signed.peek().map_err(|error| error.to_string())
    });
    match parsed {
        Ok(Statement::Node(node)) => ends(
            found,
            "certificate",
            "this node's certificate",
            node.expires,
            "join anew with `steelyard init --join`: it is signed by your nation's node key",
        ),
        Ok(_) => found.add(
            "certificate",
            Grade::Fail,
            format!("{} is no node certificate", path.display()),
            "restore it from a backup",
        ),
        Err(error) => found.add(
            "certificate",
            Grade::Fail,
            format!("{}: {error}", path.display()),
            "restore it from a backup",
        ),
    }
}

async fn ask(client: &Client, found: &mut Findings) -> Result<(), Failure> {
    logs(&client.get("/v1/log").await?, found);
    let state: State = client.get("/v1/status").await?;
    if state.running {
        found.add("node", Grade::Ok, "it runs and answers", "");
    } else {
        found.add("node", Grade::Warn, "no node is running here", "start it with `steelyard node`");
    }
    let free = human::bytes(state.usage.disk_free);
    let grade = match state.usage.disk_free {
        0..DISK_FAILURE => Grade::Fail,
        DISK_FAILURE..DISK_WARNING => Grade::Warn,
        _ => Grade::Ok,
    };
    found.add("disk", grade, format!("{free} free"), "make room; `steelyard gc` removes what nothing needs");

    let nations: Vec<NationEntry> = client.get("/v1/nations").await?;
    for nation in &nations {
        let what = format!("the root of `{}`", nation.nation);
        let remedy = if nation.own {
            "sign the next one: `steelyard root rotate`, `root sign`, `root publish`"
        } else {
            "ask its people for the next one; it comes by itself once they publish it"
        };
        ends(found, "nations", &what, nation.expires, remedy);
        if nation.standing != Standing::Active {
            let what = format!("`{}` is {}", nation.nation, nation.standing);
            found.add("nations", Grade::Warn, what, "`steelyard trust show` says why");
        }
    }
    let models: Vec<ModelEntry> = client.get("/v1/models").await?;
    let releases = models.iter().flat_map(|model| &model.releases);
    let broken: Vec<String> = releases
        .clone()
        .filter(|release| release.admitted && release.presence != Presence::Complete)
        .map(|release| format!("{}@{}", release.model, release.version))
        .collect();
    if broken.is_empty() {
        let whole = releases.filter(|release| release.presence == Presence::Complete).count();
        found.add(
            "store",
            Grade::Ok,
            format!(
                "{} whole, in {}",
                human::count(whole as u64, "release"),
                human::bytes(state.usage.bytes)
            ),
            "",
        );
    } else {
        found.add(
            "store",
            Grade::Fail,
            format!("files are missing of {}", broken.join(", ")),
            "`steelyard pull` fetches what is missing",
        );
    }
    if state.running {
        let peers: Vec<PeerInfo> = client.get("/v1/peers").await?;
        connections(&nations, &peers, &state, found);
    }
    Ok(())
}

fn connections(nations: &[NationEntry], peers: &[PeerInfo], state: &State, found: &mut Findings) {
    let allies: Vec<&NationEntry> = nations.iter().filter(|nation| !nation.own).collect();
    if allies.is_empty() {
        found.add(
            "allies",
            Grade::Warn,
            "no other nation is trusted yet",
            "get an ally's nation.json and run `steelyard trust add`",
        );
    }
    for nation in allies {
        let connected = peers.iter().filter(|peer| peer.nation == nation.nation).count();
        match (connected, nation.addresses.is_empty()) {
            (0, true) => found.add(
                "allies",
                Grade::Warn,
                format!("`{}` is not connected, and no address of it is known", nation.nation),
                "run `steelyard trust add` again with --peer",
            ),
            (0, false) => found.add(
                "allies",
                Grade::Warn,
                format!("`{}` is not connected at {}", nation.nation, nation.addresses.join(", ")),
                "ask whether its node is up and trusts your nation too; look for firewalls",
            ),
            (n, _) => found.add(
                "allies",
                Grade::Ok,
                format!("`{}` is connected by {}", nation.nation, human::count(n as u64, "peer")),
                "",
            ),
        }
    }
    if state.addresses.is_empty() {
        found.add(
            "ports",
            Grade::Warn,
            "the node listens nowhere: allies can't dial it",
            "set p2p.listen in config.toml",
        );
    }
}

/// How our log and those of allies stand.
fn logs(log: &LogStatus, found: &mut Findings) {
    for problem in &log.problems {
        found.add(
            "log",
            Grade::Fail,
            problem.clone(),
            "`steelyard log ls` and `steelyard evidence ls` show more",
        );
    }
    if log.pending > 0 {
        let why = log.waiting.as_deref().unwrap_or_default();
        found.add(
            "log",
            Grade::Warn,
            format!("{} to be logged: {why}", human::count(log.pending, "statement")),
            "allies may refuse what is not in the log",
        );
    }
    match log.logs.iter().find(|log| log.own && log.size > 0) {
        Some(own) if own.witnesses.is_empty() => found.add(
            "log",
            Grade::Warn,
            format!("our log has {}, cosigned by no ally", human::count(own.size, "entry")),
            "allies cosign it while they are connected and hold a witness key",
        ),
        Some(own) => found.add(
            "log",
            Grade::Ok,
            format!(
                "our log has {}, cosigned by {}",
                human::count(own.size, "entry"),
                human::count(own.witnesses.len() as u64, "nation")
            ),
            "",
        ),
        None => {}
    }
}

/// Whether the ports of a node that is not running could be had.
fn ports(config: &Config, found: &mut Findings) {
    let mut wanted = Vec::new();
    if let Ok(Some(address)) = config.http.address() {
        wanted.push(("http", address));
    }
    for address in &config.p2p.listen {
        let parts: Vec<&str> = address.split('/').collect();
        if let ["", "ip4" | "ip6", ip, "tcp", port, ..] = parts.as_slice()
            && let (Ok(ip), Ok(port)) = (ip.parse::<std::net::IpAddr>(), port.parse::<u16>())
        {
            wanted.push(("peers", std::net::SocketAddr::new(ip, port)));
        }
    }
    for (what, address) in wanted {
        match TcpListener::bind(address) {
            Ok(_) => found.add("ports", Grade::Ok, format!("{address} is free for {what}"), ""),
            Err(error) => found.add(
                "ports",
                Grade::Fail,
                format!("{address} can't be had for {what}: {error}"),
                "stop what uses it, or set another in config.toml",
            ),
        }
    }
}

fn report(context: &Context, findings: &[Finding]) -> Result<(), Failure> {
    let failed = findings.iter().filter(|finding| finding.grade == Grade::Fail).count();
    if context.json {
        output::json(&findings)?;
    } else {
        let mut table = Table::new(&["", "", ""]);
        for finding in findings {
            let (mark, style) = match finding.grade {
                Grade::Ok => ("ok", GOOD),
                Grade::Warn => ("warn", WARN),
                Grade::Fail => ("fail", BAD),
            };
            table.row([cell(style, mark), cell(DIM, finding.check), Cell::from(finding.finding.as_str())]);
            if let Some(remedy) = &finding.remedy {
                table.row([cell(DIM, ""), cell(DIM, ""), cell(DIM, format!("→ {remedy}"))]);
            }
        }
        output::print(&table.render())?;
    }
    if failed == 0 {
        return Ok(());
    }
    let failure = Failure::new(Exit::Other, format!("{} failed", human::count(failed as u64, "check")));
    Err(if context.json { failure.reported() } else { failure })
}
