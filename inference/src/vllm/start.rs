//! Starts vLLM, waits until it answers, and ends it.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use registry::serving::{Options, Vllm};

use super::enclosed::DIVIDER;
use super::files::{self, HOME, MODEL, Shown};
use crate::engine::{EngineError, MAX_CONTEXT};
use crate::halt::Halt;
use crate::sealed::view;

/// Where it listens in its network namespace, where nothing else does.
const PORT: u16 = 8000;
/// How often it is asked whether it is ready, and looked whether it still lives.
const POLL: Duration = Duration::from_millis(20);
const ASK: Duration = Duration::from_millis(250);
/// How long it may take to answer such a question.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest answer to it that is read.
const MAX_ANSWER: u64 = 16 * 1024;

/// What to start.
pub(crate) struct Order {
    /// The machine's vLLM.
    pub(crate) vllm: Vllm,
    /// How it runs.
    pub(crate) options: Options,
    /// The model's names.
    pub(crate) names: Vec<String>,
    /// Its files.
    pub(crate) files: Vec<Shown>,
}

/// A vLLM that answers.
pub(crate) struct Enclosed {
    /// Where, in this process's network namespace.
    pub(crate) address: SocketAddr,
    /// What it calls itself, for people.
    pub(crate) engine: String,
    /// Ends when it does; the halt ends both.
    pub(crate) thread: JoinHandle<Result<(), EngineError>>,
}

/// Starts it and waits until it answers; blocks for as long as it loads.
pub(crate) fn start(order: Order, halt: &Halt) -> Result<Enclosed, EngineError> {
    let (send, started) = mpsc::sync_channel(1);
    let watched = halt.clone();
    let shape = order.vllm.gpus();
    let thread = std::thread::Builder::new()
        .name("vllm".to_owned())
        .spawn(move || {
            let child = spawn(&order).map_err(failed)?;
            // The asker waits for it, or has given up.
            let _ = send.send(());
            watch(child, &watched)
        })
        .map_err(failed)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let gone = |thread: JoinHandle<Result<(), EngineError>>| match thread.join() {
        Ok(Err(error)) => error,
        Ok(Ok(())) => EngineError::Halted,
        Err(_) => EngineError::Died,
    };
    if started.recv().is_err() {
        return Err(gone(thread));
    }
    while get(address, "/health").is_err() {
        if thread.is_finished() {
            return Err(gone(thread));
        }
        std::thread::sleep(ASK);
    }
    let version = get(address, "/version").ok().and_then(|body| {
        let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
        Some(body.get("version")?.as_str()?.chars().take(40).collect::<String>())
    });
    let engine = format!("vllm {} on {shape} devices", version.unwrap_or_default());
    Ok(Enclosed { address, engine, thread })
}

fn failed(error: io::Error) -> EngineError {
    EngineError::Load { engine: super::NAME, path: MODEL.to_owned(), reason: error.to_string() }
}

/// Starts it in a view of its own. The thread that calls this must live as long as it does, and can make no thread after.
fn spawn(order: &Order) -> io::Result<Child> {
    // Another program of that name must not take its place between the look and the start, so it is looked at once.
    let program = fs::canonicalize(&order.vllm.program).map_err(|error| {
        io::Error::new(error.kind(), format!("{}: {error}", order.vllm.program.display()))
    })?;
    files::show(&order.files)?;
    view::processes_apart()?;
    let log = || Ok::<_, io::Error>(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?));
    let own = order.vllm.program.parent().and_then(|bin| bin.parent()).map(PathBuf::from);
    let resolved = program.parent().and_then(|bin| bin.parent()).map(PathBuf::from);
    let folders = own.into_iter().chain(resolved).chain(order.vllm.read.iter().cloned());
    let mut command = Command::new("/proc/self/exe");
    command.arg("vllm-init").args(folders).arg(DIVIDER).arg(&order.vllm.program).args(arguments(order));
    command.env_clear().envs(environment(&order.vllm)).current_dir("/");
    // Its output is not the worker's: that is where the worker reports to the node.
    command.stdin(Stdio::null()).stdout(log()?).stderr(log()?).spawn()
}

/// Its command line.
fn arguments(order: &Order) -> Vec<String> {
    let Order { vllm, options, names, .. } = order;
    let mut words: Vec<String> = vec!["serve".to_owned(), MODEL.to_owned(), "--served-model-name".to_owned()];
    words.extend(names.iter().cloned());
    let mut option = |name: &str, value: String| words.extend([format!("--{name}"), value]);
    option("host", Ipv4Addr::LOCALHOST.to_string());
    option("port", PORT.to_string());
    option("tensor-parallel-size", vllm.tensor_parallel.to_string());
    option("pipeline-parallel-size", vllm.pipeline_parallel.to_string());
    if vllm.ray {
        option("distributed-executor-backend", "ray".to_owned());
    } else if vllm.gpus() > 1 {
        option("distributed-executor-backend", "mp".to_owned());
    }
    if let Some(context) = options.context {
        option("max-model-len", context.min(MAX_CONTEXT).to_string());
    }
    if let Some(parallel) = options.parallel {
        option("max-num-seqs", parallel.to_string());
    }
    words.extend(vllm.arguments.iter().cloned());
    words
}

