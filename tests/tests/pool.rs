//! Several models behind one address: which is asked, which is loaded, which makes room.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::net::Settings;
use tests::{Daemon, Home, Http, Net, Reply, generate, until, wait};

const MIB: u64 = 1 << 20;
/// Memory in which one of the tests' models has room, and no second one: each needs some 65 MiB.
const FOR_ONE: u64 = 100 * MIB;
/// The same for two and no third.
const FOR_TWO: u64 = 160 * MIB;
const PATIENCE: Duration = Duration::from_secs(60);

/// Publishes a model that loads in a moment.
fn publish(net: &Net, home: &Home, name: &str, version: &str) -> String {
    let folder = net.folder(&format!("{name}-{version}"));
    fs::write(folder.join("tiny.gguf"), generate::tiny_gguf()).unwrap();
    fs::write(folder.join("README.md"), format!("{name} {version}")).unwrap();
    home.publish(&folder, name, version, &["--releasable-to", "all"])
}

fn nation_with(net: &Net, names: &[&str]) -> Home {
    let alba = net.nation("alba");
    for name in names {
        publish(net, &alba, name, "1");
    }
    alba
}

/// Opens a pool of `names`, with further fields.
fn try_open(node: &Daemon, names: &[&str], more: &Value) -> Result<Value, Value> {
    let references: Vec<String> = names.iter().map(|name| format!("alba/{name}")).collect();
    let mut body = json!({ "references": references, "listen": "127.0.0.1:0" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    node.http.events("POST", "/v1/pools", Some(&body)).outcome(PATIENCE)
}

fn open(node: &Daemon, names: &[&str], more: &Value) -> (Value, Http) {
    let pool = try_open(node, names, more).unwrap_or_else(|problem| panic!("{problem}"));
    let api = Http::tcp(pool["address"].as_str().unwrap());
    (pool, api)
}

fn question(model: &str) -> Value {
    json!({ "model": model, "prompt": "Once", "temperature": 0, "max_tokens": 3 })
}

fn ask(api: &Http, model: &str) -> Reply {
    api.request("POST", "/v1/completions", Some(&question(model)))
}

fn answered(api: &Http, model: &str) {
    let reply = ask(api, model);
    assert_eq!(reply.status, 200, "{model}: {}", reply.text());
    assert_eq!(reply.json()["model"], model, "{}", reply.text());
}

/// How a member is now.
fn member(node: &Daemon, pool: &Value, name: &str) -> Value {
    let pool = node.http.get(&format!("/v1/pools/{}", pool["id"]));
    let members = pool["members"].as_array().unwrap();
    members
        .iter()
        .find(|it| it["model"] == format!("alba/{name}"))
        .unwrap_or_else(|| panic!("{pool}"))
        .clone()
}

fn states(node: &Daemon, pool: &Value, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| member(node, pool, name)["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_request_chooses_the_model_and_what_was_used_longest_ago_makes_room() {
    let net = Net::new();
    let alba = nation_with(&net, &["a", "b", "c"]);
    let node = alba.start();
    let (pool, api) = open(&node, &["a", "b", "c"], &json!({ "memory": FOR_TWO }));
    // As many as fit, in order.
    assert_eq!(states(&node, &pool, &["a", "b", "c"]), ["ready", "ready", "unloaded"], "{pool}");
    answered(&api, "alba/b");
    answered(&api, "alba/a");
    answered(&api, "alba/c");
    assert_eq!(states(&node, &pool, &["a", "b", "c"]), ["ready", "unloaded", "ready"]);
    let c = member(&node, &pool, "c");
    assert!(c["needs"].as_u64().unwrap() > 64 * MIB && c["weights"].as_u64().unwrap() < MIB, "{c}");
    assert_eq!(c["needs"], c["memory"], "{c}");

    // By version and by digest, too; what is not there names what is.
    let release = c["release"].as_str().unwrap();
    for name in ["alba/c@1", release] {
        assert_eq!(ask(&api, name).status, 200, "{name}");
    }
    let unknown = ask(&api, "alba/d");
    assert_eq!(unknown.status, 404, "{}", unknown.text());
    assert_eq!(unknown.json()["error"]["code"], "model_not_found");
    assert!(unknown.text().contains("`alba/a`, `alba/b`, `alba/c`"), "{}", unknown.text());
    let none = api.request("POST", "/v1/completions", Some(&json!({ "prompt": "Once" })));
    assert_eq!((none.status, &none.json()["error"]["param"]), (400, &json!("model")), "{}", none.text());
    let list = api.get("/v1/models");
    let shown: Vec<_> =
        list["data"].as_array().unwrap().iter().map(|it| it["steelyard"]["state"].clone()).collect();
    assert_eq!(shown, ["ready", "unloaded", "ready"], "{list}");
    assert_eq!(api.get("/v1/models/alba/b")["steelyard"]["version"], "1");
    assert_eq!(api.get("/health")["models"][1]["state"], "unloaded");
    let metrics = api.request("GET", "/metrics", None).text();
    for line in [
        "steelyard_pool_model_unloads_total{model=\"alba/b\",version=\"1\"} 1",
        "steelyard_pool_model_state{model=\"alba/a\",version=\"1\",state=\"ready\"} 1",
        &format!("steelyard_pool_budget_bytes {FOR_TWO}"),
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    // Workers are as ever, and say whose they are.
    let workers = node.http.get("/v1/workers");
    let live: Vec<_> = workers.as_array().unwrap().iter().filter(|it| it["state"] == "ready").collect();
    assert!(live.len() == 2 && live.iter().all(|it| it["pool"] == pool["id"]), "{workers}");
    alba.ok(&["workers"]).expect(0, &["pool 1"]);
    let swap = json!({ "reference": "alba/b" });
    let path = format!("/v1/workers/{}/swap", live[0]["id"]);
    let problem = node.http.events("POST", &path, Some(&swap)).outcome(PATIENCE).unwrap_err();
    assert!(problem.to_string().contains("belongs to pool"), "{problem}");
    assert_eq!(node.stop(), 0);
}

#[test]
fn what_needs_more_than_there_is_is_refused_with_both_numbers() {
    let net = Net::new();
    let alba = nation_with(&net, &["a", "b"]);
    let node = alba.start();
    let problem = try_open(&node, &["a", "b"], &json!({ "memory": 40 * MIB })).unwrap_err().to_string();
    assert!(problem.contains("may have 40 MiB") && problem.contains("needs about 6"), "{problem}");
    assert_eq!(node.http.get("/v1/pools"), json!([]));
    let (_, api) = open(&node, &["a", "b"], &json!({ "memory": 40 * MIB, "on_demand": true }));
    for _ in 0..2 {
        let reply = ask(&api, "alba/a");
        // Coming back does not help.
        assert_eq!((reply.status, reply.header("retry-after")), (503, None), "{}", reply.text());
        assert_eq!(reply.json()["error"]["code"], "model_too_large");
        assert!(reply.text().contains("40 MiB") && reply.text().contains("`--memory`"), "{}", reply.text());
    }
    // The second one needed no load to be refused.
    let workers = node.http.get("/v1/workers");
    assert_eq!(workers.as_array().unwrap().len(), 2, "{workers}");
}

#[test]
fn a_busy_model_gives_way_and_nobody_starves() {
    let net = Net::new();
    let alba = nation_with(&net, &["a", "b"]);
    let node = alba.start();
    let (pool, api) = open(&node, &["a", "b"], &json!({ "memory": FOR_ONE, "on_demand": true }));
    answered(&api, "alba/a");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let body =
                        json!({ "model": "alba/a", "prompt": "Once", "max_tokens": 100, "temperature": 0 });
                    let reply = api.request("POST", "/v1/completions", Some(&body));
                    assert_eq!(reply.status, 200, "{}", reply.text());
                }
            });
        }
        until("the model to be busy", || (member(&node, &pool, "a")["requests"].as_u64()? > 1).then_some(()));
        let begun = Instant::now();
        answered(&api, "alba/b");
        let waited = begun.elapsed();
        stop.store(true, Ordering::Relaxed);
        assert!(waited < PATIENCE, "{waited:?}");
    });
    // One that does not want to wait is told.
    let mut long = api.events("POST", "/v1/completions", Some(&long_answer("alba/a")));
    long.next(PATIENCE).expect("it begins");
    let soon = [("x-request-timeout", "0.5")];
    let late = api.try_request_with("POST", "/v1/completions", &soon, Some(&question("alba/b"))).unwrap();
    assert_eq!(late.status, 504, "{}", late.text());
}

