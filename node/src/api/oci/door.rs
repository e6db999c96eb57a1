//! Whether a release is given to whoever reads: what a worker would be given, and nothing else.
//!
//! That takes a verification of signatures, the policy and a look at every file's head, which is too long for each of the hundreds
//! of ranges that one client asks for at once. So an answer holds for a moment: until a statement arrives (a recall is one), the
//! policy is another, the admission is withdrawn, or some seconds have passed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use registry::admit::{self, AdmitError};
use registry::policy::Policy;
use registry::statement::{Recall, Release};
use registry::store::Store;
use registry::{Digest, Timestamp};

use super::error::{Code, OciError};

/// How long an answer holds: a root or an attestation may expire without a statement.
const FRESH: Duration = Duration::from_secs(5);
/// Most answers that are remembered, and most files of their releases together (about 20 MB).
const MAX_ANSWERS: usize = 64;
const MAX_FILES: usize = 64 * 1024;

#[derive(Default)]
pub(super) struct Doors(Mutex<VecDeque<Answer>>);

struct Answer {
    release: Digest,
    seq: u64,
    policy: Arc<Policy>,
    at: Instant,
    verdict: Result<Arc<Release>, OciError>,
}

impl Answer {
    fn files(&self) -> usize {
        self.verdict.as_ref().map_or(0, |release| release.files.len())
    }

    fn holds(&self, store: &Store, seq: u64) -> bool {
        self.seq == seq && self.at.elapsed() < FRESH && Arc::ptr_eq(&self.policy, &store.policy())
    }
}

/// Why a recalled release is not given.
pub(super) fn recalled(recall: &Recall) -> OciError {
    OciError::new(
        Code::Denied,
        format!("recalled by `{}` at {}: {}", recall.nation, recall.issued, recall.reason),
    )
}

impl Doors {
    /// The release, if whoever reads may have it, which is known to be releasable to that one.
    pub(super) fn enter(&self, store: &Store, release: &Digest) -> Result<Arc<Release>, OciError> {
        // Read before the decision: a statement that comes in between makes the answer old.
        let seq = store.last_seq();
        let remembered = {
            let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            answers.retain(|answer| answer.holds(store, seq));
            answers.iter().find(|answer| answer.release == *release).map(|answer| answer.verdict.clone())
        };
        match remembered {
            // It may have been found damaged.
            Some(Ok(known)) if store.admission(release)?.is_some() => return Ok(known),
            Some(Err(refused)) => return Err(refused),
            _ => {}
        }
        let policy = store.policy();
        let verdict = decide(store, release);
        let lasting = match &verdict {
            Ok(_) => true,
            Err(error) => error.code == Code::Denied,
        };
        if lasting {
            let answer =
                Answer { release: *release, seq, policy, at: Instant::now(), verdict: verdict.clone() };
            self.remember(answer);
        }
        verdict
    }

    fn remember(&self, answer: Answer) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|other| other.release != answer.release);
        answers.push_back(answer);
        while answers.len() > MAX_ANSWERS
            || (answers.len() > 1 && answers.iter().map(Answer::files).sum::<usize>() > MAX_FILES)
        {
            answers.pop_front();
        }
    }
}

fn decide(store: &Store, digest: &Digest) -> Result<Arc<Release>, OciError> {
    if let Some((_, recall)) = admit::binding_recall(store, digest)? {
        return Err(recalled(&recall));
    }
    admit::serve(store, digest, Timestamp::now()).map_err(|error| match error {
        AdmitError::Store(error) => error.into(),
        AdmitError::NotFound(_) | AdmitError::NotARelease { .. } | AdmitError::Incomplete { .. } => {
            OciError::new(Code::ManifestUnknown, error)
        }
        AdmitError::WrongMap { .. } | AdmitError::Refused { .. } | AdmitError::Trust(_) => {
            OciError::new(Code::Denied, error)
        }
    })?;
    let release = store.release(digest)?;
    release.map(Arc::new).ok_or_else(|| OciError::new(Code::ManifestUnknown, "the release is gone"))
}
