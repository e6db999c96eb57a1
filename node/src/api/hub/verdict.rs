//! Whether a release is given to whoever reads here: decided by trust, policy and recalls as they are, remembered for moments.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use registry::admit::{self, AdmitError};
use registry::policy::{Action, Decision, RULE_RECALLED};
use registry::statement::{File, Recall, Release};
use registry::store::{Store, StoreError};
use registry::{Digest, Model, Timestamp};

use super::super::Api;
use super::super::stream::blocking;
use super::names::{self, Names};
use crate::error::Problem;
use crate::staging::Commit;

/// A verdict holds so long, and no longer than trust, policy and recalls stay as they were.
const FRESH: Duration = Duration::from_secs(5);
/// One about a release that is not whole here, or not given: evidence may come any moment.
const FRESH_PARTIAL: Duration = Duration::from_secs(1);
/// Verdicts remembered. The largest release's takes a few MiB, an ordinary one's some KiB.
const MAX_VERDICTS: usize = 64;
/// Models whose warnings are remembered.
const MAX_WARNED: usize = 256;
/// Warnings of one model: more would not fit a head.
const MAX_WARNINGS: usize = 8;

/// A release that is given to readers.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) digest: Digest,
    pub(super) release: Release,
    /// Whether it is whole here and admitted; else it is fetched while it is read.
    pub(super) whole: bool,
    /// The commit that is shown as a release, where it is staged and none.
    pub(super) staged: Option<Arc<Commit>>,
    by_path: HashMap<String, usize>,
}

impl Known {
    fn new(digest: Digest, release: Release, whole: bool, staged: Option<Arc<Commit>>) -> Self {
        let by_path =
            release.files.iter().enumerate().map(|(place, file)| (file.path.clone(), place)).collect();
        Self { digest, release, whole, staged, by_path }
    }

    /// A staged commit, in the form of a release.
    pub(super) fn staged(digest: Digest, release: Release, commit: Arc<Commit>) -> Self {
        Self::new(digest, release, true, Some(commit))
    }

    pub(super) fn commit(&self) -> String {
        names::commit(&self.digest)
    }

    /// The file at `path` and its place in the release.
    pub(super) fn file(&self, path: &str) -> Option<(usize, &File)> {
        let place = *self.by_path.get(path)?;
        Some((place, self.release.files.get(place)?))
    }
}

/// What was decided.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    /// It is given.
    Given(Arc<Known>),
    /// It is not known here, or not for our nation.
    Hidden,
    /// It was recalled; the words say by whom and why.
    Recalled(String),
    /// The policy refuses, in its words.
    Refused(String),
}

#[derive(Debug, Default)]
struct Slot {
    /// When it was decided, and the state of recalls and trust then.
    known: Option<(Instant, u64, Verdict)>,
}

type Warned = HashMap<Model, (u64, u64, Arc<Vec<String>>)>;

/// Verdicts of a moment.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    slots: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<Slot>>>>,
    warned: Mutex<Warned>,
}

