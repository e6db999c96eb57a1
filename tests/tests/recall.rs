//! Recall: signed, gossiped, obeyed by admission and by a worker that is answering.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Http, Net, binary, until};

/// From the recall's signing to the worker's end on another nation's node. The issue wants seconds; a busy machine gets room.
const STOP_LIMIT: Duration = Duration::from_secs(5);

#[test]
fn a_recall_stops_a_worker_that_is_answering() {
    let net = Net::new();
    let [alba, cora] = net.allies(["alba", "cora"]);
    alba.publish(binary::weights(), "smollm2", "1.0.0", &["--releasable-to", "all"]);
    let (a, c) = (alba.start(), cora.start());
    c.connect(&a);
    c.pull("alba/smollm2").unwrap_or_else(|problem| panic!("{problem}"));
    let ready = c.serve("alba/smollm2").unwrap_or_else(|problem| panic!("{problem}"));
    let api = Http::tcp(ready["address"].as_str().unwrap());
    let model = api.get("/v1/models")["data"][0]["id"].clone();
    let mut watched = c.http.events("GET", "/v1/events?kinds=recall,worker", None);

    // A long answer is under way.
    let body = json!({
        "model": model, "prompt": "Once upon a time", "temperature": 0, "max_tokens": 2000, "stream": true,
    });
    let mut stream = api.events("POST", "/v1/completions", Some(&body));
    for _ in 0..3 {
        stream.next(Duration::from_secs(60)).expect("the answer begins");
    }

    let start = Instant::now();
    alba.recall("alba/smollm2@1.0.0", "leaks its system prompt", "high");
    let signed = start.elapsed();

    // The running request ends with an error that says why; it is not finished as if nothing were.
    let mut last = None;
    let mut done = false;
    while let Some(event) = stream.next(Duration::from_secs(30)) {
        done |= event.data == "[DONE]";
        last = Some(event);
    }
    let cut = start.elapsed();
    let last = last.expect("a last event");
    let said = last.json();
    let message =
        said["error"]["message"].as_str().unwrap_or_else(|| panic!("the last event is {}", last.data));
    assert!(message.contains("recall"), "{message}");
    assert!(message.contains("leaks its system prompt"), "{message}");
    assert!(!done, "a cut answer must not look finished");

    let event = watched.find(Duration::from_secs(30), "the worker's stop", |event| {
        event.name == "worker" && event.json()["stop"].is_object()
    });
    let stopped = start.elapsed();
    let stop = event.json()["stop"].clone();
    assert_eq!(stop["cause"], "recalled", "{stop}");
    println!(
        "recall: signed in {signed:?}, the answer cut after {cut:?}, the worker gone after {stopped:?}; \
         {} ms between cora knowing and the worker gone",
        stop["took_ms"]
    );
    assert!(stopped < STOP_LIMIT, "{stopped:?}");
    assert!(stop["took_ms"].as_u64().unwrap() < 1000, "{stop}");

    // Nobody answers there any more, and it can't be started again, here or at the publisher's.
    assert!(api.try_request("GET", "/v1/models", None).is_err());
    for node in [&c, &a] {
        let problem = node.serve("alba/smollm2").unwrap_err();
        assert_eq!(problem["code"], "policy_refused", "{problem}");
    }
    cora.run(&["serve", "alba/smollm2"]).expect(5, &["recalled", "leaks its system prompt"]);
    let recalls = cora.json(&["show", "alba/smollm2@1.0.0"]);
    assert_eq!(recalls["recalled"], true, "{recalls}");
}

#[test]
fn a_recall_that_was_missed_is_learnt_on_return() {
    let net = Net::new();
    let [alba, cora] = net.allies(["alba", "cora"]);
    let folder = net.folder("model");
    tests::generate::safetensors(&folder.join("model.safetensors"), 1 << 20, 3).unwrap();
    alba.publish(&folder, "small", "1", &["--releasable-to", "all"]);
    let a = alba.start_with_fixed_ports("");
    let c = cora.start_with_fixed_ports("");
    c.connect(&a);
    c.pull("alba/small").unwrap_or_else(|problem| panic!("{problem}"));
    c.stop();
    alba.recall("alba/small@1", "wrong weights", "low");
    let c = cora.start();
    c.connect(&a);
    until("the recall to arrive", || {
        let recalls = c.http.get("/v1/recalls");
        recalls.as_array().is_some_and(|list| !list.is_empty()).then_some(())
    });
    let release = &c.http.get("/v1/models/alba/small")["releases"][0];
    assert_eq!(release["recalled"], true, "{release}");
    assert_eq!(release["admitted"], false, "{release}");
}

