//! One seed and n leechers that all start at once, each behind an uplink of its own: how long until the last one is done,
//! and what the seed had to send. Beside libtorrent 2 and nginx with curl in the same namespaces.
//!
//! F is the size of the model's weights file, u the uplink's rate in raw bytes. Nobody can be done before F/u. Packet
//! headers (4.5% of a full segment) are not taken off: a perfect swarm over TCP needs 1.05 F/u.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use super::nodes::{PORT, cpu, know, pin_all, place};
use super::options;
use super::report::{Bar, Side, Table};
use super::space::{Sent, Spaces, address};
use super::talk::{self, Talker};
use crate::{Daemon, Home, Net, generate, meter};

/// Each uplink, in bits a second.
const UPLINK: u64 = 100_000_000;
/// What every leecher asks for.
const REFERENCE: &str = "seed/model";
/// Bytes of a piece of the torrent: the best of those tried, from 32 KiB to 1 MiB.
const PIECE: u64 = 64 << 10;
/// A swarm that is not done after so many times F/u and this time on top hangs.
const HANGS: (f64, Duration) = (40.0, Duration::from_secs(120));
/// Swarms up to this size are also served by a plain HTTP server, which takes n times F/u.
const MOST_BY_HTTP: usize = 7;

/// What a swarm did.
struct Outcome {
    /// When each leecher was done, in seconds from the common start; sorted.
    finished: Vec<f64>,
    /// What the seed sent meanwhile.
    sent: Sent,
    /// CPU seconds of all ends together.
    cpu: f64,
    /// Share of the machine's cores in use meanwhile, whoever used them.
    busy: f64,
}

/// Reads what is needed before and after.
struct Before {
    start: Instant,
    sent: Sent,
    busy: (f64, f64),
}

impl Before {
    fn now(spaces: &Spaces) -> Self {
        let sent = spaces.sent(0);
        Self { busy: meter::machine(), sent, start: Instant::now() }
    }

    fn outcome(&self, spaces: &Spaces, mut finished: Vec<f64>, cpu: f64) -> Outcome {
        let (sent, busy) = (spaces.sent(0), meter::machine());
        finished.sort_by(f64::total_cmp);
        let sent = Sent { interface: sent.interface - self.sent.interface, link: sent.link - self.sent.link };
        let busy = (busy.0 - self.busy.0) / (busy.1 - self.busy.1).max(f64::EPSILON);
        Outcome { finished, sent, cpu, busy }
    }
}

