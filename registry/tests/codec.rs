//! The wire codec as its callers see it: whatever goes in comes out, and whatever else comes in is refused.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs::File;
use std::io::Write;

use registry::codec::{CodecError, Decoder, Encoder, Encoding, Layout, Layouts, MAX_RAW};

/// SplitMix64: the same bytes on each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn noise(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// Near enough to the normal distribution that trained weights have.
    fn weight(&mut self) -> f64 {
        let sum: f64 = (0..12).map(|_| self.next() as f64 / u64::MAX as f64).sum();
        (sum - 6.0) * 0.03
    }

    /// Bytes as a file of this layout has them.
    fn weights(&mut self, layout: Layout, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 512);
        if let Layout::Quantised { phase, .. } = layout {
            out.extend(self.noise(usize::from(phase)));
        }
        while out.len() < len {
            let weight = self.weight();
            let single = (weight as f32).to_bits();
            match layout {
                Layout::Bytes => {
                    out.extend_from_slice(format!("\"token {}\": {},", self.below(500), out.len()).as_bytes())
                }
                Layout::Bf16 => out.extend_from_slice(&((single >> 16) as u16).to_le_bytes()),
                // Sign, five bits of exponent, ten of mantissa; the values here are normal numbers there too.
                Layout::F16 => {
                    let exponent = ((single >> 23) & 0xff).saturating_sub(112).min(30);
                    let half = (single >> 31 << 15) | (exponent << 10) | ((single >> 13) & 0x3ff);
                    out.extend_from_slice(&(half as u16).to_le_bytes());
                }
                Layout::F32 => out.extend_from_slice(&single.to_le_bytes()),
                Layout::F64 => out.extend_from_slice(&weight.to_le_bytes()),
                // E4M3: sign, four bits of exponent, three of mantissa.
                Layout::Fp8 => {
                    let exponent = ((single >> 23) & 0xff).saturating_sub(114).min(15);
                    out.push((single >> 31 << 7 | exponent << 3 | (single >> 20) & 7) as u8);
                }
                Layout::Quantised { fields, .. } => {
                    for &len in fields {
                        let values = if len == 1 { 6 } else { 100 };
                        out.extend((0..len).map(|_| (self.below(values) + self.below(values) / 4) as u8));
                    }
                }
            }
        }
        out.truncate(len);
        out
    }
}

const Q4_1: &[u16] = &[1, 1, 1, 1, 16];
const Q6_K: &[u16] = &[128, 64, 16, 1, 1];

const LAYOUTS: [Layout; 9] = [
    Layout::Bytes,
    Layout::Bf16,
    Layout::F16,
    Layout::F32,
    Layout::F64,
    Layout::Fp8,
    Layout::Quantised { fields: Q4_1, phase: 0 },
    Layout::Quantised { fields: Q4_1, phase: 13 },
    Layout::Quantised { fields: Q6_K, phase: 209 },
];

/// Encodes, decodes, compares; gives the encoding and its bytes.
fn there_and_back(
    encoder: &mut Encoder,
    decoder: &mut Decoder,
    chunk: &[u8],
    layout: Layout,
) -> (Encoding, Vec<u8>) {
    // What is left in the buffer from before must not matter.
    let mut bytes = vec![0xaa; 33];
    let encoding = encoder.encode(chunk, layout, &mut bytes);
    if encoding == Encoding::Raw {
        assert!(bytes.is_empty());
        bytes.extend_from_slice(chunk);
    } else {
        assert!(bytes.len() * 100 <= chunk.len() * 97, "{layout:?}: {} of {}", bytes.len(), chunk.len());
    }
    let mut back = vec![0x55; chunk.len()];
    decoder
        .decode(encoding, &bytes, &mut back)
        .unwrap_or_else(|error| panic!("{layout:?}, {} bytes: {error}", chunk.len()));
    assert!(back == chunk, "{layout:?}, {} bytes", chunk.len());
    (encoding, bytes)
}

#[test]
fn every_short_length_comes_back() {
    let (mut encoder, mut decoder, mut random) = (Encoder::new(), Decoder::new(), Random(1));
    for len in 0..700 {
        for layout in LAYOUTS {
            let chunk = random.weights(layout, len);
            there_and_back(&mut encoder, &mut decoder, &chunk, layout);
            there_and_back(&mut encoder, &mut decoder, &vec![0; len], layout);
        }
    }
}

