//! Which engine serves a release, with which of its files, and whether it fits into this machine.

mod explain;
mod machine;
mod memory;

use registry::admitted::{Admitted, AdmittedFile};
use registry::serving::{EngineName, Options};

use std::sync::Arc;

use super::{Candle, Engine, EngineError, Files, Llama, candle, gpu, llama};
use crate::halt::Halt;

pub use explain::{Considered, Explanation, Verdict, explain};
pub(crate) use machine::memory_at_start;
pub use memory::Memory;
pub(crate) use memory::{Source, check, estimate, needs, readable};
pub use registry::machine::available_memory;

/// What loads verified files.
pub(crate) type Load = fn(Files, &Options, &Halt) -> Result<Arc<dyn Engine>, EngineError>;

/// Which files an engine needs, and which engine.
#[derive(Debug, Clone)]
pub enum Plan<'a> {
    /// llama.cpp, on one GGUF file.
    Llama {
        /// The weights.
        weights: &'a AdmittedFile,
    },
    /// candle, on safetensors and what says how to read them.
    Candle {
        /// All of them.
        files: Vec<&'a AdmittedFile>,
    },
    /// vLLM, on the same. It is started beside the worker ([`crate::vllm`]), not loaded into it.
    Vllm {
        /// All of them.
        files: Vec<&'a AdmittedFile>,
    },
}

impl<'a> Plan<'a> {
    /// Chooses the engine for a release: the one `asked` for, else the first that can, llama.cpp before candle, because it
    /// is the faster on the same machine.
    pub fn for_release(admitted: &'a Admitted, asked: Option<EngineName>) -> Result<Self, EngineError> {
        Self::for_files(&admitted.model().to_string(), admitted.files(), asked)
    }

    /// The same for the files of the release called `name`.
    pub fn for_files(
        name: &str,
        files: &'a [AdmittedFile],
        asked: Option<EngineName>,
    ) -> Result<Self, EngineError> {
        if let Some(engine) = asked {
            return Self::with(engine, name, files).map_err(|reason| {
                EngineError::Unsupported(format!("`--engine {engine}` was asked for, but {reason}"))
            });
        }
        let llama = match Self::with(EngineName::LlamaCpp, name, files) {
            Ok(plan) => return Ok(plan),
            Err(reason) => reason,
        };
        let candle = match Self::with(EngineName::Candle, name, files) {
            Ok(plan) => return Ok(plan),
            Err(reason) => reason,
        };
        let has = |ending| files.iter().any(|file| is_named(file, ending));
        let reason = match (has(".gguf"), has(".safetensors")) {
            (true, _) => llama,
            (false, true) => candle,
            (false, false) => format!("{llama}; {candle}"),
        };
        Err(EngineError::Unsupported(format!("no engine here serves `{name}`: {reason}")))
    }

    /// One engine's own plan, or why it has none.
    fn with(engine: EngineName, name: &str, files: &'a [AdmittedFile]) -> Result<Self, String> {
        match engine {
            EngineName::LlamaCpp => {
                let weights: Vec<_> = files.iter().filter(|file| is_named(file, ".gguf")).collect();
                match weights[..] {
                    [weights] => Ok(Self::Llama { weights }),
                    [] => Err(format!("it has no .gguf file, but {}", listed(files.iter()))),
                    _ => Err(format!(
                        "`{name}` has {} .gguf files, and only a release with exactly one can be served: {}. Publish each \
                         quantisation as a release of its own; merge the parts of a split file first (`llama-gguf-split --merge`)",
                        weights.len(),
                        listed(weights.iter().copied()),
                    )),
                }
            }
            EngineName::Candle => {
                if !files.iter().any(|file| candle::is_weights(&file.path)) {
                    return Err(format!("it has no .safetensors file, but {}", listed(files.iter())));
                }
                let wanted = candle::wanted(files);
                let files = wanted.map_err(|error| format!("{error}; it has {}", listed(files.iter())))?;
                Ok(Self::Candle { files })
            }
            EngineName::Vllm => {
                let files = crate::vllm::wanted(files)?;
                Ok(Self::Vllm { files })
            }
        }
    }

