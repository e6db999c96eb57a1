//! For the tests: a real but very small model of random weights in a GGUF file of its own, and what is needed
//! around it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use registry::admitted::{Admitted, Handoff};
use registry::digest::Digest;

/// A folder that is removed at the end of the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("steelyard-inference-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A hand-off of files that need not exist.
pub(crate) fn handoff(files: &[(&str, Digest, u64, &Path)]) -> Handoff {
    handoff_of("alba/tiny", Digest::of(b"release"), files)
}

/// The same of another model and release.
pub(crate) fn handoff_of(model: &str, release: Digest, files: &[(&str, Digest, u64, &Path)]) -> Handoff {
    let files: Vec<_> = files
        .iter()
        .map(|(path, blob, size, location)| {
            serde_json::json!({
                "path": path, "blob": blob, "size": size, "media_type": "application/octet-stream",
                "chunk_map": Digest::of(b"map"), "location": location,
            })
        })
        .collect();
    serde_json::from_value(serde_json::json!({
        "release": release, "model": model, "version": "1.0.0", "format": "gguf",
        "admitted": "2026-11-01T00:00:00Z", "files": files,
    }))
    .unwrap()
}

/// An admission of files that don't exist.
pub(crate) fn admitted(paths: &[&str]) -> Admitted {
    let digest = Digest::of(b"x");
    let files: Vec<_> = paths.iter().map(|path| (*path, digest, 1, Path::new("/nonexistent"))).collect();
    Admitted::receive(handoff(&files))
}

/// The chat template of the small model.
pub(crate) const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + \
     message['content'].strip() + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ \
     '<|im_start|>assistant\\n' }}{% endif %}";
/// Its special tokens, after the 256 tokens of single bytes and one of two.
pub(crate) const SPECIALS: [&str; 4] = ["<|im_start|>", "<|im_end|>", "<s>", "<unk>"];
/// The number of the first of them.
pub(crate) const FIRST_SPECIAL: i32 = 257;
/// Tokens of context that it was "trained" on.
pub(crate) const TRAINED: u32 = 8192;

const WIDTH: u64 = 64;
const ALIGNMENT: usize = 32;

/// A Llama of one layer, 64 wide, on a byte vocabulary: 150 KB, thousands of tokens a second, and never the
/// end at temperature 0.
pub(crate) fn gguf(template: Option<&str>) -> Vec<u8> {
    let (pairs, tensors) = build(template, None);
    assemble(&pairs, &tensors)
}

/// The same as a model that makes vectors, in this way.
pub(crate) fn embedder(pooling: u32) -> Vec<u8> {
    let (pairs, tensors) = build(None, Some(pooling));
    assemble(&pairs, &tensors)
}

fn build(template: Option<&str>, pooling: Option<u32>) -> (Pairs, Vec<Weights>) {
    let vocabulary = FIRST_SPECIAL as u64 + SPECIALS.len() as u64;
    let mut pairs = Pairs::default();
    pairs.text("general.architecture", "llama");
    for (key, number) in [
        ("context_length", TRAINED),
        ("embedding_length", WIDTH as u32),
        ("block_count", 1),
        ("feed_forward_length", WIDTH as u32),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 2),
        ("rope.dimension_count", WIDTH as u32 / 2),
        ("vocab_size", vocabulary as u32),
    ] {
        pairs.key(&format!("llama.{key}"), 4);
        pairs.bytes.extend(number.to_le_bytes());
    }
    if let Some(pooling) = pooling {
        pairs.key("llama.pooling_type", 4);
        pairs.bytes.extend(pooling.to_le_bytes());
    }
    pairs.key("llama.attention.layer_norm_rms_epsilon", 6);
    pairs.bytes.extend(1e-5f32.to_le_bytes());
    pairs.text("tokenizer.ggml.model", "gpt2");
    pairs.text("tokenizer.ggml.pre", "gpt-2");
    let mut tokens: Vec<String> = (0..=255).map(|byte| byte_text(byte).to_string()).collect();
    tokens.push("he".to_owned());
    tokens.extend(SPECIALS.map(str::to_owned));
    pairs.texts("tokenizer.ggml.tokens", &tokens);
    pairs.texts("tokenizer.ggml.merges", &["h e".to_owned()]);
    pairs.key("tokenizer.ggml.token_type", 9);
    pairs.bytes.extend(5u32.to_le_bytes());
    pairs.bytes.extend(vocabulary.to_le_bytes());
    for token in 0..vocabulary {
        // Normal, control, and unknown for the last.
        let kind: i32 = if token + 1 == vocabulary {
            2
        } else if token >= FIRST_SPECIAL as u64 {
            3
        } else {
            1
        };
        pairs.bytes.extend(kind.to_le_bytes());
    }
    for (key, number) in
        [("bos_token_id", FIRST_SPECIAL as u32 + 2), ("eos_token_id", FIRST_SPECIAL as u32 + 1)]
    {
        pairs.key(&format!("tokenizer.ggml.{key}"), 4);
        pairs.bytes.extend(number.to_le_bytes());
    }
    pairs.key("tokenizer.ggml.add_bos_token", 7);
    pairs.bytes.push(1);
    if let Some(template) = template {
        pairs.text("tokenizer.chat_template", template);
    }
    (pairs, weights(vocabulary))
}

