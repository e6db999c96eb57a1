//! OpenAI's interface on real weights: the stock `openai` client with a key, and many requests at once.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use inference::direct::Alone;
use serde_json::{Value, json};
use tests::net::Settings;
use tests::{Http, Net, binary, python, until};

#[test]
fn the_stock_client_of_openai_works_with_a_key_and_not_without() {
    let net = Net::new();
    let alba = net.nation("alba");
    alba.configure(&Settings { more: "anonymous = \"never\"\n".to_owned(), ..Settings::default() });
    alba.publish(binary::weights(), "smollm2", "1.0.0", &["--releasable-to", "all"]);
    let node = alba.start();
    let ready = node.serve("alba/smollm2").unwrap_or_else(|problem| panic!("{problem}"));
    let address = ready["address"].as_str().unwrap().to_owned();
    let worker = Http::tcp(&address);
    let refused = worker.request("GET", "/v1/models", None);
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));

    // The running worker hears of a new key, and of its end.
    let made = alba.json(&["serve-key", "add", "test"]);
    let key = made["key"].as_str().unwrap();
    let with_key = |key: &str| {
        let head = format!("Bearer {key}");
        worker.try_request_with("GET", "/v1/models", &[("authorization", &head)], None).unwrap().status
    };
    until("the key to count", || (with_key(key) == 200).then_some(()));
    assert!(!alba.ok(&["serve-key", "list"]).stdout.contains(key));

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/openai_client.py");
    let output = Command::new(python::interpreter())
        .arg("-B")
        .arg(&script)
        .args([&format!("http://{address}/v1"), "alba/smollm2", key])
        .output()
        .expect("run the client");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");

    // So does the program's own chat: the key from a file that is private, and no other way.
    let chat = |more: &[&str]| {
        alba.run(
            &[&["chat", "alba/smollm2", "Hello", "--max-tokens", "2", "--temperature", "0"], more].concat(),
        )
    };
    let file = net.path().join("key.txt");
    std::fs::write(&file, format!("{key}\n")).unwrap();
    let named = ["--key-file", file.to_str().unwrap()];
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    chat(&named).expect(5, &["key.txt"]);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    chat(&[]).expect(1, &["API key", "--key-file"]);
    let said = chat(&named);
    assert!(said.code == 0 && !said.stdout.trim().is_empty(), "{} {}", said.stdout, said.stderr);

    alba.ok(&["serve-key", "revoke", "test"]);
    until("the key to be of no use", || (with_key(key) == 401).then_some(()));
    alba.run(&["serve-key", "revoke", "test"]).expect(3, &["serve-key list"]);
    assert_eq!(node.stop(), 0);
}

/// A chosen token may be so much less likely than the likeliest, by their logits, as the quantised weights' kernels for one
/// row and for several round otherwise. The logits of SmolLM2 spread over some thirty; another request's tokens in the cache
/// would cost several.
const ROUNDING: f32 = 0.5;

#[test]
fn answers_computed_together_are_the_engines_own() {
    let net = Net::new();
    let alba = net.nation("alba");
    // A cache in which not all have room at once.
    let more = "parallel = 6\ncontext = 512\ncache = 700\n".to_owned();
    alba.configure(&Settings { more, ..Settings::default() });
    alba.publish(binary::weights(), "smollm2", "1.0.0", &["--releasable-to", "all"]);
    let node = alba.start();
    let ready = node.serve("alba/smollm2").unwrap_or_else(|problem| panic!("{problem}"));
    let address = ready["address"].as_str().unwrap();
    let countries =
        ["France", "Italy", "Spain", "Norway", "Greece", "Poland", "Japan", "Peru", "Egypt", "Cuba"];
    let system = "You are an assistant who answers in one short sentence and never explains why.";
    let ask = |country: &str| -> Value {
        let messages = json!([
            { "role": "system", "content": system },
            { "role": "user", "content": format!("What is the capital of {country}, and for what is it known?") },
        ]);
        let body = json!({ "messages": messages, "temperature": 0, "max_tokens": 48, "logprobs": true });
        Http::tcp(address).post("/v1/chat/completions", &body)
    };
    let replies: Vec<Value> = std::thread::scope(|scope| {
        let asked: Vec<_> = countries.iter().map(|country| scope.spawn(|| ask(country))).collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let alone = Alone::load(binary::weights_file(), 2).unwrap();
    let mut cached = 0;
    for (country, reply) in countries.iter().zip(&replies) {
        let prompt = format!(
            "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\nWhat is the capital of {country}, and for what is it known?<|im_end|>\n<|im_start|>assistant\n"
        );
        let told = reply["choices"][0]["logprobs"]["content"].as_array().unwrap();
        let answer: Vec<Vec<u8>> =
            told.iter().map(|token| serde_json::from_value(token["bytes"].clone()).unwrap()).collect();
        let gap = alone.worst_gap(&prompt, &answer).unwrap();
        println!("{country}: {gap} in {} tokens", answer.len());
        assert!(gap < ROUNDING, "{country}: {gap}");
        cached += reply["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    }
    assert!(cached > 100, "what all have in common was computed again and again: {cached}");
    assert_eq!(node.stop(), 0);
}