#[test]
fn a_third_nation_does_not_recall_for_others() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    let folder = net.folder("model");
    tests::generate::safetensors(&folder.join("model.safetensors"), 1 << 20, 4).unwrap();
    alba.publish(&folder, "small", "1", &["--releasable-to", "all"]);
    let (a, b, c) = (alba.start(), borea.start(), cora.start());
    for node in [&b, &c] {
        node.connect(&a);
        node.pull("alba/small").unwrap_or_else(|problem| panic!("{problem}"));
    }
    b.connect(&c);
    borea.recall("alba/small@1", "against our law", "medium");
    let recalled =
        |node: &tests::Daemon| node.http.get("/v1/models/alba/small")["releases"][0]["recalled"].clone();
    until("cora to know borea's recall", || (c.http.get("/v1/recalls").as_array()?.len() == 1).then_some(()));
    assert_eq!(recalled(&b), true, "borea decides for itself");
    assert_eq!(recalled(&c), false, "cora is not bound by borea");
    assert_eq!(recalled(&a), false, "alba is not bound by borea");
}

/// Publishes a model that a worker loads in a moment.
fn tiny(net: &Net, home: &tests::Home, name: &str, more: &[&str]) -> String {
    let folder = net.folder(name);
    std::fs::write(folder.join("tiny.gguf"), tests::generate::tiny_gguf()).unwrap();
    std::fs::write(folder.join("README.md"), format!("# {name}\n")).unwrap();
    let mut args = vec!["--releasable-to", "all"];
    args.extend(more);
    home.publish(&folder, name, "1", &args)
}

#[test]
fn a_recall_of_a_lineage_stops_what_another_nation_made_of_it() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    tiny(&net, &alba, "base", &[]);
    let (a, b, c) = (alba.start(), borea.start(), cora.start());
    b.connect(&a);
    b.pull("alba/base").unwrap_or_else(|problem| panic!("{problem}"));
    let tuned = tiny(&net, &borea, "tuned", &["--derived-from", "alba/base@1:fine-tune"]);
    c.connect(&b);
    c.connect(&a);
    c.pull("borea/tuned").unwrap_or_else(|problem| panic!("{problem}"));
    until("cora to know the base", || {
        c.http.get("/v1/models").to_string().contains("alba/base").then_some(())
    });
    let ready = c.serve("borea/tuned").unwrap_or_else(|problem| panic!("{problem}"));
    let mut watched = c.http.events("GET", "/v1/events?kinds=worker", None);
    alba.ok(&[
        "recall",
        "alba/base@1",
        "--lineage",
        "--reason",
        "poisoned",
        "--severity",
        "critical",
        "--yes",
    ]);
    let event = watched.find(Duration::from_secs(30), "the worker's stop", |event| {
        event.name == "worker" && event.json()["stop"].is_object()
    });
    let stop = event.json()["stop"].clone();
    assert_eq!(stop["cause"], "recalled", "{stop}");
    assert!(stop["took_ms"].as_u64().unwrap() < 1000, "{stop}");
    let api = Http::tcp(ready["address"].as_str().unwrap());
    assert!(api.try_request("GET", "/health", None).is_err());
    for node in [&b, &c] {
        until("the recall to arrive", || (node.http.get("/v1/recalls").as_array()?.len() == 1).then_some(()));
        let problem = node.serve(&tuned).unwrap_err();
        assert_eq!(problem["code"], "policy_refused", "{problem}");
    }
}

#[test]
fn a_recall_that_comes_before_its_release_is_remembered() {
    let net = Net::new();
    let [alba, cora] = net.allies(["alba", "cora"]);
    let bad = tiny(&net, &alba, "bad", &[]);
    alba.recall("alba/bad@1", "wrong weights", "low");
    // Only the recall reaches cora.
    {
        let from = registry::store::Store::open(&alba.path.join("store")).unwrap();
        let to = registry::store::Store::open(&cora.path.join("store")).unwrap();
        let (recall, _) = from.recalls().unwrap().remove(0);
        let signed = from.statement(&recall).unwrap().unwrap();
        registry::publish::learn(&to, &signed, registry::Timestamp::now()).unwrap();
    }
    let c = cora.start();
    assert_eq!(c.http.get("/v1/recalls")[0]["release"], *bad);
    let a = alba.start();
    c.connect(&a);
    let problem = c.pull("alba/bad").unwrap_err();
    assert_eq!(problem["code"], "policy_refused", "{problem}");
    assert!(cora.listing().is_empty(), "bytes came");
}
