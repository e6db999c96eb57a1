//! The worker process: seal, verify, load, serve, and stop at once when told to.

mod coming;
mod launch;
mod orders;

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use registry::admitted::Admitted;
use registry::serving::{Access, EngineName, FailCode, Launch, Proving, Report, Vllm};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::engine::{self, EngineError, Failure, Plan, Queue, Running};
use crate::gate::growing::Arrivals;
use crate::gate::{self, GateError, rehash, writers};
use crate::halt::{Cause, Halt};
use crate::lease::Leash;
use crate::openai::{App, Identity, Upstream};
use crate::receipts::Receipts;
use crate::report::Reporter;
use crate::sealed::{self, SealError};
use crate::server::{Closing, Draining};
use crate::vllm::{self, Enclosed, Shown};
use launch::{Begun, Shelf};
use orders::Desk;

/// From the order to stop to the end of the process at the latest. A token takes less on any machine that can
/// be talked to; the rest is for sending the last words of answers.
const GRACE: Duration = Duration::from_millis(400);
/// How often it is looked whether a thread has ended.
const POLL: Duration = Duration::from_millis(5);
/// How often the node is told of requests that came or went.
const LOAD_EVERY: Duration = Duration::from_millis(500);
/// Threads that handle connections; the computing has its own.
const IO_THREADS: usize = 2;

/// Why there is nothing to serve.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(
        "the worker is started by the node, which tells it what to serve ({0}). To serve a model, run `steelyard serve NATION/NAME`"
    )]
    Protocol(String),
}

impl WorkerError {
    fn code(&self) -> FailCode {
        match self {
            Self::Seal(_) => FailCode::Sealing,
            Self::Gate(error) => error.code(),
            Self::Engine(error) => error.code(),
            Self::Protocol(_) => FailCode::Protocol,
        }
    }

    fn protocol(why: impl std::fmt::Display) -> Self {
        Self::Protocol(why.to_string())
    }
}