/// GPT-2's printable character for a byte.
fn byte_text(byte: u8) -> char {
    let printable = |byte: u32| (33..=126).contains(&byte) || (161..=172).contains(&byte) || byte >= 174;
    let byte = u32::from(byte);
    let hidden = (0..byte).filter(|earlier| !printable(*earlier)).count() as u32;
    char::from_u32(if printable(byte) { byte } else { 256 + hidden }).unwrap()
}

/// A tensor of a file: its name, its lengths with the inner one first, and its numbers.
pub(crate) struct Weights {
    pub(crate) name: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) numbers: Vec<f32>,
}

/// Numbers that are always the same, from -0.5 to 0.5.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    }
}

fn weights(vocabulary: u64) -> Vec<Weights> {
    let square = |name: &str| (format!("blk.0.{name}.weight"), vec![WIDTH, WIDTH]);
    let norm = |name: &str| (format!("{name}.weight"), vec![WIDTH]);
    let tensors = [
        ("token_embd.weight".to_owned(), vec![WIDTH, vocabulary]),
        norm("output_norm"),
        ("output.weight".to_owned(), vec![WIDTH, vocabulary]),
        norm("blk.0.attn_norm"),
        norm("blk.0.ffn_norm"),
        square("attn_q"),
        square("attn_k"),
        square("attn_v"),
        square("attn_output"),
        square("ffn_gate"),
        square("ffn_up"),
        square("ffn_down"),
    ];
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut made = |(name, shape): (String, Vec<u64>)| {
        let count: u64 = shape.iter().product();
        let number = |index| {
            let unit = random.next();
            // Special tokens are never the likeliest, so an answer goes on for as long as it is asked to.
            let silent = name == "output.weight" && index / WIDTH >= FIRST_SPECIAL as u64;
            match shape.len() {
                _ if silent => 0.0,
                1 => 1.0,
                _ => unit,
            }
        };
        let numbers = (0..count).map(number).collect();
        Weights { name, shape, numbers }
    };
    tensors.map(&mut made).into()
}

/// A file of these metadata and tensors.
pub(crate) fn assemble(pairs: &Pairs, tensors: &[Weights]) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend(pairs.count.to_le_bytes());
    file.extend(&pairs.bytes);
    let mut data = Vec::new();
    for Weights { name, shape, numbers } in tensors {
        put_text(&mut file, name);
        file.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|length| file.extend(length.to_le_bytes()));
        file.extend(0u32.to_le_bytes());
        file.extend((data.len() as u64).to_le_bytes());
        numbers.iter().for_each(|number| data.extend(number.to_le_bytes()));
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
    }
    file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
    file.extend(data);
    file
}

/// The matrices of the small model that its adapter changes, and its rank and strength.
const ADAPTED: [&str; 3] = ["blk.0.attn_q.weight", "blk.0.attn_v.weight", "blk.0.ffn_down.weight"];
const RANK: u64 = 4;
const ALPHA: f32 = 8.0;

