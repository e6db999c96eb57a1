//! Recall and leases among ten nodes of four nations, all processes on this machine's loopback.
//!
//! Each of the ten serves the model by a worker of its own. A recall is signed and given to one node of its producer; what
//! is measured runs from before it is given until the last of the ten worker processes is gone, by the process table.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use registry::key::SecretKey;
use registry::statement::{Recall, RecallTarget, Severity, Statement};
use registry::{Nation, Signed, Timestamp};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::options;
use super::report::{Bar, Side, Table};
use crate::net::Settings;
use crate::wait::{has_ended, within};
use crate::{Daemon, Home, Http, Net, generate};

/// The nations and how many nodes each has.
const NATIONS: [(&str, usize); 4] = [("alba", 3), ("borea", 3), ("cora", 2), ("dora", 2)];
/// A recall stops every worker within a second.
const RECALL_MS: f64 = 1000.0;
/// Beyond the end of its lease a worker may take what it takes to end a running answer, twice over.
const OVERRUN_MS: f64 = 1000.0;
/// The lease of the node that is cut off, in seconds, and how many nations it asks for.
const LEASE: u64 = 3;
const LEASE_NATIONS: u64 = 2;
/// Ten nodes on two cores have met, or pulled, by then.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the process table is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// Every node of every nation, up and connected.
struct League {
    _net: Net,
    homes: Vec<Home>,
    nodes: Vec<Option<Daemon>>,
}

/// Sets a node to loopback, connected with `peers`, on a lease of so many seconds.
fn configure(home: &Home, peers: &[String], lease: u64) {
    let text = format!(
        "[p2p]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\npeers = {peers:?}\nredial_secs = 1\nsync_secs = 30\n\n\
         [http]\nlisten = \"\"\n\n[worker]\nlisten = \"127.0.0.1:0\"\nthreads = 1\nmax_workers = 16\n\n\
         [lease]\nseconds = {lease}\nnations = {LEASE_NATIONS}\n"
    );
    fs::write(home.path.join("config.toml"), text).expect("write config.toml");
}

impl League {
    fn new(folder: &Path) -> Self {
        let net = Net::under(folder);
        let mut homes: Vec<Home> = Vec::new();
        for (nation, count) in NATIONS {
            let first = net.nation(nation);
            let keys = first.path.clone();
            homes.push(first);
            for number in 2..=count {
                let path = net.path().join(format!("{nation}-{number}"));
                let home = Home { nation: nation.to_owned(), path, env: Vec::new(), netns: None };
                home.ok(&["init", "--join", keys.to_str().expect("UTF-8")]);
                home.configure(&Settings::default());
                homes.push(home);
            }
        }
        let firsts: Vec<Home> = NATIONS.map(|(nation, _)| first(&homes, nation).clone()).into();
        for home in &homes {
            for other in firsts.iter().filter(|other| other.nation != home.nation) {
                home.trust(other);
            }
        }
        // One lease that no recall waits for, long enough never to end.
        let mut league = Self { _net: net, nodes: homes.iter().map(|_| None).collect(), homes };
        for at in 0..league.homes.len() {
            league.start(at, 600);
        }
        league
    }

    /// Starts a node that stays connected with all that run.
    fn start(&mut self, at: usize, lease: u64) {
        let peers: Vec<String> = self.nodes.iter().flatten().map(Daemon::address).collect();
        configure(&self.homes[at], &peers, lease);
        let node = self.homes[at].start();
        within(PATIENCE, "a node to meet the others", || {
            (node.http.get("/v1/peers").as_array()?.len() >= peers.len()).then_some(())
        });
        self.nodes[at] = Some(node);
    }

    fn node(&self, at: usize) -> &Daemon {
        self.nodes[at].as_ref().expect("a running node")
    }

