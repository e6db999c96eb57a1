//! Keys and values of one sequence, grown in blocks, never beyond what was agreed on when it began.

use candle_core::{DType, Device, Result, Tensor};

/// Positions that a cache grows by: what it has beyond its length is less.
pub(super) const BLOCK: usize = 256;

/// The keys and values of one layer.
#[derive(Debug)]
struct Layer {
    /// `[kv_heads, capacity, head_dim]`.
    keys: Tensor,
    /// Likewise.
    values: Tensor,
}

/// The keys and values of one sequence.
#[derive(Debug)]
pub(super) struct Cache {
    layers: Vec<Layer>,
    /// Positions that are filled.
    length: usize,
    capacity: usize,
    limit: usize,
    kv_heads: usize,
    head_dim: usize,
    device: Device,
}

/// Views of what is cached in one layer, the newest positions included.
pub(super) struct View {
    /// `[kv_heads, length, head_dim]`.
    pub(super) keys: Tensor,
    /// Likewise.
    pub(super) values: Tensor,
    /// The position of the first row.
    pub(super) first: usize,
}

impl Cache {
    /// An empty cache for at most `limit` positions.
    pub(super) fn new(
        layers: usize,
        kv_heads: usize,
        head_dim: usize,
        limit: usize,
        device: &Device,
    ) -> Result<Self> {
        let mut cache = Self {
            layers: Vec::with_capacity(layers),
            length: 0,
            capacity: BLOCK.min(limit),
            limit,
            kv_heads,
            head_dim,
            device: device.clone(),
        };
        for _ in 0..layers {
            let (keys, values) = (cache.zeros()?, cache.zeros()?);
            cache.layers.push(Layer { keys, values });
        }
        Ok(cache)
    }

    /// Positions that are filled.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    fn zeros(&self) -> Result<Tensor> {
        Tensor::zeros((self.kv_heads, self.capacity, self.head_dim), DType::F32, &self.device)
    }

    /// Makes room for `more` positions in every layer.
    pub(super) fn reserve(&mut self, more: usize) -> Result<()> {
        let needed = self.length.saturating_add(more);
        if needed > self.limit {
            candle_core::bail!("a sequence of {needed} tokens in a cache for {}", self.limit);
        }
        if needed <= self.capacity {
            return Ok(());
        }
        self.resize(needed)
    }

    /// Forgets all but the first `length` positions, and gives their memory back.
    pub(super) fn cut(&mut self, length: usize) -> Result<()> {
        if length >= self.length {
            return Ok(());
        }
        self.length = length;
        self.resize(length)
    }

    /// Takes memory for `positions`, and copies those that are filled.
    fn resize(&mut self, positions: usize) -> Result<()> {
        self.capacity = positions.max(1).next_multiple_of(BLOCK).min(self.limit);
        for index in 0..self.layers.len() {
            let (keys, values) = (self.zeros()?, self.zeros()?);
            if let Some(layer) = self.layers.get_mut(index) {
                if self.length > 0 {
                    keys.slice_set(&layer.keys.narrow(1, 0, self.length)?.contiguous()?, 1, 0)?;
                    values.slice_set(&layer.values.narrow(1, 0, self.length)?.contiguous()?, 1, 0)?;
                }
                *layer = Layer { keys, values };
            }
        }
        Ok(())
    }

    /// Writes the keys and values of new positions (`[kv_heads, count, head_dim]`) behind those that are filled, and shows
    /// all that a query at the first of them may see: `window` positions, its own included.
    pub(super) fn append(
        &mut self,
        layer: usize,
        keys: &Tensor,
        values: &Tensor,
        window: Option<usize>,
    ) -> Result<View> {
        let Some(layer) = self.layers.get(layer) else { candle_core::bail!("no layer {layer} in the cache") };
        layer.keys.slice_set(&keys.contiguous()?, 1, self.length)?;
        layer.values.slice_set(&values.contiguous()?, 1, self.length)?;
        let end = self.length + keys.dim(1)?;
        let first = window.map_or(0, |window| (self.length + 1).saturating_sub(window));
        Ok(View {
            keys: layer.keys.narrow(1, first, end - first)?,
            values: layer.values.narrow(1, first, end - first)?,
            first,
        })
    }

    /// The new positions are filled in every layer.
    pub(super) fn advance(&mut self, count: usize) {
        self.length += count;
    }
}
