//! A model with adapters: a request chooses by name, and is answered as by a model into whose weights the adapter was reckoned.

use super::*;

/// Tokens may be so much less likely than the likeliest: an adapter beside a matrix rounds otherwise than one reckoned into it.
const ROUNDING: f32 = 5e-3;

fn serving(adapters: u64) -> Serving {
    let files: Vec<Vec<u8>> = (1..=adapters).map(tiny::adapter).collect();
    let options = Options { threads: Some(1), parallel: Some(6), ..Options::default() };
    Serving::with(tiny::gguf(Some(tiny::TEMPLATE)), &files, options)
}

fn body(model: &str, prompt: &str, tokens: u32) -> String {
    let messages = json!([{ "role": "user", "content": prompt }]);
    json!({ "model": model, "messages": messages, "max_tokens": tokens, "temperature": 0, "logprobs": true })
        .to_string()
}

fn ask(address: SocketAddr, model: &str, prompt: &str, tokens: u32) -> Value {
    let (status, reply) = tiny::receive(tiny::send(address, "POST", CHAT, &body(model, prompt, tokens)));
    assert_eq!(status, 200, "{reply}");
    serde_json::from_str(&reply).unwrap()
}

fn tokens(reply: &Value) -> Vec<Vec<u8>> {
    let told = reply["choices"][0]["logprobs"]["content"].as_array().unwrap();
    told.iter().map(|token| serde_json::from_value(token["bytes"].clone()).unwrap()).collect()
}

/// How much less likely than the likeliest any token of an answer is, when the weights in `alone` compute it.
fn gap(alone: &direct::Alone, prompt: &str, reply: &Value) -> f32 {
    let prompt = format!("<s><|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n", prompt.trim());
    alone.worst_gap(&prompt, &tokens(reply)).unwrap()
}

/// The weights that answer, for the model itself (0) and for each adapter.
fn references(scratch: &Scratch, adapters: u64) -> Vec<direct::Alone> {
    let content = |number| match number {
        0 => tiny::gguf(Some(tiny::TEMPLATE)),
        number => tiny::merged(Some(tiny::TEMPLATE), number),
    };
    let write = |number| scratch.file(&format!("{number}.gguf"), &content(number));
    (0..=adapters).map(|number| direct::Alone::load(&write(number), 1).unwrap()).collect()
}

fn name(number: usize) -> String {
    if number == 0 { "alba/tiny".to_owned() } else { format!("cora/adapter-{number}") }
}

