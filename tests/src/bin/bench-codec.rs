//! `make bench-codec`: the wire codec on real weights, beside Zstandard on the plain bytes, byte-grouped LZ4 and ZipNN in the same run.
//!
//! ```text
//! STEELYARD_BENCH_RUNS    runs of each row; the best is shown, since others use the machine too (5)
//! STEELYARD_BENCH_DIR     where the files derived from the weights lie (/dev/shm)
//! STEELYARD_WEIGHTS       SmolLM2 (GGUF), STEELYARD_MINILM (safetensors, F32), STEELYARD_GEMMA3 (GGUF): set by make
//! STEELYARD_PEERS         scripts/codec-peers.sh; without it the peers' rows are missing
//! ```
//!
//! It ends with lines `bar NAME VALUE LIMIT ok|short` and with exit 1 when one is short.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use registry::chunk::{self, ChunkMap};
use registry::codec::{Decoder, Encoder, Encoding, Layouts};
use registry::format;
use serde_json::{Value, json};
use tests::meter;

/// Most of raw that BF16 may take on the wire.
const BF16_RATIO: f64 = 0.665;
/// Least GB/s of CPU that one core must encode of BF16.
const BF16_ENCODE: f64 = 1.0;

/// One file in the comparison.
struct Source {
    title: &'static str,
    /// As the peers' script names it.
    kind: &'static str,
    path: PathBuf,
    bytes: Vec<u8>,
    map: ChunkMap,
    layouts: Layouts,
}

/// One row of the table.
struct Row {
    way: String,
    share: f64,
    encode: f64,
    decode: f64,
}

fn main() -> ExitCode {
    let runs =
        std::env::var("STEELYARD_BENCH_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(5).max(1);
    let parent =
        std::env::var_os("STEELYARD_BENCH_DIR").map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from);
    let folder = tempfile::tempdir_in(parent).expect("a folder for the derived files");
    let sources = sources(folder.path());
    let mut tables: Vec<(&Source, Vec<Row>)> = Vec::new();
    for source in &sources {
        eprintln!("{}: ours", source.title);
        let ours = (0..runs).map(|_| ours(source)).reduce(|best, row| Row {
            encode: best.encode.max(row.encode),
            decode: best.decode.max(row.decode),
            ..best
        });
        tables.push((source, ours.into_iter().collect()));
    }
    add_peers(&mut tables, folder.path(), runs);
    report(&tables, runs)
}

/// The weights as they are, and MiniLM's rounded to BF16 and F16, since none of the three comes in those.
fn sources(folder: &Path) -> Vec<Source> {
    let weights = |name: &str| {
        PathBuf::from(
            std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: run `make bench-codec`")),
        )
    };
    let minilm = weights("STEELYARD_MINILM");
    let plain = fs::read(&minilm).expect("read MiniLM");
    let derive = |name: &str, dtype: &str, round: fn(f32) -> u16| {
        let path = folder.join(name);
        fs::write(&path, rounded(&plain, dtype, round)).expect("write the derived file");
        path
    };
    let bf16 = derive("bf16.safetensors", "BF16", to_bf16);
    let f16 = derive("f16.safetensors", "F16", to_f16);
    [
        ("MiniLM-L6 rounded to BF16", "bf16", bf16),
        ("MiniLM-L6 rounded to F16", "f16", f16),
        ("MiniLM-L6, F32", "f32", minilm),
        ("SmolLM2-135M, GGUF Q4_1 and Q8_0", "gguf", weights("STEELYARD_WEIGHTS")),
        ("Gemma 3 270M, GGUF Q4_K_M (Q8_0, Q5_0, Q4_K, Q6_K)", "gguf", weights("STEELYARD_GEMMA3")),
    ]
    .into_iter()
    .map(|(title, kind, path)| open(title, kind, path))
    .collect()
}

fn open(title: &'static str, kind: &'static str, path: PathBuf) -> Source {
    let bytes = fs::read(&path).expect("read the weights");
    let name = path.to_string_lossy();
    let found =
        format::inspect(&name, std::io::Cursor::new(&bytes), bytes.len() as u64).expect("a file of weights");
    let built =
        chunk::build(&bytes[..], bytes.len() as u64, found.layout.as_ref(), |_| Ok(())).expect("its chunks");
    let layouts = Layouts::read(&File::open(&path).expect("open the weights"));
    Source { title, kind, bytes, map: built.map, layouts, path: path.clone() }
}

/// A safetensors file whose F32 tensors are rounded to elements of two bytes; the others are left out.
fn rounded(file: &[u8], dtype: &str, round: fn(f32) -> u16) -> Vec<u8> {
    let (len, rest) = file.split_first_chunk::<8>().expect("a header's length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*len) as usize);
    let header: serde_json::Map<String, Value> = serde_json::from_slice(header).expect("a header");
    let mut tensors: Vec<(u64, u64, &String, &Value)> = header
        .iter()
        .filter(|(_, info)| info["dtype"] == "F32")
        .map(|(name, info)| {
            let offset = |i: usize| info["data_offsets"][i].as_u64().expect("an offset");
            (offset(0), offset(1), name, &info["shape"])
        })
        .collect();
    tensors.sort_by_key(|tensor| tensor.0);
    let (mut body, mut infos) = (Vec::new(), serde_json::Map::new());
    for (from, to, name, shape) in tensors {
        let start = body.len();
        for word in data[from as usize..to as usize].as_chunks::<4>().0 {
            body.extend_from_slice(&round(f32::from_le_bytes(*word)).to_le_bytes());
        }
        infos.insert(
            name.clone(),
            json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, body.len()] }),
        );
    }
    let header = serde_json::to_vec(&infos).expect("a header");
    [&(header.len() as u64).to_le_bytes()[..], &header, &body].concat()
}

