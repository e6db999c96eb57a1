//! Encoding: sort the bytes into streams, code those that it pays for, keep the result when it saves enough.

use super::entropy::{self, Compressor};
use super::{Encoding, Layout, MAX_RAW, MIN_SAVING_PERCENT, blocks, planes};

/// How much of a chunk may be left by the streams' estimates for the coding to begin. A little more than what is needed
/// in the end, since the codes follow the content more closely than a sample of the whole.
const HOPE: f64 = 0.98;
/// Bytes of a chunk that are compressed to see whether the rest is worth it, where its bytes are all equally frequent.
const PLAIN_SAMPLE: usize = 64 * 1024;

/// Encodes chunks. Its contexts and buffers (about 3 MiB) are used again: one for each thread that encodes.
pub struct Encoder {
    huffman: Compressor,
    plain: Compressor,
    /// The streams of the chunk, one behind the other.
    streams: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An encoder.
    pub fn new() -> Self {
        Self { huffman: Compressor::huffman(), plain: Compressor::plain(), streams: Vec::new() }
    }

    /// Encodes `chunk` into `out`, whose content is replaced.
    ///
    /// Where it saves under [`MIN_SAVING_PERCENT`] the answer is [`Encoding::Raw`] and `out` is empty: the chunk travels
    /// as it is. `layout` is a hint; a wrong one costs bytes and nothing else.
    pub fn encode(&mut self, chunk: &[u8], layout: Layout, out: &mut Vec<u8>) -> Encoding {
        out.clear();
        if chunk.len() > MAX_RAW {
            return Encoding::Raw;
        }
        let encoding = match layout {
            Layout::Bytes => self.plain(chunk, out),
            Layout::Fp8 => self.single(chunk, out),
            Layout::Bf16 | Layout::F16 => self.planes(chunk, 2, Encoding::Planes2, out),
            Layout::F32 => self.planes(chunk, 4, Encoding::Planes4, out),
            Layout::F64 => self.planes(chunk, 8, Encoding::Planes8, out),
            Layout::Quantised { fields, phase } => self.blocks(chunk, fields, usize::from(phase), out),
        };
        match encoding {
            // At most MAX_RAW: no overflow.
            Some(encoding) if out.len() * 100 <= chunk.len() * (100 - MIN_SAVING_PERCENT) => encoding,
            _ => {
                out.clear();
                Encoding::Raw
            }
        }
    }

    /// Bytes of no known layout.
    fn plain(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Option<Encoding> {
        // Bytes that are all equally frequent may still repeat; a piece of them tells.
        if chunk.len() > 2 * PLAIN_SAMPLE && !entropy::pays(entropy::estimate(chunk)) {
            let sample = chunk.get(..PLAIN_SAMPLE)?;
            if !self.plain.append(sample, PLAIN_SAMPLE, out) {
                return None;
            }
            out.clear();
        }
        self.plain.append(chunk, chunk.len(), out).then_some(Encoding::Zstd)
    }

    /// One stream: elements of a byte.
    fn single(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Option<Encoding> {
        let worth = entropy::estimate(chunk) < HOPE;
        (worth && self.huffman.append(chunk, chunk.len(), out)).then_some(Encoding::Zstd)
    }

    /// Elements of `width` bytes.
    fn planes(
        &mut self,
        chunk: &[u8],
        width: usize,
        encoding: Encoding,
        out: &mut Vec<u8>,
    ) -> Option<Encoding> {
        let count = chunk.len() / width;
        let (words, tail) = chunk.split_at_checked(count * width)?;
        let mut streams = std::mem::take(&mut self.streams);
        // Longer than needed is right: nothing is cleared from one chunk to the next.
        streams.resize(streams.len().max(words.len()), 0);
        match encoding {
            Encoding::Planes2 => planes::split2(words, planes::parts_mut(&mut streams, count)),
            Encoding::Planes4 => planes::split4(words, planes::parts_mut(&mut streams, count)),
            _ => planes::split8(words, planes::parts_mut(&mut streams, count)),
        }
        let lengths = [count; 8];
        let written = self.write(&streams, lengths.get(..width)?, tail.len(), out);
        self.streams = streams;
        out.extend_from_slice(tail);
        written.then_some(encoding)
    }

    /// Blocks of these fields, the first of which begins `phase` bytes into the chunk.
    fn blocks(&mut self, chunk: &[u8], fields: &[u16], phase: usize, out: &mut Vec<u8>) -> Option<Encoding> {
        let block: usize = fields.iter().map(|&len| usize::from(len)).sum();
        if fields.len() > blocks::MAX_FIELDS
            || fields.contains(&0)
            || block > blocks::MAX_BLOCK
            || phase >= block
        {
            return None;
        }
        let (head, rest) = chunk.split_at_checked(phase)?;
        let count = rest.len() / block;
        let (whole, tail) = rest.split_at_checked(count * block)?;
        let mut streams = std::mem::take(&mut self.streams);
        streams.resize(streams.len().max(whole.len()), 0);
        let mut lengths = [0; blocks::MAX_FIELDS];
        let (mut at, mut target) = (0, streams.as_mut_slice());
        for (&len, length) in fields.iter().zip(&mut lengths) {
            let len = usize::from(len);
            *length = len * count;
            let (stream, rest) = target.split_at_mut_checked(*length)?;
            blocks::gather(whole, block, at, len, stream);
            (at, target) = (at + len, rest);
        }
        // At most MAX_FIELDS, and the phase is below MAX_BLOCK: both fit.
        out.push(fields.len() as u8);
        fields.iter().for_each(|len| out.extend_from_slice(&len.to_le_bytes()));
        out.extend_from_slice(&(phase as u16).to_le_bytes());
        let written =
            count > 0 && self.write(&streams, lengths.get(..fields.len())?, phase + tail.len(), out);
        self.streams = streams;
        out.extend_from_slice(head);
        out.extend_from_slice(tail);
        written.then_some(Encoding::Blocks)
    }

    /// Appends the streams, which stand in `streams` one behind the other, each with its length in front. Says whether
    /// it was worth beginning; `rest` bytes of the chunk belong to no stream.
    fn write(&mut self, streams: &[u8], lengths: &[usize], rest: usize, out: &mut Vec<u8>) -> bool {
        let mut parts: [&[u8]; blocks::MAX_FIELDS] = [&[]; blocks::MAX_FIELDS];
        let mut estimates = [1.0; blocks::MAX_FIELDS];
        let (mut from, mut left, mut total) = (streams, rest as f64, rest as f64);
        for ((&len, part), estimate) in lengths.iter().zip(&mut parts).zip(&mut estimates) {
            let Some((stream, behind)) = from.split_at_checked(len) else { return false };
            (*part, from) = (stream, behind);
            *estimate = entropy::estimate(stream);
            total += len as f64;
            left += len as f64 * if entropy::pays(*estimate) { *estimate } else { 1.0 };
        }
        if left > total * HOPE {
            return false;
        }
        for (part, estimate) in parts.iter().zip(estimates).take(lengths.len()) {
            let at = out.len();
            out.extend_from_slice(&[0; 4]);
            if !entropy::pays(estimate) || !self.huffman.append(part, part.len(), out) {
                out.extend_from_slice(part);
            }
            // At most MAX_RAW: it fits.
            let len = (out.len() - at - 4) as u32;
            if let Some(field) = out.get_mut(at..at + 4) {
                field.copy_from_slice(&len.to_le_bytes());
            }
        }
        true
    }
}
