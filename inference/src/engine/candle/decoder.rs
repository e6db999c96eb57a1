//! The decoder of the Llama family: Llama, Qwen 2 and 3, and Mistral differ in biases, norms and windows.
//!
//! It is written here rather than taken from `candle-transformers`, whose models keep one sequence's cache inside
//! themselves, put up rotation tables as long as a configuration claims, and know no windows or wide heads in part. Here
//! the caches lie outside, so that one step computes the next tokens of many sequences with one multiplication per matrix.

use candle_core::{D, Device, Tensor};
use candle_nn::ops::{rms_norm, silu, softmax_last_dim};

use super::cache::Cache;
use super::config::DecoderConfig;
use super::lora::{LayerPairs, Lora, Pair, Rows, adapted};
use super::weights::{Weights, WeightsError};

/// The weights of one layer. Matrices are `[out, in]`.
struct Layer {
    input_norm: Tensor,
    /// Queries, keys and values below each other.
    qkv: Tensor,
    qkv_bias: Option<Tensor>,
    /// Norms of each head's query and key.
    qk_norm: Option<(Tensor, Tensor)>,
    output: Tensor,
    mlp_norm: Tensor,
    /// Gate and up below each other.
    gate_up: Tensor,
    down: Tensor,
}

/// A loaded decoder; immutable.
pub(super) struct Decoder {
    config: DecoderConfig,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Tensor,
    /// Of each position up to the context, `[positions, head_dim / 2]`.
    cos: Tensor,
    sin: Tensor,
    device: Device,
}

/// What one sequence adds in a step.
pub(super) struct Part<'a> {
    /// Its next tokens; at least one.
    pub(super) tokens: &'a [u32],
    /// What it computed before.
    pub(super) cache: &'a mut Cache,
    /// Whether the logits behind the last of the tokens are wanted.
    pub(super) logits: bool,
    /// The adapter that computes it. Parts of one adapter stand next to each other.
    pub(super) lora: Option<&'a Lora>,
}

/// Why a step was broken off.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    /// The worker stops.
    #[error("stopped")]
    Halted,
    /// The library failed.
    #[error("{0}")]
    Library(#[from] candle_core::Error),
}

impl Decoder {
    /// Takes the weights. `context` positions can be computed.
    pub(super) fn load(
        config: DecoderConfig,
        weights: &mut Weights,
        context: usize,
        device: &Device,
        halted: &dyn Fn() -> bool,
    ) -> Result<Option<Self>, WeightsError> {
        let hidden = config.hidden;
        let embedding = weights.take("model.embed_tokens.weight", &[config.vocabulary, hidden])?;
        let mut layers = Vec::with_capacity(config.layers);
        for number in 0..config.layers {
            if halted() {
                return Ok(None);
            }
            layers.push(Layer::load(&config, weights, &format!("model.layers.{number}"))?);
        }
        let norm = weights.take("model.norm.weight", &[hidden])?;
        let head = head(&config, weights, &embedding)?;
        // Older exports carry the rotation's frequencies, which follow from the configuration.
        weights.nothing_left(|name| name.ends_with(".rotary_emb.inv_freq"))?;
        let (cos, sin) = rotations(&config, context, device)?;
        Ok(Some(Self { config, embedding, layers, norm, head, cos, sin, device: device.clone() }))
    }

    /// An empty cache for a sequence of at most `limit` tokens.
    pub(super) fn cache(&self, limit: usize) -> candle_core::Result<Cache> {
        let DecoderConfig { layers, kv_heads, head_dim, .. } = self.config;
        Cache::new(layers, kv_heads, head_dim, limit, &self.device)
    }