fn long_answer(model: &str) -> Value {
    json!({ "model": model, "prompt": "Once", "temperature": 0, "max_tokens": 8000, "stream": true })
}

#[test]
fn an_answer_passes_as_it_comes_and_ends_with_whoever_asked() {
    let net = Net::new();
    let alba = nation_with(&net, &["a", "b"]);
    let node = alba.start();
    let (pool, api) = open(&node, &["a", "b"], &json!({ "on_demand": true }));
    let begun = Instant::now();
    let mut long = api.events("POST", "/v1/completions", Some(&long_answer("alba/a")));
    let first = long.next(PATIENCE).expect("the first event").json();
    assert_eq!(first["model"], "alba/a", "{first}");
    let first = begun.elapsed();
    let worker = member(&node, &pool, "a")["worker"].clone();
    let workers = node.http.get("/v1/workers");
    let worker = workers.as_array().unwrap().iter().find(|it| it["id"] == worker).unwrap().clone();
    let own = Http::tcp(worker["address"].as_str().unwrap());
    assert_eq!(own.get("/health")["active_requests"], 1, "the answer is over after {first:?} already");
    assert_eq!(member(&node, &pool, "a")["requests"], 1);
    drop(long);
    until("the worker to hear of it", || (own.get("/health")["active_requests"] == 0).then_some(()));
    until("the pool to hear of it", || (member(&node, &pool, "a")["requests"] == 0).then_some(()));

    // Receipts are the worker's own, and of what passed here.
    let asks = [("steelyard-receipt", "yes")];
    let body = question("alba/b");
    let whole = api.try_request_with("POST", "/v1/completions", &asks, Some(&body)).unwrap();
    let at = |name: &str| net.path().join(name).to_string_lossy().into_owned();
    fs::write(at("receipt"), whole.header("steelyard-receipt").unwrap()).unwrap();
    fs::write(at("question"), body.to_string()).unwrap();
    fs::write(at("answer"), &whole.body).unwrap();
    let verify = |answer: &str| {
        let files = [&at("receipt"), &at("question"), &at(answer)];
        alba.run(&["verify", "--receipt", files[0], "--request", files[1], "--response", files[2]])
    };
    verify("answer").expect(0, &["alba/b@1"]);
    fs::write(at("other"), "another answer").unwrap();
    verify("other").expect(4, &["not about this response"]);
    let mut body = body;
    body["stream"] = json!(true);
    let stream = api.try_request_with("POST", "/v1/completions", &asks, Some(&body)).unwrap();
    fs::write(at("receipt"), &stream.body).unwrap();
    fs::write(at("question"), body.to_string()).unwrap();
    fs::write(at("streamed"), &stream.body).unwrap();
    verify("streamed").expect(0, &["alba/b@1"]);
}

