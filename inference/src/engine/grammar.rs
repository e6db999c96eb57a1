//! Answers that must look like something: a JSON object, a schema, a call of a tool.
//!
//! llguidance says at each place which tokens may come. What it is given comes from strangers, so each of its tables has a
//! limit here: a grammar that is too large is refused before anything is computed, and one that becomes so later ends its
//! own answer and no other.

use std::fmt::Debug;
use std::sync::Arc;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;
use toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};

use super::Token;

/// Longest schema, in bytes of JSON: larger ones make a model guess rather than answer.
pub const MAX_SCHEMA: usize = 64 * 1024;
/// Deepest nesting of a schema; what is deeper is an attack on whoever recurses.
pub const MAX_DEPTH: usize = 48;
/// Most symbols of a compiled grammar: some twenty megabytes at work.
const MAX_GRAMMAR: usize = 200_000;
/// Most states of the lexer, of one or two kilobytes each, for each answer.
const MAX_STATES: usize = 20_000;
/// Work for the lexer of a grammar, of which some 50,000 take a millisecond.
const COMPILE_FUEL: u64 = 500_000;
/// Work of the lexer for one token, of which some 14,000 take a millisecond: all answers wait meanwhile.
const STEP_FUEL: u64 = 150_000;
/// Items of the parser for one token, of which some 20,000 take a millisecond.
const STEP_ITEMS: usize = 50_000;
/// Items of the parser at one byte.
const ROW_ITEMS: usize = 1000;
/// Longest reason that is passed on.
const MAX_REASON: usize = 400;

/// Why there is no grammar.
#[derive(Debug, thiserror::Error)]
pub enum GrammarError {
    /// The engine does not tell its vocabulary.
    #[error("this model's engine can't keep answers to a form; ask for plain text")]
    Unsupported,
    /// The schema is too large.
    #[error("it has {0} bytes, the limit is {MAX_SCHEMA}; ask for less at once")]
    TooLarge(usize),
    /// The schema is nested too deeply.
    #[error("it is nested more than {MAX_DEPTH} deep; flatten it")]
    TooDeep,
    /// It can't be compiled within the limits, or not at all.
    #[error("{0}")]
    Refused(String),
}

/// The bytes of a vocabulary's tokens.
#[derive(Debug, Clone)]
pub struct Words {
    /// Bytes by token; none for one that stands for no text.
    pub words: Vec<Vec<u8>>,
    /// Tokens that steer the model: they are text to nobody, and their bytes here are their names.
    pub steering: Vec<bool>,
    /// Tokens that end an answer; at least one, or nothing can be kept to a form.
    pub ends: Vec<Token>,
}

/// Makes grammars for one vocabulary. Some hundred milliseconds of work, once a model.
pub struct Grammars {
    factory: ParserFactory,
}

impl Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

impl Grammars {
    /// Takes a vocabulary in.
    pub fn new(words: Words) -> Result<Self, GrammarError> {
        let ends: Vec<u32> = words.ends.iter().filter_map(|end| u32::try_from(*end).ok()).collect();
        let count = u32::try_from(words.words.len()).map_err(refused)?;
        let Some(first) = ends.first().filter(|_| ends.iter().all(|end| *end < count)) else {
            return Err(GrammarError::Unsupported);
        };
        let marked = words.words.into_iter().zip(words.steering).map(|(word, steers)| {
            let marker = (steers && !word.is_empty()).then_some(TokTrie::SPECIAL_TOKEN_MARKER);
            marker.into_iter().chain(word).collect()
        });
        let marked: Vec<Vec<u8>> = marked.collect();
        let trie = TokTrie::from(&TokRxInfo::new(count, *first), &marked).with_eos_tokens(&ends);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&environment).map_err(refused)?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            max_items_in_row: ROW_ITEMS,
            initial_lexer_fuel: COMPILE_FUEL,
            step_lexer_fuel: STEP_FUEL,
            step_max_items: STEP_ITEMS,
            max_lexer_states: MAX_STATES,
            max_grammar_size: MAX_GRAMMAR,
            precompute_large_lexemes: false,
            verbose_errors: false,
        };
        Ok(Self { factory })
    }

    /// Answers that are JSON of this schema.
    pub fn json(&self, schema: Value) -> Result<Grammar, GrammarError> {
        check(&schema)?;
        self.compile(TopLevelGrammar::from_json_schema(compact(schema)))
    }

    /// Answers as a grammar in llguidance's Lark says. It is made here, of parts that were checked.
    pub(crate) fn lark(&self, source: String) -> Result<Grammar, GrammarError> {
        if source.len() > 2 * MAX_SCHEMA {
            return Err(GrammarError::TooLarge(source.len()));
        }
        self.compile(TopLevelGrammar::from_lark(source))
    }

    fn compile(&self, grammar: TopLevelGrammar) -> Result<Grammar, GrammarError> {
        let parser = llguidance::panic_utils::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.factory.create_parser(grammar)
        }));
        let mut grammar = Grammar(Box::new(Matcher::new(parser)));
        // The first mask shows what the first step costs, and whether anything can come at all.
        let mask = grammar.mask().map_err(GrammarError::Refused)?;
        if mask.is_zero() {
            return Err(GrammarError::Refused("nothing satisfies it".to_owned()));
        }
        Ok(grammar)
    }
}

