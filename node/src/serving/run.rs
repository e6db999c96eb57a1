//! One worker from its first process to its end: through those that take the place of one that died, or whose lease had ended.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use registry::admitted::AdmittedFile;
use registry::lease::{Lease, LeaseEnd};
use registry::serving::hand::Hand;
use registry::serving::{FailCode, Launch, Order, Report, ServeKey, Signing};
use registry::store::Store;
use registry::{Digest, Timestamp};
use tokio::process::Child;
use tokio::sync::{mpsc, watch};

use super::listener::Listener;
use super::process::{Orders, Process, next, spawn};
use super::prove::{Asked, Proofs};
use super::receipt::Notary;
use super::stop::millis;
use super::streaming::{self, Fed, Feed, Growing, News};
use super::{ServingError, StopOrder};
use crate::events::{Event, Events, StopCause, WorkerInfo, WorkerState};
use crate::lease::Leases;

/// How long a worker may take to stop before it is killed: a recall is obeyed within a second.
pub(super) const STOP_GRACE: Duration = Duration::from_millis(700);
/// How long after the end of its lease a worker is stopped that did not stop by itself.
const OVERDUE: Duration = Duration::from_millis(500);

/// The lease as a worker is told, and as people are.
pub(super) fn told(lease: Lease) -> (Option<LeaseEnd>, Option<Timestamp>) {
    match lease {
        Lease::Held(end) => (Some(end), i64::try_from(end.ends_ms / 1000).ok().map(Timestamp::from_unix)),
        Lease::NotNeeded | Lease::Ended { .. } => (None, None),
    }
}

/// A worker and where its fate is told.
pub(super) struct Run {
    pub(super) launch: Launch,
    /// Closed while the worker is suspended.
    pub(super) listener: Listener,
    pub(super) told: watch::Sender<WorkerInfo>,
    pub(super) stops: mpsc::Receiver<StopOrder>,
    pub(super) asked: mpsc::Receiver<Asked>,
    pub(super) events: Events,
    pub(super) limit: Duration,
    pub(super) leases: Arc<Leases>,
    pub(super) store: Store,
    pub(super) command: Vec<String>,
    /// When processes of this worker died lately.
    pub(super) deaths: Vec<Instant>,
    /// What signs receipts, or why nothing does.
    pub(super) notary: Result<Notary, String>,
    pub(super) settings: crate::config::Worker,
    pub(super) keys: watch::Receiver<Vec<ServeKey>>,
    pub(super) drains: mpsc::Receiver<Draining>,
    /// Adapters that may not be served any more.
    pub(super) withdrawals: mpsc::Receiver<(Digest, StopOrder)>,
    /// Whether another worker takes its place.
    pub(super) draining: bool,
    /// The transfer of a release that is still coming.
    pub(super) feed: Option<Feed>,
    /// What is handed in of it.
    pub(super) growing: Growing,
}

/// How a worker whose place another one takes ends.
#[derive(Debug, Clone)]
pub(super) struct Draining {
    pub(super) reason: String,
    /// What is under way then is cut off.
    pub(super) limit: Duration,
}

/// What the loop heard.
enum Heard {
    Report(Report),
    Silence,
    Stop(StopOrder),
    Drain(Draining),
    Withdraw(Digest, StopOrder),
    News(News),
    Asked(Asked),
    Renewed,
    Keys,
    LeasePassed,
    TooSlow,
    /// It should have ended by itself by now.
    Drained,
}

/// What is to be done after news of its release.
enum After {
    /// Nothing.
    Go,
    /// Everything that it computes on is here; it must soon be ready.
    Whole,
    Stop(StopOrder),
    Fail(String),
}

/// What became of a process.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum End {
    /// It is over.
    Over,
    /// Its lease ended; it may be started again.
    LeaseEnded,
    /// It had served, and died; why.
    Died(String),
}

