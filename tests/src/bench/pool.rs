//! What a pool costs: its front beside the worker that it passes requests to, and a model that is loaded in the place of another beside
//! a worker that is started for it.
//!
//! The worker that is asked through the front is asked at its own address too, in turn, so that both ways have the same process,
//! weights and cache.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::options;
use super::report::{Bar, Side, Table};
use crate::net::{Daemon, Net};
use crate::{Http, binary, generate};

/// Tokens a second through the front, of those directly from the worker.
const OVERHEAD: f64 = 0.95;
/// Until the first token of a model that is loaded in another's place, over that of a worker that is started.
const LOAD: f64 = 1.2;
/// Each way is measured so often, one after the other in turn; the median counts.
const ROUNDS: u64 = 7;
/// Tokens of an answer.
const TOKENS: u64 = 96;
/// The same of the model that has next to nothing to compute, so that the way is all there is.
const TINY_TOKENS: u64 = 4000;
/// Requests for one token, one after the other, each on a connection of its own.
const REQUESTS: u64 = 20;
/// Compute threads of each worker: one is left to the front and to whoever asks.
const THREADS: u64 = 1;
/// Memory in which one SmolLM2 has room, and no second one.
const BUDGET: u64 = 600 << 20;
const PATIENCE: Duration = Duration::from_secs(300);
const PROMPT: &str = "Once upon a time, in a small village by the sea, there lived";

/// The part of `bench-inference`.
pub fn part(folder: &Path) -> Result<Vec<Bar>, String> {
    let rounds = options::number("STEELYARD_BENCH_ROUNDS", ROUNDS).max(1);
    let net = Net::under(folder);
    let alba = net.nation("alba");
    for name in ["a", "b"] {
        let files = net.folder(name);
        fs::copy(binary::weights_file(), files.join("model.gguf")).map_err(|error| error.to_string())?;
        fs::write(files.join("README.md"), name).map_err(|error| error.to_string())?;
        alba.publish(&files, name, "1", &[]);
    }
    let files = net.folder("tiny");
    fs::write(files.join("tiny.gguf"), generate::tiny_gguf()).map_err(|error| error.to_string())?;
    alba.publish(&files, "tiny", "1", &[]);
    let node = alba.start();
    let overhead = front(&node, rounds)?;
    let load = loads(&node, rounds)?;
    node.stop();
    Ok(vec![
        Bar::new("pool-overhead", overhead, Side::AtLeast, OVERHEAD),
        Bar::new("pool-load", load, Side::AtMost, LOAD),
    ])
}

/// What one way gave in each round.
#[derive(Default)]
struct Way {
    rates: Vec<f64>,
    firsts: Vec<f64>,
    requests: Vec<f64>,
}

/// Through the front and not; the median of what is left of the rate.
fn front(node: &Daemon, rounds: u64) -> Result<f64, String> {
    let pool = open(node, &["alba/a", "alba/tiny"], None)?;
    let through = Http::tcp(address(&pool)?);
    let mut table = Table::new(&[
        "model",
        "asked",
        "tokens/s of one answer",
        "ms to its first token",
        "requests/s of one token",
    ]);
    let mut overhead = f64::NAN;
    for (model, tokens) in [("alba/a", TOKENS), ("alba/tiny", TINY_TOKENS)] {
        let direct = Http::tcp(&worker(node, &pool, model)?);
        let (mut front, mut own) = (Way::default(), Way::default());
        // What is computed first is kept, and the same for all that follow.
        answer(&direct, model, tokens)?;
        let mut kept = Vec::new();
        for round in 0..rounds {
            let mut both = [(&through, &mut front), (&direct, &mut own)];
            // Neither is always the first.
            if round % 2 == 1 {
                both.reverse();
            }
            for (http, way) in both {
                let (rate, first) = answer(http, model, tokens)?;
                way.rates.push(rate);
                way.firsts.push(first);
                way.requests.push(requests(http, model));
            }
            if let (Some(front), Some(own)) = (front.rates.last(), own.rates.last()) {
                kept.push(front / own);
            }
        }
        let kept = median(kept);
        for (name, way) in [("through the front", front), ("the worker itself", own)] {
            let number = |of: Vec<f64>, digits: usize| format!("{:.digits$}", median(of));
            let name =
                if name.starts_with("through") { format!("{name} ({kept:.3})") } else { name.to_owned() };
            table.row(&[
                &model,
                &name,
                &number(way.rates, 1),
                &number(way.firsts, 1),
                &number(way.requests, 1),
            ]);
        }
        if model == "alba/a" {
            overhead = kept;
        }
    }
    println!(
        "## A pool's front: {rounds} rounds, {TOKENS} tokens (the tiny model: {TINY_TOKENS})\n\n{table}"
    );
    close(node, &pool);
    Ok(overhead)
}