#[test]
fn any_bytes_come_back_whatever_layout_they_are_said_to_have() {
    let (mut encoder, mut decoder, mut random) = (Encoder::new(), Decoder::new(), Random(2));
    for _ in 0..300 {
        let len = random.below(MAX_RAW / 8);
        let real = LAYOUTS[random.below(LAYOUTS.len())];
        let mut chunk = random.weights(real, len);
        if random.below(3) == 0 && len > 0 {
            let at = random.below(len);
            let noise = random.noise(len - at);
            chunk[at..].copy_from_slice(&noise);
        }
        let said = LAYOUTS[random.below(LAYOUTS.len())];
        there_and_back(&mut encoder, &mut decoder, &chunk, said);
    }
}

#[test]
fn whole_chunks_take_the_encoding_of_their_layout() {
    let (mut encoder, mut decoder, mut random) = (Encoder::new(), Decoder::new(), Random(3));
    for layout in LAYOUTS {
        for len in [MAX_RAW, MAX_RAW - 1, MAX_RAW / 2 + 3] {
            let chunk = random.weights(layout, len);
            let (encoding, bytes) = there_and_back(&mut encoder, &mut decoder, &chunk, layout);
            let (wanted, most) = match layout {
                Layout::Bytes => (Encoding::Zstd, 0.40),
                Layout::Bf16 => (Encoding::Planes2, 0.68),
                Layout::F16 => (Encoding::Planes2, 0.88),
                Layout::F32 => (Encoding::Planes4, 0.85),
                Layout::F64 => (Encoding::Planes8, 0.90),
                Layout::Fp8 => (Encoding::Zstd, 0.95),
                Layout::Quantised { .. } => (Encoding::Blocks, 0.97),
            };
            assert_eq!(encoding, wanted, "{layout:?}");
            let share = bytes.len() as f64 / len as f64;
            assert!(share < most, "{layout:?}: {share}");
        }
    }
}

#[test]
fn noise_and_what_is_too_long_travel_as_they_are() {
    let (mut encoder, mut decoder, mut random) = (Encoder::new(), Decoder::new(), Random(4));
    for layout in LAYOUTS {
        for len in [1, 40, 1000, 300_000, MAX_RAW] {
            let noise = random.noise(len);
            let (encoding, _) = there_and_back(&mut encoder, &mut decoder, &noise, layout);
            assert_eq!(encoding, Encoding::Raw, "{layout:?}, {len} bytes");
        }
        let mut out = vec![1];
        assert_eq!(encoder.encode(&vec![0; MAX_RAW + 1], layout, &mut out), Encoding::Raw);
        assert!(out.is_empty());
    }
    let mut long = vec![0; MAX_RAW + 1];
    for encoding in Encoding::ALL {
        let refused = decoder.decode(encoding, &[0; 10], &mut long);
        assert_eq!(refused, Err(CodecError::Limit { found: MAX_RAW + 1 }));
    }
}

#[test]
fn repeated_noise_is_found_though_its_bytes_are_equally_frequent() {
    let (mut encoder, mut decoder, mut random) = (Encoder::new(), Decoder::new(), Random(5));
    let chunk = random.noise(10_000).repeat(50);
    let (encoding, bytes) = there_and_back(&mut encoder, &mut decoder, &chunk, Layout::Bytes);
    assert!(encoding == Encoding::Zstd && bytes.len() < 20_000, "{encoding:?}, {} bytes", bytes.len());
}

#[test]
fn fields_that_make_no_block_are_not_encoded() {
    let mut encoder = Encoder::new();
    let mut out = Vec::new();
    for (fields, phase) in [
        (&[][..], 0),
        (&[0, 4], 0),
        (&[1; 17], 0),
        (&[4096, 1], 0),
        (&[1, 1], 2),
        (&[u16::MAX; 16], 0),
        (&[64], 63),
    ] {
        let layout = Layout::Quantised { fields, phase };
        assert_eq!(encoder.encode(&[0; 60], layout, &mut out), Encoding::Raw, "{fields:?}");
        assert!(out.is_empty());
    }
}

/// Small chunks that encode, one for each layout.
fn encoded() -> Vec<(Encoding, Vec<u8>, Vec<u8>)> {
    let (mut encoder, mut decoder, mut random) = (Encoder::new(), Decoder::new(), Random(6));
    LAYOUTS
        .iter()
        .map(|&layout| {
            let chunk = random.weights(layout, 4099);
            let (encoding, bytes) = there_and_back(&mut encoder, &mut decoder, &chunk, layout);
            assert_ne!(encoding, Encoding::Raw, "{layout:?}");
            (encoding, bytes, chunk)
        })
        .collect()
}

