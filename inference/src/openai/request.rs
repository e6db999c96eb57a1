//! Reads the bodies of `/v1/completions` and `/v1/chat/completions`.
//!
//! What is not supported is refused by name: an answer that silently ignores a parameter is a wrong answer. A
//! parameter with the value that changes nothing (`echo: false`, `tools: []`) is accepted, because clients send it.

use std::time::Duration;

use serde_json::Value;

use super::error::ApiError;
use super::fields::{Fields, wrong};
use super::format::{self, Form};
use super::messages::messages;
use super::tools::{self, Tools};
use crate::engine::{Sampling, Token};
use crate::template::Message;

/// Tokens of a completion when nobody asks for a number, as OpenAI has it. A chat goes on until the context
/// is full.
const DEFAULT_COMPLETION: u32 = 16;
/// Most of the likeliest tokens told at each place of a chat, and of a completion, as OpenAI has it.
const MAX_CHAT_LIKELIEST: usize = 20;
const MAX_COMPLETION_LIKELIEST: usize = 5;
/// Parameters that change nothing in an answer here.
const WITHOUT_EFFECT: [&str; 8] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "verbosity",
];

/// What both interfaces have in common.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    /// The model asked for.
    pub(super) model: Option<String>,
    /// The input.
    pub(super) input: Input,
    /// Most tokens of the answer.
    pub(super) max_tokens: Option<u32>,
    /// How tokens are chosen; the seed is absent if the caller gave none.
    pub(super) sampling: Sampling,
    /// Whether the caller gave a seed.
    pub(super) seeded: bool,
    /// Stop sequences.
    pub(super) stops: Vec<String>,
    /// How many answers.
    pub(super) choices: u32,
    /// How many of the likeliest tokens to tell at each place, if likelihoods are wanted.
    pub(super) logprobs: Option<usize>,
    /// What is added to the logits of some tokens.
    pub(super) bias: Vec<(Token, f32)>,
    /// What the answer must look like.
    pub(super) form: Form,
    /// The functions that it may call.
    pub(super) tools: Tools,
    /// How long it may take.
    pub(super) timeout: Option<Duration>,
    /// Whether to answer by server-sent events.
    pub(super) stream: bool,
    /// Whether the last of them tells the usage.
    pub(super) include_usage: bool,
}

/// What is to be answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Input {
    /// A whole prompt, special tokens and all.
    Prompt(String),
    /// Messages for the template.
    Messages(Vec<Message>),
}

/// What only one of the interfaces has.
struct Own {
    max_tokens: Option<u32>,
    logprobs: Option<usize>,
    form: Form,
    tools: Tools,
}

impl Request {
    /// Reads the body of `/v1/completions`.
    pub(super) fn completion(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        let prompt = prompt(fields.required("prompt")?)?;
        fields.neutral("echo", "the prompt is not repeated in the answer", |value| {
            *value == Value::Bool(false)
        })?;
        fields.neutral("best_of", "every answer that is made is sent", |value| *value == 1)?;
        fields.neutral("suffix", "text is only generated at the end", |value| *value == "")?;
        // Some callers send the chat's form of the field.
        if fields.0.get("logprobs") == Some(&Value::Bool(false)) {
            fields.raw("logprobs");
        }
        let own = Own {
            max_tokens: Some(fields.max_tokens(&["max_tokens"])?.unwrap_or(DEFAULT_COMPLETION)),
            logprobs: fields.likeliest("logprobs", MAX_COMPLETION_LIKELIEST)?,
            form: Form::Text,
            tools: Tools::default(),
        };
        finish(fields, Input::Prompt(prompt), own)
    }

    /// Reads the body of `/v1/chat/completions`.
    pub(super) fn chat(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        let messages = messages(fields.required("messages")?)?;
        let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
        fields.neutral("functions", "send `tools`", empty)?;
        fields
            .neutral("function_call", "send `tool_choice`", |value| *value == "none" || *value == "auto")?;
        fields.neutral("modalities", "answers are text", |value| *value == serde_json::json!(["text"]))?;
        let told = fields.typed::<bool>("logprobs")?.unwrap_or(false);
        let likeliest = fields.likeliest("top_logprobs", MAX_CHAT_LIKELIEST)?;
        if !told && likeliest.is_some_and(|count| count > 0) {
            return Err(wrong("top_logprobs", "it needs `logprobs: true`"));
        }
        let own = Own {
            max_tokens: fields.max_tokens(&["max_completion_tokens", "max_tokens"])?,
            logprobs: told.then(|| likeliest.unwrap_or(0)),
            form: format::read(&mut fields)?,
            tools: tools::read(&mut fields)?,
        };
        if own.form != Form::Text && own.tools.is_offered() {
            let message = "`response_format` can't be kept beside `tools` that the model may or may not call; send one of them";
            return Err(ApiError::unsupported("response_format", message));
        }
        finish(fields, Input::Messages(messages), own)
    }
}

/// Reads what both interfaces have in common; what is left then is unknown.
fn finish(mut fields: Fields, input: Input, own: Own) -> Result<Request, ApiError> {
    let Own { max_tokens, logprobs, form, tools } = own;
    let stream = fields.typed("stream")?.unwrap_or(false);
    let seed: Option<i64> = fields.typed("seed")?;
    let sampling = Sampling {
        temperature: fields.number("temperature", 0.0, 2.0)?.unwrap_or(1.0),
        top_p: fields.number("top_p", 0.0, 1.0)?.unwrap_or(1.0),
        seed: seed.map_or(0, fold),
        frequency_penalty: fields.number("frequency_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        presence_penalty: fields.number("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0),
    };
    let request = Request {
        model: fields.typed("model")?,
        input,
        max_tokens,
        sampling,
        seeded: seed.is_some(),
        stops: fields.stops()?,
        choices: fields.choices()?,
        logprobs,
        bias: fields.bias()?,
        form,
        tools,
        timeout: fields.timeout()?,
        stream,
        include_usage: fields.stream_options(stream)?,
    };
    for name in WITHOUT_EFFECT {
        fields.0.remove(name);
    }
    fields.nothing_left("")?;
    Ok(request)
}

/// All 64 bits of a seed count.
fn fold(seed: i64) -> u32 {
    let bits = seed.cast_unsigned();
    (bits ^ (bits >> 32)) as u32
}

/// A text, or an array with one.
fn prompt(value: Value) -> Result<String, ApiError> {
    let invalid = |message: &str| ApiError::invalid(Some("prompt"), Some("invalid_type"), message);
    match value {
        Value::String(text) => Ok(text),
        Value::Array(mut prompts) => match (prompts.pop(), prompts.is_empty()) {
            (Some(Value::String(text)), true) => Ok(text),
            (Some(Value::String(_)), false) => {
                Err(invalid("Invalid `prompt`: one prompt a request; send one request for each"))
            }
            (Some(_), _) => Err(invalid("Invalid `prompt`: tokens are not supported; send the text")),
            (None, _) => Err(invalid("Invalid `prompt`: the array is empty")),
        },
        _ => Err(invalid("Invalid `prompt`: it is a string")),
    }
}

#[cfg(test)]
mod tests;
