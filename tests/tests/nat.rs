//! Nodes behind NATs: alba publishes and cora pulls, each behind a router that lets nobody in; borea's node, which both
//! reach, relays. In network namespaces with real routers.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;

use serde_json::{Value, json};
use tests::netns::{Lab, Nat};
use tests::{Daemon, Home, Net, generate, until, wait};

/// The relay on the public segment.
const RELAY: &str = "203.0.113.10";
/// alba's router there.
const ALBA: &str = "203.0.113.2";
/// cora's router there.
const CORA: &str = "203.0.113.3";
/// Long beside what hellos, probes and news cost, short on a slow machine.
const SIZE: u64 = 24 << 20;
/// What passes the relay when content does not: handshakes, news, probes.
const TALK: u64 = SIZE / 8;
/// A hole is punched in three attempts of ten seconds at most, or not at all.
const PUNCHING: std::time::Duration = std::time::Duration::from_secs(120);

/// How a host is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Quic,
    Tcp,
}

impl Over {
    fn address(self, ip: &str) -> String {
        match self {
            Self::Quic => format!("/ip4/{ip}/udp/4801/quic-v1"),
            Self::Tcp => format!("/ip4/{ip}/tcp/4801"),
        }
    }
}

/// Writes a host's settings; `p2p` are further lines of its `[p2p]`.
fn configure(home: &Home, listen: &str, p2p: &str) {
    let text = format!(
        "[p2p]\nlisten = [\"{listen}\"]\nredial_secs = 1\nsync_secs = 2\n{p2p}\n[http]\nlisten = \"127.0.0.1:0\"\n"
    );
    fs::write(home.path.join("config.toml"), text).unwrap();
}

/// Three nations and their network.
struct Scene {
    _net: Net,
    alba: Home,
    borea: Home,
    cora: Home,
    lab: Lab,
    release: String,
}

/// alba and cora behind these routers; `None` where namespaces can't be made, which is said.
fn scene(alba_nat: Nat, cora_nat: Nat) -> Option<Scene> {
    let mut lab = match Lab::new() {
        Ok(lab) => lab,
        Err(why) => {
            println!("skipped: {why}");
            return None;
        }
    };
    let net = Net::new();
    let [mut alba, mut borea, mut cora] = net.allies(["alba", "borea", "cora"]);
    let folder = net.folder("model");
    generate::safetensors(&folder.join("model.safetensors"), SIZE, 7).unwrap();
    fs::write(folder.join("README.md"), "---\nlicense: mit\n---\n# A model\n").unwrap();
    let release = alba.publish(&folder, "far", "1", &["--releasable-to", "cora"]);
    borea.netns = Some(lab.public("relay", RELAY).unwrap());
    alba.netns = Some(lab.behind("alba", ALBA, alba_nat).unwrap());
    cora.netns = Some(lab.behind("cora", CORA, cora_nat).unwrap());
    Some(Scene { _net: net, alba, borea, cora, lab, release })
}

/// The relay, the publisher, the puller: in the order in which they must end.
struct Running {
    cora: Daemon,
    alba: Daemon,
    borea: Daemon,
}

impl Scene {
    /// Starts all three. cora knows alba by its circuit only.
    fn start(&self, over: Over, relay: &str, node: &str) -> Running {
        configure(&self.borea, &over.address(RELAY), &format!("relay = true\n{relay}"));
        let borea = self.borea.start();
        let at_relay = format!("{}/p2p/{}", over.address(RELAY), borea.peer_id());
        configure(&self.alba, &over.address("0.0.0.0"), &format!("relays = [\"{at_relay}\"]\n{node}"));
        let alba = self.alba.start();
        until("alba's slot at the relay", || {
            (alba.status()["reach"]["relays"][0]["state"] == "reserved").then_some(())
        });
        let circuit = format!("{at_relay}/p2p-circuit/p2p/{}", alba.peer_id());
        let addresses = alba.status()["addresses"].to_string();
        assert!(addresses.contains(&circuit), "{circuit} is announced: {addresses}");
        assert_eq!(borea.status()["reach"]["relaying"]["reservations"], 1);
        configure(&self.cora, &over.address("0.0.0.0"), &format!("peers = [\"{circuit}\"]\n{node}"));
        let cora = self.cora.start();
        until("cora to know alba", || peer(&cora, &alba));
        Running { cora, alba, borea }
    }
}

