//! Adapters: releases of their own that go with a model, until they are recalled.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Daemon, Home, Http, Net, Reply, generate, until};

/// A worker hears of a recall by then, on a busy machine; the bar is a second.
const TOLD: Duration = Duration::from_secs(20);

/// Publishes version `version` of the smallest model.
fn model(net: &Net, home: &Home, version: &str, more: &[&str]) -> String {
    let folder = net.folder(&format!("tiny-{version}"));
    fs::write(folder.join("tiny.gguf"), generate::tiny_gguf()).unwrap();
    fs::write(folder.join("README.md"), format!("version {version}")).unwrap();
    home.publish(&folder, "tiny", version, &[&["--releasable-to", "all"], more].concat())
}

/// Publishes an adapter of this number, as `name`, for what `made_for` names.
fn adapter(net: &Net, home: &Home, name: &str, number: u64, made_for: &str) -> String {
    let folder = net.folder(&format!("{name}-{}", home.nation));
    fs::write(folder.join("adapter.gguf"), generate::tiny_adapter(number)).unwrap();
    let from = format!("{made_for}:adapter");
    home.publish(&folder, name, "1", &["--releasable-to", "all", "--derived-from", &from])
}

fn serve(node: &Daemon, reference: &str, adapters: &[&str]) -> Result<Value, Value> {
    let body = json!({ "reference": reference, "listen": "127.0.0.1:0", "adapters": adapters });
    node.http.events("POST", "/v1/workers", Some(&body)).outcome(Duration::from_secs(120))
}

fn api(worker: &Value) -> Http {
    Http::tcp(worker["address"].as_str().unwrap_or_else(|| panic!("{worker}")))
}

fn ask(api: &Http, model: &str) -> Reply {
    let body = json!({ "model": model, "prompt": "Once upon a time", "temperature": 0, "max_tokens": 24 });
    api.request("POST", "/v1/completions", Some(&body))
}

fn answer(api: &Http, model: &str) -> String {
    let reply = ask(api, model);
    assert_eq!(reply.status, 200, "{model}: {}", reply.text());
    reply.json()["choices"][0]["text"].as_str().unwrap().to_owned()
}

fn worker(node: &Daemon, id: &Value) -> Value {
    let workers = node.http.get("/v1/workers");
    workers.as_array().unwrap().iter().find(|worker| worker["id"] == *id).cloned().unwrap()
}

