//! Adapters (LoRA): small matrices beside a model's own, each a release of its own. A request is computed by the model itself or
//! by the model with one of them.

use registry::admitted::AdmittedFile;

use super::plan::{is_named, listed};
use super::{EngineError, Plan, candle};
use crate::gate::VerifiedFile;

/// An adapter's verified files.
#[derive(Debug)]
pub struct AdapterFiles {
    /// Its name, for people: `nation/name@version`.
    pub name: String,
    /// Those of [`Plan::adapter_files`], in that order.
    pub files: Vec<VerifiedFile>,
}

/// Everything that is loaded.
#[derive(Debug)]
pub struct Files {
    /// The model's: those of [`Plan::files`], in that order.
    pub model: Vec<VerifiedFile>,
    /// Each adapter's; a request names them by their places, from 1 on.
    pub adapters: Vec<AdapterFiles>,
}

impl From<Vec<VerifiedFile>> for Files {
    fn from(model: Vec<VerifiedFile>) -> Self {
        Self { model, adapters: Vec::new() }
    }
}

impl Plan<'_> {
    /// Which `files` of the adapter called `name` this plan's engine needs.
    pub fn adapter_files<'a>(
        &self,
        name: &str,
        files: &'a [AdmittedFile],
    ) -> Result<Vec<&'a AdmittedFile>, EngineError> {
        let refused =
            |why: String| Err(EngineError::Unsupported(format!("the adapter `{name}` can't be used: {why}")));
        match self {
            Self::Llama { .. } => {
                let weights: Vec<_> = files.iter().filter(|file| is_named(file, ".gguf")).collect();
                match weights[..] {
                    [weights] => Ok(vec![weights]),
                    [] => refused(format!(
                        "the model is served by llama.cpp, whose adapters are GGUF files, and it has {}. Convert it with llama.cpp's \
                         `convert_lora_to_gguf.py`, or serve the model's safetensors",
                        listed(files.iter())
                    )),
                    _ => refused(format!(
                        "it has {} .gguf files, and only one can count: {}",
                        weights.len(),
                        listed(weights.iter().copied())
                    )),
                }
            }
            Self::Candle { .. } => match candle::adapter_files(files) {
                Ok(files) => Ok(files),
                Err(missing) => refused(format!(
                    "the model is served by candle, whose adapters are as PEFT writes them, and it has no `{missing}`, but {}",
                    listed(files.iter())
                )),
            },
            Self::Vllm { .. } => {
                refused("the model is served by vllm, and adapters beside it are not there yet".to_owned())
            }
        }
    }
}
