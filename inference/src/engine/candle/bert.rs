//! BERT as an encoder of text: `candle-transformers`' model, with every tensor checked before it, and the pooling behind it.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert;

use super::config::BertConfig;
use super::pooling::Pooling;
use super::weights::{Weights, WeightsError};

/// A loaded encoder; immutable.
pub(super) struct Encoder {
    model: bert::BertModel,
    pooling: Pooling,
    device: Device,
}

impl Encoder {
    /// Takes the weights.
    pub(super) fn load(
        config: &BertConfig,
        pooling: Pooling,
        weights: &mut Weights,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        let mut tensors = HashMap::new();
        for (name, shape) in shapes(config) {
            let tensor = weights.take(&name, &shape)?;
            tensors.insert(name, tensor);
        }
        // Row numbers that follow from the shape, and a head that token vectors don't pass through.
        weights.nothing_left(|name| name == "embeddings.position_ids" || name.starts_with("pooler."))?;
        let builder = VarBuilder::from_tensors(tensors, DType::F32, device);
        let model = bert::BertModel::load(builder, &told(config))?;
        Ok(Self { model, pooling, device: device.clone() })
    }

    /// The vector of one text's tokens (those that begin and end it included).
    pub(super) fn embed(&self, tokens: &[u32]) -> candle_core::Result<Vec<f32>> {
        let tokens = Tensor::new(tokens, &self.device)?.unsqueeze(0)?;
        // One text at a time: nothing is padded, so nothing must be masked.
        let hidden = self.model.forward(&tokens, &tokens.zeros_like()?, None)?.squeeze(0)?;
        self.pooling.pool(&hidden)
    }
}

/// The library's own words for the same configuration.
fn told(config: &BertConfig) -> bert::Config {
    bert::Config {
        vocab_size: config.vocabulary,
        hidden_size: config.hidden,
        num_hidden_layers: config.layers,
        num_attention_heads: config.heads,
        intermediate_size: config.intermediate,
        hidden_act: bert::HiddenAct::Gelu,
        hidden_dropout_prob: 0.0,
        max_position_embeddings: config.positions,
        type_vocab_size: config.types,
        initializer_range: 0.0,
        layer_norm_eps: config.eps,
        pad_token_id: 0,
        position_embedding_type: bert::PositionEmbeddingType::Absolute,
        use_cache: false,
        classifier_dropout: None,
        model_type: None,
    }
}

/// Every tensor that the model takes, with its shape.
fn shapes(config: &BertConfig) -> Vec<(String, Vec<usize>)> {
    let BertConfig { hidden, intermediate, .. } = *config;
    let mut shapes = Vec::new();
    let mut linear = |prefix: String, out: usize, width: usize| {
        shapes.push((format!("{prefix}.weight"), vec![out, width]));
        shapes.push((format!("{prefix}.bias"), vec![out]));
    };
    for layer in 0..config.layers {
        let of = |part: &str| format!("encoder.layer.{layer}.{part}");
        for part in ["query", "key", "value"] {
            linear(of(&format!("attention.self.{part}")), hidden, hidden);
        }
        linear(of("attention.output.dense"), hidden, hidden);
        linear(of("intermediate.dense"), intermediate, hidden);
        linear(of("output.dense"), hidden, intermediate);
    }
    let norms = (0..config.layers)
        .flat_map(|layer| {
            ["attention.output", "output"].map(|part| format!("encoder.layer.{layer}.{part}.LayerNorm"))
        })
        .chain(["embeddings.LayerNorm".to_owned()]);
    for norm in norms {
        shapes.push((format!("{norm}.weight"), vec![hidden]));
        shapes.push((format!("{norm}.bias"), vec![hidden]));
    }
    for (part, rows) in
        [("word", config.vocabulary), ("position", config.positions), ("token_type", config.types)]
    {
        shapes.push((format!("embeddings.{part}_embeddings.weight"), vec![rows, hidden]));
    }
    shapes
}
