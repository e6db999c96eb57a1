//! Files of weights of any size, the same bytes for the same seed; and files that attack their reader.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::tiny::{self, Random, Weights, assemble};

/// Bytes made at a time.
const BLOCK: usize = 1 << 20;
/// Bytes of one tensor: that of a large matrix, so that a file of some GiB has hundreds of tensors.
const TENSOR: u64 = 16 << 20;

/// Bytes that do not compress, at memory speed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Noise(u64);

impl Noise {
    /// The noise of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Fills `out` with what comes next.
    pub fn fill(&mut self, out: &mut [u8]) {
        for word in out.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let bytes = (z ^ (z >> 31)).to_le_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
        }
    }

    /// Writes `count` bytes of noise.
    pub fn write(&mut self, out: &mut impl Write, count: u64) -> io::Result<()> {
        let mut block = vec![0; BLOCK];
        let mut left = count;
        while left > 0 {
            let now = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
            self.fill(&mut block[..now]);
            out.write_all(&block[..now])?;
            left -= now as u64;
        }
        Ok(())
    }
}

/// A GGUF file of a real if useless model of 150 KB, which a worker loads in a moment and answers with, thousands of tokens
/// a second.
pub fn tiny_gguf() -> Vec<u8> {
    crate::tiny::gguf(Some(crate::tiny::TEMPLATE))
}

/// An adapter for that model, as llama.cpp's converter writes it; each number another one.
pub fn tiny_adapter(number: u64) -> Vec<u8> {
    crate::tiny::adapter(number)
}

/// An adapter of rank 16 for the queries and values of SmolLM2-135M, as most are; each number another one.
pub fn smollm2_adapter(number: u64) -> Vec<u8> {
    const RANK: u64 = 16;
    let pairs = tiny::lora(|_| None, RANK as f32);
    let mut random = Random(number + 1);
    // So small that answers stay what they are.
    let mut half = |name: String, shape: [u64; 2]| Weights {
        name,
        shape: shape.into(),
        numbers: (0..shape[0] * shape[1]).map(|_| random.next() * 1e-3).collect(),
    };
    let mut tensors = Vec::new();
    for layer in 0..30 {
        for (part, height) in [("q", 576), ("v", 192)] {
            let name = format!("blk.{layer}.attn_{part}.weight");
            tensors.push(half(format!("{name}.lora_a"), [576, RANK]));
            tensors.push(half(format!("{name}.lora_b"), [RANK, height]));
        }
    }
    assemble(&pairs, &tensors)
}

/// Writes a safetensors file of about `size` bytes (BF16 tensors of noise) at `path`.
pub fn safetensors(path: &Path, size: u64, seed: u64) -> io::Result<()> {
    let (mut file, data) = safetensors_header(path, size)?;
    Noise::new(seed).write(&mut file, data)
}

