//! Mirror rules: nodes that keep themselves stocked, and a node that passes on between nations that do not reach each other.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::PathBuf;

use serde_json::Value;
use tests::net::Settings;
use tests::{Daemon, Home, Net, generate, until};

/// A folder with weights of about so many MiB and a model card.
fn model(net: &Net, name: &str, mib: u64, seed: u64) -> PathBuf {
    let folder = net.folder(&format!("{name}-{seed}"));
    generate::safetensors(&folder.join("model.safetensors"), mib << 20, seed).unwrap();
    std::fs::write(folder.join("README.md"), "---\nlicense: mit\n---\n# A model\n").unwrap();
    folder
}

fn rules(home: &Home, more: &str) {
    home.configure(&Settings { more: more.to_owned(), ..Settings::default() });
}

/// What `GET /v1/mirror` says of a release.
fn entry(node: &Daemon, model: &str, version: &str) -> Option<Value> {
    let status = node.public().get("/v1/mirror");
    let found =
        status["releases"].as_array()?.iter().find(|it| it["model"] == model && it["version"] == version);
    found.cloned()
}

/// Waits until a release is in `state`.
fn becomes(node: &Daemon, model: &str, version: &str, state: &str) -> Value {
    until(&format!("{model}@{version} to be {state}"), || {
        entry(node, model, version).filter(|it| it["state"] == state)
    })
}

fn presence(node: &Daemon, release: &str) -> Value {
    node.public().get(&format!("/v1/releases/{release}"))["presence"].clone()
}

#[test]
fn an_entry_point_passes_on_what_is_releasable_and_nothing_else() {
    let net = Net::new();
    let [alba, borea, cora] = ["alba", "borea", "cora"].map(|name| net.nation(name));
    // Alba does not know cora's nodes and cuts them off; cora believes what alba signed.
    for (one, other) in [(&alba, &borea), (&borea, &alba), (&borea, &cora), (&cora, &borea), (&cora, &alba)] {
        one.trust(other);
    }
    let open = alba.publish(&model(&net, "open", 3, 1), "open", "1", &["--releasable-to", "borea,cora"]);
    let secret = alba.publish(&model(&net, "secret", 2, 2), "secret", "1", &["--releasable-to", "borea"]);
    alba.publish(&model(&net, "large", 6, 3), "large", "1", &["--releasable-to", "all"]);
    rules(&borea, "[[mirror]]\nname = \"allies\"\nmodels = [\"alba/*\"]\nmax_release = \"5 MiB\"\n");

    let (a, b, c) = (alba.start(), borea.start(), cora.start());
    b.connect(&a);
    c.connect(&b);
    let kept = becomes(&b, "alba/open", "1", "kept");
    assert_eq!((&kept["release"], &kept["rule"]), (&open.as_str().into(), &"allies".into()), "{kept}");
    becomes(&b, "alba/secret", "1", "kept");
    let large = becomes(&b, "alba/large", "1", "refused");
    assert!(large["reason"].as_str().unwrap().contains("limit of 5 MiB"), "{large}");

    // People see it, and so does whoever comes when the node is down.
    borea.ok(&["mirror"]).expect(0, &["allies", "alba/open@1", "kept", "limit of 5 MiB"]);
    borea.ok(&["ls"]).expect(0, &["mirrored by allies"]);
    borea.ok(&["status"]).expect(0, &["2 releases by 1 rule, 1 refused"]);
    assert_eq!(borea.json(&["mirror"])["rules"][0]["keeps"], 2);
    // A mirror's keep is no pin, and garbage collection leaves it alone.
    assert_eq!(b.http.get("/v1/pins").as_array().unwrap().len(), 0);
    borea.ok(&["gc"]);
    assert_eq!(presence(&b, &open), "complete");

    // Alba leaves; what it released to cora stays within cora's reach, through borea.
    assert_eq!(a.stop(), 0);
    let pulled = c.pull("alba/open").unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!(pulled["release"], *open, "{pulled}");
    let shares = pulled["transfer"]["peers"].as_array().unwrap();
    assert!(!shares.is_empty() && shares.iter().all(|share| share["nation"] == "borea"), "{pulled}");
    cora.ok(&["verify", "alba/open"]);

    // Of what is not releasable to it cora learns nothing, not even that it exists.
    let refused = c.pull("alba/secret").unwrap_err();
    assert_eq!(refused["code"], "not_found", "{refused}");
    let refused = c.pull(&secret).unwrap_err();
    assert_eq!(refused["code"], "not_found", "{refused}");
    let known = c.http.get("/v1/models").to_string();
    assert!(known.contains("alba/open") && !known.contains("secret"), "{known}");
    assert_eq!(presence(&b, &secret), "complete");

    assert_eq!(b.stop(), 0);
    borea.ok(&["mirror"]).expect(0, &["alba/open@1", "kept"]);
}

