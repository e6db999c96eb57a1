//! Mirroring: this node keeps itself stocked by the rules in its settings, without a person.
//!
//! `rule.rs` is what a person writes, `decide.rs` what it comes to, `gather.rs` what the store knows about that. What is
//! left is here: deciding again whenever something was learned, fetching a few releases at a time, trying again later,
//! and letting go. A node whose rules name other nations' models passes them on, to whoever they are releasable to:
//! that is how nations that do not reach each other trade through a third.

pub mod decide;
mod gather;
pub mod rule;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use registry::statement::Kind;
use registry::store::StoreError;
use registry::{Digest, Reference, Timestamp};
use tokio::sync::{Notify, broadcast};

use crate::api::types::{MirrorEntry, MirrorRule, MirrorStatus};
use crate::discovery::provider_key;
use crate::events::Event;
use crate::node::{Node, blocking};
use crate::swarm::Command;
use crate::transfer::{PullError, PullOptions};
use decide::{Attempt, Plan, State, World, decide};

/// Seconds until the second attempt; each further one takes twice as long.
const FIRST_RETRY: i64 = 5;
/// Longest time between two attempts, in seconds.
const MAX_RETRY: i64 = 3_600;
/// Attempts after which the time no longer doubles: by then it has passed [`MAX_RETRY`].
const MAX_DOUBLINGS: u32 = 10;
/// Statements often come in bursts; one decision for each burst will do.
const SETTLE: Duration = Duration::from_millis(200);
/// The decision is made again at least so often: free space and certificates change without an event.
const RECHECK: Duration = Duration::from_secs(60);
/// Most releases that the interface lists.
const MAX_SHOWN: usize = 4_096;

/// How an attempt went.
#[derive(Debug, Clone)]
enum Try {
    Running,
    Failed { tries: u32, error: String, again: Timestamp, network: bool },
}

/// The attempts of this run of the node.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    tries: Mutex<HashMap<Digest, Try>>,
    /// Something changed that no event tells of.
    nudge: Notify,
}

impl Mirror {
    fn tries(&self) -> MutexGuard<'_, HashMap<Digest, Try>> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attempts(&self) -> HashMap<Digest, Attempt> {
        let attempt = |it: &Try| match it {
            Try::Running => Attempt::Running,
            Try::Failed { error, again, .. } => Attempt::Failed { error: error.clone(), again: *again },
        };
        self.tries().iter().map(|(release, it)| (*release, attempt(it))).collect()
    }

    /// Whether one more may run, and then it does.
    fn begin(&self, release: Digest, most: u32) -> Option<u32> {
        let mut tries = self.tries();
        let running = tries.values().filter(|it| matches!(it, Try::Running)).count();
        if running >= most as usize {
            return None;
        }
        match tries.insert(release, Try::Running) {
            Some(Try::Failed { tries, .. }) => Some(tries),
            _ => Some(0),
        }
    }

    fn end(&self, release: Digest, tries: u32, result: Result<(), PullError>) {
        match result {
            Ok(()) => {
                self.tries().remove(&release);
            }
            Err(error) => {
                let network = matches!(error, PullError::Network(_) | PullError::NotFound { .. });
                let seconds = FIRST_RETRY << tries.min(MAX_DOUBLINGS);
                let again = Timestamp::now().plus(seconds.min(MAX_RETRY));
                let failed = Try::Failed { tries: tries + 1, error: error.to_string(), again, network };
                self.tries().insert(release, failed);
            }
        }
        self.nudge.notify_one();
    }

    /// A peer came that may have what none had.
    fn peer_came(&self) {
        for it in self.tries().values_mut() {
            if let Try::Failed { again, network: true, .. } = it {
                *again = Timestamp::now();
            }
        }
    }
}

/// Ends an attempt that was dropped or panicked.
struct Ending {
    node: Node,
    release: Digest,
    tries: u32,
    result: Option<Result<(), PullError>>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or(Err(PullError::Cancelled));
        self.node.mirror().end(self.release, self.tries, result);
    }
}

/// Keeps the node stocked until it stops. Without rules nothing is fetched, and nothing is let go either: a settings file
/// that lost its rules must not empty a node.
pub(crate) async fn run(node: Node) {
    if node.config().mirror.is_empty() {
        return;
    }
    let mut events = node.events().subscribe();
    let mut logs = node.logs().watch();
    loop {
        let mut pause = RECHECK;
        match plan(&node).await {
            Ok((world, plan)) => {
                let next = plan.entries.iter().filter_map(|entry| entry.again).min();
                if let Some(left) = next.and_then(|at| u64::try_from(at.unix() - world.now.unix()).ok()) {
                    pause = pause.min(Duration::from_secs(left.max(1)));
                }
                act(&node, plan).await;
            }
            Err(error) => tracing::error!("mirroring could not look at the store: {error}"),
        }
        tokio::select! {
            () = news(&node, &mut events) => {}
            () = node.mirror().nudge.notified() => {}
            // What a witness has just cosigned may be wanted.
            Ok(()) = logs.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
        tokio::time::sleep(SETTLE).await;
    }
}

/// Waits for something that may change the decision.
async fn news(node: &Node, events: &mut broadcast::Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(Event::Statement {
                kind: Kind::Release | Kind::Channel | Kind::Recall | Kind::Attestation,
                ..
            })
            | Ok(
                Event::Recall { .. } | Event::Admitted { .. } | Event::Trust { .. } | Event::Policy { .. },
            )
            | Err(broadcast::error::RecvError::Lagged(_)) => return,
            Ok(Event::PeerUp { .. }) => {
                node.mirror().peer_came();
                return;
            }
            Ok(_) => {}
            // The node ends; so does this task.
            Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
        }
    }
}

