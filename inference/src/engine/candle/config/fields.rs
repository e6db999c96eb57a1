//! The fields of a configuration, each taken once; what is left at the end was understood by nobody.

use serde_json::{Map, Value};

use super::{Architecture, MAX_CONFIG};

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// Not JSON, or no object.
    #[error("config.json is no JSON object: {0}")]
    Malformed(String),
    /// An architecture that is not on the list.
    #[error(
        "{0}, and only these are served from safetensors, because only these were compared with `transformers`: {list}. \
         llama.cpp knows more: publish the model as GGUF",
        list = Architecture::listed()
    )]
    Architecture(String),
    /// A field that must be there is not.
    #[error("config.json lacks `{0}`, whose default depends on who reads it; write it out")]
    Absent(&'static str),
    /// A value that is not supported.
    #[error("config.json says `{field}`: {found}; only {supported} is supported")]
    Value {
        /// The field.
        field: String,
        /// Its value, shortened.
        found: String,
        /// What would do.
        supported: String,
    },
    /// A number beyond a limit.
    #[error("config.json says `{field}`: {found}; it must be a whole number from 1 to {limit}")]
    Count {
        /// The field.
        field: &'static str,
        /// Its value, shortened.
        found: String,
        /// The limit.
        limit: usize,
    },
    /// Sizes that don't go together.
    #[error("config.json's sizes don't go together: {0}")]
    Sizes(&'static str),
    /// A field that nobody here knows.
    #[error(
        "config.json has `{field}`: {value}, which this engine does not know; it may change what the model computes, so the \
         model is refused rather than run wrongly"
    )]
    Unknown {
        /// The field.
        field: String,
        /// Its value, shortened.
        value: String,
    },
}

impl ConfigError {
    /// A value that is not supported.
    pub(crate) fn value(field: &str, found: &Value, supported: impl Into<String>) -> Self {
        Self::Value { field: shown(field), found: shown(&found.to_string()), supported: supported.into() }
    }
}

/// Foreign text as an error may show it.
pub(crate) fn shown(text: &str) -> String {
    /// Enough to recognise a value by.
    const SHOWN: usize = 80;
    let mut out: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        out.push('…');
    }
    out
}

/// The fields that were not taken yet.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// The object in a file's bytes.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        if bytes.len() as u64 > MAX_CONFIG {
            return Err(ConfigError::Malformed(format!("it has more than {MAX_CONFIG} bytes")));
        }
        let fields = serde_json::from_slice(bytes);
        fields.map(Self).map_err(|error| ConfigError::Malformed(error.to_string()))
    }

    /// An object within the file.
    pub(crate) fn within(fields: Map<String, Value>) -> Self {
        Self(fields)
    }

    /// Whether a field is there, if only as `null`.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// Takes a field.
    pub(crate) fn take(&mut self, field: &str) -> Option<Value> {
        self.0.remove(field)
    }

    /// A number from 1 to `limit`.
    pub(crate) fn count(&mut self, field: &'static str, limit: usize) -> Result<usize, ConfigError> {
        self.optional_count(field, limit)?.ok_or(ConfigError::Absent(field))
    }

    /// A number from 1 to `limit`, if it is there and not `null`.
    pub(crate) fn optional_count(
        &mut self,
        field: &'static str,
        limit: usize,
    ) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.take(field).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        match count.filter(|count| (1..=limit).contains(count)) {
            Some(count) => Ok(Some(count)),
            None => Err(ConfigError::Count { field, found: shown(&value.to_string()), limit }),
        }
    }

    /// A finite number.
    pub(crate) fn number(&mut self, field: &'static str) -> Result<Option<f64>, ConfigError> {
        match self.take(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64().filter(|number| number.is_finite()) {
                Some(number) => Ok(Some(number)),
                None => Err(ConfigError::value(field, &value, "a number")),
            },
        }
    }

    /// The small number that keeps a norm from dividing by zero.
    pub(crate) fn epsilon(&mut self, field: &'static str) -> Result<f64, ConfigError> {
        let number = self.number(field)?.ok_or(ConfigError::Absent(field))?;
        if number > 0.0 && number < 0.1 {
            return Ok(number);
        }
        Err(ConfigError::value(field, &Value::from(number), "a number between 0 and 0.1"))
    }

    /// A flag; false when it is not there, as in every class of the list.
    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool, ConfigError> {
        match self.take(field) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(ConfigError::value(field, &other, "true or false")),
        }
    }

    /// One token's number or several.
    pub(crate) fn tokens(&mut self, field: &'static str, most: usize) -> Result<Vec<u32>, ConfigError> {
        let value = self.take(field).unwrap_or(Value::Null);
        tokens(&value)
            .filter(|tokens| tokens.len() <= most)
            .ok_or_else(|| ConfigError::value(field, &value, format!("up to {most} numbers of tokens")))
    }

    /// A field that, if it is there, must have this value (`null` counts as not there).
    pub(crate) fn must_be(&mut self, field: &str, wanted: &Value) -> Result<(), ConfigError> {
        match self.take(field) {
            Some(found) if !found.is_null() && found != *wanted => {
                Err(ConfigError::value(field, &found, format!("`{wanted}`")))
            }
            _ => Ok(()),
        }
    }

    /// A field that must be there and have this value.
    pub(crate) fn required_to_be(&mut self, field: &'static str, wanted: &Value) -> Result<(), ConfigError> {
        if !self.has(field) {
            return Err(ConfigError::Absent(field));
        }
        self.must_be(field, wanted)
    }

    /// Nothing but `harmless` fields may be left; `null` says nothing.
    pub(crate) fn nothing_left(&self, harmless: &[&str]) -> Result<(), ConfigError> {
        let left =
            self.0.iter().find(|(field, value)| !value.is_null() && !harmless.contains(&field.as_str()));
        match left {
            None => Ok(()),
            Some((field, value)) => {
                Err(ConfigError::Unknown { field: shown(field), value: shown(&value.to_string()) })
            }
        }
    }
}

/// Numbers of tokens: none, one or a list.
pub(crate) fn tokens(value: &Value) -> Option<Vec<u32>> {
    let one = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(list) => list.iter().map(one).collect(),
        value => one(value).map(|token| vec![token]),
    }
}