impl Run {
    pub(super) fn tell(&self, change: impl FnOnce(&mut WorkerInfo)) {
        self.told.send_modify(change);
        self.events.send(Event::Worker(Box::new(self.told.borrow().clone())));
    }

    /// Starts a process for what is to be launched, with every descriptor that it needs.
    pub(super) fn spawn(&mut self) -> Result<Process, ServingError> {
        let spawn_error = |source| ServingError::Spawn { program: "the worker".to_owned(), source };
        let listener = self.listener.try_clone().map_err(spawn_error)?;
        let store = self.store.clone();
        let map = |file: &AdmittedFile| store.open_blob(&file.chunk_map).ok();
        // They are handed in once: whoever takes the place of this process gets whole ones.
        let growing = std::mem::take(&mut self.growing);
        let grows = |file: &AdmittedFile| growing.get(&file.blob).and_then(|file| file.try_clone().ok());
        let mut hand = Hand::with(&listener, &self.launch.admitted, grows, map).map_err(spawn_error)?;
        self.launch.handed = hand.handed();
        for adapter in &mut self.launch.adapters {
            adapter.handed = hand.adapter(&adapter.admitted, map);
        }
        spawn(&self.command, &hand, self.told.borrow().id)
    }

    /// Follows the worker until it is over.
    pub(super) async fn until_gone(mut self, mut process: Process) {
        loop {
            let next = match self.once(process).await {
                End::Over => break,
                End::LeaseEnded if self.draining => break,
                End::LeaseEnded => self.when_leased().await,
                End::Died(why) => self.after_death(why).await,
            };
            match next {
                Some(next) => process = next,
                None => break,
            }
        }
        self.listener.close();
    }

