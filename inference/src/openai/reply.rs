//! The objects that answers are made of, as OpenAI's reference has them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::logprobs;
use crate::engine::{Done, Finish, Likelihood};

/// Which interface is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `/v1/completions`.
    Completion,
    /// `/v1/chat/completions`.
    Chat,
}

/// A number that nobody can foresee and that does not come twice; not for keys.
pub(super) fn random() -> u64 {
    /// Tells two numbers of one moment apart.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(COUNT.fetch_add(1, Ordering::Relaxed));
    hasher.finish()
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

/// What a request has cost.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    completion: u64,
    cached: u64,
}

impl Usage {
    /// One more of its answers is complete.
    pub(super) fn add(&mut self, done: &Done) {
        self.completion += u64::from(done.completion_tokens);
        self.cached = self.cached.max(u64::from(done.cached_tokens));
    }
}

/// A call of a function.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) arguments: String,
}

impl Call {
    fn function(&self) -> Value {
        json!({ "name": self.name, "arguments": self.arguments })
    }

    fn id() -> String {
        format!("call_{:016x}", random())
    }
}

/// One whole answer.
#[derive(Debug, Default)]
pub(super) struct Whole {
    pub(super) text: String,
    pub(super) calls: Vec<Call>,
    /// Absent unless likelihoods are wanted.
    pub(super) tokens: Option<Vec<Likelihood>>,
    pub(super) done: Option<Done>,
}

/// What stays the same in all parts of one answer.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    kind: Kind,
    id: String,
    created: i64,
    model: String,
    fingerprint: String,
    prompt_tokens: usize,
}

impl Reply {
    /// A new answer. `fingerprint` names the release.
    pub(super) fn new(kind: Kind, model: &str, fingerprint: &str, prompt_tokens: usize) -> Self {
        let prefix = match kind {
            Kind::Completion => "cmpl",
            Kind::Chat => "chatcmpl",
        };
        Self {
            kind,
            id: format!("{prefix}-{:016x}{:016x}", random(), random()),
            created: now(),
            model: model.to_owned(),
            fingerprint: fingerprint.to_owned(),
            prompt_tokens,
        }
    }

    /// All answers at once.
    pub(super) fn whole(&self, answers: Vec<Whole>, usage: Usage) -> Value {
        let object = match self.kind {
            Kind::Completion => "text_completion",
            Kind::Chat => "chat.completion",
        };
        let choices: Vec<Value> =
            answers.into_iter().enumerate().map(|(i, answer)| self.choice(i, answer)).collect();
        let mut value = self.object(object, &Value::from(choices));
        insert(&mut value, "usage", self.usage(usage));
        value
    }

    fn choice(&self, index: usize, answer: Whole) -> Value {
        let Whole { text, calls, tokens, done } = answer;
        let logprobs = self.logprobs(tokens.as_deref(), 0);
        let finish = reason(done.as_ref(), !calls.is_empty());
        if self.kind == Kind::Completion {
            return json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": finish });
        }
        let mut message = json!({ "role": "assistant", "content": text, "refusal": null });
        if !calls.is_empty() {
            if text.is_empty() {
                insert(&mut message, "content", Value::Null);
            }
            let call =
                |call: &Call| json!({ "id": Call::id(), "type": "function", "function": call.function() });
            insert(&mut message, "tool_calls", calls.iter().map(call).collect());
        }
        json!({ "index": index, "message": message, "logprobs": logprobs, "finish_reason": finish })
    }

    fn logprobs(&self, tokens: Option<&[Likelihood]>, offset: usize) -> Value {
        match (tokens, self.kind) {
            (None, _) => Value::Null,
            (Some(tokens), Kind::Chat) => logprobs::chat(tokens),
            (Some(tokens), Kind::Completion) => logprobs::completion(tokens, offset),
        }
    }

    /// The first part of a streamed chat, which names the speaker; completions have none.
    pub(super) fn opening(&self, index: usize) -> Option<Value> {
        let delta = json!({ "role": "assistant", "content": "" });
        (self.kind == Kind::Chat).then(|| self.chunk(index, &delta, &Value::Null, &Value::Null))
    }

    /// A part with text, which begins `offset` bytes into the answer; with likelihoods where they are wanted.
    pub(super) fn part(
        &self,
        index: usize,
        text: &str,
        tokens: Option<&[Likelihood]>,
        offset: usize,
    ) -> Value {
        let logprobs = self.logprobs(tokens, offset);
        match self.kind {
            Kind::Completion => self.chunk(index, &json!(text), &logprobs, &Value::Null),
            Kind::Chat => self.chunk(index, &json!({ "content": text }), &logprobs, &Value::Null),
        }
    }

    /// A part with the answer's call `number`.
    pub(super) fn call(&self, index: usize, number: usize, call: &Call) -> Value {
        let call =
            json!({ "index": number, "id": Call::id(), "type": "function", "function": call.function() });
        self.chunk(index, &json!({ "tool_calls": [call] }), &Value::Null, &Value::Null)
    }

    /// The last part of an answer, which tells why it ended.
    pub(super) fn ending(&self, index: usize, done: &Done, called: bool) -> Value {
        let nothing = match self.kind {
            Kind::Completion => json!(""),
            Kind::Chat => json!({}),
        };
        self.chunk(index, &nothing, &Value::Null, &reason(Some(done), called))
    }

    /// The part after the last, without choices, for callers who asked for the usage.
    pub(super) fn usage_part(&self, usage: Usage) -> Value {
        let mut value = self.object(self.chunk_object(), &json!([]));
        insert(&mut value, "usage", self.usage(usage));
        value
    }

    fn chunk_object(&self) -> &'static str {
        match self.kind {
            Kind::Completion => "text_completion",
            Kind::Chat => "chat.completion.chunk",
        }
    }

    fn chunk(&self, index: usize, delta: &Value, logprobs: &Value, finish: &Value) -> Value {
        let field = match self.kind {
            Kind::Completion => "text",
            Kind::Chat => "delta",
        };
        let choice = json!({ "index": index, field: delta, "logprobs": logprobs, "finish_reason": finish });
        self.object(self.chunk_object(), &json!([choice]))
    }

    fn object(&self, object: &str, choices: &Value) -> Value {
        json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model,
            "system_fingerprint": self.fingerprint, "choices": choices,
        })
    }

    fn usage(&self, usage: Usage) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens, "completion_tokens": usage.completion,
            "total_tokens": self.prompt_tokens as u64 + usage.completion,
            "prompt_tokens_details": { "cached_tokens": usage.cached },
        })
    }
}

fn reason(done: Option<&Done>, called: bool) -> Value {
    match done.map(|done| done.finish) {
        Some(Finish::Stop) if called => json!("tool_calls"),
        Some(Finish::Stop) => json!("stop"),
        Some(Finish::Length) => json!("length"),
        None => Value::Null,
    }
}

fn insert(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(name.to_owned(), value);
    }
}