#[test]
fn an_allys_adapter_is_fetched_and_served_with_its_model_until_it_is_recalled() {
    let net = Net::new();
    let [alba, cora] = net.allies(["alba", "cora"]);
    let base = model(&net, &alba, "1", &[]);
    let ours = adapter(&net, &alba, "poems", 1, "alba/tiny@1");
    let (there, here) = (cora.start(), alba.start());
    there.connect(&here);
    there.pull("alba/tiny@1").unwrap_or_else(|problem| panic!("{problem}"));
    let theirs = adapter(&net, &cora, "legal", 2, "alba/tiny@1");

    let served = until("the ally's adapter to be known", || {
        serve(&here, "alba/tiny@1", &["alba/poems", "cora/legal"]).ok()
    });
    assert_eq!(
        (&served["release"], &served["adapters"][1]["release"]),
        (&json!(base), &json!(theirs)),
        "{served}"
    );
    let api = api(&served);
    let answers = ["alba/tiny", "alba/poems", "cora/legal"].map(|name| answer(&api, name));
    assert!(answers[0] != answers[1] && answers[1] != answers[2] && answers[0] != answers[2], "{answers:?}");
    assert_eq!(answer(&api, &theirs), answers[2]);
    let id = served["id"].to_string();
    alba.ok(&["workers"]).expect(0, &["alba/tiny@1", "with alba/poems@1", "with cora/legal@1"]);

    // The receipt names the adapter, and whoever reads it must know of adapters.
    let body = json!({ "model": "alba/poems", "prompt": "Once", "max_tokens": 3 });
    let text = serde_json::to_vec(&body).unwrap();
    let signed = api
        .try_request_with("POST", "/v1/completions", &[("steelyard-receipt", "yes")], Some(&body))
        .unwrap();
    let at = |name: &str| net.path().join(name).to_str().unwrap().to_owned();
    for (name, bytes) in [
        ("question", &text[..]),
        ("answer", &signed.body),
        ("receipt", signed.header("steelyard-receipt").unwrap().as_bytes()),
    ] {
        fs::write(at(name), bytes).unwrap();
    }
    let verified = cora.ok(&[
        "--json",
        "verify",
        "--receipt",
        &at("receipt"),
        "--request",
        &at("question"),
        "--response",
        &at("answer"),
    ]);
    let claim = verified.json();
    assert!(claim.to_string().contains(&ours) && claim.to_string().contains("alba/poems"), "{claim}");
    cora.ok(&["verify", "--receipt", &at("receipt")]).expect(0, &["alba/tiny", "alba/poems@1"]);

    // People talk to it by its name.
    let talk = ["--json", "chat", "alba/poems", "Once", "--max-tokens", "5"];
    let said = alba.ok(&talk).json();
    assert_eq!((&said["model"], &said["release"]), (&json!("alba/poems@1"), &json!(ours)), "{said}");

    // A process that died comes back with everything.
    let pid = rustix::process::Pid::from_raw(served["pid"].as_i64().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until("another process", || {
        Some(worker(&here, &served["id"])).filter(|it| it["state"] == "ready" && it["pid"] != served["pid"])
    });
    assert_eq!(answer(&api, "cora/legal"), answers[2]);

    // Its maker recalls one adapter: that one ends, all else goes on.
    cora.recall("cora/legal@1", "it gives bad advice", "high");
    let told = Instant::now();
    let gone = until("the recall to reach the worker", || {
        Some(ask(&api, "cora/legal")).filter(|reply| reply.status != 200)
    });
    assert!(told.elapsed() < TOLD);
    assert_eq!(
        (gone.status, &gone.json()["error"]["code"]),
        (410, &json!("model_recalled")),
        "{}",
        gone.text()
    );
    assert_eq!(
        (answer(&api, "alba/tiny"), answer(&api, "alba/poems")),
        (answers[0].clone(), answers[1].clone())
    );
    let after = worker(&here, &served["id"]);
    assert_eq!(after["state"], "ready", "{after}");
    assert!(after["adapters"][1]["withdrawn"].as_str().unwrap().contains("recalled"), "{after}");
    alba.ok(&["workers"]).expect(0, &["without cora/legal@1"]);
    let problem = serve(&here, "alba/tiny@1", &["cora/legal"]).unwrap_err();
    assert!(problem["detail"].as_str().unwrap().contains("recalled by cora"), "{problem}");
    // So does the next process, after a death.
    let pid = rustix::process::Pid::from_raw(after["pid"].as_i64().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until("another process", || {
        Some(worker(&here, &served["id"])).filter(|it| it["state"] == "ready" && it["pid"] != after["pid"])
    });
    assert_eq!(ask(&api, "cora/legal").status, 404);
    assert_eq!(answer(&api, "alba/poems"), answers[1]);
    alba.ok(&["workers", "stop", &id]);
    assert_eq!((here.stop(), there.stop()), (0, 0));
}

#[test]
fn an_adapter_goes_with_what_it_was_made_for_and_nothing_else() {
    let net = Net::new();
    let alba = net.nation("alba");
    let first = model(&net, &alba, "1", &[]);
    model(&net, &alba, "2", &[]);
    model(&net, &alba, "3", &["--derived-from", "alba/tiny@1:quantisation"]);
    let poems = adapter(&net, &alba, "poems", 1, "alba/tiny@1");
    adapter(&net, &alba, "other", 2, "alba/tiny@2");
    let node = alba.start();
    let refused = |reference: &str, adapters: &[&str], words: &[&str]| {
        let problem = serve(&node, reference, adapters).expect_err("it was served").to_string();
        assert!(words.iter().all(|word| problem.contains(word)), "{problem}");
    };
    refused(
        "alba/tiny@2",
        &["alba/poems"],
        &["alba/poems@1 was made for alba/tiny@1", "alba/tiny@2 is neither"],
    );
    refused("alba/tiny@1", &["alba/tiny@2"], &["alba/tiny@2 is not an adapter"]);
    let body = json!({ "reference": "alba/tiny@1", "adapters": ["alba/nothing"] });
    let unknown = node.http.request("POST", "/v1/workers", Some(&body));
    assert!(unknown.status == 404 && unknown.text().contains("alba/nothing"), "{}", unknown.text());

    // A quantisation of what it was made for, and the adapter by itself, which is its model with it.
    let quantised =
        serve(&node, "alba/tiny@3", &["alba/poems"]).unwrap_or_else(|problem| panic!("{problem}"));
    let itself = serve(&node, "alba/poems", &[]).unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!(
        (&itself["release"], &itself["adapters"][0]["release"]),
        (&json!(first), &json!(poems)),
        "{itself}"
    );
    assert_eq!(answer(&api(&quantised), "alba/poems"), answer(&api(&itself), "alba/poems"));

    // Another release in its place takes the adapters that go with that one, and going back takes those of before.
    let swap = |id: &Value, body: Value| {
        node.http
            .events("POST", &format!("/v1/workers/{id}/swap"), Some(&body))
            .outcome(Duration::from_secs(60))
    };
    let problem = swap(&itself["id"], json!({ "reference": "alba/tiny@2" })).unwrap_err();
    assert!(problem.to_string().contains("was made for alba/tiny@1"), "{problem}");
    let next =
        swap(&itself["id"], json!({ "reference": "alba/tiny@2", "adapters": ["alba/other"] })).unwrap();
    let there = api(&next);
    // The old worker may have accepted what came just before.
    let answers =
        |model: &str| until("the new worker to answer", || (ask(&there, model).status == 200).then_some(()));
    answers("alba/other");
    let id = next["id"].to_string();
    alba.ok(&["workers", "rollback", &id]).expect(0, &["alba/tiny@1"]);
    answers("alba/poems");
    let id = alba.json(&["workers"]).as_array().unwrap().last().unwrap()["id"].to_string();
    alba.ok(&["workers", "swap", &id, "alba/tiny@2", "--without-adapters"]);
    until("the adapter to be gone", || (ask(&there, "alba/poems").status == 404).then_some(()));

    // By the command.
    let explained = alba.run(&["serve", "alba/poems", "--follow"]);
    explained.expect(2, &["is an adapter", "--adapter"]);
    assert_eq!(node.stop(), 0);
}

#[test]
fn safetensors_are_served_with_what_peft_wrote() {
    let net = Net::new();
    let alba = net.nation("alba");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../inference/tests/golden");
    let copy = |name: &str, files: &[&str]| {
        let folder = net.folder(name);
        for file in files {
            let from = golden.join(file);
            fs::copy(&from, folder.join(from.file_name().unwrap())).unwrap();
        }
        folder
    };
    let folder = copy(
        "model",
        &["llama/config.json", "llama/model.safetensors", "tokenizer.json", "tokenizer_config.json"],
    );
    alba.publish(&folder, "llama", "1", &[]);
    let files =
        ["adapter_config.json", "adapter_model.safetensors"].map(|name| format!("adapters/llama-all/{name}"));
    let folder = copy("adapter", &[&files[0], &files[1]]);
    alba.publish(&folder, "tuned", "1", &["--derived-from", "alba/llama@1:adapter"]);
    adapter(&net, &alba, "gguf", 1, "alba/llama@1");
    let node = alba.start();
    let served = serve(&node, "alba/llama", &["alba/tuned"]).unwrap_or_else(|problem| panic!("{problem}"));
    assert!(served["engine"].as_str().unwrap().starts_with("candle"), "{served}");
    let api = api(&served);
    for (model, golden) in
        [("alba/llama", "llama/golden.json"), ("alba/tuned", "adapters/llama-all/golden.json")]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../inference/tests/golden").join(golden);
        let golden: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let case = golden["cases"].as_array().unwrap().iter().find(|case| case["text"].is_string()).unwrap();
        // As far as the tokens are bytes.
        let tokens = case["greedy"].as_array().unwrap().iter().map(|token| token.as_u64().unwrap());
        let wanted: Vec<u8> = tokens.map_while(|token| u8::try_from(token).ok()).collect();
        assert!(wanted.len() > 2, "{model}: {case}");
        let body =
            json!({ "model": model, "prompt": case["text"], "temperature": 0, "max_tokens": wanted.len() });
        let reply = api.request("POST", "/v1/completions", Some(&body)).json();
        let said = reply["choices"][0]["text"].as_str().unwrap_or_else(|| panic!("{reply}"));
        assert_eq!(said, String::from_utf8_lossy(&wanted), "{model}");
    }
    // An adapter in the other engine's format is refused with what helps.
    let problem = serve(&node, "alba/llama", &["alba/gguf"]).unwrap_err().to_string();
    assert!(problem.contains("adapter_config.json") && problem.contains("PEFT"), "{problem}");
    assert_eq!(node.stop(), 0);
}
