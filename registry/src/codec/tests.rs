#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use super::*;
use crate::format::samples::Random;

/// Sums of twelve even numbers: near enough to the normal distribution that trained weights have.
fn bf16(count: usize) -> Vec<u8> {
    let mut random = Random(7);
    let weight = |random: &mut Random| {
        let sum: f64 = (0..12).map(|_| random.next() as f64 / u64::MAX as f64).sum();
        ((sum - 6.0) * 0.03) as f32
    };
    (0..count).flat_map(|_| ((weight(&mut random).to_bits() >> 16) as u16).to_le_bytes()).collect()
}

#[test]
fn normally_distributed_bf16_takes_two_thirds() {
    let chunk = bf16(MAX_RAW / 2);
    let mut out = Vec::new();
    assert_eq!(Encoder::new().encode(&chunk, Layout::Bf16, &mut out), Encoding::Planes2);
    assert!(out.len() * 1000 < chunk.len() * 680, "{}", out.len());
    let mut back = vec![0; chunk.len()];
    Decoder::new().decode(Encoding::Planes2, &out, &mut back).unwrap();
    assert!(back == chunk);
}
