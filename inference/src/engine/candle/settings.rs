//! What the smaller files beside a model say: the chat template, the tokens at both ends, the longest text.

use serde_json::Value;

use super::config::{MAX_ENDS, fields_tokens};
use super::files::{self, FilesError, Opened};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// The chat template (Jinja).
    pub(super) template: Option<String>,
    /// Text of the token that begins a sequence.
    pub(super) bos: Option<String>,
    /// Text of the token that ends one.
    pub(super) eos: Option<String>,
    /// Numbers of tokens that end an answer.
    pub(super) ends: Vec<u32>,
    /// The longest text in tokens, where sentence-transformers' files say one.
    pub(super) longest: Option<usize>,
}

impl Settings {
    /// Reads what is there. `jinja` wins over `tokenizer_config.json`, as in `transformers`.
    pub(super) fn read(opened: &Opened) -> Result<Self, FilesError> {
        let tokenizer = opened.json(files::TOKENIZER_CONFIG)?;
        let generation = opened.json(files::GENERATION)?;
        let sentences = opened.json(files::SENTENCES)?;
        let jinja = opened.bytes(files::TEMPLATE)?;
        let text = |token: &str| tokenizer.get(token).and_then(token_text);
        let mut ends = generation.get("eos_token_id").and_then(fields_tokens).unwrap_or_default();
        ends.truncate(MAX_ENDS);
        Ok(Self {
            template: jinja
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .or_else(|| template(tokenizer.get("chat_template"))),
            bos: text("bos_token"),
            eos: text("eos_token"),
            ends,
            longest: sentences
                .get("max_seq_length")
                .and_then(Value::as_u64)
                .and_then(|n| usize::try_from(n).ok()),
        })
    }
}

/// A token as text, or as an object with its text.
fn token_text(token: &Value) -> Option<String> {
    token.as_str().or_else(|| token.get("content").and_then(Value::as_str)).map(str::to_owned)
}

/// One template, or of several the one called `default`.
fn template(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(template) => Some(template.clone()),
        Value::Array(named) => {
            let default = named.iter().find(|one| one.get("name") == Some(&Value::from("default")));
            default?.get("template")?.as_str().map(str::to_owned)
        }
        _ => None,
    }
}
