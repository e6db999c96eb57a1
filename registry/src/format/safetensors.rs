//! The header of a safetensors file: 8 bytes of length, then that many bytes of JSON.
//!
//! The JSON is read as a stream by visitors that know the few shapes it may have: nothing nests, no `Value` is built,
//! and a [`Guard`] below the parser bounds what the parser itself has to keep (one string, one number).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{Format, FormatError, Layout, MAX_DIMS, MAX_NAME, MAX_NAMES, MAX_TENSORS, Tensor, arrange};

/// Longest JSON header, in bytes: the limit of the format's reference implementation.
pub const MAX_HEADER: u64 = 100_000_000;
/// Longest JSON string, in bytes. Trainers put their whole configuration into one metadata value; it is skipped, but
/// the parser holds it for a moment.
pub const MAX_STRING: u64 = 8 * 1024 * 1024;
/// Longest JSON number, in bytes: u64::MAX has 20 digits.
const MAX_NUMBER: u64 = 32;
/// Most entries of `__metadata__`; their keys are kept while reading, to find duplicates.
pub const MAX_METADATA: u64 = 4096;
/// Longest key in `__metadata__`, in bytes.
pub const MAX_METADATA_KEY: u64 = 1024;

/// The element types of the format with their width in bits.
const DTYPES: [(&str, u64); 22] = [
    ("BOOL", 8),
    ("F4", 4),
    ("F6_E2M3", 6),
    ("F6_E3M2", 6),
    ("U8", 8),
    ("I8", 8),
    ("F8_E5M2", 8),
    ("F8_E4M3", 8),
    ("F8_E8M0", 8),
    ("F8_E4M3FNUZ", 8),
    ("F8_E5M2FNUZ", 8),
    ("I16", 16),
    ("U16", 16),
    ("F16", 16),
    ("BF16", 16),
    ("I32", 32),
    ("U32", 32),
    ("F32", 32),
    ("C64", 64),
    ("F64", 64),
    ("I64", 64),
    ("U64", 64),
];

/// Reads and checks the header of a file of `size` bytes.
pub fn read(mut reader: impl Read + Seek, size: u64) -> Result<Layout, FormatError> {
    reader.seek(SeekFrom::Start(0))?;
    let mut prefix = [0; 8];
    if size < 8 {
        return Err(FormatError::Truncated { what: "the header's length".to_owned(), end: 8, size });
    }
    reader.read_exact(&mut prefix)?;
    let len = u64::from_le_bytes(prefix);
    if len > MAX_HEADER {
        return Err(FormatError::Limit { what: "a length", found: len, limit: MAX_HEADER });
    }
    let header = 8 + len;
    if header > size {
        return Err(FormatError::Truncated { what: "the header".to_owned(), end: header, size });
    }
    let failure = Failure::default();
    let mut tensors = Vec::new();
    let guard = Guard::new(BufReader::with_capacity(64 * 1024, reader.take(len)), &failure);
    let mut json = serde_json::Deserializer::from_reader(guard);
    let seed = Header { failure: &failure, header, tensors: &mut tensors };
    if let Err(error) = seed.deserialize(&mut json).and_then(|()| json.end()) {
        return Err(failure.take().unwrap_or_else(|| FormatError::Malformed(error.to_string())));
    }
    arrange(Format::Safetensors, header, tensors, size, 1)
}

/// The typed reason behind a parser's error, which can carry only text.
#[derive(Default)]
struct Failure(RefCell<Option<FormatError>>);

impl Failure {
    fn set(&self, error: FormatError) {
        self.0.borrow_mut().get_or_insert(error);
    }

    fn fail<E: serde::de::Error>(&self, error: FormatError) -> E {
        let text = error.to_string();
        self.set(error);
        E::custom(text)
    }

    fn limit<E: serde::de::Error>(&self, what: &'static str, found: u64, limit: u64) -> Result<(), E> {
        if found > limit { Err(self.fail(FormatError::Limit { what, found, limit })) } else { Ok(()) }
    }