    /// Does something on every node at once.
    fn each<T: Send>(&self, act: impl Fn(&Daemon) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let running: Vec<_> = self.nodes.iter().flatten().map(|node| scope.spawn(|| act(node))).collect();
            running.into_iter().map(|thread| thread.join().expect("a node's part")).collect()
        })
    }

    /// Publishes the model once more and has every node fetch it; the release's digest.
    fn publish(&self, version: usize) -> String {
        let model = self.homes[0].path.with_extension("model");
        fs::create_dir_all(&model).expect("a folder");
        fs::write(model.join("tiny.gguf"), generate::tiny_gguf()).expect("write the model");
        fs::write(model.join("README.md"), format!("# Version {version}\n")).expect("write the card");
        let release =
            self.homes[0].publish(&model, "tiny", &version.to_string(), &["--releasable-to", "all"]);
        self.each(|node| {
            within(PATIENCE, "a node to have the release", || node.pull(&release).ok());
        });
        release
    }
}

fn first<'a>(homes: &'a [Home], nation: &str) -> &'a Home {
    homes.iter().find(|home| home.nation == nation).expect("the nation's first node")
}

/// Waits until all these processes are gone; the moment of the last.
fn all_gone(pids: &[u64], limit: Duration) -> Option<Instant> {
    let start = Instant::now();
    let mut left = pids.to_vec();
    loop {
        left.retain(|pid| !has_ended(*pid));
        if left.is_empty() {
            return Some(Instant::now());
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

fn pid(worker: &Value) -> u64 {
    worker["pid"].as_u64().unwrap_or_else(|| panic!("no process in {worker}"))
}

/// From the recall to the last of ten workers stopped.
pub fn recalls(folder: &Path) -> Result<Vec<Bar>, String> {
    let rounds = options::number("STEELYARD_BENCH_RECALLS", 100).max(1) as usize;
    let league = League::new(folder);
    let home = &league.homes[0];
    let key = SecretKey::load(&home.path.join("keys/recall.key")).map_err(|error| error.to_string())?;
    let mut took: Vec<f64> = Vec::new();
    let mut known: Vec<f64> = Vec::new();
    for round in 0..rounds {
        let release = league.publish(round);
        let workers = league.each(|node| {
            node.serve(&release).unwrap_or_else(|problem| panic!("{}: {problem}", node.home.nation))
        });
        let pids: Vec<u64> = workers.iter().map(pid).collect();
        let recall = Recall {
            nation: Nation::new(&home.nation).map_err(|error| error.to_string())?,
            target: RecallTarget::Release(release.parse().map_err(|_| "a release's digest".to_owned())?),
            reason: "measured".to_owned(),
            severity: Severity::High,
            sequence: round as u64 + 1,
            issued: Timestamp::now(),
        };
        let start = Instant::now();
        let signed = Signed::sign(&Statement::Recall(recall), &key);
        let json: Value = serde_json::from_slice(&signed.to_json()).map_err(|error| error.to_string())?;
        league.node(0).http.post("/v1/statements", &json);
        let end = all_gone(&pids, PATIENCE).ok_or("a worker went on after the recall of its model")?;
        took.push(end.duration_since(start).as_secs_f64() * 1000.0);
        // What each node itself says, from its knowing to its worker's end.
        let stops = league.each(|node| {
            within(PATIENCE, "a worker's end to be told", || {
                let workers = node.http.get("/v1/workers");
                let worker = workers.as_array()?.iter().rev().find(|worker| worker["release"] == *release)?;
                worker["stop"]["took_ms"].as_f64()
            })
        });
        known.extend(stops);
    }
    let mut table = Table::new(&["", "p50, ms", "p90", "p99", "worst"]);
    for (what, values) in [
        ("recall to the last of ten workers gone", &mut took),
        ("a node knows to its worker gone", &mut known),
    ] {
        values.sort_by(f64::total_cmp);
        let at = |percent: usize| format!("{:.0}", percentile(values, percent));
        table.row(&[&what, &at(50), &at(90), &at(99), &at(100)]);
    }
    println!("{rounds} recalls, ten nodes of four nations:\n\n{table}");
    Ok(vec![Bar::new("recall-p99-ms", percentile(&took, 99), Side::AtMost, RECALL_MS)])
}

/// The value below which so many percent of the sorted values lie (nearest rank).
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// A process that is stopped by a signal and goes on when this is dropped.
struct Frozen(Vec<Pid>);

impl Frozen {
    fn new(nodes: &[&Daemon]) -> Self {
        let pids: Vec<Pid> = nodes.iter().filter_map(|node| Pid::from_raw(node.pid() as i32)).collect();
        for pid in &pids {
            kill_process(*pid, Signal::STOP).expect("stop a process");
        }
        Self(pids)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill_process(*pid, Signal::CONT);
        }
    }
}

/// Until when the worker says that its lease holds.
fn lease_end(api: &Http) -> Option<Instant> {
    let reply = api.try_request("GET", "/health", None).ok()?;
    let left = reply.json()["lease"]["left_ms"].as_u64()?;
    Some(Instant::now() + Duration::from_millis(left))
}

/// A worker of a node that hears nobody any more stops at the end of its lease: when the others are silent, and when its own
/// node is frozen too.
pub fn leases(folder: &Path) -> Result<Vec<Bar>, String> {
    let rounds = options::number("STEELYARD_BENCH_LEASES", 10).max(1) as usize;
    let mut league = League::new(folder);
    let release = league.publish(0);
    // The last node, of dora, is the one that is cut off.
    let cut = league.homes.len() - 1;
    league.nodes[cut].take().map(Daemon::stop);
    league.start(cut, LEASE);
    let (mut silent, mut frozen, mut back) = (Vec::new(), Vec::new(), Vec::new());
    let node = league.node(cut);
    let worker = within(PATIENCE, "a lease", || node.serve(&release).ok());
    let api = Http::tcp(worker["address"].as_str().ok_or("a worker without an address")?);
    for round in 0..rounds {
        let freeze_own = round % 2 == 1;
        let running = within(PATIENCE, "the worker to serve", || {
            let workers = node.http.get("/v1/workers");
            workers.as_array()?.iter().find(|worker| worker["state"] == "ready").cloned()
        });
        let pid = pid(&running);
        let others: Vec<&Daemon> = league.nodes.iter().flatten().take(cut).collect();
        let allies = Frozen::new(&others);
        let own = freeze_own.then(|| Frozen::new(&[node]));
        // What was on its way has come by now, and nothing more does.
        std::thread::sleep(Duration::from_millis(500));
        let end = lease_end(&api).ok_or("the worker tells no lease")?;
        let stopped =
            all_gone(&[pid], Duration::from_secs(4 * LEASE)).ok_or("the worker went on after its lease")?;
        if stopped < end {
            return Err(format!("the worker stopped {:?} before its lease ended", end - stopped));
        }
        let over = stopped.duration_since(end).as_secs_f64() * 1000.0;
        if freeze_own { &mut frozen } else { &mut silent }.push(over);
        drop(own);
        drop(allies);
        let thawed = Instant::now();
        within(PATIENCE, "the worker to come back", || {
            let reply = api.try_request("GET", "/health", None).ok()?;
            (reply.status == 200).then_some(())
        });
        back.push(thawed.elapsed().as_secs_f64() * 1000.0);
    }
    let mut table = Table::new(&["", "median, ms", "worst"]);
    let mut worst: f64 = 0.0;
    for (what, values) in [
        ("allies silent: end of the lease to the worker gone", &mut silent),
        ("its own node frozen too: the same", &mut frozen),
        ("allies heard again to the model served again", &mut back),
    ] {
        values.sort_by(f64::total_cmp);
        table.row(&[
            &what,
            &format!("{:.0}", percentile(values, 50)),
            &format!("{:.0}", percentile(values, 100)),
        ]);
    }
    for over in silent.iter().chain(&frozen) {
        worst = worst.max(*over);
    }
    println!("A lease of {LEASE} s by {LEASE_NATIONS} nations, {rounds} partitions:\n\n{table}");
    Ok(vec![Bar::new("lease-overrun-ms", worst, Side::AtMost, OVERRUN_MS)])
}
