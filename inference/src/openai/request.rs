//! Reads the bodies of `/v1/completions` and `/v1/chat/completions`.
//!
//! What is not supported is refused by name: an answer that silently ignores a parameter is a wrong answer. A
//! parameter with the value that changes nothing (`n: 1`, `tools: []`) is accepted, because clients send it.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::messages::messages;
use crate::engine::Sampling;
use crate::template::Message;

/// Most stop sequences, as OpenAI has it.
const MAX_STOPS: usize = 4;
/// Longest stop sequence, in bytes: each is compared with the text at each token.
const MAX_STOP: usize = 256;
/// Tokens of a completion when nobody asks for a number, as OpenAI has it. A chat goes on until the context
/// is full.
const DEFAULT_COMPLETION: u32 = 16;
/// Parameters that change nothing in an answer here.
const WITHOUT_EFFECT: [&str; 7] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "parallel_tool_calls",
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

impl Request {
    /// Reads the body of `/v1/completions`.
    pub(super) fn completion(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        let prompt = prompt(fields.required("prompt")?)?;
        fields.neutral("echo", "the prompt is not repeated in the answer", |value| {
            *value == Value::Bool(false)
        })?;
        fields.neutral("best_of", "one answer is made", |value| *value == 1)?;
        fields.neutral("suffix", "text is only generated at the end", |value| *value == "")?;
        let max_tokens = fields.max_tokens(&["max_tokens"])?.unwrap_or(DEFAULT_COMPLETION);
        fields.finish(Input::Prompt(prompt), Some(max_tokens))
    }

    /// Reads the body of `/v1/chat/completions`.
    pub(super) fn chat(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        let messages = messages(fields.required("messages")?)?;
        let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
        fields.neutral("tools", "this worker calls no tools", empty)?;
        fields.neutral("functions", "this worker calls no functions", empty)?;
        fields.neutral("tool_choice", "this worker calls no tools", |value| {
            *value == "none" || *value == "auto"
        })?;
        fields.neutral("function_call", "this worker calls no functions", |value| {
            *value == "none" || *value == "auto"
        })?;
        fields.neutral("response_format", "answers are plain text", |value| {
            value.get("type").is_some_and(|t| t == "text")
        })?;
        fields.neutral("top_logprobs", "probabilities are not told", |value| *value == 0)?;
        fields.neutral("modalities", "answers are text", |value| *value == serde_json::json!(["text"]))?;
        let max_tokens = fields.max_tokens(&["max_completion_tokens", "max_tokens"])?;
        fields.finish(Input::Messages(messages), max_tokens)
    }
}

/// The fields of a body that were not read yet.
pub(super) struct Fields(pub(super) Map<String, Value>);