    /// Computes the next tokens of each part; gives the logits of those that want them, in their order.
    pub(super) fn step(
        &self,
        parts: &mut [Part<'_>],
        halted: &dyn Fn() -> bool,
    ) -> Result<Vec<Vec<f32>>, StepError> {
        let mut tokens = Vec::new();
        let mut positions = Vec::new();
        let mut wanted = Vec::new();
        for part in parts.iter_mut() {
            part.cache.reserve(part.tokens.len())?;
            let from = part.cache.length();
            tokens.extend_from_slice(part.tokens);
            positions.extend((from..from + part.tokens.len()).map(|position| position as u32));
            if part.logits {
                wanted.push(tokens.len().saturating_sub(1) as u32);
            }
        }
        let rows = rows(parts);
        let positions = Tensor::new(positions, &self.device)?;
        let turns = (self.cos.index_select(&positions, 0)?, self.sin.index_select(&positions, 0)?);
        let mut state = self.embedding.index_select(&Tensor::new(tokens, &self.device)?, 0)?;
        for (number, layer) in self.layers.iter().enumerate() {
            if halted() {
                return Err(StepError::Halted);
            }
            state = layer.forward(&self.config, number, &state, &turns, &rows, parts)?;
        }
        for part in parts.iter_mut() {
            part.cache.advance(part.tokens.len());
        }
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let last = state.index_select(&Tensor::new(wanted, &self.device)?, 0)?;
        let last = rms_norm(&last, &self.norm, self.config.eps as f32)?;
        Ok(last.matmul(&self.head.t()?)?.to_vec2()?)
    }
}

impl Layer {
    fn load(config: &DecoderConfig, weights: &mut Weights, prefix: &str) -> Result<Self, WeightsError> {
        let DecoderConfig { hidden, intermediate, head_dim, .. } = *config;
        let (queries, keys) = (config.heads * head_dim, config.kv_heads * head_dim);
        let projections =
            |suffix| ["q", "k", "v"].map(|name| format!("{prefix}.self_attn.{name}_proj.{suffix}"));
        let heights = [queries, keys, keys];
        let qkv_bias = config.bias.then(|| weights.joined(&projections("bias"), &heights)).transpose()?;
        let qk_norm = if config.qk_norm {
            let mut norm =
                |name| weights.take(&format!("{prefix}.self_attn.{name}_norm.weight"), &[head_dim]);
            Some((norm("q")?, norm("k")?))
        } else {
            None
        };
        let mlp = ["gate", "up"].map(|name| format!("{prefix}.mlp.{name}_proj.weight"));
        Ok(Self {
            input_norm: weights.take(&format!("{prefix}.input_layernorm.weight"), &[hidden])?,
            qkv: weights.stacked(&projections("weight"), &heights, hidden)?,
            qkv_bias,
            qk_norm,
            output: weights.take(&format!("{prefix}.self_attn.o_proj.weight"), &[hidden, queries])?,
            mlp_norm: weights.take(&format!("{prefix}.post_attention_layernorm.weight"), &[hidden])?,
            gate_up: weights.stacked(&mlp, &[intermediate, intermediate], hidden)?,
            down: weights.take(&format!("{prefix}.mlp.down_proj.weight"), &[hidden, intermediate])?,
        })
    }

    /// `state` is `[tokens of all parts, hidden]`.
    fn forward(
        &self,
        config: &DecoderConfig,
        number: usize,
        state: &Tensor,
        turns: &(Tensor, Tensor),
        rows: &[Rows<'_>],
        parts: &mut [Part<'_>],
    ) -> candle_core::Result<Tensor> {
        let eps = config.eps as f32;
        let times = |input: &Tensor, matrix: &Tensor, pair: fn(&LayerPairs) -> Option<&Pair>| {
            adapted(input.matmul(&matrix.t()?)?, input, rows, number, pair)
        };
        let mut qkv = times(&rms_norm(state, &self.input_norm, eps)?, &self.qkv, |layer| layer.qkv.as_ref())?;
        if let Some(bias) = &self.qkv_bias {
            qkv = qkv.broadcast_add(bias)?;
        }
        let (heads, kv_heads) = (config.heads, config.kv_heads);
        let split = |from: usize, heads: usize| {
            let (tokens, width) = (qkv.dim(0)?, config.head_dim);
            qkv.narrow(1, from * width, heads * width)?.contiguous()?.reshape((tokens, heads, width))
        };
        let (mut queries, mut keys) = (split(0, heads)?, split(heads, kv_heads)?);
        let values = split(heads + kv_heads, kv_heads)?.transpose(0, 1)?;
        if let Some((of_query, of_key)) = &self.qk_norm {
            queries = rms_norm(&queries, of_query, eps)?;
            keys = rms_norm(&keys, of_key, eps)?;
        }
        let (queries, keys) = (turned(&queries, turns)?, turned(&keys, turns)?);
        let mut outputs = Vec::with_capacity(parts.len());
        let mut from = 0;
        for part in parts.iter_mut() {
            let count = part.tokens.len();
            let of = |tensor: &Tensor| tensor.narrow(1, from, count);
            outputs.push(attention(config, number, &of(&queries)?, &of(&keys)?, &of(&values)?, part.cache)?);
            from += count;
        }
        let mixed = times(&Tensor::cat(&outputs, 0)?, &self.output, |layer| layer.output.as_ref())?;
        let state = (state + mixed)?;
        let normed = rms_norm(&state, &self.mlp_norm, eps)?;
        let gate_up = times(&normed, &self.gate_up, |layer| layer.gate_up.as_ref())?;
        let (gate, up) = (
            gate_up.narrow(D::Minus1, 0, config.intermediate)?,
            gate_up.narrow(D::Minus1, config.intermediate, config.intermediate)?,
        );
        let inner = (silu(&gate.contiguous()?)? * up.contiguous()?)?;
        state + times(&inner, &self.down, |layer| layer.down.as_ref())?
    }
}

/// The rows of a step, by the adapters that compute them.
fn rows<'a>(parts: &[Part<'a>]) -> Vec<Rows<'a>> {
    let mut rows: Vec<Rows<'a>> = Vec::new();
    let mut from = 0;
    for Part { tokens, lora, .. } in parts {
        let same = |one: Option<&Lora>, other: Option<&Lora>| match (one, other) {
            (Some(one), Some(other)) => std::ptr::eq(one, other),
            (None, None) => true,
            _ => false,
        };
        match rows.last_mut() {
            Some(last) if same(last.lora, *lora) => last.count += tokens.len(),
            _ => rows.push(Rows { lora: *lora, from, count: tokens.len() }),
        }
        from += tokens.len();
    }
    rows
}

