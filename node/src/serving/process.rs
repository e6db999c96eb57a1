//! One worker process from its first line to its end.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use registry::Timestamp;
use registry::lease::{Lease, LeaseEnd};
use registry::serving::{Launch, MAX_LINE, Order, Report, ServeKey};
use registry::store::Store;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, watch};

use super::{ServingError, StopOrder};
use crate::events::{Event, Events, StopCause, WorkerInfo, WorkerState, WorkerStop};
use crate::lease::Leases;

/// How long a worker may take to stop before it is killed: a recall is obeyed within a second.
pub(super) const STOP_GRACE: Duration = Duration::from_millis(700);
/// What a worker gets to stop in any case, however long the decision took.
const LAST_CHANCE: Duration = Duration::from_millis(200);
/// How long after the end of its lease a worker is stopped that did not stop by itself.
const OVERDUE: Duration = Duration::from_millis(500);
/// A worker that does not take a line within this has other troubles; its lease ends.
const RENEWAL: Duration = Duration::from_secs(1);
/// Longest line of a worker's log that is kept.
const MAX_LOG_LINE: u64 = 8 * 1024;

/// Starts the program with nothing of this process's environment, in a process group of its own, so that a Ctrl-C in the
/// node's terminal reaches the node alone.
pub(super) fn spawn(command: &[String]) -> Result<Child, ServingError> {
    let (program, arguments) = match command {
        [program, arguments @ ..] => (OsString::from(program), arguments.to_vec()),
        [] => {
            let own = std::env::current_exe()
                .map_err(|source| ServingError::Spawn { program: "this program".to_owned(), source })?;
            (own.into_os_string(), vec!["worker".to_owned()])
        }
    };
    Command::new(&program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| ServingError::Spawn { program: program.to_string_lossy().into_owned(), source })
}

/// The lease as a worker is told, and as people are.
pub(super) fn told(lease: Lease) -> (Option<LeaseEnd>, Option<Timestamp>) {
    match lease {
        Lease::Held(end) => (Some(end), i64::try_from(end.ends_ms / 1000).ok().map(Timestamp::from_unix)),
        Lease::NotNeeded | Lease::Ended { .. } => (None, None),
    }
}

/// A started process and where its fate is told.
pub(super) struct Run {
    pub(super) launch: Launch,
    pub(super) told: watch::Sender<WorkerInfo>,
    pub(super) orders: mpsc::Receiver<StopOrder>,
    pub(super) events: Events,
    pub(super) limit: Duration,
    pub(super) leases: Arc<Leases>,
    pub(super) store: Store,
    pub(super) command: Vec<String>,
    pub(super) settings: crate::config::Worker,
    pub(super) keys: watch::Receiver<Vec<ServeKey>>,
}

/// What the loop heard.
enum Heard {
    Report(Report),
    Silence,
    Order(StopOrder),
    Renewed,
    Keys,
    LeasePassed,
    TooSlow,
}

/// What became of a process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is over.
    Over,
    /// Its lease ended; it may be started again.
    LeaseEnded,
}

impl Run {
    fn tell(&self, change: impl FnOnce(&mut WorkerInfo)) {
        self.told.send_modify(change);
        self.events.send(Event::Worker(self.told.borrow().clone()));
    }

    /// Follows the worker until it is over: through its process, and through those that take its place after its lease
    /// had ended.
    pub(super) async fn until_gone(mut self, mut child: Child) {
        while self.once(child).await == End::LeaseEnded {
            match self.again().await {
                Some(next) => child = next,
                None => return,
            }
        }
    }

