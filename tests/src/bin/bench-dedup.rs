//! `make bench-dedup`: what a revision of a model costs whoever has the one before it.
//!
//! A generated model of about 60 MiB (BF16, Llama's shapes, safetensors) and what people do to it: one tensor replaced, a
//! longer header, other shards, a fine-tune that changed all attention matrices. For each the bytes that nobody who has
//! the original has yet, by three ways to cut: ours, by content alone, and at every MiB. The first is not only computed:
//! a store that holds the original takes the rest from there, and the blob must come out whole.
//!
//! ```text
//! STEELYARD_BENCH_DIR    where the files lie (/dev/shm)
//! ```
//!
//! It ends with lines `bar NAME VALUE LIMIT ok|short` and with exit 1 when one is short.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use registry::chunk::{Chunk, ChunkMap, MAX_CHUNK, build};
use registry::key::SecretKey;
use registry::statement::{RoleKeys, RoleName, Root, RootKey, Statement};
use registry::store::Store;
use registry::timestamp::DAY;
use registry::{Digest, Nation, Signed, Timestamp};
use tests::generate::Noise;

/// Bytes over the replaced tensor's own that a revision may cost, in percent of the file.
const MAX_EXTRA_PERCENT: f64 = 0.05;
/// The model's hidden size.
const HIDDEN: u64 = 512;
/// The share of it that keys and values have.
const KEYS: u64 = 128;
/// The size inside its multi-layer perceptrons.
const INNER: u64 = 1376;
/// Its vocabulary.
const WORDS: u64 = 8192;
/// Its layers.
const LAYERS: u64 = 10;
/// Bytes of a BF16 value.
const BF16: u64 = 2;

