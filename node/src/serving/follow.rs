//! A worker that follows a channel: when it moves, a worker of its new release takes the place of the old one's.
//!
//! It ends with what it follows: a person stopped it, or its release was recalled. A recall never brings an older release back by
//! itself; whoever wants that says so ([`Follow::rollback`]), and then only once, since the older one is what is left.

use std::time::Duration;

use futures::future::BoxFuture;
use registry::Digest;
use registry::statement::Kind;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch::Receiver;

use super::start::listens;
use super::swap::Swap;
use super::{Follow, ServingError, Start, Workers};
use crate::events::{Event, StopCause, WorkerInfo, WorkerState};

/// How often the channel is looked at when nobody tells.
const LOOK: Duration = Duration::from_secs(10);
/// After a release could not be served it is tried again when the channel, the trust or the policy changes, and this often.
const AGAIN: Duration = Duration::from_secs(600);

/// A release that could not take the place, and when that was.
type Failed = Option<(Digest, tokio::time::Instant)>;

/// Follows from worker `id` on.
pub(super) fn follow(workers: Workers, id: u64, follow: Follow) -> BoxFuture<'static, ()> {
    // A worker that is started here may follow too.
    Box::pin(watch(workers, id, follow))
}

async fn watch(workers: Workers, mut id: u64, follow: Follow) {
    let mut events = workers.shared.events.subscribe();
    let mut failed: Failed = None;
    while let Some(next) = step(&workers, id, &follow, &mut failed).await {
        id = next;
        let until = tokio::time::Instant::now() + LOOK;
        loop {
            tokio::select! {
                () = workers.shared.stopping.cancelled() => return,
                () = tokio::time::sleep_until(until) => break,
                event = events.recv() => match event {
                    Ok(Event::Trust { .. } | Event::Policy { .. }) => {
                        failed = None;
                        break;
                    }
                    Ok(Event::Statement { kind: Kind::Channel | Kind::Recall, .. }) => break,
                    Ok(Event::Worker(info)) if info.id == id && info.state.is_over() => break,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }
}

/// Looks at the channel and does what is to be done; whom to follow from here on, or nothing.
async fn step(workers: &Workers, id: u64, follow: &Follow, failed: &mut Failed) -> Option<u64> {
    let (info, started) = workers.entry(id).ok()?;
    if let Some(next) = info.replaced_by {
        // Where a person chose another release, they chose not to follow.
        let (info, _) = workers.entry(next).ok()?;
        return info.follows.is_some().then_some(next);
    }
    if info.state.is_over() {
        return back(workers, &info, started, follow).await;
    }
    if info.state != WorkerState::Ready {
        return Some(id);
    }
    let (store, reference) = (workers.shared.store.clone(), follow.reference.clone());
    let found = tokio::task::spawn_blocking(move || store.resolve(&reference).ok().flatten()).await;
    let Some(release) = found.ok().flatten().filter(|release| *release != info.release) else {
        return Some(id);
    };
    if failed.is_some_and(|(tried, since)| tried == release && since.elapsed() < AGAIN) {
        return Some(id);
    }
    let swap = Swap {
        reference: follow.reference.to_string(),
        release,
        stop_first: follow.stop_first,
        follow: Some(follow.clone()),
        adapters: None,
    };
    match moved(workers.swap(id, swap).await).await {
        Ok(next) => {
            *failed = None;
            Some(next)
        }
        Err(why) => {
            tracing::warn!(worker = id, %release, "{} names another release, which is not served: {why}", follow.reference);
            *failed = Some((release, tokio::time::Instant::now()));
            workers.not_followed(
                id,
                &format!("{} moved to {release}, which is not served: {why}", follow.reference),
            );
            Some(id)
        }
    }
}

/// Waits until the new worker serves; its number, or why it does not.
async fn moved(started: Result<Receiver<WorkerInfo>, ServingError>) -> Result<u64, String> {
    let mut next = started.map_err(|error| error.to_string())?;
    let info = next
        .wait_for(|info| info.state.is_settled())
        .await
        .map(|info| info.clone())
        .map_err(|error| error.to_string())?;
    if info.state == WorkerState::Ready {
        return Ok(info.id);
    }
    let stop = info.stop.map(|stop| stop.reason);
    Err(stop.or(info.error).unwrap_or_else(|| "no reason is known".to_owned()))
}

/// What was served before, where the operator wants it back after a recall.
async fn back(workers: &Workers, info: &WorkerInfo, started: Start, follow: &Follow) -> Option<u64> {
    let recalled = info
        .stop
        .as_ref()
        .is_some_and(|stop| matches!(stop.cause, StopCause::Recalled | StopCause::Withdrawn));
    let release = info.previous.filter(|_| recalled && follow.rollback)?;
    tracing::warn!(worker = info.id, %release, "the release that was served before comes back, as was asked for, since {} may not be served", info.version);
    let adapters = started.previous.clone().map(|(_, adapters)| adapters).unwrap_or_default();
    let start = Start {
        reference: release.to_string(),
        release,
        listen: listens(info, &started),
        replaces: None,
        previous: None,
        follow: None,
        adapters,
        ..started
    };
    match workers.start(start).await {
        Ok(next) => {
            workers.replaced(info.id, &next);
            let next = next.borrow().id;
            workers.follows(next, follow);
            Some(next)
        }
        Err(error) => {
            tracing::error!(worker = info.id, %release, "the release that was served before can't come back: {error}");
            None
        }
    }
}

impl Workers {
    /// Notes on a worker that goes on why it does not follow.
    fn not_followed(&self, id: u64, why: &str) {
        if let Some(entry) = self.table().workers.get(&id) {
            entry.info.send_modify(|info| info.error = Some(why.to_owned()));
        }
    }
}
