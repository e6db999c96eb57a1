//! How a model calls functions: what it is told of them, what its answer must look like where it has to call one, and
//! how calls are found in what it writes.
//!
//! Each family of models writes calls in a form of its own, which its chat template shows. The two widespread ones are
//! known here ([`Style`]); a model whose template knows no functions is told of them in a system message.

mod find;

use serde_json::{Value, json};

use crate::engine::grammar::{self, Grammar, GrammarError, Grammars};
use crate::template::Message;

pub use find::{Finder, Found};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// A function that may be called.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// The JSON schema of its arguments.
    pub parameters: Value,
    /// The whole of it, as templates take it.
    pub whole: Value,
}

/// Which functions an answer may or must call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// None.
    None,
    /// Any or none, as the model likes.
    #[default]
    Auto,
    /// At least one.
    Required,
    /// This one of the list.
    Named(usize),
}

impl Choice {
    /// Whether one must be called.
    pub fn must(self) -> bool {
        matches!(self, Self::Required | Self::Named(_))
    }
}

/// The form in which a model writes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `<tool_call>{"name": …, "arguments": …}</tool_call>`: Hermes, Qwen and many others.
    Tagged {
        /// Whether the template tells the model so; else a system message does.
        known: bool,
    },
    /// The whole answer is `{"name": …, "parameters": …}`: Llama 3.
    Bare,
    /// The template knows functions, but in a form that is not known here.
    Unknown,
}

impl Style {
    /// The style of the models that have this template.
    pub fn of(template: &str) -> Self {
        let knows_tools = template.contains("tools");
        if template.contains(OPEN) {
            Self::Tagged { known: knows_tools }
        } else if knows_tools && template.contains("\"parameters\"") && !template.contains("[TOOL_CALLS]") {
            Self::Bare
        } else if knows_tools {
            Self::Unknown
        } else {
            Self::Tagged { known: false }
        }
    }

    /// The form of an answer that must call one of `tools`.
    pub fn grammar(
        self,
        grammars: &Grammars,
        tools: &[Tool],
        choice: Choice,
        several: bool,
    ) -> Result<Option<Grammar>, GrammarError> {
        let allowed: Vec<&Tool> = match choice {
            Choice::None | Choice::Auto => return Ok(None),
            Choice::Required => tools.iter().collect(),
            Choice::Named(index) => tools.get(index).into_iter().collect(),
        };
        let arguments = if self == Self::Bare { "parameters" } else { "arguments" };
        let schema = schema(&allowed, arguments);
        if self == Self::Bare {
            return grammars.json(schema).map(Some);
        }
        grammar::check(&schema)?;
        let body = grammar::compact(schema);
        let more = if several { "(\"\\n\" call)*" } else { "" };
        let (open, close) = (Value::from(format!("{OPEN}\n")), Value::from(format!("\n{CLOSE}")));
        grammars
            .lark(format!("start: call {more}\ncall: {open} body {close}\nbody: %json {body}\n"))
            .map(Some)
    }
}

/// The schema of one call.
fn schema(tools: &[&Tool], arguments: &str) -> Value {
    let mut definitions = serde_json::Map::new();
    let mut calls = Vec::with_capacity(tools.len());
    for (index, tool) in tools.iter().enumerate() {
        let mut parameters = tool.parameters.clone();
        // References in a schema count from its root, which is another now.
        for kind in ["$defs", "definitions"] {
            let moved = parameters.as_object_mut().and_then(|schema| schema.remove(kind));
            if let Some(Value::Object(moved)) = moved {
                definitions
                    .extend(moved.into_iter().map(|(name, value)| (format!("{index}-{kind}-{name}"), value)));
            }
        }
        repoint(&mut parameters, index);
        for (name, value) in &mut definitions {
            if name.starts_with(&format!("{index}-")) {
                repoint(value, index);
            }
        }
        calls.push(json!({
            "type": "object",
            "properties": { "name": { "const": tool.name }, arguments: parameters },
            "required": ["name", arguments],
            "additionalProperties": false,
        }));
    }
    let mut schema = match calls.len() {
        1 => calls.pop().unwrap_or_default(),
        _ => json!({ "anyOf": calls }),
    };
    if !definitions.is_empty() {
        schema["$defs"] = Value::Object(definitions);
    }
    schema
}