/// A model in another's place, and a worker that is started; the first over the second.
fn loads(node: &Daemon, rounds: u64) -> Result<f64, String> {
    let pool = open(node, &["alba/a", "alba/b"], Some(BUDGET))?;
    let http = Http::tcp(address(&pool)?);
    // What they need is known from here on, and the files are in the page cache.
    for model in ["alba/b", "alba/a"] {
        first_token(&http, model)?;
    }
    let (mut swapped, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for model in ["alba/b", "alba/a"] {
            swapped.push(first_token(&http, model)?);
            warm.push(first_token(&http, model)?);
        }
    }
    close(node, &pool);
    let mut started = Vec::new();
    for _ in 0..rounds {
        for model in ["alba/b", "alba/a"] {
            let begun = Instant::now();
            let worker = start(node, model)?;
            first_token(&Http::tcp(address(&worker)?), model)?;
            started.push(begun.elapsed().as_secs_f64());
            node.http.request("DELETE", &format!("/v1/workers/{}", worker["id"]), None);
        }
    }
    let (swapped, started, warm) = (median(swapped), median(started), median(warm));
    let mut table = Table::new(&["to the first token", "seconds", "over a start"]);
    for (what, seconds) in [
        ("a worker is started", started),
        ("another model is unloaded, and this one loaded", swapped),
        ("it is loaded already", warm),
    ] {
        table.row(&[&what, &format!("{seconds:.3}"), &format!("{:.3}", seconds / started)]);
    }
    println!("## A model in another's place: medians of {} loads\n\n{table}", 2 * rounds);
    Ok(swapped / started)
}

fn open(node: &Daemon, models: &[&str], memory: Option<u64>) -> Result<Value, String> {
    let body = json!({ "references": models, "listen": "127.0.0.1:0", "memory": memory, "options": { "threads": THREADS } });
    let opened = node.http.events("POST", "/v1/pools", Some(&body)).outcome(PATIENCE);
    opened.map_err(|problem| problem.to_string())
}

fn start(node: &Daemon, model: &str) -> Result<Value, String> {
    let body = json!({ "reference": model, "listen": "127.0.0.1:0", "options": { "threads": THREADS } });
    let started = node.http.events("POST", "/v1/workers", Some(&body)).outcome(PATIENCE);
    started.map_err(|problem| problem.to_string())
}

fn close(node: &Daemon, pool: &Value) {
    node.http.request("DELETE", &format!("/v1/pools/{}", pool["id"]), None);
}

pub(super) fn address(of: &Value) -> Result<&str, String> {
    of["address"].as_str().ok_or_else(|| format!("there is no address in {of}"))
}

/// Where the worker of a member answers itself.
fn worker(node: &Daemon, pool: &Value, model: &str) -> Result<String, String> {
    let members = pool["members"].as_array().cloned().unwrap_or_default();
    let member = members.into_iter().find(|member| member["model"] == model).ok_or("no such member")?;
    let workers = node.http.get("/v1/workers");
    let worker =
        workers.as_array().and_then(|all| all.iter().find(|it| it["id"] == member["worker"]).cloned());
    Ok(address(&worker.ok_or("the member has no worker")?)?.to_owned())
}

/// Tokens a second of one streamed answer after its first, and the milliseconds to that.
pub(super) fn answer(http: &Http, model: &str, tokens: u64) -> Result<(f64, f64), String> {
    let body = json!({
        "model": model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "stream": true,
        "stream_options": { "include_usage": true },
    });
    let begun = Instant::now();
    let mut events = http.events("POST", "/v1/completions", Some(&body));
    let (mut first, mut last, mut counted) = (None, begun, 0);
    while let Some(event) = events.next(PATIENCE) {
        if event.data == "[DONE]" {
            break;
        }
        let told = event.json();
        if let Some(used) = told["usage"]["completion_tokens"].as_u64() {
            counted = used;
        } else {
            last = Instant::now();
            first.get_or_insert(last);
        }
    }
    let first = first.ok_or("there was no answer")?;
    let seconds = (last - first).as_secs_f64();
    if counted < 2 {
        return Err(format!("the answer had {counted} tokens"));
    }
    Ok(((counted - 1) as f64 / seconds, (first - begun).as_secs_f64() * 1e3))
}

/// Requests a second that want one token each.
fn requests(http: &Http, model: &str) -> f64 {
    let body = json!({ "model": model, "prompt": PROMPT, "max_tokens": 1, "temperature": 0 });
    let begun = Instant::now();
    for _ in 0..REQUESTS {
        http.post("/v1/completions", &body);
    }
    REQUESTS as f64 / begun.elapsed().as_secs_f64()
}

/// Seconds to an answer of one token.
fn first_token(http: &Http, model: &str) -> Result<f64, String> {
    let body = json!({ "model": model, "prompt": PROMPT, "max_tokens": 1, "temperature": 0 });
    let begun = Instant::now();
    let told = http.post("/v1/completions", &body);
    let text = told["choices"][0]["text"].as_str().unwrap_or_default();
    if text.is_empty() {
        Err(format!("there is no token in {told}"))
    } else {
        Ok(begun.elapsed().as_secs_f64())
    }
}

pub(super) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
