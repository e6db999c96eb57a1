//! Tensors from mapped safetensors files: each by its name, in the shape that the configuration asks for, and none left
//! over that might have meant something.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use registry::format::{self, FormatError, safetensors};
use registry::mapped::Mapped;
use serde_json::Value;

use crate::gate::VerifiedFile;

/// Why weights are refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WeightsError {
    /// A header that our reader refuses.
    #[error("{path}: {source}")]
    Format {
        /// Path in the release.
        path: String,
        /// Why.
        source: FormatError,
    },
    /// A file can't be mapped.
    #[error("{path} can't be mapped: {source}")]
    Map {
        /// Path in the release.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Two files have a tensor of one name.
    #[error("tensor `{0}` is in two files: nobody can say which one counts")]
    Twice(String),
    /// The index and the files disagree.
    #[error("model.safetensors.index.json says that `{tensor}` is in `{file}`, where it is not")]
    Index {
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
    },
    /// The index is of another shape.
    #[error("model.safetensors.index.json has no `weight_map` with a file for each tensor")]
    NoMap,
    /// A tensor that the architecture needs is not there.
    #[error("tensor `{0}` is missing; config.json asks for it")]
    Missing(String),
    /// A tensor of another shape than the configuration says.
    #[error("tensor `{name}` has the shape {found:?}; config.json makes it {wanted:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<u64>,
        /// The shape that would fit.
        wanted: Vec<usize>,
    },
    /// An element type that is not computed with.
    #[error("tensor `{name}` has elements of type {dtype}; F32, F16 and BF16 are supported")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: &'static str,
    },
    /// A tensor that nothing asked for.
    #[error("tensor `{0}` belongs to no part of the architecture; it may change what the model computes")]
    LeftOver(String),
    /// The library failed.
    #[error("{0}")]
    Library(#[from] candle_core::Error),
}

/// One file.
struct Shard {
    path: String,
    bytes: Mapped,
}

/// The tensors that were not taken yet. The files stay mapped for as long as this lives; tensors are copies.
pub(crate) struct Weights {
    shards: Vec<Shard>,
    places: BTreeMap<String, (usize, format::Tensor)>,
    device: Device,
}

impl Weights {
    /// Maps the files and reads their headers. `index` is `model.safetensors.index.json`, or `null`.
    pub(super) fn open(files: &[VerifiedFile], index: &Value, device: &Device) -> Result<Self, WeightsError> {
        let mut weights = Self { shards: Vec::new(), places: BTreeMap::new(), device: device.clone() };
        for file in files {
            let path = file.path().to_owned();
            let layout = safetensors::read(file.reader(), file.size());
            let layout = layout.map_err(|source| WeightsError::Format { path: path.clone(), source })?;
            let bytes = file.map().map_err(|source| WeightsError::Map { path: path.clone(), source })?;
            let shard = weights.shards.len();
            weights.shards.push(Shard { path, bytes });
            for tensor in layout.tensors {
                if let Some((_, twice)) = weights.places.insert(tensor.name.clone(), (shard, tensor)) {
                    return Err(WeightsError::Twice(twice.name));
                }
            }
        }
        weights.check_index(index)?;
        Ok(weights)
    }

    /// The index must say of each tensor where it is, and nothing else.
    fn check_index(&self, index: &Value) -> Result<(), WeightsError> {
        if index.is_null() {
            return Ok(());
        }
        let map = index.get("weight_map").and_then(Value::as_object).ok_or(WeightsError::NoMap)?;
        for (tensor, file) in map {
            let file = file.as_str().ok_or(WeightsError::NoMap)?;
            let found = self.places.get(tensor).and_then(|(shard, _)| self.shards.get(*shard));
            if found.is_none_or(|shard| shard.path != file) {
                return Err(WeightsError::Index { tensor: tensor.clone(), file: file.to_owned() });
            }
        }
        Ok(())
    }

    /// Whether a tensor is there that was not taken yet.
    pub(super) fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Takes a tensor, as F32.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, WeightsError> {
        let (shard, place) =
            self.places.remove(name).ok_or_else(|| WeightsError::Missing(name.to_owned()))?;
        let wanted: Vec<u64> = shape.iter().map(|&length| length as u64).collect();
        if place.shape != wanted {
            return Err(WeightsError::Shape {
                name: name.to_owned(),
                found: place.shape.into_iter().take(format::MAX_DIMS as usize).collect(),
                wanted: shape.to_vec(),
            });
        }
        let dtype = match place.dtype {
            "F32" => DType::F32,
            "F16" => DType::F16,
            "BF16" => DType::BF16,
            other => return Err(WeightsError::Dtype { name: name.to_owned(), dtype: other }),
        };
        let bytes = self.shards.get(shard).and_then(|shard| bytes(&shard.bytes, &place));
        let bytes = bytes.ok_or_else(|| WeightsError::Missing(name.to_owned()))?;
        Ok(Tensor::from_raw_buffer(bytes, dtype, shape, &self.device)?.to_dtype(DType::F32)?)
    }

    /// Several matrices of one width below each other, so that one multiplication does for all.
    pub(super) fn stacked(
        &mut self,
        names: &[String],
        heights: &[usize],
        width: usize,
    ) -> Result<Tensor, WeightsError> {
        let parts: Vec<_> = names
            .iter()
            .zip(heights)
            .map(|(name, &height)| self.take(name, &[height, width]))
            .collect::<Result<_, _>>()?;
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// Several vectors behind each other.
    pub(super) fn joined(&mut self, names: &[String], lengths: &[usize]) -> Result<Tensor, WeightsError> {
        let parts: Vec<_> = names
            .iter()
            .zip(lengths)
            .map(|(name, &length)| self.take(name, &[length]))
            .collect::<Result<_, _>>()?;
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// Nothing may be left but what `harmless` says of a name that it changes nothing.
    pub(super) fn nothing_left(&self, harmless: impl Fn(&str) -> bool) -> Result<(), WeightsError> {
        match self.places.keys().find(|name| !harmless(name)) {
            None => Ok(()),
            Some(name) => Err(WeightsError::LeftOver(name.clone())),
        }
    }
}

fn bytes<'a>(file: &'a Mapped, place: &format::Tensor) -> Option<&'a [u8]> {
    file.get(usize::try_from(place.start).ok()?..usize::try_from(place.end).ok()?)
}

/// Elements of the tensors in a file's header, before anything of it is loaded.
pub(crate) fn parameters(file: impl std::io::Read + std::io::Seek, size: u64) -> Result<u64, FormatError> {
    Ok(safetensors::read(file, size)?.parameters())
}
