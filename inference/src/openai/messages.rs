//! Reads the messages of a chat.

use serde_json::Value;

use super::error::ApiError;
use super::fields::Fields;
use crate::template::Message;

/// Most messages of a chat: what a template can render within its fuel.
const MAX_MESSAGES: usize = 4096;
/// Most calls of functions in one message.
const MAX_CALLS: usize = 128;

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
        Some("tool") => "tool",
        Some("function") => {
            let message = "messages of role `function` are not supported; send `tool` messages";
            return Err(ApiError::unsupported(&at("role"), message));
        }
        _ => {
            let message = format!(
                "Invalid `{}`: it is `system`, `developer`, `user`, `assistant` or `tool`",
                at("role")
            );
            return Err(ApiError::invalid(Some(&at("role")), Some("invalid_value"), message));
        }
    };
    for name in ["function_call", "audio"] {
        let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
        fields.neutral(name, "functions are called by `tool_calls`, and no sound is heard", empty)?;
    }
    let calls = match fields.raw("tool_calls") {
        Some(calls) if role == "assistant" => read_calls(&at("tool_calls"), calls)?,
        _ => Vec::new(),
    };
    let call_id = fields.typed::<String>("tool_call_id")?;
    if role == "tool" && call_id.is_none() {
        let message =
            format!("Invalid `{}`: a tool's message names the call that it answers", at("tool_call_id"));
        return Err(ApiError::invalid(
            Some(&at("tool_call_id")),
            Some("missing_required_parameter"),
            message,
        ));
    }
    let name = fields.typed::<String>("name")?;
    let content = match fields.raw("content") {
        // An assistant's message without words, as clients send it back after a refusal.
        None if role == "assistant" => String::new(),
        content => read_content(&at("content"), content.unwrap_or_default())?,
    };
    Ok(Message { role, content, name, calls, call_id })
}

/// Calls as templates take them: the arguments as an object, where they are one.
fn read_calls(param: &str, calls: Value) -> Result<Vec<Value>, ApiError> {
    let invalid = || {
        let message = format!(
            "Invalid `{param}`: at most {MAX_CALLS} of `{{\"id\": …, \"type\": \"function\", \"function\": {{\"name\": …, \"arguments\": \"…\"}}}}`"
        );
        ApiError::invalid(Some(param), Some("invalid_value"), message)
    };
    let Value::Array(calls) = calls else { return Err(invalid()) };
    if calls.len() > MAX_CALLS {
        return Err(invalid());
    }
    let read = |mut call: Value| {
        let function = call.get_mut("function")?;
        function.get("name")?.as_str()?;
        let arguments = function.get("arguments").cloned().unwrap_or_default();
        let parsed = match &arguments {
            Value::String(text) => serde_json::from_str(text).ok().filter(Value::is_object),
            _ => None,
        };
        function.as_object_mut()?.insert("arguments".to_owned(), parsed.unwrap_or(arguments));
        Some(call)
    };
    calls.into_iter().map(|call| read(call).ok_or_else(invalid)).collect()
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
