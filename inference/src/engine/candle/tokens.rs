//! `tokenizer.json`: text to tokens and tokens to bytes.
//!
//! The crate of the same house does the first. The second is a table of bytes made once, because answers leave token by
//! token and the crate's decoders want whole sequences.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;
use tokenizers::Tokenizer;

use crate::engine::grammar::Words;
use crate::engine::{Special, Token};

/// Most bytes that one token may stand for; the longest in use (runs of spaces) have some 500.
const MAX_PIECE: usize = 16 * 1024;
/// Text that shows what is put around a prompt.
const PROBE: &str = "a";
/// What stands for a space in vocabularies made by SentencePiece.
const LOWER_LINE: char = '\u{2581}';

/// Why a tokenizer is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokensError {
    /// Not what the crate reads.
    #[error("it can't be read: {0}")]
    Malformed(String),
    /// Tokens become text by a way that is not known here.
    #[error(
        "its decoder is {0}; ByteLevel, and the steps of SentencePiece (Replace, ByteFallback, Fuse, Strip), are known"
    )]
    Decoder(String),
    /// More tokens than rows in the embedding.
    #[error("it has a token numbered {found}, but config.json's vocabulary has {vocabulary}")]
    Vocabulary {
        /// The largest number.
        found: u32,
        /// Rows of the embedding.
        vocabulary: usize,
    },
    /// A token stands for very much text.
    #[error("its token {token} stands for {bytes} bytes; the limit is {MAX_PIECE}")]
    Piece {
        /// The token.
        token: u32,
        /// Bytes.
        bytes: usize,
    },
    /// More than one token is put before or behind a prompt.
    #[error("it puts {0} tokens {1} a prompt; at most one is supported")]
    Around(usize, &'static str),
}

/// A tokenizer, ready for use by any thread.
pub(super) struct Tokens {
    parse: Tokenizer,
    /// The same, but the text of a special token is only text to it.
    literal: Tokenizer,
    pieces: Vec<Box<[u8]>>,
    specials: Vec<String>,
    begin: Option<u32>,
    end: Option<u32>,
}

impl Tokens {
    /// From the file's bytes, for an embedding of `vocabulary` rows. `speaks` says whether tokens must become text.
    pub(super) fn read(bytes: &[u8], vocabulary: usize, speaks: bool) -> Result<Self, TokensError> {
        let malformed = |error: &dyn std::fmt::Display| TokensError::Malformed(error.to_string());
        let mut parse = Tokenizer::from_bytes(bytes).map_err(|error| malformed(&error))?;
        // A prompt that is too long is refused, never cut; nothing here is computed in padded batches.
        parse.with_truncation(None).map_err(|error| malformed(&error))?;
        parse.with_padding(None);
        let kinds: Decoders = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
        let largest = parse.get_vocab(true).into_values().max().unwrap_or(0);
        if usize::try_from(largest).is_ok_and(|largest| largest >= vocabulary) {
            return Err(TokensError::Vocabulary { found: largest, vocabulary });
        }
        let pieces = if speaks { pieces(&parse, &kinds.decoder, largest)? } else { Vec::new() };
        let specials = parse.get_added_tokens_decoder().into_values();
        let specials = specials.filter(|token| token.special).map(|token| token.content).collect();
        let (begin, end) = around(&parse)?;
        let mut literal = parse.clone();
        literal.set_encode_special_tokens(true);
        Ok(Self { parse, literal, pieces, specials, begin, end })
    }

    /// The tokens of `text` without those put around a prompt; none where the tokenizer fails.
    pub(super) fn encode(&self, text: &str, special: Special) -> Vec<Token> {
        let tokenizer = match special {
            Special::Parse => &self.parse,
            Special::Literal => &self.literal,
        };
        match tokenizer.encode_fast(text, false) {
            Ok(encoding) => encoding.get_ids().iter().filter_map(|id| Token::try_from(*id).ok()).collect(),
            Err(error) => {
                tracing::warn!(%error, "the tokenizer failed");
                Vec::new()
            }
        }
    }

    /// The bytes that a token adds to an answer; none for special tokens.
    pub(super) fn piece(&self, token: u32) -> &[u8] {
        usize::try_from(token).ok().and_then(|token| self.pieces.get(token)).map_or(&[], AsRef::as_ref)
    }

    /// The vocabulary's bytes, for answers that are kept to a form.
    pub(super) fn words(&self, ends: &BTreeSet<u32>) -> Words {
        let mut words = Words { words: Vec::new(), steering: Vec::new(), ends: Vec::new() };
        for (token, piece) in (0u32..).zip(&self.pieces) {
            let steers = piece.is_empty();
            let name = || self.parse.id_to_token(token).unwrap_or_default().into_bytes();
            words.words.push(if steers { name() } else { piece.to_vec() });
            words.steering.push(steers);
        }
        let known = ends.iter().filter(|end| (**end as usize) < self.pieces.len());
        words.ends = known.filter_map(|end| Token::try_from(*end).ok()).collect();
        words
    }