    fn take(&self) -> Option<FormatError> {
        self.0.borrow_mut().take()
    }
}

/// Follows just enough of the JSON that passes through to bound its strings and numbers.
struct Guard<'a, R> {
    inner: R,
    failure: &'a Failure,
    state: State,
}

enum State {
    Start,
    Plain,
    Number(u64),
    Text(u64),
    Escape(u64),
}

impl<'a, R: BufRead> Guard<'a, R> {
    fn new(inner: R, failure: &'a Failure) -> Self {
        Self { inner, failure, state: State::Start }
    }

    fn follow(&mut self, byte: u8) -> Result<(), FormatError> {
        let limit = |what, found, limit| {
            if found > limit { Err(FormatError::Limit { what, found, limit }) } else { Ok(()) }
        };
        self.state = match self.state {
            // Not even a space: other files then cannot begin with bytes that also make a header.
            State::Start if byte != b'{' => {
                let found = format!("its header begins with byte {byte:#04x} instead of `{{`");
                return Err(FormatError::Magic { format: Format::Safetensors, found });
            }
            State::Text(_) if byte == b'"' => State::Plain,
            State::Text(n) if byte == b'\\' => State::Escape(n + 1),
            State::Text(n) | State::Escape(n) => {
                limit("a string", n, MAX_STRING)?;
                State::Text(n + 1)
            }
            _ if byte == b'"' => State::Text(0),
            State::Number(n) if matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-') => {
                limit("a number's digits", n, MAX_NUMBER)?;
                State::Number(n + 1)
            }
            _ if matches!(byte, b'0'..=b'9' | b'-') => State::Number(1),
            _ => State::Plain,
        };
        Ok(())
    }
}

impl<R: BufRead> Read for Guard<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        for &byte in out.iter().take(n) {
            if let Err(error) = self.follow(byte) {
                let text = error.to_string();
                self.failure.set(error);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        Ok(n)
    }
}

/// A string of bounded length, kept only when it fits.
struct Text<'a> {
    failure: &'a Failure,
    what: &'static str,
    limit: u64,
}

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = String;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Text<'_> {
    type Value = String;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
        self.failure.limit(self.what, text.len() as u64, self.limit)?;
        Ok(text.to_owned())
    }
}

/// The whole header: tensors by name, and `__metadata__`.
struct Header<'a> {
    failure: &'a Failure,
    header: u64,
    tensors: &'a mut Vec<Tensor>,
}

impl<'de> DeserializeSeed<'de> for Header<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Header<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let failure = self.failure;
        let (mut names, mut metadata) = (0, false);
        while let Some(name) = map.next_key_seed(Text { failure, what: "a tensor name", limit: MAX_NAME })? {
            if name == "__metadata__" {
                if std::mem::replace(&mut metadata, true) {
                    return Err(failure.fail(FormatError::Duplicate { what: "the key", name }));
                }
                map.next_value_seed(Metadata { failure })?;
                continue;
            }
            names += name.len() as u64;
            failure.limit("tensor names together", names, MAX_NAMES)?;
            failure.limit("a number of tensors", self.tensors.len() as u64 + 1, MAX_TENSORS)?;
            let tensor = map.next_value_seed(Info { failure, header: self.header, name })?;
            self.tensors.push(tensor);
        }
        Ok(())
    }
}

/// `__metadata__`: text by name, skipped. `null` stands for none, as in the reference implementation.
struct Metadata<'a> {
    failure: &'a Failure,
}

impl<'de> DeserializeSeed<'de> for Metadata<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Metadata<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }
    fn visit_none<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let failure = self.failure;
        let mut keys = BTreeSet::new();
        while let Some(name) =
            map.next_key_seed(Text { failure, what: "a metadata key", limit: MAX_METADATA_KEY })?
        {
            failure.limit("a number of metadata entries", keys.len() as u64 + 1, MAX_METADATA)?;
            map.next_value_seed(Skipped)?;
            if keys.contains(&name) {
                let name = crate::shorten(&name);
                return Err(failure.fail(FormatError::Duplicate { what: "the metadata key", name }));
            }
            keys.insert(name);
        }
        Ok(())
    }
}

