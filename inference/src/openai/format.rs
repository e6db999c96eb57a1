//! `response_format`: what an answer must look like.

use serde_json::{Value, json};

use super::error::ApiError;
use super::fields::{Fields, wrong};

/// The form of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Form {
    /// Any text.
    Text,
    /// JSON of this schema.
    Json(Value),
}

/// Reads the field.
pub(super) fn read(fields: &mut Fields) -> Result<Form, ApiError> {
    const NAME: &str = "response_format";
    let Some(Value::Object(format)) = fields.raw(NAME) else { return Ok(Form::Text) };
    let mut format = Fields(format);
    let kind: Option<String> = format.typed("type")?;
    match kind.as_deref() {
        Some("text") => Ok(Form::Text),
        Some("json_object") => Ok(Form::Json(json!({ "type": "object" }))),
        Some("json_schema") => {
            let missing = || {
                let name = "response_format.json_schema";
                wrong(name, "it is an object with a `name` and a `schema`")
            };
            let Some(Value::Object(inner)) = format.raw("json_schema") else { return Err(missing()) };
            // Every schema is kept to strictly, whether `strict` asks for it or not.
            inner
                .get("schema")
                .filter(|schema| schema.is_object())
                .cloned()
                .map(Form::Json)
                .ok_or_else(missing)
        }
        _ => Err(wrong(NAME, "its `type` is `text`, `json_object` or `json_schema`")),
    }
}