#[test]
fn no_damaged_byte_panics_or_writes_elsewhere() {
    let mut decoder = Decoder::new();
    for (encoding, bytes, chunk) in encoded() {
        let mut same = 0;
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                // Room on both sides, which must stay as it is.
                let mut room = vec![0x77; chunk.len() + 64];
                let result = decoder.decode(encoding, &damaged, &mut room[32..32 + chunk.len()]);
                assert!(room[..32].iter().chain(&room[32 + chunk.len()..]).all(|&byte| byte == 0x77));
                same += usize::from(result.is_ok() && room[32..32 + chunk.len()] == chunk);
            }
        }
        // A bit of a padding may be free; content is not.
        assert!(same < 8, "{encoding:?}: {same} damaged encodings decode to the same chunk");
        // And the decoder still works.
        let mut back = vec![0; chunk.len()];
        decoder.decode(encoding, &bytes, &mut back).unwrap();
        assert!(back == chunk);
    }
}

#[test]
fn no_prefix_and_nothing_longer_is_accepted() {
    let mut decoder = Decoder::new();
    for (encoding, bytes, chunk) in encoded() {
        let mut back = vec![0; chunk.len()];
        for len in 0..bytes.len() {
            assert!(decoder.decode(encoding, &bytes[..len], &mut back).is_err(), "{encoding:?}: {len} bytes");
        }
        for extra in [&[0][..], &[0; 4], b"\x50\x2a\x4d\x18\0\0\0\0", &bytes] {
            let long = [&bytes[..], extra].concat();
            assert!(decoder.decode(encoding, &long, &mut back).is_err(), "{encoding:?}");
        }
    }
}

#[test]
fn no_other_length_comes_out() {
    let mut decoder = Decoder::new();
    for (encoding, bytes, chunk) in encoded() {
        for len in (0..200).chain(chunk.len() - 40..chunk.len()).chain(chunk.len() + 1..chunk.len() + 40) {
            let mut other = vec![0; len];
            assert!(decoder.decode(encoding, &bytes, &mut other).is_err(), "{encoding:?}: {len} bytes");
        }
    }
}

#[test]
fn noise_is_refused_by_every_encoding() {
    let (mut decoder, mut random) = (Decoder::new(), Random(8));
    for _ in 0..20_000 {
        let len = random.below(200);
        let noise = random.noise(len);
        let encoding = Encoding::ALL[1 + random.below(5)];
        let mut out = vec![0; random.below(400)];
        // Whether it is accepted is for the digest to judge; here it must only end.
        let _ = decoder.decode(encoding, &noise, &mut out);
    }
}

#[test]
fn identifiers_beyond_the_table_are_refused() {
    for id in 0..=u8::MAX {
        match Encoding::try_from(id) {
            Ok(encoding) => assert_eq!(encoding.id(), id),
            Err(error) => assert!(id > 5 && error == CodecError::Encoding(id)),
        }
    }
}

/// A safetensors file with these tensors, each of so many bytes.
fn safetensors(tensors: &[(&str, u64, u64)]) -> (File, u64) {
    let (mut json, mut at) = (String::from("{"), 0);
    for (i, (dtype, width, elements)) in tensors.iter().enumerate() {
        let end = at + width * elements;
        let comma = if i == 0 { "" } else { "," };
        json += &format!(
            "{comma}\"t{i:04}\":{{\"dtype\":\"{dtype}\",\"shape\":[{elements}],\"data_offsets\":[{at},{end}]}}"
        );
        at = end;
    }
    json += "}";
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&(json.len() as u64).to_le_bytes()).unwrap();
    file.write_all(json.as_bytes()).unwrap();
    let start = 8 + json.len() as u64;
    file.set_len(start + at).unwrap();
    (file, start)
}

