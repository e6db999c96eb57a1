//! The fields of a body, read one by one; what is left at the end is unknown.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::ApiError;
use crate::engine::Token;

/// Most stop sequences, as OpenAI has it.
const MAX_STOPS: usize = 4;
/// Longest stop sequence, in bytes: each is compared with the text at each token.
const MAX_STOP: usize = 256;
/// Most tokens that a `logit_bias` may weigh, as OpenAI has it.
const MAX_BIASED: usize = 300;
/// Most answers to one request: each takes a place of its own.
const MAX_CHOICES: u32 = 8;
/// Longest time that a request may take, and what it gets when it asks for none: longer ones stream for hours and hold a
/// place that others wait for.
pub(super) const MAX_TIME: Duration = Duration::from_secs(3600);

/// The fields of a body that were not read yet.
pub(super) struct Fields(pub(super) Map<String, Value>);

impl Fields {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
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

    pub(super) fn required(&mut self, name: &str) -> Result<Value, ApiError> {
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

    pub(super) fn number(&mut self, name: &str, low: f32, high: f32) -> Result<Option<f32>, ApiError> {
        let Some(number) = self.typed::<f32>(name)? else { return Ok(None) };
        if (low..=high).contains(&number) {
            return Ok(Some(number));
        }
        Err(wrong(name, format!("{number} is not between {low} and {high}")))
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
    pub(super) fn max_tokens(&mut self, names: &[&str]) -> Result<Option<u32>, ApiError> {
        let mut chosen = None;
        for name in names {
            let given = self.typed::<u32>(name)?;
            if given == Some(0) {
                return Err(wrong(name, "an answer has at least 1 token"));
            }
            chosen = chosen.or(given);
        }
        Ok(chosen)
    }

    pub(super) fn stops(&mut self) -> Result<Vec<String>, ApiError> {
        let stops = match self.raw("stop") {
            None => Vec::new(),
            Some(Value::String(stop)) => vec![stop],
            Some(value) => serde_json::from_value::<Vec<String>>(value)
                .map_err(|_| wrong("stop", "it is a string or an array of strings"))?,
        };
        if stops.len() > MAX_STOPS {
            return Err(wrong("stop", format!("at most {MAX_STOPS} sequences")));
        }
        if stops.iter().any(|stop| stop.is_empty() || stop.len() > MAX_STOP) {
            return Err(wrong("stop", format!("a sequence has 1 to {MAX_STOP} bytes")));
        }
        Ok(stops)
    }

    /// How many answers are wanted.
    pub(super) fn choices(&mut self) -> Result<u32, ApiError> {
        let choices = self.typed::<u32>("n")?.unwrap_or(1);
        if (1..=MAX_CHOICES).contains(&choices) {
            return Ok(choices);
        }
        Err(wrong("n", format!("it is between 1 and {MAX_CHOICES}; send several requests for more")))
    }

    /// What is added to the logits of which tokens.
    pub(super) fn bias(&mut self) -> Result<Vec<(Token, f32)>, ApiError> {
        let Some(map) = self.typed::<Map<String, Value>>("logit_bias")? else { return Ok(Vec::new()) };
        if map.len() > MAX_BIASED {
            return Err(wrong("logit_bias", format!("at most {MAX_BIASED} tokens")));
        }
        let read = |(token, bias): (String, Value)| {
            let token = token.parse::<Token>().ok().filter(|token| *token >= 0);
            let bias = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias));
            token.zip(bias.map(|bias| bias as f32))
        };
        map.into_iter()
            .map(read)
            .collect::<Option<_>>()
            .ok_or_else(|| wrong("logit_bias", "it maps numbers of tokens to numbers from -100 to 100"))
    }

    /// How many of the likeliest tokens are to be told, at most `most`.
    pub(super) fn likeliest(&mut self, name: &str, most: usize) -> Result<Option<usize>, ApiError> {
        match self.typed::<usize>(name)? {
            Some(count) if count > most => Err(wrong(name, format!("it is between 0 and {most}"))),
            count => Ok(count),
        }
    }

    /// How long the request may take.
    pub(super) fn timeout(&mut self) -> Result<Option<Duration>, ApiError> {
        let Some(seconds) = self.typed::<f64>("timeout")? else { return Ok(None) };
        within(seconds).map(Some)
    }

    pub(super) fn stream_options(&mut self, stream: bool) -> Result<bool, ApiError> {
        let Some(options) = self.typed::<Map<String, Value>>("stream_options")? else { return Ok(false) };
        if !stream {
            let message = "`stream_options` is only allowed with `stream: true`";
            return Err(ApiError::invalid(Some("stream_options"), None, message));
        }
        let mut options = Fields(options);
        let include_usage = options.typed("include_usage")?.unwrap_or(false);
        // Padding against a listener on the line; "no padding" is always allowed.
        options.raw("include_obfuscation");
        options.nothing_left("stream_options.")?;
        Ok(include_usage)
    }

    /// Refuses what was not read.
    pub(super) fn nothing_left(self, prefix: &str) -> Result<(), ApiError> {
        match self.0.into_iter().find(|(_, value)| !value.is_null()) {
            None => Ok(()),
            Some((name, _)) => {
                let shown: String = name.chars().take(80).collect();
                let name = format!("{prefix}{shown}");
                let message = format!("Unrecognized request argument supplied: {name}");
                Err(ApiError::invalid(Some(&name), Some("unknown_parameter"), message))
            }
        }
    }
}

/// A time that a request may take, from seconds.
pub(super) fn within(seconds: f64) -> Result<Duration, ApiError> {
    let limit = MAX_TIME.as_secs();
    if seconds > 0.0 && seconds <= MAX_TIME.as_secs_f64() {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(wrong("timeout", format!("it is a number of seconds, more than 0 and at most {limit}")))
}

/// 400: the value of `name` is not allowed.
pub(super) fn wrong(name: &str, message: impl std::fmt::Display) -> ApiError {
    ApiError::invalid(Some(name), Some("invalid_value"), format!("Invalid `{name}`: {message}"))
}
