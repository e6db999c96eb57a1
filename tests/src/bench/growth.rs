//! How the cost grows: with the releases in a store, and with the peers of a node.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use registry::key::SecretKey;
use registry::statement::{Channel, Releasable, Release, Statement};
use registry::{Signed, Timestamp};
use serde_json::{Value, json};

use super::options;
use super::report::{Bar, Table};
use crate::wait::within;
use crate::{Daemon, Home, Net, craft, generate, meter};

/// Bytes of each tiny release: statements are what is counted here.
const TINY: u64 = 4096;
/// A peer knows everything, or hears of something new, by then.
const NEWS: Duration = Duration::from_secs(300);
/// How long a hub with connected peers is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(5);
/// How long the nations of the peers last: longer than any run.
const SECONDS: i64 = 24 * 3600;

/// Runs it in `folder`.
///
/// # Errors
/// Nothing that a machine may lack; other parts do.
pub fn run(folder: &Path) -> Result<Vec<Bar>, String> {
    releases(folder);
    peers(folder);
    Ok(Vec::new())
}

/// Publishes tiny releases over a node's socket, as the command does, without starting a process for each.
struct Publisher<'a> {
    net: &'a Net,
    node: &'a Daemon,
    key: SecretKey,
}

impl<'a> Publisher<'a> {
    fn new(net: &'a Net, node: &'a Daemon) -> Self {
        let key = SecretKey::load(&node.home.path.join("keys/release.key")).expect("the release key");
        Self { net, node, key }
    }

    /// `NATION/m{index}`, version 1, in channel `stable`.
    fn publish(&self, index: usize) {
        let model = self.net.folder("tiny");
        generate::safetensors(&model.join("model.safetensors"), TINY, index as u64).expect("a tiny model");
        let draft = self.node.http.events("POST", "/v1/drafts", Some(&json!({ "path": model })));
        let draft = draft.outcome(NEWS).unwrap_or_else(|problem| panic!("{problem}"));
        let name = format!("{}/m{index}", self.node.home.nation);
        let issued = Timestamp::now();
        let release = Statement::Release(Release {
            model: name.parse().expect("a model's name"),
            version: "1".parse().expect("a version"),
            format: draft["format"].as_str().expect("a format").to_owned(),
            licence: "Apache-2.0".to_owned(),
            derived_from: Vec::new(),
            releasable_to: Releasable::All,
            model_card: None,
            issued,
            files: serde_json::from_value(draft["files"].clone()).expect("files"),
        });
        let digest = self.send(&release);
        self.send(&Statement::Channel(Channel {
            model: name.parse().expect("a model's name"),
            channel: "stable".parse().expect("a channel's name"),
            sequence: 1,
            release: digest.parse().expect("a digest"),
            reason: String::new(),
            issued,
        }));
    }

    fn send(&self, statement: &Statement) -> String {
        let signed = Signed::sign(statement, &self.key).to_json();
        let signed: Value = serde_json::from_slice(&signed).expect("JSON");
        let accepted = self.node.http.post("/v1/statements", &signed);
        accepted["digest"].as_str().expect("a digest").to_owned()
    }
}

/// Waits until the node can resolve that release.
fn hear_of(node: &Daemon, reference: &str) {
    within(NEWS, &format!("{} to hear of {reference}", node.home.nation), || {
        let reply = node.http.try_request("GET", &format!("/v1/resolve?ref={reference}"), None).ok()?;
        (reply.status == 200).then_some(())
    });
}

fn mib(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / f64::from(1 << 20))
}

fn ms(start: Instant) -> String {
    format!("{:.0}", start.elapsed().as_secs_f64() * 1000.0)
}

