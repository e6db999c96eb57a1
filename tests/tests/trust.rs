//! Trust: who is talked to, what is believed, and who may have what.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::PathBuf;
use std::time::Duration;

use registry::key::SecretKey;
use registry::statement::{Channel, RoleName, Statement};
use registry::{Digest, Signed, Timestamp};
use serde_json::json;
use tests::{Home, Net, generate, until, wait};

fn small(net: &Net, name: &str, seed: u64) -> PathBuf {
    let folder = net.folder(name);
    generate::safetensors(&folder.join("model.safetensors"), 2 << 20, seed).unwrap();
    folder
}

/// A secret key of `home`, as its operator has it.
fn key(home: &Home, role: RoleName) -> SecretKey {
    SecretKey::load(&home.path.join(format!("keys/{role}.key"))).unwrap()
}

#[test]
fn an_unpinned_nation_is_not_talked_to() {
    let net = Net::new();
    let alba = net.nation("alba");
    let dora = net.nation("dora");
    dora.trust(&alba);
    alba.publish(&small(&net, "model", 1), "small", "1", &["--releasable-to", "all"]);
    let (a, d) = (alba.start(), dora.start());
    let reply = d.http.request("POST", "/v1/peers", Some(&json!({ "address": a.address() })));
    println!("{} {}", reply.status, reply.text());
    let peer = a.peer_id();
    // dora knows alba, alba does not know dora: neither counts the other among its peers.
    wait::within(Duration::from_secs(15), "the connection to be refused", || {
        (!d.knows(&peer) && a.http.get("/v1/peers").as_array()?.is_empty()).then_some(())
    });
    dora.run(&["pull", "alba/small"]).expect(3, &["alba/small"]);
    assert!(d.http.get("/v1/models").as_array().unwrap().is_empty(), "no statement came through");
    // Once alba pins dora, it works.
    let file: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dora.nation_file()).unwrap()).unwrap();
    a.http.post("/v1/nations", &json!({ "file": file, "fingerprint": dora.fingerprint() }));
    d.connect(&a);
    d.pull("alba/small").unwrap_or_else(|problem| panic!("{problem}"));
    // And when alba unpins it, the connection is closed at once.
    let reply = a.http.request("DELETE", "/v1/nations/dora", None);
    assert!(reply.status < 300, "{}", reply.text());
    until("dora to be disconnected", || a.http.get("/v1/peers").as_array()?.is_empty().then_some(()));
}

#[test]
fn a_nation_is_pinned_by_the_fingerprint_that_people_compared() {
    let net = Net::new();
    let (alba, borea, mallory) = (net.nation("alba"), net.nation("borea"), net.nation("mallory"));
    let file = alba.nation_file();
    let file = file.to_str().unwrap();
    borea
        .run(&["trust", "add", file, "--fingerprint", &mallory.fingerprint()])
        .expect(4, &["fingerprint", "alba"]);
    borea.run(&["trust", "add", file, "--fingerprint", "b3:00"]).expect(2, &["fingerprint"]);
    assert_eq!(borea.json(&["trust", "ls"]).as_array().unwrap().len(), 1, "only itself");
    borea.trust(&alba);
    borea.trust(&alba);
    // Another root under the same name is refused while the first is pinned.
    let other = Net::new();
    let impostor = other.nation("alba");
    let file = impostor.nation_file();
    borea
        .run(&["trust", "add", file.to_str().unwrap(), "--fingerprint", &impostor.fingerprint()])
        .expect(7, &["alba", "trust rm"]);
    borea.run(&["trust", "rm", "borea"]).expect(2, &["own"]);
    borea.run(&["trust", "rm", "zeta"]).expect(3, &["zeta"]);
}

#[test]
fn releasability_is_kept_on_the_wire() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    let open = alba.publish(&small(&net, "open", 1), "open", "1", &["--releasable-to", "all"]);
    let closed = alba.publish(&small(&net, "closed", 2), "closed", "1", &["--releasable-to", "borea"]);
    let (a, b, c) = (alba.start(), borea.start(), cora.start());
    for node in [&b, &c] {
        node.connect(&a);
    }
    b.connect(&c);
    b.pull("alba/closed").unwrap_or_else(|problem| panic!("{problem}"));
    c.pull("alba/open").unwrap_or_else(|problem| panic!("{problem}"));
    // cora hears neither of the release nor of its channel, from alba or from borea, and can't have it by its digest.
    c.http.post("/v1/sync", &json!({}));
    for reference in ["alba/closed", "alba/closed@1", &closed] {
        let problem = c.pull(reference).unwrap_err();
        assert_eq!(problem["code"], "not_found", "{problem}");
    }
    let known = c.http.get("/v1/models").to_string();
    assert!(known.contains(&open) && !known.contains(&closed) && !known.contains("closed"), "{known}");
}