/// Runs it in `folder`.
///
/// # Errors
/// What the machine lacks.
pub fn run(folder: &Path) -> Result<Vec<Bar>, String> {
    let size = options::size("SWARM", 128);
    let swarms = options::list("STEELYARD_BENCH_SWARM", &[3, 7, 15]);
    let net = Net::under(folder);
    let model = net.folder("model");
    let file = model.join("model.safetensors");
    generate::safetensors(&file, size, 1).map_err(|error| format!("{}: {error}", file.display()))?;
    let weights = net.folder("weights");
    generate::weights(&weights.join("model.safetensors"), size, 1).map_err(|error| error.to_string())?;
    let size = file.metadata().map_err(|error| error.to_string())?.len();
    let least = size as f64 * 8.0 / UPLINK as f64;
    let limit = Duration::from_secs_f64(least * HANGS.0) + HANGS.1;
    let head = [
        "swarm",
        "how",
        "makespan, s",
        "x F/u",
        "first done",
        "seed sent, x F",
        "on the link",
        "CPU-s",
        "cores busy",
    ];
    let (mut table, mut bars) = (Table::new(&head), Vec::new());
    for leechers in swarms {
        let spaces = Spaces::new(folder, &format!("swarm{leechers}"), leechers + 1, UPLINK)?;
        let swarm = format!("1 + {leechers}");
        let mut note = |how: &str, outcome: &Outcome| {
            let last = outcome.finished.last().copied().unwrap_or(f64::NAN);
            let first = outcome.finished.first().copied().unwrap_or(f64::NAN);
            let of = |bytes: u64| bytes as f64 / size as f64;
            table.row(&[
                &swarm,
                &how,
                &format!("{last:.1}"),
                &format!("{:.2}", last / least),
                &format!("{:.2}", first / least),
                &format!("{:.2}", of(outcome.sent.interface)),
                &format!("{:.2}", of(outcome.sent.link)),
                &format!("{:.1}", outcome.cpu),
                &format!("{:.0}%", outcome.busy * 100.0),
            ]);
        };
        eprintln!("swarm {swarm}: steelyard");
        let ours = steelyard(&spaces, folder, &model, limit);
        note("steelyard", &ours);
        eprintln!("swarm {swarm}: steelyard, BF16 weights");
        note("steelyard, BF16 weights", &steelyard(&spaces, folder, &weights, limit));
        if leechers <= MOST_BY_HTTP {
            let last = ours.finished.last().copied().unwrap_or(f64::NAN);
            bars.push(Bar::new(format!("makespan-1-{leechers}"), last / least, Side::AtMost, 1.25));
            let sent = ours.sent.interface as f64 / size as f64;
            bars.push(Bar::new(format!("seed-egress-1-{leechers}"), sent, Side::AtMost, 1.1));
        }
        if !options::with_peers() {
            continue;
        }
        if let Some(python) = talk::python_with_libtorrent() {
            for (how, seeding) in [("libtorrent 2", ""), ("libtorrent 2, super-seeding", "super")] {
                eprintln!("swarm {swarm}: {how}");
                note(how, &torrent(&spaces, folder, python, &file, seeding));
            }
        }
        if let Some(nginx) = super::nginx().filter(|_| leechers <= MOST_BY_HTTP) {
            eprintln!("swarm {swarm}: nginx and curl");
            note("nginx and curl", &http(&spaces, folder, nginx, &file));
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("### Swarm\n");
    println!(
        "{} MiB of noise, but for the BF16 weights, {} Mbit/s up for each, {cores} cores; F/u = {least:.1} s of raw payload, headers not taken off.\n",
        size >> 20,
        UPLINK / 1_000_000
    );
    println!("{table}");
    if options::with_peers() {
        println!("nginx and curl take n x F/u and are left out beyond 1 + {MOST_BY_HTTP}.\n");
    }
    Ok(bars)
}

/// Nodes of as many nations as machines, all pinned to each other and connected, then one pull by each but the first.
fn steelyard(spaces: &Spaces, folder: &Path, model: &Path, limit: Duration) -> Outcome {
    let net = Net::under(folder);
    let homes = nations(&net, spaces, model);
    let daemons: Vec<Daemon> = homes.iter().map(Home::start).collect();
    pin_all(&daemons.iter().collect::<Vec<_>>());
    for daemon in &daemons {
        know(daemon, daemons.len() - 1, REFERENCE);
    }
    let pids: Vec<u32> = daemons.iter().map(Daemon::pid).collect();
    let (used, before) = (cpu(&pids), Before::now(spaces));
    let pull = json!({ "reference": REFERENCE });
    let finished = std::thread::scope(|scope| {
        let pulls: Vec<_> = daemons
            .iter()
            .skip(1)
            .map(|daemon| {
                let (pull, start) = (&pull, before.start);
                scope.spawn(move || {
                    let done = daemon.http.events("POST", "/v1/pull", Some(pull)).outcome(limit);
                    let took = start.elapsed().as_secs_f64();
                    done.unwrap_or_else(|problem| panic!("{}: {problem}", daemon.home.nation));
                    took
                })
            })
            .collect();
        pulls.into_iter().map(|pull| pull.join().expect("a pull")).collect()
    });
    before.outcome(spaces, finished, cpu(&pids) - used)
}

/// One nation a machine; the first has published the model. Each node keeps connected with those before it, so that each
/// pair has one connection.
fn nations(net: &Net, spaces: &Spaces, model: &Path) -> Vec<Home> {
    let mut peers: Vec<String> = Vec::new();
    (0..spaces.len())
        .map(|index| {
            let name = if index == 0 { "seed".to_owned() } else { format!("leecher{index}") };
            let mut home = net.nation(&name);
            if index == 0 {
                home.publish(model, "model", "1", &["--releasable-to", "all"]);
            }
            peers.push(place(&mut home, spaces, index, &peers));
            home
        })
        .collect()
}

fn torrent(spaces: &Spaces, folder: &Path, python: &Path, file: &Path, seeding: &str) -> Outcome {
    let net = Net::under(folder);
    let torrent = talk::make_torrent(python, file, net.path(), PIECE);
    let end = |index: usize, role: &str, files: &Path| {
        let mut command = spaces.command(index, &python.to_string_lossy(), net.path());
        command.arg(talk::torrent_script()).args([role, "swarm"]).args([&torrent, files]);
        command.args([address(index), PORT.to_string()]);
        command
    };
    let mut seed = end(0, "seed", file.parent().expect("the model's folder"));
    let mut seed = Talker::start({
        seed.arg(seeding);
        seed
    });
    seed.hear("ready");
    let mut leechers: Vec<Talker> = Vec::new();
    for index in 1..spaces.len() {
        let mut command = end(index, "leech", &net.folder(&format!("leecher{index}")));
        command.args((0..index).map(|peer| format!("{}:{PORT}", address(peer))));
        leechers.push(Talker::start(command));
    }
    leechers.iter_mut().for_each(|leecher| {
        leecher.hear("ready");
    });
    let pids: Vec<u32> = leechers.iter().map(Talker::pid).chain([seed.pid()]).collect();
    let (used, before) = (cpu(&pids), Before::now(spaces));
    leechers.iter_mut().for_each(|leecher| leecher.say("go"));
    let finished = std::thread::scope(|scope| {
        let waits: Vec<_> = leechers
            .iter_mut()
            .map(|leecher| {
                scope.spawn(|| {
                    leecher.hear("done");
                    before.start.elapsed().as_secs_f64()
                })
            })
            .collect();
        waits.into_iter().map(|wait| wait.join().expect("a leecher")).collect()
    });
    before.outcome(spaces, finished, cpu(&pids) - used)
}

fn http(spaces: &Spaces, folder: &Path, nginx: &str, file: &Path) -> Outcome {
    let net = Net::under(folder);
    let listen = format!("{}:8080", address(0));
    let server = super::serve_http(spaces.command(0, nginx, net.path()), &listen, file, net.path());
    let client = |index: usize| {
        let target: PathBuf = net.path().join(format!("leecher{index}"));
        let mut command = spaces.command(index, "curl", net.path());
        command.args(["--silent", "--fail", "--retry", "5", "--retry-connrefused", "--output"]).arg(target);
        command.arg(format!("http://{listen}/model")).stdout(Stdio::null());
        command.spawn().expect("run curl")
    };
    let (used, before) = (server.cpu(), Before::now(spaces));
    let clients: Vec<_> = (1..spaces.len()).map(client).collect();
    let ends: Vec<(f64, f64)> = std::thread::scope(|scope| {
        let waits: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                let start = before.start;
                scope.spawn(move || {
                    let (cpu, _) = super::finish(&mut client);
                    (start.elapsed().as_secs_f64(), cpu)
                })
            })
            .collect();
        waits.into_iter().map(|wait| wait.join().expect("a client")).collect()
    });
    let cpu = server.cpu() - used + ends.iter().map(|(_, cpu)| cpu).sum::<f64>();
    before.outcome(spaces, ends.into_iter().map(|(took, _)| took).collect(), cpu)
}
