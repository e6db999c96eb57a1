//! `config.json`: which architecture, and every field that changes what it computes.
//!
//! A field is either read and checked here or known to change nothing ([`HARMLESS`]); anything else is refused, because a
//! model that runs with a part of its mathematics missing answers plausibly and wrongly. Where `transformers` has a
//! default that depends on the class, the field must be written out.

mod fields;
mod rope;

use serde_json::Value;

pub(crate) use fields::shown;
pub(super) use fields::{ConfigError, Fields, tokens as fields_tokens};
pub(super) use rope::Rope;

/// Longest `config.json`, in bytes; published ones have 1 to 40 KB.
pub(super) const MAX_CONFIG: u64 = 1024 * 1024;
/// Widest hidden state, or heads together: four times the widest published model.
pub(super) const MAX_WIDTH: usize = 65_536;
/// Widest feed-forward layer: likewise.
pub(super) const MAX_INTERMEDIATE: usize = 262_144;
/// Most layers: eight times the deepest published model.
pub(super) const MAX_LAYERS: usize = 1024;
/// Most attention heads: eight times as many as the widest published model.
pub(super) const MAX_HEADS: usize = 1024;
/// Widest head: four times the widest in use.
pub(super) const MAX_HEAD_DIM: usize = 1024;
/// Largest vocabulary: eight times the largest in use.
pub(super) const MAX_VOCABULARY: usize = 1 << 21;
/// Most positions that a model may claim; what is computed with is bounded by the context.
pub(super) const MAX_POSITIONS: usize = 1 << 28;
/// Most end tokens.
pub(super) const MAX_ENDS: usize = 64;

/// Fields that change nothing in what is computed here: about training, about the library that wrote the file, or numbers
/// of tokens that the tokenizer's own files say.
const HARMLESS: [&str; 32] = [
    "_name_or_path",
    "transformers_version",
    "transformers.js_config",
    "torch_dtype",
    "dtype",
    "use_cache",
    "bos_token_id",
    "pad_token_id",
    "unk_token_id",
    "sep_token_id",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "hidden_dropout_prob",
    "classifier_dropout",
    "initializer_range",
    "gradient_checkpointing",
    "is_llama_config",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "chunk_size_feed_forward",
    "id2label",
    "label2id",
    "problem_type",
    "directionality",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    "unsloth_fixed",
    "unsloth_version",
];

/// The architectures on the list. Each has golden tests against `transformers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    Llama,
    Qwen2,
    Qwen3,
    Mistral,
    Bert,
}

impl Architecture {
    const ALL: [(Self, &'static str, &'static str); 5] = [
        (Self::Llama, "LlamaForCausalLM", "llama"),
        (Self::Qwen2, "Qwen2ForCausalLM", "qwen2"),
        (Self::Qwen3, "Qwen3ForCausalLM", "qwen3"),
        (Self::Mistral, "MistralForCausalLM", "mistral"),
        (Self::Bert, "BertModel", "bert"),
    ];

    /// All names, for an error.
    pub(super) fn listed() -> String {
        Self::ALL.map(|(_, name, _)| name).join(", ")
    }
}

/// What a checked file says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Config {
    /// Generates text.
    Decoder(DecoderConfig),
    /// Makes vectors of text.
    Bert(BertConfig),
}

/// A decoder of the Llama family.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DecoderConfig {
    pub(super) architecture: Architecture,
    pub(super) vocabulary: usize,
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) eps: f64,
    /// Tokens that it was trained on.
    pub(super) positions: usize,
    pub(super) rope: Rope,
    /// A token sees so many positions, its own included.
    pub(super) window: Option<usize>,
    /// Whether queries, keys and values have biases.
    pub(super) bias: bool,
    /// Whether queries and keys are normalised.
    pub(super) qk_norm: bool,
    /// Whether the output matrix is the embedding.
    pub(super) tied: bool,
    /// Tokens that end an answer.
    pub(super) ends: Vec<u32>,
}

/// An encoder of the BERT family.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BertConfig {
    pub(super) vocabulary: usize,
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) eps: f64,
    pub(super) positions: usize,
    pub(super) types: usize,
}

impl Config {
    /// Reads and checks the file's bytes.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, ConfigError> {
        let mut fields = Fields::parse(bytes)?;
        let architecture = architecture(&mut fields)?;
        let config = match architecture {
            Architecture::Bert => Self::Bert(bert(&mut fields)?),
            _ => Self::Decoder(decoder(architecture, &mut fields)?),
        };
        fields.must_be("is_encoder_decoder", &Value::Bool(false))?;
        fields.must_be("is_decoder", &Value::Bool(false))?;
        fields.must_be("add_cross_attention", &Value::Bool(false))?;
        fields.nothing_left(&HARMLESS)?;
        Ok(config)
    }
}

/// The one architecture that `architectures` names; `model_type` must be its own.
fn architecture(fields: &mut Fields) -> Result<Architecture, ConfigError> {
    let names = fields.take("architectures");
    let names = names.as_ref().and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let [Value::String(name)] = names else {
        return Err(ConfigError::Architecture("`architectures` does not name exactly one class".to_owned()));
    };
    let found = Architecture::ALL.iter().find(|(_, known, _)| known == name);
    let Some((architecture, _, kind)) = found else {
        return Err(ConfigError::Architecture(format!("it is a `{}`", fields::shown(name))));
    };
    fields.required_to_be("model_type", &Value::String((*kind).to_owned()))?;
    Ok(*architecture)
}

