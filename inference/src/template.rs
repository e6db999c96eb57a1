//! Chat templates: Jinja from the release, rendered with bounded time, memory and output.
//!
//! Templates are written for Hugging Face's `apply_chat_template` (Jinja2, `trim_blocks` and `lstrip_blocks`
//! on); the environment here is the same as far as published templates use it. A template sees the messages,
//! the functions that may be called and the texts of two tokens; there is no loader, no file and no network behind it.

mod json;

use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value};

use json::Json;

/// Longest template, in bytes: the longest published ones, with tools, have some 20 KB.
pub const MAX_TEMPLATE: usize = 256 * 1024;
/// Longest rendered prompt, in bytes: twice the longest request body, for what the template adds around short
/// messages.
pub const MAX_RENDERED: usize = 8 * 1024 * 1024;
/// Work of one rendering, in minijinja's fuel: an instruction costs one, data one per 64 bytes. Bounds a
/// rendering to about 128 MB and well under a second; a chat of a thousand messages takes some 100,000.
const FUEL: u64 = 2_000_000;
/// Depth of nested macros and loops; published templates stay under ten, and each level costs stack.
const RECURSION: usize = 64;
/// Marks an error that the template itself raised, so that its words are passed on as they are.
const RAISED: &str = "raised by the template: ";
/// Name of the only template.
const NAME: &str = "chat";

/// What stands in for an absent template, as in llama.cpp: ChatML.
pub const CHATML: &str = "{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}";
/// Where ChatML's turns end; a model without that token writes it as text.
pub const CHATML_END: &str = "<|im_end|>";

/// Why a chat can't be rendered.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template is too long.
    #[error(
        "the release's chat template has {0} bytes, the limit is {MAX_TEMPLATE}; use /v1/completions with a prompt of your own"
    )]
    TooLong(usize),
    /// The template is no Jinja that is understood here.
    #[error("the release's chat template can't be used ({0}); use /v1/completions with a prompt of your own")]
    Broken(String),
    /// The template refuses these messages.
    #[error("the model's chat template refuses these messages: {0}")]
    Raised(String),
    /// The template failed on these messages.
    #[error(
        "the release's chat template failed on these messages ({0}); use /v1/completions with a prompt of your own"
    )]
    Failed(String),
    /// The template takes too long or too much memory.
    #[error(
        "the release's chat template takes more work than a prompt may ({FUEL} steps); send fewer or shorter messages, or use \
         /v1/completions with a prompt of your own"
    )]
    OutOfFuel,
    /// The prompt becomes too long.
    #[error("these messages make a prompt of more than {MAX_RENDERED} bytes; send fewer or shorter ones")]
    TooMuchOutput,
}

/// A message as the template sees it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: &'static str,
    /// What was said.
    pub content: String,
    /// Who said it, where several users take part.
    pub name: Option<String>,
    /// Functions that an assistant called, as OpenAI has them but with the arguments as an object.
    pub calls: Vec<serde_json::Value>,
    /// The call that a tool's message answers.
    pub call_id: Option<String>,
}

/// A chat template, ready to render.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Compiles `source`. `bos` and `eos` are the texts of the tokens that begin and end a sequence.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self, TemplateError> {
        if source.len() > MAX_TEMPLATE {
            return Err(TemplateError::TooLong(source.len()));
        }
        let mut environment = Environment::new();
        let whitespace = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(whitespace.map_err(|error| TemplateError::Broken(error.to_string()))?);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", json::tojson);
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|error| TemplateError::Broken(error.to_string()))?;
        let text = |token: Option<&str>| token.unwrap_or_default().to_owned();
        Ok(Self { environment, bos: text(bos), eos: text(eos) })
    }

    /// The prompt for `messages`, up to where the assistant's answer begins. `tools` are the functions that may be called,
    /// as OpenAI has them.
    pub fn render(&self, messages: &[Message], tools: &[serde_json::Value]) -> Result<String, TemplateError> {
        let template =
            self.environment.get_template(NAME).map_err(|error| TemplateError::Broken(error.to_string()))?;
        let messages: Vec<Value> = messages.iter().map(to_value).collect();
        let context = minijinja::context! {
            messages,
            add_generation_prompt => true,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            tools => if tools.is_empty() { Value::from(()) } else { Json::array(tools) },
            documents => Value::from(()),
        };
        let mut output = Limited { bytes: Vec::new(), overflowed: false };
        let rendered = template.render_captured_to(context, &mut output).map(drop);
        match rendered {
            Ok(()) => {
                String::from_utf8(output.bytes).map_err(|error| TemplateError::Failed(error.to_string()))
            }
            Err(_) if output.overflowed => Err(TemplateError::TooMuchOutput),
            Err(error) => Err(classify(&error)),
        }
    }
}

