//! The header of a GGUF file (versions 2 and 3, little-endian): metadata, then tensor descriptions.
//!
//! Values that nobody here needs are skipped by seeking, never read into memory.

use std::collections::BTreeSet;
use std::io::{BufReader, Read, Seek, SeekFrom};

use super::{Format, FormatError, Layout, MAX_NAME, MAX_NAMES, MAX_TENSORS, Tensor, arrange, ggml};

/// Longest header, in bytes: ten times that of the largest vocabularies with their merges.
pub const MAX_HEADER: u64 = 128 * 1024 * 1024;
/// Most metadata entries. Models have 20 to 60.
pub const MAX_ENTRIES: u64 = 4096;
/// Longest metadata key, in bytes. The longest in use have about 60.
pub const MAX_KEY: u64 = 1024;
/// Most elements of a metadata array: the largest vocabularies have some 300 000 entries.
pub const MAX_ARRAY: u64 = 1 << 24;
/// Most dimensions of a tensor: ggml's own `GGML_MAX_DIMS`.
pub const MAX_DIMS: u64 = 4;
/// Largest alignment, in bytes: the largest page size in use.
pub const MAX_ALIGNMENT: u32 = 64 * 1024;
/// Longest metadata text that is kept to be shown, in bytes; the rest of it is cut off.
pub const MAX_SHOWN: u64 = 256;

/// The alignment of a file that names none.
const DEFAULT_ALIGNMENT: u32 = 32;

/// Value types of metadata.
mod value {
    pub(super) const U32: u32 = 4;
    pub(super) const F32: u32 = 6;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;

    /// Bytes of a value of fixed size.
    pub(super) fn width(kind: u32) -> Option<u64> {
        match kind {
            0 | 1 | 7 => Some(1),
            2 | 3 => Some(2),
            4..=6 => Some(4),
            10..=12 => Some(8),
            _ => None,
        }
    }
}

/// What a file says about its model. Claims of whoever made the file: shown to people, never decided upon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The GGUF version: 2 or 3.
    pub version: u32,
    /// `general.type`, such as `model` or `adapter`; a file without is a model.
    pub kind: Option<String>,
    /// `adapter.type`, such as `lora`.
    pub adapter: Option<String>,
    /// Whether `adapter.lora.alpha` is there, as a number of 32 bits with a fraction.
    pub alpha: bool,
    /// Whether it is an adapter that acts only behind certain tokens (`adapter.alora.invocation_tokens`).
    pub invoked: bool,
    /// `general.architecture`, such as `llama`.
    pub architecture: Option<String>,
    /// `general.name`.
    pub name: Option<String>,
    /// `general.license`.
    pub license: Option<String>,
    /// `general.file_type`: ggml's number for the usual quantisation.
    pub file_type: Option<u64>,
    /// `general.alignment`, or the default of 32 bytes.
    pub alignment: u32,
    /// `<architecture>.context_length`, in tokens.
    pub context_length: Option<u64>,
    /// Whether there is a `tokenizer.chat_template`.
    pub chat_template: bool,
    /// Number of metadata entries.
    pub entries: u64,
}

/// Reads and checks the header of a file of `size` bytes.
pub fn read(mut reader: impl Read + Seek, size: u64) -> Result<(Layout, Metadata), FormatError> {
    reader.seek(SeekFrom::Start(0))?;
    let mut source = Source { inner: BufReader::with_capacity(64 * 1024, reader), at: 0, size };
    let magic: [u8; 4] = source.take("the magic")?;
    if magic != *b"GGUF" {
        let found = format!("it begins with `{}` instead of `GGUF`", magic.escape_ascii());
        return Err(FormatError::Magic { format: Format::Gguf, found });
    }
    let version = source.u32("the version")?;
    match version {
        2 | 3 => {}
        // A small number with its bytes reversed.
        _ if version & 0xffff == 0 && version != 0 => return Err(FormatError::BigEndian),
        _ => return Err(FormatError::Version(version)),
    }
    let tensors = source.u64("the number of tensors")?;
    limit("a number of tensors", tensors, MAX_TENSORS)?;
    let entries = source.u64("the number of metadata entries")?;
    limit("a number of metadata entries", entries, MAX_ENTRIES)?;
    let metadata = read_metadata(&mut source, version, entries)?;
    let infos = read_infos(&mut source, tensors)?;
    let alignment = u64::from(metadata.alignment);
    // The position is below MAX_HEADER and the alignment small: no overflow.
    let aligned = source.at.next_multiple_of(alignment);
    // A file without tensors (a vocabulary) may end without padding.
    let header = if infos.is_empty() { aligned.min(size) } else { aligned };
    let tensors =
        infos.into_iter().map(|info| info.place(header, alignment)).collect::<Result<Vec<_>, _>>()?;
    Ok((arrange(Format::Gguf, header, tensors, size, alignment)?, metadata))
}

