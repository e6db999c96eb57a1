//! LoRA adapters as PEFT writes them: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! As with models, a field or a tensor is either understood or refused. What an adapter adds to a matrix is computed beside the
//! matrix, so that one step serves requests with different adapters and with none.

use candle_core::Tensor;
use registry::admitted::AdmittedFile;
use serde_json::{Value, json};

use super::config::{ConfigError, DecoderConfig, Fields};
use super::files::Opened;
use super::weights::{Weights, WeightsError};
use crate::engine::adapter::AdapterFiles;
use crate::engine::{EngineError, gpu};

/// How the adapter was made.
const CONFIG: &str = "adapter_config.json";
/// Its matrices.
const WEIGHTS: &str = "adapter_model.safetensors";
/// Largest rank: eight times the largest in use.
const MAX_RANK: usize = 2048;

/// Fields that change nothing in what is computed here: about training, or about where the base came from, which is for the lineage
/// to say. Which matrices have an adapter the tensors say.
const HARMLESS: [&str; 16] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
];
/// Ways to begin the training that leave the base as it is. PiSSA and the like change it.
const BEGINNINGS: [&str; 3] = ["gaussian", "orthogonal", "eva"];

/// The files that this engine needs of an adapter's release, or the one that is missing.
pub(crate) fn adapter_files(files: &[AdmittedFile]) -> Result<Vec<&AdmittedFile>, &'static str> {
    let find = |name| files.iter().find(|file| file.path == name).ok_or(name);
    Ok(vec![find(CONFIG)?, find(WEIGHTS)?])
}

/// What is added to one of the model's matrices: `b · a`, already scaled.
pub(super) struct Pair {
    /// `[rank, in]`
    a: Tensor,
    /// `[out, rank]`
    b: Tensor,
}

impl Pair {
    /// What is added for the rows of `input`, `[tokens, in]` to `[tokens, out]`.
    fn of(&self, input: &Tensor) -> candle_core::Result<Tensor> {
        input.matmul(&self.a.t()?)?.matmul(&self.b.t()?)
    }
}

/// What is added in one layer.
pub(super) struct LayerPairs {
    pub(super) qkv: Option<Pair>,
    pub(super) output: Option<Pair>,
    pub(super) gate_up: Option<Pair>,
    pub(super) down: Option<Pair>,
}

/// A loaded adapter.
pub(super) struct Lora(Vec<LayerPairs>);

impl Lora {
    /// Loads an adapter for a model of this configuration.
    pub(super) fn load(config: &DecoderConfig, adapter: AdapterFiles) -> Result<Self, EngineError> {
        let AdapterFiles { name, files } = adapter;
        let refused = |file: &str, reason: String| EngineError::Load {
            engine: super::NAME,
            path: format!("{file} of the adapter {name}"),
            reason,
        };
        // These speak of a model's own files.
        let in_config = |error: ConfigError| {
            let reason = error.to_string().replace("config.json", CONFIG);
            refused(CONFIG, reason.replace("the model is", "it is"))
        };
        let in_weights =
            |error: WeightsError| refused(WEIGHTS, error.to_string().replace("config.json", CONFIG));
        let opened = Opened::new(files);
        let settings = opened.required(CONFIG).map_err(|error| refused(CONFIG, error.to_string()))?;
        let settings = Settings::read(&settings).map_err(in_config)?;
        let files = opened.into_weights();
        let mut weights = Weights::open(&files, &Value::Null, &gpu::device()).map_err(in_weights)?;
        let layers = (0..config.layers).map(|number| settings.layer(config, &mut weights, number));
        let layers = layers.collect::<Result<_, _>>().map_err(in_weights)?;
        // The embedding, the head, norms: they would change what is computed, and are not applied here.
        weights.nothing_left(|_| false).map_err(in_weights)?;
        Ok(Self(layers))
    }

    /// What it adds in a layer.
    pub(super) fn layer(&self, number: usize) -> Option<&LayerPairs> {
        self.0.get(number)
    }
}

/// The rank and the strength.
struct Settings {
    rank: usize,
    scale: f64,
}

