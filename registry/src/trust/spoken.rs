//! A fingerprint as digits that people read to each other by telephone, in any two languages.

use crate::digest::Digest;

/// Groups of five digits: about 133 bits, so that nobody finds a second root with the same digits.
const GROUPS: usize = 8;
/// What the digits are derived under.
const CONTEXT: &str = "steelyard 2026-11-25 fingerprint read aloud v1";

/// The digits of a fingerprint: eight groups of five, each from five bytes of a BLAKE3 key derivation, taken as a big-endian
/// number modulo 100,000 (`[NRT-018]`).
pub fn spoken(fingerprint: &Digest) -> String {
    let mut bytes = [0; 5 * GROUPS];
    blake3::Hasher::new_derive_key(CONTEXT).update(fingerprint.as_bytes()).finalize_xof().fill(&mut bytes);
    let groups: Vec<String> = bytes
        .chunks_exact(5)
        .map(|group| {
            let number = group.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
            format!("{:05}", number % 100_000)
        })
        .collect();
    groups.join(" ")
}