/// A tensor: its name, its shape, and its bytes.
#[derive(Clone)]
struct Tensor {
    name: String,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

fn tensor(name: String, shape: &[u64], seed: u64) -> Tensor {
    let mut bytes = vec![0; (shape.iter().product::<u64>() * BF16) as usize];
    Noise::new(seed).fill(&mut bytes);
    Tensor { name, shape: shape.to_vec(), bytes }
}

/// The model's tensors, in the order in which they lie in the file.
fn model() -> Vec<Tensor> {
    let mut out = vec![tensor("model.embed_tokens.weight".to_owned(), &[WORDS, HIDDEN], 1)];
    for layer in 0..LAYERS {
        let parts: [(&str, &[u64]); 9] = [
            ("input_layernorm", &[HIDDEN]),
            ("mlp.down_proj", &[HIDDEN, INNER]),
            ("mlp.gate_proj", &[INNER, HIDDEN]),
            ("mlp.up_proj", &[INNER, HIDDEN]),
            ("post_attention_layernorm", &[HIDDEN]),
            ("self_attn.k_proj", &[KEYS, HIDDEN]),
            ("self_attn.o_proj", &[HIDDEN, HIDDEN]),
            ("self_attn.q_proj", &[HIDDEN, HIDDEN]),
            ("self_attn.v_proj", &[KEYS, HIDDEN]),
        ];
        for (part, shape) in parts {
            let seed = 100 + out.len() as u64;
            out.push(tensor(format!("model.layers.{layer}.{part}.weight"), shape, seed));
        }
    }
    out.push(tensor("model.norm.weight".to_owned(), &[HIDDEN], 2));
    out
}

/// A safetensors file of these; the note is `note` bytes long.
fn file(tensors: &[Tensor], note: usize) -> Vec<u8> {
    let mut header = format!("{{\"__metadata__\":{{\"format\":\"pt\",\"note\":\"{}\"}}", "x".repeat(note));
    let mut at = 0;
    for Tensor { name, shape, bytes } in tensors {
        let end = at + bytes.len();
        header.push_str(&format!(
            ",\"{name}\":{{\"dtype\":\"BF16\",\"shape\":{shape:?},\"data_offsets\":[{at},{end}]}}"
        ));
        at = end;
    }
    header.push('}');
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    tensors.iter().for_each(|tensor| out.extend_from_slice(&tensor.bytes));
    out
}

/// A way to cut a file into chunks.
#[derive(Clone, Copy)]
enum Way {
    Tensors,
    Content,
    Fixed,
}

fn cut(bytes: &[u8], way: Way) -> ChunkMap {
    let size = bytes.len() as u64;
    match way {
        Way::Tensors => {
            let layout =
                registry::format::inspect("model.safetensors", Cursor::new(bytes), size).unwrap().layout;
            build(bytes, size, layout.as_ref(), |_| Ok(())).unwrap().map
        }
        Way::Content => build(bytes, size, None, |_| Ok(())).unwrap().map,
        Way::Fixed => {
            let chunks = bytes
                .chunks(MAX_CHUNK as usize)
                .map(|part| Chunk { digest: Digest::of(part), len: part.len() as u32 })
                .collect();
            ChunkMap::new(Digest::of(bytes), size, chunks).unwrap()
        }
    }
}

/// Bytes of chunks of `new` that no file of `old` has, each counted once, in percent of all bytes of `new`.
fn new_percent(old: &[Vec<u8>], new: &[Vec<u8>], way: Way) -> f64 {
    let mut known: BTreeSet<Digest> =
        old.iter().flat_map(|file| cut(file, way).chunks().to_vec()).map(|chunk| chunk.digest).collect();
    let mut bytes = 0;
    for file in new {
        for chunk in cut(file, way).chunks() {
            if known.insert(chunk.digest) {
                bytes += u64::from(chunk.len);
            }
        }
    }
    percent(bytes, new)
}

fn percent(bytes: u64, files: &[Vec<u8>]) -> f64 {
    100.0 * bytes as f64 / files.iter().map(Vec::len).sum::<usize>() as f64
}

/// A change: what whoever pulls has already, what is new, and the bytes that the change itself is made of.
struct Case {
    name: &'static str,
    old: Vec<Vec<u8>>,
    new: Vec<Vec<u8>>,
    changed: u64,
}

fn cases() -> Vec<Case> {
    let base = model();
    let replaced = |which: &dyn Fn(&str) -> bool| {
        let mut tensors = base.clone();
        let mut changed = 0;
        for (at, tensor) in tensors.iter_mut().enumerate().filter(|(_, tensor)| which(&tensor.name)) {
            Noise::new(9_000 + at as u64).fill(&mut tensor.bytes);
            changed += tensor.bytes.len() as u64;
        }
        (file(&tensors, 0), changed)
    };
    let (one, one_bytes) = replaced(&|name| name == "model.layers.5.mlp.down_proj.weight");
    let (tuned, tuned_bytes) = replaced(&|name| name.contains("self_attn"));
    let whole = || vec![file(&base, 0)];
    let shards = || {
        let (front, back) = base.split_at(base.len() / 2);
        vec![file(front, 0), file(back, 0)]
    };
    vec![
        Case { name: "one tensor replaced", old: whole(), new: vec![one], changed: one_bytes },
        Case { name: "header grown by 40 bytes", old: whole(), new: vec![file(&base, 40)], changed: 0 },
        Case { name: "two shards merged", old: shards(), new: whole(), changed: 0 },
        Case { name: "split into two shards", old: whole(), new: shards(), changed: 0 },
        Case {
            name: "attention changed (LoRA merged)",
            old: whole(),
            new: vec![tuned],
            changed: tuned_bytes,
        },
    ]
}

/// The store of a nation that exists for this.
fn store(home: &Path) -> Store {
    let key = SecretKey::generate().unwrap();
    let role = RoleKeys { keys: vec![key.id()], threshold: 1 };
    let now = Timestamp::now();
    let root = Root {
        nation: Nation::new("alba").unwrap(),
        version: 1,
        issued: now,
        expires: now.plus(DAY),
        keys: BTreeMap::from([(key.id(), RootKey::Ed25519 { public: key.public() })]),
        roles: RoleName::ALL.into_iter().map(|name| (name, role.clone())).collect(),
        previous: None,
    };
    Store::create(home, &Signed::sign(&Statement::Root(root), &key), now).unwrap()
}

/// What taking a change's files from a store with the old ones came to.
struct Taken {
    /// Bytes that had to be fetched.
    fetched: u64,
    /// Bytes that were taken.
    bytes: u64,
    seconds: f64,
}

fn take(folder: &Path, case: &Case) -> Taken {
    let home = tempfile::tempdir_in(folder).unwrap();
    let store = store(&home.path().join("store"));
    for (at, content) in case.old.iter().enumerate() {
        let path = home.path().join(format!("{at}.safetensors"));
        std::fs::write(&path, content).unwrap();
        store.ingest(&path, &mut |_| {}).unwrap();
        std::fs::remove_file(path).unwrap();
    }
    let mut taken = Taken { fetched: 0, bytes: 0, seconds: 0.0 };
    for content in &case.new {
        let map = cut(content, Way::Tensors);
        let partial = store.partial(&map).unwrap();
        let start = Instant::now();
        let reused = partial.take_local(&mut |_| {}).unwrap();
        taken.seconds += start.elapsed().as_secs_f64();
        taken.bytes += reused.bytes;
        for index in partial.to_fetch() {
            let range = map.range(index).unwrap();
            taken.fetched += range.end - range.start;
            partial.write_chunk(index, &content[range.start as usize..range.end as usize]).unwrap();
        }
        partial.finish().unwrap();
        assert!(store.has_blob(&map.blob()), "{}: the blob is whole", case.name);
    }
    taken
}

fn main() -> ExitCode {
    let folder =
        std::env::var_os("STEELYARD_BENCH_DIR").map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from);
    let cases = cases();
    let size: usize = cases[0].new.iter().map(Vec::len).sum();
    println!(
        "{:.1} MiB, {} tensors; new bytes in percent of the new files",
        size as f64 / f64::from(1 << 20),
        model().len()
    );
    println!();
    println!("| change | the change itself | at tensors | by content | every MiB | taken locally, MB/s |");
    println!("|---|---|---|---|---|---|");
    let mut extra = f64::NAN;
    for case in &cases {
        let taken = take(&folder, case);
        let ours = new_percent(&case.old, &case.new, Way::Tensors);
        let fetched = percent(taken.fetched, &case.new);
        assert!((ours - fetched).abs() < 1e-9, "{}: {ours} computed, {fetched} fetched", case.name);
        let own = percent(case.changed, &case.new);
        println!(
            "| {} | {own:.3} | {ours:.3} | {:.3} | {:.3} | {:.0} |",
            case.name,
            new_percent(&case.old, &case.new, Way::Content),
            new_percent(&case.old, &case.new, Way::Fixed),
            taken.bytes as f64 / 1e6 / taken.seconds,
        );
        if case.name == "one tensor replaced" {
            extra = ours - own;
        }
    }
    println!();
    let fits = extra <= MAX_EXTRA_PERCENT;
    println!(
        "bar dedup-one-tensor-extra-percent {extra:.4} {MAX_EXTRA_PERCENT} {}",
        if fits { "ok" } else { "short" }
    );
    if fits { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
