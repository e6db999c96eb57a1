//! How the bytes of a chunk are laid out, told by the header of the file that they are from.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::blocks;
use crate::format::{self, Tensor};

/// Most tensors that one range is compared with; one that touches more is taken as mixed. The small tensors that share
/// a chunk are a few dozen.
const MAX_TOUCHED: usize = 1024;

/// How a chunk's bytes are laid out. Only a hint to the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// Nothing is known: text, headers, mixtures.
    #[default]
    Bytes,
    /// BF16 from the first byte on.
    Bf16,
    /// F16 from the first byte on.
    F16,
    /// F32 from the first byte on.
    F32,
    /// F64 from the first byte on.
    F64,
    /// One byte an element: E4M3, E5M2, small integers.
    Fp8,
    /// Blocks of a quantised type of GGUF.
    Quantised {
        /// The lengths of a block's fields, in bytes.
        fields: &'static [u16],
        /// Bytes of the chunk before the first whole block.
        phase: u16,
    },
}

/// The element type of a stretch of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Float(Layout, u64),
    Blocks(&'static [u16]),
}

impl Element {
    /// By the name that safetensors or GGUF has for it.
    fn named(dtype: &str) -> Option<Self> {
        Some(match dtype {
            "BF16" => Self::Float(Layout::Bf16, 2),
            "F16" => Self::Float(Layout::F16, 2),
            "F32" | "C64" => Self::Float(Layout::F32, 4),
            "F64" => Self::Float(Layout::F64, 8),
            "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" | "U8" | "I8" | "F4" => {
                Self::Float(Layout::Fp8, 1)
            }
            _ => Self::Blocks(blocks::fields(dtype)?),
        })
    }

    /// The layout of a range that begins at `start` when elements begin at `first`; none when the range begins within
    /// an element that has to begin it.
    fn layout(self, first: u64, start: u64) -> Option<Layout> {
        let phase = |len: u64| (i128::from(first) - i128::from(start)).rem_euclid(i128::from(len.max(1)));
        match self {
            Self::Float(layout, width) => (phase(width) == 0).then_some(layout),
            Self::Blocks(fields) => {
                let block = fields.iter().map(|&len| u64::from(len)).sum();
                // Below a block's length, which is at most MAX_BLOCK.
                Some(Layout::Quantised { fields, phase: u16::try_from(phase(block)).ok()? })
            }
        }
    }
}

/// The layouts of a file's byte ranges.
#[derive(Debug, Clone, Default)]
pub struct Layouts {
    /// Stretches of one element type, by rising offset, without overlap; at most [`format::MAX_TENSORS`].
    stretches: Vec<(Range<u64>, Element)>,
}

impl Layouts {
    /// Reads the header of a file of weights. Whatever is not one, or cannot be read, has [`Layout::Bytes`] throughout.
    ///
    /// The file's own position is left alone.
    pub fn read(file: &File) -> Self {
        let Ok(size) = file.metadata().map(|meta| meta.len()) else { return Self::default() };
        Self::from_reader(At { file, at: 0 }, size)
    }

    /// As [`Self::read`], from anything of `size` bytes whose header can be read.
    pub fn from_reader(mut reader: impl Read + Seek, size: u64) -> Self {
        let mut magic = [0; 4];
        let layout = match reader.read_exact(&mut magic) {
            Ok(()) if magic == *b"GGUF" => format::gguf::read(reader, size).map(|(layout, _)| layout),
            Ok(()) => format::safetensors::read(reader, size),
            Err(error) => Err(error.into()),
        };
        layout.map_or_else(|_| Self::default(), |layout| Self::of_tensors(&layout.tensors))
    }

    fn of_tensors(tensors: &[Tensor]) -> Self {
        let mut stretches: Vec<(Range<u64>, Element)> = Vec::new();
        for tensor in tensors.iter().filter(|tensor| !tensor.is_empty()) {
            let Some(element) = Element::named(tensor.dtype) else { continue };
            match stretches.last_mut() {
                Some((range, last)) if range.end == tensor.start && *last == element => {
                    range.end = tensor.end
                }
                _ => stretches.push((tensor.start..tensor.end, element)),
            }
        }
        stretches.shrink_to_fit();
        Self { stretches }
    }

    /// Whether nothing is known: no weights, or their header was not there.
    pub fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    /// The layout of the file's bytes `range`: the one that covers three quarters of it or more, since what else is in
    /// there (padding, a few norms) then costs little; else [`Layout::Bytes`].
    pub fn of(&self, range: Range<u64>) -> Layout {
        let first = self.stretches.partition_point(|(stretch, _)| stretch.end <= range.start);
        let touched = self.stretches.get(first..).unwrap_or_default();
        let mut covered: Vec<(Layout, u64)> = Vec::new();
        for (i, (stretch, element)) in touched.iter().take_while(|(s, _)| s.start < range.end).enumerate() {
            if i >= MAX_TOUCHED {
                return Layout::Bytes;
            }
            let Some(layout) = element.layout(stretch.start, range.start) else { continue };
            let len = stretch.end.min(range.end) - stretch.start.max(range.start);
            match covered.iter_mut().find(|(found, _)| *found == layout) {
                Some((_, sum)) => *sum += len,
                None => covered.push((layout, len)),
            }
        }
        let whole = range.end.saturating_sub(range.start);
        let most = covered.into_iter().max_by_key(|(_, len)| *len);
        most.filter(|(_, len)| *len >= whole - whole / 4).map_or(Layout::Bytes, |(layout, _)| layout)
    }
}

/// Reads a file at positions of its own.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read_at(out, self.at)?;
        self.at += len as u64;
        Ok(len)
    }
}

impl Seek for At<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(_) => None,
        };
        self.at = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}
