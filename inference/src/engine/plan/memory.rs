//! How much memory a plan needs, reckoned from headers before anything is loaded.
//!
//! An estimate of what is in use at once: weights, the key-value cache at its full length, and the largest intermediate
//! results. Allocators and tokenizers come on top ([`SLACK`]).

use std::io::{self, Read, Seek};

use registry::admitted::AdmittedFile;
use registry::format::{Layout, gguf};
use registry::serving::Options;
use serde::Serialize;

use super::{Plan, candle, llama};
use crate::engine::{EngineError, Files, MAX_CONTEXT, context};
use crate::gate::VerifiedFile;

/// What allocators, tokenizers and the process itself take.
const SLACK: u64 = 64 * 1024 * 1024;
/// Bytes of a number in llama.cpp's cache (F16).
const CACHED: u64 = 2;
/// Bytes of a number that is computed with.
const COMPUTED: u64 = 4;
/// Tensors of a layer whose rows are what is cached of a token. A fused one also has the queries' rows, so that the
/// estimate is too high there, never too low.
const CACHED_ROWS: [&str; 4] =
    [".attn_k.weight", ".attn_v.weight", ".attn_qkv.weight", ".attn_kv_a_mqa.weight"];

/// Memory that a plan needs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The weights as they are computed with.
    pub weights: u64,
    /// The key-value cache, full.
    pub cache: u64,
    /// Intermediate results and the rest.
    pub working: u64,
    /// Tokens of context that the cache is for.
    pub context: u32,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(self.working)
    }
}

/// Something that can be read from anywhere.
pub(crate) trait Source: Read + Seek {}

impl<T: Read + Seek> Source for T {}

/// Opens one of the plan's files.
pub(crate) type Open<'a> = dyn Fn(&AdmittedFile) -> io::Result<Box<dyn Source + 'a>> + 'a;

/// Reads the headers of a plan's files and reckons.
pub(crate) fn estimate(plan: &Plan<'_>, options: &Options, open: &Open<'_>) -> Result<Memory, EngineError> {
    let refused = |file: &AdmittedFile, reason: String| EngineError::Load {
        engine: plan.engine(),
        path: file.path.clone(),
        reason,
    };
    match plan {
        Plan::Llama { weights } => {
            let reader = open(weights).map_err(|error| refused(weights, error.to_string()))?;
            let (layout, metadata) =
                gguf::read(reader, weights.size).map_err(|error| refused(weights, error.to_string()))?;
            let trained = u32::try_from(metadata.context_length.unwrap_or(u64::MAX)).unwrap_or(u32::MAX);
            Ok(llama_memory(&layout, context(options, trained).get(), options))
        }
        // It keeps to what `--gpu-memory-utilization` leaves it, and says itself when that is too little.
        Plan::Vllm { files } => {
            let weights = files.iter().map(|file| file.size).fold(0, u64::saturating_add);
            Ok(Memory { weights, cache: 0, working: 0, context: options.context.unwrap_or(0) })
        }
        Plan::Candle { files } => {
            let mut config = None;
            let mut parameters = 0u64;
            for file in files {
                let reader = || open(file).map_err(|error| refused(file, error.to_string()));
                if candle::is_weights(&file.path) {
                    let count = candle::parameters(reader()?, file.size);
                    let count = count.map_err(|error| refused(file, error.to_string()))?;
                    parameters = parameters.saturating_add(count);
                } else if file.path == candle::CONFIG {
                    let mut bytes = Vec::new();
                    let read = reader()?.take(file.size).read_to_end(&mut bytes);
                    read.map_err(|error| refused(file, error.to_string()))?;
                    config = Some(bytes);
                }
            }
            candle::memory(&config.unwrap_or_default(), parameters, options)
        }
    }
    .map(|memory| Memory { working: memory.working.saturating_add(SLACK), ..memory })
}

