//! Which chunks of a blob are here.

/// A fixed number of bits. Bit `i` of the byte form is bit `i % 8`, counted from the least significant, of byte `i / 8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
    len: usize,
    ones: usize,
}

impl Bitmap {
    /// `len` bits, all clear.
    pub fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len, ones: 0 }
    }

    /// Reads the byte form of `len` bits: exactly `len.div_ceil(8)` bytes, the unused bits of the last one clear.
    pub fn from_bytes(bytes: &[u8], len: usize) -> Option<Self> {
        if bytes.len() != len.div_ceil(8) {
            return None;
        }
        let mut map = Self::new(len);
        for (word, bytes) in map.words.iter_mut().zip(bytes.chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(padded);
        }
        if !len.is_multiple_of(64) && map.words.last().is_some_and(|last| last >> (len % 64) != 0) {
            return None;
        }
        map.ones = map.words.iter().map(|word| word.count_ones() as usize).sum();
        Some(map)
    }

    /// The byte form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(self.len.div_ceil(8));
        bytes
    }

    /// How many bits there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bits at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether bit `index` is set; one beyond the end is not.
    pub fn get(&self, index: usize) -> bool {
        index < self.len && self.words.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Sets or clears bit `index`; whether that changed it. One beyond the end stays as it is.
    pub fn set(&mut self, index: usize, value: bool) -> bool {
        if index >= self.len || self.get(index) == value {
            return false;
        }
        if let Some(word) = self.words.get_mut(index / 64) {
            *word ^= 1 << (index % 64);
        }
        if value {
            self.ones += 1;
        } else {
            self.ones -= 1;
        }
        true
    }

    /// How many bits are set.
    pub fn count(&self) -> usize {
        self.ones
    }

    /// Whether every bit is set.
    pub fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// The clear bits, in order.
    pub fn missing(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len).filter(|&index| !self.get(index))
    }

    /// The set bits, in order.
    pub fn present(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len).filter(|&index| self.get(index))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bits_and_bytes() {
        let mut map = Bitmap::new(70);
        for index in [0, 9, 63, 64, 69] {
            assert!(map.set(index, true));
            assert!(!map.set(index, true));
        }
        assert!(!map.set(70, true));
        assert!(!map.get(70));
        assert_eq!(map.count(), 5);
        let bytes = map.to_bytes();
        assert_eq!(bytes.len(), 9);
        assert_eq!((bytes[0], bytes[1], bytes[8]), (1, 2, 0x21));
        assert_eq!(Bitmap::from_bytes(&bytes, 70).unwrap(), map);
        assert_eq!(map.present().collect::<Vec<_>>(), [0, 9, 63, 64, 69]);
        assert_eq!(map.missing().count(), 65);
        assert!(map.set(9, false));
        assert_eq!(map.count(), 4);
    }

    #[test]
    fn other_lengths_and_stray_bits_are_refused() {
        assert!(Bitmap::from_bytes(&[0; 8], 70).is_none());
        assert!(Bitmap::from_bytes(&[0, 0, 0, 0, 0, 0, 0, 0, 0x40], 70).is_none());
        assert!(Bitmap::from_bytes(&[], 0).unwrap().is_full());
    }
}