    /// Follows one process until it is gone.
    async fn once(&mut self, process: Process) -> End {
        self.tell(|_| {});
        let Process { child, mut orders, mut reports } = process;
        let id = self.told.borrow().id;
        let mut renewals = self.leases.renewals();
        let mut proofs = Proofs::default();
        if let Err(error) = orders.send(&self.launch).await {
            return self.fail(child, format!("it could not be told what to serve: {error}")).await;
        }
        let mut deadline = tokio::time::Instant::now() + self.limit;
        let mut passes = self.passes();
        let mut drained = None;
        let mut served = false;
        loop {
            served |= self.told.borrow().state == WorkerState::Ready;
            // A transfer has its own limits.
            let is_timed = !served && self.feed.as_ref().is_none_or(|feed| feed.whole);
            let heard = tokio::select! {
                report = next(&mut reports) => match report {
                    Ok(Some(report)) => Heard::Report(report),
                    Ok(None) => Heard::Silence,
                    Err(error) => {
                        tracing::warn!(worker = id, %error, "a worker's report is not understood");
                        Heard::Silence
                    }
                },
                order = self.stops.recv() => match order {
                    Some(order) => Heard::Stop(order),
                    None => Heard::Silence,
                },
                Some(draining) = self.drains.recv() => Heard::Drain(draining),
                Some((adapter, order)) = self.withdrawals.recv() => Heard::Withdraw(adapter, order),
                news = streaming::next(&mut self.feed) => Heard::News(news),
                Some(asked) = self.asked.recv() => Heard::Asked(asked),
                Ok(()) = renewals.changed() => Heard::Renewed,
                Ok(()) = self.keys.changed() => Heard::Keys,
                () = tokio::time::sleep_until(passes.unwrap_or(deadline)), if passes.is_some() => Heard::LeasePassed,
                () = tokio::time::sleep_until(deadline), if is_timed => Heard::TooSlow,
                () = tokio::time::sleep_until(drained.unwrap_or(deadline)), if drained.is_some() => Heard::Drained,
            };
            match heard {
                Heard::Report(Report::Failed { code, message }) => {
                    return self.fail(child, self.advised(code, message)).await;
                }
                Heard::Report(Report::Wants { files }) => {
                    if let Some(feed) = &self.feed {
                        feed.wants(files);
                    }
                }
                Heard::News(news) => match self.on_news(news, &mut orders).await {
                    After::Go => {}
                    After::Whole => deadline = tokio::time::Instant::now() + self.limit,
                    After::Stop(order) => return self.obey(child, order, orders, reports).await,
                    After::Fail(why) => {
                        // It may wait for what does not come.
                        let mut child = child;
                        let _ = child.start_kill();
                        self.listener.close();
                        return self.fail(child, why).await;
                    }
                },
                Heard::Withdraw(adapter, order) => {
                    if let Err(order) = self.withdraw(adapter, order, &mut orders).await {
                        return self.obey(child, order, orders, reports).await;
                    }
                }
                Heard::Drain(draining) => drained = Some(self.drain(draining, &mut orders).await),
                Heard::Drained => {
                    let reason = "another worker took its place, and it did not end by itself".to_owned();
                    let order = StopOrder { cause: StopCause::Requested, reason, known: Instant::now() };
                    return self.obey(child, order, orders, reports).await;
                }
                Heard::Report(Report::Stopped { code, reason, active_requests }) => {
                    let order = StopOrder { cause: code.into(), reason, known: Instant::now() };
                    return self.gone(child, order, Some(active_requests)).await;
                }
                Heard::Report(Report::Proof { id, attempts }) => proofs.answer(id, attempts),
                Heard::Report(Report::Sign(asked)) => {
                    let order = self.receipt(asked);
                    if let Err(error) = orders.send_soon(&order).await {
                        tracing::warn!(worker = id, %error, "a worker could not be given a receipt");
                    }
                }
                Heard::Report(report) => self.take(report),
                Heard::Stop(order) => return self.obey(child, order, orders, reports).await,
                Heard::Asked(asked) => {
                    let order = Order::Prove(proofs.ask(asked));
                    if let Err(error) = orders.send_soon(&order).await {
                        tracing::warn!(worker = id, %error, "a worker could not be asked to try its walls");
                    }
                }
                Heard::Renewed => {
                    if let Err(error) = self.renew(&mut orders).await {
                        // It keeps the end that it knows.
                        tracing::warn!(worker = id, %error, "a worker could not be told of its lease");
                    }
                    passes = self.passes();
                }
                Heard::Keys => {
                    // A worker that takes no orders is found out by the next stop or lease.
                    if let Err(error) = self.tell_keys(&mut orders).await {
                        tracing::warn!(worker = id, %error, "the worker did not hear of the keys");
                    }
                }
                Heard::LeasePassed => {
                    let reason = "its lease ended, and it did not stop by itself".to_owned();
                    let order = StopOrder { cause: StopCause::LeaseEnded, reason, known: Instant::now() };
                    return self.obey(child, order, orders, reports).await;
                }
                Heard::TooSlow => {
                    let limit = self.limit.as_secs();
                    let why = format!("it was not ready within {limit} s, the limit of `worker.start_secs`");
                    return self.fail(child, why).await;
                }
                // Its output ends with it. (Waiting for the process itself could overtake its last report.)
                Heard::Silence => return self.silent(child, served).await,
            }
        }
    }

    /// What came of its release, or what became of the transfer.
    async fn on_news(&mut self, news: News, orders: &mut Orders) -> After {
        let sent = match news {
            News::Shown(transfer) => {
                self.tell(|info| info.transfer = transfer);
                return After::Go;
            }
            News::Fed(Fed::Order(order)) => orders.send_soon(&order).await.map(|()| After::Go),
            News::Fed(Fed::Whole) => orders.send_soon(&Order::Answer).await.map(|()| After::Whole),
            News::Fed(Fed::Refused(error)) => {
                let (cause, reason, known) = (StopCause::Withdrawn, error.to_string(), Instant::now());
                return After::Stop(StopOrder { cause, reason, known });
            }
            News::Fed(Fed::Failed(error)) => {
                return self.why_not(error).await.map_or_else(After::Fail, After::Stop);
            }
        };
        sent.unwrap_or_else(|error| After::Fail(format!("it could not be told what came: {error}")))
    }

