//! What moving a GiB over loopback costs in CPU seconds, both ends together, all files in memory. Beside peers that verify
//! (iroh-blobs, libtorrent 2) and such that do not (plain TCP, nginx with curl), in the same run.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::iroh::Iroh;
use super::pull::Pair;
use super::report::{Bar, Side, Table};
use super::talk::{self, Talker};
use super::{Row, Sample, add, options, plain_tcp, require_space, static_http};
use crate::{Net, meter};

/// CPU seconds that a GiB may cost, verified, both ends together.
const MOST: f64 = 4.0;
/// Bytes of a torrent's piece: what its makers' tools choose for some GiB.
const PIECE: u64 = 4 << 20;
const OURS: &str = "steelyard pull";
const TORRENT: &str = "libtorrent 2";
const IROH: &str = "iroh-blobs";

/// Runs it in `folder`.
///
/// # Errors
/// Nothing that a machine may lack; other parts do.
pub fn run(folder: &Path) -> Result<Vec<Bar>, String> {
    let size = options::size("CPU", 2048);
    let runs = usize::try_from(options::number("STEELYARD_BENCH_RUNS", 3)).unwrap_or(3).max(1);
    require_space(folder, size * 2 + size / 8 + (256 << 20));
    let net = Net::under(folder);
    eprintln!("cpu: generating and publishing {} MiB", size >> 20);
    let mut pair = Pair::new(&net, size);
    let mut rows: Vec<Row> = Vec::new();
    for run in 1..=runs {
        eprintln!("cpu: run {run} of {runs}");
        if options::with_peers() {
            peers(&net, &pair.blob, &mut rows);
        }
        add(&mut rows, OURS, pair.pull());
        pair.forget(&net);
    }
    report(&rows, pair.size, runs);
    let cost = |name: &str| {
        let row = rows.iter().find(|row| row.name == name)?;
        Some(row.median(|sample| sample.sender_cpu + sample.receiver_cpu))
    };
    let ours = cost(OURS).unwrap_or(f64::NAN);
    let gib = pair.size as f64 / f64::from(1 << 30);
    let mut bars = vec![Bar::new("cpu-s-per-gib", ours / gib, Side::AtMost, MOST)];
    for (name, peer) in [("cpu-vs-iroh", IROH), ("cpu-vs-libtorrent", TORRENT)] {
        bars.extend(cost(peer).map(|peer| Bar::new(name, ours / peer, Side::Under, 1.0)));
    }
    Ok(bars)
}

fn report(rows: &[Row], size: u64, runs: usize) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("### CPU\n");
    println!("{} MiB of noise over loopback, in memory, {cores} cores, median of {runs} runs.\n", size >> 20);
    let head = [
        "how",
        "verified",
        "MB/s",
        "slowest to fastest",
        "CPU-s/GiB, both ends",
        "sender",
        "receiver",
        "peak RSS, MiB, sender",
        "receiver",
    ];
    let mut table = Table::new(&head);
    let gib = size as f64 / f64::from(1 << 30);
    for row in rows {
        let rate = |seconds: f64| format!("{:.0}", size as f64 / 1e6 / seconds);
        let seconds = row.sorted(|sample| sample.seconds);
        let (fastest, slowest) = (seconds.first().copied(), seconds.last().copied());
        let per_gib = |value: fn(&Sample) -> f64| format!("{:.2}", row.median(value) / gib);
        let mib = |value: fn(&Sample) -> u64| match row.samples.iter().map(value).max() {
            None | Some(0) => "-".to_owned(),
            Some(bytes) => (bytes >> 20).to_string(),
        };
        table.row(&[
            &row.name,
            &if [OURS, TORRENT, IROH].contains(&row.name.as_str()) { "yes" } else { "no" },
            &rate(row.median(|sample| sample.seconds)),
            &format!("{} to {}", rate(slowest.unwrap_or(1.0)), rate(fastest.unwrap_or(1.0))),
            &per_gib(|sample| sample.sender_cpu + sample.receiver_cpu),
            &per_gib(|sample| sample.sender_cpu),
            &per_gib(|sample| sample.receiver_cpu),
            &mib(|sample| sample.sender_peak),
            &mib(|sample| sample.receiver_peak),
        ]);
    }
    println!("{table}");
}

fn peers(net: &Net, blob: &Path, rows: &mut Vec<Row>) {
    add(rows, "plain TCP", plain_tcp(blob, &net.path().join("copy")));
    let (server, sample) = static_http(blob, &net.path().join("copy"));
    add(rows, server, sample);
    if let Some(python) = talk::python_with_libtorrent() {
        add(rows, TORRENT, torrent(net, python, blob));
    }
    if let Some(peer) = Iroh::found() {
        add(rows, IROH, iroh(net, &peer, blob));
    }
}

fn torrent(net: &Net, python: &Path, blob: &Path) -> Sample {
    let work = net.folder("torrent");
    let torrent = talk::make_torrent(python, blob, &work, PIECE);
    let end = |role: &str, files: &Path, port: &str| {
        let mut command = Command::new(python);
        command
            .arg(talk::torrent_script())
            .args([role, "fast"])
            .args([&torrent, files])
            .args(["127.0.0.1", port]);
        command.current_dir(&work);
        command
    };
    let free =
        || TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let (from, to) = (free().to_string(), free().to_string());
    let mut seed = Talker::start(end("seed", blob.parent().expect("a folder"), &from));
    seed.hear("ready");
    let mut command = end("leech", &net.folder("torrent/copy"), &to);
    command.arg(format!("127.0.0.1:{from}"));
    let mut leech = Talker::start(command);
    leech.hear("ready");
    let sample = between(&seed, &mut leech);
    drop((seed, leech));
    let _ = fs::remove_dir_all(work);
    sample
}

fn iroh(net: &Net, peer: &Iroh, blob: &Path) -> Sample {
    let work = net.folder("iroh");
    let free = || {
        UdpSocket::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").to_string()
    };
    let (from, to) = (free(), free());
    let command = || {
        let mut command = Command::new(peer.program());
        command.current_dir(&work);
        command
    };
    let (provider, hash, name) = peer.provide(command(), blob, &net.folder("iroh/provider"), &from);
    let size = blob.metadata().expect("the blob").len();
    let mut fetch = peer.fetch(command(), &hash, size, &net.folder("iroh/fetch"), &to, &[name]);
    let sample = between(&provider, &mut fetch);
    drop((provider, fetch));
    let _ = fs::remove_dir_all(work);
    sample
}

/// What both use from `go` to `done`.
fn between(sender: &Talker, receiver: &mut Talker) -> Sample {
    let (from, to) = (sender.pid(), receiver.pid());
    meter::reset_peak(from);
    meter::reset_peak(to);
    let before = (meter::cpu_seconds(from), meter::cpu_seconds(to));
    let start = Instant::now();
    receiver.say("go");
    receiver.hear("done");
    Sample {
        seconds: start.elapsed().as_secs_f64(),
        sender_cpu: meter::cpu_seconds(from) - before.0,
        receiver_cpu: meter::cpu_seconds(to) - before.1,
        sender_peak: meter::peak_resident(from),
        receiver_peak: meter::peak_resident(to),
    }
}
