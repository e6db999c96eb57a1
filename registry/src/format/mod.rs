//! Formats of weights: bounded readers for the headers of safetensors and GGUF, and what kind of file something is.
//!
//! A header is foreign input: every length is checked against the file and against a limit before anything is read or
//! kept, all arithmetic is checked, and memory stays bounded by the limits below whatever the file says.

mod ggml;
pub mod gguf;
mod kind;
pub mod safetensors;

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

pub use kind::{HEAD_LEN, Kind, Safety, detect};

/// Most tensors in one file. The largest published checkpoints have about 150 000 in all their shards together.
pub const MAX_TENSORS: u64 = 1 << 18;
/// Longest tensor name, in bytes: three times the longest in use.
pub const MAX_NAME: u64 = 512;
/// Most bytes in all tensor names of a file together, so that names cannot fill the memory.
pub const MAX_NAMES: u64 = 32 * 1024 * 1024;
/// Most dimensions of a tensor in safetensors (in GGUF: [`gguf::MAX_DIMS`]). Frameworks' operators stop at five or six.
pub const MAX_DIMS: u64 = 16;

/// A format of weights whose header this module reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// <https://github.com/huggingface/safetensors>
    Safetensors,
    /// <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>
    Gguf,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::Gguf => "GGUF",
        })
    }
}

/// One tensor and where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name, at most [`MAX_NAME`] bytes.
    pub name: String,
    /// Its element type as the format names it, such as `BF16` or `Q4_K`.
    pub dtype: &'static str,
    /// Its shape, outermost dimension first. Empty for a scalar.
    pub shape: Vec<u64>,
    /// Offset of its first byte in the file.
    pub start: u64,
    /// Offset behind its last byte in the file.
    pub end: u64,
}

impl Tensor {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Its number of elements. It fits, as was checked when the header was read; what a large dimension beside an
    /// empty one saturates to does not matter.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |product: u64, &dimension| product.saturating_mul(dimension))
    }
}

/// Where everything is in a file of weights. Made only by the readers here, so the tensors are in order, within the
/// file, and neither overlap nor leave gaps beyond the format's padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The format.
    pub format: Format,
    /// Bytes of header with its padding: the offset of the first tensor.
    pub header: u64,
    /// The tensors, by rising offset.
    pub tensors: Vec<Tensor>,
}

impl Layout {
    /// Where the last tensor ends (or the header, when there is none).
    pub fn end(&self) -> u64 {
        self.tensors.last().map_or(self.header, |tensor| tensor.end)
    }

    /// The number of parameters: elements of all tensors together.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().fold(0, |sum, tensor| sum.saturating_add(tensor.elements()))
    }
}

/// Why a header was refused. What a person can do is the same for most: fetch the file again from its maker, and not
/// load this one.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The file could not be read.
    #[error("the file could not be read: {0}")]
    Io(#[from] io::Error),
    /// The first bytes belong to something else.
    #[error("this is not a {format} file: {found}")]
    Magic {
        /// The format expected.
        format: Format,
        /// What was there instead.
        found: String,
    },
    /// A GGUF version other than 2 and 3.
    #[error(
        "GGUF version {0} is not supported (2 and 3 are): convert the file again with a current llama.cpp"
    )]
    Version(u32),
    /// A GGUF file for big-endian machines.
    #[error("this GGUF file is big-endian, which is not supported: convert it again with `--little-endian`")]
    BigEndian,
    /// The file ends before what its header announces.
    #[error(
        "the file ends at byte {size}, but {what} reaches to byte {end}: it was cut short or its header lies; fetch it again"
    )]
    Truncated {
        /// What does not fit.
        what: String,
        /// Where it would end.
        end: u64,
        /// The file's size.
        size: u64,
    },
    /// A limit of this program.
    #[error("the header has {what} of {found}; the limit is {limit}, so the file is refused as hostile")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The header is not the JSON, or not the UTF-8 text, that the format asks for.
    #[error("the header is malformed: {0}")]
    Malformed(String),
    /// A name or key occurs twice.
    #[error("the header has {what} `{name}` twice: readers would disagree about which one counts")]
    Duplicate {
        /// What occurs twice.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// An element type that the format does not have (or no longer has).
    #[error(
        "tensor `{tensor}` has the unknown element type `{dtype}`: upgrade this program, or convert the file again"
    )]
    Dtype {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: String,
    },
    /// A metadata value of unknown type (GGUF).
    #[error("metadata key `{key}` has the unknown or forbidden value type {kind}")]
    ValueType {
        /// The key.
        key: String,
        /// The type's number.
        kind: u32,
    },
    /// The alignment is not a power of two in range (GGUF).
    #[error("the alignment {0} is not a power of two from 8 to {max}", max = gguf::MAX_ALIGNMENT)]
    Alignment(u32),
    /// A shape whose size in bytes is not a number of bytes that fits.
    #[error("tensor `{tensor}` has a shape that does not give a whole number of bytes below 2^63")]
    Shape {
        /// The tensor.
        tensor: String,
    },
    /// Shape and element type give another size than the offsets.
    #[error("tensor `{tensor}` has {found} bytes, but its shape and element type need {needed}")]
    Size {
        /// The tensor.
        tensor: String,
        /// Bytes between its offsets.
        found: u64,
        /// Bytes that it needs.
        needed: u64,
    },
    /// Two tensors share bytes.
    #[error("tensors `{first}` and `{second}` overlap")]
    Overlap {
        /// The one in front.
        first: String,
        /// The one behind.
        second: String,
    },
    /// Bytes that belong to no tensor: a place to hide something.
    #[error("{len} bytes at offset {at} belong to no tensor: the format does not allow this")]
    Gap {
        /// Where they begin.
        at: u64,
        /// How many.
        len: u64,
    },
}

