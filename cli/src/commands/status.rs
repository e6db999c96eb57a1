//! `steelyard status`: the node at a glance.

use std::path::Path;

use clap::Args;
use node::api::types::{
    LeaseStatus as Lease, LogStatus, MirrorState, MirrorStatus, Reach, Reachability, RelayState,
    Status as State, WorkerInfo, WorkerState,
};
use registry::Timestamp;
use serde::Serialize;

use crate::client::{Client, Need};
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::output::{self, BAD, DIM, GOOD, NAME, Table, WARN, cell, paint};

/// Show the node at a glance
///
/// Who it is, whether it runs, where it listens, whom it is connected with, and what it holds and serves.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steelyard status")]
pub(crate) struct Status {}

impl Status {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = Client::open(context, Need::Folder).await?;
        let read = async {
            let state: State = client.get("/v1/status").await?;
            let workers: Vec<WorkerInfo> = client.get("/v1/workers").await?;
            let mirror: MirrorStatus = client.get("/v1/mirror").await?;
            let log: LogStatus = client.get("/v1/log").await?;
            Ok::<_, Failure>((state, workers, mirror, log))
        }
        .await;
        client.close().await;
        let (state, workers, mirror, log) = read?;
        if context.json {
            let folder = context.home();
            let serving: Vec<&WorkerInfo> = workers.iter().filter(|worker| !worker.state.is_over()).collect();
            return output::json(&Shown { state: &state, folder, serving, log: &log });
        }
        report(context, &state, &workers, (&mirror, &log))
    }
}

/// What programs get: the node's status, and what only whoever may use its socket is told.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    state: &'a State,
    folder: &'a Path,
    serving: Vec<&'a WorkerInfo>,
    log: &'a LogStatus,
}

fn report(
    context: &Context,
    state: &State,
    workers: &[WorkerInfo],
    (mirror, log): (&MirrorStatus, &LogStatus),
) -> Result<(), Failure> {
    let now = Timestamp::now();
    let running = if state.running {
        format!("{}, started {}", paint(GOOD, "running"), human::relative(state.started, now))
    } else {
        format!("{}; start it with `{} node`", paint(WARN, "not running"), context.command())
    };
    let addresses =
        if state.addresses.is_empty() { paint(DIM, "nowhere") } else { state.addresses.join("\n") };
    let [first, second] = human::fingerprint(&state.fingerprint);
    let usage = &state.usage;
    let partial = if usage.partial_bytes == 0 {
        String::new()
    } else {
        format!(" and {} being fetched", human::bytes(usage.partial_bytes))
    };
    let mut facts = vec![
        ("nation", paint(NAME.bold(), &state.nation)),
        ("fingerprint", format!("{first}\n{second}")),
        ("valid until", format!("{} ({})", state.root_expires, human::relative(state.root_expires, now))),
        ("root", format!("version {}", state.root_version)),
        ("node", running),
        ("peer", state.peer_id.clone()),
    ];
    let endings: Vec<String> = state
        .endings
        .iter()
        .map(|end| format!("{} {}", end.nation, human::relative(end.expires, now)))
        .collect();
    if !endings.is_empty() {
        facts.push(("roots that end", paint(WARN, endings.join(", "))));
    }
    if state.running {
        facts.push(("reached at", addresses));
        facts.push(("from outside", reach(&state.reach)));
        facts.push(("http", state.http.clone().unwrap_or_else(|| paint(DIM, "off"))));
        facts.push(("connected", human::count(state.peers as u64, "peer")));
        facts.push(("transfers", format!("{} running", state.transfers)));
        facts.push(("lease", lease(&state.lease, now)));
    }
    facts.extend([
        ("trusts", human::count(state.nations as u64, "nation")),
        ("believes", human::count(state.statements, "statement")),
        (
            "holds",
            format!(
                "{} in {}{partial}; {} free",
                human::bytes(usage.bytes),
                human::count(usage.blobs, "file"),
                human::bytes(usage.disk_free)
            ),
        ),
        ("mirrors", mirrors(mirror)),
        ("log", logs(log)),
        ("folder", context.home().display().to_string()),
        ("version", state.version.clone()),
    ]);
    output::print(&output::facts(&facts))?;
    for problem in &log.problems {
        output::warn(problem);
    }
    let live = workers_table(workers.iter().filter(|worker| !worker.state.is_over()));
    if live.is_empty() { Ok(()) } else { output::print(&format!("\n{}", live.render())) }
}

/// On what lease models are served.
fn lease(lease: &Lease, now: Timestamp) -> String {
    if lease.seconds == 0 && lease.producers.values().all(|seconds| *seconds == 0) {
        return paint(DIM, "none is needed");
    }
    let heard = lease.heard.iter().map(|it| format!("{} {} ago", it.nation, human::millis(it.ago_ms)));
    let heard: Vec<String> = heard.collect();
    let heard =
        if heard.is_empty() { "nobody was heard".to_owned() } else { format!("heard: {}", heard.join(", ")) };
    let state = match lease.ends {
        Some(ends) => format!("{} until {ends}, {}", paint(GOOD, "held"), human::relative(ends, now)),
        None if lease.held => paint(DIM, "none is needed but for some producers"),
        None => format!("{}; models are served again when enough allies are heard", paint(WARN, "ended")),
    };
    let allies = human::count(u64::from(lease.nations), "allied nation");
    format!("{state}\n{} from {allies}; {heard}", human::count(lease.seconds, "second"))
}