#[test]
fn each_adapter_answers_as_the_weights_that_it_was_reckoned_into() {
    let (serving, scratch) = (serving(2), Scratch::new());
    let references = references(&scratch, 2);
    let system = "You are a helpful assistant. Answer in one word. ".repeat(6);
    let prompts = [format!("{system}One?"), "Two".to_owned(), format!("{system}Three?"), "abc ".repeat(90)];
    // All at once, twice: the second time what was computed before is there, and only for its own kind.
    for _ in 0..2 {
        std::thread::scope(|scope| {
            let asked = (0..3).flat_map(|number| prompts.iter().map(move |prompt| (number, prompt)));
            let (serving, references) = (&serving, &references);
            let asked: Vec<_> = asked
                .map(|(number, prompt)| {
                    scope.spawn(move || {
                        let reply = ask(serving.address, &name(number), prompt, 40);
                        assert_eq!(reply["model"], json!(name(number)));
                        (number, prompt, reply)
                    })
                })
                .collect();
            for asked in asked {
                let (number, prompt, reply) = asked.join().unwrap();
                for (other, alone) in references.iter().enumerate() {
                    let gap = gap(alone, prompt, &reply);
                    assert!((gap < ROUNDING) == (other == number), "{number} by {other}: {gap}");
                }
            }
        });
    }
    // What an adapter computed is shared with its own kind alone.
    let cached = |model: &str| {
        let reply = ask(serving.address, model, &prompts[0], 2);
        reply["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
    };
    let fresh = "Nobody asked this before, in so many words or in any others that begin alike.";
    ask(serving.address, &name(1), fresh, 2);
    let other = ask(serving.address, &name(2), fresh, 2);
    assert!(other["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() < 40, "{other}");
    cached(&name(1));
    assert!(cached(&name(1)) > 200);
}

#[test]
fn adapters_are_shown_and_asked_for_by_name_version_or_digest() {
    let serving = serving(2);
    let (_, models) = get(serving.address, "/v1/models");
    let ids: Vec<&str> =
        models["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["alba/tiny", "cora/adapter-1", "cora/adapter-2"]);
    let (_, shown) = get(serving.address, "/v1/models/cora/adapter-2");
    assert_eq!((&shown["parent"], &shown["owned_by"]), (&json!("alba/tiny"), &json!("cora")));
    assert_eq!(shown["steelyard"]["release"], json!(Digest::of(b"adapter 2")));
    assert_eq!(shown["steelyard"]["base"], json!(Digest::of(b"release")));
    let by_name = ask(serving.address, "cora/adapter-2", "Hello", 8);
    for name in ["cora/adapter-2@1.0.0".to_owned(), Digest::of(b"adapter 2").to_string()] {
        assert_eq!(tokens(&ask(serving.address, &name, "Hello", 8)), tokens(&by_name));
    }
    let (status, error) = serving.json(CHAT, &body("cora/adapter-3", "Hello", 8));
    assert_eq!((status, &error["error"]["code"]), (404, &json!("model_not_found")));
    assert!(error["error"]["message"].as_str().unwrap().contains("`cora/adapter-2`"), "{error}");
}

#[test]
fn a_recalled_adapter_ends_and_the_model_goes_on() {
    let serving = serving(2);
    let mut stream = tiny::send(
        serving.address,
        "POST",
        CHAT,
        r#"{"model":"cora/adapter-1","messages":[{"role":"user","content":"Go on"}],"max_tokens":7000,"stream":true}"#,
    );
    let mut first = [0; 64];
    stream.read_exact(&mut first).unwrap();
    let cause = Cause { code: StopCode::Recalled, reason: "it was poisoned".to_owned() };
    serving.adapters[0].set(cause);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("model_recalled") && rest.contains("`cora/adapter-1` was recalled"), "{rest}");
    assert!(rest.contains("it was poisoned") && !rest.contains("[DONE]"), "{rest}");
    let (status, error) = serving.json(CHAT, &body("cora/adapter-1", "Hello", 8));
    assert_eq!((status, &error["error"]["code"]), (410, &json!("model_recalled")));
    let (_, models) = get(serving.address, "/v1/models");
    assert_eq!(models["data"].as_array().unwrap().len(), 2, "{models}");
    assert_eq!(get(serving.address, "/v1/models/cora/adapter-1").0, 410);
    let (status, health) = get(serving.address, "/health");
    assert_eq!((status, &health["adapters"][0]["status"]), (200, &json!("withdrawn")));
    ask(serving.address, "alba/tiny", "Hello", 8);
    ask(serving.address, "cora/adapter-2", "Hello", 8);
    serving.settle();
}

/// Why the engine does not load an adapter of this content.
fn refusal(content: &[u8]) -> String {
    let scratch = Scratch::new();
    let file = |name: &str, content: &[u8]| {
        let location = scratch.file(name, content);
        engine::candle::golden::admitted(name, &location)
    };
    let model = [file("tiny.gguf", &tiny::gguf(None))];
    let adapter = [file("adapter.gguf", content)];
    let plan = Plan::for_files("alba/tiny", &model, None).unwrap();
    let halt = Halt::default();
    let opened =
        |wanted: &[&registry::admitted::AdmittedFile]| gate::open_all(wanted, &|_| {}, &halt).unwrap();
    let wanted = plan.adapter_files("cora/bad@1.0.0", &adapter).unwrap();
    let files = engine::Files {
        model: opened(&plan.files()),
        adapters: vec![engine::AdapterFiles { name: "cora/bad@1.0.0".to_owned(), files: opened(&wanted) }],
    };
    let queue = Arc::new(Queue::new(1));
    match engine::start(&plan, files, Options::default(), Arc::clone(&queue), halt.clone()) {
        Ok(_) => panic!("it was loaded"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn files_that_are_no_adapter_for_this_model_are_refused_with_the_reason() {
    let error = refusal(&tiny::gguf(None));
    assert!(error.contains("no LoRA adapter") && error.contains("cora/bad@1.0.0"), "{error}");
    for (changes, word) in [
        (&[("general.architecture", "qwen3")][..], "`qwen3`"),
        (&[("adapter.type", "ia3")], "no LoRA adapter"),
        (&[("blk.0.attn_q.weight", "blk.7.attn_q.weight")], "does not exist in base model"),
        // A number of its own for each row of a vocabulary, where the model has 64.
        (&[("blk.0.attn_q.weight", "output.weight")], "incorrect shape"),
        (&[("blk.0.attn_q.weight", "blk.0.attn_norm.weight")], "incorrect shape"),
        (&[("blk.0.attn_q.weight", "x.lora_a")], "named twice over"),
        (&[("blk.0.attn_q.weight", "blk.0.attn_v.weight")], "twice"),
    ] {
        let error = refusal(&tiny::adapter_like(1, changes));
        assert!(error.contains(word), "{changes:?}: {error}");
    }
    let whole = tiny::adapter(1);
    let error = refusal(&whole[..whole.len() - 64]);
    assert!(error.contains("adapter.gguf"), "{error}");
}