#[test]
fn a_key_is_asked_for_before_anything_is_loaded() {
    let net = Net::new();
    let alba = nation_with(&net, &["a", "b"]);
    alba.configure(&Settings { more: "anonymous = \"never\"\n".to_owned(), ..Settings::default() });
    let node = alba.start();
    let (pool, api) = open(&node, &["a", "b"], &json!({ "on_demand": true }));
    let refused = ask(&api, "alba/a");
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    let with = |key: &str| {
        let head = format!("Bearer {key}");
        let head = [("authorization", head.as_str())];
        api.try_request_with("POST", "/v1/completions", &head, Some(&question("alba/a"))).unwrap()
    };
    assert_eq!(with("sk-steelyard-wrong").status, 401);
    assert_eq!(api.request("GET", "/v1/models", None).status, 401);
    assert_eq!(states(&node, &pool, &["a", "b"]), ["unloaded", "unloaded"]);
    assert_eq!(node.http.get("/v1/workers"), json!([]));
    let key = alba.json(&["serve-key", "add", "test"])["key"].as_str().unwrap().to_owned();
    let reply = until("the key to count", || Some(with(&key)).filter(|it| it.status != 401));
    assert_eq!(reply.status, 200, "{}", reply.text());
    // Its worker asks for the key, too.
    let worker = &node.http.get("/v1/workers")[0];
    let own = Http::tcp(worker["address"].as_str().unwrap());
    assert_eq!(own.request("GET", "/v1/models", None).status, 401, "{worker}");
}