fn llama_memory(layout: &Layout, context: u32, options: &Options) -> Memory {
    let rows = |names: &[&str]| -> u64 {
        let found =
            layout.tensors.iter().filter(|tensor| names.iter().any(|name| tensor.name.ends_with(name)));
        found.filter_map(|tensor| tensor.shape.first()).fold(0, |sum, rows| sum.saturating_add(*rows))
    };
    let cached = rows(&CACHED_ROWS).saturating_mul(CACHED);
    let batch = u64::try_from(llama::BATCH).unwrap_or(u64::MAX);
    Memory {
        weights: layout.end(),
        cache: cached.saturating_mul(u64::from(options.cache.unwrap_or(0).clamp(context, MAX_CONTEXT))),
        // The logits of a whole batch are the largest thing that it keeps.
        working: rows(&["token_embd.weight"]).saturating_mul(COMPUTED).saturating_mul(batch),
        context,
    }
}

/// What a plan needs, by the headers of its verified files.
pub(crate) fn needs(plan: &Plan<'_>, files: &Files, options: &Options) -> Result<Memory, EngineError> {
    let open = |wanted: &AdmittedFile| -> io::Result<Box<dyn Source + '_>> {
        let file = files.model.iter().find(|file| file.path() == wanted.path);
        let mut reader = file.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?.reader();
        reader.rewind()?;
        Ok(Box::new(reader))
    };
    let memory = estimate(plan, options, &open)?;
    let adapters = files.adapters.iter().flat_map(|adapter| &adapter.files).map(VerifiedFile::size);
    let adapters = adapters.fold(0, u64::saturating_add).saturating_mul(plan.adapter_factor());
    Ok(Memory { weights: memory.weights.saturating_add(adapters), ..memory })
}

/// Refuses what needs more than it may, or more than there is.
pub(crate) fn check(memory: Memory, options: &Options, available: Option<u64>) -> Result<(), EngineError> {
    if let Some(limit) = options.memory.filter(|limit| memory.total() > *limit) {
        return Err(EngineError::Limit { memory, limit });
    }
    match available {
        Some(available) if memory.total() > available => Err(EngineError::Memory { memory, available }),
        Some(_) => Ok(()),
        None => {
            tracing::debug!("the memory of this machine can't be read; whether the model fits will be seen");
            Ok(())
        }
    }
}

/// Bytes for people.
pub(crate) fn readable(bytes: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    if bytes >= 10 * 1024 * MIB {
        format!("{} GiB", bytes.div_ceil(1024 * MIB))
    } else {
        format!("{} MiB", bytes.div_ceil(MIB))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::tiny;

    #[test]
    fn a_gguf_files_need_is_reckoned_from_its_header() {
        let weights = tiny::gguf(None);
        let scratch = tiny::Scratch::new();
        let location = scratch.file("weights", &weights);
        let digest = registry::Digest::of(&weights);
        let handoff = tiny::handoff(&[("a.gguf", digest, weights.len() as u64, &location)]);
        let admitted = registry::Admitted::receive(handoff);
        let plan = Plan::for_release(&admitted, None).unwrap();
        let open = |file: &AdmittedFile| -> io::Result<Box<dyn Source>> {
            Ok(Box::new(std::fs::File::open(&file.location)?))
        };
        let options = Options { context: Some(1000), ..Options::default() };
        let memory = estimate(&plan, &options, &open).unwrap();
        // One layer, keys and values 64 wide, two bytes each.
        assert_eq!((memory.context, memory.cache), (1000, 1000 * 2 * 64 * 2));
        assert!(memory.weights <= weights.len() as u64 && memory.weights > weights.len() as u64 - 64);
        assert_eq!(memory.working, 261 * 4 * 512 + SLACK);
        let files = crate::gate::open_all(&plan.files(), &|_| {}, &crate::halt::Halt::default()).unwrap();
        let files = Files::from(files);
        assert_eq!(needs(&plan, &files, &options).unwrap(), memory);
        assert!(check(memory, &options, Some(memory.total())).is_ok());
        assert!(check(memory, &options, None).is_ok());
        let error = check(memory, &options, Some(memory.total() - 1)).unwrap_err();
        assert!(error.to_string().contains("--context"), "{error}");
        // A limit counts where the machine has more, too, and where it can't be read.
        let limited = |limit| Options { memory: Some(limit), ..options.clone() };
        assert!(check(memory, &limited(memory.total()), None).is_ok());
        let error = check(memory, &limited(memory.total() - 1), Some(u64::MAX)).unwrap_err();
        assert_eq!(error.code(), registry::serving::FailCode::Memory);
        assert!(error.to_string().contains("at most") && error.to_string().contains("--memory"), "{error}");
    }
}