/// Its whole environment: nothing is looked for elsewhere, nothing is told to anybody, and what it keeps it keeps in its own
/// scratch folder.
fn environment(vllm: &Vllm) -> Vec<(String, String)> {
    let bin = vllm.program.parent().map(|bin| bin.display().to_string()).unwrap_or_default();
    let path = format!("{bin}:/usr/local/bin:/usr/bin:/bin");
    let fixed = [
        ("PATH", path.as_str()),
        ("HOME", HOME),
        ("TMPDIR", "/tmp"),
        ("LANG", "C.UTF-8"),
        ("HF_HUB_OFFLINE", "1"),
        ("TRANSFORMERS_OFFLINE", "1"),
        ("HF_DATASETS_OFFLINE", "1"),
        ("VLLM_NO_USAGE_STATS", "1"),
        ("DO_NOT_TRACK", "1"),
        ("RAY_USAGE_STATS_ENABLED", "0"),
        ("VLLM_HOST_IP", "127.0.0.1"),
        ("NCCL_SOCKET_IFNAME", "lo"),
        ("GLOO_SOCKET_IFNAME", "lo"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ];
    // What the operator set goes first, but not before what is fixed here.
    let set = vllm.environment.iter().map(|(name, value)| (name.clone(), value.clone()));
    set.chain(fixed.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
}

/// Waits for its end, or ends it when the worker stops. It is the first process of its namespace: the kernel ends all others
/// in it, however they were started, before it is gone.
fn watch(mut child: Child, halt: &Halt) -> Result<(), EngineError> {
    loop {
        if halt.is_set() {
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
            return Ok(());
        }
        match child.try_wait().map_err(failed)? {
            Some(status) => {
                let words = format!("it ended ({status}); the node's log has its last words");
                return Err(failed(io::Error::other(words)));
            }
            None => std::thread::sleep(POLL),
        }
    }
}

/// The body of an answer 200.
fn get(address: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let split = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (Some(split), true) =
        (split, answer.starts_with(b"HTTP/1.1 200") || answer.starts_with(b"HTTP/1.0 200"))
    else {
        return Err(io::Error::other("it is not ready"));
    };
    Ok(answer.split_off(split + 4))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::vllm::tests::settings;

    fn order(vllm: Vllm, options: Options) -> Order {
        Order {
            vllm,
            options,
            names: vec!["alba/tiny".to_owned(), "alba/tiny@1.0.0".to_owned()],
            files: Vec::new(),
        }
    }

    #[test]
    fn its_command_line_says_what_is_served_and_where() {
        let words = arguments(&order(
            settings(),
            Options { context: Some(4096), parallel: Some(4), ..Options::default() },
        ));
        let line = words.join(" ");
        assert!(
            line.starts_with(
                "serve /tmp/model --served-model-name alba/tiny alba/tiny@1.0.0 --host 127.0.0.1"
            ),
            "{line}"
        );
        for part in [
            "--tensor-parallel-size 2",
            "--pipeline-parallel-size 1",
            "--distributed-executor-backend mp",
            "--max-model-len 4096",
            "--max-num-seqs 4",
        ] {
            assert!(line.contains(part), "{line}");
        }
        let alone = Vllm { tensor_parallel: 1, ..settings() };
        assert!(!arguments(&order(alone, Options::default())).join(" ").contains("backend"));
        let ray = Vllm { ray: true, ..settings() };
        assert!(arguments(&order(ray, Options::default())).join(" ").contains("backend ray"));
    }

    #[test]
    fn what_is_fixed_in_its_environment_stays() {
        let mut vllm = settings();
        vllm.environment.insert("VLLM_NO_USAGE_STATS".to_owned(), "0".to_owned());
        vllm.environment.insert("VLLM_CPU_KVCACHE_SPACE".to_owned(), "1".to_owned());
        let whole: std::collections::BTreeMap<_, _> = environment(&vllm).into_iter().collect();
        assert_eq!(whole["VLLM_NO_USAGE_STATS"], "1");
        assert_eq!(whole["VLLM_CPU_KVCACHE_SPACE"], "1");
        assert_eq!((whole["HF_HUB_OFFLINE"].as_str(), whole["HOME"].as_str()), ("1", HOME));
        assert!(whole["PATH"].starts_with("/opt/vllm/bin:"));
    }
}
