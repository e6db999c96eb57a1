//! libp2p's peer identifiers of Ed25519 keys: the key itself in base58, behind six bytes that say so.

use crate::key::PublicKey;

/// base58 as Bitcoin has it: without characters that look alike.
const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// The identity "hash" of 36 bytes, which are a protobuf message: key type Ed25519, and the key's 32 bytes.
const PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
/// Bytes of an identifier.
const LENGTH: usize = PREFIX.len() + 32;
/// Longest text of so many bytes.
const MAX_TEXT: usize = 53;

/// The key that `peer` names.
pub fn key_of(peer: &str) -> Option<PublicKey> {
    let bytes = decode(peer)?;
    let key: &[u8; 32] = bytes.strip_prefix(&PREFIX)?.try_into().ok()?;
    PublicKey::from_bytes(key).ok()
}

/// The identifier of a key.
pub fn peer_of(key: PublicKey) -> String {
    let mut bytes = [0; LENGTH];
    bytes[..PREFIX.len()].copy_from_slice(&PREFIX);
    bytes[PREFIX.len()..].copy_from_slice(&key.to_bytes());
    encode(&bytes)
}

fn encode(bytes: &[u8; LENGTH]) -> String {
    // The number that the bytes are, in digits of base 58, the last first.
    let mut digits: Vec<u8> = Vec::with_capacity(MAX_TEXT);
    for byte in bytes {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = (carry % 58) as u8;
            carry /= 58;
        }
        while carry > 0 {
            digits.push((carry % 58) as u8);
            carry /= 58;
        }
    }
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let letter = |digit: u8| char::from(ALPHABET[usize::from(digit) % 58]);
    "1".repeat(zeros).chars().chain(digits.into_iter().rev().map(letter)).collect()
}

/// The bytes of a text that [`encode`] would write.
fn decode(text: &str) -> Option<[u8; LENGTH]> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let mut bytes = [0u8; LENGTH];
    for letter in text.bytes() {
        let digit = ALPHABET.iter().position(|known| *known == letter)?;
        let mut carry = u32::try_from(digit).ok()?;
        for byte in bytes.iter_mut().rev() {
            carry += u32::from(*byte) * 58;
            *byte = (carry & 0xFF) as u8;
            carry >>= 8;
        }
        if carry > 0 {
            return None;
        }
    }
    (encode(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::key::SecretKey;

    #[test]
    fn identifiers_are_libp2ps() {
        // Made by libp2p from the seed of 32 bytes 7.
        for seed in [7u8, 1, 255] {
            let key = SecretKey::from_seed(&[seed; 32]).public();
            let peer = peer_of(key);
            assert!(peer.starts_with("12D3KooW") && peer.len() == 52, "{peer}");
            assert_eq!(key_of(&peer), Some(key));
            for wrong in [&peer[1..], &format!("1{peer}"), &peer.replace('o', "0"), "", "Qm"] {
                assert_eq!(key_of(wrong), None, "{wrong}");
            }
        }
    }
}
