//! What each fuzz target does with its input: parse it, and hold whatever was accepted to what the types promise.
//!
//! Shared by the targets in `fuzz_targets/` and by the tests that replay `corpus/`.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use std::io::Cursor;

use registry::chunk::{self, ChunkMap, MAX_CHUNK};
use registry::codec::{Decoder, Encoder, Encoding, Layout as ChunkLayout, MAX_RAW};
use registry::format::{self, Kind, Layout, Safety, gguf as gguf_format, safetensors as safetensors_format};
use registry::key::{KeyFile, TokenUri};
use registry::policy::{Action, Cases, Decision, Facts, MAX_POLICY, MAX_RULES, Policy};
use registry::statement::Statement;
use registry::trust::{MAX_ROOTS, Trust, peek_root};
use registry::{Digest, Nation, Reference, Signed, Timestamp};

#[path = "log.rs"]
mod log;

pub use log::{log_checkpoint, log_evidence, log_note, log_proof, log_tile, log_witness};

pub type Body = fn(&[u8]);

/// Every target of this crate by name.
pub const TARGETS: &[(&str, Body)] = &[
    ("safetensors", safetensors),
    ("gguf", gguf),
    ("chunk_map", chunk_map),
    ("codec", codec),
    ("file_kind", file_kind),
    ("envelope", envelope),
    ("statement", statement),
    ("key_file", key_file),
    ("root_chain", root_chain),
    ("reference", reference),
    ("path", path),
    ("policy", policy),
    ("policy_case", policy_case),
    ("log_note", log_note),
    ("log_checkpoint", log_checkpoint),
    ("log_tile", log_tile),
    ("log_witness", log_witness),
    ("log_proof", log_proof),
    ("log_evidence", log_evidence),
];

/// What every layout promises, and that the file can be cut along it.
fn check_layout(layout: &Layout, data: &[u8]) {
    let size = data.len() as u64;
    let mut end = layout.header;
    for tensor in &layout.tensors {
        assert!(end <= tensor.start && tensor.start <= tensor.end && tensor.end <= size);
        assert!(tensor.name.len() as u64 <= format::MAX_NAME);
        end = tensor.end;
    }
    assert!(end <= size && layout.end() == end);
    let _ = layout.parameters();
    let built = chunk::build(data, size, Some(layout), |_| Ok(())).unwrap();
    built.map.check(data).unwrap();
}

pub fn safetensors(data: &[u8]) {
    if let Ok(layout) = safetensors_format::read(Cursor::new(data), data.len() as u64) {
        check_layout(&layout, data);
        assert_eq!(format::detect("model.safetensors", data), Kind::Safetensors);
    }
}

pub fn gguf(data: &[u8]) {
    if let Ok((layout, metadata)) = gguf_format::read(Cursor::new(data), data.len() as u64) {
        check_layout(&layout, data);
        for text in [&metadata.name, &metadata.architecture, &metadata.license].into_iter().flatten() {
            // A byte that is not UTF-8 becomes a character of three.
            assert!(text.len() as u64 <= 3 * gguf_format::MAX_SHOWN && !text.contains(char::is_control));
        }
        assert_eq!(format::detect("model.gguf", data), Kind::Gguf);
    }
}

pub fn chunk_map(data: &[u8]) {
    let Ok(map) = ChunkMap::decode(data) else { return };
    assert_eq!(map.encode(), data, "a map has one encoding");
    assert_eq!(map.digest(), Digest::of(data));
    for (i, (offset, chunk)) in map.iter().enumerate() {
        assert!((1..=MAX_CHUNK).contains(&chunk.len));
        assert_eq!(map.range(i), Some(offset..offset + u64::from(chunk.len)));
        assert_eq!(map.index_at(offset), Some(i));
    }
    assert_eq!(map.index_at(map.size()), None);
}

/// The input is an encoding's identifier, the raw length in three bytes, and the encoded bytes.
pub fn codec(data: &[u8]) {
    /// Bytes on both sides of the output, which nobody may touch.
    const EDGE: usize = 32;
    let Some((&[id, a, b, c], bytes)) = data.split_first_chunk() else { return };
    let Ok(encoding) = Encoding::try_from(id) else { return };
    let len = u32::from_le_bytes([a, b, c, 0]) as usize % (MAX_RAW + 2);
    let mut room = vec![0xa5; EDGE + len + EDGE];
    let decoded = Decoder::new().decode(encoding, bytes, &mut room[EDGE..EDGE + len]);
    assert!(room[..EDGE].iter().chain(&room[EDGE + len..]).all(|&byte| byte == 0xa5));
    if decoded.is_err() {
        return;
    }
    assert!(encoding == Encoding::Raw || bytes.len() < len);
    let chunk = &room[EDGE..EDGE + len];
    let layout = match encoding {
        Encoding::Raw | Encoding::Zstd => ChunkLayout::Bytes,
        Encoding::Planes2 => ChunkLayout::Bf16,
        Encoding::Planes4 => ChunkLayout::F32,
        Encoding::Planes8 => ChunkLayout::F64,
        Encoding::Blocks => ChunkLayout::Quantised { fields: &[1, 1, 16], phase: 5 },
    };
    let (mut again, mut back) = (Vec::new(), vec![0; len]);
    let encoding = Encoder::new().encode(chunk, layout, &mut again);
    let again = if encoding == Encoding::Raw { chunk } else { &again };
    Decoder::new().decode(encoding, again, &mut back).expect("what was encoded can be decoded");
    assert!(back == chunk);
}