/// Points references of function `index` to where its definitions are now. The depth was checked before.
fn repoint(schema: &mut Value, index: usize) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), &mut *value) {
                    ("$ref", Value::String(reference)) => {
                        for kind in ["$defs", "definitions"] {
                            if let Some(rest) = reference.strip_prefix(&format!("#/{kind}/")) {
                                *reference = format!("#/$defs/{index}-{kind}-{rest}");
                                break;
                            }
                        }
                    }
                    _ => repoint(value, index),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| repoint(item, index)),
        _ => {}
    }
}

/// Tells a model whose template knows no functions of them, and writes earlier calls and their results as text.
pub fn spell_out(messages: Vec<Message>, tools: &[Tool]) -> Vec<Message> {
    let mut spelt: Vec<Message> = messages.into_iter().map(spell_message).collect();
    if tools.is_empty() {
        return spelt;
    }
    let signatures: Vec<String> =
        tools.iter().map(|tool| tool.whole.get("function").unwrap_or(&tool.whole).to_string()).collect();
    let told = format!(
        "These functions can be called, one JSON signature a line:\n{}\nCall one by writing its name and arguments as JSON, in this form:\n{OPEN}\n{{\"name\": \"…\", \"arguments\": {{…}}}}\n{CLOSE}",
        signatures.join("\n")
    );
    match spelt.first_mut().filter(|first| first.role == "system") {
        Some(system) => system.content = format!("{}\n\n{told}", system.content),
        None => spelt.insert(0, Message { role: "system", content: told, ..Message::default() }),
    }
    spelt
}

fn spell_message(mut message: Message) -> Message {
    for call in std::mem::take(&mut message.calls) {
        let function = call.get("function").cloned().unwrap_or_default();
        let call = json!({ "name": function["name"], "arguments": function["arguments"] });
        if !message.content.is_empty() {
            message.content.push('\n');
        }
        message.content.push_str(&format!("{OPEN}\n{call}\n{CLOSE}"));
    }
    if message.role == "tool" {
        message.role = "user";
        message.content = format!("<tool_response>\n{}\n</tool_response>", message.content);
        message.call_id = None;
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, parameters: Value) -> Tool {
        let whole = json!({ "type": "function", "function": { "name": name, "parameters": parameters } });
        Tool { name: name.to_owned(), parameters, whole }
    }

    #[test]
    fn the_template_shows_the_style() {
        assert_eq!(Style::of("{% if tools %}<tool_call>{% endif %}"), Style::Tagged { known: true });
        assert_eq!(Style::of("{% if tools %}{\"name\": x, \"parameters\": y}{% endif %}"), Style::Bare);
        assert_eq!(Style::of("{% if tools %}[TOOL_CALLS]{% endif %}"), Style::Unknown);
        assert_eq!(Style::of("{{ messages }}"), Style::Tagged { known: false });
    }

    #[test]
    fn references_of_each_function_lead_to_its_own_definitions() {
        let one = json!({ "$defs": { "P": { "$ref": "#/$defs/Q" }, "Q": {} }, "properties": { "p": { "$ref": "#/$defs/P" } } });
        let other = json!({ "definitions": { "P": {} }, "items": [{ "$ref": "#/definitions/P" }] });
        let (one, other) = (tool("a", one), tool("b", other));
        let schema = schema(&[&one, &other], "arguments");
        let text = schema.to_string();
        for reference in ["#/$defs/0-$defs-P", "#/$defs/0-$defs-Q", "#/$defs/1-definitions-P"] {
            assert!(text.contains(reference), "{text}");
            let name = reference.rsplit('/').next().unwrap_or_default();
            assert!(schema["$defs"].get(name).is_some(), "{text}");
        }
    }

    #[test]
    fn what_a_template_does_not_know_is_spelt_out() {
        let call = json!({ "id": "1", "function": { "name": "a", "arguments": { "x": 1 } } });
        let messages = vec![
            Message { role: "user", content: "Hi".to_owned(), ..Message::default() },
            Message { role: "assistant", calls: vec![call], ..Message::default() },
            Message {
                role: "tool",
                content: "7".to_owned(),
                call_id: Some("1".to_owned()),
                ..Message::default()
            },
        ];
        let spelt = spell_out(messages, &[tool("a", json!({}))]);
        let roles: Vec<_> = spelt.iter().map(|message| message.role).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
        assert!(spelt[0].content.contains("\"name\":\"a\""));
        assert_eq!(spelt[2].content, "<tool_call>\n{\"name\":\"a\",\"arguments\":{\"x\":1}}\n</tool_call>");
        assert!(spelt[3].content.contains("\n7\n"));
    }
}