/// How `of` knows `other`.
fn peer(of: &Daemon, other: &Daemon) -> Option<Value> {
    let id = other.peer_id();
    of.http.get("/v1/peers").as_array()?.iter().find(|peer| peer["peer_id"] == *id).cloned()
}

/// Waits until both have a direct connection and no other.
fn until_direct(nodes: &Running) {
    wait::within(PUNCHING, "a punched hole", || {
        let direct = |of, other| peer(of, other).is_some_and(|peer| peer["relayed"] == false);
        (direct(&nodes.cora, &nodes.alba) && direct(&nodes.alba, &nodes.cora)).then_some(())
    });
    wait::within(PUNCHING, "the circuit to be closed", || {
        (nodes.borea.status()["reach"]["relaying"]["circuits"] == 0).then_some(())
    });
}

/// cora pulls; answers the bytes that passed the relay meanwhile, both ways.
fn pull(scene: &Scene, nodes: &Running) -> u64 {
    let before = scene.lab.bytes("relay");
    let pulled =
        nodes.cora.pull("alba/far").unwrap_or_else(|problem| panic!("{problem}\n{}", nodes.cora.log()));
    assert_eq!(pulled["release"], *scene.release, "{pulled}");
    scene.lab.bytes("relay") - before
}

fn punched(alba_nat: Nat, cora_nat: Nat, over: Over) {
    let Some(scene) = scene(alba_nat, cora_nat) else { return };
    let nodes = scene.start(over, "", "");
    until_direct(&nodes);
    let seen = peer(&nodes.cora, &nodes.alba).unwrap();
    assert!(seen["address"].as_str().unwrap().contains(ALBA), "by the router's address: {seen}");
    let relayed = pull(&scene, &nodes);
    println!("{over:?} {alba_nat:?} {cora_nat:?}: {SIZE} bytes pulled, {relayed} bytes passed the relay");
    assert!(relayed < TALK, "{relayed} bytes passed the relay");

    // Nobody could dial alba, and its node has found out and tells.
    wait::within(PUNCHING, "the probes of alba's addresses", || {
        let reach = nodes.alba.status()["reach"].clone();
        assert_ne!(reach["reachability"], "public", "{reach}");
        (reach["reachability"] == "behind_nat").then_some(())
    });
    assert_eq!(nodes.borea.status()["reach"]["reachability"], "public");
    let shown = scene.alba.ok(&["status"]);
    assert!(shown.stdout.contains("behind a NAT") && shown.stdout.contains("relay"), "{shown}");
}

#[test]
fn quic_punches_through_nats() {
    punched(Nat::Preserving, Nat::Preserving, Over::Quic);
}

#[test]
fn quic_punches_through_nats_that_map_to_other_ports() {
    punched(Nat::Mapped(4801, 14801), Nat::Mapped(4801, 24801), Over::Quic);
}

#[test]
fn tcp_punches_through_nats() {
    punched(Nat::Preserving, Nat::Mapped(4801, 24801), Over::Tcp);
}

#[test]
fn where_no_hole_can_be_punched_the_relay_carries_the_weights() {
    let Some(scene) = scene(Nat::Symmetric, Nat::Symmetric) else { return };
    // A third of the model: a circuit that has carried so much is cut, and the pull goes on over the next.
    let nodes = scene.start(Over::Quic, "relay_circuit_mib = 8", "");
    let relayed = pull(&scene, &nodes);
    println!("{SIZE} bytes pulled, {relayed} bytes passed the relay");
    assert!(relayed > 2 * SIZE, "in and out again: {relayed} bytes passed the relay");
    let log = fs::read_to_string(scene.borea.path.with_extension("log")).unwrap();
    let cut = log.lines().filter(|line| line.contains("a circuit was cut")).count();
    assert!(cut >= 2, "the relay cut {cut} circuits:\n{}", nodes.borea.log());
}

