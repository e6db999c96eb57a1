//! Headers that are made to exhaust whoever reads them end in an answer, soon and in bounded memory.
//!
//! One test alone in its process, since it looks at the process's own peak of memory.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::io::{self, Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

use registry::format::{FormatError, gguf, safetensors};

/// A file that is not there: some first bytes, then a pattern over and over up to its size.
struct Endless {
    head: Vec<u8>,
    pattern: Vec<u8>,
    size: u64,
    at: u64,
}

impl Endless {
    fn new(head: &[u8], pattern: &[u8], size: u64) -> Self {
        Self { head: head.to_vec(), pattern: pattern.to_vec(), size, at: 0 }
    }
}

impl Read for Endless {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = (self.size - self.at).min(out.len() as u64) as usize;
        for byte in &mut out[..n] {
            let at = self.at as usize;
            *byte = match self.head.get(at) {
                Some(byte) => *byte,
                None => self.pattern[(at - self.head.len()) % self.pattern.len()],
            };
            self.at += 1;
        }
        Ok(n)
    }
}

impl Seek for Endless {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.at.checked_add_signed(by).unwrap(),
            SeekFrom::End(by) => self.size.checked_add_signed(by).unwrap(),
        };
        Ok(self.at)
    }
}

/// The process's peak of resident memory, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

/// What the largest header that is still valid may cost: names, shapes and offsets of 262 144 tensors.
const MEMORY: u64 = 160 * 1024 * 1024;
/// The slowest of them reads 100 MB of JSON byte by byte; on a busy machine that takes its time.
const TIME: Duration = Duration::from_secs(60);

fn bomb(what: &str, code: &str, read: impl FnOnce() -> Result<(), FormatError>) {
    let (before, start) = (peak(), Instant::now());
    let found = read().map_err(|error| error.code()).err().unwrap_or("ok");
    let (cost, took) = (peak() - before, start.elapsed());
    println!("{what}: {found}, {} MiB, {took:?}", cost >> 20);
    assert_eq!(found, code, "{what}");
    assert!(cost < MEMORY, "{what}: {} MiB", cost >> 20);
    assert!(took < TIME, "{what}: {took:?}");
}

fn json(what: &str, code: &str, head: &str, pattern: &str) {
    let len = safetensors::MAX_HEADER;
    let head = [&len.to_le_bytes()[..], head.as_bytes()].concat();
    let file = Endless::new(&head, pattern.as_bytes(), 8 + len);
    bomb(what, code, || safetensors::read(file, 8 + len).map(drop));
}

#[test]
fn header_bombs_end_in_an_answer() {
    json("lists in lists", "malformed", r#"{"a":"#, "[");
    json("objects in objects", "malformed", r#"{"a":"#, r#"{"a":"#);
    json("a shape of lists", "malformed", r#"{"a":{"shape":"#, "[");
    json("an endless name", "limit", "{\"", "a");
    json("an endless name of escapes", "limit", "{\"", "\\u0061");
    json("an endless metadata text", "limit", r#"{"__metadata__":{"a":""#, "a");
    json("endless metadata", "duplicate", r#"{"__metadata__":{"b":"""#, r#","a":"""#);
    json("an endless shape", "limit", r#"{"a":{"shape":[1"#, ",1");
    json("an endless number", "limit", r#"{"a":{"shape":["#, "1");
    json("an endless fraction", "limit", r#"{"a":{"shape":[0."#, "0");
    json("endless spaces", "malformed", "{", " ");
    gguf_bombs();
    tensors();
}

/// As many tensors as 100 MB hold, with names of about 340 bytes.
fn tensors() {
    use std::io::Write as _;
    // Of its final size at once, so that its own making does not raise the peak further.
    let mut file = Vec::with_capacity(safetensors::MAX_HEADER as usize);
    file.extend([0; 8]);
    for i in 0..240_000 {
        let begin = if i == 0 { "{" } else { "," };
        write!(file, r#"{begin}"{i:0>340}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#).unwrap();
    }
    file.push(b'}');
    let size = file.len() as u64;
    assert!(size < safetensors::MAX_HEADER);
    file[..8].copy_from_slice(&(size - 8).to_le_bytes());
    bomb("the longest names for the most tensors", "limit", || {
        safetensors::read(io::Cursor::new(&file), size).map(drop)
    });
}

fn gguf_bombs() {
    let start = |tensors: u64, entries: u64| {
        let mut head = b"GGUF\x03\0\0\0".to_vec();
        head.extend(tensors.to_le_bytes());
        head.extend(entries.to_le_bytes());
        head
    };
    let size = 1 << 40;
    let run = |what: &str, code: &str, head: Vec<u8>, pattern: &[u8]| {
        let file = Endless::new(&head, pattern, size);
        bomb(what, code, || gguf::read(file, size).map(drop));
    };
    // One entry with key `k` and an array of the most texts; in the pattern each text says how long it is.
    let array = |kind: u32| {
        let mut head = start(0, 4096);
        head.extend([&1u64.to_le_bytes()[..], b"k", &9u32.to_le_bytes(), &kind.to_le_bytes()].concat());
        head.extend(gguf::MAX_ARRAY.to_le_bytes());
        head
    };
    run("millions of empty texts", "limit", array(8), &[0]);
    run(
        "texts that jump over the buffer",
        "limit",
        array(8),
        &[&70_000u64.to_le_bytes()[..], &[0; 70_000]].concat(),
    );
    run("an array of 128 MiB", "limit", array(12), &[0]);
    let mut endless_text = start(0, 1);
    endless_text
        .extend([&1u64.to_le_bytes()[..], b"k", &8u32.to_le_bytes(), &(1u64 << 39).to_le_bytes()].concat());
    run("a text of 512 GiB in a file that has them", "limit", endless_text, &[0]);
    let name =
        [&512u64.to_le_bytes()[..], &[b'n'; 512], &0u32.to_le_bytes(), &0u32.to_le_bytes(), &[0; 8]].concat();
    run("the longest names for the most tensors", "limit", start(1 << 18, 0), &name);
    let tiny = [&1u64.to_le_bytes()[..], b"n", &0u32.to_le_bytes(), &0u32.to_le_bytes(), &[0; 8]].concat();
    run("the most tensors, all of one name", "duplicate", start(1 << 18, 0), &tiny);
}