#[test]
fn a_recall_takes_one_model_and_the_others_go_on() {
    let net = Net::new();
    let alba = nation_with(&net, &["a", "b", "c"]);
    let node = alba.start();
    let (pool, api) = open(&node, &["a", "b", "c"], &json!({ "memory": FOR_TWO }));
    let mut long = api.events("POST", "/v1/completions", Some(&long_answer("alba/a")));
    long.next(PATIENCE).expect("it begins");
    alba.recall("alba/a@1", "it rots", "high");
    let begun = Instant::now();
    wait::within(Duration::from_secs(5), "the recalled model to be answered 410", || {
        (ask(&api, "alba/a").status == 410).then_some(())
    });
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    let mut last = None;
    while let Some(event) = long.next(PATIENCE) {
        last = Some(event);
    }
    let last = last.expect("a last event").json();
    assert_eq!(last["error"]["code"], "model_recalled", "{last}");
    answered(&api, "alba/b");
    let workers = node.http.get("/v1/workers").as_array().unwrap().len();
    let gone = ask(&api, "alba/a");
    assert_eq!(
        (gone.status, &gone.json()["error"]["code"]),
        (410, &json!("model_recalled")),
        "{}",
        gone.text()
    );
    assert!(gone.text().contains("it rots"), "{}", gone.text());
    assert_eq!(node.http.get("/v1/workers").as_array().unwrap().len(), workers, "nothing is started for it");
    // One that is not loaded makes nobody give way either.
    answered(&api, "alba/c");
    alba.recall("alba/b@1", "it rots too", "high");
    until("the other recall", || (ask(&api, "alba/b").status == 410).then_some(()));
    assert_eq!(member(&node, &pool, "c")["state"], "ready");
    alba.run(&["pools", "load", "1", "alba/b"]).expect(5, &["was recalled", "it rots too"]);
}

