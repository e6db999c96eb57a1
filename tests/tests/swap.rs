//! Another release in the place of one that is served: by hand, back again, and because a channel moved.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tests::{Daemon, Home, Http, Net, generate, until, wait};

/// A channel that moved is followed by then, on a busy machine.
const FOLLOWED: Duration = Duration::from_secs(60);

/// Publishes version `version` of the smallest model, with a file of its own.
fn publish(net: &Net, home: &Home, version: &str) -> String {
    let folder = net.folder(&format!("tiny-{version}"));
    fs::write(folder.join("tiny.gguf"), generate::tiny_gguf()).unwrap();
    fs::write(folder.join("README.md"), format!("version {version}")).unwrap();
    home.publish(&folder, "tiny", version, &["--releasable-to", "all"])
}

fn workers(node: &Daemon) -> Vec<Value> {
    node.http.get("/v1/workers").as_array().unwrap().clone()
}

fn of(node: &Daemon, id: &Value) -> Value {
    workers(node).into_iter().find(|worker| worker["id"] == *id).unwrap()
}

fn swap(node: &Daemon, id: &Value, body: &Value) -> Result<Value, Value> {
    let path = format!("/v1/workers/{id}/swap");
    node.http.events("POST", &path, Some(body)).outcome(Duration::from_secs(60))
}

/// The release that answers at an address.
fn answering(address: &Value) -> Option<String> {
    let reply = Http::tcp(address.as_str()?).try_request("GET", "/v1/models", None).ok()?;
    reply.json()["data"][0]["steelyard"]["release"].as_str().map(str::to_owned)
}

#[test]
fn a_release_gives_its_place_without_a_request_being_lost_and_gets_it_back() {
    let net = Net::new();
    let alba = net.nation("alba");
    let first = publish(&net, &alba, "1");
    let second = publish(&net, &alba, "2");
    let node = alba.start();
    let old = node.serve("alba/tiny@1").unwrap_or_else(|problem| panic!("{problem}"));
    let address = &old["address"];
    let api = Http::tcp(address.as_str().unwrap());
    assert_eq!(answering(address).unwrap(), first);

    // A long answer that began before, and others all the time.
    let body = json!({ "prompt": "Once", "temperature": 0, "max_tokens": 1500, "stream": true });
    let mut long = api.events("POST", "/v1/completions", Some(&body));
    long.next(Duration::from_secs(30)).expect("it begins");
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let new = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let body = json!({ "prompt": "Once", "temperature": 0, "max_tokens": 3 });
                    let reply = api.request("POST", "/v1/completions", Some(&body));
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        until("requests to be answered", || (asked.load(Ordering::Relaxed) > 20).then_some(()));
        let new = swap(&node, &old["id"], &json!({ "reference": "alba/tiny@2" }));
        let before = asked.load(Ordering::Relaxed);
        until("requests to be answered by the new one", || {
            (asked.load(Ordering::Relaxed) > before + 20).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
        new.unwrap_or_else(|problem| panic!("{problem}"))
    });
    assert_eq!((&new["address"], &new["version"]), (address, &json!("2")), "{new}");
    assert_eq!(answering(address).unwrap(), second);
    let mut done = false;
    while let Some(event) = long.next(Duration::from_secs(60)) {
        assert!(!event.data.contains("\"error\""), "{}", event.data);
        done |= event.data == "[DONE]";
    }
    assert!(done, "the answer that was under way was cut");
    let gone =
        until("the old one to end", || Some(of(&node, &old["id"])).filter(|it| it["state"] == "stopped"));
    assert_eq!((&gone["replaced_by"], &gone["stop"]["cause"]), (&new["id"], &json!("requested")), "{gone}");
    assert_eq!((&new["replaces"], &new["previous"]), (&old["id"], &old["release"]), "{new}");

    // What can't be served takes nobody's place.
    let folder = net.folder("nothing");
    fs::write(folder.join("README.md"), "no weights").unwrap();
    alba.publish(&folder, "nothing", "1", &[]);
    let problem = swap(&node, &new["id"], &json!({ "reference": "alba/nothing" })).unwrap_err();
    assert!(problem.to_string().contains("no engine"), "{problem}");
    assert_eq!(answering(address).unwrap(), second);
    let problem = swap(&node, &new["id"], &json!({ "reference": "alba/tiny@2" })).unwrap_err();
    assert_eq!(problem["code"], "conflict", "{problem}");

    // People see it, and go back.
    let id = new["id"].to_string();
    alba.ok(&["workers"]).expect(0, &["alba/tiny@2", "ready", "took its place", "llama.cpp"]);
    alba.ok(&["workers", "rollback", &id]).expect(0, &["alba/tiny@1", "is served at"]);
    assert_eq!(answering(address).unwrap(), first);
    let last = alba.json(&["workers"]).as_array().unwrap().last().cloned().unwrap();
    assert!(last["memory"].as_u64().unwrap() > 1 << 20, "{last}");
    // The hard way, too.
    alba.ok(&["workers", "swap", &last["id"].to_string(), "alba/tiny@2", "--stop-first"]);
    assert_eq!(answering(address).unwrap(), second);
    assert_eq!(node.stop(), 0);
}