/// The two halves of what the adapter of this number adds to a matrix: `[rank, in]` and `[out, rank]`, the rows behind each other.
fn halves(number: u64, matrix: usize) -> [Vec<f32>; 2] {
    let mut random = Random(0xD1B5_4A32_D192_ED03 ^ (number << 8 | matrix as u64));
    let half = |random: &mut Random| (0..RANK * WIDTH).map(|_| random.next()).collect::<Vec<f32>>();
    [half(&mut random), half(&mut random)]
}

/// An adapter for the small model, as llama.cpp's converter writes it; each number another one.
pub(crate) fn adapter(number: u64) -> Vec<u8> {
    adapter_like(number, &[])
}

/// The metadata of an adapter for a Llama of this strength, with other texts where `changed` has one for a key.
pub(crate) fn lora<'a>(changed: impl Fn(&str) -> Option<&'a str>, alpha: f32) -> Pairs {
    let mut pairs = Pairs::default();
    for (key, usual) in
        [("general.type", "adapter"), ("general.architecture", "llama"), ("adapter.type", "lora")]
    {
        pairs.text(key, changed(key).unwrap_or(usual));
    }
    pairs.key("adapter.lora.alpha", 6);
    pairs.bytes.extend(alpha.to_le_bytes());
    pairs
}

/// An adapter of this number with other texts in the place of some of its metadata and names.
pub(crate) fn adapter_like(number: u64, changes: &[(&str, &str)]) -> Vec<u8> {
    let changed = |key: &str| changes.iter().find(|(changed, _)| *changed == key).map(|(_, value)| *value);
    let pairs = lora(changed, ALPHA);
    let mut tensors = Vec::new();
    for (matrix, name) in ADAPTED.iter().enumerate() {
        let renamed = changed(name).unwrap_or(name);
        let [a, b] = halves(number, matrix);
        tensors.push(Weights { name: format!("{renamed}.lora_a"), shape: vec![WIDTH, RANK], numbers: a });
        tensors.push(Weights { name: format!("{renamed}.lora_b"), shape: vec![RANK, WIDTH], numbers: b });
    }
    assemble(&pairs, &tensors)
}

/// The small model into whose weights the adapter of this number was reckoned.
pub(crate) fn merged(template: Option<&str>, number: u64) -> Vec<u8> {
    let (pairs, mut tensors) = build(template, None);
    let (rank, width) = (RANK as usize, WIDTH as usize);
    for (matrix, name) in ADAPTED.iter().enumerate() {
        let [a, b] = halves(number, matrix);
        let weights = tensors.iter_mut().find(|tensor| tensor.name == *name).unwrap();
        for (place, weight) in weights.numbers.iter_mut().enumerate() {
            let (row, column) = (place / width, place % width);
            let sum: f32 = (0..rank).map(|inner| b[row * rank + inner] * a[inner * width + column]).sum();
            *weight += sum * ALPHA / RANK as f32;
        }
    }
    assemble(&pairs, &tensors)
}

/// Metadata.
#[derive(Default)]
pub(crate) struct Pairs {
    pub(crate) bytes: Vec<u8>,
    count: u64,
}

impl Pairs {
    pub(crate) fn key(&mut self, key: &str, kind: u32) {
        put_text(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
        self.count += 1;
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        put_text(&mut self.bytes, value);
    }

    fn texts(&mut self, key: &str, values: &[String]) {
        self.key(key, 9);
        self.bytes.extend(8u32.to_le_bytes());
        self.bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| put_text(&mut self.bytes, value));
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// A connection on which one request was sent.
pub(crate) fn send(address: SocketAddr, method: &str, path: &str, body: &str) -> TcpStream {
    send_with(address, method, path, "", body)
}

/// The same with more lines in the head, each with its end.
pub(crate) fn send_with(address: SocketAddr, method: &str, path: &str, more: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A server that refuses early may close before it has read everything.
    let _ = stream.write_all(body.as_bytes());
    stream
}

/// The status and the whole body, chunks joined, of an answer.
pub(crate) fn receive(mut stream: TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return (status, body.to_owned());
    }
    let mut rest = body;
    let mut joined = String::new();
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        joined.push_str(&after[..length]);
        rest = &after[length + 2..];
    }
    (status, joined)
}