/// The input is a name, a line feed, and the file's first bytes.
pub fn file_kind(data: &[u8]) {
    let mut parts = data.splitn(2, |&byte| byte == b'\n');
    let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let content = parts.next().unwrap_or_default();
    let head = &content[..content.len().min(format::HEAD_LEN)];
    let kind = format::detect(&name, head);
    if head.starts_with(b"\x80\x02}") || head.starts_with(b"\x7fELF") || name.ends_with(".pkl") {
        assert_ne!(kind.safety(), Safety::Safe, "{name:?} {kind}");
    }
    assert_eq!(kind.objection().is_none(), kind.safety() == Safety::Safe);
    if let Ok(found) = format::inspect(&name, Cursor::new(content), content.len() as u64) {
        assert!(found.layout.is_some() == matches!(found.kind, Kind::Safetensors | Kind::Gguf));
    }
}

pub fn envelope(data: &[u8]) {
    let Ok(signed) = Signed::parse(data) else { return };
    let again = Signed::parse(&signed.to_json()).expect("what was read can be written and read again");
    assert_eq!(again, signed);
    assert_eq!(signed.digest(), Digest::of(signed.payload()));
    let _ = signed.peek();
}

pub fn statement(data: &[u8]) {
    let Ok(statement) = Statement::parse(data) else { return };
    let payload = statement.to_payload();
    let again = Statement::parse(&payload).expect("what was read can be written and read again");
    assert_eq!(again.to_payload(), payload);
    assert_eq!((again.kind(), again.nation()), (statement.kind(), statement.nation()));
}

pub fn key_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match KeyFile::parse(text) {
        Ok(KeyFile::Sealed(sealed)) => {
            // One text, and what it costs to open it is bounded; it is not opened here, which takes that long.
            assert_eq!(sealed.to_text(), text);
            assert_eq!(Some(sealed.public()), KeyFile::Sealed(sealed).public());
        }
        Ok(KeyFile::Token(uri)) => assert_eq!(TokenUri::parse(&uri.to_string()).as_ref(), Ok(&uri)),
        Ok(KeyFile::Plain(key)) => assert_eq!(key.id(), key.public().id()),
        Err(why) => assert!(!why.is_empty()),
    }
}

/// The input is a line for each root: signed statements, the first one pinned, the others offered.
pub fn root_chain(data: &[u8]) {
    let now = Timestamp::from_unix(1_795_435_200);
    let mut lines = data.split(|&byte| byte == b'\n');
    let first = lines.next().and_then(|line| Signed::parse(line).ok());
    let mut trust = Trust::new(Nation::new("borea").unwrap());
    let Some(first) = first.filter(|first| trust.pin(first, first.digest(), now).is_ok()) else { return };
    let nation = peek_root(&first).unwrap().nation;
    for line in lines.take(MAX_ROOTS) {
        let Ok(signed) = Signed::parse(line) else { continue };
        let before = trust.member(&nation).unwrap().root.version;
        let asked = trust.verify(&signed, now).is_ok();
        let taken = trust.rotate(&signed, now);
        assert!(taken.is_err() || !trust.rotate(&signed, now).unwrap(), "a known root changes nothing");
        let root = &trust.member(&nation).unwrap().root;
        match taken {
            Ok(true) => {
                assert!(asked && root.version == before + 1 && root.digest() == signed.digest());
            }
            Ok(false) => assert!(root.roots().any(|known| known.digest() == signed.digest())),
            Err(_) => assert_eq!(root.version, before),
        }
        // Each one names the one before it.
        let roots: Vec<_> = root.roots().collect();
        assert!(roots.windows(2).all(|pair| pair[1].previous == Some(pair[0].digest())));
        assert_eq!(roots[0].digest(), first.digest());
    }
}

pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse::<Reference>().ok(), Some(reference));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        assert_eq!(time.to_string().parse::<Timestamp>().ok(), Some(time));
    }
}

/// The input is a policy file; a sound one answers every question about a release that nothing speaks against.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for alone in [true, false] {
        match Policy::own("fuzz.cedar", text, alone, 1) {
            Ok(policy) => {
                assert!(text.len() <= MAX_POLICY && policy.rules().len() <= MAX_RULES);
                for action in Action::ALL {
                    check_decision(&policy.decide(action, &Facts::default()));
                }
            }
            Err(error) => {
                let last = text.split('\n').count();
                assert!(!error.problems.is_empty());
                assert!(error.problems.iter().all(|problem| (1..=last).contains(&problem.line)));
            }
        }
    }
}

/// The input is a file of cases in JSON; whatever evidence is understood gets an answer.
pub fn policy_case(data: &[u8]) {
    let Ok(cases) = serde_json::from_slice::<Cases>(data) else { return };
    if cases.check().is_err() {
        return;
    }
    let policy = Policy::shipped(1);
    for case in &cases.cases {
        let outcome = case.run(&policy);
        check_decision(&outcome.decision);
        let facts = &case.evidence;
        // What no policy may allow.
        if !facts.releasable() || facts.binding_recall().is_some() {
            assert!(!outcome.decision.allowed);
        }
        let again: Facts = serde_json::from_value(serde_json::to_value(facts).unwrap()).unwrap();
        assert_eq!(again, *facts);
        let tally = facts.tally();
        assert!(!tally.passed_by.contains(facts.producer()) && tally.passed_by.is_disjoint(&tally.failed_by));
    }
}

fn check_decision(decision: &Decision) {
    assert_eq!(decision.allowed, decision.refusals().next().is_none());
    assert!(decision.checks.iter().all(|check| !check.rule.is_empty() && !check.detail.is_empty()));
}

pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if registry::path::check(text).is_ok() {
        let path = std::path::Path::new(text);
        // Nothing but plain names, so that it cannot leave the folder that it is joined to.
        assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))), "{text:?}");
        assert!(!text.contains('\0') && !text.contains('\\'));
    }
    let _ = registry::path::check_all(text.split('\n'));
}
