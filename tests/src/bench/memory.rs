//! What is resident while one node serves four at once, blobs on a disk.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::nodes::{know, pin_all};
use super::report::{Bar, Side, Table};
use super::{guard, options, require_space};
use crate::{Daemon, Home, Net, generate, meter};

/// Nodes that pull at once.
const PULLERS: usize = 4;
/// Most MiB that any of them, or the one that serves, may have resident.
const MOST: f64 = 300.0;
/// A pull from a slow disk is done by then.
const LIMIT: Duration = Duration::from_secs(3600);

/// Runs it; the blobs lie on a disk, since five copies of them are made.
///
/// # Errors
/// Nothing that a machine may lack; other parts do.
pub fn run(folder: &Path) -> Result<Vec<Bar>, String> {
    let size = options::size("MEMORY", 4096);
    let disk = guard::on_disk(folder);
    let copies = PULLERS as u64 + 2;
    require_space(&disk, size * copies + (1 << 30));
    let net = Net::under(&disk);
    eprintln!("memory: generating and publishing {} MiB", size >> 20);
    let model = net.folder("model");
    let file = model.join("model.safetensors");
    generate::safetensors(&file, size, 4).map_err(|error| format!("{}: {error}", file.display()))?;
    let homes: Vec<Home> =
        ["seed", "alba", "borea", "cora", "dora"].iter().map(|name| net.nation(name)).collect();
    homes[0].publish(&model, "model", "1", &["--releasable-to", "all"]);
    let _ = fs::remove_dir_all(&model);
    let daemons: Vec<Daemon> = homes.iter().map(Home::start).collect();
    pin_all(&daemons.iter().collect::<Vec<_>>());
    for (index, daemon) in daemons.iter().enumerate() {
        daemons[..index].iter().for_each(|other| daemon.connect(other));
    }
    for daemon in &daemons[1..] {
        know(daemon, PULLERS, "seed/model");
    }
    let idle: Vec<u64> = daemons.iter().map(|daemon| meter::resident(daemon.pid())).collect();
    daemons.iter().for_each(|daemon| meter::reset_peak(daemon.pid()));
    eprintln!("memory: {PULLERS} pulls at once");
    let start = Instant::now();
    std::thread::scope(|scope| {
        for daemon in &daemons[1..] {
            scope.spawn(|| {
                let request = json!({ "reference": "seed/model" });
                let done = daemon.http.events("POST", "/v1/pull", Some(&request)).outcome(LIMIT);
                done.unwrap_or_else(|problem| panic!("{}: {problem}", daemon.home.nation));
            });
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    let mut table = Table::new(&["node", "resident before, MiB", "peak, MiB"]);
    let mut most = 0;
    for (daemon, idle) in daemons.iter().zip(&idle) {
        let peak = meter::peak_resident(daemon.pid()) >> 20;
        most = most.max(peak);
        table.row(&[&daemon.home.nation, &(idle >> 20), &peak]);
    }
    let moved = (size * PULLERS as u64) as f64 / f64::from(1 << 30);
    println!("### Memory\n");
    println!(
        "{} MiB to {PULLERS} nodes at once ({moved:.1} GiB in all), blobs on a disk, {seconds:.0} s.\n",
        size >> 20
    );
    println!("{table}");
    Ok(vec![Bar::new("rss-mib", most as f64, Side::AtMost, MOST)])
}
