//! Finds calls in an answer while it comes.

use serde_json::Value;

use super::{CLOSE, OPEN, Style};

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// Text that is no call.
    Text(String),
    /// A call.
    Call {
        /// The function's name.
        name: String,
        /// Its arguments, as JSON.
        arguments: String,
    },
}

/// Reads an answer piece by piece. What may be a call is held back until it is known.
#[derive(Debug)]
pub struct Finder {
    style: Style,
    held: String,
    inside: bool,
    /// Whether the answer had anything but white space.
    begun: bool,
}

impl Finder {
    /// For answers of models of this style.
    pub fn new(style: Style) -> Self {
        Self { style, held: String::new(), inside: false, begun: false }
    }

    /// Takes more of the answer.
    pub fn push(&mut self, text: &str) -> Vec<Found> {
        self.held.push_str(text);
        if self.style == Style::Bare {
            return self.bare();
        }
        let mut found = Vec::new();
        loop {
            if self.inside {
                let Some(end) = self.held.find(CLOSE) else { return found };
                let rest = self.held.split_off(end + CLOSE.len());
                let body = std::mem::replace(&mut self.held, rest);
                found.push(read(&body[..end]).unwrap_or_else(|| Found::Text(format!("{OPEN}{body}"))));
                self.inside = false;
            } else if let Some(start) = self.held.find(OPEN) {
                let rest = self.held.split_off(start + OPEN.len());
                let before = std::mem::replace(&mut self.held, rest);
                // The line break between text and call is part of the form, not of the text.
                let text = before[..start].trim_end();
                if !text.is_empty() {
                    found.push(Found::Text(text.to_owned()));
                }
                self.inside = true;
            } else {
                self.release(&mut found);
                return found;
            }
        }
    }

    /// Gives what can't be the beginning of a call any more, white space before one included.
    fn release(&mut self, found: &mut Vec<Found>) {
        let may_begin = |at: usize| {
            let rest = self.held[at..].trim_start();
            rest.is_empty() || OPEN.starts_with(rest)
        };
        let keep = self.held.char_indices().map(|(at, _)| at).find(|at| may_begin(*at));
        let kept = self.held.split_off(keep.unwrap_or(self.held.len()));
        let text = std::mem::replace(&mut self.held, kept);
        if !text.is_empty() {
            found.push(Found::Text(text));
        }
    }

    /// An answer that begins like an object may be a call as a whole.
    fn bare(&mut self) -> Vec<Found> {
        if !self.begun && self.held.trim_start().is_empty() {
            return Vec::new();
        }
        if !self.begun {
            self.begun = true;
            self.inside = self.held.trim_start().starts_with('{');
        }
        if self.inside { Vec::new() } else { vec![Found::Text(std::mem::take(&mut self.held))] }
    }

    /// The end of the answer: what is left.
    pub fn finish(&mut self) -> Option<Found> {
        let held = std::mem::take(&mut self.held);
        let inside = std::mem::take(&mut self.inside);
        if held.trim().is_empty() && (inside || self.style != Style::Bare) {
            // White space after a call.
            return None;
        }
        // A call whose end the limit cut off may be whole even so.
        let call = if inside { read(&held) } else { None };
        let tag = if inside && self.style != Style::Bare { OPEN } else { "" };
        Some(call.unwrap_or_else(|| Found::Text(format!("{tag}{held}"))))
    }
}

/// Reads `{"name": …, "arguments": …}`, or with `parameters`.
fn read(text: &str) -> Option<Found> {
    let call: Value = serde_json::from_str(text.trim()).ok()?;
    let name = call.get("name")?.as_str()?.to_owned();
    let arguments = call.get("arguments").or_else(|| call.get("parameters"));
    let arguments = match arguments {
        None => "{}".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(arguments) => arguments.to_string(),
    };
    Some(Found::Call { name, arguments })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TAGGED: Style = Style::Tagged { known: true };

    /// What is found in `text`, in pieces of `size` bytes, texts joined.
    fn find(style: Style, text: &str, size: usize) -> Vec<Found> {
        let mut finder = Finder::new(style);
        let mut found = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            found.extend(finder.push(std::str::from_utf8(piece).unwrap()));
        }
        found.extend(finder.finish());
        let mut joined: Vec<Found> = Vec::new();
        for next in found {
            match (joined.last_mut(), next) {
                (Some(Found::Text(text)), Found::Text(more)) => text.push_str(&more),
                (_, next) => joined.push(next),
            }
        }
        joined
    }

    fn text(text: &str) -> Found {
        Found::Text(text.to_owned())
    }

    fn call(name: &str, arguments: &str) -> Found {
        Found::Call { name: name.to_owned(), arguments: arguments.to_owned() }
    }

    #[test]
    fn calls_are_found_however_they_are_cut() {
        let answer = "Let me see.\n<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": 1}}\n</tool_call>\n<tool_call>{\"name\":\"b\"}</tool_call>\n";
        for size in 1..answer.len() {
            let expected = [text("Let me see."), call("a", "{\"x\":1}"), call("b", "{}")];
            assert_eq!(find(TAGGED, answer, size), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_call_stays_text() {
        for answer in
            ["a < b <tool", "<tool_call>nonsense</tool_call>", "<tool_call>{\"name\": \"a\"", "plain\n\ntext"]
        {
            assert_eq!(find(TAGGED, answer, 3), [text(answer)], "{answer}");
        }
        assert_eq!(find(TAGGED, "<tool_call>{\"name\": \"a\"}", 4), [call("a", "{}")]);
        assert_eq!(find(TAGGED, "", 1), []);
    }

    #[test]
    fn an_answer_that_is_an_object_is_a_call_where_the_model_writes_them_so() {
        assert_eq!(find(Style::Bare, " {\"name\": \"a\", \"parameters\": {}}", 5), [call("a", "{}")]);
        assert_eq!(find(Style::Bare, "{\"no\": 1}", 2), [text("{\"no\": 1}")]);
        assert_eq!(find(Style::Bare, "Hello {}", 2), [text("Hello {}")]);
    }
}
