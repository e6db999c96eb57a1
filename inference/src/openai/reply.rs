//! The objects that answers are made of, as OpenAI's reference has them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::engine::{Done, Finish};

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

    /// The whole answer at once.
    pub(super) fn whole(&self, text: &str, done: &Done) -> Value {
        let (object, choice) = match self.kind {
            Kind::Completion => (
                "text_completion",
                json!({
                    "index": 0, "text": text, "logprobs": null, "finish_reason": reason(done),
                }),
            ),
            Kind::Chat => (
                "chat.completion",
                json!({
                    "index": 0, "message": { "role": "assistant", "content": text, "refusal": null }, "logprobs": null,
                    "finish_reason": reason(done),
                }),
            ),
        };
        let mut value = self.object(object, &json!([choice]));
        insert(&mut value, "usage", self.usage(done));
        value
    }

    /// The first part of a streamed chat, which names the speaker; completions have none.
    pub(super) fn opening(&self) -> Option<Value> {
        (self.kind == Kind::Chat)
            .then(|| self.chunk(&json!({ "role": "assistant", "content": "" }), &Value::Null))
    }

    /// A part with text.
    pub(super) fn part(&self, text: &str) -> Value {
        match self.kind {
            Kind::Completion => self.chunk(&json!(text), &Value::Null),
            Kind::Chat => self.chunk(&json!({ "content": text }), &Value::Null),
        }
    }

    /// The last part, which tells why the answer ended.
    pub(super) fn ending(&self, done: &Done) -> Value {
        let nothing = match self.kind {
            Kind::Completion => json!(""),
            Kind::Chat => json!({}),
        };
        self.chunk(&nothing, &reason(done))
    }

    /// The part after the last, without choices, for callers who asked for the usage.
    pub(super) fn usage_part(&self, done: &Done) -> Value {
        let mut value = self.object(self.chunk_object(), &json!([]));
        insert(&mut value, "usage", self.usage(done));
        value
    }

    fn chunk_object(&self) -> &'static str {
        match self.kind {
            Kind::Completion => "text_completion",
            Kind::Chat => "chat.completion.chunk",
        }
    }

    fn chunk(&self, delta: &Value, finish: &Value) -> Value {
        let field = match self.kind {
            Kind::Completion => "text",
            Kind::Chat => "delta",
        };
        let choice = json!({ "index": 0, field: delta, "logprobs": null, "finish_reason": finish });
        self.object(self.chunk_object(), &json!([choice]))
    }

    fn object(&self, object: &str, choices: &Value) -> Value {
        json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model,
            "system_fingerprint": self.fingerprint, "choices": choices,
        })
    }

    fn usage(&self, done: &Done) -> Value {
        let completion = u64::from(done.completion_tokens);
        json!({
            "prompt_tokens": self.prompt_tokens, "completion_tokens": completion,
            "total_tokens": self.prompt_tokens as u64 + completion,
        })
    }
}

fn reason(done: &Done) -> Value {
    match done.finish {
        Finish::Stop => json!("stop"),
        Finish::Length => json!("length"),
    }
}

fn insert(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(name.to_owned(), value);
    }
}
