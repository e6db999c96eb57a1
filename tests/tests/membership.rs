//! Membership and ceremonies: a departing ally takes nothing with it; two people make and replace a root.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tests::{Daemon, Home, Http, Net, binary, generate, until, wait};

fn small(net: &Net, name: &str, seed: u64) -> PathBuf {
    let folder = net.folder(name);
    generate::safetensors(&folder.join("model.safetensors"), 2 << 20, seed).unwrap();
    folder
}

fn nation(node: &Daemon, name: &str) -> Value {
    let nations = node.http.get("/v1/nations");
    nations.as_array().unwrap().iter().find(|entry| entry["nation"] == name).unwrap().clone()
}

fn admitted(node: &Daemon, model: &str) -> Value {
    node.http.get(&format!("/v1/models/{model}"))["releases"][0]["admitted"].clone()
}

#[test]
fn a_departing_ally_takes_nothing_with_it() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    alba.publish(binary::weights(), "smollm2", "1.0.0", &["--releasable-to", "all"]);
    alba.publish(&small(&net, "other", 7), "other", "1", &["--releasable-to", "all"]);
    let (a, b, c) = (alba.start(), borea.start(), cora.start());
    b.connect(&a);
    c.connect(&b);
    b.pull("alba/smollm2").unwrap_or_else(|problem| panic!("{problem}"));
    let ready = b.serve("alba/smollm2").unwrap_or_else(|problem| panic!("{problem}"));
    let api = Http::tcp(ready["address"].as_str().unwrap());
    let model = api.get("/v1/models")["data"][0]["id"].clone();
    let ask = || {
        let body = json!({ "model": model, "prompt": "Once", "temperature": 0, "max_tokens": 4 });
        let answer = api.post("/v1/completions", &body);
        assert!(answer["choices"][0]["text"].is_string(), "{answer}");
    };
    ask();

    let peer = a.peer_id();
    let said = borea.json(&["trust", "expel", "alba", "--reason", "left the alliance"]);
    assert_eq!((said["standing"].as_str(), said["sequence"].as_u64()), (Some("departed"), Some(1)), "{said}");
    // At once: neither counts the other among its peers, and the address is not let in again.
    wait::within(Duration::from_secs(5), "alba's node to be let go", || (!b.knows(&peer)).then_some(()));
    let reply = b.http.request("POST", "/v1/peers", Some(&json!({ "address": a.address() })));
    assert!(reply.status >= 400, "{}", reply.text());
    let reply = a.http.request("POST", "/v1/peers", Some(&json!({ "address": b.address() })));
    println!("alba dials borea: {} {}", reply.status, reply.text());
    let own = b.peer_id();
    until("alba to stay outside", || (!a.knows(&own) && !b.knows(&peer)).then_some(()));
    assert_eq!(nation(&b, "alba")["standing"], "departed");
    assert_eq!(b.http.get("/v1/memberships")[0]["reason"], "left the alliance");
    assert!(
        !b.public().get("/v1/nations").to_string().contains("left the alliance"),
        "the reason is borea's own"
    );

    // What was admitted goes on: the worker answers, a new one starts, other allies get it from borea.
    ask();
    assert_eq!(admitted(&b, "alba/smollm2"), true);
    let again = b.serve("alba/smollm2").unwrap_or_else(|problem| panic!("{problem}"));
    assert!(again["address"].is_string());
    borea.ok(&["verify", "alba/smollm2"]);
    c.pull("alba/smollm2").unwrap_or_else(|problem| panic!("{problem}"));

    // What was not admitted is refused by policy, also what another ally would bring, and nothing new is believed.
    c.connect(&a);
    c.pull("alba/other").unwrap_or_else(|problem| panic!("{problem}"));
    let problem = b.pull("alba/other").unwrap_err();
    assert_eq!(problem["code"], "policy_refused", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("departed"), "{problem}");
    alba.publish(&small(&net, "new", 8), "new", "1", &["--releasable-to", "all"]);
    until("cora to know alba's newest", || {
        c.http.request("GET", "/v1/resolve?ref=alba/new", None).status.eq(&200).then_some(())
    });
    b.http.post("/v1/sync", &json!({}));
    assert_eq!(b.http.request("GET", "/v1/resolve?ref=alba/new", None).status, 404);

    // It lasts over a restart, and its recalls are still heard: they take something out of service.
    drop(api);
    b.stop();
    let b = borea.start();
    assert_eq!(nation(&b, "alba")["standing"], "departed");
    assert_eq!(admitted(&b, "alba/smollm2"), true);
    c.connect(&b);
    alba.recall("alba/smollm2@1.0.0", "bad", "high");
    until("alba's recall to reach borea by cora", || (admitted(&b, "alba/smollm2") == false).then_some(()));

    // Only a new invitation leads back.
    borea.run(&["trust", "activate", "alba"]).expect(7, &["departed", "invited"]);
    borea.ok(&["trust", "invite", "alba", "--reason", "new people"]);
    b.connect_refused(&a);
    borea.ok(&["trust", "activate", "alba"]);
    b.connect(&a);
    b.pull("alba/new").unwrap_or_else(|problem| panic!("{problem}"));
}