/// A string that nobody needs.
struct Skipped;

impl<'de> DeserializeSeed<'de> for Skipped {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Skipped {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

/// One tensor's `dtype`, `shape` and `data_offsets`.
struct Info<'a> {
    failure: &'a Failure,
    header: u64,
    name: String,
}

impl<'de> DeserializeSeed<'de> for Info<'_> {
    type Value = Tensor;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tensor, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Info<'_> {
    type Value = Tensor;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `dtype`, `shape` and `data_offsets`")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tensor, A::Error> {
        let failure = self.failure;
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(key) = map.next_key_seed(Text { failure, what: "a key", limit: MAX_NAME })? {
            let twice = match key.as_str() {
                "dtype" => {
                    let seed = Text { failure, what: "an element type's name", limit: MAX_NAME };
                    dtype.replace(map.next_value_seed(seed)?).is_some()
                }
                "shape" => {
                    let seed = Numbers { failure, what: "a number of dimensions", limit: MAX_DIMS };
                    shape.replace(map.next_value_seed(seed)?).is_some()
                }
                "data_offsets" => {
                    let seed = Numbers { failure, what: "a number of offsets", limit: 2 };
                    offsets.replace(map.next_value_seed(seed)?).is_some()
                }
                _ => {
                    let known = &["dtype", "shape", "data_offsets"];
                    return Err(A::Error::unknown_field(&crate::shorten(&key), known));
                }
            };
            if twice {
                return Err(failure.fail(FormatError::Duplicate { what: "the key", name: key }));
            }
        }
        let dtype = dtype.ok_or_else(|| A::Error::missing_field("dtype"))?;
        let shape = shape.ok_or_else(|| A::Error::missing_field("shape"))?;
        let offsets = offsets.ok_or_else(|| A::Error::missing_field("data_offsets"))?;
        let [start, end] = offsets[..] else {
            return Err(A::Error::invalid_length(offsets.len(), &"two offsets"));
        };
        tensor(self.header, self.name, &dtype, shape, start, end).map_err(|error| failure.fail(error))
    }
}

/// An array of unsigned numbers of bounded length.
struct Numbers<'a> {
    failure: &'a Failure,
    what: &'static str,
    limit: u64,
}

impl<'de> DeserializeSeed<'de> for Numbers<'_> {
    type Value = Vec<u64>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u64>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Numbers<'_> {
    type Value = Vec<u64>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of unsigned numbers")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u64>, A::Error> {
        let mut numbers = Vec::new();
        while let Some(number) = seq.next_element()? {
            self.failure.limit(self.what, numbers.len() as u64 + 1, self.limit)?;
            numbers.push(number);
        }
        Ok(numbers)
    }
}

/// Checks one tensor on its own: type, size, and offsets that do not overflow.
fn tensor(
    header: u64,
    name: String,
    dtype: &str,
    shape: Vec<u64>,
    start: u64,
    end: u64,
) -> Result<Tensor, FormatError> {
    let tensor = || crate::shorten(&name);
    let Some(&(dtype, bits)) = DTYPES.iter().find(|(known, _)| *known == dtype) else {
        return Err(FormatError::Dtype { tensor: tensor(), dtype: crate::shorten(dtype) });
    };
    let needed = shape
        .iter()
        .try_fold(bits, |product, &dimension| product.checked_mul(dimension))
        .filter(|bits| bits % 8 == 0)
        .map(|bits| bits / 8)
        .ok_or_else(|| FormatError::Shape { tensor: tensor() })?;
    let found = end.checked_sub(start).ok_or_else(|| FormatError::Shape { tensor: tensor() })?;
    if found != needed {
        return Err(FormatError::Size { tensor: tensor(), found, needed });
    }
    let overflow = || FormatError::Shape { tensor: tensor() };
    let end = header.checked_add(end).ok_or_else(overflow)?;
    Ok(Tensor { dtype, shape, start: header + start, end, name })
}
