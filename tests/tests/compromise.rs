//! A stolen online key: rotated, the thief's later release is refused everywhere, and what was signed before stays by log order.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tests::{Daemon, Home, Net, generate, wait};

fn small(net: &Net, name: &str, seed: u64) -> PathBuf {
    let folder = net.folder(name);
    generate::safetensors(&folder.join("model.safetensors"), 2 << 20, seed).unwrap();
    folder
}

fn version(node: &Daemon, name: &str) -> Value {
    let nations = node.http.get("/v1/nations");
    nations.as_array().unwrap().iter().find(|entry| entry["nation"] == name).unwrap()["version"].clone()
}

fn resolves(node: &Daemon, reference: &str) -> bool {
    node.http.request("GET", &format!("/v1/resolve?ref={reference}"), None).status == 200
}

/// Replaces alba's keys of these roles by new ones; they lie in alba's `keys` folder then.
fn rotate(net: &Net, alba: &Home, roles: &[&str]) {
    let draft = net.path().join("next.draft");
    let mut args: Vec<String> =
        ["root", "rotate", "--out", draft.to_str().unwrap()].map(str::to_owned).to_vec();
    for role in roles {
        let (key, new) = (alba.path.join(format!("keys/{role}.key")), net.path().join(format!("{role}.new")));
        let id = alba.json(&["key", "show", key.to_str().unwrap()])["id"].as_str().unwrap()[..16].to_owned();
        let made = alba.json(&["key", "new", new.to_str().unwrap(), "--plain"]);
        args.extend(["--replace".to_owned(), format!("{id}={}", made["public"].as_str().unwrap())]);
    }
    alba.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let root_key = alba.path.join("keys/root.key");
    alba.ok(&["root", "sign", draft.to_str().unwrap(), "--key", root_key.to_str().unwrap(), "--yes"]);
    for role in roles {
        fs::rename(net.path().join(format!("{role}.new")), alba.path.join(format!("keys/{role}.key")))
            .unwrap();
    }
    alba.ok(&["root", "publish", draft.to_str().unwrap()]);
    fs::remove_file(&draft).unwrap();
}

#[test]
fn a_thief_s_later_release_is_refused_everywhere_and_earlier_ones_stay() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    alba.publish(&small(&net, "one", 1), "m", "1", &["--releasable-to", "all"]);
    let (a, b) = (alba.start(), borea.start());
    b.connect(&a);
    b.pull("alba/m").unwrap_or_else(|problem| panic!("{problem}"));

    // The thief has the release key and a node of alba that he keeps apart. He publishes, and moves the channel.
    let thief = Home { nation: "alba".into(), path: net.path().join("thief"), env: Vec::new(), netns: None };
    thief.ok(&["init", "--join", alba.path.to_str().unwrap()]);
    thief.configure(&tests::net::Settings::default());
    thief.trust(&borea);
    thief.trust(&cora);
    fs::copy(alba.path.join("keys/release.key"), thief.path.join("keys/release.key")).unwrap();
    thief.publish(&small(&net, "bad", 2), "m", "2", &["--releasable-to", "all"]);

    // alba notices, and replaces the key. Allies hear of it at once; what they had admitted stays.
    rotate(&net, &alba, &["release"]);
    wait::within(Duration::from_secs(20), "borea to have the next root", || {
        (version(&b, "alba") == 2).then_some(())
    });
    let releases = b.http.get("/v1/models/alba/m")["releases"].clone();
    assert_eq!(
        (releases.as_array().unwrap().len(), &releases[0]["admitted"]),
        (1, &Value::Bool(true)),
        "{releases}"
    );

    // The thief's node meets borea: it is still certified, but what he published is not believed.
    let t = thief.start();
    t.connect(&b);
    b.http.post("/v1/sync", &serde_json::json!({}));
    wait::within(Duration::from_secs(20), "the thief's node to be told of the root", || {
        (version(&t, "alba") == 2).then_some(())
    });
    assert!(!resolves(&b, "alba/m@2"), "borea believes the thief");
    assert_eq!(b.http.get("/v1/models/alba/m")["releases"].as_array().unwrap().len(), 1);

    // A node that comes late orders both by alba's log: the earlier release is admitted, the thief's is unknown.
    let c = cora.start();
    c.connect(&a);
    wait::within(Duration::from_secs(20), "cora to have the next root", || {
        (version(&c, "alba") == 2).then_some(())
    });
    c.connect(&t);
    wait::within(Duration::from_secs(40), "cora to admit the earlier release", || {
        c.pull("alba/m@1").ok().map(|_| ())
    });
    assert!(!resolves(&c, "alba/m@2"), "cora believes the thief");
    // alba goes on, with its new key.
    alba.publish(&small(&net, "three", 3), "m", "3", &["--releasable-to", "all"]);
    for node in [&b, &c] {
        wait::within(Duration::from_secs(20), "the next release", || {
            resolves(node, "alba/m@3").then_some(())
        });
        node.pull("alba/m").unwrap_or_else(|problem| panic!("{problem}"));
    }
}

#[test]
fn a_whole_role_is_replaced_and_a_stolen_node_s_certificate_goes_with_its_key() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    let thief = Home { nation: "alba".into(), path: net.path().join("thief"), env: Vec::new(), netns: None };
    thief.ok(&["init", "--join", alba.path.to_str().unwrap()]);
    thief.configure(&tests::net::Settings::default());
    thief.trust(&borea);
    alba.publish(&small(&net, "one", 1), "m", "1", &["--releasable-to", "all"]);
    let (a, b, t) = (alba.start(), borea.start(), thief.start());
    b.connect(&a);
    b.connect(&t);
    b.pull("alba/m").unwrap_or_else(|problem| panic!("{problem}"));
    let stolen = t.peer_id();
    assert!(b.knows(&stolen));

    rotate(&net, &alba, &["node", "recall"]);
    // Both certificates were signed by the key that is gone: borea lets both nodes go; alba's comes back with its new one.
    wait::within(Duration::from_secs(20), "the stolen node to be let go", || {
        (!b.knows(&stolen)).then_some(())
    });
    drop(a);
    let a = alba.start();
    b.connect(&a);
    b.connect_refused(&t);
    assert!(!b.knows(&stolen));
    // What alba released before is admitted as ever: its release role did not change.
    b.pull("alba/m").unwrap_or_else(|problem| panic!("{problem}"));
    alba.recall("alba/m@1", "with the new key", "low");
    wait::within(Duration::from_secs(20), "the recall", || {
        (b.http.get("/v1/models/alba/m")["releases"][0]["recalled"] == true).then_some(())
    });
}