#[test]
fn layouts_follow_the_header() {
    let (file, start) = safetensors(&[
        ("BF16", 2, 10_000),
        ("BF16", 2, 10_000),
        ("F32", 4, 10_000),
        ("F8_E4M3", 1, 10_001),
        ("F16", 2, 10_000),
        ("I64", 8, 1000),
    ]);
    let layouts = Layouts::read(&file);
    let at = |from: u64, to: u64| layouts.of(start + from..start + to);
    assert_eq!(layouts.of(0..start), Layout::Bytes);
    assert_eq!(at(0, 20_000), Layout::Bf16);
    assert_eq!(at(100, 39_998), Layout::Bf16);
    assert_eq!(at(101, 20_001), Layout::Bytes, "not at the beginning of an element");
    assert_eq!(at(10_000, 41_000), Layout::Bf16, "a few bytes of something else");
    assert_eq!(at(20_000, 60_000), Layout::Bytes, "half and half");
    assert_eq!(at(30_000, 80_000), Layout::F32);
    assert_eq!(at(80_000, 90_001), Layout::Fp8);
    assert_eq!(at(90_001, 110_001), Layout::F16);
    assert_eq!(at(110_001, 118_001), Layout::Bytes);
    assert_eq!(at(118_001, 1 << 40), Layout::Bytes, "behind the end");
    assert_eq!(layouts.of(7..7), Layout::Bytes);
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = layouts.of(u64::MAX..0);
    assert_eq!(reversed, Layout::Bytes);
}

#[test]
fn what_is_no_file_of_weights_has_no_layout_and_keeps_its_position() {
    use std::io::{Seek, SeekFrom};
    for content in [&b""[..], b"GGU", b"GGUF", b"GGUF\x03\0\0\0", b"{\"a\": 1}", &[0xff; 100], &[0; 5000]] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file.seek(SeekFrom::Start(2)).unwrap();
        let layouts = Layouts::read(&file);
        assert_eq!(layouts.of(0..content.len() as u64), Layout::Bytes);
        assert_eq!(file.stream_position().unwrap(), 2);
    }
}

/// A GGUF file of one tensor of this type (its number) with so many bytes.
fn gguf(number: u32, elements: u64, bytes: usize) -> (File, u64) {
    let mut head = b"GGUF\x03\0\0\0".to_vec();
    head.extend_from_slice(&1u64.to_le_bytes());
    head.extend_from_slice(&0u64.to_le_bytes());
    head.extend_from_slice(&1u64.to_le_bytes());
    head.push(b't');
    head.extend_from_slice(&1u32.to_le_bytes());
    head.extend_from_slice(&elements.to_le_bytes());
    head.extend_from_slice(&number.to_le_bytes());
    head.extend_from_slice(&0u64.to_le_bytes());
    let start = head.len().next_multiple_of(32);
    head.resize(start + bytes, 0);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&head).unwrap();
    (file, start as u64)
}

#[test]
fn a_chunk_within_a_quantised_tensor_knows_where_the_next_block_begins() {
    let (file, start) = gguf(3, 32 * 1000, 20_000);
    let layouts = Layouts::read(&file);
    for from in 0..40u64 {
        let phase = ((20 - from % 20) % 20) as u16;
        let layout = layouts.of(start + from..start + from + 10_000);
        assert_eq!(layout, Layout::Quantised { fields: Q4_1, phase });
    }
    let (file, start) = gguf(14, 256 * 100, 21_000);
    let layouts = Layouts::read(&file);
    // The range begins in the header, a block later than the tensor.
    assert_eq!(layouts.of(start - 10..start + 21_000), Layout::Quantised { fields: Q6_K, phase: 10 });
}

#[test]
fn the_fields_of_every_quantised_type_make_up_its_block() {
    // ggml's number, elements and bytes of a block: `specs/01-digests-and-chunk-maps.md`, FMT-015.
    let types = [
        (2, 32, 18),
        (3, 32, 20),
        (6, 32, 22),
        (7, 32, 24),
        (8, 32, 34),
        (9, 32, 36),
        (10, 256, 84),
        (11, 256, 110),
        (12, 256, 144),
        (13, 256, 176),
        (14, 256, 210),
        (15, 256, 292),
        (16, 256, 66),
        (17, 256, 74),
        (18, 256, 98),
        (19, 256, 50),
        (20, 32, 18),
        (21, 256, 110),
        (22, 256, 82),
        (23, 256, 136),
        (29, 256, 56),
        (34, 256, 54),
        (35, 256, 66),
        (39, 32, 17),
        (40, 64, 36),
        (41, 128, 18),
        (42, 64, 18),
    ];
    for (number, elements, bytes) in types {
        let (file, start) = gguf(number, elements * 100, bytes as usize * 100);
        let layout = Layouts::read(&file).of(start..start + bytes * 100);
        let Layout::Quantised { fields, phase: 0 } = layout else { panic!("type {number}: {layout:?}") };
        assert_eq!(fields.iter().map(|&len| u64::from(len)).sum::<u64>(), bytes, "type {number}");
    }
}
