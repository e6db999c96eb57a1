//! Sorting blocks by field: what the quantised types of GGUF are made of.
//!
//! A block holds a scale or two and the quants of 32 or 256 weights. The scales take few values, the quants many; coded
//! together neither saves much, each in a stream of its own both do.

/// Most fields of a block. The most that a type of GGUF has, with each byte of its scales apart, is nine.
pub(super) const MAX_FIELDS: usize = 16;
/// Longest block, in bytes: fourteen times the longest of GGUF.
pub(super) const MAX_BLOCK: usize = 4096;

/// The fields of a quantised type by their lengths in bytes, as the structures in `ggml-common.h` define them; scales
/// (F16) are two fields of one byte, since only the upper one saves. None for types that are no blocks.
pub(super) fn fields(dtype: &str) -> Option<&'static [u16]> {
    Some(match dtype {
        "Q4_0" | "IQ4_NL" | "Q1_0" | "Q2_0" => &[1, 1, 16],
        "Q4_1" => &[1, 1, 1, 1, 16],
        "Q5_0" => &[1, 1, 4, 16],
        "Q5_1" => &[1, 1, 1, 1, 4, 16],
        "Q8_0" => &[1, 1, 32],
        "Q8_1" => &[1, 1, 1, 1, 32],
        "Q2_K" => &[16, 64, 1, 1, 1, 1],
        "Q3_K" => &[32, 64, 12, 1, 1],
        // The 6-bit scales of these two are packed into twelve bytes: lower bits, lower bits, and what is left of both.
        "Q4_K" => &[1, 1, 1, 1, 4, 4, 4, 128],
        "Q5_K" => &[1, 1, 1, 1, 4, 4, 4, 32, 128],
        "Q6_K" => &[128, 64, 16, 1, 1],
        "Q8_K" => &[1, 1, 1, 1, 256, 32],
        "IQ2_XXS" => &[1, 1, 64],
        "IQ2_XS" => &[1, 1, 64, 8],
        "IQ2_S" => &[1, 1, 64, 8, 8],
        "IQ3_XXS" => &[1, 1, 64, 32],
        "IQ3_S" => &[1, 1, 64, 8, 32, 4],
        "IQ1_S" => &[1, 1, 32, 16],
        "IQ1_M" => &[32, 16, 8],
        "IQ4_XS" => &[1, 1, 2, 4, 128],
        "TQ1_0" => &[48, 4, 1, 1],
        "TQ2_0" => &[64, 1, 1],
        "MXFP4" => &[1, 16],
        "NVFP4" => &[4, 32],
        _ => return None,
    })
}

/// Copies the field at `at` of each block of `source` to `stream`, which has room for as many fields as there are
/// whole blocks.
pub(super) fn gather(source: &[u8], block: usize, at: usize, len: usize, stream: &mut [u8]) {
    match len {
        1 => gather_exact::<1>(source, block, at, stream),
        4 => gather_exact::<4>(source, block, at, stream),
        16 => gather_exact::<16>(source, block, at, stream),
        32 => gather_exact::<32>(source, block, at, stream),
        _ => {
            for (block, field) in source.chunks_exact(block).zip(stream.chunks_exact_mut(len)) {
                if let Some(bytes) = block.get(at..at + len) {
                    field.copy_from_slice(bytes);
                }
            }
        }
    }
}

/// [`gather`] for a length that the compiler knows, which saves a call for each field.
fn gather_exact<const N: usize>(source: &[u8], block: usize, at: usize, stream: &mut [u8]) {
    for (block, field) in source.chunks_exact(block).zip(stream.as_chunks_mut::<N>().0) {
        if let Some(bytes) = block.get(at..).and_then(<[u8]>::first_chunk) {
            *field = *bytes;
        }
    }
}

/// The reverse of [`gather`].
pub(super) fn scatter(stream: &[u8], block: usize, at: usize, len: usize, target: &mut [u8]) {
    match len {
        1 => scatter_exact::<1>(stream, block, at, target),
        4 => scatter_exact::<4>(stream, block, at, target),
        16 => scatter_exact::<16>(stream, block, at, target),
        32 => scatter_exact::<32>(stream, block, at, target),
        _ => {
            for (block, field) in target.chunks_exact_mut(block).zip(stream.chunks_exact(len)) {
                if let Some(bytes) = block.get_mut(at..at + len) {
                    bytes.copy_from_slice(field);
                }
            }
        }
    }
}

/// [`scatter`] for a length that the compiler knows.
fn scatter_exact<const N: usize>(stream: &[u8], block: usize, at: usize, target: &mut [u8]) {
    for (block, field) in target.chunks_exact_mut(block).zip(stream.as_chunks::<N>().0) {
        if let Some(bytes) = block.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *bytes = *field;
        }
    }
}