#[test]
fn every_node_of_a_nation_follows_its_word() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    let second =
        Home { nation: "borea".into(), path: net.path().join("borea-2"), env: Vec::new(), netns: None };
    second.ok(&["init", "--join", borea.path.to_str().unwrap()]);
    second.configure(&tests::net::Settings::default());
    second.trust(&alba);
    let (a, b, b2) = (alba.start(), borea.start(), second.start());
    b2.connect(&b);
    b2.connect(&a);
    b.connect(&a);
    borea.ok(&["trust", "suspend", "alba", "--reason", "its release key may be stolen"]);
    wait::within(Duration::from_secs(15), "the second node to let alba go", || {
        (nation(&b2, "alba")["standing"] == "suspended" && !b2.knows(&a.peer_id())).then_some(())
    });
    // What borea thinks of alba is borea's own business.
    assert!(a.http.get("/v1/nations").to_string().contains("\"active\""));
    assert!(!a.http.get("/v1/nations").to_string().contains("suspended"));
    borea.ok(&["trust", "activate", "alba", "--reason", "it was not"]);
    wait::within(Duration::from_secs(15), "the second node to hold alba for active again", || {
        (nation(&b2, "alba")["standing"] == "active").then_some(())
    });
    b2.connect(&a);
}

/// Writes a file that only its owner may read.
fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Makes a key sealed with a passphrase in a file; its public half.
fn person(home: &Home, folder: &Path, name: &str) -> String {
    let words = folder.join(format!("{name}.words"));
    private(&words, &format!("the passphrase of {name}\n"));
    let key = folder.join(format!("{name}.key"));
    let made =
        home.json(&["key", "new", key.to_str().unwrap(), "--passphrase-file", words.to_str().unwrap()]);
    made["public"].as_str().unwrap().to_owned()
}

fn sign(home: &Home, folder: &Path, command: &[&str], name: &str) -> tests::Run {
    let (key, words) = (folder.join(format!("{name}.key")), folder.join(format!("{name}.words")));
    let mut args = command.to_vec();
    let (key, words) = (key.to_str().unwrap().to_owned(), words.to_str().unwrap().to_owned());
    args.extend(["--key", &key, "--passphrase-file", &words, "--yes"]);
    home.run(&args)
}