/// The output matrix: the embedding where they are tied. A file that carries both must carry the same.
fn head(config: &DecoderConfig, weights: &mut Weights, embedding: &Tensor) -> Result<Tensor, WeightsError> {
    const NAME: &str = "lm_head.weight";
    let shape = [config.vocabulary, config.hidden];
    if !config.tied {
        return weights.take(NAME, &shape);
    }
    if weights.has(NAME) {
        let other = weights.take(NAME, &shape)?;
        let differs = other.ne(embedding)?.flatten_all()?.max(0)?.to_scalar::<u8>()?;
        if differs != 0 {
            return Err(WeightsError::LeftOver(NAME.to_owned()));
        }
    }
    Ok(embedding.clone())
}

fn rotations(
    config: &DecoderConfig,
    context: usize,
    device: &Device,
) -> candle_core::Result<(Tensor, Tensor)> {
    let frequencies = config.rope.frequencies(config.head_dim);
    let angles: Vec<f32> = (0..context)
        .flat_map(|position| frequencies.iter().map(move |frequency| position as f32 * frequency))
        .collect();
    let angles = Tensor::from_vec(angles, (context, frequencies.len()), device)?;
    Ok((angles.cos()?, angles.sin()?))
}

/// `[tokens, heads, head_dim]`, turned by each token's position, as `[heads, tokens, head_dim]`.
fn turned(heads: &Tensor, (cos, sin): &(Tensor, Tensor)) -> candle_core::Result<Tensor> {
    let heads = heads.transpose(0, 1)?.contiguous()?.unsqueeze(0)?;
    candle_nn::rotary_emb::rope(&heads, cos, sin)?.squeeze(0)
}

/// One sequence's attention in one layer: `[heads, tokens, head_dim]` to `[tokens, heads * head_dim]`.
fn attention(
    config: &DecoderConfig,
    layer: usize,
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    cache: &mut Cache,
) -> candle_core::Result<Tensor> {
    let DecoderConfig { heads, kv_heads, head_dim, window, .. } = *config;
    let count = queries.dim(1)?;
    let group = heads / kv_heads;
    let position = cache.length();
    let view = cache.append(layer, keys, values, window)?;
    let length = view.keys.dim(1)?;
    // Queries that share a key lie behind each other, so that a group is one multiplication.
    let queries = (queries.contiguous()? * (head_dim as f64).powf(-0.5))?;
    let queries = queries.reshape((kv_heads, group * count, head_dim))?;
    let mut scores = queries.matmul(&view.keys.transpose(1, 2)?)?;
    if count > 1 {
        let mask = mask(position, count, view.first, length, window, queries.device())?;
        let four = scores.reshape((kv_heads, group, count, length))?.broadcast_add(&mask)?;
        scores = four.reshape((kv_heads, group * count, length))?;
    }
    let mixed = softmax_last_dim(&scores)?.matmul(&view.values)?;
    mixed.reshape((heads, count, head_dim))?.transpose(0, 1)?.contiguous()?.reshape((count, heads * head_dim))
}

/// 0 where the token at `position + row` may see the one at `first + column`, minus infinity elsewhere.
fn mask(
    position: usize,
    count: usize,
    first: usize,
    length: usize,
    window: Option<usize>,
    device: &Device,
) -> candle_core::Result<Tensor> {
    let mut mask = Vec::with_capacity(count * length);
    for row in 0..count {
        let query = position + row;
        let oldest = window.map_or(0, |window| (query + 1).saturating_sub(window));
        mask.extend(
            (first..first + length)
                .map(|key| if (oldest..=query).contains(&key) { 0f32 } else { f32::NEG_INFINITY }),
        );
    }
    Tensor::from_vec(mask, (count, length), device)
}