fn limit(what: &'static str, found: u64, limit: u64) -> Result<(), FormatError> {
    if found > limit { Err(FormatError::Limit { what, found, limit }) } else { Ok(()) }
}

/// Reads forward, never past the file's end or [`MAX_HEADER`].
struct Source<R> {
    inner: BufReader<R>,
    at: u64,
    size: u64,
}

impl<R: Read + Seek> Source<R> {
    /// Claims the next `len` bytes.
    fn advance(&mut self, len: u64, what: &'static str) -> Result<(), FormatError> {
        let end = self.at.saturating_add(len);
        if end > self.size {
            return Err(FormatError::Truncated { what: what.to_owned(), end, size: self.size });
        }
        limit("a length", end, MAX_HEADER)?;
        self.at = end;
        Ok(())
    }

    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], FormatError> {
        self.advance(N as u64, what)?;
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, FormatError> {
        self.take(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, FormatError> {
        self.take(what).map(u64::from_le_bytes)
    }

    fn skip(&mut self, len: u64, what: &'static str) -> Result<(), FormatError> {
        self.advance(len, what)?;
        // Below MAX_HEADER, so it fits.
        self.inner.seek_relative(len as i64)?;
        Ok(())
    }

    fn bytes(&mut self, len: u64, what: &'static str) -> Result<Vec<u8>, FormatError> {
        self.advance(len, what)?;
        // The callers' limits are a few hundred bytes.
        let mut bytes = vec![0; len as usize];
        self.inner.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// A key or name: UTF-8 of at most `max` bytes.
    fn name(&mut self, what: &'static str, max: u64) -> Result<String, FormatError> {
        let len = self.u64(what)?;
        limit(what, len, max)?;
        String::from_utf8(self.bytes(len, what)?)
            .map_err(|_| FormatError::Malformed(format!("{what} is not UTF-8 text")))
    }

    /// The beginning of a text that is shown to people; control characters become visible or spaces.
    fn shown(&mut self) -> Result<String, FormatError> {
        let what = "a metadata text";
        let len = self.u64(what)?;
        // The whole length is claimed first, so that a lie about it is found before anything is kept.
        if self.at.saturating_add(len) > self.size {
            return Err(FormatError::Truncated {
                what: what.to_owned(),
                end: self.at.saturating_add(len),
                size: self.size,
            });
        }
        let kept = self.bytes(len.min(MAX_SHOWN), what)?;
        self.skip(len - len.min(MAX_SHOWN), what)?;
        let text = String::from_utf8_lossy(&kept);
        Ok(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    }

    fn skip_value(&mut self, key: &str, kind: u32) -> Result<(), FormatError> {
        let what = "a metadata value";
        let unknown = |kind| FormatError::ValueType { key: crate::shorten(key), kind };
        match kind {
            value::STRING => {
                let len = self.u64(what)?;
                self.skip(len, what)
            }
            value::ARRAY => {
                let kind = self.u32(what)?;
                let count = self.u64(what)?;
                limit("a number of array elements", count, MAX_ARRAY)?;
                if kind == value::STRING {
                    // Each turn takes 8 bytes at least off a bounded header.
                    for _ in 0..count {
                        let len = self.u64(what)?;
                        self.skip(len, what)?;
                    }
                    return Ok(());
                }
                // An array in an array is refused, as by ggml's own reader: there is nothing to bound then.
                let width = value::width(kind).ok_or_else(|| unknown(kind))?;
                self.skip(count * width, what)
            }
            _ => self.skip(value::width(kind).ok_or_else(|| unknown(kind))?, what),
        }
    }

    /// A whole number, when the value is one; else it is skipped.
    fn number(&mut self, key: &str, kind: u32) -> Result<Option<u64>, FormatError> {
        let what = "a metadata value";
        Ok(match kind {
            0 => Some(u64::from(self.take::<1>(what)?[0])),
            2 => Some(u64::from(u16::from_le_bytes(self.take(what)?))),
            4 => Some(u64::from(self.u32(what)?)),
            5 => u64::try_from(i32::from_le_bytes(self.take(what)?)).ok(),
            10 => Some(self.u64(what)?),
            11 => u64::try_from(i64::from_le_bytes(self.take(what)?)).ok(),
            _ => {
                self.skip_value(key, kind)?;
                None
            }
        })
    }
}

fn read_metadata<R: Read + Seek>(
    source: &mut Source<R>,
    version: u32,
    entries: u64,
) -> Result<Metadata, FormatError> {
    let mut metadata = Metadata { version, alignment: DEFAULT_ALIGNMENT, entries, ..Metadata::default() };
    let mut keys = BTreeSet::new();
    let mut context_lengths = Vec::new();
    for _ in 0..entries {
        let key = source.name("a metadata key", MAX_KEY)?;
        if keys.contains(&key) {
            return Err(FormatError::Duplicate { what: "the metadata key", name: crate::shorten(&key) });
        }
        let kind = source.u32("a metadata value's type")?;
        match (key.as_str(), kind) {
            ("general.alignment", value::U32) => {
                let alignment = source.u32("the alignment")?;
                if !alignment.is_power_of_two() || !(8..=MAX_ALIGNMENT).contains(&alignment) {
                    return Err(FormatError::Alignment(alignment));
                }
                metadata.alignment = alignment;
            }
            ("general.alignment", _) => return Err(FormatError::ValueType { key, kind }),
            ("general.architecture", value::STRING) => metadata.architecture = Some(source.shown()?),
            ("general.type", value::STRING) => metadata.kind = Some(source.shown()?),
            ("adapter.type", value::STRING) => metadata.adapter = Some(source.shown()?),
            ("general.name", value::STRING) => metadata.name = Some(source.shown()?),
            ("general.license", value::STRING) => metadata.license = Some(source.shown()?),
            ("general.file_type", _) => metadata.file_type = source.number(&key, kind)?,
            _ if key.ends_with(".context_length") => {
                if let Some(tokens) = source.number(&key, kind)? {
                    context_lengths.push((key.clone(), tokens));
                }
            }
            _ => {
                metadata.chat_template |= key == "tokenizer.chat_template" && kind == value::STRING;
                metadata.alpha |= key == "adapter.lora.alpha" && kind == value::F32;
                metadata.invoked |= key == "adapter.alora.invocation_tokens";
                source.skip_value(&key, kind)?;
            }
        }
        keys.insert(key);
    }
    // Known only now: the architecture may stand behind the values that carry its name.
    metadata.context_length = context_lengths.into_iter().find_map(|(key, tokens)| {
        let prefix = key.strip_suffix(".context_length")?;
        (Some(prefix) == metadata.architecture.as_deref()).then_some(tokens)
    });
    Ok(metadata)
}

/// A tensor's description, its offset still relative to the end of the header.
struct Info {
    name: String,
    dtype: &'static str,
    shape: Vec<u64>,
    offset: u64,
    bytes: u64,
}

impl Info {
    fn place(mut self, header: u64, alignment: u64) -> Result<Tensor, FormatError> {
        let shape = || FormatError::Shape { tensor: crate::shorten(&self.name) };
        if !self.offset.is_multiple_of(alignment) {
            return Err(FormatError::Malformed(format!(
                "tensor `{}` is at offset {}, which is not a multiple of the alignment {alignment}",
                crate::shorten(&self.name),
                self.offset
            )));
        }
        let start = header.checked_add(self.offset).ok_or_else(shape)?;
        let end = start.checked_add(self.bytes).ok_or_else(shape)?;
        // The file has the innermost dimension first.
        self.shape.reverse();
        Ok(Tensor { name: self.name, dtype: self.dtype, shape: self.shape, start, end })
    }
}

fn read_infos<R: Read + Seek>(source: &mut Source<R>, count: u64) -> Result<Vec<Info>, FormatError> {
    let mut infos = Vec::new();
    let mut names = 0;
    for _ in 0..count {
        let name = source.name("a tensor name", MAX_NAME)?;
        names += name.len() as u64;
        limit("tensor names together", names, MAX_NAMES)?;
        let dimensions = source.u32("a tensor's dimensions")?;
        limit("a number of dimensions", u64::from(dimensions), MAX_DIMS)?;
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            shape.push(source.u64("a tensor's dimensions")?);
        }
        let number = source.u32("a tensor's element type")?;
        let offset = source.u64("a tensor's offset")?;
        let Some(kind) = ggml::by_number(number) else {
            return Err(FormatError::Dtype { tensor: crate::shorten(&name), dtype: number.to_string() });
        };
        let bytes =
            ggml::bytes(kind, &shape).ok_or_else(|| FormatError::Shape { tensor: crate::shorten(&name) })?;
        infos.push(Info { name, dtype: kind.name, shape, offset, bytes });
    }
    Ok(infos)
}
