//! What a pull costs, both ends together in this process. Not a test of right or wrong: `make bench-pull` measures with
//! processes of their own. Run it by name, with `--ignored --nocapture`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::time::{Duration, Instant};

use common::{Country, Home, QUIC, Setup, TCP, eventually, noise};
use node::node::PullOptions;
use registry::statement::Releasable;

const MIB: usize = 1024 * 1024;

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

async fn measure(transport: &str) {
    let (alba, borea) = (Country::new("alba"), Country::new("borea"));
    let listen = || Setup { listen: vec![transport.to_owned()], ..Setup::default() };
    let a = Home::with(&alba, &[&borea], listen()).await.unwrap();
    let shards = 4;
    let mut files = Vec::new();
    for i in 0..shards {
        let len = 256 * MIB;
        let header = format!(r#"{{"t":{{"dtype":"U8","shape":[{len}],"data_offsets":[0,{len}]}}}}"#);
        let mut content = (header.len() as u64).to_le_bytes().to_vec();
        content.extend_from_slice(header.as_bytes());
        content.extend(noise(&format!("shard {i}"), len));
        files.push((["a.safetensors", "b.safetensors", "c.safetensors", "d.safetensors"][i], content));
    }
    a.publish(&alba, "m", "1", &files, Releasable::All).await;
    drop(files);
    let b = Home::with(&borea, &[&alba], listen()).await.unwrap();
    b.dial(&a).await;
    eventually(Duration::from_secs(10), "connected", || b.node.peers().len() == 1).await;
    let (start, before) = (Instant::now(), cpu());
    let report = b.node.pull("alba/m".parse().unwrap(), PullOptions::default()).await.unwrap();
    let (took, used) = (start.elapsed(), cpu() - before);
    let gib = report.transfer.bytes_total as f64 / (1u64 << 30) as f64;
    println!(
        "{transport}: {gib:.2} GiB in {took:.2?}: {:.0} MB/s, {:.2} CPU-s/GiB for both ends, high-water mark {} MiB",
        report.transfer.bytes_total as f64 / 1e6 / took.as_secs_f64(),
        used.as_secs_f64() / gib,
        resident(),
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; takes half a minute and two GiB"]
async fn a_gibibyte_over_tcp() {
    measure(TCP).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; takes half a minute and two GiB"]
async fn a_gibibyte_over_quic() {
    measure(QUIC).await;
}