    /// Follows one process until it is gone.
    async fn once(&mut self, mut child: Child) -> End {
        self.tell(|_| {});
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            return self.fail(child, "its pipes could not be opened".to_owned()).await;
        };
        let id = self.told.borrow().id;
        tokio::spawn(log(id, stderr));
        let mut renewals = self.leases.renewals();
        if let Err(error) = send(&mut stdin, &self.launch).await {
            return self.fail(child, format!("it could not be told what to serve: {error}")).await;
        }
        let mut reports = BufReader::new(stdout);
        let deadline = tokio::time::Instant::now() + self.limit;
        let mut passes = self.passes();
        loop {
            let starting = !matches!(self.told.borrow().state, WorkerState::Ready);
            let heard = tokio::select! {
                report = next(&mut reports) => match report {
                    Ok(Some(report)) => Heard::Report(report),
                    Ok(None) => Heard::Silence,
                    Err(error) => {
                        tracing::warn!(worker = id, %error, "a worker's report is not understood");
                        Heard::Silence
                    }
                },
                order = self.orders.recv() => match order {
                    Some(order) => Heard::Order(order),
                    None => Heard::Silence,
                },
                Ok(()) = renewals.changed() => Heard::Renewed,
                Ok(()) = self.keys.changed() => Heard::Keys,
                () = tokio::time::sleep_until(passes.unwrap_or(deadline)), if passes.is_some() => Heard::LeasePassed,
                () = tokio::time::sleep_until(deadline), if starting => Heard::TooSlow,
            };
            match heard {
                Heard::Report(Report::Failed { message, .. }) => return self.fail(child, message).await,
                Heard::Report(Report::Stopped { code, reason, active_requests }) => {
                    let order = StopOrder { cause: code.into(), reason, known: Instant::now() };
                    return self.gone(child, order, Some(active_requests)).await;
                }
                Heard::Report(report) => self.take(report),
                Heard::Order(order) => return self.obey(child, order, stdin, reports).await,
                Heard::Renewed => {
                    if let Err(error) = self.renew(&mut stdin).await {
                        // It keeps the end that it knows.
                        tracing::warn!(worker = id, %error, "a worker could not be told of its lease");
                    }
                    passes = self.passes();
                }
                Heard::Keys => {
                    // A worker that takes no orders is found out by the next stop or lease.
                    if let Err(error) = self.tell_keys(&mut stdin).await {
                        tracing::warn!(worker = id, %error, "the worker did not hear of the keys");
                    }
                }
                Heard::LeasePassed => {
                    let reason = "its lease ended, and it did not stop by itself".to_owned();
                    let order = StopOrder { cause: StopCause::LeaseEnded, reason, known: Instant::now() };
                    return self.obey(child, order, stdin, reports).await;
                }
                Heard::TooSlow => {
                    let limit = self.limit.as_secs();
                    let why = format!("it was not ready within {limit} s, the limit of `worker.start_secs`");
                    return self.fail(child, why).await;
                }
                // Its output ends with it. (Waiting for the process itself could overtake its last report.)
                Heard::Silence => {
                    let ended = tokio::time::timeout(STOP_GRACE, child.wait()).await;
                    let how = match ended {
                        Ok(Ok(status)) => status.to_string(),
                        _ => "its output was closed".to_owned(),
                    };
                    let message =
                        format!("its process ended unexpectedly ({how}); the node's log has its last words");
                    return self.fail(child, message).await;
                }
            }
        }
    }

    /// When a worker that does not stop at the end of its lease is stopped.
    fn passes(&self) -> Option<tokio::time::Instant> {
        let end = self.launch.lease?;
        tokio::time::Instant::now().checked_add(Duration::from_millis(end.left_ms) + OVERDUE)
    }

    /// Tells the worker which keys there are now.
    async fn tell_keys(&mut self, stdin: &mut ChildStdin) -> io::Result<()> {
        let keys = self.keys.borrow_and_update().clone();
        self.launch.access = self.settings.access(self.launch.listen, keys);
        let order = Order::Access(self.launch.access.clone());
        tokio::time::timeout(RENEWAL, send(stdin, &order)).await??;
        Ok(())
    }

    /// Tells the worker the end of its lease as it is now. One that has ended is not told: it knows.
    async fn renew(&mut self, stdin: &mut ChildStdin) -> io::Result<()> {
        let Lease::Held(end) = self.leases.lease(self.launch.admitted.producer()) else { return Ok(()) };
        let order = Order::Lease(end);
        tokio::time::timeout(RENEWAL, send(stdin, &order)).await??;
        self.launch.lease = Some(end);
        let (_, ends) = told(Lease::Held(end));
        // No event: that would be one for each ally and round.
        self.told.send_modify(|info| info.lease_ends = ends);
        Ok(())
    }

    /// Waits until the lease is held again, and admits and starts the release anew; nothing when it is over.
    async fn again(&mut self) -> Option<Child> {
        self.tell(|info| info.state = WorkerState::Suspended);
        let mut renewals = self.leases.renewals();
        let lease = loop {
            match self.leases.lease(self.launch.admitted.producer()) {
                Lease::Ended { .. } => {}
                held => break told(held),
            }
            tokio::select! {
                order = self.orders.recv() => {
                    self.stopped_while_suspended(order);
                    return None;
                }
                Ok(()) = renewals.changed() => {}
            }
        };
        let (store, release) = (self.store.clone(), self.told.borrow().release);
        let admit = move || registry::admit::admit(&store, &release, Timestamp::now());
        let started = match tokio::task::spawn_blocking(admit).await {
            Ok(Ok(admitted)) => {
                self.launch.admitted = admitted.handoff().clone();
                self.launch.lease = lease.0;
                if let Some(address) = self.told.borrow().address {
                    self.launch.listen = address;
                }
                spawn(&self.command).map_err(|error| error.to_string())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the node is stopping".to_owned()),
        };
        match started {
            Ok(child) => {
                let pid = child.id();
                self.tell(|info| {
                    info.state = WorkerState::Starting;
                    (info.pid, info.lease_ends, info.stop) = (pid, lease.1, None);
                });
                Some(child)
            }
            Err(why) => {
                self.tell(|info| {
                    info.state = WorkerState::Failed;
                    info.error = Some(why);
                });
                None
            }
        }
    }

    fn stopped_while_suspended(&self, order: Option<StopOrder>) {
        self.tell(|info| {
            info.state = WorkerState::Stopped;
            if let Some(order) = order {
                info.stop = Some(WorkerStop {
                    cause: order.cause,
                    reason: order.reason,
                    at: Timestamp::now(),
                    took_ms: millis(order.known.elapsed()),
                    killed: false,
                    active_requests: None,
                });
            }
        });
    }

    fn take(&self, report: Report) {
        self.tell(|info| match report {
            Report::Verifying { bytes_done, bytes_total } => {
                info.state = WorkerState::Verifying;
                (info.bytes_done, info.bytes_total) = (bytes_done, bytes_total);
            }
            Report::Loading { engine } => {
                info.state = WorkerState::Loading;
                info.engine = Some(engine);
            }
            Report::Ready { address, model, engine, load_ms, verify_ms, .. } => {
                info.state = WorkerState::Ready;
                info.bytes_done = info.bytes_total;
                info.address = Some(address);
                info.served_as = Some(model);
                info.engine = Some(engine);
                info.load_ms = Some(load_ms);
                info.verify_ms = Some(verify_ms);
            }
            Report::Failed { .. } | Report::Stopped { .. } => {}
        });
    }

    /// Kills what is left and records why.
    async fn fail(&self, mut child: Child, message: String) -> End {
        // A worker that reports a failure ends by itself; give it that moment.
        if tokio::time::timeout(STOP_GRACE, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
        tracing::error!(worker = self.told.borrow().id, %message, "a worker failed");
        self.tell(|info| {
            info.state = WorkerState::Failed;
            info.pid = None;
            info.error = Some(message);
        });
        End::Over
    }

    /// Orders it to stop, and kills it if it does not within the grace.
    async fn obey(
        &self,
        mut child: Child,
        order: StopOrder,
        mut stdin: ChildStdin,
        mut reports: BufReader<ChildStdout>,
    ) -> End {
        self.tell(|info| info.state = WorkerState::Stopping);
        let line = Order::Stop { code: order.code(), reason: order.reason.clone() };
        let mut active_requests = None;
        let stopped = async {
            // A worker that is gone already needs no order.
            let _ = send(&mut stdin, &line).await;
            while let Ok(Some(report)) = next(&mut reports).await {
                if let Report::Stopped { active_requests: active, .. } = report {
                    active_requests = Some(active);
                }
            }
            child.wait().await
        };
        let left = STOP_GRACE.saturating_sub(order.known.elapsed()).max(LAST_CHANCE);
        let in_time = tokio::time::timeout(left, stopped).await;
        let killed = in_time.is_err();
        if killed {
            let _ = child.kill().await;
        }
        self.record(order, killed, active_requests)
    }

    /// It stopped by itself, and said why.
    async fn gone(&self, mut child: Child, order: StopOrder, active_requests: Option<u32>) -> End {
        let killed = tokio::time::timeout(STOP_GRACE, child.wait()).await.is_err();
        if killed {
            let _ = child.kill().await;
        }
        self.record(order, killed, active_requests)
    }

    fn record(&self, order: StopOrder, killed: bool, active_requests: Option<u32>) -> End {
        let end = if order.cause == StopCause::LeaseEnded { End::LeaseEnded } else { End::Over };
        let took_ms = millis(order.known.elapsed());
        let stop = WorkerStop {
            cause: order.cause,
            reason: order.reason,
            at: Timestamp::now(),
            took_ms,
            killed,
            active_requests,
        };
        tracing::info!(worker = self.told.borrow().id, took_ms, killed, reason = %stop.reason, "a worker stopped");
        self.tell(|info| {
            info.state = if end == End::Over { WorkerState::Stopped } else { WorkerState::Suspended };
            (info.pid, info.lease_ends) = (None, None);
            info.stop = Some(stop);
        });
        end
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

async fn send(stdin: &mut ChildStdin, line: &impl serde::Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    stdin.write_all(&text).await?;
    stdin.flush().await
}

/// One line of at most `limit` bytes; `None` at the end.
async fn line(reader: &mut (impl AsyncBufRead + Unpin), limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    (&mut *reader).take(limit).read_until(b'\n', &mut text).await?;
    match text.last() {
        None => Ok(None),
        Some(b'\n') => {
            text.pop();
            Ok(Some(text))
        }
        Some(_) if text.len() as u64 == limit => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"))
        }
        Some(_) => Ok(Some(text)),
    }
}

/// The next report. Cancelled between two lines at most: a half-read line is lost only when the worker is stopped.
async fn next(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Report>> {
    match line(reader, MAX_LINE as u64).await? {
        Some(text) => Ok(Some(serde_json::from_slice(&text)?)),
        None => Ok(None),
    }
}

/// Takes a worker's standard error into the node's log.
async fn log(id: u64, stderr: ChildStderr) {
    let mut reader = BufReader::new(stderr);
    loop {
        match line(&mut reader, MAX_LOG_LINE).await {
            Ok(Some(text)) => {
                tracing::info!(target: "worker", worker = id, "{}", String::from_utf8_lossy(&text).trim_end());
            }
            Ok(None) => return,
            // Too long a line is dropped in pieces.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
            Err(_) => return,
        }
    }
}