fn to_value(message: &Message) -> Value {
    let mut fields =
        vec![("role", Value::from(message.role)), ("content", Value::from(message.content.as_str()))];
    if let Some(name) = &message.name {
        fields.push(("name", Value::from(name.as_str())));
    }
    if !message.calls.is_empty() {
        fields.push(("tool_calls", Json::array(&message.calls)));
    }
    if let Some(call_id) = &message.call_id {
        fields.push(("tool_call_id", Value::from(call_id.as_str())));
    }
    Value::from_pairs(fields)
}

fn classify(error: &Error) -> TemplateError {
    if error.kind() == ErrorKind::OutOfFuel {
        return TemplateError::OutOfFuel;
    }
    match error.detail().and_then(|detail| detail.strip_prefix(RAISED)) {
        Some(words) => TemplateError::Raised(words.to_owned()),
        None => TemplateError::Failed(error.to_string()),
    }
}

fn raise_exception(words: String) -> Result<Value, Error> {
    /// Enough for any reason; the text comes from the release.
    const MAX_WORDS: usize = 500;
    let words: String = words.chars().take(MAX_WORDS).collect();
    Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{words}")))
}

/// The date for templates that tell it to the model, in UTC.
fn strftime_now(format: String) -> Result<String, Error> {
    let wrong = |error: String| Error::new(ErrorKind::InvalidOperation, error);
    let format =
        time::format_description::parse_strftime_owned(&format).map_err(|error| wrong(error.to_string()))?;
    time::OffsetDateTime::now_utc().format(&format).map_err(|error| wrong(error.to_string()))
}

/// Output that ends at [`MAX_RENDERED`].
struct Limited {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_RENDERED {
            self.overflowed = true;
            return Err(io::Error::other("too much output"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn message(role: &'static str, content: &str) -> Message {
        Message { role, content: content.to_owned(), ..Message::default() }
    }

    fn render(source: &str, messages: &[Message]) -> Result<String, TemplateError> {
        ChatTemplate::new(source, Some("<s>"), Some("</s>"))?.render(messages, &[])
    }

    #[test]
    fn chatml_is_the_fallback() {
        let text = render(CHATML, &[message("system", "Be brief."), message("user", " Hi\n")]).unwrap();
        assert_eq!(
            text,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi\n<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn whitespace_methods_and_tokens_are_as_in_published_templates() {
        let source = "{{ bos_token }}{% for message in messages %}\n    {% if message['role'] == 'user' %}\n[INST] {{ \
                      message['content'].strip() | trim }} [/INST]\n    {% elif loop.last and not tools %}\n{{ \
                      message.content.split('</think>')[-1].lstrip('\\n') }}{{ eos_token }}\n    {% endif %}\n{% \
                      endfor %}\n";
        let text = render(source, &[message("user", " a "), message("assistant", "x</think>\n\nb")]).unwrap();
        assert_eq!(text, "<s>[INST] a [/INST]\nb</s>\n");
    }

    #[test]
    fn a_template_may_refuse_messages_in_its_own_words() {
        let source =
            "{% if messages[0].role != 'user' %}{{ raise_exception('Must begin with a user') }}{% endif %}";
        let error = render(source, &[message("assistant", "I")]).unwrap_err();
        assert!(
            matches!(&error, TemplateError::Raised(words) if words == "Must begin with a user"),
            "{error}"
        );
    }

    #[test]
    fn hostile_templates_end_soon() {
        let loops = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        let doubling = "{% set ns = namespace(s='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}\
                        {% endfor %}";
        let multiplied = "{{ ('a' * 99999999) | length }}{{ ('a' * 99999999) | length }}";
        for source in [loops, doubling, multiplied] {
            let error = render(source, &[]).unwrap_err();
            assert!(
                matches!(error, TemplateError::OutOfFuel | TemplateError::Failed(_)),
                "{source}: {error}"
            );
        }
        let output = "{% for i in range(100) %}{{ 'a' * 100000 }}{% endfor %}";
        assert!(matches!(render(output, &[]), Err(TemplateError::TooMuchOutput)));
        let recursive = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
        assert!(matches!(render(recursive, &[]), Err(TemplateError::Failed(_))));
    }

    #[test]
    fn what_is_no_template_is_refused_with_what_to_do() {
        for source in [
            "{% for %}",
            "{{ ",
            "{% include 'x' %}{% import '/etc/passwd' as x %}",
            &"(".repeat(MAX_TEMPLATE + 1),
        ] {
            let error = render(source, &[message("user", "Hi")]).unwrap_err();
            assert!(error.to_string().contains("/v1/completions"), "{error}");
        }
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(20_000), ")".repeat(20_000));
        assert!(matches!(render(&deep, &[]), Err(TemplateError::Broken(_))));
    }

    #[test]
    fn the_date_is_there_for_templates_that_ask() {
        let text = render("{{ strftime_now('%Y-%m-%d') }}", &[]).unwrap();
        assert_eq!(text.len(), 10, "{text}");
        assert!(matches!(render("{{ strftime_now('%Q') }}", &[]), Err(TemplateError::Failed(_))));
    }
}
