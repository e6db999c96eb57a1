//! Decoding: foreign bytes in, exactly one chunk out, or an error.

use super::entropy::Decompressor;
use super::{CodecError, Encoding, MAX_RAW, blocks, planes};

/// Decodes chunks. Its context and buffer (about 1.2 MiB) are used again: one for each thread that decodes.
pub struct Decoder {
    frames: Decompressor,
    /// Decoded streams, one behind the other; never longer than a chunk.
    streams: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder.
    pub fn new() -> Self {
        Self { frames: Decompressor::new(), streams: Vec::new() }
    }

    /// Decodes `bytes` to exactly `out`, whose length is the chunk's, known from the chunk map.
    ///
    /// Holds at most the length of `out` besides, whatever the bytes say, and never writes beyond it. After an error
    /// `out` may hold anything. The caller compares the digest as with every chunk.
    pub fn decode(&mut self, encoding: Encoding, bytes: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
        if out.len() > MAX_RAW {
            return Err(CodecError::Limit { found: out.len() });
        }
        if encoding == Encoding::Raw {
            if bytes.len() != out.len() {
                return Err(CodecError::Length { found: bytes.len(), expected: out.len() });
            }
            out.copy_from_slice(bytes);
            return Ok(());
        }
        if bytes.len() >= out.len() {
            return Err(CodecError::NotSmaller { found: bytes.len(), raw: out.len() });
        }
        match encoding {
            Encoding::Raw => Ok(()),
            Encoding::Zstd => self.frames.read(bytes, out),
            Encoding::Planes2 => self.planes(bytes, out, planes::join2),
            Encoding::Planes4 => self.planes(bytes, out, planes::join4),
            Encoding::Planes8 => self.planes(bytes, out, planes::join8),
            Encoding::Blocks => self.blocks(bytes, out),
        }
    }

    fn planes<const N: usize>(
        &mut self,
        bytes: &[u8],
        out: &mut [u8],
        join: fn([&[u8]; N], &mut [u8]),
    ) -> Result<(), CodecError> {
        let count = out.len() / N;
        let (words, tail) = out.split_at_mut(count * N);
        self.streams.resize(self.streams.len().max(words.len()), 0);
        let buffers: [&mut [u8]; N] = planes::parts_mut(&mut self.streams, count);
        let mut source = Source(bytes);
        let mut streams: [&[u8]; N] = [&[]; N];
        for (stream, buffer) in streams.iter_mut().zip(buffers) {
            *stream = source.stream(&mut self.frames, count, buffer)?;
        }
        join(streams, words);
        tail.copy_from_slice(source.take(tail.len(), "the last bytes")?);
        source.end()
    }

    fn blocks(&mut self, bytes: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
        let mut source = Source(bytes);
        let [number] = source.array("the number of fields")?;
        let number = usize::from(number);
        let mut lengths = [0usize; blocks::MAX_FIELDS];
        let fields = lengths.get_mut(..number).ok_or(CodecError::Fields)?;
        for len in fields.iter_mut() {
            *len = usize::from(u16::from_le_bytes(source.array("the fields")?));
        }
        let phase = usize::from(u16::from_le_bytes(source.array("the fields")?));
        let block: usize = fields.iter().sum();
        if fields.contains(&0) || block > blocks::MAX_BLOCK || phase >= block || out.len() < phase + block {
            return Err(CodecError::Fields);
        }
        let (head, rest) = out.split_at_mut(phase);
        let count = rest.len() / block;
        let (whole, tail) = rest.split_at_mut(count * block);
        let mut at = 0;
        for &len in fields.iter() {
            // At most the length of `out`.
            let bytes = len * count;
            self.streams.resize(self.streams.len().max(bytes), 0);
            let buffer = self.streams.get_mut(..bytes).ok_or(CodecError::Fields)?;
            blocks::scatter(source.stream(&mut self.frames, bytes, buffer)?, block, at, len, whole);
            at += len;
        }
        head.copy_from_slice(source.take(head.len(), "the first bytes")?);
        tail.copy_from_slice(source.take(tail.len(), "the last bytes")?);
        source.end()
    }
}

/// What is left of the encoded bytes.
struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(CodecError::Truncated(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CodecError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(CodecError::Truncated(what))?;
        self.0 = rest;
        Ok(*taken)
    }

    /// A stream of `expected` bytes when decoded: as it stands here, or decoded into `buffer`.
    fn stream<'b>(
        &mut self,
        frames: &mut Decompressor,
        expected: usize,
        buffer: &'b mut [u8],
    ) -> Result<&'b [u8], CodecError>
    where
        'a: 'b,
    {
        let found = u32::from_le_bytes(self.array("a stream's length")?) as usize;
        if found > expected {
            return Err(CodecError::Stream { found, expected });
        }
        let bytes = self.take(found, "a stream")?;
        if found == expected {
            return Ok(bytes);
        }
        frames.read(bytes, buffer)?;
        Ok(buffer)
    }

    fn end(&self) -> Result<(), CodecError> {
        if self.0.is_empty() { Ok(()) } else { Err(CodecError::Trailing(self.0.len())) }
    }
}