fn releases(folder: &Path) {
    let mut stages = options::list("STEELYARD_BENCH_RELEASES", &[1, 10, 100, 1000]);
    stages.sort_unstable();
    let net = Net::under(folder);
    let hub = net.nation("hub");
    let head = [
        "releases",
        "publish one, ms",
        "start, ms",
        "resident, MiB",
        "an ally learns all, ms",
        "the ally resident, MiB",
        "it pulls one, ms",
        "its ls, ms",
    ];
    let mut table = Table::new(&head);
    let mut have = 0;
    for stage in stages {
        eprintln!("growth: {stage} releases");
        let node = hub.start();
        let publisher = Publisher::new(&net, &node);
        let start = Instant::now();
        (have..stage).for_each(|index| publisher.publish(index));
        let each = start.elapsed().as_secs_f64() * 1000.0 / (stage - have).max(1) as f64;
        have = stage;
        node.stop();

        let start = Instant::now();
        let node = hub.start();
        let (started, resident) = (ms(start), meter::resident(node.pid()));
        let ally = net.nation(&format!("ally{stage}")).start();
        node.pin(&ally.home);
        ally.pin(&hub);
        let start = Instant::now();
        ally.http.post("/v1/peers", &json!({ "address": node.address() }));
        hear_of(&ally, &format!("hub/m{}", stage - 1));
        let learned = ms(start);
        let ally_resident = meter::resident(ally.pid());
        let start = Instant::now();
        ally.pull("hub/m0").unwrap_or_else(|problem| panic!("{problem}"));
        let pulled = ms(start);
        let listed = ally.home.ok(&["ls"]).took.as_secs_f64() * 1000.0;
        table.row(&[
            &stage,
            &format!("{each:.1}"),
            &started,
            &mib(resident),
            &learned,
            &mib(ally_resident),
            &pulled,
            &format!("{listed:.0}"),
        ]);
        let path = ally.home.path.clone();
        drop((ally, node));
        let _ = fs::remove_dir_all(path);
    }
    println!("### Releases in the store\n");
    println!(
        "Tiny releases, each of a model of its own with a channel; a fresh ally connects and learns them all.\n"
    );
    println!("{table}");
}

fn peers(folder: &Path) {
    let mut stages = options::list("STEELYARD_BENCH_NODES", &[4, 16, 64]);
    stages.sort_unstable();
    let net = Net::under(folder);
    let hub = net.nation("hub").start();
    let publisher = Publisher::new(&net, &hub);
    let head = [
        "peers",
        "hub resident, MiB",
        "a peer's median, MiB",
        "hub idle, CPU ms/s",
        "news reach all, ms",
        "hub CPU for it, ms",
        "one pulls, ms",
    ];
    let mut table = Table::new(&head);
    let mut leaves: Vec<Daemon> = Vec::new();
    for stage in stages {
        eprintln!("growth: {stage} peers");
        while leaves.len() < stage {
            leaves.push(leaf(&net, &hub, leaves.len()));
        }
        within(NEWS, "all peers to be connected", || {
            let count = hub.http.get("/v1/peers").as_array().map_or(0, Vec::len);
            (count >= stage).then_some(())
        });
        let before = meter::cpu_seconds(hub.pid());
        std::thread::sleep(IDLE);
        let idle = (meter::cpu_seconds(hub.pid()) - before) * 1000.0 / IDLE.as_secs_f64();
        let before = meter::cpu_seconds(hub.pid());
        let start = Instant::now();
        publisher.publish(stage);
        let reference = format!("hub/m{stage}");
        leaves.iter().for_each(|leaf| hear_of(leaf, &reference));
        let (news, cost) = (ms(start), (meter::cpu_seconds(hub.pid()) - before) * 1000.0);
        let start = Instant::now();
        let last = leaves.last().expect("a peer");
        last.pull(&reference).unwrap_or_else(|problem| panic!("{problem}"));
        let pulled = ms(start);
        let mut resident: Vec<u64> = leaves.iter().map(|leaf| meter::resident(leaf.pid())).collect();
        resident.sort_unstable();
        table.row(&[
            &stage,
            &mib(meter::resident(hub.pid())),
            &mib(resident[resident.len() / 2]),
            &format!("{idle:.0}"),
            &news,
            &format!("{cost:.0}"),
            &pulled,
        ]);
    }
    println!("### Peers of a node\n");
    println!(
        "Nations of one node each, all connected to one hub on one machine; the hub publishes, and each peer learns of it.\n"
    );
    println!("{table}");
}

/// A nation whose node is connected to the hub. Made without a command, which would take longer than all else here.
fn leaf(net: &Net, hub: &Daemon, index: usize) -> Daemon {
    let home: Home = craft::nation_that_ends(net, &format!("leaf{index}"), SECONDS);
    hub.pin(&home);
    let leaf = home.start();
    leaf.pin(&hub.home);
    leaf.http.post("/v1/peers", &json!({ "address": hub.address() }));
    leaf
}
