//! Tokens a second: a worker with all that is around it (schedule, HTTP, a node that started it) beside the engine alone,
//! on the same weights, in the same run, with as many threads.
//!
//! The engine alone is llama.cpp as `inference::direct` calls it, as llama.cpp's own `batched-bench` does: every prompt, then
//! all answers in step. Prompts differ from the first token on, so that nothing is shared.

use std::path::Path;
use std::time::Instant;

use inference::direct::Alone;
use serde_json::{Value, json};

use super::report::{Bar, Side, Table};
use crate::Http;
use crate::binary;
use crate::net::{Net, Settings};

/// A worker must be at least so near to the engine alone.
const LIMIT: f64 = 0.95;
/// Requests at once.
const AT_ONCE: [usize; 3] = [1, 4, 16];
/// Each is measured so often, in turn; the fastest counts, since other work on the machine only slows.
const ROUNDS: usize = 3;
/// Compute threads of both: what the tests' settings give a worker.
const THREADS: u32 = 2;
/// Tokens of each answer where answers are measured, and words of a prompt where prompts are.
const ANSWER: usize = 96;
const WORDS: usize = 40;

/// The part of `bench-inference`.
pub fn part(folder: &Path) -> Result<Vec<Bar>, String> {
    let rounds = number("ROUNDS", ROUNDS);
    let (answer, words) = (number("TOKENS", ANSWER), number("WORDS", WORDS));
    let net = Net::under(folder);
    let home = net.nation("alba");
    home.configure(&Settings { more: "parallel = 16\ncache = 16384\n".to_owned(), ..Settings::default() });
    home.publish(binary::weights(), "model", "1", &["--releasable-to", "all"]);
    let node = home.start();
    let ready = node.serve("alba/model").map_err(|problem| problem.to_string())?;
    let address = ready["address"].as_str().ok_or("no address")?.to_owned();
    let alone = Alone::load(binary::weights_file(), THREADS).map_err(|error| error.to_string())?;
    let mut table = Table::new(&["what", "at once", "worker, tokens/s", "engine alone, tokens/s", "share"]);
    let mut bars = Vec::new();
    for (name, words, tokens) in [("decode", 2, answer), ("prompt", words, 1)] {
        for at_once in AT_ONCE {
            let (mut worker, mut engine) = (0f64, 0f64);
            for round in 0..rounds {
                let prompts = prompts(at_once, words, name, round);
                let computed: usize = match tokens {
                    1 => prompts.iter().map(|prompt| alone.count(prompt)).sum(),
                    tokens => at_once * tokens,
                };
                let seconds = served(&address, &prompts, tokens)?;
                worker = worker.max(computed as f64 / seconds);
                let took = alone.generate(&prompts, tokens).map_err(|error| error.to_string())?;
                engine = engine.max(computed as f64 / took.as_secs_f64());
            }
            let share = worker / engine;
            table.row(&[
                &name,
                &at_once,
                &format!("{worker:.1}"),
                &format!("{engine:.1}"),
                &format!("{share:.3}"),
            ]);
            bars.push(Bar::new(format!("{name}-{at_once}"), share, Side::AtLeast, LIMIT));
        }
    }
    println!("## Tokens a second, {THREADS} threads\n\n{table}");
    node.stop();
    Ok(bars)
}

/// Prompts that go on by themselves: a row of numbers has no end.
fn prompts(count: usize, words: usize, name: &str, round: usize) -> Vec<String> {
    let start = |index: usize| 1000 * (index + 1) + 37 * round + name.len();
    let row =
        |from: usize| (from..from + words).map(|number| format!("{number},")).collect::<Vec<_>>().join(" ");
    (0..count).map(|index| format!("{} {}", index * 7 + round, row(start(index)))).collect()
}

/// Seconds until all prompts, asked at once, are answered.
fn served(address: &str, prompts: &[String], tokens: usize) -> Result<f64, String> {
    let begun = Instant::now();
    let used: Vec<Value> = std::thread::scope(|scope| {
        let asked: Vec<_> = prompts
            .iter()
            .map(|prompt| {
                scope.spawn(move || {
                    let body = json!({ "prompt": prompt, "max_tokens": tokens, "temperature": 0 });
                    Http::tcp(address).post("/v1/completions", &body)["usage"].clone()
                })
            })
            .collect();
        asked.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    let seconds = begun.elapsed().as_secs_f64();
    match used.iter().find(|usage| usage["completion_tokens"] != json!(tokens)) {
        None => Ok(seconds),
        Some(usage) => Err(format!("an answer ended early, so the rates can't be compared: {usage}")),
    }
}

fn number(name: &str, default: usize) -> usize {
    let given = std::env::var(format!("STEELYARD_BENCH_{name}")).ok();
    given.and_then(|given| given.parse().ok()).unwrap_or(default)
}
