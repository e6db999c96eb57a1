//! Zstandard, as it is used here: frames of one form, made by its Huffman stage alone or by plain compression, and a
//! look at a sample that tells whether it is worth the time.

use std::io::Cursor;

use zstd::zstd_safe::{self, CCtx, CParameter, DCtx, ParamSwitch};

use super::CodecError;

/// The compression level at which Zstandard's match finder steps over everything, so that only the entropy stage is
/// left: the lowest that there is.
const HUFFMAN_LEVEL: i32 = -131_072;
/// The level for bytes without a known layout (headers, tokenisers): the usual one.
const PLAIN_LEVEL: i32 = 3;
/// Logarithm of the window: 1 MiB, the longest chunk, so that each frame is a single segment.
const WINDOW_LOG: u32 = 20;

/// First bytes of a frame (RFC 8878, section 3.1.1).
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The bits of the frame header's descriptor other than the size of the content size.
const DESCRIPTOR_MASK: u8 = 0b0011_1111;
/// What they must be: a single segment, no checksum (the digest is one), no dictionary, nothing reserved.
const DESCRIPTOR: u8 = 0b0010_0000;

/// Runs in a sample, spread evenly, and bytes in each: enough to know the entropy to half a hundredth, and a hundredth
/// of the time that compression takes.
const SAMPLE_RUNS: usize = 32;
const SAMPLE_RUN: usize = 256;
/// A stream is coded when its sample promises to save so much of it: Zstandard itself keeps a block's literals as they
/// are when they save less than a 64th.
const MIN_STREAM_SAVING: f64 = 1.0 / 64.0;

/// Makes frames with one kind of compression.
pub(super) struct Compressor(CCtx<'static>);

impl Compressor {
    /// Huffman codes for literals, no matches: for streams of bytes of one kind.
    pub(super) fn huffman() -> Self {
        let literals = CParameter::LiteralCompressionMode(ParamSwitch::Enable);
        Self::with(&[CParameter::CompressionLevel(HUFFMAN_LEVEL), literals])
    }

    /// Zstandard as usual: for text and whatever else repeats.
    pub(super) fn plain() -> Self {
        Self::with(&[CParameter::CompressionLevel(PLAIN_LEVEL)])
    }

    fn with(parameters: &[CParameter]) -> Self {
        let mut context = CCtx::create();
        let form = [
            CParameter::WindowLog(WINDOW_LOG),
            CParameter::ContentSizeFlag(true),
            CParameter::ChecksumFlag(false),
            CParameter::DictIdFlag(false),
        ];
        for &parameter in parameters.iter().chain(&form) {
            // Constants within Zstandard's range. Were one refused, frames would be larger or of a form that the
            // tests, which run the same constants, do not accept.
            let taken = context.set_parameter(parameter);
            debug_assert!(taken.is_ok(), "{parameter:?}");
        }
        Self(context)
    }

    /// Appends `source` as one frame to `out`, unless that takes `limit` bytes or more; says whether it did.
    pub(super) fn append(&mut self, source: &[u8], limit: usize, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        out.reserve(zstd_safe::compress_bound(source.len()));
        let mut target = Cursor::new(&mut *out);
        target.set_position(start as u64);
        let written = self.0.compress2(&mut target, source);
        let fits = written.is_ok_and(|len| len < limit);
        if !fits {
            out.truncate(start);
        }
        fits
    }
}

/// Reads frames of the one form.
pub(super) struct Decompressor(DCtx<'static>);

impl Decompressor {
    pub(super) fn new() -> Self {
        Self(DCtx::create())
    }

    /// Decodes `bytes`, exactly one frame, to exactly `target`. A single segment is decoded into its target directly,
    /// so nothing that the frame says makes Zstandard allocate a window.
    pub(super) fn read(&mut self, bytes: &[u8], target: &mut [u8]) -> Result<(), CodecError> {
        let found = content_size(bytes)?;
        if found != target.len() as u64 {
            return Err(CodecError::ContentSize { found, expected: target.len() });
        }
        // Zstandard would go on with a second frame behind the first, or skip one.
        let end = zstd_safe::find_frame_compressed_size(bytes).map_err(damaged)?;
        match bytes.len().checked_sub(end) {
            Some(0) => {}
            Some(extra) => return Err(CodecError::Trailing(extra)),
            None => return Err(CodecError::Truncated("a frame")),
        }
        let written = self.0.decompress(target, bytes).map_err(damaged)?;
        if written != target.len() {
            return Err(CodecError::ContentSize { found: written as u64, expected: target.len() });
        }
        Ok(())
    }
}

fn damaged(code: usize) -> CodecError {
    CodecError::Damaged(zstd_safe::get_error_name(code))
}

/// The content size that a frame of the one form announces (RFC 8878, section 3.1.1.1).
fn content_size(bytes: &[u8]) -> Result<u64, CodecError> {
    let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(CodecError::Truncated("a frame's header"))?;
    let (descriptor, rest) = rest.split_first().ok_or(CodecError::Truncated("a frame's header"))?;
    if *magic != MAGIC || descriptor & DESCRIPTOR_MASK != DESCRIPTOR {
        return Err(CodecError::Frame);
    }
    let (len, offset) = match descriptor >> 6 {
        0 => (1, 0),
        1 => (2, 256),
        2 => (4, 0),
        _ => (8, 0),
    };
    let field = rest.get(..len).ok_or(CodecError::Truncated("a frame's header"))?;
    let mut number = [0; 8];
    for (to, from) in number.iter_mut().zip(field) {
        *to = *from;
    }
    Ok(u64::from_le_bytes(number).saturating_add(offset))
}

/// The share of `stream` that entropy coding would leave, by a sample: 0 to 1. A sample makes it a little too small,
/// never too large.
pub(super) fn estimate(stream: &[u8]) -> f64 {
    let mut counts = [[0u32; 256]; 2];
    let mut add = |run: &[u8]| {
        // Two tables, so that equal neighbours do not wait for each other.
        let [even, odd] = &mut counts;
        for pair in run.as_chunks::<2>().0 {
            even[usize::from(pair[0])] += 1;
            odd[usize::from(pair[1])] += 1;
        }
    };
    if stream.len() <= SAMPLE_RUNS * SAMPLE_RUN {
        add(stream);
    } else {
        let step = stream.len() / SAMPLE_RUNS;
        stream.chunks_exact(step).take(SAMPLE_RUNS).for_each(|part| add(&part[..SAMPLE_RUN]));
    }
    let [even, odd] = &counts;
    let total: u32 = even.iter().chain(odd).sum();
    let total = f64::from(total.max(1));
    let bits: f64 = even
        .iter()
        .zip(odd)
        .map(|(&a, &b)| f64::from(a + b))
        .filter(|&count| count > 0.0)
        .map(|count| count * (total / count).log2())
        .sum();
    bits / (8.0 * total)
}

/// Whether coding is worth the time for a stream of this estimate.
pub(super) fn pays(estimate: f64) -> bool {
    estimate < 1.0 - MIN_STREAM_SAVING
}
