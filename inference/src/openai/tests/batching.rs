//! Many at once: each gets the answer that it gets alone.

use super::*;

/// Prompts of all lengths, some of which begin alike.
fn prompts() -> Vec<String> {
    let system = "You are a helpful assistant. Answer in one word. ".repeat(6);
    let long = "abcdefg ".repeat(90);
    (0..12)
        .map(|number| match number % 4 {
            0 => format!("{system}{number}{number}?"),
            1 => format!("number {number}"),
            2 => format!("{long}{number}"),
            _ => format!("{system}Question {number}: {}", "why ".repeat(number)),
        })
        .collect()
}

/// Chosen tokens may be so much less likely than the likeliest, by their logits: what is computed in other batches, or
/// again after it had to make way, is rounded otherwise, and of two that are as likely either may come.
const ROUNDING: f32 = 5e-3;

/// How much less likely than the likeliest any token of an answer was when the engine computes it alone.
fn gap(serving: &Serving, prompt: &str, reply: &Value) -> f32 {
    let told = reply["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let bytes = |token: &Value| serde_json::from_value(token["bytes"].clone()).unwrap();
    let answer: Vec<Vec<u8>> = told.iter().map(bytes).collect();
    let prompt = format!("<s><|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n", prompt.trim());
    direct::Alone::load(&serving.weights, 1).unwrap().worst_gap(&prompt, &answer).unwrap()
}

fn complete(address: SocketAddr, prompt: &str, tokens: u32) -> Value {
    let messages = json!([{ "role": "user", "content": prompt }]);
    let body =
        json!({ "messages": messages, "max_tokens": tokens, "temperature": 0, "logprobs": true }).to_string();
    let (status, body) = tiny::receive(tiny::send(address, "POST", CHAT, &body));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Asks for all prompts at once.
fn together(address: SocketAddr, prompts: &[String], tokens: u32) -> Vec<Value> {
    std::thread::scope(|scope| {
        let asked: Vec<_> =
            prompts.iter().map(|prompt| scope.spawn(move || complete(address, prompt, tokens))).collect();
        asked.into_iter().map(|answer| answer.join().unwrap()).collect()
    })
}

#[test]
fn answers_computed_together_are_those_computed_alone() {
    let serving = Serving::one();
    let prompts = prompts();
    // The second time some of the prompts are in the cache.
    for round in 0..2 {
        for (reply, prompt) in together(serving.address, &prompts, 60).iter().zip(&prompts) {
            let gap = gap(&serving, prompt, reply);
            assert!(gap < ROUNDING, "{gap} in round {round}");
            assert_eq!(reply["usage"]["completion_tokens"], 60);
        }
    }
    complete(serving.address, &prompts[0], 2);
    // What was answered last is there whole, but for the token from which the answer is chosen.
    let again = complete(serving.address, &prompts[0], 2);
    let cached = again["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert_eq!(cached + 1, again["usage"]["prompt_tokens"].as_u64().unwrap());
    serving.settle();
    let text = metrics(&serving);
    assert!(text.contains("steelyard_worker_requests_finished_total 26\n"), "{text}");
    assert!(text.contains("steelyard_worker_requests_running 0\n"), "{text}");
}

fn metrics(serving: &Serving) -> String {
    let (status, text) = tiny::receive(tiny::send(serving.address, "GET", "/metrics", ""));
    assert_eq!(status, 200);
    text
}

#[test]
fn a_cache_that_is_too_small_for_all_makes_some_wait_and_none_wrong() {
    let options = Options {
        threads: Some(1),
        context: Some(256),
        parallel: Some(6),
        cache: Some(300),
        ..Options::default()
    };
    let serving = Serving::start(Some(tiny::TEMPLATE), options);
    let prompts: Vec<String> = (0..10).map(|number| format!("{number} and {number} ").repeat(4)).collect();
    let replies = together(serving.address, &prompts, 150);
    for (prompt, reply) in prompts.iter().zip(&replies) {
        let gap = gap(&serving, prompt, reply);
        assert!(gap < ROUNDING, "{gap}");
        assert_eq!(reply["usage"]["completion_tokens"], 150);
    }
    serving.settle();
}

#[test]
fn several_answers_to_one_request_share_its_prompt() {
    let serving = Serving::one();
    let prompt = "Tell me something about the sea. ".repeat(8);
    let body = json!({ "prompt": prompt, "max_tokens": 20, "n": 3, "seed": 4 });
    let (_, reply) = serving.json(COMPLETIONS, &body.to_string());
    let texts: Vec<&str> =
        reply["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect();
    assert_eq!(texts.len(), 3);
    assert!(texts[0] != texts[1] && texts[1] != texts[2], "{texts:?}");
    assert_eq!(reply["usage"]["completion_tokens"], 60);
    assert!(reply["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() > 200, "{reply}");
    let mut body = body;
    body["stream"] = json!(true);
    let (_, streamed) = serving.post(COMPLETIONS, &body.to_string());
    let mut joined = vec![String::new(); 3];
    for event in events(&streamed).into_iter().filter(|event| *event != "[DONE]") {
        let event: Value = serde_json::from_str(event).unwrap();
        let choice = &event["choices"][0];
        joined[choice["index"].as_u64().unwrap() as usize].push_str(choice["text"].as_str().unwrap());
    }
    assert_eq!(joined, texts);
}

#[test]
fn what_takes_longer_than_it_may_is_broken_off() {
    let serving = Serving::one();
    let body = json!({ "prompt": "Hello", "max_tokens": 8000, "temperature": 0, "timeout": 0.05 });
    let (status, reply) = serving.json(COMPLETIONS, &body.to_string());
    assert_eq!((status, &reply["error"]["code"]), (504, &json!("deadline_exceeded")));
    let body = json!({ "prompt": "Hello", "max_tokens": 8000, "temperature": 0, "stream": true }).to_string();
    let stream = tiny::send_with(serving.address, "POST", COMPLETIONS, "X-Request-Timeout: 0.05\r\n", &body);
    let (_, body) = tiny::receive(stream);
    assert!(body.contains("deadline_exceeded") && !body.contains("[DONE]"), "{body}");
    let stream = tiny::send_with(serving.address, "POST", COMPLETIONS, "X-Request-Timeout: soon\r\n", "{}");
    assert_eq!(tiny::receive(stream).0, 400);
    serving.settle();
    assert_eq!(complete(serving.address, "Hello", 3)["usage"]["completion_tokens"], 3);
}