fn follow(node: &Daemon, more: Value) -> Value {
    let mut body = json!({ "reference": "alba/tiny", "listen": "127.0.0.1:0", "follow": true });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let job = node.http.events("POST", "/v1/workers", Some(&body));
    job.outcome(Duration::from_secs(60)).unwrap_or_else(|problem| panic!("{problem}"))
}

fn serves(address: &Value, release: &str) {
    wait::within(FOLLOWED, "the channel's release to be served", || {
        answering(address).filter(|found| found == release)
    });
}

/// Everything that was served is over, and nobody answers.
fn silent(node: &Daemon, address: &Value) -> Value {
    let over = wait::within(FOLLOWED, "every worker to be over", || {
        let workers = workers(node);
        let all = workers.iter().all(|it| it["state"] == "stopped" || it["state"] == "failed");
        all.then(|| workers.last().cloned()).flatten()
    });
    assert!(answering(address).is_none(), "somebody answers");
    over
}

fn recall(home: &Home, version: &str) {
    home.recall(&format!("alba/tiny@{version}"), "it rots", "high");
}

#[test]
fn a_channel_is_followed_and_a_recall_leaves_nothing() {
    let net = Net::new();
    let [alba, cora] = net.allies(["alba", "cora"]);
    let first = publish(&net, &alba, "1");
    let (a, c) = (alba.start(), cora.start());
    c.connect(&a);
    // Neither release is there before: both are served as they come.
    let followed = follow(&c, json!({}));
    assert_eq!(followed["follows"], "alba/tiny:stable", "{followed}");
    serves(&followed["address"], &first);
    let second = publish(&net, &alba, "2");
    serves(&followed["address"], &second);
    recall(&alba, "2");
    let over = silent(&c, &followed["address"]);
    assert_eq!(over["stop"]["cause"], "recalled", "{over}");
    // It does not come back by itself.
    std::thread::sleep(Duration::from_secs(3));
    silent(&c, &followed["address"]);
}

#[test]
fn whoever_asked_for_it_gets_the_release_before_back() {
    let net = Net::new();
    let [alba, cora] = net.allies(["alba", "cora"]);
    let first = publish(&net, &alba, "1");
    let (a, c) = (alba.start(), cora.start());
    c.connect(&a);
    let followed = follow(&c, json!({ "rollback_to_previous": true }));
    let second = publish(&net, &alba, "2");
    serves(&followed["address"], &second);
    recall(&alba, "2");
    serves(&followed["address"], &first);
    // And goes on with what the channel names next.
    let third = publish(&net, &alba, "3");
    serves(&followed["address"], &third);
    let problem = c.http.request(
        "POST",
        "/v1/workers",
        Some(&json!({ "reference": "alba/tiny@1", "listen": "127.0.0.1:0", "follow": true })),
    );
    assert!(problem.status >= 400 && problem.text().contains("never moves"), "{}", problem.text());
}

#[test]
fn a_person_who_follows_is_told() {
    let net = Net::new();
    let alba = net.nation("alba");
    publish(&net, &alba, "1");
    let node = alba.start();
    let mut command = alba.command(&["serve", "alba/tiny", "--follow", "--listen", "127.0.0.1:0"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let serves = |version: &str| {
        wait::within(FOLLOWED, "a version to be served", || {
            workers(&node).into_iter().find(|it| it["state"] == "ready" && it["version"] == version)
        })
    };
    serves("1");
    publish(&net, &alba, "2");
    let second = serves("2");
    until("the command to hear of it", || {
        let old = of(&node, &second["replaces"]);
        (old["state"] == "stopped").then_some(())
    });
    // It looks at the list every few seconds at least.
    std::thread::sleep(Duration::from_secs(6));
    recall(&alba, "2");
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(5), "{said}");
    assert!(said.contains("alba/tiny@2 is served now") && said.contains("it rots"), "{said}");
}