#[test]
fn a_killed_worker_comes_back_and_requests_wait_for_it() {
    let net = Net::new();
    let alba = nation_with(&net, &["a", "b"]);
    let node = alba.start();
    let (pool, api) = open(&node, &["a", "b"], &json!({}));
    let worker = member(&node, &pool, "a")["worker"].clone();
    let workers = node.http.get("/v1/workers");
    let worker = workers.as_array().unwrap().iter().find(|it| it["id"] == worker).unwrap().clone();
    let pid =
        rustix::process::Pid::from_raw(i32::try_from(worker["pid"].as_u64().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    answered(&api, "alba/b");
    let reply = until("the killed one to answer", || Some(ask(&api, "alba/a")).filter(|it| it.status == 200));
    assert_eq!(reply.json()["model"], "alba/a");
    let workers = node.http.get("/v1/workers");
    let again = workers.as_array().unwrap().iter().find(|it| it["id"] == worker["id"]).unwrap();
    assert_eq!((&again["restarts"], &again["state"]), (&json!(1), &json!("ready")), "{again}");
    // Stopped by hand, it is loaded when somebody asks.
    alba.ok(&["workers", "stop", &worker["id"].to_string()]);
    answered(&api, "alba/a");
}

#[test]
fn workers_that_there_may_be_are_a_budget_too() {
    let net = Net::new();
    let alba = nation_with(&net, &["a", "b", "c"]);
    alba.configure(&Settings { more: "max_workers = 2\n".to_owned(), ..Settings::default() });
    let node = alba.start();
    let (pool, api) = open(&node, &["a", "b", "c"], &json!({}));
    assert_eq!(states(&node, &pool, &["a", "b", "c"]), ["ready", "ready", "unloaded"]);
    answered(&api, "alba/c");
    assert_eq!(states(&node, &pool, &["a", "b", "c"]), ["unloaded", "ready", "ready"]);
    // A worker beside the pool takes a place.
    let problem = node.serve("alba/a").unwrap_err();
    assert_eq!(problem["code"], "busy", "{problem}");
    alba.ok(&["pools", "unload", "1", "alba/b"]);
    node.serve("alba/a").unwrap_or_else(|problem| panic!("{problem}"));
    answered(&api, "alba/b");
    assert_eq!(states(&node, &pool, &["a", "b", "c"]), ["unloaded", "ready", "unloaded"]);
}

#[test]
fn models_come_and_go_while_the_address_stays() {
    let net = Net::new();
    let alba = nation_with(&net, &["a", "b", "c"]);
    let node = alba.start();
    let (pool, api) = open(&node, &["a", "b"], &json!({ "on_demand": true, "idle_secs": 2 }));
    let id = pool["id"].to_string();
    assert_eq!(ask(&api, "alba/c").status, 404);
    alba.ok(&["pools", "add", &id, "alba/c"]).expect(0, &["alba/c:stable is in pool", "unloaded"]);
    alba.run(&["pools", "add", &id, "alba/c"]).expect(2, &["in the pool already"]);
    alba.ok(&["pools", "load", &id, "alba/c"]).expect(0, &["alba/c is loaded", "ready"]);
    answered(&api, "alba/c");
    until("what is idle to be unloaded", || (states(&node, &pool, &["c"]) == ["unloaded"]).then_some(()));
    answered(&api, "alba/c");
    alba.ok(&["pools", "unload", &id, "alba/c"]).expect(0, &["alba/c is unloaded"]);
    alba.ok(&["pools", "remove", &id, "alba/c"]).expect(0, &["no more in pool"]);
    assert_eq!(ask(&api, "alba/c").status, 404);
    alba.run(&["pools", "load", &id, "alba/c"]).expect(3, &["not in pool", "alba/a"]);
    // A model of two versions is asked for by version.
    publish(&net, &alba, "a", "2");
    alba.ok(&["pools", "add", &id, "alba/a@1"]);
    for version in ["1", "2"] {
        let name = format!("alba/a@{version}");
        until("the versions to be known", || (ask(&api, &name).status == 200).then_some(()));
        assert_eq!(ask(&api, &name).json()["model"], "alba/a", "{name}");
    }
    let either = ask(&api, "alba/a");
    assert_eq!((either.status, &either.json()["error"]["code"]), (400, &json!("model_ambiguous")));
    assert!(either.text().contains("alba/a@1") && either.text().contains("alba/a@2"), "{}", either.text());

    alba.ok(&["pools", "stop", &id]);
    assert!(api.try_request("GET", "/v1/models", None).is_err());
    let workers = node.http.get("/v1/workers");
    assert!(workers.as_array().unwrap().iter().all(|it| it["state"] == "stopped"), "{workers}");
    alba.run(&["pools", "stop", &id]).expect(3, &["there is no pool"]);
    alba.ok(&["pools"]).expect(0, &["No pool runs"]);
}

#[test]
fn a_model_follows_its_channel_and_whoever_waits_for_it_gets_the_new_one() {
    let net = Net::new();
    let alba = nation_with(&net, &["a", "b"]);
    let node = alba.start();
    let (pool, api) = open(&node, &["a", "b"], &json!({ "follow": true, "memory": FOR_ONE }));
    let second = publish(&net, &alba, "a", "2");
    until("the new release to be served", || {
        answered(&api, "alba/a");
        (member(&node, &pool, "a")["release"] == second.as_str()).then_some(())
    });
    assert_eq!(ask(&api, "alba/a@2").status, 200);
    // One that is not loaded is resolved when it is.
    let other = publish(&net, &alba, "b", "2");
    answered(&api, "alba/b");
    assert_eq!(member(&node, &pool, "b")["release"], other.as_str());
    let problem = try_open(&node, &["a@1", "b"], &json!({ "follow": true })).unwrap_err().to_string();
    assert!(problem.contains("never moves"), "{problem}");
}

#[test]
fn a_person_serves_several_and_is_told() {
    let net = Net::new();
    let alba = nation_with(&net, &["a", "b"]);
    alba.run(&["serve", "alba/a", "alba/b", "--prove-sealed"]).expect(2, &["name one model"]);
    alba.run(&["serve", "alba/a", "alba/b", "--follow", "--stop-first"]).expect(2, &["is for one model"]);
    let explained = alba.ok(&["serve", "alba/a", "alba/b", "--explain", "--memory", "100MiB"]);
    explained.expect(0, &["alba/a@1", "alba/b@1", "together they need about", "100.0 MiB", "longest ago"]);
    let explained = alba.json(&["serve", "alba/a", "alba/b", "--explain"]);
    assert_eq!((&explained["fits"], explained["models"].as_array().unwrap().len()), (&json!(true), 2));
    // Without a node: the pool lives in the command.
    let mut command = alba.command(&["serve", "alba/a", "alba/b", "--memory", "100MiB", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    let pool: Value = serde_json::from_str(&line).unwrap();
    let api = Http::tcp(pool["address"].as_str().unwrap());
    answered(&api, "alba/b");
    let mut heard = std::io::BufReader::new(child.stderr.take().unwrap());
    for words in ["alba/a@1 is unloaded", "alba/b@1 is loaded"] {
        line.clear();
        std::io::BufRead::read_line(&mut heard, &mut line).unwrap();
        assert!(line.contains(words), "{line}");
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(api.try_request("GET", "/health", None).is_err());
    // The running node keeps it.
    let node = alba.start();
    let listen = ["--listen", "127.0.0.1:0"];
    let detached = alba.ok(&[&["serve", "alba/a", "alba/b", "--detach"], &listen[..]].concat());
    detached.expect(0, &["2 models are served at", "ready", "The node keeps it"]);
    alba.ok(&["pools"]).expect(0, &["pool 1", "alba/a:stable", "of memory in use"]);
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_swap_that_has_no_room_beside_the_old_one_says_what_helps() {
    let net = Net::new();
    let alba = nation_with(&net, &["a"]);
    publish(&net, &alba, "a", "2");
    let node = alba.start();
    let few = alba.run(&["serve", "alba/a@1", "--detach", "--listen", "127.0.0.1:0", "--memory", "40MiB"]);
    few.expect(1, &["needs about 6", "40 MiB at most"]);
    alba.ok(&["serve", "alba/a@1", "--detach", "--listen", "127.0.0.1:0", "--memory", "100MiB"]);
    let worker = node.http.get("/v1/workers").as_array().unwrap().last().unwrap().clone();
    assert!(worker["needs"].as_u64().unwrap() > 64 * MIB, "{worker}");
    let id = worker["id"].to_string();
    alba.run(&["workers", "swap", &id, "alba/a@2"]).expect(1, &["at most", "--stop-first"]);
    let address = worker["address"].as_str().unwrap();
    let version = || Http::tcp(address).get("/v1/models")["data"][0]["steelyard"]["version"].clone();
    assert_eq!(version(), "1");
    alba.ok(&["workers", "swap", &id, "alba/a@2", "--stop-first"]);
    assert_eq!(version(), "2");
}

#[test]
fn bodies_that_are_kept_are_bounded_together() {
    use std::io::Write;
    let net = Net::new();
    let alba = nation_with(&net, &["a"]);
    let node = alba.start();
    let (pool, api) = open(&node, &["a"], &json!({ "on_demand": true }));
    answered(&api, "alba/a");
    let address = pool["address"].as_str().unwrap();
    // As many of the longest as there is room for, which never come.
    let slow = |_| {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let head =
            format!("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{{", 4 * MIB);
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let slow: Vec<_> = (0..64).map(slow).collect();
    let asked = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let late = scope.spawn(|| {
            // Until all of them were noticed some may be let in.
            until("a request that waits", || {
                let begun = Instant::now();
                asked.store(true, Ordering::Relaxed);
                answered(&api, "alba/a");
                (begun.elapsed() > Duration::from_millis(500)).then_some(())
            });
        });
        until("it to be asked", || asked.load(Ordering::Relaxed).then_some(()));
        std::thread::sleep(Duration::from_secs(2));
        assert!(!late.is_finished(), "it was let in beside them");
        drop(slow);
        late.join().unwrap();
    });
    assert_eq!(node.stop(), 0);
}
