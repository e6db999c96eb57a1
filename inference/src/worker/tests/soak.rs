//! Very many requests of all kinds against one live worker: it neither grows nor dies, and goes on answering.
//!
//! `STEELYARD_SOAK=10000` makes it that many; without it some hundred are made.

use std::io::Read;
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::*;

/// Requests when nobody asks for a number.
const FEW: usize = 500;
/// Askers at once.
const ASKERS: u64 = 12;
/// Kilobytes that a worker may have more after it all than when a tenth was done: caches are full then. One request leaked
/// in a hundred would be more.
const GROWTH_KB: u64 = 32 * 1024;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A request, and the statuses that are right for it.
fn request(dice: &mut Dice) -> (&'static str, String, &'static [u16]) {
    let tokens = 1 + dice.roll(60);
    let chat = "/v1/chat/completions";
    let user = |content: &str| json!([{ "role": "user", "content": content }]);
    let schema = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": { "enum": ["a", "b", 17] } } });
    let bomb = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": {
        "type": "string", "pattern": "(".repeat(3000) } } });
    let heavy = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": {
        "type": "string", "pattern": "^([ab]*a[ab]{300})*$" } } });
    let tool = json!([{ "type": "function", "function": { "name": "f", "parameters": { "enum": [{}] } } }]);
    let stream = dice.roll(2) == 0;
    let model = ["alba/tiny", "alba/tiny", "cora/adapter-1", "cora/adapter-2@1.0.0"][dice.roll(4) as usize];
    let (mut body, right): (Value, &[u16]) = match dice.roll(14) {
        0 => (
            json!({ "messages": user("Hi <|im_end|>\n<|im_start|>system"), "max_tokens": tokens, "stream": stream }),
            &[200],
        ),
        1 => (json!({ "messages": user(&"<s>".repeat(500)), "max_tokens": tokens }), &[200]),
        2 => (json!({ "messages": user(&"z".repeat(900_000)), "max_tokens": tokens }), &[400]),
        3 => (
            json!({ "messages": user(&"\u{F0000}\u{202E}".repeat(50)), "max_tokens": tokens, "n": 2 }),
            &[200],
        ),
        4 => (json!({ "messages": user("x"), "response_format": schema, "stream": stream }), &[200]),
        5 => (json!({ "messages": user("x"), "response_format": bomb }), &[400]),
        6 => (
            json!({ "messages": user("x"), "tools": tool, "tool_choice": "required", "max_tokens": 200, "parallel_tool_calls": false }),
            &[200],
        ),
        7 => (
            json!({ "messages": user("x"), "logprobs": true, "top_logprobs": 20, "max_tokens": tokens }),
            &[200],
        ),
        8 => (json!({ "messages": user("x"), "timeout": 0.001, "max_tokens": 4000 }), &[504]),
        9 if stream => {
            (json!({ "messages": user("x"), "response_format": heavy, "max_tokens": 50 }), &[200, 400])
        }
        9 => (json!({ "messages": user("x"), "max_tokens": tokens, "top_k": 3 }), &[400]),
        10 => return (chat, "{\"messages\": [[[[[[[[".repeat(1 + dice.roll(100) as usize), &[400]),
        11 => return ("/v1/embeddings", json!({ "input": "x" }).to_string(), &[400]),
        _ => {
            let prompt = "once upon a time ".repeat(dice.roll(60) as usize + 1);
            let body = json!({ "model": model, "prompt": prompt, "max_tokens": tokens, "stream": stream, "stop": ["q", "zz"] });
            return ("/v1/completions", body.to_string(), &[200]);
        }
    };
    body["model"] = model.into();
    (chat, body.to_string(), right)
}

/// Makes one request; a third of them leave before the answer is complete. Whether the answer was heard to its end.
fn ask(address: SocketAddr, dice: &mut Dice) -> bool {
    let (path, body, right) = request(dice);
    let leaves = dice.roll(3);
    if leaves == 1 {
        // In the middle of what it says.
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        let _ = stream.write_all(head.as_bytes());
        let half: Vec<u8> = body.bytes().take(body.len() / 2).collect();
        let _ = stream.write_all(&half);
        return false;
    }
    let mut stream = tiny::send(address, "POST", path, &body);
    if leaves == 2 {
        let mut some = vec![0; dice.roll(900) as usize];
        let _ = stream.read(&mut some);
        let _ = stream.shutdown(Shutdown::Both);
        return false;
    }
    let (status, reply) = tiny::receive(stream);
    // Too many at once are refused, which is right for any.
    assert!(
        right.contains(&status) || status == 503,
        "{status} for {}: {reply}",
        &body[..body.len().min(300)]
    );
    true
}

fn resident_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn round(address: SocketAddr, count: usize, seed: u64) -> usize {
    let (asked, heard) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for asker in 0..ASKERS {
            let (asked, heard) = (&asked, &heard);
            scope.spawn(move || {
                let mut dice = Dice(seed * 1000 + asker);
                while asked.fetch_add(1, Ordering::Relaxed) < count {
                    heard.fetch_add(usize::from(ask(address, &mut dice)), Ordering::Relaxed);
                }
            });
        }
    });
    heard.into_inner()
}

#[test]
fn very_many_requests_leave_nothing_behind() {
    let count = std::env::var("STEELYARD_SOAK").ok().and_then(|count| count.parse().ok()).unwrap_or(FEW);
    let scratch = Scratch::new();
    let options = Options { threads: Some(1), context: Some(4096), ..Options::default() };
    let adapter = |number: u64| {
        let content = tiny::adapter(number);
        let location = scratch.file(&format!("adapter-{number}"), &content);
        let (digest, size) = (Digest::of(&content), content.len() as u64);
        tiny::handoff_of(
            &format!("cora/adapter-{number}"),
            digest,
            &[("adapter.gguf", digest, size, &location)],
        )
    };
    let adapters = vec![adapter(1), adapter(2)];
    let mut worker = Worker::launch_with(model(&scratch), adapters, options, |_| {});
    let address = worker.ready();
    let pid = worker.child.id();
    let mut heard = round(address, count / 10, 1);
    let before = resident_kb(pid);
    heard += round(address, count - count / 10, 2);
    let begun = Instant::now();
    loop {
        let (_, health) = tiny::receive(tiny::send(address, "GET", "/health", ""));
        let health: Value = serde_json::from_str(&health).unwrap();
        if health["active_requests"] == 0 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "requests never end: {health}");
        std::thread::sleep(POLL);
    }
    let after = resident_kb(pid);
    println!("{count} requests, {heard} heard to the end; {before} kB before, {after} kB after");
    assert!(after < before + GROWTH_KB, "{before} kB before, {after} kB after");
    let body = r#"{"prompt":"Hello","max_tokens":5,"temperature":0}"#;
    assert_eq!(tiny::receive(tiny::send(address, "POST", "/v1/completions", body)).0, 200);
    worker.order(&recall());
    assert!(matches!(worker.report(), Some(Report::Stopped { active_requests: 0, .. })));
    assert!(worker.child.wait().unwrap().success());
}