#[test]
fn two_people_make_a_root_publish_under_it_and_replace_it() {
    let net = Net::new();
    let folder = net.folder("ceremony");
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let alba = Home { nation: "alba".into(), path: net.path().join("alba"), env: Vec::new(), netns: None };
    let [anna, bernd, dora] = ["anna", "bernd", "dora"].map(|name| person(&alba, &folder, name));
    alba.ok(&["key", "new", &path("node.key"), "--plain"]);

    // The ceremony: a draft, one signature each; between them it says what is missing.
    let draft = path("root.draft");
    let mut args = vec!["root", "init", "--nation", "alba", "--out", &draft];
    let keys: Vec<String> = ["root", "release", "recall", "attest"]
        .iter()
        .flat_map(|role| [format!("{role}={anna}"), format!("{role}={bernd}")])
        .chain([
            format!("root={dora}"),
            format!("log={}", path("node.key")),
            format!("node={}", path("node.key")),
        ])
        .collect();
    args.extend(keys.iter().flat_map(|key| ["--key", key.as_str()]));
    args.extend(["--threshold", "root=2", "--threshold", "release=2"]);
    let drafted = alba.json(&args);
    assert_eq!(drafted["missing"].as_array().unwrap().len(), 1, "{drafted}");
    sign(&alba, &folder, &["root", "sign", &draft], "anna").expect(0, &["1 of the 2"]);
    sign(&alba, &folder, &["root", "sign", &draft], "anna").expect(7, &["has signed"]);
    let home =
        ["init", "--nation", "alba", "--root", &draft, "--node-key", &path("node.key")].map(str::to_owned);
    let home: Vec<&str> = home.iter().map(String::as_str).collect();
    alba.run(&home).expect(4, &["1 of the 2"]);
    assert!(!alba.path.exists(), "nothing is made of half a root");
    sign(&alba, &folder, &["root", "sign", &draft], "bernd").expect(0, &["complete"]);
    let shown = alba.json(&["root", "show", &draft]);
    assert_eq!(
        (shown["missing"].as_array().unwrap().len(), shown["version"].as_u64()),
        (0, Some(1)),
        "{shown}"
    );
    alba.ok(&home);
    // This node keeps the nation's log too.
    fs::copy(path("node.key"), alba.path.join("keys/log.key")).unwrap();
    alba.configure(&tests::net::Settings::default());
    assert_eq!(shown["root"].as_str().unwrap(), alba.fingerprint());

    // A release needs both: one writes what is to be signed, both add an envelope, the last hands it over.
    let borea = net.nation("borea");
    borea.trust(&alba);
    alba.trust(&borea);
    let (a, b) = (alba.start(), borea.start());
    b.connect(&a);
    let model = small(&net, "model", 1);
    let publish = |version: &str, draft: &str| {
        let model = model.to_str().unwrap().to_owned();
        let common = ["publish", &model, "--as", "alba/m", "--version", version, "--licence", "MIT"]
            .map(str::to_owned);
        let mut args: Vec<String> = common.to_vec();
        args.extend(["--draft".to_owned(), draft.to_owned()]);
        alba.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    };
    alba.run(&["publish", model.to_str().unwrap(), "--as", "alba/m", "--version", "1", "--licence", "MIT"])
        .expect(5, &["2 signatures", "--draft"]);
    let one = path("one.draft");
    publish("1", &one);
    sign(&alba, &folder, &["sign", &one, "--submit"], "anna").expect(4, &["1 of the 2"]);
    sign(&alba, &folder, &["sign", &one, "--submit"], "bernd").expect(0, &[]);
    b.pull("alba/m").unwrap_or_else(|problem| panic!("{problem}"));

    // Bernd's key is lost: his replacement, Carla, comes in by the next root, signed by the old threshold and by the new one.
    let carla = person(&alba, &folder, "carla");
    let old = alba.json(&["key", "show", &path("bernd.key")])["id"].as_str().unwrap()[..12].to_owned();
    let next = path("next.draft");
    alba.ok(&["root", "rotate", "--out", &next, "--replace", &format!("{old}={carla}")]);
    sign(&alba, &folder, &["root", "sign", &next], "anna").expect(0, &["missing"]);
    alba.run(&["root", "publish", &next]).expect(4, &["of the 2"]);
    // Those who will be able to sign are two by now; those who could until now are not.
    sign(&alba, &folder, &["root", "sign", &next], "carla").expect(0, &["the version before's"]);
    alba.run(&["root", "publish", &next]).expect(4, &["of the 2"]);
    sign(&alba, &folder, &["root", "sign", &next], "dora").expect(0, &["complete"]);
    let published = alba.json(&["root", "publish", &next]);
    assert_eq!((published["version"].as_u64(), published["uncertified"].as_bool()), (Some(2), Some(false)));
    until("borea to take the next root", || (nation(&b, "alba")["version"] == 2).then_some(()));
    assert!(b.knows(&a.peer_id()), "the node key stayed, so does the connection");
    assert_eq!(nation(&b, "alba")["fingerprint"], *alba.fingerprint(), "the fingerprint stays");

    // From now on Bernd's signature is worth nothing, Carla's is.
    let two = path("two.draft");
    publish("2", &two);
    sign(&alba, &folder, &["sign", &two], "anna").expect(0, &[]);
    sign(&alba, &folder, &["sign", &two, "--submit"], "bernd").expect(4, &["took away"]);
    sign(&alba, &folder, &["sign", &two, "--submit"], "carla").expect(0, &[]);
    until("borea to know the new release", || {
        b.http.request("GET", "/v1/resolve?ref=alba/m@2", None).status.eq(&200).then_some(())
    });
    b.pull("alba/m@2").unwrap_or_else(|problem| panic!("{problem}"));
    // What was admitted before stays, and a new ally takes both roots from the file.
    assert_eq!(
        b.http.get("/v1/models/alba/m")["releases"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|r| r["admitted"] == true)
            .count(),
        2
    );
    let cora = net.nation("cora");
    cora.trust(&alba);
    let shown = cora.json(&["trust", "show", "alba"]);
    assert_eq!(shown["version"], 2, "{shown}");
}