impl Settings {
    fn read(bytes: &[u8]) -> Result<Self, ConfigError> {
        let mut fields = Fields::parse(bytes)?;
        fields.required_to_be("peft_type", &json!("LORA"))?;
        for (field, wanted) in [
            ("task_type", json!("CAUSAL_LM")),
            ("bias", json!("none")),
            ("fan_in_fan_out", json!(false)),
            ("lora_bias", json!(false)),
            ("use_dora", json!(false)),
            ("use_qalora", json!(false)),
            ("alpha_pattern", json!({})),
            ("rank_pattern", json!({})),
            ("loftq_config", json!({})),
        ] {
            fields.must_be(field, &wanted)?;
        }
        let beginning = fields.take("init_lora_weights").unwrap_or(Value::Null);
        if !(beginning.is_null()
            || beginning.is_boolean()
            || beginning.as_str().is_some_and(|name| BEGINNINGS.contains(&name)))
        {
            return Err(ConfigError::value(
                "init_lora_weights",
                &beginning,
                "one that leaves the base as it is",
            ));
        }
        let rank = fields.count("r", MAX_RANK)?;
        let alpha = fields.number("lora_alpha")?.ok_or(ConfigError::Absent("lora_alpha"))?;
        let divisor = if fields.flag("use_rslora")? { (rank as f64).sqrt() } else { rank as f64 };
        fields.nothing_left(&HARMLESS)?;
        Ok(Self { rank, scale: alpha / divisor })
    }

    fn layer(
        &self,
        config: &DecoderConfig,
        weights: &mut Weights,
        number: usize,
    ) -> Result<LayerPairs, WeightsError> {
        let DecoderConfig { hidden, intermediate, head_dim, .. } = *config;
        let (queries, keys) = (config.heads * head_dim, config.kv_heads * head_dim);
        let prefix = format!("base_model.model.model.layers.{number}");
        let mut pair = |names: &[(&str, usize)], width| self.pair(weights, &prefix, names, width);
        Ok(LayerPairs {
            qkv: pair(
                &[("self_attn.q_proj", queries), ("self_attn.k_proj", keys), ("self_attn.v_proj", keys)],
                hidden,
            )?,
            output: pair(&[("self_attn.o_proj", hidden)], queries)?,
            gate_up: pair(&[("mlp.gate_proj", intermediate), ("mlp.up_proj", intermediate)], hidden)?,
            down: pair(&[("mlp.down_proj", hidden)], intermediate)?,
        })
    }

    /// What is added to matrices that lie below each other, by their names and heights: the halves of each in rows and columns of
    /// their own.
    fn pair(
        &self,
        weights: &mut Weights,
        prefix: &str,
        matrices: &[(&str, usize)],
        width: usize,
    ) -> Result<Option<Pair>, WeightsError> {
        let height: usize = matrices.iter().map(|(_, height)| height).sum();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let mut from = 0;
        for (name, rows) in matrices {
            let [left, right] = ["lora_A", "lora_B"].map(|half| format!("{prefix}.{name}.{half}.weight"));
            if weights.has(&left) || weights.has(&right) {
                a.push(weights.take(&left, &[self.rank, width])?);
                let half = (weights.take(&right, &[*rows, self.rank])? * self.scale)?;
                b.push(half.pad_with_zeros(0, from, height - from - rows)?);
            }
            from += rows;
        }
        if a.is_empty() {
            return Ok(None);
        }
        Ok(Some(Pair { a: Tensor::cat(&a, 0)?, b: Tensor::cat(&b, 1)? }))
    }
}

/// Rows of a step that one adapter computes, or none.
pub(super) struct Rows<'a> {
    pub(super) lora: Option<&'a Lora>,
    pub(super) from: usize,
    pub(super) count: usize,
}

/// `output`, which a matrix made of `input`, with what the adapters of `rows` add to that matrix. The rows are all of them, in order.
pub(super) fn adapted(
    output: Tensor,
    input: &Tensor,
    rows: &[Rows<'_>],
    layer: usize,
    matrix: impl Fn(&LayerPairs) -> Option<&Pair>,
) -> candle_core::Result<Tensor> {
    let pairs: Vec<Option<&Pair>> = rows.iter().map(|rows| matrix(rows.lora?.layer(layer)?)).collect();
    if pairs.iter().all(Option::is_none) {
        return Ok(output);
    }
    let pieces = rows.iter().zip(pairs).map(|(Rows { from, count, .. }, pair)| {
        let piece = output.narrow(0, *from, *count)?;
        match pair {
            None => Ok(piece),
            Some(pair) => piece + pair.of(&input.narrow(0, *from, *count)?)?,
        }
    });
    Tensor::cat(&pieces.collect::<candle_core::Result<Vec<_>>>()?, 0)
}
