//! The main job on real weights: publish, pull, pull from two, serve, answer, chat.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::Duration;

use serde_json::{Value, json};
use tests::net::Settings;
use tests::{Http, Net, binary, until};

/// A question whose answer takes some dozen tokens.
const QUESTION: &str = "What is the capital of France? Answer in one sentence.";
/// Enough for the answer to end by itself.
const TOKENS: u32 = 40;

fn worker(done: &Value) -> Http {
    Http::tcp(done["address"].as_str().unwrap_or_else(|| panic!("no address in {done}")))
}

fn chat(stream: bool) -> Value {
    json!({
        "model": "alba/smollm2", "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0, "max_tokens": TOKENS, "stream": stream,
    })
}

#[test]
fn a_model_goes_from_its_publisher_to_an_answer() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    let release = alba.publish(binary::weights(), "smollm2", "1.0.0", &["--releasable-to", "borea,cora"]);

    // borea pulls from alba.
    let (a, b, c) = (alba.start(), borea.start(), cora.start());
    b.connect(&a);
    let pulled = borea.json(&["pull", "alba/smollm2"]);
    assert_eq!(pulled["release"], *release, "{pulled}");
    let size = pulled["transfer"]["bytes_total"].as_u64().unwrap();
    assert!(size > 98_000_000, "{pulled}");

    // cora pulls from both at once; what each brought adds up.
    c.connect(&a);
    c.connect(&b);
    let pulled = c.pull("alba/smollm2").unwrap_or_else(|problem| panic!("{problem}"));
    let shares = pulled["transfer"]["peers"].as_array().unwrap().clone();
    let brought = |nation: &str| -> u64 {
        shares
            .iter()
            .filter(|share| share["nation"] == nation)
            .map(|share| share["bytes"].as_u64().unwrap())
            .sum()
    };
    println!("cora took {} bytes from alba and {} from borea", brought("alba"), brought("borea"));
    assert!(brought("alba") > 0 && brought("borea") > 0, "both brought something: {pulled}");
    assert_eq!(brought("alba") + brought("borea"), size, "nothing was fetched twice: {pulled}");
    assert_eq!(pulled["decision"]["allowed"], true, "{pulled}");

    // cora serves it, and the worker's answer is that of the engine run directly on the file.
    let ready = c.serve("alba/smollm2").unwrap_or_else(|problem| panic!("{problem}"));
    let api = worker(&ready);
    let models = api.get("/v1/models");
    assert_eq!(models["data"][0]["object"], "model", "{models}");
    let model = models["data"][0]["id"].as_str().unwrap().to_owned();
    assert!(model.contains("smollm2"), "{models}");
    let mut request = chat(false);
    request["model"] = json!(model);
    let answer = api.post("/v1/chat/completions", &request);
    let said = answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let file = binary::weights_file();
    let direct = inference::direct::chat(file, &[("user", QUESTION)], TOKENS, 2).unwrap();
    assert_eq!(said.trim(), direct.trim(), "the worker and the engine by itself");
    assert!(said.contains("Paris"), "{said}");

    // The same, streamed: the pieces add up to the whole answer.
    let mut request = chat(true);
    request["model"] = json!(model);
    let mut events = api.events("POST", "/v1/chat/completions", Some(&request));
    let mut streamed = String::new();
    let mut pieces = 0;
    loop {
        let event = events.next(Duration::from_secs(60)).expect("the stream ends with [DONE]");
        if event.data == "[DONE]" {
            break;
        }
        if let Some(piece) = event.json()["choices"][0]["delta"]["content"].as_str() {
            streamed.push_str(piece);
            pieces += 1;
        }
    }
    assert_eq!(streamed, said);
    assert!(pieces > 3, "{pieces} pieces");

    // Plain completion, too.
    let prompt = "The capital of Italy is";
    let body = json!({"model": model, "prompt": prompt, "temperature": 0, "max_tokens": 8});
    let completed = api.post("/v1/completions", &body);
    let text = completed["choices"][0]["text"].as_str().unwrap();
    assert_eq!(text, inference::direct::complete(file, prompt, 8, 2).unwrap());

    // A person asks in the terminal.
    let run = cora.ok(&["chat", "alba/smollm2", QUESTION, "--temperature", "0"]);
    assert!(run.stdout.contains("Paris"), "{run}");

    // Everything ends when asked, workers included.
    let worker_pid = c.http.get("/v1/workers")[0]["pid"].as_u64().unwrap();
    assert_eq!(c.stop(), 0);
    until("the worker to be gone", || {
        (!std::path::Path::new(&format!("/proc/{worker_pid}")).exists()).then_some(())
    });
}

#[test]
fn a_release_travels_as_a_file() {
    let net = Net::new();
    let [alba, borea] = net.allies(["alba", "borea"]);
    // No network reaches them, so nobody witnesses alba's log: whoever imports settles for the signatures.
    let unwitnessed = || Settings { more: "[policy]\nwitnesses = 0\n".to_owned(), ..Settings::default() };
    borea.configure(&unwitnessed());
    let folder = net.folder("model");
    tests::generate::safetensors(&folder.join("model.safetensors"), 3 << 20, 5).unwrap();
    std::fs::write(folder.join("README.md"), "---\nlicense: mit\n---\n# A model\n").unwrap();
    let release = alba.publish(&folder, "small", "1", &["--releasable-to", "all"]);
    let bundle_for = |nation: &str| {
        let bundle = net.path().join(format!("small-for-{nation}.steelyard")).to_str().unwrap().to_owned();
        alba.ok(&["export", "alba/small", &bundle, "--for", nation]);
        bundle
    };
    let bundle = bundle_for("borea");
    // Never over a file that is there.
    assert_ne!(alba.run(&["export", "alba/small", &bundle, "--for", "borea"]).code, 0);

    // No node runs: nothing but the file travels.
    let imported = borea.json(&["import", &bundle]);
    assert_eq!(imported["release"], *release, "{imported}");
    let shown = borea.json(&["show", "alba/small"]);
    assert_eq!(shown["presence"], "complete", "{shown}");
    borea.ok(&["verify", "alba/small"]);

    // One byte of the weights wrong, and nothing of it is kept. Nor is one that was made for somebody else.
    let cora = net.nation("cora");
    cora.trust(&alba);
    alba.trust(&cora);
    cora.configure(&unwitnessed());
    cora.run(&["import", &bundle]).expect(5, &["made for `borea`"]);
    let mut bytes = std::fs::read(bundle_for("cora")).unwrap();
    let at = bytes.len() - 100_000;
    bytes[at] ^= 1;
    let damaged = net.path().join("damaged.steelyard");
    std::fs::write(&damaged, bytes).unwrap();
    let before = cora.listing();
    cora.run(&["import", damaged.to_str().unwrap()]).expect(4, &[]);
    assert_eq!(cora.listing(), before, "nothing of the damaged file was kept");

    // A nation that does not know the publisher refuses it too.
    let dora = net.nation("dora");
    alba.trust(&dora);
    dora.run(&["import", &bundle_for("dora")]).expect(5, &["alba", "not pinned"]);
}
