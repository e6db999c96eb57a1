//! Small files of weights and repeatable random bytes, for tests.

/// A small generator (SplitMix64): the same bytes on each run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(len);
        out
    }
}

/// A safetensors file with this header text and so many zero bytes of data.
pub(crate) fn safetensors(json: &str, data: usize) -> Vec<u8> {
    let mut out = (json.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(json.as_bytes());
    out.resize(out.len() + data, 0);
    out
}

/// A safetensors file with these U8 tensors, its header followed by `spaces`.
pub(crate) fn safetensors_of(tensors: &[(&str, &[u8])], spaces: usize) -> Vec<u8> {
    let mut json = String::from("{\"__metadata__\":{\"format\":\"pt\"}");
    let mut at = 0;
    for (name, data) in tensors {
        let end = at + data.len();
        let len = data.len();
        json += &format!(",\"{name}\":{{\"dtype\":\"U8\",\"shape\":[{len}],\"data_offsets\":[{at},{end}]}}");
        at = end;
    }
    json.push('}');
    json.extend(std::iter::repeat_n(' ', spaces));
    let mut out = safetensors(&json, 0);
    for (_, data) in tensors {
        out.extend_from_slice(data);
    }
    out
}

/// Writes a GGUF file piece by piece.
pub(crate) struct Gguf(pub(crate) Vec<u8>);

impl Gguf {
    pub(crate) fn new(version: u32, tensors: u64, entries: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(version).u64(tensors).u64(entries)
    }

    pub(crate) fn u32(mut self, n: u32) -> Self {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }

    pub(crate) fn u64(mut self, n: u64) -> Self {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.u64(text.len() as u64).raw(text.as_bytes())
    }

    /// A metadata entry with a text.
    pub(crate) fn entry(self, key: &str, text: &str) -> Self {
        self.text(key).u32(8).text(text)
    }

    /// A metadata entry with a u32.
    pub(crate) fn number(self, key: &str, n: u32) -> Self {
        self.text(key).u32(4).u32(n)
    }

    /// A tensor's description, its shape innermost first.
    pub(crate) fn tensor(mut self, name: &str, shape: &[u64], kind: u32, offset: u64) -> Self {
        self = self.text(name).u32(shape.len() as u32);
        for &n in shape {
            self = self.u64(n);
        }
        self.u32(kind).u64(offset)
    }

    /// Zeros up to the next multiple of `alignment`, then so many more.
    pub(crate) fn data(mut self, alignment: usize, len: usize) -> Self {
        let start = self.0.len().next_multiple_of(alignment);
        self.0.resize(start + len, 0);
        self
    }
}