impl FormatError {
    /// A short stable name of the defect, as the test vectors in `specs/vectors/01` use it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io(_) => "io",
            Self::Magic { .. } => "magic",
            Self::Version(_) => "version",
            Self::BigEndian => "big-endian",
            Self::Truncated { .. } => "truncated",
            Self::Limit { .. } => "limit",
            Self::Malformed(_) => "malformed",
            Self::Duplicate { .. } => "duplicate",
            Self::Dtype { .. } => "dtype",
            Self::ValueType { .. } => "value-type",
            Self::Alignment(_) => "alignment",
            Self::Shape { .. } => "shape",
            Self::Size { .. } => "size",
            Self::Overlap { .. } => "overlap",
            Self::Gap { .. } => "gap",
        }
    }
}

/// What was found out about one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// What it is, by name and content.
    pub kind: Kind,
    /// Where its tensors are, when it holds weights.
    pub layout: Option<Layout>,
    /// What its header says about the model, when it is GGUF.
    pub metadata: Option<gguf::Metadata>,
}

/// Looks at a file's name and content; for weights the whole header is read and checked.
///
/// A file that is called `.safetensors` or `.gguf` and is neither that nor something recognised as dangerous is an
/// error. One that is recognised as dangerous is not: its [`Kind`] says so, and policy refuses it by name.
pub fn inspect(path: &str, mut reader: impl Read + Seek, size: u64) -> Result<Inspection, FormatError> {
    reader.seek(SeekFrom::Start(0))?;
    let mut head = Vec::with_capacity(HEAD_LEN);
    reader.by_ref().take(HEAD_LEN as u64).read_to_end(&mut head)?;
    let kind = detect(path, &head);
    let format = match kind {
        Kind::Safetensors => Some(Format::Safetensors),
        Kind::Gguf => Some(Format::Gguf),
        Kind::Unknown => kind::promised(path),
        _ => None,
    };
    Ok(match format {
        Some(Format::Safetensors) => Inspection {
            kind: Kind::Safetensors,
            layout: Some(safetensors::read(reader, size)?),
            metadata: None,
        },
        Some(Format::Gguf) => {
            let (layout, metadata) = gguf::read(reader, size)?;
            Inspection { kind: Kind::Gguf, layout: Some(layout), metadata: Some(metadata) }
        }
        None => Inspection { kind, layout: None, metadata: None },
    })
}

/// Puts tensors in order and checks that they cover the file from `header` to its end, with gaps only up to the next
/// multiple of `alignment` behind a tensor. Both readers end here.
fn arrange(
    format: Format,
    header: u64,
    mut tensors: Vec<Tensor>,
    size: u64,
    alignment: u64,
) -> Result<Layout, FormatError> {
    let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    if let Some(name) = names.windows(2).find_map(|pair| (pair.first() == pair.last()).then(|| pair.first()))
    {
        let name = name.map_or_else(String::new, |name| crate::shorten(name));
        return Err(FormatError::Duplicate { what: "tensor", name });
    }
    tensors.sort_by_key(|tensor| (tensor.start, tensor.end));
    let mut end = header;
    let mut before: Option<&Tensor> = None;
    for tensor in &tensors {
        if tensor.end > size {
            return Err(FormatError::Truncated {
                what: format!("tensor `{}`", crate::shorten(&tensor.name)),
                end: tensor.end,
                size,
            });
        }
        if tensor.start < end {
            return Err(FormatError::Overlap {
                first: before.map_or_else(|| "the header".to_owned(), |before| crate::shorten(&before.name)),
                second: crate::shorten(&tensor.name),
            });
        }
        check_gap(end, tensor.start, alignment)?;
        end = tensor.end;
        before = Some(tensor);
    }
    check_gap(end, size, alignment)?;
    Ok(Layout { format, header, tensors })
}

/// Whether `from..to` is no more than padding to the next multiple of `alignment`.
fn check_gap(from: u64, to: u64, alignment: u64) -> Result<(), FormatError> {
    let padded = from.checked_next_multiple_of(alignment).unwrap_or(from);
    if to > padded { Err(FormatError::Gap { at: padded, len: to - padded }) } else { Ok(()) }
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