#[test]
fn content_stays_off_relays_where_the_settings_say_so() {
    let Some(scene) = scene(Nat::Symmetric, Nat::Symmetric) else { return };
    let nodes = scene.start(Over::Tcp, "", "relay_transfers = false\n");
    let before = scene.lab.bytes("relay");
    let problem = nodes.cora.pull("alba/far").unwrap_err();
    assert_eq!(problem["code"], "network", "{problem}");
    let relayed = scene.lab.bytes("relay") - before;
    assert!(relayed < TALK, "{relayed} bytes passed the relay");
}

/// Whom a relay does not know it does not relay, and a relay's word does not replace that of the two ends.
#[test]
fn a_relay_serves_pinned_nations_and_vouches_for_nobody() {
    let net = Net::new();
    let [alba, borea, cora] = ["alba", "borea", "cora"].map(|name| net.nation(name));
    let dora = net.nation("dora");
    // borea relays for alba and cora, which do not know each other. Nobody but dora knows dora.
    for (one, other) in [(&alba, &borea), (&borea, &alba), (&cora, &borea), (&borea, &cora), (&dora, &borea)]
    {
        one.trust(other);
    }
    cora.trust(&alba);
    configure(&borea, "/ip4/127.0.0.1/tcp/0", "relay = true");
    let relay = borea.start();
    let at_relay = relay.address();
    // A relay without an address to be reached at promises nothing: on loopback it must be told.
    let bare = at_relay.split_once("/p2p/").unwrap().0.to_owned();
    relay.stop();
    configure(&borea, &bare, &format!("relay = true\nexternal = [\"{bare}\"]"));
    let relay = borea.start();
    let settings = format!("relays = [\"{at_relay}\"]");

    configure(&dora, "/ip4/127.0.0.1/tcp/0", &settings);
    let stranger = dora.start();
    let state = until("dora to be refused", || {
        let state = stranger.status()["reach"]["relays"][0].clone();
        (state["state"] == "failed").then_some(state)
    });
    assert!(state["why"].as_str().unwrap().contains("does not trust"), "{state}");
    assert_eq!(relay.status()["reach"]["relaying"]["reservations"], 0);

    configure(&alba, "/ip4/127.0.0.1/tcp/0", &settings);
    let listener = alba.start();
    until("alba's slot", || (listener.status()["reach"]["relays"][0]["state"] == "reserved").then_some(()));
    assert_eq!(relay.status()["reach"]["relaying"]["reservations"], 1);
    assert!(!stranger.status()["addresses"].to_string().contains("p2p-circuit"));
    // alba's address is tried, too: nothing hinders a connection to it here.
    until("alba to be dialled back", || {
        let confirmed = listener.status()["reach"]["confirmed"].clone();
        confirmed.to_string().contains("/ip4/127.0.0.1/tcp/").then_some(())
    });

    // The relay lets cora's circuit through; alba, at its end, asks for a certificate and does not believe it.
    let caller = cora.start();
    let circuit = format!("{at_relay}/p2p-circuit/p2p/{}", listener.peer_id());
    let reply = caller.http.request("POST", "/v1/peers", Some(&json!({ "address": circuit })));
    assert!(reply.status >= 400 && reply.text().contains("does not trust `cora`"), "{}", reply.text());
    assert!(!listener.knows(&caller.peer_id()) && !caller.knows(&listener.peer_id()));

    // Once it does, they talk, and each knows the other's nation.
    alba.trust(&cora);
    until("alba to let cora in", || {
        let reply = caller.http.request("POST", "/v1/peers", Some(&json!({ "address": circuit })));
        (reply.status < 300).then_some(())
    });
    assert_eq!(peer(&caller, &listener).unwrap()["nation"], "alba");
    until("alba to know cora", || peer(&listener, &caller));
}