/// Runs a worker on this process's standard input and output until it is told to stop or its input ends.
pub fn main() -> ExitCode {
    let reporter = Reporter::default();
    match begin(&reporter) {
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

/// Reads what to serve and seals this process before a second thread is made; then serves.
fn begin(reporter: &Reporter) -> Result<EngineThread, WorkerError> {
    let (halt, leash) = (Halt::default(), Leash::default());
    let begun = Begun::read().map_err(WorkerError::protocol)?;
    let mut keep = begun.shelf.all();
    keep.push(begun.listener.as_fd());
    sealed::close_others(&keep).map_err(WorkerError::protocol)?;
    sealed::limit_computing_threads(engine::threads(&begun.launch.options));
    let vllm = vllm::for_launch(&begun.launch).map_err(EngineError::Unsupported)?;
    let missing = &begun.launch.allow_missing;
    let walls = match &vllm {
        None => sealed::seal(&begun.shelf.blobs(), missing, begun.shelf.largest_copy())?,
        Some(_) => sealed::enclose(missing)?,
    };
    reporter.send(&Report::Sealed { kernel: walls.kernel, walls: walls.walls });
    // Before anything else is done: the time runs from when the node wrote it.
    if let Some(end) = begun.launch.lease {
        leash.begin(end, &halt).map_err(WorkerError::protocol)?;
    }
    let (prove, proofs) = mpsc::channel(1);
    let receipts = Receipts::new(reporter.clone());
    let access = watch::Sender::new(begun.launch.access.clone());
    let changes = access.subscribe();
    let answer = watch::Sender::new(!begun.launch.is_growing());
    let (may_answer, (drain, drains)) = (answer.subscribe(), mpsc::channel(1));
    let arrivals = Arrivals::default();
    let adapters: Vec<Adapter> = begun.launch.adapters.iter().cloned().map(Adapter::new).collect();
    let desk = Desk {
        halt: halt.clone(),
        leash: leash.clone(),
        access,
        prove,
        receipts: receipts.clone(),
        arrivals: arrivals.clone(),
        answer,
        drain,
        adapters: adapters.iter().map(|adapter| (adapter.admitted.release(), adapter.halt.clone())).collect(),
    };
    orders::obey_from_now_on(begun.input, desk).map_err(WorkerError::protocol)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .enable_all()
        .build()
        .map_err(|error| WorkerError::Protocol(format!("no runtime: {error}")))?;
    let Begun { launch, shelf, listener, .. } = begun;
    let access = changes;
    let work = Work {
        launch,
        adapters,
        shelf,
        listener,
        access,
        proofs,
        receipts,
        arrivals,
        may_answer,
        drains,
        vllm,
    };
    let result = runtime.block_on(run(work, &halt, &leash, reporter));
    runtime.shutdown_background();
    result
}

/// Ends the process while a thread computes. `exit` would run the engine's C++ destructors under that
/// thread's feet; a signal runs nothing, and the kernel frees the memory.
fn leave_at_once() {
    let me = rustix::process::getpid();
    if let Err(error) = rustix::process::kill_process(me, rustix::process::Signal::KILL) {
        tracing::error!(%error, "the worker can't end itself");
    }
}

/// An adapter that goes with the model.
struct Adapter {
    admitted: Admitted,
    /// Ends its requests.
    halt: Halt,
}

impl Adapter {
    fn new(launched: registry::serving::Adapter) -> Self {
        // As the model's own hand-off, it came over the pipe.
        Self { admitted: Admitted::receive(launched.admitted), halt: Halt::default() }
    }
}

/// What a sealed worker has.
struct Work {
    launch: Launch,
    adapters: Vec<Adapter>,
    shelf: Shelf,
    listener: std::net::TcpListener,
    access: watch::Receiver<Access>,
    proofs: mpsc::Receiver<Proving>,
    receipts: Receipts,
    arrivals: Arrivals,
    may_answer: watch::Receiver<bool>,
    drains: mpsc::Receiver<Draining>,
    /// The engine, where it is another process.
    vllm: Option<Vllm>,
}

type EngineThread = JoinHandle<Result<(), EngineError>>;

/// What loading leaves behind.
struct Loaded {
    ready: Ready,
    verify: Duration,
    load: Duration,
}

/// What answers requests.
enum Ready {
    Embedded(Running),
    Beside(Enclosed),
}

impl Ready {
    fn thread(&self) -> &EngineThread {
        match self {
            Self::Embedded(running) => &running.thread,
            Self::Beside(enclosed) => &enclosed.thread,
        }
    }

    fn into_thread(self) -> EngineThread {
        match self {
            Self::Embedded(running) => running.thread,
            Self::Beside(enclosed) => enclosed.thread,
        }
    }
}

async fn run(
    work: Work,
    halt: &Halt,
    leash: &Leash,
    reporter: &Reporter,
) -> Result<EngineThread, WorkerError> {
    let Work {
        launch,
        adapters,
        shelf,
        listener,
        mut access,
        proofs,
        receipts,
        arrivals,
        mut may_answer,
        mut drains,
        vllm,
    } = work;
    let grows = launch.is_growing();
    let Launch { admitted, options, rehash, quiet, .. } = launch;
    // The one place where a hand-off is trusted: it came over the pipe that this process inherited from the
    // node.
    let admitted = Arc::new(Admitted::receive(admitted));
    let identity = Identity::from(admitted.as_ref());
    let queue = Arc::new(Queue::new(usize::try_from(options.max_requests).unwrap_or(usize::MAX)));
    let app = App::new(identity.clone(), Arc::clone(&queue), halt.clone());
    app.leashed(leash.clone());
    let beside = adapters.iter().map(|adapter| (Identity::from(&adapter.admitted), adapter.halt.clone()));
    app.adapted(beside.collect());
    app.admit(access.borrow_and_update().clone());
    let keeper = app.clone();
    tokio::spawn(async move {
        while access.changed().await.is_ok() {
            keeper.admit(access.borrow_and_update().clone());
        }
    });
    let routes = if vllm.is_some() { app.clone().proxy() } else { app.clone().router() };
    let mut server = Closing::new(listener, receipts.around(routes));
    if !quiet {
        server.open().map_err(WorkerError::protocol)?;
    }
    tokio::spawn(prove(proofs, reporter.clone()));
    let ear = Some(writers::Ear::new().map_err(WorkerError::protocol)?);
    let (send, loaded) = oneshot::channel();
    let loader = {
        let (queue, halt, reporter) = (Arc::clone(&queue), halt.clone(), reporter.clone());
        let runtime = Handle::current();
        let loader = Loader {
            shelf,
            adapters,
            options,
            rehash,
            queue,
            halt,
            reporter,
            ear,
            arrivals,
            grows,
            runtime,
            vllm,
        };
        move || loader.load(&admitted)
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
    let Loaded { ready, verify, load } = match loaded {
        Ok(loaded) => loaded,
        Err(error) if halt.is_set() => {
            tracing::debug!(%error, "loading was broken off");
            finish(&app, server, &queue, halt, reporter, &loading).await;
            return Ok(loading);
        }
        Err(error) => return Err(error),
    };
    let thread = ready.thread();
    // What was still coming is judged once more by the node, with what is in it.
    tokio::select! {
        biased;
        _ = halt.wait() => {
            let thread = ready.into_thread();
            finish(&app, server, &queue, halt, reporter, &thread).await;
            return Ok(thread);
        }
        () = ended(thread) => return Err(WorkerError::Engine(EngineError::Died)),
        _ = may_answer.wait_for(|may| *may) => {}
    }
    let (engine, thread) = match ready {
        Ready::Embedded(running) => {
            let engine = running.engine.card().engine.clone();
            app.loaded(running.engine);
            (engine, running.thread)
        }
        Ready::Beside(enclosed) => {
            app.passed_on(Upstream::new(enclosed.address, enclosed.engine.clone()));
            (enclosed.engine, enclosed.thread)
        }
    };
    server.open().map_err(WorkerError::protocol)?;
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    reporter.send(&Report::Ready {
        address: server.address().map_err(WorkerError::protocol)?,
        model: identity.model.to_string(),
        release: identity.release,
        engine,
        load_ms: milliseconds(load),
        verify_ms: milliseconds(verify),
    });
    tokio::spawn(tell_load(app.clone(), reporter.clone()));
    tokio::select! {
        biased;
        _ = halt.wait() => {}
        () = ended(&thread) => return Err(WorkerError::Engine(EngineError::Died)),
        Some(draining) = drains.recv() => server.drain(draining, halt).await,
    }
    finish(&app, server, &queue, halt, reporter, &thread).await;
    Ok(thread)
}

/// Tells the node how many requests there are, when that changed.
async fn tell_load(app: App, reporter: Reporter) {
    let mut told = 0;
    loop {
        tokio::time::sleep(LOAD_EVERY).await;
        let requests = app.active();
        if std::mem::replace(&mut told, requests) != requests {
            reporter.send(&Report::Load { requests });
        }
    }
}

/// What the loader's thread needs.
struct Loader {
    shelf: Shelf,
    adapters: Vec<Adapter>,
    options: registry::serving::Options,
    rehash: registry::serving::Rehash,
    queue: Arc<Queue>,
    halt: Halt,
    reporter: Reporter,
    ear: Option<writers::Ear>,
    arrivals: Arrivals,
    /// Whether something of the release is still coming.
    grows: bool,
    runtime: Handle,
    vllm: Option<Vllm>,
}

impl Loader {
    /// Hashes the blobs and loads them.
    fn load(mut self, admitted: &Admitted) -> Result<Loaded, WorkerError> {
        let engine = if self.vllm.is_some() { Some(EngineName::Vllm) } else { self.options.engine };
        let plan = Plan::for_release(admitted, engine)?;
        let wanted = plan.files();
        let total = wanted.iter().map(|file| file.size).fold(0, u64::saturating_add);
        let begun = Instant::now();
        self.reporter.verifying(0, total);
        let files = self.verify(admitted, &plan, &wanted, total)?;
        let verify = begun.elapsed();
        // Before it is looked whether that fits: whoever serves several models makes room by it.
        let memory = engine::needs(&plan, &files, &self.options)?;
        self.reporter.send(&Report::Needs { bytes: memory.total() });
        let all = files.model.iter().chain(files.adapters.iter().flat_map(|adapter| &adapter.files));
        rehash::start(all, self.rehash, self.halt.clone()).map_err(WorkerError::protocol)?;
        self.reporter.send(&Report::Loading { engine: plan.engine().to_owned() });
        let begun = Instant::now();
        let ready = match self.vllm {
            None => {
                let running =
                    engine::start_within(&plan, files, memory, self.options, self.queue, self.halt)?;
                Ready::Embedded(running)
            }
            Some(vllm) => {
                let order = beside(vllm, self.options, admitted, &plan, &files.model)
                    .map_err(WorkerError::protocol)?;
                Ready::Beside(vllm::start(order, &self.halt)?)
            }
        };
        Ok(Loaded { ready, verify, load: begun.elapsed() })
    }
}

/// What vLLM is told, once its files were hashed.
fn beside(
    vllm: Vllm,
    options: registry::serving::Options,
    admitted: &Admitted,
    plan: &Plan<'_>,
    files: &[gate::VerifiedFile],
) -> std::io::Result<vllm::Order> {
    let wanted = plan.files();
    let shown = files.iter().zip(&wanted).map(|(file, wanted)| Shown::new(file, &wanted.location));
    let files = shown.collect::<std::io::Result<_>>()?;
    Ok(vllm::Order { vllm, options, names: vec![admitted.model().to_string()], files })
}

/// Tries the walls whenever that is ordered, on a thread that serves.
async fn prove(mut proofs: mpsc::Receiver<Proving>, reporter: Reporter) {
    while let Some(proving) = proofs.recv().await {
        let attempts = tokio::task::block_in_place(|| sealed::probe::run(&proving));
        reporter.send(&Report::Proof { id: proving.id, attempts });
    }
}

/// Ends all requests and reports. What still runs after the grace is left to the end of the process.
async fn finish(
    app: &App,
    server: Closing,
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
