//! The engine straight on a file, with nothing of the worker in between: the measure that the worker's
//! answers are compared with.
//!
//! It shares no code with the worker's engine but the process-wide initialisation: its own loop, its own
//! choice of the likeliest token, and llama.cpp's own chat templates and detokenisation.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::{Duration, Instant};

use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::model::{LlamaChatMessage, LlamaModel};
use llama_cpp_2::token::LlamaToken;

/// llama.cpp's own words.
#[derive(Debug, thiserror::Error)]
#[error("llama.cpp on the file itself: {0}")]
pub struct DirectError(String);

fn because(error: impl std::fmt::Display) -> DirectError {
    DirectError(error.to_string())
}

/// Continues `prompt` (special tokens and all) by at most `max_tokens` tokens, the likeliest each time, on
/// `threads` threads.
pub fn complete(path: &Path, prompt: &str, max_tokens: u32, threads: u32) -> Result<String, DirectError> {
    generate(&load(path)?, prompt, max_tokens, threads)
}

/// Answers `messages` (role and content) with the template that llama.cpp itself has for this model.
pub fn chat(
    path: &Path,
    messages: &[(&str, &str)],
    max_tokens: u32,
    threads: u32,
) -> Result<String, DirectError> {
    let model = load(path)?;
    let template = model.chat_template(None).map_err(because)?;
    let messages: Vec<_> = messages
        .iter()
        .map(|(role, content)| LlamaChatMessage::new((*role).to_owned(), (*content).to_owned()))
        .collect::<Result<_, _>>()
        .map_err(because)?;
    let prompt = model.apply_chat_template(&template, &messages, true).map_err(because)?;
    generate(&model, &prompt, max_tokens, threads)
}

fn load(path: &Path) -> Result<LlamaModel, DirectError> {
    let params = LlamaModelParams::default().with_progress_callback(|_| true);
    LlamaModel::load_from_file(crate::engine::backend(), path, &params).map_err(because)
}

fn generate(model: &LlamaModel, prompt: &str, max_tokens: u32, threads: u32) -> Result<String, DirectError> {
    let vocab = model.vocab();
    let prompt = vocab.tokenize(prompt.as_bytes(), true, true);
    let room = u32::try_from(prompt.len()).map_err(because)?.saturating_add(max_tokens);
    let threads = i32::try_from(threads).map_err(because)?;
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(room))
        .with_n_batch(room)
        .with_n_threads(threads)
        .with_n_threads_batch(threads);
    let mut context = model.new_context(crate::engine::backend(), params).map_err(because)?;
    let mut batch = LlamaBatch::new(usize::try_from(room).map_err(because)?, 1);
    batch.add_sequence(&prompt, 0, false).map_err(because)?;
    let mut answer: Vec<LlamaToken> = Vec::new();
    let first = i32::try_from(prompt.len()).map_err(because)?;
    let end = first.saturating_add(i32::try_from(max_tokens).map_err(because)?);
    for position in first..end {
        context.decode(&mut batch).map_err(because)?;
        let logits = context.get_logits_ith(batch.n_tokens() - 1);
        // The first of equals.
        let best = (0i32..).zip(logits).reduce(|best, next| if next.1 > best.1 { next } else { best });
        let token = LlamaToken(best.map(|(token, _)| token).ok_or_else(|| because("no logits"))?);
        if vocab.is_eog(token) {
            break;
        }
        answer.push(token);
        batch.clear();
        batch.add(token, position, &[0], true).map_err(because)?;
    }
    Ok(String::from_utf8_lossy(&vocab.detokenize(&answer, false, false)).into_owned())
}

/// Tokens that llama.cpp computes in one go by default.
const BATCH: usize = 512;

/// The engine alone, without a schedule, a cache of beginnings or an interface around it: what a server's answers and its
/// rate are measured by.
#[derive(Debug)]
pub struct Alone {
    model: LlamaModel,
    threads: i32,
}

impl Alone {
    /// Loads the weights for `threads` threads.
    pub fn load(path: &Path, threads: u32) -> Result<Self, DirectError> {
        Ok(Self { model: load(path)?, threads: i32::try_from(threads).map_err(because)? })
    }

    /// Tokens of `prompt`, special ones and all.
    pub fn count(&self, prompt: &str) -> usize {
        self.model.vocab().tokenize(prompt.as_bytes(), true, true).len()
    }