#[test]
fn a_channel_does_not_go_back() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    let first = alba.publish(&small(&net, "one", 1), "small", "1", &["--releasable-to", "all"]);
    let second = alba.publish(&small(&net, "two", 2), "small", "2", &["--releasable-to", "all"]);
    let (a, b) = (alba.start(), borea.start());
    b.connect(&a);
    let pulled = b.pull("alba/small").unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!(pulled["release"], *second);
    // Somebody replays an old state, signed by the right key: borea refuses it and says why.
    let release: Digest = first.parse().unwrap();
    let channel = |sequence, issued| {
        let statement = Statement::Channel(Channel {
            model: "alba/small".parse().unwrap(),
            channel: registry::ChannelName::new("stable").unwrap(),
            sequence,
            release,
            reason: String::new(),
            issued,
        });
        Signed::sign(&statement, &key(&alba, RoleName::Release))
    };
    let offer = |signed: &Signed| {
        let body: serde_json::Value = serde_json::from_slice(&signed.to_json()).unwrap();
        a.http.request("POST", "/v1/statements", Some(&body))
    };
    let reply = offer(&channel(1, Timestamp::now().plus(-30)));
    assert_eq!(reply.status, 409, "{}", reply.text());
    assert!(reply.text().contains("sequence"), "{}", reply.text());
    let reply = offer(&channel(2, Timestamp::now()));
    assert_eq!(reply.status, 409, "two releases under one sequence: {}", reply.text());
    // A rollback is a higher sequence, and everybody sees it.
    let reply = offer(&channel(3, Timestamp::now()));
    assert!(reply.status < 300, "{}", reply.text());
    until("borea to follow the rollback", || {
        let resolved = b.http.request("GET", "/v1/resolve?ref=alba/small", None);
        (resolved.json()["release"] == *first).then_some(())
    });
    // Forged or altered statements never enter.
    let reply = a.http.request("POST", "/v1/statements", Some(&json!([{"payload": "e30="}])));
    assert!(matches!(reply.status, 400 | 422), "{} {}", reply.status, reply.text());
    let mut foreign: serde_json::Value =
        serde_json::from_slice(&channel(4, Timestamp::now()).to_json()).unwrap();
    foreign[0]["signatures"][0]["sig"] = json!("A".repeat(86) + "==");
    let reply = a.http.request("POST", "/v1/statements", Some(&foreign));
    assert_eq!(reply.status, 422, "{}", reply.text());
}

#[test]
fn nothing_new_is_believed_under_an_expired_root() {
    /// Long enough to publish, start and pull; short enough to wait for.
    const LIFE: i64 = 25;
    let net = Net::new();
    let borea = net.nation("borea");
    let alba = tests::craft::nation_that_ends(&net, "alba", LIFE);
    let end = std::time::Instant::now() + Duration::from_secs(LIFE as u64);
    alba.trust(&borea);
    borea.trust(&alba);
    alba.publish(&small(&net, "one", 1), "small", "1", &["--releasable-to", "all"]);
    let folder = small(&net, "two", 2);
    let (a, b) = (alba.start(), borea.start());
    b.connect(&a);
    b.pull("alba/small").unwrap_or_else(|problem| panic!("{problem}"));
    assert!(std::time::Instant::now() < end, "the machine is too slow for this test");

    wait::within(Duration::from_secs(60), "alba's root to end", || {
        (std::time::Instant::now() > end).then_some(())
    });
    // Nothing can be published under it, and what was pulled is no longer admitted anew.
    let run = alba.run(&[
        "publish",
        folder.to_str().unwrap(),
        "--as",
        "alba/small",
        "--version",
        "2",
        "--licence",
        "MIT",
    ]);
    assert!(run.code != 0 && run.stderr.contains("expired"), "{run}");
    let nations = b.http.get("/v1/nations");
    let entry = nations.as_array().unwrap().iter().find(|n| n["nation"] == "alba").unwrap().clone();
    assert_eq!(entry["expired"], true, "{entry}");
    borea.run(&["serve", "alba/small"]).expect(4, &["expired"]);
    // Its node is no longer talked to, and a new nation does not pin it.
    until("alba's node to be let go", || b.http.get("/v1/peers").as_array()?.is_empty().then_some(()));
    let cora = net.nation("cora");
    let file = alba.nation_file();
    cora.run(&["trust", "add", file.to_str().unwrap(), "--fingerprint", &alba.fingerprint()])
        .expect(4, &["expired"]);
    // A recall is heard all the same: it can only take something out of service.
    alba.recall("alba/small@1", "we can still warn", "high");
    let recall = a.http.get("/v1/recalls")[0]["recall"].as_str().unwrap().to_owned();
    println!("{recall} was signed under an expired root");
}