    /// Most bytes of text that one token stands for.
    pub(super) fn longest(&self) -> usize {
        let vocabulary = self.parse.get_vocab(true);
        vocabulary
            .keys()
            .map(String::len)
            .chain(self.pieces.iter().map(|piece| piece.len()))
            .max()
            .unwrap_or(1)
    }

    /// The number of a token by its text.
    pub(super) fn number(&self, text: &str) -> Option<u32> {
        self.parse.token_to_id(text)
    }

    /// Texts of the special tokens.
    pub(super) fn specials(&self) -> &[String] {
        &self.specials
    }

    /// The tokens put before and behind each prompt.
    pub(super) fn around(&self) -> (Option<u32>, Option<u32>) {
        (self.begin, self.end)
    }
}

/// The one part of the file that the crate keeps to itself.
#[derive(serde::Deserialize)]
struct Decoders {
    #[serde(default)]
    decoder: Value,
}

/// What is put around a prompt, seen by doing it.
fn around(tokenizer: &Tokenizer) -> Result<(Option<u32>, Option<u32>), TokensError> {
    let ids = |special| {
        let encoding = tokenizer.encode_fast(PROBE, special);
        encoding
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|error| TokensError::Malformed(error.to_string()))
    };
    let (bare, dressed) = (ids(false)?, ids(true)?);
    let extra = dressed.len().saturating_sub(bare.len());
    let before = (0..=extra).find(|&at| dressed.get(at..at + bare.len()) == Some(bare.as_slice()));
    let before =
        before.ok_or_else(|| TokensError::Malformed("it changes a prompt's tokens at its end".to_owned()))?;
    let behind = extra - before;
    if before > 1 || behind > 1 {
        let (count, side) = if before > 1 { (before, "before") } else { (behind, "behind") };
        return Err(TokensError::Around(count, side));
    }
    let begin = if before == 1 { dressed.first().copied() } else { None };
    let end = if behind == 1 { dressed.last().copied() } else { None };
    Ok((begin, end))
}

/// How a vocabulary writes bytes.
enum Spelling {
    /// Each byte as one printable character (GPT-2).
    ByteLevel(HashMap<char, u8>),
    /// Text with `▁` for spaces, and `<0x0A>` for bytes that are no text (SentencePiece).
    Pieces,
}

fn pieces(tokenizer: &Tokenizer, decoder: &Value, largest: u32) -> Result<Vec<Box<[u8]>>, TokensError> {
    let spelling = spelling(decoder)?;
    let added = tokenizer.get_added_tokens_decoder();
    let mut pieces = Vec::with_capacity(largest as usize + 1);
    for token in 0..=largest {
        let piece = match added.get(&token) {
            Some(added) if added.special => Vec::new(),
            Some(added) => added.content.clone().into_bytes(),
            None => tokenizer.id_to_token(token).map_or_else(Vec::new, |text| spelling.bytes(&text)),
        };
        if piece.len() > MAX_PIECE {
            return Err(TokensError::Piece { token, bytes: piece.len() });
        }
        pieces.push(piece.into_boxed_slice());
    }
    Ok(pieces)
}

fn spelling(decoder: &Value) -> Result<Spelling, TokensError> {
    let kind = |decoder: &Value| decoder.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let unknown = || TokensError::Decoder(super::config::shown(&decoder.to_string()));
    match kind(decoder).as_str() {
        "ByteLevel" => Ok(Spelling::ByteLevel((0..=255).map(|byte| (letter(byte), byte)).collect())),
        "Sequence" => {
            let steps = decoder.get("decoders").and_then(Value::as_array).ok_or_else(unknown)?;
            let known = steps.iter().all(|step| match kind(step).as_str() {
                "Replace" => {
                    step.get("pattern").and_then(|pattern| pattern.get("String"))
                        == Some(&Value::from("\u{2581}"))
                        && step.get("content") == Some(&Value::from(" "))
                }
                // The space that SentencePiece puts before a text; an answer continues one.
                "Strip" | "ByteFallback" | "Fuse" => true,
                _ => false,
            });
            if known && steps.iter().any(|step| kind(step) == "Replace") {
                Ok(Spelling::Pieces)
            } else {
                Err(unknown())
            }
        }
        _ => Err(unknown()),
    }
}

impl Spelling {
    fn bytes(&self, text: &str) -> Vec<u8> {
        match self {
            Self::ByteLevel(letters) => {
                let bytes: Option<Vec<u8>> =
                    text.chars().map(|letter| letters.get(&letter).copied()).collect();
                bytes.unwrap_or_else(|| text.as_bytes().to_vec())
            }
            Self::Pieces => match fallback(text) {
                Some(byte) => vec![byte],
                None => text.replace(LOWER_LINE, " ").into_bytes(),
            },
        }
    }
}

/// The byte that `<0x0A>` stands for.
fn fallback(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// GPT-2's printable character for a byte.
fn letter(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    if printable(byte) {
        return char::from(byte);
    }
    let hidden = (0..byte).filter(|earlier| !printable(*earlier)).count() as u32;
    char::from_u32(256 + hidden).unwrap_or(char::REPLACEMENT_CHARACTER)
}
