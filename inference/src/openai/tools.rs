//! `tools` and `tool_choice`: the functions that an answer may call.

use serde_json::Value;

use super::error::ApiError;
use super::fields::{Fields, wrong};
use crate::calls::{Choice, Tool};
use crate::engine::grammar;

/// Most functions of a request: their descriptions are part of the prompt.
const MAX_TOOLS: usize = 128;
/// Longest name of a function, as OpenAI has it.
const MAX_NAME: usize = 64;

/// The functions of a request.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Tools {
    /// All that were sent.
    pub(super) tools: Vec<Tool>,
    /// Which may be called.
    pub(super) choice: Choice,
    /// Whether several may be called at once.
    pub(super) parallel: bool,
}

impl Tools {
    /// Whether the model may call one, and need not.
    pub(super) fn is_offered(&self) -> bool {
        !self.tools.is_empty() && self.choice == Choice::Auto
    }

    /// The functions that the model is told of.
    pub(super) fn told(&self) -> &[Tool] {
        if self.choice == Choice::None { &[] } else { &self.tools }
    }
}

/// Reads the fields.
pub(super) fn read(fields: &mut Fields) -> Result<Tools, ApiError> {
    let list = match fields.raw("tools") {
        None => Vec::new(),
        Some(Value::Array(list)) if list.len() <= MAX_TOOLS => list,
        Some(_) => return Err(wrong("tools", format!("it is an array of at most {MAX_TOOLS} functions"))),
    };
    let tools: Vec<Tool> =
        list.into_iter().enumerate().map(|(index, tool)| tool_of(index, tool)).collect::<Result<_, _>>()?;
    let parallel = fields.typed("parallel_tool_calls")?.unwrap_or(true);
    let choice = match fields.raw("tool_choice") {
        None => Choice::Auto,
        Some(choice) => choice_of(&choice, &tools)?,
    };
    Ok(Tools { tools, choice, parallel })
}

fn tool_of(index: usize, tool: Value) -> Result<Tool, ApiError> {
    let at = |field: &str| format!("tools[{index}].{field}");
    if tool.get("type").is_none_or(|kind| kind != "function") {
        return Err(ApiError::unsupported(
            &at("type"),
            format!("`{}`: only `function` is known here", at("type")),
        ));
    }
    let Some(function) = tool.get("function").filter(|function| function.is_object()) else {
        return Err(wrong(&at("function"), "it is an object with a `name`"));
    };
    let plain = |name: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(allowed)
    };
    let name = function.get("name").and_then(Value::as_str).filter(|name| plain(name));
    let Some(name) = name.map(str::to_owned) else {
        let rule = format!("1 to {MAX_NAME} letters, digits, `_` and `-`");
        return Err(wrong(&at("function.name"), rule));
    };
    let parameters = match function.get("parameters") {
        None | Some(Value::Null) => serde_json::json!({ "type": "object", "properties": {} }),
        Some(parameters) => parameters.clone(),
    };
    if !parameters.is_object() {
        return Err(wrong(&at("function.parameters"), "it is a JSON schema"));
    }
    grammar::check(&tool).map_err(|error| wrong(&at("function.parameters"), error))?;
    Ok(Tool { name, parameters, whole: tool })
}

fn choice_of(choice: &Value, tools: &[Tool]) -> Result<Choice, ApiError> {
    const NAME: &str = "tool_choice";
    let needs = |choice: Choice| {
        if tools.is_empty() { Err(wrong(NAME, "there are no `tools` to choose from")) } else { Ok(choice) }
    };
    match choice.as_str() {
        Some("none") => return Ok(Choice::None),
        Some("auto") => return Ok(Choice::Auto),
        Some("required") => return needs(Choice::Required),
        _ => {}
    }
    let named = choice.get("function").and_then(|function| function.get("name")).and_then(Value::as_str);
    match named.and_then(|named| tools.iter().position(|tool| tool.name == named)) {
        Some(index) => Ok(Choice::Named(index)),
        None => Err(wrong(
            NAME,
            "it is `none`, `auto`, `required`, or `{\"type\": \"function\", \"function\": {\"name\": …}}` with a name that is among `tools`",
        )),
    }
}
