//! The stock clients of the Hugging Face Hub, each run in a fresh cache against one node; and a proxy that cuts connections.

pub mod world;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::net::{Run, run};
use crate::{Http, python};

/// A run of a client ends by then.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(240);

/// A version of the client.
#[derive(Debug, Clone)]
pub struct Client {
    interpreter: PathBuf,
    /// What it is called in messages.
    pub name: &'static str,
    env: Vec<(String, String)>,
}

/// The newest client, with transformers.
pub fn newest() -> Client {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let path = PATH.get_or_init(|| python::with_requirements("requirements-hub.txt"));
    Client { interpreter: path.clone(), name: "huggingface_hub 2.x", env: Vec::new() }
}

/// The client of 0.36.
pub fn older() -> Client {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let path = PATH.get_or_init(|| python::with_requirements("requirements-hub-0.36.txt"));
    Client { interpreter: path.clone(), name: "huggingface_hub 0.36", env: Vec::new() }
}

/// Both.
pub fn both() -> [Client; 2] {
    [newest(), older()]
}

/// A client with torch, where `STEELYARD_TORCH_PYTHON` names its interpreter.
pub fn with_torch() -> Option<Client> {
    let interpreter = std::env::var_os("STEELYARD_TORCH_PYTHON").map(PathBuf::from)?;
    Some(Client { interpreter, name: "transformers with torch", env: Vec::new() })
}

/// `http://host:port` of a public interface.
pub fn endpoint(http: &Http) -> String {
    match http {
        Http::Tcp(address) => format!("http://{address}"),
        Http::Unix(path) => panic!("{} is no endpoint", path.display()),
    }
}

impl Client {
    /// The same with another variable in its environment.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn command(&self, program: &Path, endpoint: &str, cache: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HF_ENDPOINT", endpoint).env("HF_HOME", cache).env("HOME", cache);
        command.env("HF_HUB_DISABLE_TELEMETRY", "1").env("HF_HUB_DISABLE_PROGRESS_BARS", "1");
        command.env("NO_COLOR", "1").env("PYTHONDONTWRITEBYTECODE", "1");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a scenario of `tests/python/hub` with an empty cache.
    pub fn scenario(&self, endpoint: &str, args: &[&str]) -> Run {
        let cache = tempfile::tempdir().expect("a temporary folder");
        self.scenario_in(endpoint, cache.path(), args)
    }

    /// The same with a cache of the caller's.
    pub fn scenario_in(&self, endpoint: &str, cache: &Path, args: &[&str]) -> Run {
        let mut command = self.command(&self.interpreter, endpoint, cache);
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("python"));
        command.args(["-m", "hub"]).args(args);
        run(command, LIMIT)
    }

    /// The same, and it must succeed.
    #[track_caller]
    pub fn passes(&self, endpoint: &str, args: &[&str]) {
        let run = self.scenario(endpoint, args);
        assert_eq!(run.code, 0, "{}: {run}", self.name);
    }

    /// Runs a command that lies beside the interpreter, such as `hf`.
    pub fn run(&self, program: &str, endpoint: &str, cache: &Path, args: &[&str]) -> Run {
        let program = self.interpreter.with_file_name(program);
        let mut command = self.command(&program, endpoint, cache);
        command.current_dir(cache).args(args);
        run(command, LIMIT)
    }
}

/// Passes connections on to a node and cuts the first few that carry a long answer.
#[derive(Debug)]
pub struct Cutter {
    address: String,
    /// Connections that were cut.
    pub cut: Arc<AtomicUsize>,
    /// Bytes that went to the client.
    pub passed: Arc<AtomicU64>,
}

impl Cutter {
    /// In front of `target`; the first `cuts` connections whose answers are longer than `after` bytes are cut there.
    pub fn new(target: &Http, cuts: usize, after: u64) -> Self {
        let Http::Tcp(target) = target.clone() else { panic!("a TCP address is needed") };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let (cut, passed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let (counted, bytes) = (Arc::clone(&cut), Arc::clone(&passed));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(node) = TcpStream::connect(&target) else { continue };
                let (Ok(mut up), Ok(mut back)) = (client.try_clone(), node.try_clone()) else { continue };
                let mut node = node;
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut up, &mut node);
                    let _ = node.shutdown(Shutdown::Write);
                });
                let (counted, bytes) = (Arc::clone(&counted), Arc::clone(&bytes));
                std::thread::spawn(move || pass(&mut back, client, cuts, after, &counted, &bytes));
            }
        });
        Self { address, cut, passed }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn pass(
    from: &mut TcpStream,
    mut to: TcpStream,
    cuts: usize,
    after: u64,
    cut: &AtomicUsize,
    passed: &AtomicU64,
) {
    let (mut block, mut count) = (vec![0; 64 << 10], 0u64);
    while let Ok(read @ 1..) = from.read(&mut block) {
        if to.write_all(&block[..read]).is_err() {
            break;
        }
        count += read as u64;
        passed.fetch_add(read as u64, Ordering::Relaxed);
        let due = count > after;
        if due
            && cut.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < cuts).then_some(n + 1)).is_ok()
        {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
