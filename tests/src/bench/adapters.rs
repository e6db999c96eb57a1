//! What adapters cost: the same answers from a model, from it with one adapter, and from several kinds at once.
//!
//! It has no bar: nobody promised a figure. What is shown is the price of llama.cpp applying one adapter to all that a step computes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::options;
use super::pool::{address, answer, median};
use super::report::{Bar, Table};
use crate::net::Net;
use crate::{Http, binary, generate};

/// Each mix is measured so often, one after the other in turn; the median counts.
const ROUNDS: u64 = 5;
/// Tokens of an answer.
const TOKENS: u64 = 96;
/// Compute threads: one is left to whoever asks.
const THREADS: u64 = 1;
const PATIENCE: Duration = Duration::from_secs(300);

/// Who is asked at once.
const MIXES: [(&str, &[&str]); 6] = [
    ("1 answer of the model", &["alba/model"]),
    ("1 answer with an adapter", &["alba/one"]),
    ("4 answers of the model", &["alba/model"; 4]),
    ("4 answers with one adapter", &["alba/one"; 4]),
    ("2 of the model, 2 with an adapter", &["alba/model", "alba/one", "alba/model", "alba/one"]),
    ("1 of the model, 3 with an adapter each", &["alba/model", "alba/one", "alba/two", "alba/three"]),
];

/// The part of `bench-inference`.
pub fn part(folder: &Path) -> Result<Vec<Bar>, String> {
    let rounds = options::number("STEELYARD_BENCH_ROUNDS", ROUNDS).max(1);
    let net = Net::under(folder);
    let alba = net.nation("alba");
    let files = net.folder("model");
    fs::copy(binary::weights_file(), files.join("model.gguf")).map_err(|error| error.to_string())?;
    alba.publish(&files, "model", "1", &[]);
    let names = ["one", "two", "three"];
    for (number, name) in (0..).zip(names) {
        let files = net.folder(name);
        fs::write(files.join("adapter.gguf"), generate::smollm2_adapter(number))
            .map_err(|error| error.to_string())?;
        alba.publish(&files, name, "1", &["--derived-from", "alba/model@1:adapter"]);
    }
    let node = alba.start();
    let body = json!({
        "reference": "alba/model", "listen": "127.0.0.1:0", "adapters": names.map(|name| format!("alba/{name}")),
        "options": { "threads": THREADS },
    });
    let worker = node.http.events("POST", "/v1/workers", Some(&body)).outcome(PATIENCE);
    let worker = worker.map_err(|problem| problem.to_string())?;
    let http = Http::tcp(address(&worker)?);
    for (_, models) in MIXES {
        together(&http, models)?;
    }
    let mut rates = MIXES.map(|_| Vec::new());
    for _ in 0..rounds {
        for ((_, models), rates) in MIXES.iter().zip(&mut rates) {
            rates.push(together(&http, models)?);
        }
    }
    node.stop();
    let rates = rates.map(median);
    let mut table = Table::new(&["asked at once", "tokens/s", "of the model's own"]);
    for ((what, models), rate) in MIXES.iter().zip(rates) {
        let own = if models.len() == 1 { rates[0] } else { rates[2] };
        table.row(&[what, &format!("{rate:.1}"), &format!("{:.3}", rate / own)]);
    }
    println!("## Adapters of rank 16 on queries and values: {rounds} rounds, {TOKENS} tokens\n\n{table}");
    Ok(Vec::new())
}

/// Tokens a second of all these answers together.
fn together(http: &Http, models: &[&str]) -> Result<f64, String> {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let asked: Vec<_> =
            models.iter().map(|model| scope.spawn(move || answer(http, model, TOKENS))).collect();
        asked.into_iter().try_for_each(|asked| match asked.join() {
            Ok(answered) => answered.map(drop),
            Err(_) => Err("an asker died".to_owned()),
        })
    })?;
    Ok(models.len() as f64 * TOKENS as f64 / begun.elapsed().as_secs_f64())
}
