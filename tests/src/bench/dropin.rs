//! What the hub interface costs: heads and first bytes of what is not here, throughput beside nginx, many clients at once.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::options;
use super::pull::largest_file;
use super::report::{Bar, Side, Table};
use crate::net::Settings;
use crate::wait::{until, within};
use crate::{Daemon, Home, Http, Net, generate, meter};

/// Bytes a second of the link over which what is not here comes: 100 Mbit/s.
const LINK: u64 = 12_500_000;
/// Size of each model whose first byte is waited for.
const FIRST_MIB: u64 = 8;
/// No model takes longer to come over the link.
const COME: Duration = Duration::from_secs(120);
/// Nothing here is waited for longer.
const LIMIT: Duration = Duration::from_secs(1800);

/// Most seconds for a head of what is not here.
const MOST_HEAD: f64 = 1.0;
/// Most seconds until the first byte of what is not here.
const MOST_FIRST: f64 = 2.0;
/// Least share of nginx's throughput.
const LEAST_SHARE: f64 = 0.8;
/// Most MiB resident while all clients read.
const MOST_MIB: f64 = 300.0;

fn address(http: &Http) -> &str {
    match http {
        Http::Tcp(address) => address,
        Http::Unix(_) => panic!("a TCP address is needed"),
    }
}

/// Asks for `path` and reads the head: the connection, and what of the body came with it.
fn ask(address: &str, method: &str, path: &str) -> io::Result<(TcpStream, u64)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let (mut head, mut block) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut block)?;
        head.extend_from_slice(&block[..read]);
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            return match head.starts_with(b"HTTP/1.1 200") {
                true => Ok((stream, (head.len() - end - 4) as u64)),
                false => Err(io::Error::other(String::from_utf8_lossy(&head).into_owned())),
            };
        }
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Two allies: one has published, the other knows of it and has nothing.
fn pair(net: &Net, models: &[(String, u64)], more: &str) -> (Home, Daemon, Daemon) {
    let [alba, cora] = net.allies(["alba", "cora"]);
    for (seed, (name, size)) in (1..).zip(models) {
        let folder = net.folder("model");
        generate::safetensors(&folder.join("model.safetensors"), *size, seed).expect("generate a model");
        alba.publish(&folder, name, "1", &["--releasable-to", "all"]);
        fs::remove_dir_all(&folder).expect("remove the original");
    }
    cora.configure(&Settings { more: more.to_owned(), ..Settings::default() });
    let (a, c) = (alba.start(), cora.start());
    c.connect(&a);
    for (name, _) in models {
        until("cora to know a model", || {
            let reply = c.public().request("GET", &format!("/api/models/alba/{name}"), None);
            (reply.status == 200).then_some(())
        });
    }
    (cora, a, c)
}

/// The value at that share of the sorted ones.
fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share).ceil() as usize;
    values.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Heads and first bytes of what is on none of the asked node's disks.
///
/// # Errors
/// Nothing that a machine may lack.
pub fn cold(folder: &Path) -> Result<Vec<Bar>, String> {
    let count = options::number("STEELYARD_BENCH_MODELS", 100);
    let models: Vec<_> = (0..count).map(|number| (format!("m{number}"), FIRST_MIB << 20)).collect();
    let net = Net::under(folder);
    let more = format!("[transfer]\nbandwidth = {{ down = {LINK} }}\n[hub]\nrequests_per_minute = 0");
    let (cora, _a, c) = pair(&net, &models, &more);
    let node = address(c.public());
    let path = |name: &str| format!("/alba/{name}/resolve/main/model.safetensors");
    let (mut heads, mut firsts) = (Vec::new(), Vec::new());
    for (name, _) in &models {
        let start = Instant::now();
        ask(node, "HEAD", &path(name)).map_err(|error| error.to_string())?;
        heads.push(start.elapsed().as_secs_f64());
    }
    if !cora.listing().is_empty() {
        return Err("a head made the node fetch something".to_owned());
    }
    for (name, _) in &models {
        let start = Instant::now();
        let (mut stream, with) = ask(node, "GET", &path(name)).map_err(|error| error.to_string())?;
        if with == 0 {
            stream.read_exact(&mut [0]).map_err(|error| error.to_string())?;
        }
        firsts.push(start.elapsed().as_secs_f64());
        drop(stream);
        // The link is free for the next one.
        within(COME, "a model to come", || {
            let transfers = c.http.get("/v1/transfers");
            let over = transfers.as_array()?.iter().all(|one| one["state"] == "done");
            over.then_some(())
        });
    }
    println!("{count} models of {FIRST_MIB} MiB over {} Mbit/s, each asked for once\n", LINK * 8 / 1_000_000);
    let mut table = Table::new(&["seconds", "median", "p99", "slowest"]);
    for (name, times) in [("HEAD", &mut heads), ("first byte", &mut firsts)] {
        let mut at = |share| format!("{:.3}", percentile(times, share));
        table.row(&[&name, &at(0.5), &at(0.99), &at(1.0)]);
    }
    println!("{table}");
    Ok(vec![
        Bar::new("cold-head-p99", percentile(&mut heads, 0.99), Side::Under, MOST_HEAD),
        Bar::new("first-byte", percentile(&mut firsts, 1.0), Side::Under, MOST_FIRST),
    ])
}

