//! The worker as its node sees it: a process with a pipe on each side, on a real if small model.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, Stdio};

use registry::admitted::Handoff;
use registry::digest::Digest;
use registry::serving::hand::{self, Hand};
use registry::serving::{FailCode, Launch, MAX_LINE, Options, Order, Rehash, Report, StopCode, Wall};

use super::orders::{obey, read_line};
use super::*;
use crate::tiny::{self, Scratch};

mod soak;

/// Set in the environment of a process that is to be a worker.
const ROLE: &str = "STEELYARD_TEST_WORKER";

/// Not a test by itself: what the processes below run.
#[test]
fn worker_process() {
    if std::env::var_os(ROLE).is_some() {
        let code = main();
        std::process::exit(i32::from(code != ExitCode::SUCCESS));
    }
}

struct Worker {
    child: Child,
    orders: Option<UnixStream>,
    reports: BufReader<ChildStdout>,
}

impl Worker {
    /// A worker whose input is a socket, on which `hand` comes before the line.
    fn start(hand: Option<&Hand>, first_line: &str) -> Self {
        let (mut orders, theirs) = UnixStream::pair().unwrap();
        if let Some(hand) = hand {
            hand.send(&orders).unwrap();
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "worker::tests::worker_process", "--nocapture", "--test-threads=1"])
            .env(ROLE, "1")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let reports = BufReader::new(child.stdout.take().unwrap());
        // A worker that refuses the line may be gone before it is whole.
        let _ = writeln!(orders, "{first_line}");
        Self { child, orders: Some(orders), reports }
    }

    fn serve(admitted: Handoff, options: Options) -> Self {
        Self::launch(admitted, options, |_| {})
    }

    /// Hands in what lies where the hand-off says.
    fn launch(admitted: Handoff, options: Options, change: impl FnOnce(&mut Launch)) -> Self {
        Self::launch_with(admitted, Vec::new(), options, change)
    }

    /// The same with adapters.
    fn launch_with(
        admitted: Handoff,
        adapters: Vec<Handoff>,
        options: Options,
        change: impl FnOnce(&mut Launch),
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let map =
            |file: &registry::admitted::AdmittedFile| hand::open(&file.location.with_extension("map")).ok();
        let mut hand = Hand::open(&listener, &admitted, map).unwrap();
        let adapters = adapters.into_iter().map(|admitted| {
            let handed = hand.adapter(&admitted, map);
            registry::serving::Adapter { admitted, handed }
        });
        let adapters = adapters.collect();
        let mut launch = Launch {
            vllm: None,
            admitted,
            handed: hand.handed(),
            options,
            // The harness has a thread already, and namespaces are left by a process that has one; the walls are tested
            // around the real program.
            allow_missing: vec![Wall::Namespaces, Wall::Mounts],
            rehash: Rehash::default(),
            lease: None,
            access: Access::default(),
            quiet: false,
            adapters,
        };
        change(&mut launch);
        Self::start(Some(&hand), &serde_json::to_string(&launch).unwrap())
    }

    /// The next report; the lines of the test harness around them are none.
    fn report(&mut self) -> Option<Report> {
        loop {
            let mut line = String::new();
            if self.reports.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(at) = line.find("{\"report\"") {
                // How many requests there are is told at any time.
                match serde_json::from_str(&line[at..]).unwrap() {
                    Report::Load { .. } => {}
                    report => return Some(report),
                }
            }
        }
    }

    fn ready(&mut self) -> SocketAddr {
        loop {
            match self.report().unwrap() {
                Report::Ready { address, model, release, .. } => {
                    assert_eq!((model.as_str(), release), ("alba/tiny", Digest::of(b"release")));
                    return address;
                }
                Report::Needs { bytes } => assert!(bytes > 64 << 20, "{bytes} bytes"),
                Report::Sealed { .. } | Report::Verifying { .. } | Report::Loading { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn failed(mut self) -> (FailCode, String) {
        loop {
            if let Report::Failed { code, message } = self.report().unwrap() {
                assert!(!self.child.wait().unwrap().success());
                return (code, message);
            }
        }
    }

    fn order(&mut self, order: &Order) {
        writeln!(self.orders.as_mut().unwrap(), "{}", serde_json::to_string(order).unwrap()).unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn model(scratch: &Scratch) -> Handoff {
    let weights = tiny::gguf(Some(tiny::TEMPLATE));
    let location = scratch.file("weights", &weights);
    tiny::handoff(&[
        ("README.md", Digest::of(b"absent"), 6, std::path::Path::new("/nonexistent")),
        ("tiny.gguf", Digest::of(&weights), weights.len() as u64, &location),
    ])
}

fn recall() -> Order {
    Order::Stop { code: StopCode::Recalled, reason: "it leaks state secrets".to_owned() }
}

const LONG: &str =
    r#"{"messages":[{"role":"user","content":"Hi"}],"stream":true,"max_tokens":8000,"temperature":0}"#;

#[test]
fn a_recall_ends_a_running_answer_and_the_process() {
    let scratch = Scratch::new();
    let mut worker = Worker::serve(model(&scratch), Options::default());
    let address = worker.ready();
    let mut running = tiny::send(address, "POST", "/v1/chat/completions", LONG);
    let mut first = [0; 600];
    running.read_exact(&mut first).unwrap();
    worker.order(&recall());
    let stopped = worker.report().unwrap();
    let mut rest = Vec::new();
    running.read_to_end(&mut rest).unwrap();
    let status = worker.child.wait().unwrap();
    assert!(status.success(), "{status}");
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains("model_recalled") && rest.contains("it leaks state secrets"), "{rest}");
    assert!(!rest.contains("[DONE]"), "{rest}");
    let tokens = rest.matches("data: ").count();
    assert!(tokens < 8000, "all {tokens} tokens were sent");
    match stopped {
        Report::Stopped { code, reason, active_requests } => {
            assert_eq!(
                (code, reason.as_str(), active_requests),
                (StopCode::Recalled, "it leaks state secrets", 1)
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_end_of_the_input_ends_the_process() {
    let scratch = Scratch::new();
    let mut worker = Worker::serve(model(&scratch), Options::default());
    worker.ready();
    drop(worker.orders.take());
    assert!(matches!(worker.report(), Some(Report::Stopped { code: StopCode::Requested, .. })));
    assert!(worker.child.wait().unwrap().success());
}

#[test]
fn changed_bytes_are_never_served() {
    let scratch = Scratch::new();
    let admitted = model(&scratch);
    let location = scratch.path().join("weights");
    let mut bytes = fs::read(&location).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&location, bytes).unwrap();
    let (code, message) = Worker::serve(admitted, Options::default()).failed();
    assert_eq!(code, FailCode::HashMismatch);
    assert!(message.contains("tiny.gguf") && message.contains("steelyard verify"), "{message}");
}

#[test]
fn what_can_not_be_served_is_said_with_its_reason() {
    let scratch = Scratch::new();
    let (code, message) = Worker::start(None, "not json").failed();
    assert_eq!(code, FailCode::Protocol);
    assert!(message.contains("steelyard serve"), "{message}");
    assert_eq!(Worker::start(None, &"x".repeat(MAX_LINE + 1)).failed().0, FailCode::Protocol);

    let nonsense = b"this is no GGUF file".to_vec();
    let location = scratch.file("nonsense", &nonsense);
    let files = [("a.gguf", Digest::of(&nonsense), nonsense.len() as u64, location.as_path())];
    let (code, message) = Worker::serve(tiny::handoff(&files), Options::default()).failed();
    assert_eq!(code, FailCode::Engine);
    assert!(message.contains("a.gguf") && message.contains("instead of `GGUF`"), "{message}");

    // A header that our reader has nothing against, and llama.cpp has: its words are the reason.
    let mut foreign = tiny::gguf(None);
    let at = foreign.windows(5).position(|window| window == b"llama").unwrap();
    foreign[at..at + 5].copy_from_slice(b"alien");
    let location = scratch.file("foreign", &foreign);
    let files = [("b.gguf", Digest::of(&foreign), foreign.len() as u64, location.as_path())];
    let (code, message) = Worker::serve(tiny::handoff(&files), Options::default()).failed();
    assert_eq!(code, FailCode::Engine);
    assert!(message.contains("b.gguf") && message.contains("alien"), "{message}");
    assert!(!message.contains("/proc/self"), "{message}");

    let files = [("model.safetensors", Digest::of(b"x"), 1, location.as_path())];
    let (code, message) = Worker::serve(tiny::handoff(&files), Options::default()).failed();
    assert_eq!(code, FailCode::UnsupportedFormat);
    assert!(message.contains("model.safetensors"), "{message}");
}

#[test]
fn a_lease_that_is_not_renewed_ends_a_running_answer_and_the_process() {
    let scratch = Scratch::new();
    let end = |ms: u64| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        registry::lease::LeaseEnd { left_ms: ms, ends_ms: now.as_millis() as u64 + ms }
    };
    let lease = Some(end(60_000));
    let mut worker = Worker::launch(model(&scratch), Options::default(), |launch| launch.lease = lease);
    let address = worker.ready();
    let (_, health) = tiny::receive(tiny::send(address, "GET", "/health", ""));
    assert!(health.contains("left_ms"), "{health}");
    let mut running = tiny::send(address, "POST", "/v1/chat/completions", LONG);
    let mut first = [0; 600];
    running.read_exact(&mut first).unwrap();
    worker.order(&Order::Lease(end(300)));
    // The node says nothing more, and its pipe stays open.
    let Some(Report::Stopped { code: StopCode::LeaseEnded, active_requests: 1, .. }) = worker.report() else {
        panic!("it did not stop by itself");
    };
    let mut rest = String::new();
    running.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("lease_ended") && !rest.contains("[DONE]"), "{rest}");
    assert!(worker.child.wait().unwrap().success());
}

#[test]
fn orders_are_obeyed_and_the_end_of_the_input_is_one() {
    let adapter = Halt::default();
    let stop = |input: &str| {
        let halt = Halt::default();
        let (prove, _) = mpsc::channel(1);
        let receipts = Receipts::new(Reporter::default());
        let access = watch::Sender::new(Access::default());
        let (drain, _) = mpsc::channel(1);
        let desk = Desk {
            halt: halt.clone(),
            leash: Leash::default(),
            access,
            prove,
            receipts,
            arrivals: Arrivals::default(),
            answer: watch::Sender::new(false),
            drain,
            adapters: vec![(Digest::of(b"adapter"), adapter.clone())],
        };
        obey(&mut input.as_bytes(), &desk);
        halt.cause().unwrap()
    };
    let line = serde_json::to_string(&recall()).unwrap();
    assert_eq!(stop(&line).code, StopCode::Recalled);
    assert_eq!(stop(&format!("{line}\n")).reason, "it leaks state secrets");
    assert_eq!(stop("").reason, "the node is gone");
    // An adapter ends alone; one that is not known ends everything.
    let withdraw = |release| {
        let order = Order::Withdraw { release, code: StopCode::Recalled, reason: "it lies".to_owned() };
        serde_json::to_string(&order).unwrap()
    };
    assert_eq!(stop(&withdraw(Digest::of(b"adapter"))).reason, "the node is gone");
    assert_eq!(adapter.cause().unwrap().reason, "it lies");
    assert_eq!(stop(&withdraw(Digest::of(b"another"))).reason, "it lies");
    assert!(stop("{\"order\":\"dance\"}\n").reason.contains("does not know"));
}

#[test]
fn lines_are_bounded() {
    let long = vec![b'x'; MAX_LINE + 10];
    assert!(read_line(&mut &long[..]).is_err());
    assert_eq!(read_line(&mut &b"a\nb"[..]).unwrap().unwrap(), b"a");
    assert_eq!(read_line(&mut &b""[..]).unwrap(), None);
}
