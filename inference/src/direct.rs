//! The engine straight on a file, with nothing of the worker in between: the measure that the worker's
//! answers are compared with.
//!
//! It shares no code with the worker's engine but the process-wide initialisation: its own loop, its own
//! choice of the likeliest token, and llama.cpp's own chat templates and detokenisation.

use std::num::NonZeroU32;
use std::path::Path;

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
