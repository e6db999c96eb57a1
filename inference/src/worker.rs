//! The worker process: verify, load, serve, and stop at once when told to.

use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use registry::admitted::Admitted;
use registry::serving::{Access, FailCode, Launch, MAX_LINE, Order, Report, StopCode};
use tokio::sync::{oneshot, watch};

use crate::engine::{self, EngineError, Failure, Plan, Queue, Running};
use crate::gate::{self, GateError};
use crate::halt::{Cause, Halt};
use crate::lease::Leash;
use crate::openai::{App, Identity};
use crate::report::Reporter;
use crate::server::Server;

/// From the order to stop to the end of the process at the latest. A token takes less on any machine that can
/// be talked to; the rest is for sending the last words of answers.
const GRACE: Duration = Duration::from_millis(400);
/// How often it is looked whether a thread has ended.
const POLL: Duration = Duration::from_millis(5);
/// Threads that handle connections; the computing has its own.
const IO_THREADS: usize = 2;

/// Why there is nothing to serve.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("can't listen on {address}: {source}. Choose another address or port with `--listen`")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(
        "the worker is started by the node, which tells it what to serve ({0}). To serve a model, run `steelyard serve NATION/NAME`"
    )]
    Protocol(String),
}

impl WorkerError {
    fn code(&self) -> FailCode {
        match self {
            Self::Gate(error) => error.code(),
            Self::Engine(error) => error.code(),
            Self::Listen { .. } => FailCode::Listen,
            Self::Protocol(_) => FailCode::Protocol,
        }
    }
}

/// Runs a worker on this process's standard input and output until it is told to stop or its input ends.
pub fn main() -> ExitCode {
    let reporter = Reporter::default();
    let halt = Halt::default();
    let leash = Leash::default();
    let access = watch::Sender::new(Access::default());
    let changes = access.subscribe();
    let result = read_launch(&halt, &leash, access).and_then(|launch| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(IO_THREADS)
            .enable_all()
            .build()
            .map_err(|error| WorkerError::Protocol(format!("no runtime: {error}")))?;
        let result = runtime.block_on(run(launch, &halt, &leash, changes, &reporter));
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(engine) => {
            if !engine.is_finished() {
                leave_at_once();
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(%error, "the worker ends");
            reporter.send(&Report::Failed { code: error.code(), message: error.to_string() });
            ExitCode::FAILURE
        }
    }
}

/// Ends the process while a thread computes. `exit` would run the engine's C++ destructors under that
/// thread's feet; a signal runs nothing, and the kernel frees the memory.
fn leave_at_once() {
    let me = rustix::process::getpid();
    if let Err(error) = rustix::process::kill_process(me, rustix::process::Signal::KILL) {
        tracing::error!(%error, "the worker can't end itself");
    }
}

/// Starts the thread that reads the input, and gives the first line.
fn read_launch(halt: &Halt, leash: &Leash, access: watch::Sender<Access>) -> Result<Launch, WorkerError> {
    let (send, receive) = mpsc::sync_channel(1);
    let (halt, leash) = (halt.clone(), leash.clone());
    std::thread::Builder::new()
        .name("orders".to_owned())
        .spawn(move || {
            let mut input = BufReader::new(io::stdin());
            let launch = read_line(&mut input).and_then(|line| {
                let line = line.ok_or_else(|| io::Error::other("its input is empty"))?;
                let launch: Launch = serde_json::from_slice(&line).map_err(io::Error::other)?;
                // Before anything else is done: the time runs from when the node wrote it.
                if let Some(end) = launch.lease {
                    leash.begin(end, &halt)?;
                }
                access.send_replace(launch.access.clone());
                Ok(launch)
            });
            let launched = launch.is_ok();
            let _ = send.send(launch);
            if launched {
                obey(&mut input, &halt, &leash, &access);
            }
        })
        .map_err(|error| WorkerError::Protocol(error.to_string()))?;
    match receive.recv() {
        Ok(Ok(launch)) => Ok(launch),
        Ok(Err(error)) => Err(WorkerError::Protocol(error.to_string())),
        Err(error) => Err(WorkerError::Protocol(error.to_string())),
    }
}

/// Obeys orders until the input ends, which means that the node is gone.
fn obey(input: &mut impl BufRead, halt: &Halt, leash: &Leash, access: &watch::Sender<Access>) {
    loop {
        let line = match read_line(input) {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "the node's orders can't be read");
                break;
            }
        };
        match serde_json::from_slice(&line) {
            Ok(Order::Stop { code, reason }) => halt.set(Cause { code, reason }),
            Ok(Order::Lease(end)) => leash.renew(end, halt),
            Ok(Order::Access(now)) => {
                access.send_replace(now);
            }
            // An order that can't be understood may have been "stop".
            Err(error) => halt.set(Cause {
                code: StopCode::Requested,
                reason: format!("the node gave an order that this worker does not know ({error})"),
            }),
        }
    }
    halt.set(Cause { code: StopCode::Requested, reason: "the node is gone".to_owned() });
}

