//! Whether a release is given to whoever reads over HTTP: decided by trust, policy and recalls as they are, remembered for moments.
//!
//! A decision takes a verification of signatures, the policy and a look at every file's head, which is too long for each of the
//! hundreds of ranges that one client asks for at once. So it holds for a moment: until a statement arrives (a recall is one),
//! trust or the policy changes, the admission is withdrawn, or some seconds have passed. The hub's interface and that of container tools share
//! it, so that both give the same to the same reader.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use registry::admit::{self, AdmitError};
use registry::policy::{Action, Decision, Policy, RULE_RECALLED};
use registry::statement::{File, Recall, Release};
use registry::store::{Store, StoreError};
use registry::{Digest, Timestamp};
use tokio::sync::{Mutex as Waiting, MutexGuard};

use super::Api;
use super::stream::blocking;
use crate::error::Problem;
use crate::staging::Commit;

/// A verdict holds so long: a root or an attestation may expire without a statement.
const FRESH: Duration = Duration::from_secs(5);
/// One about a release that is not whole here, or not given: evidence may come any moment.
const FRESH_PARTIAL: Duration = Duration::from_secs(1);
/// Most verdicts that are remembered, and most files of their releases together (about 20 MB).
const MAX_VERDICTS: usize = 64;
const MAX_FILES: usize = 64 * 1024;

/// A release that is given to readers.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) digest: Digest,
    pub(super) release: Release,
    /// Whether it is whole here and admitted; else the hub's interface fetches it while it is read.
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

    /// Its name in the hub's interface.
    pub(super) fn commit(&self) -> String {
        super::hub::commit(&self.digest)
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

/// What a verdict rests on, as far as it is told by numbers.
#[derive(Debug, Clone)]
struct State {
    generation: u64,
    seq: u64,
    policy: Arc<Policy>,
}

impl State {
    /// Read before a decision: what comes in between makes the verdict old.
    fn of(api: &Api) -> Self {
        let store = api.store();
        Self { generation: api.node().generation(), seq: store.last_seq(), policy: store.policy() }
    }

    fn is(&self, other: &Self) -> bool {
        (self.generation, self.seq) == (other.generation, other.seq)
            && Arc::ptr_eq(&self.policy, &other.policy)
    }
}

/// A verdict's place: those who ask at once wait for one decision.
type Slot = Waiting<Option<(Instant, State, Verdict)>>;

#[derive(Debug)]
struct Place {
    release: Digest,
    files: usize,
    slot: Arc<Slot>,
}

/// Verdicts of a moment.
#[derive(Debug, Default)]
pub(super) struct Verdicts(Mutex<VecDeque<Place>>);

impl Verdicts {
    fn places(&self) -> std::sync::MutexGuard<'_, VecDeque<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, release: Digest) -> Arc<Slot> {
        let mut places = self.places();
        if let Some(place) = places.iter().find(|place| place.release == release) {
            return Arc::clone(&place.slot);
        }
        let slot = Arc::<Slot>::default();
        places.push_back(Place { release, files: 0, slot: Arc::clone(&slot) });
        bound(&mut places);
        slot
    }

    /// It may be otherwise now: a pull has ended.
    pub(super) fn forget(&self, release: &Digest) {
        self.places().retain(|place| place.release != *release);
    }

    /// Whether `release` is given.
    pub(super) async fn of(&self, api: &Api, release: Digest) -> Result<Verdict, Problem> {
        let slot = self.slot(release);
        let mut slot = slot.lock().await;
        if let Some(verdict) = remembered(&slot, api)? {
            return Ok(verdict);
        }
        let (state, store) = (State::of(api), api.store().clone());
        let verdict = blocking(move || decide(&store, release)).await?;
        self.remember(release, &mut slot, state, &verdict);
        Ok(verdict)
    }

    /// The same, for those who may block.
    pub(super) fn of_blocking(&self, api: &Api, release: Digest) -> Result<Verdict, Problem> {
        let slot = self.slot(release);
        let mut slot = slot.blocking_lock();
        if let Some(verdict) = remembered(&slot, api)? {
            return Ok(verdict);
        }
        let state = State::of(api);
        let verdict = decide(api.store(), release)?;
        self.remember(release, &mut slot, state, &verdict);
        Ok(verdict)
    }

    fn remember(
        &self,
        release: Digest,
        slot: &mut MutexGuard<'_, Option<(Instant, State, Verdict)>>,
        state: State,
        verdict: &Verdict,
    ) {
        **slot = Some((Instant::now(), state, verdict.clone()));
        let Verdict::Given(known) = verdict else { return };
        let mut places = self.places();
        for place in places.iter_mut().filter(|place| place.release == release) {
            place.files = known.release.files.len();
        }
        bound(&mut places);
    }
}

/// Lets go of the oldest until the rest fits. Whoever waits for one of them gets it nevertheless.
fn bound(places: &mut VecDeque<Place>) {
    while places.len() > MAX_VERDICTS
        || (places.len() > 1 && places.iter().map(|place| place.files).sum::<usize>() > MAX_FILES)
    {
        places.pop_front();
    }
}

fn remembered(slot: &Option<(Instant, State, Verdict)>, api: &Api) -> Result<Option<Verdict>, Problem> {
    let Some((at, state, verdict)) = slot else { return Ok(None) };
    let (fresh, whole) = match verdict {
        Verdict::Given(known) if known.whole => (FRESH, Some(known.digest)),
        _ => (FRESH_PARTIAL, None),
    };
    if at.elapsed() >= fresh || !state.is(&State::of(api)) {
        return Ok(None);
    }
    // It may have been found damaged.
    if let Some(digest) = whole
        && api.store().admission(&digest)?.is_none()
    {
        return Ok(None);
    }
    Ok(Some(verdict.clone()))
}

/// A recall as a warning: the hub's clients show each topic, before the semicolon, once.
pub(super) fn words(what: &str, recall: &Recall) -> String {
    let (by, why) = (&recall.nation, &recall.reason);
    format!("recall of {what}; {what} was recalled by {by}: {why} - if you fetched it before, stop using it")
}

/// Why a release is not given any more, if it was recalled. Blocks.
pub(super) fn recalled(store: &Store, digest: &Digest) -> Result<Option<String>, StoreError> {
    let Some((_, recall)) = admit::binding_recall(store, digest)? else { return Ok(None) };
    let what = match store.release(digest)? {
        Some(release) => format!("{}@{}", release.model, release.version),
        None => digest.to_string(),
    };
    Ok(Some(words(&what, &recall)))
}

fn decide(store: &Store, digest: Digest) -> Result<Verdict, Problem> {
    let now = Timestamp::now();
    let Some(release) = store.release(&digest)? else { return Ok(Verdict::Hidden) };
    if !release.releasable_to(&store.own()) || store.trust().member(&release.model.nation).is_err() {
        return Ok(Verdict::Hidden);
    }
    if let Some(words) = recalled(store, &digest)? {
        return Ok(Verdict::Recalled(words));
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
