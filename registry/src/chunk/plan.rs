//! Where to cut.
//!
//! Each tensor begins a chunk, so that a tensor which did not change has the same chunks wherever it stands: in another
//! revision, after a longer header, in another shard. No decision here depends on an absolute offset.

use super::{ChunkError, MAX_CHUNK};
use crate::format::Layout;

/// Below this many bytes neighbouring tensors share a chunk, and a content-defined chunk does not end: a model has
/// hundreds of tensors of a few KiB (norms, biases), and each entry of the map costs 36 bytes and a look-up.
pub const MIN_CHUNK: u32 = 64 * 1024;

/// How a span is cut into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Every [`MAX_CHUNK`] bytes from the span's start.
    Even,
    /// Where the content says (FastCDC), so that an insertion moves only the cuts around it.
    Content,
}

/// A stretch of a file whose chunks do not depend on what stands before or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its length in bytes, never zero.
    pub len: u64,
    /// How it is cut.
    pub cut: Cut,
}

/// Splits a file of `size` bytes into spans: the header by content, then each tensor (with the padding behind it) from
/// its own start; without a layout the whole file by content.
///
/// Tensors under [`MIN_CHUNK`] are joined with the small ones that follow, until together they reach it; a large
/// tensor is never joined.
pub fn plan(layout: Option<&Layout>, size: u64) -> Result<Vec<Span>, ChunkError> {
    let mut spans = Vec::new();
    let mut push = |len, cut| {
        if len > 0 {
            spans.push(Span { len, cut });
        }
    };
    let Some(layout) = layout else {
        push(size, Cut::Content);
        return Ok(spans);
    };
    let wrong = || ChunkError::Layout { end: layout.end(), size };
    if layout.end() > size {
        return Err(wrong());
    }
    let first = layout.tensors.first().map_or(size, |tensor| tensor.start);
    push(first, Cut::Content);
    let mut small = 0;
    for (i, tensor) in layout.tensors.iter().enumerate() {
        let next = layout.tensors.get(i + 1).map_or(size, |next| next.start);
        // Up to the next tensor, so that padding belongs to what it follows.
        let len = next.checked_sub(tensor.start).ok_or_else(wrong)?;
        if len >= u64::from(MIN_CHUNK) {
            push(small, Cut::Even);
            small = 0;
            push(len, Cut::Even);
        } else {
            small += len;
            if small >= u64::from(MIN_CHUNK) {
                push(small, Cut::Even);
                small = 0;
            }
        }
    }
    push(small, Cut::Even);
    debug_assert!(u64::from(MAX_CHUNK) > 2 * u64::from(MIN_CHUNK), "joined tensors fit into one chunk");
    Ok(spans)
}
