//! Reads the messages of a chat.

use serde_json::Value;

use super::error::ApiError;
use super::request::Fields;
use crate::template::Message;

/// Most messages of a chat: what a template can render within its fuel.
const MAX_MESSAGES: usize = 4096;

/// Reads the array of messages.
pub(super) fn messages(value: Value) -> Result<Vec<Message>, ApiError> {
    let invalid = |message: String| ApiError::invalid(Some("messages"), None, message);
    let Value::Array(messages) = value else {
        return Err(invalid("Invalid `messages`: it is an array of messages".to_owned()));
    };
    if messages.is_empty() {
        return Err(invalid("Invalid `messages`: there is none; send at least one".to_owned()));
    }
    if messages.len() > MAX_MESSAGES {
        let count = messages.len();
        return Err(invalid(format!("Invalid `messages`: {count} messages; at most {MAX_MESSAGES}")));
    }
    messages.into_iter().enumerate().map(|(index, message)| read_message(index, message)).collect()
}

fn read_message(index: usize, message: Value) -> Result<Message, ApiError> {
    let at = |field: &str| format!("messages[{index}].{field}");
    let Value::Object(fields) = message else {
        let param = format!("messages[{index}]");
        return Err(ApiError::invalid(
            Some(&param),
            Some("invalid_type"),
            format!("Invalid `{param}`: not an object"),
        ));
    };
    let mut fields = Fields(fields);
    let role = match fields.typed::<String>("role")?.as_deref() {
        // OpenAI's newer name of the same role; templates know only the older.
        Some("system" | "developer") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        Some("tool" | "function") => {
            let message = "messages of tools are not supported: this worker calls no tools";
            return Err(ApiError::unsupported(&at("role"), message));
        }
        _ => {
            let message =
                format!("Invalid `{}`: it is `system`, `developer`, `user` or `assistant`", at("role"));
            return Err(ApiError::invalid(Some(&at("role")), Some("invalid_value"), message));
        }
    };
    for name in ["tool_calls", "function_call", "audio"] {
        let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
        fields.neutral(name, "this worker calls no tools and hears no sound", empty)?;
    }
    let name = fields.typed::<String>("name")?;
    let content = match fields.raw("content") {
        // An assistant's message without words, as clients send it back after a refusal.
        None if role == "assistant" => String::new(),
        content => read_content(&at("content"), content.unwrap_or_default())?,
    };
    Ok(Message { role, content, name })
}

/// A text, or an array of texts, which are joined.
fn read_content(param: &str, content: Value) -> Result<String, ApiError> {
    let invalid = |message: String| ApiError::invalid(Some(param), Some("invalid_type"), message);
    let parts = match content {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        _ => return Err(invalid(format!("Invalid `{param}`: it is a string or an array of text parts"))),
    };
    let mut text = String::new();
    for part in parts {
        match (part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
            (Some("text"), Some(more)) => text.push_str(more),
            (Some(kind), _) if kind != "text" => {
                let kind: String = kind.chars().take(40).collect();
                let message = format!("`{param}`: parts of type `{kind}` are not supported, only `text`");
                return Err(ApiError::unsupported(param, message));
            }
            _ => {
                return Err(invalid(format!(
                    "Invalid `{param}`: a part is `{{\"type\": \"text\", \"text\": …}}`"
                )));
            }
        }
    }
    Ok(text)
}