/// To the nearest, ties to even; the weights hold no NaN.
fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// To the nearest, ties to even (IEEE 754 binary16); the weights hold no NaN and nothing above 65504.
fn to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let exponent = (bits >> 23 & 0xff) as i32 - 127;
    let mantissa = bits & 0x7f_ffff | 0x80_0000;
    // A normal number keeps ten bits of its mantissa, a subnormal one fewer.
    let (shift, high) =
        if exponent >= -14 { (13, ((exponent + 14) as u32) << 10) } else { (-1 - exponent, 0) };
    if shift > 24 {
        return sign;
    }
    let shift = shift as u32;
    let half = 1u32 << (shift - 1);
    let kept = (mantissa + half - 1 + (mantissa >> shift & 1)) >> shift;
    // The leading one of a normal number adds one to the exponent, as does a carry.
    sign | (high + kept) as u16
}

/// One run of ours: every chunk encoded, then every chunk decoded; then, with no clock running, compared.
fn ours(source: &Source) -> Row {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    let chunk_at = |at: u64, len: u32| &source.bytes[at as usize..at as usize + len as usize];
    // Touched before the clock runs: a node's buffers are used again.
    let mut encoded: Vec<(Encoding, Vec<u8>)> = source
        .map
        .iter()
        .map(|(_, entry)| (Encoding::Raw, vec![1; entry.len as usize + (64 << 10)]))
        .collect();
    let mut out = vec![1; chunk::MAX_CHUNK as usize];

    let start = meter::thread_cpu_seconds();
    for ((at, entry), (encoding, bytes)) in source.map.iter().zip(&mut encoded) {
        let layout = source.layouts.of(at..at + u64::from(entry.len));
        *encoding = encoder.encode(chunk_at(at, entry.len), layout, bytes);
    }
    let middle = meter::thread_cpu_seconds();
    for ((_, entry), (encoding, bytes)) in source.map.iter().zip(&encoded) {
        if *encoding != Encoding::Raw {
            decoder.decode(*encoding, bytes, &mut out[..entry.len as usize]).expect("what was encoded");
        }
    }
    let end = meter::thread_cpu_seconds();

    let mut wire = 0;
    for ((at, entry), (encoding, bytes)) in source.map.iter().zip(&encoded) {
        let (raw, out) = (chunk_at(at, entry.len), &mut out[..entry.len as usize]);
        let bytes = if *encoding == Encoding::Raw { raw } else { bytes };
        wire += bytes.len();
        decoder.decode(*encoding, bytes, out).expect("what was encoded");
        assert!(out == raw, "the same chunk");
    }
    let gigabytes = source.bytes.len() as f64 / 1e9;
    Row {
        way: "steelyard".to_owned(),
        share: wire as f64 / source.bytes.len() as f64,
        encode: gigabytes / (middle - start),
        decode: gigabytes / (end - middle),
    }
}

fn add_peers(tables: &mut [(&Source, Vec<Row>)], folder: &Path, runs: usize) {
    let Some(script) = std::env::var_os("STEELYARD_PEERS") else { return };
    let mut command = Command::new(script);
    command.arg(runs.to_string());
    for (i, (source, _)) in tables.iter().enumerate() {
        let lengths: Vec<u32> = source.map.chunks().iter().map(|chunk| chunk.len).collect();
        let file = folder.join(format!("{i}.json"));
        fs::write(&file, serde_json::to_vec(&lengths).expect("JSON")).expect("write the lengths");
        command.arg(&source.path).arg(file).arg(source.kind);
    }
    eprintln!("the peers");
    let output = command.stderr(Stdio::inherit()).output().expect("run the peers' script");
    assert!(output.status.success(), "the peers' script failed");
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let found: Value = serde_json::from_str(line).expect("a line of JSON");
        let number = |key: &str| found[key].as_f64().expect("a number");
        let way = found["way"].as_str().expect("a name").to_owned();
        let row = Row { way, share: number("share"), encode: number("encode"), decode: number("decode") };
        let of = tables.iter_mut().find(|(source, _)| found["file"] == *source.path.to_string_lossy());
        of.expect("one of the files").1.push(row);
    }
}

fn report(tables: &[(&Source, Vec<Row>)], runs: usize) -> ExitCode {
    println!("chunks as they travel, one thread, best of {runs} runs");
    println!();
    println!("| weights | MiB | how | % of raw | encode, GB/s of CPU | decode |");
    println!("|---|---|---|---|---|---|");
    for (source, rows) in tables {
        for row in rows {
            println!(
                "| {} | {} | {} | {:.2} | {:.2} | {:.2} |",
                source.title,
                source.bytes.len() >> 20,
                row.way,
                row.share * 100.0,
                row.encode,
                row.decode
            );
        }
    }
    println!();
    let bf16 = tables.iter().find(|(source, _)| source.kind == "bf16").and_then(|(_, rows)| rows.first());
    let bf16 = bf16.expect("the row of BF16");
    let ratio = bf16.share <= BF16_RATIO;
    let speed = bf16.encode >= BF16_ENCODE;
    let word = |fits: bool| if fits { "ok" } else { "short" };
    println!("bar codec-bf16-ratio {:.4} {BF16_RATIO} {}", bf16.share, word(ratio));
    println!("bar codec-bf16-encode-gbps {:.2} {BF16_ENCODE:.1} {}", bf16.encode, word(speed));
    if ratio && speed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
