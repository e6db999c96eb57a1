//! A real vLLM behind a worker. It is not part of what `make python` installs (its build for CPUs and all it needs take 8 GB):
//! `STEELYARD_VLLM` names its program, `STEELYARD_VLLM_READ` the folders that its Python needs besides, divided by colons.
//! Without it these tests say so and see only that it is refused clearly.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::net::{Home, Settings};
use tests::{Http, Net, generate, until};

/// A Llama whose heads are as wide as vLLM's attention on CPUs knows (the golden ones are narrower).
fn publish(net: &Net, home: &Home) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../inference/tests/golden");
    let folder = net.folder("llama");
    generate::llama(&folder).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(golden.join(file), folder.join(file)).unwrap();
    }
    home.publish(&folder, "wide", "1.0.0", &["--releasable-to", "all"]);
}

fn serve(node: &tests::Daemon, options: &Value, missing: &[&str]) -> Result<Value, Value> {
    let body = json!({
        "reference": "alba/wide", "listen": "127.0.0.1:0", "options": options, "allow_missing": missing,
    });
    node.http.events("POST", "/v1/workers", Some(&body)).outcome(Duration::from_secs(400))
}

#[test]
fn without_a_vllm_it_is_refused_with_what_to_do() {
    let net = Net::new();
    let [alba] = net.allies(["alba"]);
    publish(&net, &alba);
    let explained = alba.run(&["serve", "alba/wide", "--explain", "--engine", "vllm"]);
    explained.expect(1, &["[worker.vllm]"]);
    let node = alba.start();
    let refused = serve(&node, &json!({"engine": "vllm"}), &[]).unwrap_err().to_string();
    assert!(refused.contains("[worker.vllm]") && refused.contains("--engine vllm"), "{refused}");
    // By itself another engine is chosen.
    assert!(serve(&node, &json!({}), &[]).unwrap()["engine"].as_str().unwrap().starts_with("candle"));
    assert_eq!(node.stop(), 0);
    // One that is not there, and one whose missing wall nobody allowed.
    let more = "[worker.vllm]\nprogram = \"/nowhere/bin/vllm\"\n".to_owned();
    alba.configure(&Settings { more, ..Settings::default() });
    let node = alba.start();
    let refused = serve(&node, &json!({"engine": "vllm"}), &[]).unwrap_err().to_string();
    assert!(refused.contains("--allow-missing seccomp"), "{refused}");
    let refused = serve(&node, &json!({"engine": "vllm"}), &["seccomp"]).unwrap_err().to_string();
    assert!(refused.contains("/nowhere/bin/vllm"), "{refused}");
    assert_eq!(node.stop(), 0);
    let more = "[worker.vllm]\nprogram = \"/bin/true\"\narguments = [\"--trust-remote-code\"]\n".to_owned();
    alba.configure(&Settings { more, ..Settings::default() });
    alba.run(&["status"]).expect(2, &["--trust-remote-code"]);
}

#[test]
fn the_real_vllm_answers_as_candle_does_and_a_recall_ends_it_within_a_second() {
    let Ok(program) = std::env::var("STEELYARD_VLLM") else {
        return eprintln!("not seen here: STEELYARD_VLLM names no vLLM");
    };
    let read = std::env::var("STEELYARD_VLLM_READ").unwrap_or_default();
    let read: Vec<&str> = read.split(':').filter(|folder| !folder.is_empty()).collect();
    let net = Net::new();
    let [alba] = net.allies(["alba"]);
    let more = format!(
        "start_secs = 400\n\n[worker.vllm]\nprogram = \"{program}\"\nread = {read:?}\n\
         arguments = [\"--dtype=float32\", \"--enforce-eager\"]\nenvironment = {{ VLLM_CPU_KVCACHE_SPACE = \"1\" }}\n"
    );
    alba.configure(&Settings { more, ..Settings::default() });
    publish(&net, &alba);
    let node = alba.start();
    let body = json!({"model": "alba/wide@1.0.0", "prompt": "A scale for weights.", "temperature": 0, "max_tokens": 6, "logprobs": 1});
    let embedded = serve(&node, &json!({}), &[]).unwrap();
    let candle = Http::tcp(embedded["address"].as_str().unwrap()).post("/v1/completions", &body);

    let options = json!({"engine": "vllm", "context": 128});
    let ready =
        serve(&node, &options, &["seccomp"]).unwrap_or_else(|problem| panic!("{problem}\n{}", node.log()));
    assert!(ready["engine"].as_str().unwrap().starts_with("vllm 0."), "{ready}");
    let api = Http::tcp(ready["address"].as_str().unwrap());
    let answer = api.post("/v1/completions", &body);
    let numbers = |answer: &Value| -> Vec<f64> {
        let told = answer["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap().clone();
        told.iter().map(|number| number.as_f64().unwrap()).collect()
    };
    // The same tokens, by their likelihoods: both compute in F32.
    let (theirs, ours) = (numbers(&answer), numbers(&candle));
    assert!(theirs.len() == 6 && ours.len() == 6, "{answer} {candle}");
    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert!((theirs - ours).abs() < 2e-3, "{theirs} and {ours}: {answer} {candle}");
    }
    assert_eq!(answer["model"], "alba/wide", "{answer}");
    assert_eq!(api.request("POST", "/v1/load_lora_adapter", Some(&json!({}))).status, 404);

    // It has ended before a second is over, with all the processes that it started.
    let pids = processes(&program);
    assert!(pids.len() > 1, "{pids:?}");
    let begun = Instant::now();
    alba.ok(&["recall", "alba/wide@1.0.0", "--reason", "a test", "--yes"]);
    until("vllm to be gone", || processes(&program).is_empty().then_some(()));
    let took = begun.elapsed();
    println!("recalled and gone in {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}, signing and the command's own start included");
    assert_eq!(node.stop(), 0);
}

/// Processes of this vLLM: those that run its Python.
fn processes(program: &str) -> Vec<u32> {
    let bin = Path::new(program).parent().unwrap().to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(bin) && !String::from_utf8_lossy(&line).contains("/tests/")
    })
    .filter(|pid| *pid != std::process::id())
    .collect()
}