    /// How much less likely than the likeliest, by their logits, any token of `answer` is that follows on `prompt` (special
    /// tokens and all): 0 where each is the likeliest. The answer's tokens are told by their bytes.
    pub fn worst_gap(&self, prompt: &str, answer: &[Vec<u8>]) -> Result<f32, DirectError> {
        let vocab = self.model.vocab();
        let mut known: HashMap<Vec<u8>, LlamaToken> = HashMap::new();
        for token in vocab.tokens() {
            known.entry(vocab.token_to_piece(token, false, None)).or_insert(token);
        }
        let prompt = vocab.tokenize(prompt.as_bytes(), false, true);
        let room = u32::try_from(prompt.len() + answer.len()).map_err(because)?;
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(room))
            .with_n_batch(room)
            .with_n_threads(self.threads)
            .with_n_threads_batch(self.threads);
        let mut context = self.model.new_context(crate::engine::backend(), params).map_err(because)?;
        let mut batch = LlamaBatch::new(usize::try_from(room).map_err(because)?, 1);
        batch.add_sequence(&prompt, 0, false).map_err(because)?;
        let mut worst = 0f32;
        for (place, bytes) in answer.iter().enumerate() {
            context.decode(&mut batch).map_err(because)?;
            let token = *known.get(bytes).ok_or_else(|| because("no token has these bytes"))?;
            let logits = context.get_logits_ith(batch.n_tokens() - 1);
            let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let chosen = usize::try_from(token.0).ok().and_then(|token| logits.get(token)).copied();
            worst = worst.max(best - chosen.ok_or_else(|| because("no such token"))?);
            batch.clear();
            put(&mut batch, token, prompt.len() + place, 0, true)?;
        }
        Ok(worst)
    }

    /// The time that `tokens` tokens for each of `prompts` take, the likeliest each time, ends or not; what is loaded and
    /// reserved before is not in it. It goes as llama.cpp's own `batched-bench` does: all prompts, then all answers in step.
    pub fn generate(&self, prompts: &[String], tokens: usize) -> Result<Duration, DirectError> {
        let vocab = self.model.vocab();
        let prompts: Vec<Vec<LlamaToken>> =
            prompts.iter().map(|prompt| vocab.tokenize(prompt.as_bytes(), true, true)).collect();
        let room: usize = prompts.iter().map(|prompt| prompt.len() + tokens).sum();
        let params = LlamaContextParams::default()
            .with_n_ctx(u32::try_from(room).ok().and_then(NonZeroU32::new))
            .with_n_batch(BATCH as u32)
            .with_n_ubatch(BATCH as u32)
            .with_n_seq_max(u32::try_from(prompts.len()).map_err(because)?)
            .with_kv_unified(true)
            .with_n_threads(self.threads)
            .with_n_threads_batch(self.threads);
        let mut context = self.model.new_context(crate::engine::backend(), params).map_err(because)?;
        let mut batch = LlamaBatch::new(BATCH, 1);
        let mut next: Vec<LlamaToken> = vec![LlamaToken(0); prompts.len()];
        let begun = Instant::now();
        let mut last: Vec<(i32, usize)> = Vec::new();
        for (sequence, prompt) in prompts.iter().enumerate() {
            for (position, token) in prompt.iter().enumerate() {
                if usize::try_from(batch.n_tokens()).is_ok_and(|count| count == BATCH) {
                    compute(&mut context, &mut batch, &mut last, &mut next)?;
                }
                let is_last = position + 1 == prompt.len();
                if is_last {
                    last.push((batch.n_tokens(), sequence));
                }
                put(&mut batch, *token, position, sequence, is_last)?;
            }
        }
        compute(&mut context, &mut batch, &mut last, &mut next)?;
        for step in 1..tokens {
            for (sequence, prompt) in prompts.iter().enumerate() {
                last.push((batch.n_tokens(), sequence));
                put(&mut batch, next[sequence], prompt.len() + step - 1, sequence, true)?;
            }
            compute(&mut context, &mut batch, &mut last, &mut next)?;
        }
        Ok(begun.elapsed())
    }
}

fn put(
    batch: &mut LlamaBatch<'_>,
    token: LlamaToken,
    position: usize,
    sequence: usize,
    last: bool,
) -> Result<(), DirectError> {
    let number = |number: usize| i32::try_from(number).map_err(because);
    batch.add(token, number(position)?, &[number(sequence)?], last).map_err(because)
}

/// Computes the batch and takes the likeliest token of each sequence that has a `last` place in it.
fn compute(
    context: &mut llama_cpp_2::context::LlamaContext<'_>,
    batch: &mut LlamaBatch<'_>,
    last: &mut Vec<(i32, usize)>,
    next: &mut [LlamaToken],
) -> Result<(), DirectError> {
    if batch.n_tokens() > 0 {
        context.decode(batch).map_err(because)?;
    }
    for (at, sequence) in last.drain(..) {
        let logits = context.get_logits_ith(at);
        let best = (0i32..).zip(logits).reduce(|best, next| if next.1 > best.1 { next } else { best });
        next[sequence] = LlamaToken(best.map(|(token, _)| token).ok_or_else(|| because("no logits"))?);
    }
    batch.clear();
    Ok(())
}