impl Fields {
    fn parse(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(ApiError::invalid(None, None, "The body must be a JSON object")),
            Err(error) => Err(ApiError::invalid(None, None, format!("The body is not JSON: {error}"))),
        }
    }

    /// The field's value; `null` is as good as absent.
    pub(super) fn raw(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    fn required(&mut self, name: &str) -> Result<Value, ApiError> {
        self.raw(name).ok_or_else(|| {
            let message = format!("you must provide a `{name}` parameter");
            ApiError::invalid(Some(name), Some("missing_required_parameter"), message)
        })
    }

    pub(super) fn typed<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        serde_json::from_value(value).map(Some).map_err(|error| {
            ApiError::invalid(Some(name), Some("invalid_type"), format!("Invalid `{name}`: {error}"))
        })
    }

    fn number(&mut self, name: &str, low: f32, high: f32) -> Result<Option<f32>, ApiError> {
        let Some(number) = self.typed::<f32>(name)? else { return Ok(None) };
        if (low..=high).contains(&number) {
            return Ok(Some(number));
        }
        let message = format!("Invalid `{name}`: {number} is not between {low} and {high}");
        Err(ApiError::invalid(Some(name), Some("invalid_value"), message))
    }

    /// Accepts a parameter only with a value that changes nothing.
    pub(super) fn neutral(
        &mut self,
        name: &str,
        why: &str,
        is_neutral: impl Fn(&Value) -> bool,
    ) -> Result<(), ApiError> {
        match self.raw(name) {
            Some(value) if !is_neutral(&value) => Err(ApiError::unsupported(
                name,
                format!("`{name}` is not supported with this value: {why}; leave it out"),
            )),
            _ => Ok(()),
        }
    }

    /// The first of `names` that is given.
    fn max_tokens(&mut self, names: &[&str]) -> Result<Option<u32>, ApiError> {
        let mut chosen = None;
        for name in names {
            let given = self.typed::<u32>(name)?;
            if given == Some(0) {
                let message = format!("Invalid `{name}`: an answer has at least 1 token");
                return Err(ApiError::invalid(Some(name), Some("invalid_value"), message));
            }
            chosen = chosen.or(given);
        }
        Ok(chosen)
    }

    fn stops(&mut self) -> Result<Vec<String>, ApiError> {
        let invalid = |message: String| ApiError::invalid(Some("stop"), Some("invalid_value"), message);
        let stops = match self.raw("stop") {
            None => Vec::new(),
            Some(Value::String(stop)) => vec![stop],
            Some(value) => serde_json::from_value::<Vec<String>>(value)
                .map_err(|_| invalid("Invalid `stop`: it is a string or an array of strings".to_owned()))?,
        };
        if stops.len() > MAX_STOPS {
            return Err(invalid(format!("Invalid `stop`: at most {MAX_STOPS} sequences")));
        }
        if stops.iter().any(|stop| stop.is_empty() || stop.len() > MAX_STOP) {
            return Err(invalid(format!("Invalid `stop`: a sequence has 1 to {MAX_STOP} bytes")));
        }
        Ok(stops)
    }

    /// Reads what both interfaces have in common; what is left then is unknown.
    fn finish(mut self, input: Input, max_tokens: Option<u32>) -> Result<Request, ApiError> {
        self.neutral("n", "one answer is made", |value| *value == 1)?;
        self.neutral("logprobs", "probabilities are not told", |value| *value == Value::Bool(false))?;
        self.neutral("logit_bias", "tokens are not weighted", |value| {
            value.as_object().is_some_and(Map::is_empty)
        })?;
        let stream = self.typed("stream")?.unwrap_or(false);
        let seed: Option<i64> = self.typed("seed")?;
        let sampling = Sampling {
            temperature: self.number("temperature", 0.0, 2.0)?.unwrap_or(1.0),
            top_p: self.number("top_p", 0.0, 1.0)?.unwrap_or(1.0),
            seed: seed.map_or(0, fold),
            frequency_penalty: self.number("frequency_penalty", -2.0, 2.0)?.unwrap_or(0.0),
            presence_penalty: self.number("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        };
        let request = Request {
            model: self.typed("model")?,
            input,
            max_tokens,
            sampling,
            seeded: seed.is_some(),
            stops: self.stops()?,
            stream,
            include_usage: self.stream_options(stream)?,
        };
        for name in WITHOUT_EFFECT {
            self.0.remove(name);
        }
        match self.0.into_iter().find(|(_, value)| !value.is_null()) {
            None => Ok(request),
            Some((name, _)) => {
                let message = format!("Unrecognized request argument supplied: {name}");
                Err(ApiError::invalid(Some(&name), Some("unknown_parameter"), message))
            }
        }
    }

    fn stream_options(&mut self, stream: bool) -> Result<bool, ApiError> {
        let Some(options) = self.typed::<Map<String, Value>>("stream_options")? else { return Ok(false) };
        if !stream {
            let message = "`stream_options` is only allowed with `stream: true`";
            return Err(ApiError::invalid(Some("stream_options"), None, message));
        }
        let mut options = Fields(options);
        let include_usage = options.typed("include_usage")?.unwrap_or(false);
        // Padding against a listener on the line; there is none on loopback, and "no padding" is always
        // allowed.
        options.raw("include_obfuscation");
        match options.0.into_iter().next() {
            None => Ok(include_usage),
            Some((name, _)) => {
                let name = format!("stream_options.{name}");
                Err(ApiError::invalid(
                    Some(&name),
                    Some("unknown_parameter"),
                    format!("Unknown parameter: `{name}`"),
                ))
            }
        }
    }
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn chat(extra: &str) -> Result<Request, ApiError> {
        Request::chat(
            format!(r#"{{"model":"a/b","messages":[{{"role":"user","content":"Hi"}}]{extra}}}"#).as_bytes(),
        )
    }

    fn completion(extra: &str) -> Result<Request, ApiError> {
        Request::completion(format!(r#"{{"prompt":"Hi"{extra}}}"#).as_bytes())
    }

    #[test]
    fn defaults_are_those_of_openai() {
        let request = completion("").unwrap();
        assert_eq!(request.max_tokens, Some(16));
        assert!(!request.stream && !request.seeded);
        assert_eq!((request.sampling.temperature, request.sampling.top_p), (1.0, 1.0));
        let request = chat("").unwrap();
        assert_eq!((request.max_tokens, request.model.as_deref()), (None, Some("a/b")));
    }

    #[test]
    fn everything_supported_is_read() {
        let request = chat(
            r#","stream":true,"stream_options":{"include_usage":true},"stop":["a","b"],"max_tokens":9,"max_completion_tokens":7,
            "temperature":0,"top_p":0.5,"seed":-1,"frequency_penalty":1,"presence_penalty":-1,"n":1,"logprobs":false,
            "tools":[],"tool_choice":"none","response_format":{"type":"text"},"user":"u","logit_bias":{},"suffix":null"#,
        )
        .unwrap();
        assert!(request.stream && request.include_usage && request.seeded);
        assert_eq!((request.max_tokens, request.stops.len()), (Some(7), 2));
        assert_eq!((request.sampling.temperature, request.sampling.top_p), (0.0, 0.5));
    }

    #[test]
    fn contents_in_parts_are_joined_and_roles_are_known() {
        let body = r#"{"messages":[{"role":"developer","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
            {"role":"assistant","content":null},{"role":"user","content":"c","name":"Ann"}]}"#;
        let Input::Messages(messages) = Request::chat(body.as_bytes()).unwrap().input else { unreachable!() };
        let read: Vec<_> = messages.iter().map(|message| (message.role, message.content.as_str())).collect();
        assert_eq!(read, [("system", "ab"), ("assistant", ""), ("user", "c")]);
    }

    #[test]
    fn what_is_not_supported_or_wrong_is_refused_by_name() {
        for (extra, param) in [
            (r#","n":2"#, "n"),
            (r#","logprobs":true"#, "logprobs"),
            (r#","top_logprobs":3"#, "top_logprobs"),
            (r#","tools":[{"type":"function"}]"#, "tools"),
            (r#","response_format":{"type":"json_object"}"#, "response_format"),
            (r#","logit_bias":{"5":1}"#, "logit_bias"),
            (r#","temperature":2.5"#, "temperature"),
            (r#","temperature":"hot""#, "temperature"),
            (r#","top_p":-0.1"#, "top_p"),
            (r#","max_tokens":0"#, "max_tokens"),
            (r#","max_completion_tokens":-5"#, "max_completion_tokens"),
            (r#","seed":1.5"#, "seed"),
            (r#","stop":["a","b","c","d","e"]"#, "stop"),
            (r#","stop":"""#, "stop"),
            (r#","stop":7"#, "stop"),
            (r#","stream":"yes""#, "stream"),
            (r#","stream_options":{"include_usage":true}"#, "stream_options"),
            (r#","stream":true,"stream_options":{"x":1}"#, "stream_options.x"),
            (r#","top_k":40"#, "top_k"),
            (r#","prompt":"Hi""#, "prompt"),
        ] {
            let error = chat(extra).unwrap_err();
            assert_eq!(
                (error.status.as_u16(), error.param.as_deref()),
                (400, Some(param)),
                "{extra}: {error:?}"
            );
        }
        for (extra, param) in [
            (r#","echo":true"#, "echo"),
            (r#","best_of":3"#, "best_of"),
            (r#","suffix":"x""#, "suffix"),
            (r#","logprobs":5"#, "logprobs"),
            (r#","messages":[]"#, "messages"),
        ] {
            assert_eq!(completion(extra).unwrap_err().param.as_deref(), Some(param));
        }
    }

    #[test]
    fn wrong_messages_and_prompts_are_refused() {
        for body in [
            r"{}",
            r"[]",
            r"nonsense",
            r#"{"messages":[]}"#,
            r#"{"messages":{}}"#,
            r#"{"messages":[1]}"#,
            r#"{"messages":[{"role":"king","content":"x"}]}"#,
            r#"{"messages":[{"role":"user"}]}"#,
            r#"{"messages":[{"role":"tool","content":"x"}]}"#,
            r#"{"messages":[{"role":"user","content":5}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#,
            r#"{"messages":[{"role":"user","content":["x"]}]}"#,
        ] {
            assert_eq!(Request::chat(body.as_bytes()).unwrap_err().status.as_u16(), 400, "{body}");
        }
        for prompt in ["[]", "5", "[1,2]", r#"["a","b"]"#, "{}", "null"] {
            let body = format!(r#"{{"prompt":{prompt}}}"#);
            assert_eq!(
                Request::completion(body.as_bytes()).unwrap_err().param.as_deref(),
                Some("prompt"),
                "{body}"
            );
        }
        assert!(Request::chat(b"{\"messages\":\"\xFF\"}").is_err());
    }
}
