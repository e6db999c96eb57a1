//! Signatures that were found valid, so that the same ones are not computed again for each decision about a release.
//!
//! Whether a key signed some bytes is arithmetic: it depends on nothing but the key, the bytes and the signature, which are what
//! a memory is found by, and it never changes. Whether the key counts is asked anew each time. Only what is valid is remembered.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::digest::Digest;
use crate::key::PublicKey;

/// Most signatures of a generation, 32 bytes each and their place in the table. Two generations are remembered: together those
/// of some ten thousand releases with what is attested about them, in about 3 MiB.
const MAX_GENERATION: usize = 32 * 1024;

/// The newer generation and the one before. When the newer is full it becomes the older, which is forgotten.
#[derive(Default)]
struct Memory {
    newer: HashSet<[u8; 32]>,
    older: HashSet<[u8; 32]>,
}

static MEMORY: LazyLock<Mutex<Memory>> = LazyLock::new(Mutex::default);

/// Whether `key` made `signature` over the payload with this digest, whose signed bytes are `message`.
pub(super) fn signed(key: &PublicKey, signature: &[u8; 64], payload: &Digest, message: &[u8]) -> bool {
    let name = *blake3::Hasher::new()
        .update(&key.to_bytes())
        .update(signature)
        .update(payload.as_bytes())
        .finalize()
        .as_bytes();
    let memory = || MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    {
        let memory = memory();
        if memory.newer.contains(&name) || memory.older.contains(&name) {
            return true;
        }
    }
    // Not under the lock: others need not wait for it.
    let valid = key.verify(message, signature);
    if valid {
        let mut memory = memory();
        if memory.newer.len() >= MAX_GENERATION {
            memory.older = std::mem::take(&mut memory.newer);
        }
        memory.newer.insert(name);
    }
    valid
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::key::SecretKey;

    #[test]
    fn what_was_found_valid_stays_so_and_nothing_else_does() {
        let (one, other) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
        let (payload, message) = (Digest::of(b"payload"), b"message");
        let signature = one.sign(message);
        for _ in 0..2 {
            assert!(signed(&one.public(), &signature, &payload, message));
            assert!(!signed(&other.public(), &signature, &payload, message));
            let mut changed = signature;
            changed[0] ^= 1;
            assert!(!signed(&one.public(), &changed, &payload, message));
            let another = b"another";
            assert!(!signed(&one.public(), &signature, &Digest::of(another), another));
        }
    }
}