async fn plan(node: &Node) -> Result<(World, Plan), StoreError> {
    let (store, rules) = (node.store().clone(), node.config().mirror.clone());
    let (mirroring, attempts) = (node.config().mirroring.clone(), node.mirror().attempts());
    blocking(move || {
        let world = gather::gather(&store, &rules, &attempts, Timestamp::now())?;
        let plan = decide(&rules, &mirroring, &world);
        Ok((world, plan))
    })
    .await
}

async fn act(node: &Node, plan: Plan) {
    let rule_of: HashMap<Digest, usize> =
        plan.entries.iter().filter_map(|entry| Some((entry.release, entry.rule?))).collect();
    for release in plan.let_go {
        let store = node.store().clone();
        match blocking(move || store.let_go(&release)).await {
            Ok(Some(report)) => {
                tracing::info!(%release, bytes = report.bytes_freed, "a mirrored release was let go");
                if let Some(network) = node.network() {
                    network.send(Command::StopProviding(provider_key(&release))).await;
                }
            }
            Ok(None) => tracing::debug!(%release, "a release that no rule wants is in use and stays for now"),
            Err(error) => tracing::error!(%release, "a mirrored release could not be let go: {error}"),
        }
    }
    for release in plan.pull {
        let Some(tries) = node.mirror().begin(release, node.config().mirroring.pulls) else { break };
        let rule = rule_of.get(&release).and_then(|place| Some((*place, node.config().mirror.get(*place)?)));
        let title = rule.map_or_else(String::new, |(place, rule)| rule.title(place));
        let ending = Ending { node: node.clone(), release, tries, result: None };
        node.spawn("mirror", fetch(ending, title));
    }
}

async fn fetch(mut ending: Ending, rule: String) {
    let (node, release) = (ending.node.clone(), ending.release);
    tracing::info!(%release, rule, "a mirror rule fetches a release");
    let store = node.store().clone();
    // Before a byte comes, so that it is known who brought it, and nothing of it is collected.
    if let Err(error) = blocking(move || store.keep_mirrored(&release, &rule)).await {
        ending.result = Some(Err(error.into()));
        return;
    }
    let options = PullOptions { refresh: false, progress: None };
    let result = node.pull(Reference::Digest(release), options).await;
    if let Err(error) = &result {
        tracing::warn!(%release, "a mirror rule could not fetch a release: {error}");
    }
    ending.result = Some(result.map(|_| ()));
}

/// What the rules keep, want and refuse now. Works on a node without a network too.
pub(crate) async fn status(node: &Node) -> Result<MirrorStatus, StoreError> {
    let (world, plan) = plan(node).await?;
    let config = node.config();
    let title = |place: usize| config.mirror.get(place).map(|rule| rule.title(place));
    let count = |place: usize, of: &[State]| {
        plan.entries.iter().filter(|it| it.rule == Some(place) && of.contains(&it.state)).count()
    };
    let rules = config.mirror.iter().enumerate().map(|(place, rule)| MirrorRule {
        name: rule.title(place),
        wants: rule.what(),
        max_release: rule.max_release.limit(),
        budget: rule.budget.limit(),
        used: plan.used.get(place).copied().unwrap_or(0),
        keeps: count(place, &[State::Kept, State::Here]),
        fetches: count(place, &[State::Fetching, State::Queued, State::Waiting]),
        refuses: count(place, &[State::Refused, State::LettingGo]),
    });
    let no_rules = config.mirror.is_empty();
    let releases = plan.entries.iter().take(MAX_SHOWN).filter_map(|entry| {
        let fact = world.facts.get(&entry.release)?;
        // Without rules the node leaves it as it is.
        let (state, reason) = match entry.state {
            State::LettingGo if no_rules => {
                (State::Kept, "there are no rules any more; it stays until one is written".to_owned())
            }
            state => (state, entry.reason.clone()),
        };
        Some(MirrorEntry {
            release: entry.release,
            model: fact.model.clone(),
            version: fact.version.clone(),
            size: fact.size,
            rule: entry.rule.and_then(title),
            state,
            reason,
            again: entry.again,
        })
    });
    Ok(MirrorStatus {
        rules: rules.collect(),
        budget: config.mirroring.budget.limit(),
        used: plan.used.iter().sum(),
        pulls: config.mirroring.pulls,
        releases: releases.collect(),
        more: plan.entries.len().saturating_sub(MAX_SHOWN),
    })
}
