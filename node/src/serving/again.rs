//! A worker that comes back: after its lease had ended, or because its process died.

use std::time::{Duration, Instant};

use registry::Timestamp;
use registry::lease::Lease;

use super::StopOrder;
use super::process::Process;
use super::run::{Run, told};
use super::stop::millis;
use crate::events::{WorkerState, WorkerStop};

/// Deaths within [`WINDOW`] after which a worker is given up: whatever kills it does so again.
const MAX_DEATHS: usize = 5;
/// Deaths longer ago are forgotten.
const WINDOW: Duration = Duration::from_secs(600);
/// The first pause before a new process; each further death within the window doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

impl Run {
    /// Waits until the lease is held again, and admits and starts the release anew; nothing when it is over.
    pub(super) async fn when_leased(&mut self) -> Option<Process> {
        self.listener.close();
        self.tell(|info| info.state = WorkerState::Suspended);
        let mut renewals = self.leases.renewals();
        while let Some((_, Lease::Ended { .. })) = self.leases.earliest(self.producers()) {
            tokio::select! {
                order = self.stops.recv() => {
                    self.stopped_between(order);
                    return None;
                }
                Ok(()) = renewals.changed() => {}
            }
        }
        self.start_anew().await
    }

    /// Starts a new process in the place of one that died, after a pause; nothing when it died too often or is told to stop.
    /// The listener stays, so that whoever connects meanwhile waits.
    pub(super) async fn after_death(&mut self, why: String) -> Option<Process> {
        let now = Instant::now();
        self.deaths.retain(|death| now.duration_since(*death) < WINDOW);
        self.deaths.push(now);
        let id = self.told.borrow().id;
        if self.deaths.len() > MAX_DEATHS {
            let minutes = WINDOW.as_secs() / 60;
            let given_up = format!(
                "{why}; it died {} times within {minutes} minutes and is not started again",
                self.deaths.len()
            );
            tracing::error!(worker = id, why = %given_up, "a worker is given up");
            self.listener.close();
            self.failed(given_up);
            return None;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << (self.deaths.len() - 1).min(8));
        tracing::error!(worker = id, %why, pause_ms = millis(pause), "a worker died and is started again");
        self.tell(|info| {
            info.state = WorkerState::Restarting;
            (info.pid, info.lease_ends) = (None, None);
            info.restarts = info.restarts.saturating_add(1);
            info.error = Some(why);
        });
        tokio::select! {
            order = self.stops.recv() => {
                self.stopped_between(order);
                None
            }
            () = tokio::time::sleep(pause) => self.start_anew().await,
        }
    }

    /// Decides about the release once more and starts a process for it, at the same address.
    async fn start_anew(&mut self) -> Option<Process> {
        let (store, release) = (self.store.clone(), self.told.borrow().release);
        let admit = move || registry::admit::serve(&store, &release, Timestamp::now());
        let started = match tokio::task::spawn_blocking(admit).await {
            Ok(Ok(admitted)) => {
                self.launch.admitted = admitted.handoff().clone();
                self.readmit_adapters(release).await;
                match self.leases.earliest(self.producers()) {
                    Some((producer, Lease::Ended { heard })) => Err(self.leases.why(producer, heard)),
                    held => self.start_with(held.map_or((None, None), |(_, held)| told(held))),
                }
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the node is stopping".to_owned()),
        };
        started.map_err(|why| self.failed(why)).ok()
    }

    fn start_with(
        &mut self,
        lease: (Option<registry::lease::LeaseEnd>, Option<Timestamp>),
    ) -> Result<Process, String> {
        if self.listener.is_closed() {
            let address = self.told.borrow().address.ok_or("it never had an address")?;
            self.listener.bind(address).map_err(|error| format!("can't listen on {address}: {error}"))?;
        }
        self.launch.lease = lease.0;
        // It is whole here, or it would not have been admitted, and it is the only one at its address now.
        (self.feed, self.launch.quiet) = (None, false);
        let process = self.spawn().map_err(|error| error.to_string())?;
        let pid = process.child.id();
        self.tell(|info| {
            info.state = WorkerState::Starting;
            (info.pid, info.lease_ends, info.stop) = (pid, lease.1, None);
        });
        Ok(process)
    }

    pub(super) fn failed(&self, why: String) {
        self.tell(|info| {
            info.state = WorkerState::Failed;
            info.error = Some(why);
        });
    }

    /// It was told to stop while it had no process.
    pub(super) fn stopped_between(&mut self, order: Option<StopOrder>) {
        self.listener.close();
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
}