impl Verdicts {
    fn slot(&self, release: Digest) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MAX_VERDICTS && !slots.contains_key(&release) {
            slots.clear();
        }
        Arc::clone(slots.entry(release).or_default())
    }

    /// It may be otherwise now: a pull has ended.
    pub(super) fn forget(&self, release: &Digest) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(release);
    }

    /// Whether `release` is given. Those who ask at once wait for one decision.
    pub(super) async fn of(&self, api: &Api, release: Digest) -> Result<Verdict, Problem> {
        let slot = self.slot(release);
        let mut slot = slot.lock().await;
        let generation = api.node().generation();
        if let Some((at, then, verdict)) = &slot.known {
            let fresh = match verdict {
                Verdict::Given(known) if known.whole => FRESH,
                _ => FRESH_PARTIAL,
            };
            if *then == generation && at.elapsed() < fresh {
                return Ok(verdict.clone());
            }
        }
        let store = api.store().clone();
        let verdict = blocking(move || decide(&store, release)).await?;
        slot.known = Some((Instant::now(), generation, verdict.clone()));
        Ok(verdict)
    }

    /// What whoever fetched something of a model should know: which of its releases were recalled since.
    pub(super) async fn warnings(
        &self,
        api: &Api,
        model: &Model,
        names: &Arc<Names>,
    ) -> Result<Arc<Vec<String>>, Problem> {
        let (generation, seen) = (api.node().generation(), api.store().last_seq());
        {
            let warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
            match warned.get(model) {
                Some((then, upto, warnings)) if (*then, *upto) == (generation, seen) => {
                    return Ok(Arc::clone(warnings));
                }
                _ => {}
            }
        }
        let (store, of, names) = (api.store().clone(), model.clone(), Arc::clone(names));
        let found = blocking(move || Ok(recalled_of(&store, &of, &names)?)).await?;
        let found = Arc::new(found);
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.len() >= MAX_WARNED {
            warned.clear();
        }
        warned.insert(model.clone(), (generation, seen, Arc::clone(&found)));
        Ok(found)
    }
}

fn recalled_of(store: &Store, model: &Model, names: &Names) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    if store.recalls()?.is_empty() {
        return Ok(found);
    }
    for entry in names.releases.iter().rev() {
        if let Some((_, recall)) = admit::binding_recall(store, &entry.release)? {
            found.push(words(&format!("{model}@{}", entry.version), &recall));
        }
        if found.len() >= MAX_WARNINGS {
            break;
        }
    }
    Ok(found)
}

/// A recall as the clients' warning: they show each topic, before the semicolon, once.
fn words(what: &str, recall: &Recall) -> String {
    let (by, why) = (&recall.nation, &recall.reason);
    format!("recall of {what}; {what} was recalled by {by}: {why} - if you fetched it before, stop using it")
}

fn decide(store: &Store, digest: Digest) -> Result<Verdict, Problem> {
    let now = Timestamp::now();
    let Some(release) = store.release(&digest)? else { return Ok(Verdict::Hidden) };
    if !release.releasable_to(&store.own()) || store.trust().member(&release.model.nation).is_err() {
        return Ok(Verdict::Hidden);
    }
    if let Some((_, recall)) = admit::binding_recall(store, &digest)? {
        return Ok(Verdict::Recalled(words(&format!("{}@{}", release.model, release.version), &recall)));
    }
    let whole = match admit::serve(store, &digest, now) {
        Ok(_) => true,
        Err(AdmitError::Incomplete { .. }) => false,
        Err(error) => return refused(error),
    };
    if !whole {
        for action in [Action::Admit, Action::Serve] {
            match admit::decide_for(store, action, &store.own(), &digest, now) {
                Ok((_, decision)) if !decision.allowed => return Ok(by_policy(&decision)),
                Ok(_) => {}
                Err(error) => return refused(error),
            }
        }
    }
    Ok(Verdict::Given(Arc::new(Known::new(digest, release, whole, None))))
}

fn refused(error: AdmitError) -> Result<Verdict, Problem> {
    match error {
        AdmitError::Refused { decision, .. } => Ok(by_policy(&decision)),
        error @ (AdmitError::Trust(_) | AdmitError::WrongMap { .. }) => {
            Ok(Verdict::Refused(error.to_string()))
        }
        error => Err(error.into()),
    }
}

fn by_policy(decision: &Decision) -> Verdict {
    let mut refusals = decision.refusals();
    let words: Vec<String> =
        decision.refusals().map(|check| format!("{}: {}", check.rule, check.detail)).collect();
    match refusals.next() {
        Some(check) if check.rule == RULE_RECALLED => Verdict::Recalled(format!("recall; {}", check.detail)),
        _ => Verdict::Refused(format!("this node's policy refuses it: {}", words.join("; "))),
    }
}
