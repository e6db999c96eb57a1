//! The element types of GGUF, as `ggml.h` and the block structures in `ggml-common.h` define them.

/// One element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Type {
    /// As ggml prints it, in capitals.
    pub(super) name: &'static str,
    /// Elements in a block; a row is a whole number of blocks.
    pub(super) block: u64,
    /// Bytes of a block.
    pub(super) bytes: u64,
}

const fn t(name: &'static str, block: u64, bytes: u64) -> Option<Type> {
    Some(Type { name, block, bytes })
}

/// By ggml's number; a hole is a type that ggml has removed.
const TYPES: [Option<Type>; 43] = [
    t("F32", 1, 4),
    t("F16", 1, 2),
    t("Q4_0", 32, 18),
    t("Q4_1", 32, 20),
    None,
    None,
    t("Q5_0", 32, 22),
    t("Q5_1", 32, 24),
    t("Q8_0", 32, 34),
    t("Q8_1", 32, 36),
    t("Q2_K", 256, 84),
    t("Q3_K", 256, 110),
    t("Q4_K", 256, 144),
    t("Q5_K", 256, 176),
    t("Q6_K", 256, 210),
    t("Q8_K", 256, 292),
    t("IQ2_XXS", 256, 66),
    t("IQ2_XS", 256, 74),
    t("IQ3_XXS", 256, 98),
    t("IQ1_S", 256, 50),
    t("IQ4_NL", 32, 18),
    t("IQ3_S", 256, 110),
    t("IQ2_S", 256, 82),
    t("IQ4_XS", 256, 136),
    t("I8", 1, 1),
    t("I16", 1, 2),
    t("I32", 1, 4),
    t("I64", 1, 8),
    t("F64", 1, 8),
    t("IQ1_M", 256, 56),
    t("BF16", 1, 2),
    None,
    None,
    None,
    t("TQ1_0", 256, 54),
    t("TQ2_0", 256, 66),
    None,
    None,
    None,
    t("MXFP4", 32, 17),
    t("NVFP4", 64, 36),
    t("Q1_0", 128, 18),
    t("Q2_0", 64, 18),
];

/// The type with this number.
pub(super) fn by_number(number: u32) -> Option<Type> {
    TYPES.get(usize::try_from(number).ok()?).copied().flatten()
}

/// The bytes of a tensor of `shape` (innermost dimension first), if they are a whole number that fits an i64, as ggml
/// counts with those.
pub(super) fn bytes(kind: Type, shape: &[u64]) -> Option<u64> {
    let row = shape.first().copied().unwrap_or(1);
    if row % kind.block != 0 {
        return None;
    }
    let elements = shape.iter().try_fold(1u64, |product, &n| product.checked_mul(n))?;
    (elements / kind.block)
        .checked_mul(kind.bytes)
        .filter(|&bytes| bytes <= i64::MAX as u64 && elements <= i64::MAX as u64)
}
