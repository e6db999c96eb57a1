//! How a process of a worker ends: ordered, by itself, or killed.

use std::time::Duration;

use registry::Timestamp;
use registry::serving::{Order, Report};
use tokio::io::BufReader;
use tokio::process::{Child, ChildStdout};

use super::StopOrder;
use super::process::{Orders, next};
use super::run::{End, Run, STOP_GRACE};
use crate::events::{StopCause, WorkerState, WorkerStop};

/// What a worker gets to stop in any case, however long the decision took.
const LAST_CHANCE: Duration = Duration::from_millis(200);

impl Run {
    /// Kills what is left and records why.
    pub(super) async fn fail(&self, mut child: Child, message: String) -> End {
        // A worker that reports a failure ends by itself; give it that moment.
        if tokio::time::timeout(STOP_GRACE, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
        if let Some(stop) = self.small() {
            tracing::info!(worker = self.told.borrow().id, %message, "a worker needs more than its pool gave it");
            self.tell(|info| {
                (info.state, info.pid) = (WorkerState::Stopped, None);
                (info.stop, info.error) = (Some(stop), Some(message));
            });
            return End::Over;
        }
        tracing::error!(worker = self.told.borrow().id, %message, "a worker failed");
        self.tell(|info| {
            info.state = WorkerState::Failed;
            info.pid = None;
            info.error = Some(message);
        });
        End::Over
    }

    /// The end of a pool's worker that needed more than was free: nothing failed, and what it needs is known now.
    fn small(&self) -> Option<WorkerStop> {
        let info = self.told.borrow();
        let is_small = info.needs.zip(self.launch.options.memory).is_some_and(|(needs, most)| needs > most);
        (info.pool.is_some() && is_small).then(|| WorkerStop {
            cause: StopCause::Requested,
            reason: "it needs more memory than its pool had free; it is loaded when there is room".to_owned(),
            at: Timestamp::now(),
            took_ms: 0,
            killed: false,
            active_requests: None,
        })
    }

    /// Orders it to stop, and kills it if it does not within the grace.
    pub(super) async fn obey(
        &mut self,
        mut child: Child,
        order: StopOrder,
        mut orders: Orders,
        mut reports: BufReader<ChildStdout>,
    ) -> End {
        // Whoever connects from here on is turned away, and does not wait for nobody.
        self.listener.close();
        self.tell(|info| info.state = WorkerState::Stopping);
        let line = Order::Stop { code: order.code(), reason: order.reason.clone() };
        let mut active_requests = None;
        let stopped = async {
            // A worker that is gone already needs no order.
            let _ = orders.send(&line).await;
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
    pub(super) async fn gone(
        &mut self,
        mut child: Child,
        order: StopOrder,
        active_requests: Option<u32>,
    ) -> End {
        self.listener.close();
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

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
