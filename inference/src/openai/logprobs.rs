//! Likelihoods in the two forms that OpenAI has.

use serde_json::{Value, json};

use crate::engine::Likelihood;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn token(bytes: &[u8], logprob: f32) -> Value {
    json!({ "token": text(bytes), "logprob": logprob, "bytes": bytes })
}

/// As chats tell them.
pub(super) fn chat(tokens: &[Likelihood]) -> Value {
    let content: Vec<Value> = tokens
        .iter()
        .map(|likelihood| {
            let mut value = token(&likelihood.bytes, likelihood.logprob);
            value["top_logprobs"] =
                likelihood.top.iter().map(|(bytes, logprob)| token(bytes, *logprob)).collect();
            value
        })
        .collect();
    json!({ "content": content, "refusal": null })
}

/// As completions tell them; the first token begins at `offset`.
pub(super) fn completion(tokens: &[Likelihood], mut offset: usize) -> Value {
    let mut offsets = Vec::with_capacity(tokens.len());
    for likelihood in tokens {
        offsets.push(offset);
        offset += text(&likelihood.bytes).chars().count();
    }
    let top = |likelihood: &Likelihood| {
        let pairs = likelihood.top.iter().map(|(bytes, logprob)| (text(bytes), json!(logprob)));
        Value::Object(pairs.collect())
    };
    json!({
        "tokens": tokens.iter().map(|likelihood| text(&likelihood.bytes)).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|likelihood| likelihood.logprob).collect::<Vec<_>>(),
        "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
        "text_offset": offsets,
    })
}
