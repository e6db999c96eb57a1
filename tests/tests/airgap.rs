//! A node that no network reaches: what comes by hand is judged by the same policy as what comes by wire.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;

use serde_json::{Value, json};
use tests::net::Settings;
use tests::{Daemon, Home, Net, generate, until};

/// A rule beside the shipped ones: another nation has to vouch.
const VOUCHED: &str = r#"
@id("vouched")
@reason("{passes} allies vouch")
@advice("ask one")
forbid (principal, action == Action::"admit", resource)
unless { context.passes >= 1 && context.fails == 0 };
"#;

fn publish(net: &Net, home: &Home) -> String {
    let folder = net.folder("tiny");
    fs::write(folder.join("tiny.gguf"), generate::tiny_gguf()).unwrap();
    home.publish(&folder, "tiny", "1", &["--releasable-to", "all"])
}

/// Waits until `node` has alba's two entries, cosigned by cora.
fn witnessed(node: &Daemon) {
    until("alba's log to be witnessed by cora", || {
        let status = node.http.get("/v1/log");
        let log = status["logs"].as_array()?.iter().find(|log| log["nation"] == "alba")?.clone();
        let by = log["witnesses"].as_array()?.iter().any(|nation| nation == "cora");
        (log["size"] == 2 && by).then_some(())
    });
}

fn bundle(net: &Net, from: &Home, name: &str) -> String {
    let path = net.path().join(name).to_str().unwrap().to_owned();
    from.ok(&["export", "alba/tiny", &path, "--for", "borea"]);
    path
}

#[test]
fn a_node_without_a_network_admits_and_serves_by_the_default_policy() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    let release = publish(&net, &alba);
    // Before anybody witnessed alba's log there is a bundle too, and it is worth nothing under the default policy.
    let early = bundle(&net, &alba, "early");
    let (a, c) = (alba.start(), cora.start());
    c.connect(&a);
    witnessed(&a);
    witnessed(&c);
    let proved = bundle(&net, &alba, "proved");
    // An ally that has it can hand it on with the same evidence, and with what it attests.
    c.pull("alba/tiny").unwrap_or_else(|problem| panic!("{problem}"));
    cora.ok(&["attest", "alba/tiny", "--suite", "mmlu", "--verdict", "pass"]);
    let attested = bundle(&net, &cora, "attested");
    drop((a, c));

    // borea never speaks to anybody, and its settings are those of `steelyard init`.
    assert!(!fs::read_to_string(borea.path.join("config.toml")).unwrap().contains("\nwitnesses = 0"));
    let before = borea.listing();
    borea.run(&["import", &early]).expect(5, &["logged"]);
    assert_eq!(borea.listing(), before, "a refused bundle leaves nothing");
    borea.run(&["show", "alba/tiny"]).expect(3, &[]);
    let imported = borea.json(&["import", &proved]);
    assert_eq!((&imported["release"], &imported["decision"]["allowed"]), (&json!(release), &json!(true)));
    assert_eq!(imported["checkpoint"]["witnesses"], json!(["cora"]), "{imported}");
    let shown = borea.json(&["show", "alba/tiny"]);
    assert_eq!((&shown["presence"], &shown["admitted"]), (&json!("complete"), &json!(true)), "{shown}");

    // A rule of its own that asks for a voucher is answered by the attestation in another bundle of the same release.
    fs::write(borea.path.join("rules.cedar"), VOUCHED).unwrap();
    let more = "[policy]\nfile = \"rules.cedar\"\n".to_owned();
    borea.configure(&Settings { more, ..Settings::default() });
    borea.run(&["import", &proved]).expect(5, &["vouched"]);
    let imported = borea.json(&["import", &attested]);
    assert_eq!(imported["decision"]["allowed"], true, "{imported}");

    let b = borea.start();
    assert_eq!(b.http.get("/v1/peers"), json!([]));
    let worker: Value = b.serve("alba/tiny").unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!(worker["release"], json!(release), "{worker}");
    assert_eq!(b.stop(), 0);
}

#[test]
fn what_the_policy_would_not_release_is_not_exported_either() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    let release = publish(&net, &alba);
    let rule = r#"
@id("not-to-borea")
@reason("{nation} asks")
@advice("ask us")
forbid (principal == Nation::"borea", action == Action::"release", resource);
"#;
    fs::write(alba.path.join("rules.cedar"), rule).unwrap();
    alba.configure(&Settings {
        more: "[policy]\nfile = \"rules.cedar\"\n".to_owned(),
        ..Settings::default()
    });
    let out = net.path().join("out").to_str().unwrap().to_owned();
    alba.run(&["export", "alba/tiny", &out, "--for", "borea"]).expect(5, &["not-to-borea", "borea"]);
    assert!(!std::path::Path::new(&out).exists());
    // For our own nation the rule says nothing.
    alba.ok(&["export", "alba/tiny", &out]);
    alba.configure(&Settings::default());
    // Of a recalled release the statements go, and the recall with them; the bytes don't.
    alba.recall("alba/tiny@1", "a drill", "low");
    let recalled = net.path().join("recalled").to_str().unwrap().to_owned();
    alba.run(&["export", &release, &recalled, "--for", "borea"]).expect(5, &["recalled", "--without-blobs"]);
    alba.ok(&["export", &release, &recalled, "--for", "borea", "--without-blobs"]);
    borea.run(&["import", &recalled]).expect(5, &["not-recalled"]);
    let recalls = borea.start().http.get("/v1/recalls");
    assert_eq!(recalls.as_array().unwrap().len(), 1, "{recalls}");
}