    /// The engine's name.
    pub fn engine(&self) -> &'static str {
        match self {
            Self::Llama { .. } => llama::NAME,
            Self::Candle { .. } => candle::NAME,
            Self::Vllm { .. } => crate::vllm::NAME,
        }
    }

    /// Bytes of the memory that it would lie in: the GPU's own where it would compute there, else `machine`'s.
    pub(crate) fn memory_from(&self, machine: Option<u64>) -> Option<u64> {
        match self {
            Self::Llama { .. } | Self::Vllm { .. } => machine,
            Self::Candle { .. } => gpu::memory().or(machine),
        }
    }

    /// How many times its file an adapter takes in memory.
    pub(crate) fn adapter_factor(&self) -> u64 {
        match self {
            Self::Llama { .. } | Self::Vllm { .. } => 1,
            // In F32, from 16 bits a number; and what belongs to one of stacked matrices is as high as all of them.
            Self::Candle { .. } => 6,
        }
    }

    /// Whether the engine computes on the mapped files themselves, without a copy of its own.
    pub(crate) fn maps(&self) -> bool {
        matches!(self, Self::Llama { .. })
    }

    /// What loads them.
    pub(crate) fn loader(&self) -> Load {
        match self {
            Self::Llama { .. } => |files, options, halt| Ok(Arc::new(Llama::load(files, options, halt)?)),
            Self::Candle { .. } => |files, options, halt| Ok(Arc::new(Candle::load(files, options, halt)?)),
            Self::Vllm { .. } => |_, _, _| {
                let words = "vllm is not part of this program: the worker starts it";
                Err(EngineError::Unsupported(words.to_owned()))
            },
        }
    }

    /// The files to open, in the order in which [`super::start`] wants them.
    pub fn files(&self) -> Vec<&'a AdmittedFile> {
        match self {
            Self::Llama { weights } => vec![weights],
            Self::Candle { files } | Self::Vllm { files } => files.clone(),
        }
    }
}

pub(super) fn is_named(file: &AdmittedFile, ending: &str) -> bool {
    file.path.to_ascii_lowercase().ends_with(ending)
}

/// Names a few files for an error.
pub(super) fn listed<'a>(files: impl ExactSizeIterator<Item = &'a AdmittedFile>) -> String {
    /// Enough to recognise a release by.
    const SHOWN: usize = 5;
    let count = files.len();
    let mut names: Vec<_> = files.take(SHOWN).map(|file| format!("`{}`", file.path)).collect();
    if count > SHOWN {
        names.push(format!("{} more", count - SHOWN));
    }
    if names.is_empty() { "no file at all".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use registry::serving::FailCode;

    use super::*;
    use crate::tiny;

    fn refusal(paths: &[&str]) -> String {
        let admitted = tiny::admitted(paths);
        let error = Plan::for_release(&admitted, None).unwrap_err();
        assert_eq!(error.code(), FailCode::UnsupportedFormat);
        error.to_string()
    }

    fn engine(paths: &[&str], asked: Option<EngineName>) -> Result<&'static str, String> {
        let admitted = tiny::admitted(paths);
        Plan::for_release(&admitted, asked).map(|plan| plan.engine()).map_err(|error| error.to_string())
    }

    const SAFETENSORS: [&str; 4] = ["config.json", "model.safetensors", "README.md", "tokenizer.json"];

    #[test]
    fn what_no_engine_serves_is_refused_with_what_it_has() {
        let error = refusal(&["model.safetensors", "config.json"]);
        assert!(
            error.contains("`model.safetensors`, `config.json`") && error.contains("no `tokenizer.json`"),
            "{error}"
        );
        let error = refusal(&["a-00001-of-00002.gguf", "README.md", "a-00002-of-00002.GGUF"]);
        assert!(error.contains("has 2 .gguf files") && error.contains("--merge"), "{error}");
        assert!(refusal(&[]).contains("no file at all"));
        let error = refusal(&["README.md", "onnx/model.safetensors"]);
        assert!(error.contains("onnx/model.safetensors"), "{error}");
    }

    #[test]
    fn the_format_chooses_and_a_person_may_insist() {
        let both = [&SAFETENSORS[..], &["q4.gguf"]].concat();
        assert_eq!(engine(&["README.md", "q4.gguf"], None).unwrap(), "llama.cpp");
        assert_eq!(engine(&SAFETENSORS, None).unwrap(), "candle");
        assert_eq!(engine(&both, None).unwrap(), "llama.cpp");
        assert_eq!(engine(&both, Some(EngineName::Candle)).unwrap(), "candle");
        let error = engine(&["q4.gguf"], Some(EngineName::Candle)).unwrap_err();
        assert!(error.contains("--engine candle") && error.contains("`q4.gguf`"), "{error}");
        let admitted = tiny::admitted(&both);
        let files = Plan::for_release(&admitted, Some(EngineName::Candle)).unwrap().files();
        let mut paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["config.json", "model.safetensors", "tokenizer.json"]);
    }
}
