//! An adapter for llama.cpp: one GGUF file.
//!
//! llama.cpp aborts on some of what a hostile file may say, and passes over what it does not know; so our own reader looks first,
//! and refuses both.

use llama_cpp_2::model::{LlamaLoraAdapter, LlamaModel};
use registry::format::{Layout, gguf};

use super::super::adapter::AdapterFiles;
use super::super::candle::shown;
use super::super::{EngineError, logs};
use super::NAME;

/// Element types of an adapter's matrices: those that its converter writes.
const TYPES: [&str; 4] = ["F32", "F16", "BF16", "Q8_0"];
/// Ends of the names of the two halves.
const ENDS: [&str; 2] = [".lora_a", ".lora_b"];
/// The matrix whose halves are stored the other way round.
const EMBEDDING: &str = "token_embd.weight";

/// Loads an adapter for `model`.
pub(super) fn load(model: &mut LlamaModel, adapter: &AdapterFiles) -> Result<LlamaLoraAdapter, EngineError> {
    let [file] = &adapter.files[..] else {
        return Err(EngineError::Unsupported("an adapter for llama.cpp is exactly one GGUF file".to_owned()));
    };
    let refused = |reason: String| EngineError::Load {
        engine: NAME,
        path: format!("{} of the adapter {}", file.path(), adapter.name),
        reason,
    };
    let (layout, header) =
        gguf::read(file.reader(), file.size()).map_err(|error| refused(error.to_string()))?;
    let architecture = model.meta_val_str("general.architecture").unwrap_or_default();
    check(&layout, &header, &architecture).map_err(refused)?;
    let path = file.engine_path();
    let (loaded, complaints) = logs::caught(|| model.lora_adapter_init(&path));
    loaded.map_err(|_| refused(complaints.replace(&*path.to_string_lossy(), file.path())))
}

/// Whether a file is an adapter for a model of `architecture`, by its header.
fn check(layout: &Layout, header: &gguf::Metadata, architecture: &str) -> Result<(), String> {
    if header.kind.as_deref() != Some("adapter") || header.adapter.as_deref() != Some("lora") {
        let found = header.kind.as_deref().unwrap_or("model");
        return Err(format!(
            "it is no LoRA adapter: `general.type` is `{found}`, `adapter.type` is `{}`",
            header.adapter.as_deref().unwrap_or_default()
        ));
    }
    if header.architecture.as_deref() != Some(architecture) {
        let made_for = header.architecture.as_deref().unwrap_or_default();
        return Err(format!("it was made for a `{made_for}` model, and this is a `{architecture}` one"));
    }
    if !header.alpha {
        return Err("it has no number `adapter.lora.alpha`, so that its strength is not known".to_owned());
    }
    if header.invoked {
        return Err("it acts only behind certain tokens (aLoRA), which is not supported".to_owned());
    }
    if layout.tensors.is_empty() {
        return Err("it has no matrices".to_owned());
    }
    for tensor in &layout.tensors {
        let name = shown(&tensor.name);
        let Some((matrix, _)) = ENDS.iter().find_map(|end| Some((tensor.name.strip_suffix(end)?, end)))
        else {
            return Err(format!(
                "`{name}` is not half of a pair `….lora_a`, `….lora_b`, and may mean something"
            ));
        };
        if matrix.contains(".lora_") {
            return Err(format!("`{name}` is named twice over"));
        }
        if tensor.shape.len() != 2 || tensor.shape.contains(&0) {
            return Err(format!("`{name}` is no matrix: its shape is {:?}", tensor.shape));
        }
        if !TYPES.contains(&tensor.dtype) {
            return Err(format!(
                "`{name}` has elements of type {}; {} are supported",
                tensor.dtype,
                TYPES.join(", ")
            ));
        }
        let other = |end: &str| layout.tensors.iter().find(|other| other.name == format!("{matrix}{end}"));
        let (Some(a), Some(b)) = (other(ENDS[0]), other(ENDS[1])) else {
            return Err(format!("`{name}` has no other half"));
        };
        // Of the embedding both halves have the rank as their inner dimension, and llama.cpp does not compare them.
        if matrix == EMBEDDING && a.shape.last() != b.shape.last() {
            return Err(format!("the halves of `{matrix}` have different ranks"));
        }
    }
    Ok(())
}