    /// Tells it that another worker takes its place; when it must be gone.
    async fn drain(&mut self, draining: Draining, orders: &mut Orders) -> tokio::time::Instant {
        let Draining { reason, limit } = draining;
        let order = Order::Drain { reason, limit_ms: millis(limit) };
        if let Err(error) = orders.send_soon(&order).await {
            let worker = self.told.borrow().id;
            tracing::warn!(worker, %error, "a worker could not be told that another takes its place");
        }
        self.draining = true;
        self.listener.close();
        self.tell(|info| info.state = WorkerState::Draining);
        tokio::time::Instant::now() + limit + STOP_GRACE
    }

    /// Its output ended without a last word.
    async fn silent(&self, mut child: Child, served: bool) -> End {
        let how = match tokio::time::timeout(STOP_GRACE, child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            _ => "its output was closed".to_owned(),
        };
        let message = format!("its process ended unexpectedly ({how}); the node's log has its last words");
        if !served {
            return self.fail(child, message).await;
        }
        let _ = child.kill().await;
        // Nobody waits for one whose place is taken.
        if self.draining { self.fail(child, message).await } else { End::Died(message) }
    }

    /// A failure with what helps against it.
    fn advised(&self, code: FailCode, message: String) -> String {
        if code == FailCode::Memory && self.launch.quiet {
            return format!(
                "{message}. The worker whose place it was to take has its memory still: `--stop-first` ends that one before, and nobody is answered meanwhile"
            );
        }
        message
    }

    /// When a worker that does not stop at the end of its lease is stopped.
    fn passes(&self) -> Option<tokio::time::Instant> {
        let end = self.launch.lease?;
        tokio::time::Instant::now().checked_add(Duration::from_millis(end.left_ms) + OVERDUE)
    }

    /// Tells the worker which keys there are now.
    async fn tell_keys(&mut self, orders: &mut Orders) -> io::Result<()> {
        let keys = self.keys.borrow_and_update().clone();
        if let Some(listen) = self.listener.address() {
            self.launch.access = self.settings.access(listen, keys);
        }
        orders.send_soon(&Order::Access(self.launch.access.clone())).await
    }

    /// Tells the worker the end of its lease as it is now. One that has ended is not told: it knows.
    async fn renew(&mut self, orders: &mut Orders) -> io::Result<()> {
        let Some((_, Lease::Held(end))) = self.leases.earliest(self.producers()) else { return Ok(()) };
        orders.send_soon(&Order::Lease(end)).await?;
        self.launch.lease = Some(end);
        let (_, ends) = told(Lease::Held(end));
        // No event: that would be one for each ally and round.
        self.told.send_modify(|info| info.lease_ends = ends);
        Ok(())
    }

    /// Signs what a worker that serves says it answered.
    fn receipt(&self, asked: Signing) -> Order {
        let id = asked.id;
        let worker = self.told.borrow().clone();
        let receipt = match &self.notary {
            _ if worker.state != WorkerState::Ready => Err("it does not serve".to_owned()),
            Ok(notary) => notary.sign(&worker, asked),
            Err(why) => Err(why.clone()),
        };
        Order::Receipt { id, receipt }
    }

    fn take(&self, report: Report) {
        self.tell(|info| match report {
            Report::Sealed { kernel, walls } => {
                info.kernel = Some(kernel);
                info.walls = walls;
            }
            Report::Verifying { bytes_done, bytes_total } => {
                if info.state != WorkerState::Fetching {
                    info.state = WorkerState::Verifying;
                }
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
            Report::Load { requests } => info.requests = requests,
            Report::Needs { bytes } => info.needs = Some(bytes),
            Report::Sign(_)
            | Report::Wants { .. }
            | Report::Proof { .. }
            | Report::Failed { .. }
            | Report::Stopped { .. } => {}
        });
    }
}
