//! One blob from k = 1 to 4 providers, each behind a capped uplink: how many times faster than from one. Beside iroh-blobs
//! with its multi-provider downloader in the same namespaces.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::iroh::Iroh;
use super::nodes::{know, pin_all, place};
use super::options;
use super::report::{Bar, Side, Table};
use super::space::Spaces;
use crate::{Daemon, Home, Net, generate};

/// Each provider's uplink, in bits a second.
const UPLINK: u64 = 50_000_000;
/// Most providers.
const MOST: usize = 4;
/// A fetch that is not done after so many times its shortest time and this time on top hangs.
const HANGS: (f64, Duration) = (20.0, Duration::from_secs(120));
/// What is promised of k providers: this share of k times one.
const SHARE: f64 = 0.9;
/// What every node asks for.
const REFERENCE: &str = "provider1/model";

/// Runs it in `folder`.
///
/// # Errors
/// What the machine lacks.
pub fn run(folder: &Path) -> Result<Vec<Bar>, String> {
    let size = options::size("PROVIDERS", 128);
    let spaces = Spaces::new(folder, "providers", MOST + 1, UPLINK)?;
    let net = Net::under(folder);
    let model = net.folder("model");
    let file = model.join("model.safetensors");
    generate::safetensors(&file, size, 2).map_err(|error| format!("{}: {error}", file.display()))?;
    let size = file.metadata().map_err(|error| error.to_string())?.len();
    let alone = size as f64 * 8.0 / UPLINK as f64;

    let providers = stocked(&net, &model);
    let mut seconds = Vec::new();
    for count in 1..=MOST {
        eprintln!("providers {count}: steelyard");
        seconds.push(steelyard(&net, &spaces, &providers[..count], alone));
    }
    let mut rows = vec![("steelyard", seconds)];
    if let Some(iroh) = options::with_peers().then(Iroh::found).flatten() {
        let seconds = (1..=MOST).map(|count| {
            eprintln!("providers {count}: iroh-blobs");
            iroh.from_many(&spaces, &net, &file, count)
        });
        rows.push(("iroh-blobs, split over its providers", seconds.collect()));
    }

    let mut table = Table::new(&["how", "k", "seconds", "MB/s", "x one provider", "of k"]);
    let mut bars = Vec::new();
    for (how, seconds) in &rows {
        let one = seconds.first().copied().unwrap_or(f64::NAN);
        for (took, k) in seconds.iter().zip(1..) {
            let gain = one / took;
            table.row(&[
                how,
                &k,
                &format!("{took:.1}"),
                &format!("{:.2}", size as f64 / 1e6 / took),
                &format!("{gain:.2}"),
                &format!("{:.2}", gain / f64::from(k)),
            ]);
            if *how == "steelyard" && k > 1 {
                let least = (SHARE * f64::from(k) * 10.0).round() / 10.0;
                bars.push(Bar::new(format!("providers-{k}-speedup"), gain, Side::AtLeast, least));
            }
        }
    }
    println!("### Providers\n");
    let (mib, uplink) = (size >> 20, UPLINK / 1_000_000);
    println!(
        "One blob of {mib} MiB of noise, {uplink} Mbit/s up for each provider; one alone needs {alone:.1} s.\n"
    );
    println!("{table}");
    Ok(bars)
}

/// Nations that all hold the release: the first published it, the others pulled it while nothing was capped.
fn stocked(net: &Net, model: &Path) -> Vec<Home> {
    let homes: Vec<Home> = (1..=MOST).map(|index| net.nation(&format!("provider{index}"))).collect();
    homes[0].publish(model, "model", "1", &["--releasable-to", "all"]);
    let daemons: Vec<Daemon> = homes.iter().map(Home::start).collect();
    pin_all(&daemons.iter().collect::<Vec<_>>());
    for daemon in &daemons[1..] {
        daemon.connect(&daemons[0]);
        daemon.pull(REFERENCE).unwrap_or_else(|problem| panic!("{}: {problem}", daemon.home.nation));
    }
    for daemon in daemons {
        daemon.stop();
    }
    homes
}

/// Seconds that a fresh node takes to pull from these providers.
fn steelyard(net: &Net, spaces: &Spaces, providers: &[Home], alone: f64) -> f64 {
    let mut addresses = Vec::new();
    let mut daemons = Vec::new();
    for (home, index) in providers.iter().zip(1..) {
        let mut home = home.clone();
        addresses.push(place(&mut home, spaces, index, &[]));
        daemons.push(home.start());
    }
    let mut puller = net.nation(&format!("puller{}", providers.len()));
    place(&mut puller, spaces, 0, &addresses);
    let puller = puller.start();
    for provider in &daemons {
        provider.pin(&puller.home);
        puller.pin(&provider.home);
    }
    know(&puller, providers.len(), REFERENCE);
    let limit = Duration::from_secs_f64(alone * HANGS.0) + HANGS.1;
    let start = Instant::now();
    let pull = puller.http.events("POST", "/v1/pull", Some(&json!({ "reference": REFERENCE })));
    let done = pull.outcome(limit);
    let took = start.elapsed().as_secs_f64();
    done.unwrap_or_else(|problem| panic!("{problem}"));
    drop(daemons);
    let home = puller.home.path.clone();
    drop(puller);
    // Its copy would only take memory from the next.
    let _ = std::fs::remove_dir_all(home);
    took
}
