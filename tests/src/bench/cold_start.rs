//! From nothing to the first token over a link that is the bottleneck: a model that is served while it comes, beside the transfer
//! alone of the same bytes, and beside fetching first and serving then.
//!
//! Each is a fresh node that knows the release and has nothing of it. The publisher's own limit is the link, so that it is as wide
//! for all three.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::options;
use super::report::{Bar, Side, Table};
use crate::binary;
use crate::net::{Daemon, Home, Net, Settings};
use crate::wait::within;
use crate::{Http, Reply};

/// The first token may come so much later than the last byte of the transfer alone.
const LIMIT: f64 = 1.1;
/// And so many seconds.
const LIMIT_SECONDS: f64 = 1.0;
/// Bytes a second of the link: SmolLM2 takes some twenty seconds.
const RATE: u64 = 5_000_000;
/// Each way is measured so often, in turn; the median counts.
const ROUNDS: u64 = 3;
const PROMPT: &str = "Once upon a time";
const PATIENCE: Duration = Duration::from_secs(600);

/// The part of `bench-inference`.
pub fn part(folder: &Path) -> Result<Vec<Bar>, String> {
    let rate = options::number("STEELYARD_BENCH_RATE", RATE);
    let rounds = options::number("STEELYARD_BENCH_ROUNDS", ROUNDS).max(1);
    let size = binary::weights_file().metadata().map_err(|error| error.to_string())?.len();
    let net = Net::under(folder);
    let alba = net.nation("alba");
    alba.publish(binary::weights(), "model", "1", &["--releasable-to", "all"]);
    let more = format!("[transfer]\nbandwidth = {{ up = {rate} }}\n");
    alba.configure(&Settings { more, ..Settings::default() });
    let publisher = alba.start();
    let (mut pulls, mut streams, mut serials) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let reader = |way: &str| fresh(&net, &publisher, &format!("{way}{round}"));
        let (pull, served) = one_after_the_other(&reader("serial")?)?;
        pulls.push(pull);
        serials.push(served);
        streams.push(at_once(&reader("stream")?)?);
    }
    let (pull, stream, serial) = (median(pulls), median(streams), median(serials));
    let mut table = Table::new(&["what", "seconds", "over the transfer", "seconds after it"]);
    for (what, seconds) in [
        ("the transfer alone (`steelyard pull`)", pull),
        ("served while it comes, to the first token", stream),
        ("pulled, then served, to the first token", serial),
    ] {
        let (over, after) = (format!("{:.3}", seconds / pull), format!("{:.2}", seconds - pull));
        table.row(&[&what, &format!("{seconds:.2}"), &over, &after]);
    }
    println!("## Cold start: {} MB at {:.1} MB/s\n\n{table}", size / 1_000_000, rate as f64 / 1e6);
    publisher.stop();
    Ok(vec![
        Bar::new("cold-start", stream / pull, Side::AtMost, LIMIT),
        Bar::new("cold-start-seconds", stream - pull, Side::AtMost, LIMIT_SECONDS),
    ])
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A nation's first node, connected to the publisher, that knows the release and has nothing of it.
fn fresh(net: &Net, publisher: &Daemon, name: &str) -> Result<Daemon, String> {
    let home: Home = net.nation(name);
    home.trust(&publisher.home);
    let node = home.start();
    publisher.pin(&home);
    node.connect(publisher);
    within(PATIENCE, "the release to be known", || {
        let reply: Reply = node.http.try_request("GET", "/v1/resolve?ref=alba/model", None).ok()?;
        (reply.status == 200).then_some(())
    });
    Ok(node)
}

/// Pulls, then serves: the seconds of the pull, and those to the first token.
fn one_after_the_other(node: &Daemon) -> Result<(f64, f64), String> {
    let begun = Instant::now();
    node.pull("alba/model").map_err(|problem| problem.to_string())?;
    let pull = begun.elapsed().as_secs_f64();
    first_token(node)?;
    Ok((pull, begun.elapsed().as_secs_f64()))
}

/// Serves at once: the seconds to the first token.
fn at_once(node: &Daemon) -> Result<f64, String> {
    let begun = Instant::now();
    first_token(node)?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Starts a worker and asks it for one token.
fn first_token(node: &Daemon) -> Result<(), String> {
    let ready = node.serve("alba/model").map_err(|problem| problem.to_string())?;
    let address = ready["address"].as_str().ok_or("no address")?;
    let body = json!({ "prompt": PROMPT, "max_tokens": 1, "temperature": 0 });
    let answer = Http::tcp(address).post("/v1/completions", &body);
    let text = answer["choices"][0]["text"].as_str().unwrap_or_default();
    if text.is_empty() { Err(format!("there is no token in {answer}")) } else { Ok(()) }
}
