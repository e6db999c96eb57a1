//! Document 01: digests, chunk maps, cuts, files of weights.

use std::io::Cursor;

use crate::Digest;
use crate::chunk::{self, ChunkError, ChunkMap, Cut};
use crate::digest::Sha256;
use crate::format::{self, Format, FormatError, Layout, Safety, Tensor, gguf, safetensors};
use serde_json::{Value, json};

use super::{Outcome, Runner, broken, bytes, number, same, text};

pub(super) const KINDS: &[(&str, Runner)] = &[
    ("digest-text", digest_text),
    ("sha256-text", sha256_text),
    ("content", content),
    ("chunk-map", chunk_map),
    ("named-map", named_map),
    ("chunk", one_chunk),
    ("blob", blob),
    ("cuts", cuts),
    ("content-cuts", content_cuts),
    ("safetensors", read_safetensors),
    ("gguf", read_gguf),
    ("file-kind", file_kind),
];

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn digest_text(input: &Value) -> Outcome {
    let digest: Digest = text(input, "text")?.parse().map_err(|_| "text".to_owned())?;
    same(digest.to_string().as_str(), text(input, "text")?)?;
    Ok(json!({ "bytes": hex(digest.as_bytes()) }))
}

fn sha256_text(input: &Value) -> Outcome {
    let digest = Sha256::from_hex(text(input, "text")?).map_err(|_| "text".to_owned())?;
    same(digest.to_string().as_str(), text(input, "text")?)?;
    Ok(json!({ "bytes": hex(digest.as_bytes()) }))
}

fn content(input: &Value) -> Outcome {
    let digests = crate::digest::hash_file(&bytes(input, "bytes")?[..]).map_err(broken)?;
    Ok(json!({
        "blake3": digests.blake3.to_string(), "sha256": digests.sha256.to_string(), "size": digests.size,
    }))
}

fn code(error: ChunkError) -> String {
    error.code().to_owned()
}

fn show_map(map: &ChunkMap) -> Value {
    let chunks: Vec<_> =
        map.chunks().iter().map(|chunk| json!([chunk.digest.to_string(), chunk.len])).collect();
    json!({
        "blob": map.blob().to_string(), "size": map.size(), "chunks": chunks, "digest": map.digest().to_string(),
    })
}

fn chunk_map(input: &Value) -> Outcome {
    let bytes = bytes(input, "bytes")?;
    let map = ChunkMap::decode(&bytes).map_err(code)?;
    same(map.encode(), bytes)?;
    Ok(show_map(&map))
}

fn named_map(input: &Value) -> Outcome {
    let digest = text(input, "digest")?.parse().map_err(broken)?;
    ChunkMap::decode_named(&digest, &bytes(input, "bytes")?).map(|map| show_map(&map)).map_err(code)
}

fn one_chunk(input: &Value) -> Outcome {
    let map = ChunkMap::decode(&bytes(input, "map")?).map_err(broken)?;
    let index = super::size(&input["index"])?;
    map.verify(index, &bytes(input, "bytes")?).map(|()| json!({})).map_err(code)
}

fn blob(input: &Value) -> Outcome {
    let map = ChunkMap::decode(&bytes(input, "map")?).map_err(broken)?;
    map.check(&bytes(input, "bytes")?[..]).map(|()| json!({})).map_err(code)
}

fn cuts(input: &Value) -> Outcome {
    let size = number(&input["size"])?;
    let layout = match input.get("header") {
        None => None,
        Some(header) => {
            let header = number(header)?;
            let (mut at, mut tensors) = (header, Vec::new());
            for len in super::items(input, "tensors")? {
                let start = at;
                at = at.saturating_add(number(len)?);
                let (name, shape) = (String::new(), vec![at - start]);
                tensors.push(Tensor { name, dtype: "U8", shape, start, end: at });
            }
            Some(Layout { format: Format::Safetensors, header, tensors })
        }
    };
    let spans = chunk::plan(layout.as_ref(), size).map_err(code)?;
    let name = |cut| if cut == Cut::Even { "even" } else { "content" };
    let spans: Vec<_> = spans.iter().map(|span| json!([name(span.cut), span.len])).collect();
    Ok(json!({ "spans": spans }))
}

fn content_cuts(input: &Value) -> Outcome {
    let size = super::size(&input["size"])?;
    let mut state = number(&input["seed"])?;
    if size > super::MAX_BYTES {
        return Err(broken("too many bytes"));
    }
    let mut content = Vec::with_capacity(size + 8);
    while content.len() < size {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        content.extend((z ^ (z >> 31)).to_le_bytes());
    }
    content.truncate(size);
    let built = chunk::build(&content[..], size as u64, None, |_| Ok(())).map_err(code)?;
    let lengths: Vec<u32> = built.map.chunks().iter().map(|chunk| chunk.len).collect();
    Ok(json!({ "lengths": lengths }))
}

fn show_layout(layout: &Layout) -> Value {
    let tensors: Vec<_> =
        layout.tensors.iter().map(|t| json!([t.name, t.dtype, t.shape, t.start, t.end])).collect();
    json!({ "header": layout.header, "tensors": tensors })
}

fn read_safetensors(input: &Value) -> Outcome {
    let bytes = bytes(input, "bytes")?;
    let layout = safetensors::read(Cursor::new(&bytes), bytes.len() as u64);
    layout.map(|layout| show_layout(&layout)).map_err(|error: FormatError| error.code().to_owned())
}

fn read_gguf(input: &Value) -> Outcome {
    let bytes = bytes(input, "bytes")?;
    let read = gguf::read(Cursor::new(&bytes), bytes.len() as u64);
    read.map(|(layout, _)| show_layout(&layout)).map_err(|error| error.code().to_owned())
}

fn file_kind(input: &Value) -> Outcome {
    let kind = format::detect(text(input, "name")?, &bytes(input, "bytes")?);
    let safety = match kind.safety() {
        Safety::Safe => "safe",
        Safety::MayRunCode => "may-run-code",
        Safety::Unknown => "unknown",
    };
    Ok(json!({ "kind": kind.as_str(), "safety": safety }))
}