/// A node with one large model, and its blob.
fn warm(net: &Net, size: u64) -> (Daemon, PathBuf, u64) {
    let alba = net.nation("alba");
    let folder = net.folder("model");
    generate::safetensors(&folder.join("model.safetensors"), size, 1).expect("generate the model");
    alba.publish(&folder, "big", "1", &["--releasable-to", "all"]);
    fs::remove_dir_all(&folder).expect("remove the original");
    let clients = options::number("STEELYARD_BENCH_CLIENTS", 200);
    let more = format!("[hub]\nrequests_per_minute = 0\n# for {clients} clients");
    alba.configure(&Settings { more, ..Settings::default() });
    let blob = largest_file(&alba.path.join("store/blobs"));
    let size = blob.metadata().expect("the blob").len();
    (alba.start(), blob, size)
}

const BIG: &str = "/alba/big/resolve/main/model.safetensors";

/// Seconds that curl takes for `url`, thrown away.
fn curl(url: &str) -> Result<f64, String> {
    let start = Instant::now();
    let status = Command::new("curl")
        .args(["--silent", "--fail", "--output", "/dev/null", url])
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("curl: {error}"))?;
    if status.success() { Ok(start.elapsed().as_secs_f64()) } else { Err(format!("curl {url}: {status}")) }
}

/// One file, by turns from nginx and from the node, to one client.
///
/// # Errors
/// nginx or curl is missing.
pub fn throughput(folder: &Path) -> Result<Vec<Bar>, String> {
    let nginx = super::nginx().ok_or("nginx is not installed: apt-get install nginx")?;
    let runs = options::number("STEELYARD_BENCH_RUNS", 5).max(1);
    let net = Net::under(folder);
    let (node, blob, size) = warm(&net, options::size("DROPIN", 4096));
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let at = free.map_err(|error| error.to_string())?.to_string();
    let server = super::serve_http(Command::new(nginx), &at, &blob, &net.folder("nginx"));
    let url = format!("http://{}{BIG}", address(node.public()));
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    // The first of each warms up.
    curl(&url)?;
    curl(&format!("http://{at}/model"))?;
    let before = (server.cpu(), meter::cpu_seconds(node.pid()));
    for _ in 0..runs {
        theirs.push(size as f64 / curl(&format!("http://{at}/model"))?);
        ours.push(size as f64 / curl(&url)?);
    }
    let gib = (size * runs) as f64 / f64::from(1 << 30);
    let cpu = ((server.cpu() - before.0) / gib, (meter::cpu_seconds(node.pid()) - before.1) / gib);
    println!("{} MiB from memory to curl, {runs} runs each, by turns\n", size >> 20);
    let mut table = Table::new(&["server", "MB/s, median", "slowest", "fastest", "CPU-s/GiB"]);
    for (name, rates, cpu) in [("nginx", &mut theirs, cpu.0), ("steelyard", &mut ours, cpu.1)] {
        let mut at = |share| format!("{:.0}", percentile(rates, share) / 1e6);
        let cpu = format!("{cpu:.3}");
        table.row(&[&name, &at(0.5), &at(0.0), &at(1.0), &cpu]);
    }
    println!("{table}");
    let share = percentile(&mut ours, 0.5) / percentile(&mut theirs, 0.5);
    Ok(vec![Bar::new("throughput-vs-nginx", share, Side::AtLeast, LEAST_SHARE)])
}

/// Reads the whole file; answers how many bytes came.
fn read_all(address: &str) -> io::Result<u64> {
    let (mut stream, mut count) = ask(address, "GET", BIG)?;
    let mut block = vec![0; 256 << 10];
    loop {
        match stream.read(&mut block)? {
            0 => return Ok(count),
            read => count += read as u64,
        }
    }
}

/// Many clients that read one large file at once.
///
/// # Errors
/// Nothing that a machine may lack.
pub fn clients(folder: &Path) -> Result<Vec<Bar>, String> {
    let count = options::number("STEELYARD_BENCH_CLIENTS", 200);
    let net = Net::under(folder);
    let (node, _, size) = warm(&net, options::size("DROPIN", 4096));
    let node_at = address(node.public());
    // Deciding about the release is no part of it.
    ask(node_at, "HEAD", BIG).map_err(|error| error.to_string())?;
    meter::reset_peak(node.pid());
    let cpu = meter::cpu_seconds(node.pid());
    let (errors, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| match read_all(node_at) {
                Ok(read) if read == size => {
                    bytes.fetch_add(read, Ordering::Relaxed);
                }
                other => {
                    eprintln!("a client: {other:?}");
                    errors.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let (seconds, moved) = (start.elapsed().as_secs_f64(), bytes.into_inner() as f64);
    let resident = (meter::peak_resident(node.pid()) >> 20) as f64;
    let cpu = (meter::cpu_seconds(node.pid()) - cpu) / (moved / f64::from(1 << 30)).max(1e-9);
    println!(
        "{count} clients, {} MiB each: {seconds:.1} s, {:.0} MB/s, {cpu:.3} CPU-s/GiB, {resident:.0} MiB resident\n",
        size >> 20,
        moved / 1e6 / seconds,
    );
    Ok(vec![
        Bar::new(format!("errors-{count}-clients"), errors.into_inner() as f64, Side::AtMost, 0.0),
        Bar::new(format!("rss-{count}-clients"), resident, Side::Under, MOST_MIB),
    ])
}