/// Refuses a schema that is too large or too deep. `serde_json` bounds the depth of what it parses too, but higher.
pub(crate) fn check(schema: &Value) -> Result<(), GrammarError> {
    let size = schema.to_string().len();
    if size > MAX_SCHEMA {
        return Err(GrammarError::TooLarge(size));
    }
    if depth(schema) > MAX_DEPTH { Err(GrammarError::TooDeep) } else { Ok(()) }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// White space as Python's `json.dumps` writes it: where any amount is allowed, small models write nothing else for ever.
pub(crate) fn compact(mut schema: Value) -> Value {
    if schema == Value::Bool(true) {
        schema = serde_json::json!({});
    }
    if let Value::Object(fields) = &mut schema {
        let options = serde_json::json!({
            "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": ",
        });
        fields.insert("x-guidance".to_owned(), options);
    }
    schema
}

fn refused(error: impl std::fmt::Display) -> GrammarError {
    GrammarError::Refused(short(&error))
}

fn short(error: &impl std::fmt::Display) -> String {
    error.to_string().chars().take(MAX_REASON).collect()
}

/// The form of one answer, and how far it is.
pub struct Grammar(Box<Matcher>);

impl Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

impl Grammar {
    /// Which tokens may come next; the reason if that takes too much work.
    pub(crate) fn mask(&mut self) -> Result<SimpleVob, String> {
        self.0.compute_mask_or_eos().map_err(|error| short(&error))
    }

    /// `token` comes next; whether nothing may follow it.
    pub(crate) fn accept(&mut self, token: Token) -> Result<bool, String> {
        let token = u32::try_from(token).map_err(|error| short(&error))?;
        self.0.consume_token(token).map_err(|error| short(&error))?;
        Ok(self.0.is_stopped())
    }

    /// Another answer of the same form, from its beginning.
    pub(crate) fn again(&self) -> Self {
        Self(Box::new(self.0.deep_clone()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn grammars() -> Grammars {
        let mut words: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        words.push(b"<end>".to_vec());
        let steering = (0..257).map(|token| token == 256).collect();
        Grammars::new(Words { words, steering, ends: vec![256] }).unwrap()
    }

    /// How much of `text` the grammar takes, and whether it could end there.
    fn takes(mut grammar: Grammar, text: &str) -> (usize, bool) {
        for (at, byte) in text.bytes().enumerate() {
            if !grammar.mask().unwrap().is_allowed(u32::from(byte)) {
                return (at, false);
            }
            grammar.accept(Token::from(byte)).unwrap();
        }
        let ends = grammar.mask().unwrap().is_allowed(256);
        (text.len(), ends)
    }

    #[test]
    fn only_what_the_schema_allows_may_come() {
        let grammars = grammars();
        let schema = json!({ "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"],
            "additionalProperties": false });
        assert_eq!(takes(grammars.json(schema.clone()).unwrap(), r#"{"n": 42}"#), (9, true));
        assert_eq!(takes(grammars.json(schema.clone()).unwrap(), r#"{"m": 42}"#).0, 2);
        assert_eq!(takes(grammars.json(schema).unwrap(), "Sure").0, 0);
        let any = grammars.json(json!({ "type": "object" })).unwrap();
        assert_eq!(takes(any.again(), r#"{"a": [1, "b"], "c": {}}"#), (24, true));
        assert_eq!(takes(any, "[]").0, 0);
    }

    #[test]
    fn hostile_schemas_are_refused_soon_and_with_a_reason() {
        let grammars = grammars();
        let mut deep = json!({ "type": "string" });
        for _ in 0..100 {
            deep = json!({ "type": "array", "items": deep });
        }
        let many: serde_json::Map<String, Value> =
            (0..3000).map(|number| (format!("p{number}"), json!({ "type": "number" }))).collect();
        let begun = std::time::Instant::now();
        for schema in [
            deep,
            json!({ "properties": many }),
            json!({ "$ref": "http://example.org/schema.json" }),
            json!({ "$ref": "file:///etc/passwd" }),
            json!({ "type": "nonsense" }),
            json!({ "type": "string", "pattern": "(" }),
            json!(5),
            json!(false),
        ] {
            let shown = schema.to_string().chars().take(80).collect::<String>();
            let error = grammars.json(schema).err();
            assert!(error.is_some_and(|error| error.to_string().len() > 5), "{shown}");
        }
        // What explodes is taken or refused, but soon, and each token of it costs little.
        for pattern in [
            "(a|b|ab)*c{1,500}(d|e){1,900}(x?){900}".repeat(8),
            "((((a{1,99}){1,99}){1,99}){1,99}){1,99}".to_owned(),
            "^([ab]*a[ab]{300})*$".to_owned(),
            "^(a?){2000}a{2000}$".to_owned(),
        ] {
            let Ok(mut grammar) = grammars.json(json!({ "type": "string", "pattern": pattern })) else {
                continue;
            };
            for byte in format!("\"{}", "a".repeat(400)).bytes() {
                if grammar.mask().is_err() || grammar.accept(Token::from(byte)).is_err() {
                    break;
                }
            }
        }
        assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
    }

    #[test]
    fn without_an_end_there_is_no_form() {
        let words = Words { words: vec![vec![1]], steering: vec![false], ends: Vec::new() };
        assert!(matches!(Grammars::new(words), Err(GrammarError::Unsupported)));
    }
}