/// Mirroring in a line.
fn mirrors(mirror: &MirrorStatus) -> String {
    if mirror.rules.is_empty() {
        return paint(DIM, "nothing: there are no rules");
    }
    let count = |of: &[MirrorState]| mirror.releases.iter().filter(|it| of.contains(&it.state)).count();
    let kept = count(&[MirrorState::Kept, MirrorState::Here]);
    let coming = count(&[MirrorState::Fetching, MirrorState::Queued, MirrorState::Waiting]);
    let refused = count(&[MirrorState::Refused]);
    let mut text = format!(
        "{} by {}",
        human::count(kept as u64, "release"),
        human::count(mirror.rules.len() as u64, "rule")
    );
    for (n, what) in [(coming, "to come"), (refused, "refused (`steelyard mirror` says why)")] {
        if n > 0 {
            text.push_str(&format!(", {n} {what}"));
        }
    }
    text
}

/// Our log and those of allies in a few lines.
fn logs(log: &LogStatus) -> String {
    let mut out = Vec::new();
    let own = log.logs.iter().find(|log| log.own);
    out.push(match own {
        Some(own) if own.size > 0 => {
            let names: Vec<String> = own.witnesses.iter().map(ToString::to_string).collect();
            let who = if names.is_empty() {
                paint(WARN, "cosigned by nobody")
            } else {
                format!("cosigned by {}", names.join(", "))
            };
            format!("{}, {who}", human::count(own.size, "entry"))
        }
        _ => paint(DIM, "nothing in our log yet"),
    });
    if log.pending > 0 {
        let why = log.waiting.as_deref().unwrap_or_default();
        out.push(format!("{} to be logged: {why}", human::count(log.pending, "statement")));
    }
    let followed = log.logs.iter().filter(|log| !log.own).count() as u64;
    let disputed = log.logs.iter().filter(|log| log.disputed).count() as u64;
    if followed > 0 {
        out.push(format!("follows {}", human::count(followed, "log")));
    }
    if disputed > 0 {
        out.push(paint(BAD, format!("{} caught lying", human::count(disputed, "log"))));
    }
    out.join("\n")
}

/// Whether others get through to it, and by which relays.
fn reach(reach: &Reach) -> String {
    let mut out = vec![match reach.reachability {
        Reachability::Public => paint(GOOD, "reachable"),
        Reachability::BehindNat if reach.relays.is_empty() => {
            format!("{}; name a relay in `p2p.relays`", paint(WARN, "behind a NAT"))
        }
        Reachability::BehindNat => "behind a NAT".to_owned(),
        Reachability::Unknown => paint(DIM, "nobody has tried yet"),
    }];
    for relay in &reach.relays {
        let peer = human::peer(&relay.peer_id);
        out.push(match relay.state {
            RelayState::Reserved => format!("{} through relay {peer}", paint(GOOD, "reached")),
            RelayState::Asking => format!("asking relay {peer}"),
            RelayState::Failed => {
                format!(
                    "{} {peer}: {}",
                    paint(WARN, "no slot at relay"),
                    relay.why.as_deref().unwrap_or_default()
                )
            }
        });
    }
    if let Some(relaying) = reach.relaying {
        let peers = human::count(relaying.reservations as u64, "peer");
        out.push(format!("relays for {peers}, {}", human::count(relaying.circuits as u64, "circuit")));
    }
    out.join("\n")
}

/// Workers, a line each.
fn workers_table<'a>(workers: impl Iterator<Item = &'a WorkerInfo>) -> Table {
    let now = Timestamp::now();
    let mut table = Table::new(&["serving", "state", "address", "engine", "since", "lease"]);
    for worker in workers {
        let state = serde_json::to_value(worker.state).ok().and_then(|v| v.as_str().map(str::to_owned));
        let again = match worker.restarts {
            0 => String::new(),
            times => format!(" ({} after its process died)", human::count(u64::from(times), "restart")),
        };
        let state = state.map(|state| state + &again);
        table.row([
            cell(NAME, format!("{}@{}", worker.model, worker.version)),
            cell(if worker.state == WorkerState::Ready { GOOD } else { WARN }, state.unwrap_or_default()),
            worker.address.map(|address| format!("http://{address}")).unwrap_or_default().into(),
            cell(DIM, worker.engine.clone().unwrap_or_default()),
            cell(DIM, human::relative(worker.started, now)),
            worker.lease_ends.map(|ends| human::relative(ends, now)).unwrap_or_default().into(),
        ]);
    }
    table
}