/// Writes a safetensors file of about `size` bytes at `path` whose BF16 values are spread as those of trained weights are: normally,
/// with a standard deviation of 0.02.
pub fn weights(path: &Path, size: u64, seed: u64) -> io::Result<()> {
    let (mut file, data) = safetensors_header(path, size)?;
    // Two draws of noise each (Box and Muller); a value for each pair of bytes of noise.
    let mut noise = Noise::new(seed);
    let mut draws = vec![0; 16 << 16];
    noise.fill(&mut draws);
    let uniform = |bytes: &[u8]| {
        let word = u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
        ((word >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    let values: Vec<[u8; 2]> = draws
        .chunks(16)
        .map(|draw| {
            let (one, two) = draw.split_at(8);
            let normal = (-2.0 * uniform(one).ln()).sqrt() * (std::f64::consts::TAU * uniform(two)).cos();
            (((normal * 0.02) as f32).to_bits() >> 16) as u16
        })
        .map(u16::to_le_bytes)
        .collect();
    let mut block = vec![0; BLOCK];
    let mut left = data;
    while left > 0 {
        let now = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
        noise.fill(&mut block[..now]);
        for pair in block[..now].chunks_exact_mut(2) {
            pair.copy_from_slice(&values[usize::from(u16::from_le_bytes([pair[0], pair[1]]))]);
        }
        file.write_all(&block[..now])?;
        left -= now as u64;
    }
    Ok(())
}

/// The file with its header written, and how many bytes of data follow.
fn safetensors_header(path: &Path, size: u64) -> io::Result<(File, u64)> {
    let mut header = String::from("{\"__metadata__\":{\"format\":\"pt\"}");
    let data = size.max(2) / 2 * 2;
    let mut at = 0;
    let mut index = 0;
    while at < data {
        let end = (at + TENSOR).min(data);
        header.push_str(&format!(
            ",\"model.layers.{index}.weight\":{{\"dtype\":\"BF16\",\"shape\":[{}],\"data_offsets\":[{at},{end}]}}",
            (end - at) / 2
        ));
        at = end;
        index += 1;
    }
    header.push('}');
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    let mut file = File::create(path)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    Ok((file, data))
}

/// Writes a GGUF file of about `size` bytes (F16 tensors of noise) at `path`. No engine can run it.
pub fn gguf(path: &Path, size: u64, seed: u64) -> io::Result<()> {
    let count = size.div_ceil(TENSOR).max(1);
    let each = (size / count).max(32) / 32 * 32;
    let mut head = b"GGUF".to_vec();
    head.extend(3u32.to_le_bytes());
    head.extend(count.to_le_bytes());
    head.extend(1u64.to_le_bytes());
    text(&mut head, "general.architecture");
    head.extend(8u32.to_le_bytes());
    text(&mut head, "llama");
    for index in 0..count {
        text(&mut head, &format!("blk.{index}.weight"));
        head.extend(1u32.to_le_bytes());
        head.extend((each / 2).to_le_bytes());
        head.extend(1u32.to_le_bytes());
        head.extend((index * each).to_le_bytes());
    }
    while !head.len().is_multiple_of(32) {
        head.push(0);
    }
    let mut file = File::create(path)?;
    file.write_all(&head)?;
    Noise::new(seed).write(&mut file, each * count)
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Files whose headers attack their reader: a name for the file, and its bytes.
pub fn header_bombs() -> Vec<(&'static str, Vec<u8>)> {
    let sized = |header: &str| {
        let mut out = (header.len() as u64).to_le_bytes().to_vec();
        out.extend(header.as_bytes());
        out
    };
    let gguf = |tensors: u64, entries: u64, rest: &[u8]| {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend(tensors.to_le_bytes());
        out.extend(entries.to_le_bytes());
        out.extend(rest);
        out
    };
    let mut nested = Vec::new();
    text(&mut nested, "a");
    for _ in 0..100_000 {
        nested.extend(9u32.to_le_bytes());
        nested.extend(9u32.to_le_bytes());
        nested.extend(1u64.to_le_bytes());
    }
    vec![
        ("length-of-all-ones.safetensors", [&u64::MAX.to_le_bytes()[..], b"{}"].concat()),
        ("length-beyond-the-file.safetensors", [&(1u64 << 40).to_le_bytes()[..], b"{}"].concat()),
        ("nested-objects.safetensors", sized(&("{\"a\":".repeat(50_000) + "1" + &"}".repeat(50_000)))),
        (
            "overlapping-tensors.safetensors",
            [
                sized("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}"),
                vec![0; 6],
            ]
            .concat(),
        ),
        ("shape-overflows.safetensors", sized("{\"a\":{\"dtype\":\"F64\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}")),
        ("tensors-without-end.gguf", gguf(u64::MAX, 0, b"")),
        ("entries-without-end.gguf", gguf(0, u64::MAX, b"")),
        ("a-text-of-all-ones.gguf", gguf(0, 1, &u64::MAX.to_le_bytes())),
        ("nested-arrays.gguf", gguf(0, 1, &nested)),
    ]
}

/// A small random Llama in F32 and its configuration, with heads of 32 numbers: every engine knows those.
pub fn llama(folder: &Path) -> io::Result<()> {
    const HIDDEN: usize = 128;
    const INNER: usize = 192;
    const VOCABULARY: usize = 264;
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, HIDDEN]),
        ("lm_head.weight".to_owned(), vec![VOCABULARY, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..2 {
        let of = |part: &str| format!("model.layers.{layer}.{part}.weight");
        shapes.extend([
            (of("input_layernorm"), vec![HIDDEN]),
            (of("post_attention_layernorm"), vec![HIDDEN]),
            (of("self_attn.q_proj"), vec![HIDDEN, HIDDEN]),
            (of("self_attn.k_proj"), vec![HIDDEN / 2, HIDDEN]),
            (of("self_attn.v_proj"), vec![HIDDEN / 2, HIDDEN]),
            (of("self_attn.o_proj"), vec![HIDDEN, HIDDEN]),
            (of("mlp.gate_proj"), vec![INNER, HIDDEN]),
            (of("mlp.up_proj"), vec![INNER, HIDDEN]),
            (of("mlp.down_proj"), vec![HIDDEN, INNER]),
        ]);
    }
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    let mut random = Noise::new(7);
    for (name, shape) in shapes {
        let start = data.len();
        for _ in 0..shape.iter().product::<usize>() {
            let mut word = [0; 4];
            random.fill(&mut word);
            // Even between -0.4 and 0.4: wide enough that the likeliest token leads clearly.
            let value = (u32::from_le_bytes(word) as f32 / u32::MAX as f32 - 0.5) * 0.8;
            data.extend((if shape.len() == 1 { 1.0 } else { value }).to_le_bytes());
        }
        let place =
            serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] });
        header.insert(name, place);
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = File::create(folder.join("model.safetensors"))?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    file.write_all(&data)?;
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "head_dim": 32,
        "intermediate_size": INNER, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "vocab_size": VOCABULARY,
        "hidden_act": "silu", "tie_word_embeddings": false, "attention_bias": false, "mlp_bias": false,
        "bos_token_id": 256, "eos_token_id": 257, "torch_dtype": "float32",
    });
    std::fs::write(folder.join("config.json"), serde_json::to_vec(&config)?)
}
