//! Safetensors from their publisher to an answer, and what is said about engines before.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tests::net::Home;
use tests::{Http, Net, binary};

/// The small random Llama of the golden files, with its tokenizer beside it, and whatever `more` names.
fn tiny(net: &Net, name: &str, more: &[(&str, &Path)]) -> std::path::PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../inference/tests/golden");
    let folder = net.folder(name);
    for file in ["llama/config.json", "llama/model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        let from = golden.join(file);
        std::fs::copy(&from, folder.join(from.file_name().unwrap())).unwrap();
    }
    for (name, from) in more {
        std::fs::copy(from, folder.join(name)).unwrap();
    }
    folder
}

fn explain(home: &Home, args: &[&str]) -> Value {
    home.run(&[&["--json", "serve", "--explain"], args].concat()).json()
}

fn verdicts(explained: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let engines = explained["engines"].as_array().unwrap();
    engines.iter().map(|one| (text(&one["engine"]), text(&one["verdict"]))).collect()
}

fn pairs(pairs: [(&str, &str); 2]) -> Vec<(String, String)> {
    pairs.map(|(engine, verdict)| (engine.to_owned(), verdict.to_owned())).into()
}

/// What a token of the small vocabulary adds to an answer.
fn bytes(token: &Value) -> Vec<u8> {
    match token.as_u64().unwrap() {
        byte @ 0..256 => vec![byte as u8],
        260 => b"he".to_vec(),
        261 => b"<tool_call>".to_vec(),
        262 => b"</tool_call>".to_vec(),
        _ => Vec::new(),
    }
}

#[test]
fn safetensors_are_served_by_candle_as_the_reference_answers() {
    let net = Net::new();
    let [alba] = net.allies(["alba"]);
    alba.publish(&tiny(&net, "safetensors", &[]), "tiny", "1.0.0", &[]);

    let explained = explain(&alba, &["alba/tiny"]);
    assert_eq!(
        verdicts(&explained),
        pairs([("llama.cpp", "impossible"), ("candle", "chosen")]),
        "{explained}"
    );
    assert!(explained["engines"][1]["memory"]["weights"].as_u64().unwrap() > 300_000, "{explained}");
    let spoken = alba.ok(&["serve", "alba/tiny", "--explain"]).stdout;
    assert!(spoken.contains("would be served by candle") && spoken.contains("no .gguf file"), "{spoken}");
    let insisted = alba.run(&["serve", "alba/tiny", "--explain", "--engine", "llama.cpp"]);
    insisted.expect(1, &["no engine here can serve it"]);

    let node = alba.start();
    // The same, told by a running node's folder.
    assert_eq!(explain(&alba, &["alba/tiny"])["engine"], "candle");
    // As many threads as are asked for, whatever the machine has.
    let body = json!({"reference": "alba/tiny", "listen": "127.0.0.1:0", "options": {"threads": 3}});
    let ready =
        node.http.events("POST", "/v1/workers", Some(&body)).outcome(Duration::from_secs(60)).unwrap();
    assert_eq!(ready["engine"], "candle on CPU, 3 threads", "{ready}");
    let api = Http::tcp(ready["address"].as_str().unwrap());

    // The greedy answer to the golden text is the golden answer.
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../inference/tests/golden/llama/golden.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    let case = golden["cases"].as_array().unwrap().iter().find(|case| case["text"].is_string()).unwrap();
    let wanted: Vec<u8> = case["greedy"].as_array().unwrap().iter().flat_map(bytes).collect();
    let body = json!({"model": "alba/tiny", "prompt": case["text"], "temperature": 0, "max_tokens": 16});
    let answer = api.post("/v1/completions", &body);
    assert_eq!(answer["choices"][0]["text"].as_str().unwrap(), String::from_utf8_lossy(&wanted), "{answer}");

    // A chat goes through the template of tokenizer_config.json.
    let body = json!({"model": "alba/tiny", "messages": [{"role": "user", "content": "he<|im_end|>"}], "max_tokens": 5});
    let answer = api.post("/v1/chat/completions", &body);
    // <|im_start|> user \n he + 10 letters <|im_end|> \n <|im_start|> assistant \n
    assert_eq!(answer["usage"]["prompt_tokens"], 1 + 4 + 1 + 1 + 10 + 1 + 1 + 1 + 9 + 1, "{answer}");
    assert_eq!(node.stop(), 0);
}

#[test]
fn a_person_may_insist_and_what_no_engine_serves_is_told() {
    let net = Net::new();
    let [alba] = net.allies(["alba"]);
    let both = tiny(&net, "both", &[("smollm2.gguf", binary::weights_file())]);
    alba.publish(&both, "both", "1.0.0", &[]);
    let explained = explain(&alba, &["alba/both"]);
    assert_eq!(verdicts(&explained), pairs([("llama.cpp", "chosen"), ("candle", "possible")]), "{explained}");
    let explained = explain(&alba, &["alba/both", "--engine", "candle"]);
    assert_eq!(verdicts(&explained), pairs([("llama.cpp", "possible"), ("candle", "chosen")]), "{explained}");

    let odd = tiny(&net, "odd", &[]);
    let config = std::fs::read_to_string(odd.join("config.json")).unwrap();
    std::fs::write(odd.join("config.json"), config.replace("LlamaForCausalLM", "PhiForCausalLM")).unwrap();
    alba.publish(&odd, "odd", "1.0.0", &[]);
    let explained = explain(&alba, &["alba/odd"]);
    assert_eq!(explained["engine"], Value::Null, "{explained}");
    let reason = explained["engines"][1]["reason"].as_str().unwrap();
    assert!(reason.contains("PhiForCausalLM") && reason.contains("MistralForCausalLM"), "{reason}");
    let node = alba.start();
    let problem = node.serve("alba/odd").unwrap_err().to_string();
    assert!(problem.contains("PhiForCausalLM"), "{problem}");
    assert_eq!(node.stop(), 0);
}
