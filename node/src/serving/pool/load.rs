//! A member's worker from the order to load it until it is gone, through those that take its place.

use std::time::Instant;

use registry::admit::AdmitError;
use registry::policy::RULE_RECALLED;
use registry::{Digest, Reference};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::plan::{Event, Gone, Key, Reason, Why};
use super::{Pool, ServingError};
use crate::events::{StopCause, WorkerInfo, WorkerState};
use crate::serving::{Follow, Start, StopOrder};

impl Reason {
    pub(super) fn new(why: Why, words: impl ToString) -> Self {
        Self { why, words: words.to_string() }
    }
}

/// Why a worker could not be started, as the plan is told.
pub(super) fn refused(error: &ServingError) -> Gone {
    let words = error.to_string();
    match error {
        ServingError::TooMany(_) => Gone::Crowded,
        ServingError::Stopping => Gone::Stopped,
        ServingError::Lease(_) => Gone::Refused(Reason::new(Why::Lease, words)),
        ServingError::Admit(AdmitError::Refused { decision, .. }) => {
            let refusals: Vec<&str> = decision.refusals().map(|check| check.detail.as_str()).collect();
            let recalled = decision.refusals().any(|check| check.rule == RULE_RECALLED);
            let why = if recalled { Why::Recalled } else { Why::Policy };
            Gone::Refused(Reason::new(why, refusals.join("; ")))
        }
        ServingError::Admit(AdmitError::Trust(_)) => Gone::Refused(Reason::new(Why::Policy, words)),
        _ => Gone::Failed(Reason::new(Why::Load, words)),
    }
}

/// How a worker with this last word came to be gone.
fn ended(info: &WorkerInfo, told: &Told, limit: u64) -> Gone {
    let failed = || {
        let words = info.error.as_deref().unwrap_or("its worker ended, and no reason is known");
        Reason::new(Why::Load, words)
    };
    if !told.served && info.needs.is_some_and(|needs| needs > limit) {
        return Gone::Small(failed());
    }
    let Some(stop) = &info.stop else { return Gone::Failed(failed()) };
    let because = |why| Reason::new(why, &stop.reason);
    match stop.cause {
        StopCause::Requested => Gone::Stopped,
        StopCause::Recalled => Gone::Refused(because(Why::Recalled)),
        StopCause::Withdrawn => Gone::Refused(because(Why::Policy)),
        StopCause::LeaseEnded => Gone::Refused(because(Why::Lease)),
        StopCause::Damaged => Gone::Failed(because(Why::Load)),
    }
}

/// What the plan was told of a worker.
#[derive(Default)]
struct Told {
    needs: Option<u64>,
    ready: bool,
    /// Whether it ever was.
    served: bool,
}

impl Pool {
    /// Starts a worker for a member and looks after it until it is gone.
    pub(super) async fn load(self, key: Key, reference: Reference, limit: u64, stop: CancellationToken) {
        let how = self.serve(key, &reference, limit, &stop).await;
        let words = match &how {
            Gone::Failed(reason) | Gone::Refused(reason) => Some(reason.words.clone()),
            // The plan knows what comes of it.
            Gone::Small(_) | Gone::Stopped | Gone::Crowded => None,
        };
        if let Some(words) = &words {
            tracing::warn!(pool = self.0.id, %reference, "a pool's model is not served: {words}");
        }
        if let Some(member) = self.state().members.get_mut(&key) {
            member.worker = None;
            member.error = words;
        }
        // What was crowded out waits for a place that is known to be there.
        self.look_for_places();
        self.tell(Event::Gone { member: key, how });
    }

    async fn serve(&self, key: Key, reference: &Reference, limit: u64, stop: &CancellationToken) -> Gone {
        let started = match self.look_up(key).await {
            Ok(release) => self.0.workers.start(self.order(reference, release, limit)).await,
            Err(how) => return how,
        };
        let mut watched = match started {
            Ok(watched) => watched,
            Err(error) => return refused(&error),
        };
        let mut told = Told::default();
        let mut ordered = false;
        loop {
            let info = watched.borrow_and_update().clone();
            if let Some(next) = info.replaced_by.and_then(|next| self.0.workers.watch(next)) {
                (watched, ordered) = (next, false);
                continue;
            }
            if info.state.is_over() {
                self.stop_worker(&info);
                return ended(&info, &told, limit);
            }
            if info.state == WorkerState::Suspended {
                self.stop_worker(&info);
                let reason = info.stop.as_ref().map_or("its lease ended", |stop| stop.reason.as_str());
                let reason = Reason::new(Why::Lease, reason);
                self.is_gone(&mut watched).await;
                return Gone::Refused(reason);
            }
            self.follow_worker(key, &info, &mut told);
            tokio::select! {
                changed = watched.changed() => {
                    if changed.is_err() {
                        return Gone::Failed(Reason::new(Why::Load, "its worker's supervisor ended"));
                    }
                }
                () = stop.cancelled(), if !ordered => {
                    ordered = true;
                    self.stop_worker(&info);
                }
            }
        }
    }

    fn order(&self, reference: &Reference, release: Digest, limit: u64) -> Start {
        let settings = &self.0.settings;
        let mut options = settings.options.clone();
        options.memory = Some(options.memory.map_or(limit, |most| most.min(limit)));
        let moves = matches!(reference, Reference::Channel(..));
        let follow = Follow { reference: reference.clone(), rollback: false, stop_first: false };
        Start {
            reference: reference.to_string(),
            release,
            // A port of its own, which nobody but this process is told.
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            options,
            allow_missing: settings.allow_missing.clone(),
            replaces: None,
            previous: None,
            follow: (settings.follow && moves).then_some(follow),
            pool: Some(self.0.id),
            adapters: Vec::new(),
        }
    }

    /// Tells the plan how far a worker is.
    fn follow_worker(&self, key: Key, info: &WorkerInfo, told: &mut Told) {
        let is_ready = info.state == WorkerState::Ready;
        let news = is_ready && !told.ready;
        if let Some(member) = self.state().members.get_mut(&key) {
            let is_other = member.worker.replace(info.id).is_some_and(|old| old != info.id);
            member.address = info.address.filter(|_| is_ready);
            (member.release, member.version) = (info.release, info.version.clone());
            if news || is_other {
                member.loads += 1;
            }
        }
        if info.needs != told.needs
            && let Some(bytes) = info.needs
        {
            told.needs = Some(bytes);
            self.tell(Event::Needs { member: key, bytes });
        }
        if news {
            (told.ready, told.served) = (true, true);
            self.tell(Event::Ready { member: key });
        } else if told.ready && !is_ready && info.state != WorkerState::Stopping {
            told.ready = false;
            self.tell(Event::Away { member: key });
        }
    }

    /// Orders a worker to stop, and whichever is about to take its place.
    fn stop_worker(&self, info: &WorkerInfo) {
        let workers = &self.0.workers;
        let next =
            workers.list().into_iter().filter(|it| it.replaces == Some(info.id) && !it.state.is_over());
        for id in next.map(|next| next.id).chain([info.id]) {
            let reason = "its pool unloads it".to_owned();
            workers.order(id, StopOrder { cause: StopCause::Requested, reason, known: Instant::now() });
        }
    }

    async fn is_gone(&self, watched: &mut watch::Receiver<WorkerInfo>) {
        // An error means the same.
        let _ = watched.wait_for(|info| info.state.is_over()).await;
    }
}
