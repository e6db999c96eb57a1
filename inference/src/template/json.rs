//! JSON as templates see it: objects keep the order of their fields, and `tojson` writes as Hugging Face's does.

use std::sync::Arc;

use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Value, ValueKind};
use minijinja::{Error, ErrorKind};
use serde::Serialize;
use serde_json::Value as Plain;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Widest indentation that a template may ask for.
const MAX_INDENT: usize = 16;
/// Deepest nesting of what a template writes as JSON: deeper than any schema.
const MAX_DEPTH: usize = 128;
/// Most values of what a template writes as JSON: parts that occur often could make it grow without end.
const MAX_VALUES: usize = 100_000;

/// An object or an array.
#[derive(Debug)]
pub(super) struct Json(Plain);

impl Json {
    fn value(plain: &Plain) -> Value {
        match plain {
            Plain::Array(_) | Plain::Object(_) => Value::from_object(Self(plain.clone())),
            Plain::Null => Value::from(()),
            Plain::Bool(plain) => Value::from(*plain),
            Plain::String(plain) => Value::from(plain.as_str()),
            Plain::Number(plain) => match (plain.as_i64(), plain.as_u64()) {
                (Some(whole), _) => Value::from(whole),
                (None, Some(whole)) => Value::from(whole),
                (None, None) => Value::from(plain.as_f64().unwrap_or_default()),
            },
        }
    }

    /// `items` as an array.
    pub(super) fn array(items: &[Plain]) -> Value {
        Value::from_object(Self(Plain::Array(items.to_vec())))
    }
}

impl Object for Json {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        if self.0.is_array() { ObjectRepr::Seq } else { ObjectRepr::Map }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let found = match &self.0 {
            Plain::Array(items) => items.get(key.as_usize()?)?,
            Plain::Object(fields) => fields.get(key.as_str()?)?,
            _ => return None,
        };
        Some(Self::value(found))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match &self.0 {
            Plain::Array(items) => Enumerator::Seq(items.len()),
            Plain::Object(fields) => {
                Enumerator::Values(fields.keys().map(|name| Value::from(name.as_str())).collect())
            }
            _ => Enumerator::NonEnumerable,
        }
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&write(&self.0, Spaced).map_err(|_| std::fmt::Error)?)
    }
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)` of Python. Other arguments of it change nothing here.
pub(super) fn tojson(value: &Value, arguments: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = arguments.get("indent")?;
    for ignored in ["ensure_ascii", "separators", "sort_keys"] {
        let _ = arguments.get::<Option<Value>>(ignored);
    }
    arguments.assert_all_used()?;
    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let mut left = MAX_VALUES;
    let plain = plain(value, MAX_DEPTH, &mut left)?;
    let text = match indent {
        None => write(&plain, Spaced),
        Some(indent) => {
            let spaces = vec![b' '; indent.min(MAX_INDENT)];
            write(&plain, PrettyFormatter::with_indent(&spaces))
        }
    };
    Ok(Value::from_safe_string(text.map_err(failed)?))
}

/// A template's value as JSON.
fn plain(value: &Value, depth: usize, left: &mut usize) -> Result<Plain, Error> {
    if let Some(json) = value.downcast_object_ref::<Json>() {
        return Ok(json.0.clone());
    }
    let too_much = || Error::new(ErrorKind::BadSerialization, "too large or too deep for JSON");
    let depth = depth.checked_sub(1).ok_or_else(too_much)?;
    *left = left.checked_sub(1).ok_or_else(too_much)?;
    Ok(match value.kind() {
        ValueKind::Undefined | ValueKind::None => Plain::Null,
        ValueKind::Bool => Plain::Bool(value.is_true()),
        ValueKind::Number => match value.as_i64().filter(|_| value.is_integer()) {
            Some(whole) => Plain::from(whole),
            None => Plain::from(f64::try_from(value.clone())?),
        },
        ValueKind::Map => {
            let mut fields = serde_json::Map::new();
            for key in value.try_iter()? {
                let item = value.get_item(&key)?;
                fields.insert(key.to_string(), plain(&item, depth, left)?);
            }
            Plain::Object(fields)
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let mut items = Vec::new();
            for item in value.try_iter()? {
                items.push(plain(&item, depth, left)?);
            }
            Plain::Array(items)
        }
        _ => Plain::String(value.to_string()),
    })
}

fn write(value: &Plain, formatter: impl Formatter) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A space after each comma and colon.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{ChatTemplate, Message};
    use serde_json::json;

    fn render(source: &str) -> String {
        let tool = json!({ "type": "function", "function": { "name": "a", "parameters": { "z": [1, "é<"], "b": {} } } });
        let call = json!({ "function": { "name": "a", "arguments": { "y": true, "x": null } } });
        let message = Message { role: "assistant", calls: vec![call], ..Message::default() };
        ChatTemplate::new(source, None, None).unwrap().render(&[message], &[tool]).unwrap()
    }

    #[test]
    fn json_that_would_grow_without_end_is_refused() {
        let source = "{% set ns = namespace(a=[1]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a | tojson }}";
        assert!(ChatTemplate::new(source, None, None).unwrap().render(&[], &[]).is_err());
    }

    #[test]
    fn json_is_written_as_python_writes_it_in_the_order_it_came() {
        let whole =
            r#"{"type": "function", "function": {"name": "a", "parameters": {"z": [1, "é<"], "b": {}}}}"#;
        assert_eq!(render("{% for tool in tools %}{{ tool | tojson }}{% endfor %}"), whole);
        assert_eq!(render("{{ tools[0].function.name }} {{ tools[0]['function'].parameters.z[1] }}"), "a é<");
        let arguments = "{{ messages[0].tool_calls[0].function.arguments | tojson }}";
        assert_eq!(render(arguments), r#"{"y": true, "x": null}"#);
        assert_eq!(render("{{ tools[0].function.parameters.z | tojson(indent=2) }}"), "[\n  1,\n  \"é<\"\n]");
        assert_eq!(render("{{ 'x' | tojson }}{{ {'a': 1} | tojson }}"), r#""x"{"a": 1}"#);
        let items = "{% for name, value in tools[0].function.parameters.items() %}{{ name }} {% endfor %}";
        assert_eq!(render(items), "z b ");
        assert_eq!(render("{% if tools is iterable and tools | length == 1 %}yes{% endif %}"), "yes");
    }
}
