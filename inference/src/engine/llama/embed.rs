//! Vectors of texts: by encoders, and by decoders that were trained for it and say so.

use std::num::NonZeroU32;
use std::time::Instant;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{LlamaContextParams, LlamaPoolingType};
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::token::LlamaToken;
use registry::serving::Options;

use super::super::{Failure, Job, Queue, logs};
use super::Llama;
use crate::halt::Halt;

/// Tokens of a text when nobody asks for a number: a text is computed in one go, which takes memory for each of its tokens.
const DEFAULT_CONTEXT: u32 = 2048;

/// Tokens of a text, of what the model could do.
pub(super) fn context(possible: NonZeroU32, options: &Options) -> NonZeroU32 {
    let wanted = if options.context.is_some() { possible.get() } else { possible.get().min(DEFAULT_CONTEXT) };
    NonZeroU32::new(wanted).unwrap_or(NonZeroU32::MIN)
}

/// How a model's vectors become one, if it is one of those, by what its file says (`pooling_type`).
pub(super) fn pooling(said: &str, encoder: bool) -> Result<Option<LlamaPoolingType>, String> {
    match said.parse::<i32>().ok().map(LlamaPoolingType::from) {
        Some(LlamaPoolingType::Rank) => {
            Err("is a model that ranks pairs of texts; it neither generates text nor embeds it".to_owned())
        }
        Some(pooling @ (LlamaPoolingType::Mean | LlamaPoolingType::Cls | LlamaPoolingType::Last)) => {
            Ok(Some(pooling))
        }
        // An encoder that does not say: the usual way.
        _ => Ok(encoder.then_some(LlamaPoolingType::Mean)),
    }
}

/// The context for texts of at most `tokens` tokens, one at a time.
pub(super) fn params(
    params: LlamaContextParams,
    tokens: NonZeroU32,
    pooling: LlamaPoolingType,
) -> LlamaContextParams {
    params
        .with_n_ctx(Some(tokens))
        .with_n_batch(tokens.get())
        .with_n_ubatch(tokens.get())
        .with_embeddings(true)
        .with_pooling_type(pooling)
}

/// Answers the queue's jobs, one after the other, until it is closed or the worker halts.
pub(super) fn serve(llama: &Llama, mut context: LlamaContext<'_>, encoder: bool, queue: &Queue, halt: &Halt) {
    let mut batch = LlamaBatch::new(llama.context.get() as usize, 1);
    while let Some(job) = queue.pop() {
        queue.metrics().now(1, queue.len().saturating_sub(1), 0, 0);
        let (vector, _) = logs::caught(|| embed(&mut context, &mut batch, encoder, &job));
        let failure = match (vector, halt.cause()) {
            (_, Some(cause)) => Failure::Halted(cause),
            _ if job.is_late(Instant::now()) => Failure::Late,
            (Ok(vector), None) => {
                queue.metrics().step(job.prompt.len(), job.prompt.len());
                queue.metrics().finished();
                job.embedded(vector);
                continue;
            }
            (Err(failure), None) => failure,
        };
        queue.metrics().failed();
        job.fail(failure);
    }
}

fn embed(
    context: &mut LlamaContext<'_>,
    batch: &mut LlamaBatch<'_>,
    encoder: bool,
    job: &Job,
) -> Result<Vec<f32>, Failure> {
    if !job.embed {
        return Err(Failure::Engine("this model generates no text".to_owned()));
    }
    let failed =
        |error: &dyn std::fmt::Display| Failure::Engine(format!("llama.cpp could not go on: {error}"));
    context.clear_kv_cache();
    batch.clear();
    for (position, token) in (0..).zip(&job.prompt) {
        batch.add(LlamaToken(*token), position, &[0], true).map_err(|error| failed(&error))?;
    }
    if encoder {
        context.encode(batch).map_err(|error| failed(&error))?;
    } else {
        context.decode(batch).map_err(|error| failed(&error))?;
    }
    let vector = context.embeddings_seq_ith(0).map_err(|error| failed(&error))?;
    unit(vector).ok_or_else(|| failed(&"the vector has no length; the model's weights are broken"))
}

/// `vector` with length one, as OpenAI's are.
fn unit(vector: &[f32]) -> Option<Vec<f32>> {
    let length = vector.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
    let usable = length.is_finite() && length > 0.0;
    usable.then(|| vector.iter().map(|number| (f64::from(*number) / length) as f32).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn vectors_have_length_one_or_are_none() {
        assert_eq!(unit(&[3.0, -4.0]).unwrap(), [0.6, -0.8]);
        assert_eq!(unit(&[0.0; 3]), None);
        assert_eq!(unit(&[1.0, f32::NAN]), None);
    }

    #[test]
    fn only_what_says_so_or_is_an_encoder_embeds() {
        assert_eq!(pooling("", false), Ok(None));
        assert_eq!(pooling("0", false), Ok(None));
        assert_eq!(pooling("", true), Ok(Some(LlamaPoolingType::Mean)));
        assert_eq!(pooling("3", false), Ok(Some(LlamaPoolingType::Last)));
        assert!(pooling("4", true).is_err());
    }
}
