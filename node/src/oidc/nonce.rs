//! Nonces that are known again without being kept: a time, random bytes, and a keyed hash over both. Only those that were used are
//! kept, until they would be too old anyway, so that whoever asks for millions of them fills nothing.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use data_encoding::BASE64URL_NOPAD;
use registry::Timestamp;

/// How long a person may take to sign in, in seconds.
const LIFE: i64 = 600;
/// Most nonces that were used within that time; each took a person's signing in.
const MAX_USED: usize = 65_536;
const TIME: usize = 8;
const RANDOM: usize = 16;
const MAC: usize = 16;

/// One node's nonces; they end with its process.
#[derive(Debug, Default)]
pub(super) struct Nonces {
    key: OnceLock<[u8; 32]>,
    used: Mutex<HashMap<[u8; RANDOM], i64>>,
}

impl Nonces {
    fn key(&self) -> Result<&[u8; 32], getrandom::Error> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(self.key.get_or_init(|| key))
    }

    fn mac(key: &[u8; 32], said: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(key, said)
    }

    pub(super) fn make(&self, now: Timestamp) -> Result<String, getrandom::Error> {
        let key = self.key()?;
        let mut bytes = now.unix().to_be_bytes().to_vec();
        let mut random = [0; RANDOM];
        getrandom::fill(&mut random)?;
        bytes.extend(random);
        let mac = Self::mac(key, &bytes);
        bytes.extend(mac.as_bytes().iter().take(MAC));
        Ok(BASE64URL_NOPAD.encode(&bytes))
    }

    /// Whether `nonce` is ours, young enough and was not used; it is from now on.
    pub(super) fn take(&self, nonce: &str, now: Timestamp) -> bool {
        let Some(key) = self.key.get() else { return false };
        let Ok(bytes) = BASE64URL_NOPAD.decode(nonce.as_bytes()) else { return false };
        let Some((said, mac)) = bytes.split_at_checked(TIME + RANDOM) else { return false };
        let expected = Self::mac(key, said);
        // Compared in constant time: whoever guesses learns nothing byte by byte.
        let mut padded = *expected.as_bytes();
        if mac.len() != MAC {
            return false;
        }
        padded.iter_mut().zip(mac).for_each(|(to, from)| *to = *from);
        if blake3::Hash::from_bytes(padded) != expected {
            return false;
        }
        let Some((time, random)) = said.split_at_checked(TIME) else { return false };
        let (Ok(time), Ok(random)) = (<[u8; TIME]>::try_from(time), <[u8; RANDOM]>::try_from(random)) else {
            return false;
        };
        let ends = i64::from_be_bytes(time).saturating_add(LIFE);
        if ends <= now.unix() {
            return false;
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= MAX_USED {
            used.retain(|_, ends| *ends > now.unix());
        }
        used.len() < MAX_USED && used.insert(random, ends).is_none()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_nonce_is_good_once_for_a_while_and_here_alone() {
        let (mine, other) = (Nonces::default(), Nonces::default());
        let now = Timestamp::from_unix(1_000_000);
        let one = mine.make(now).unwrap();
        other.make(now).unwrap();
        assert!(!other.take(&one, now));
        assert!(mine.take(&one, now.plus(LIFE - 1)));
        assert!(!mine.take(&one, now.plus(1)), "used");
        let late = mine.make(now).unwrap();
        assert!(!mine.take(&late, now.plus(LIFE)));
        let mut changed = mine.make(now).unwrap().into_bytes();
        changed[0] = if changed[0] == b'A' { b'B' } else { b'A' };
        for wrong in ["", "A", "é", &"A".repeat(54), std::str::from_utf8(&changed).unwrap()] {
            assert!(!mine.take(wrong, now), "{wrong}");
        }
    }
}
