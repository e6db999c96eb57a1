//! Leases: a node that hears too few allies stops serving by itself, and begins again when it hears them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tests::net::Settings;
use tests::{Daemon, Home, Http, Net, generate, until, wait};

const LEASE: u64 = 3;
const TWO: &str = "[lease]\nseconds = 3\nnations = 2\n";
/// Beyond the end of a lease a worker may take this long, on a busy machine.
const OVERRUN: Duration = Duration::from_secs(2);

/// A process that stands still until this is dropped: to everybody else it is as if it were cut off.
struct Frozen(Pid);

impl Frozen {
    fn new(node: &Daemon) -> Self {
        let pid = Pid::from_raw(node.pid() as i32).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

fn publish(net: &Net, home: &Home) {
    let folder = net.folder("tiny");
    fs::write(folder.join("tiny.gguf"), generate::tiny_gguf()).unwrap();
    home.publish(&folder, "tiny", "1", &["--releasable-to", "all"]);
}

fn start(home: &Home, more: &str) -> Daemon {
    home.configure(&Settings { more: more.to_owned(), ..Settings::default() });
    home.start()
}

fn worker(node: &Daemon) -> Value {
    node.http.get("/v1/workers")[0].clone()
}

fn state(node: &Daemon, wanted: &str) -> Value {
    until(&format!("the worker to be {wanted}"), || {
        let worker = worker(node);
        (worker["state"] == wanted).then_some(worker)
    })
}

#[test]
fn a_node_that_is_cut_off_serves_until_its_lease_ends() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    publish(&net, &alba);
    let (a, b, c) = (alba.start(), borea.start(), start(&cora, TWO));
    c.connect(&a);
    c.pull("alba/tiny").unwrap_or_else(|problem| panic!("{problem}"));
    // One ally is not enough.
    let problem = c.serve("alba/tiny").unwrap_err();
    assert_eq!(problem["code"], "policy_refused", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("2 allied nation(s)"), "{problem}");
    assert_eq!(c.status()["lease"]["held"], false);
    c.connect(&b);
    let ready = until("the lease to be held", || c.serve("alba/tiny").ok());
    let address = ready["address"].as_str().unwrap().to_owned();
    let api = Http::tcp(&address);
    let status = c.status();
    assert_eq!(status["lease"]["held"], true, "{status}");
    assert_eq!(status["lease"]["heard"].as_array().unwrap().len(), 2, "{status}");
    assert!(cora.ok(&["status"]).stdout.contains("held until"));
    // While both are heard it goes on beyond its length.
    std::thread::sleep(Duration::from_secs(LEASE + 1));
    let left = api.get("/health")["lease"]["left_ms"].as_u64().unwrap();
    assert!(left <= LEASE * 1000 && worker(&c)["state"] == "ready", "{left} ms are left");

    // One of the two falls silent: a long answer is cut at the lease's end, and says why.
    let body = json!({ "prompt": "Once", "temperature": 0, "max_tokens": 8000, "stream": true });
    let frozen = Frozen::new(&b);
    let mut ended = None;
    let begun = Instant::now();
    while ended.is_none() {
        let mut stream = api.events("POST", "/v1/completions", Some(&body));
        while let Some(event) = stream.next(Duration::from_secs(30)) {
            if event.data.contains("error") {
                ended = Some(event.json());
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(LEASE) + OVERRUN, "it is still answered");
    }
    let said = ended.unwrap();
    assert_eq!(said["error"]["code"], "lease_ended", "{said}");
    let suspended = state(&c, "suspended");
    assert_eq!(suspended["stop"]["cause"], "lease_ended", "{suspended}");
    assert!(api.try_request("GET", "/health", None).is_err(), "somebody answers still");
    assert_eq!(c.status()["lease"]["held"], false);
    assert!(cora.ok(&["status"]).stdout.contains("suspended"));
    let problem = c.serve("alba/tiny").unwrap_err();
    assert_eq!(problem["code"], "policy_refused", "{problem}");

    // It comes back, at the same address.
    drop(frozen);
    let back = state(&c, "ready");
    assert_eq!(back["address"], *address, "{back}");
    assert_eq!(back["stop"], Value::Null, "{back}");
    assert_eq!(api.get("/health")["status"], "ok");

    // A recall that it missed while it was cut off: it does not come back.
    let frozen = (Frozen::new(&a), Frozen::new(&b));
    state(&c, "suspended");
    drop(frozen.1);
    std::thread::sleep(Duration::from_secs(1));
    drop(frozen.0);
    alba.recall("alba/tiny@1", "rots", "high");
    let stopped = state(&c, "stopped");
    assert_eq!(stopped["stop"]["cause"], "recalled", "{stopped}");
}

#[test]
fn a_worker_outlives_no_frozen_node() {
    let net = Net::new();
    let [alba, borea, cora] = net.allies(["alba", "borea", "cora"]);
    publish(&net, &alba);
    let (a, b, c) = (alba.start(), borea.start(), start(&cora, TWO));
    c.connect(&a);
    c.connect(&b);
    c.pull("alba/tiny").unwrap_or_else(|problem| panic!("{problem}"));
    let ready = until("the lease to be held", || c.serve("alba/tiny").ok());
    let pid = ready["pid"].as_u64().unwrap();
    let frozen = Frozen::new(&c);
    let begun = Instant::now();
    wait::within(Duration::from_secs(LEASE) + OVERRUN, "the worker to stop by itself", || {
        wait::has_ended(pid).then_some(())
    });
    println!("the worker of a frozen node stopped after {:?}", begun.elapsed());
    drop(frozen);
    state(&c, "ready");
}

#[test]
fn where_no_lease_is_needed_none_ends() {
    let net = Net::new();
    let [alba, cora] = net.allies(["alba", "cora"]);
    publish(&net, &alba);
    let (a, c) = (alba.start(), start(&cora, "[lease]\nseconds = 0\nproducers = { borea = 1 }\n"));
    c.connect(&a);
    c.pull("alba/tiny").unwrap_or_else(|problem| panic!("{problem}"));
    let ready = c.serve("alba/tiny").unwrap_or_else(|problem| panic!("{problem}"));
    let api = Http::tcp(ready["address"].as_str().unwrap());
    a.stop();
    std::thread::sleep(Duration::from_secs(2));
    let health = api.get("/health");
    assert_eq!(health["status"], "ok", "{health}");
    assert_eq!(health["lease"], Value::Null, "{health}");
    assert_eq!(worker(&c)["lease_ends"], Value::Null);
}