#[test]
fn a_mirror_follows_the_channel_and_lets_go_of_what_it_brought() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    rules(&borea, "[mirroring]\npulls = 1\n\n[[mirror]]\nnations = [\"alba\"]\nbudget = \"8 MiB\"\n");
    let (a, b) = (alba.start(), borea.start());
    b.connect(&a);
    let publish = |name: &str, version: &str, mib: u64, seed: u64| {
        // Statements carry whole seconds, and which of two is newer decides here.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        alba.publish(&model(&net, name, mib, seed), name, version, &["--releasable-to", "all"])
    };
    let first = publish("m", "1", 3, 1);
    becomes(&b, "alba/m", "1", "kept");
    let second = publish("m", "2", 3, 2);
    becomes(&b, "alba/m", "2", "kept");
    until("the first to be gone", || (presence(&b, &first) != "complete").then_some(()));
    assert!(entry(&b, "alba/m", "1").is_none());

    // A second model fits beside it; a third does not, and takes the room of the oldest: what is newer is wanted more.
    let other = publish("other", "1", 4, 3);
    becomes(&b, "alba/other", "1", "kept");
    assert_eq!(presence(&b, &second), "complete");
    publish("third", "1", 3, 4);
    becomes(&b, "alba/third", "1", "kept");
    let refused = becomes(&b, "alba/m", "2", "refused");
    assert!(refused["reason"].as_str().unwrap().contains("no room"), "{refused}");
    until("the oldest to be gone", || (presence(&b, &second) != "complete").then_some(()));
    assert_eq!(presence(&b, &other), "complete");

    // What a person pins stays, whatever the rules say.
    borea.ok(&["pin", "alba/other", "--reason", "in use"]);
    let newer = publish("other", "2", 4, 5);
    becomes(&b, "alba/other", "2", "kept");
    borea.ok(&["gc"]);
    assert_eq!(presence(&b, &other), "complete");
    assert_eq!(presence(&b, &newer), "complete");
    borea.ok(&["verify", "alba/other@1"]);

    // A recall is obeyed by the mirror too.
    alba.recall("alba/other@2", "backdoor", "high");
    until("the recalled release to be gone", || (presence(&b, &newer) != "complete").then_some(()));
}

#[test]
fn what_cannot_be_fetched_now_is_fetched_when_somebody_comes() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    let release = alba.publish(&model(&net, "m", 3, 1), "m", "1", &["--releasable-to", "all"]);
    // Borea hears of it and has no rule.
    let (a, b) = (alba.start(), borea.start());
    b.connect(&a);
    until("the statement", || b.http.get("/v1/models").to_string().contains("alba/m").then_some(()));
    until("its place in alba's log, cosigned", || {
        let place = b.http.get(&format!("/v1/log/place/{release}"));
        (!place["logged"]["witnesses"].as_array()?.is_empty()).then_some(())
    });
    assert_eq!((a.stop(), b.stop()), (0, 0));
    rules(&borea, "[[mirror]]\nmodels = [\"alba/m*\"]\n");
    // Without a node the command says what would be fetched.
    borea.ok(&["mirror"]).expect(0, &["alba/m@1", "next"]);
    let b = borea.start();
    let waiting = becomes(&b, "alba/m", "1", "waiting");
    assert!(waiting["again"].is_string(), "{waiting}");
    let a = alba.start();
    b.connect(&a);
    becomes(&b, "alba/m", "1", "kept");
    assert_eq!(presence(&b, &release), "complete");
    // A settings file that lost its rules does not empty the node.
    assert_eq!(b.stop(), 0);
    rules(&borea, "");
    let b = borea.start();
    let kept = becomes(&b, "alba/m", "1", "kept");
    assert!(kept["reason"].as_str().unwrap().contains("no rules any more"), "{kept}");
    borea.ok(&["gc"]);
    assert_eq!(presence(&b, &release), "complete");
}