fn decoder(architecture: Architecture, fields: &mut Fields) -> Result<DecoderConfig, ConfigError> {
    let heads = fields.count("num_attention_heads", MAX_HEADS)?;
    let hidden = fields.count("hidden_size", MAX_WIDTH)?;
    let kv_heads = match fields.optional_count("num_key_value_heads", MAX_HEADS)? {
        Some(count) => count,
        // Llama's own default; that of others is a number.
        None if architecture == Architecture::Llama => heads,
        None => return Err(ConfigError::Absent("num_key_value_heads")),
    };
    let head_dim = match fields.optional_count("head_dim", MAX_HEAD_DIM)? {
        Some(width) => width,
        None if architecture == Architecture::Qwen3 => return Err(ConfigError::Absent("head_dim")),
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => return Err(ConfigError::Sizes("hidden_size is no multiple of num_attention_heads")),
    };
    if !heads.is_multiple_of(kv_heads) {
        return Err(ConfigError::Sizes("num_attention_heads is no multiple of num_key_value_heads"));
    }
    if head_dim % 2 != 0 || head_dim > MAX_HEAD_DIM || heads * head_dim > MAX_WIDTH {
        return Err(ConfigError::Sizes("the heads are of an odd width or too wide together"));
    }
    if architecture == Architecture::Qwen2 && head_dim * heads != hidden {
        return Err(ConfigError::Sizes("Qwen2's heads are as wide together as the hidden state"));
    }
    let layers = fields.count("num_hidden_layers", MAX_LAYERS)?;
    fields.required_to_be("hidden_act", &Value::String("silu".to_owned()))?;
    for (name, value) in [("attention_bias", false), ("mlp_bias", false), ("rope_interleaved", false)] {
        fields.must_be(name, &Value::Bool(value))?;
    }
    fields.must_be("pretraining_tp", &Value::from(1))?;
    let window = window(architecture, layers, fields)?;
    Ok(DecoderConfig {
        architecture,
        vocabulary: fields.count("vocab_size", MAX_VOCABULARY)?,
        hidden,
        intermediate: fields.count("intermediate_size", MAX_INTERMEDIATE)?,
        layers,
        heads,
        kv_heads,
        head_dim,
        eps: fields.epsilon("rms_norm_eps")?,
        positions: fields.count("max_position_embeddings", MAX_POSITIONS)?,
        rope: Rope::read(fields)?,
        window,
        bias: architecture == Architecture::Qwen2,
        qk_norm: architecture == Architecture::Qwen3,
        tied: fields.flag("tie_word_embeddings")?,
        ends: fields.tokens("eos_token_id", MAX_ENDS)?,
    })
}

/// Which positions a token sees: a window in all layers or in none.
fn window(
    architecture: Architecture,
    layers: usize,
    fields: &mut Fields,
) -> Result<Option<usize>, ConfigError> {
    fields.must_be("use_sliding_window", &Value::Bool(false))?;
    let kinds = fields.take("layer_types").filter(|kinds| !kinds.is_null());
    if let Some(kinds) = kinds {
        let full = vec![Value::from("full_attention"); layers];
        if kinds != Value::Array(full) {
            return Err(ConfigError::value("layer_types", &kinds, "`full_attention` in each layer"));
        }
    }
    if architecture == Architecture::Mistral {
        if !fields.has("sliding_window") {
            return Err(ConfigError::Absent("sliding_window"));
        }
        return fields.optional_count("sliding_window", MAX_POSITIONS);
    }
    if architecture == Architecture::Llama {
        fields.must_be("sliding_window", &Value::Null)?;
    }
    // Qwen's numbers mean something only with `use_sliding_window`.
    fields.take("sliding_window");
    fields.take("max_window_layers");
    Ok(None)
}

fn bert(fields: &mut Fields) -> Result<BertConfig, ConfigError> {
    fields.required_to_be("hidden_act", &Value::String("gelu".to_owned()))?;
    fields.must_be("position_embedding_type", &Value::String("absolute".to_owned()))?;
    // There is no output matrix to tie, and no answer to end.
    fields.take("tie_word_embeddings");
    fields.take("eos_token_id");
    let heads = fields.count("num_attention_heads", MAX_HEADS)?;
    let hidden = fields.count("hidden_size", MAX_WIDTH)?;
    if !hidden.is_multiple_of(heads) {
        return Err(ConfigError::Sizes("hidden_size is no multiple of num_attention_heads"));
    }
    Ok(BertConfig {
        vocabulary: fields.count("vocab_size", MAX_VOCABULARY)?,
        hidden,
        intermediate: fields.count("intermediate_size", MAX_INTERMEDIATE)?,
        layers: fields.count("num_hidden_layers", MAX_LAYERS)?,
        heads,
        eps: fields.epsilon("layer_norm_eps")?,
        // Learned, one row each, so that the file's size bounds them.
        positions: fields.count("max_position_embeddings", MAX_POSITIONS)?,
        types: fields.count("type_vocab_size", MAX_VOCABULARY)?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