#[test]
fn two_roots_of_one_version_raise_an_alarm_and_change_nothing() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    let (a, b) = (alba.start(), borea.start());
    b.connect(&a);
    let folder = net.folder("ceremony");
    let draft = |name: &str, days: &str| {
        let path = folder.join(name).to_str().unwrap().to_owned();
        alba.ok(&["root", "rotate", "--out", &path, "--expires-days", days]);
        alba.ok(&[
            "root",
            "sign",
            &path,
            "--key",
            alba.path.join("keys/root.key").to_str().unwrap(),
            "--yes",
        ]);
        path
    };
    let before = folder.join("nation.json");
    fs::copy(alba.nation_file(), &before).unwrap();
    // Both are signed by the one root key that there is; each is a second root.
    let (one, two) = (draft("one", "400"), draft("two", "500"));
    alba.ok(&["root", "publish", &one]);
    until("borea to take it", || (nation(&b, "alba")["version"] == 2).then_some(()));
    let digest = |path: &str| alba.json(&["root", "show", path])["root"].as_str().unwrap().to_owned();
    let (first, second) = (digest(&one), digest(&two));
    alba.run(&["root", "publish", &two]).expect(7, &[&first, &second, "two roots"]);
    assert_eq!(nation(&b, "alba")["version"], 2);
    // The same from a peer, a node of alba that somebody keeps apart: borea tells its operator and keeps what it has.
    let apart = Home { nation: "alba".into(), path: net.path().join("apart"), env: Vec::new(), netns: None };
    fs::copy(&before, alba.nation_file()).unwrap();
    apart.ok(&["init", "--join", alba.path.to_str().unwrap()]);
    apart.configure(&tests::net::Settings::default());
    apart.trust(&borea);
    apart.ok(&["root", "publish", &two]);
    let mut alerts = b.http.events("GET", "/v1/events?kinds=alert", None);
    let other = apart.start();
    other.connect(&b);
    let alert =
        alerts.find(Duration::from_secs(30), "an alarm", |event| event.json()["code"] == "conflict").json();
    let message = alert["message"].as_str().unwrap();
    assert!(message.contains(&first) && message.contains(&second), "{message}");
    assert_eq!(nation(&b, "alba")["version"], 2);
    assert!(b.knows(&other.peer_id()), "the peer did nothing wrong: its nation did");
}