/// One line without its end; `None` at the end of the input.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    input.take(MAX_LINE as u64).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        // The last line may lack its end, but then it is shorter than the limit.
        Some(last) if line.len() + 1 < MAX_LINE => {
            line.push(last);
            Ok(Some(line))
        }
        Some(_) => Err(io::Error::other(format!("a line of more than {MAX_LINE} bytes"))),
    }
}

type EngineThread = JoinHandle<Result<(), EngineError>>;

/// What loading leaves behind.
struct Loaded {
    running: Running,
    verify: Duration,
    load: Duration,
}

async fn run(
    launch: Launch,
    halt: &Halt,
    leash: &Leash,
    mut access: watch::Receiver<Access>,
    reporter: &Reporter,
) -> Result<EngineThread, WorkerError> {
    let Launch { admitted, listen, options, lease: _, access: _ } = launch;
    // The one place where a hand-off is trusted: it came over the pipe that this process inherited from the
    // node.
    let admitted = Arc::new(Admitted::receive(admitted));
    let identity = Identity::from(admitted.as_ref());
    let queue = Arc::new(Queue::new(usize::try_from(options.max_requests).unwrap_or(usize::MAX)));
    let app = App::new(identity.clone(), Arc::clone(&queue), halt.clone());
    app.leashed(leash.clone());
    app.admit(access.borrow_and_update().clone());
    let keeper = app.clone();
    tokio::spawn(async move {
        while access.changed().await.is_ok() {
            keeper.admit(access.borrow_and_update().clone());
        }
    });
    let server = Server::start(listen, app.clone().router())
        .await
        .map_err(|source| WorkerError::Listen { address: listen, source })?;
    let (send, loaded) = oneshot::channel();
    let loader = {
        let (queue, halt, reporter) = (Arc::clone(&queue), halt.clone(), reporter.clone());
        move || load(&admitted, options, queue, halt, &reporter)
    };
    let loading = std::thread::Builder::new()
        .name("loader".to_owned())
        .spawn(move || {
            // Nobody waits any more when the worker was told to stop meanwhile.
            let _ = send.send(loader());
            Ok(())
        })
        .map_err(|error| WorkerError::Protocol(error.to_string()))?;
    let loaded = tokio::select! {
        biased;
        _ = halt.wait() => None,
        loaded = loaded => Some(loaded.unwrap_or(Err(WorkerError::Engine(EngineError::Died)))),
    };
    let Some(loaded) = loaded else {
        finish(&app, server, &queue, halt, reporter, &loading).await;
        return Ok(loading);
    };
    let Loaded { running, verify, load } = match loaded {
        Ok(loaded) => loaded,
        Err(error) if halt.is_set() => {
            tracing::debug!(%error, "loading was broken off");
            finish(&app, server, &queue, halt, reporter, &loading).await;
            return Ok(loading);
        }
        Err(error) => return Err(error),
    };
    let engine = running.engine.card().engine.clone();
    app.loaded(running.engine);
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    reporter.send(&Report::Ready {
        address: server.address(),
        model: identity.model.to_string(),
        release: identity.release,
        engine,
        load_ms: milliseconds(load),
        verify_ms: milliseconds(verify),
    });
    tokio::select! {
        biased;
        _ = halt.wait() => {}
        () = ended(&running.thread) => return Err(WorkerError::Engine(EngineError::Died)),
    }
    finish(&app, server, &queue, halt, reporter, &running.thread).await;
    Ok(running.thread)
}

/// Hashes the blobs and loads them.
fn load(
    admitted: &Admitted,
    options: registry::serving::Options,
    queue: Arc<Queue>,
    halt: Halt,
    reporter: &Reporter,
) -> Result<Loaded, WorkerError> {
    let plan = Plan::for_release(admitted, options.engine)?;
    let wanted = plan.files();
    let total = wanted.iter().map(|file| file.size).fold(0, u64::saturating_add);
    let begun = Instant::now();
    reporter.verifying(0, total);
    let files = gate::open_all(&wanted, &|done| reporter.verifying(done, total), &halt)?;
    let verify = begun.elapsed();
    reporter.send(&Report::Loading { engine: plan.engine().to_owned() });
    let begun = Instant::now();
    let running = engine::start(&plan, files, options, queue, halt)?;
    Ok(Loaded { running, verify, load: begun.elapsed() })
}

/// Ends all requests and reports. What still runs after the grace is left to the end of the process.
async fn finish(
    app: &App,
    server: Server,
    queue: &Queue,
    halt: &Halt,
    reporter: &Reporter,
    busy: &EngineThread,
) {
    let deadline = Instant::now() + GRACE;
    queue.close(&Failure::Halted(halt.wait().await));
    server.stop(GRACE).await;
    let left = deadline.saturating_duration_since(Instant::now());
    if tokio::time::timeout(left, ended(busy)).await.is_err() {
        tracing::debug!("the engine is in the middle of a computation; the process ends over it");
    }
    let Cause { code, reason } = halt.wait().await;
    // Those told, and those that could not even be told within the grace.
    let active_requests = app.cut_off().saturating_add(app.active());
    reporter.send(&Report::Stopped { code, reason, active_requests });
}

/// Waits for the end of a thread.
async fn ended(thread: &EngineThread) {
    while !thread.is_finished() {
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
