//! What several nations' attestations about one release come to (`specs/09`): who vouches, and who advises against it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::reference::Nation;
use crate::statement::{Attestation, Verdict};
use crate::timestamp::Timestamp;

/// Who says what about a release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Nations other than the producer with at least one pass and no fail.
    pub passed_by: BTreeSet<Nation>,
    /// Nations with at least one fail, the producer among them where it warns itself.
    pub failed_by: BTreeSet<Nation>,
    /// Nations with neither.
    pub inconclusive_by: BTreeSet<Nation>,
}

/// The attestations about `release` that count at `now`: of each nation and suite the one that replaces the others,
/// unless it has expired. One that is replaced never comes back.
///
/// The later one replaces the earlier. Of two with the same time of issue, the more cautious verdict counts, so that the
/// order in which they arrive decides nothing.
pub fn in_force<'a>(
    attestations: impl IntoIterator<Item = &'a Attestation>,
    release: &Digest,
    now: Timestamp,
) -> Vec<&'a Attestation> {
    let mut newest: BTreeMap<(&Nation, &str), &Attestation> = BTreeMap::new();
    for attestation in attestations.into_iter().filter(|it| it.release == *release) {
        let kept = newest.entry((&attestation.nation, &attestation.suite.name)).or_insert(attestation);
        if attestation.replaces(kept) {
            *kept = attestation;
        }
    }
    newest.into_values().filter(|it| it.valid_until > now).collect()
}

/// Counts distinct nations. `attestations` are in force; each nation is counted once, however many suites it ran.
pub fn tally<'a>(attestations: impl IntoIterator<Item = (&'a Nation, Verdict)>, producer: &Nation) -> Tally {
    let mut verdicts: BTreeMap<&Nation, BTreeSet<Verdict>> = BTreeMap::new();
    for (nation, verdict) in attestations {
        verdicts.entry(nation).or_default().insert(verdict);
    }
    let mut tally = Tally::default();
    for (nation, verdicts) in verdicts {
        if verdicts.contains(&Verdict::Fail) {
            tally.failed_by.insert(nation.clone());
        } else if nation == producer {
            // Its own praise says nothing that its signature does not say.
        } else if verdicts.contains(&Verdict::Pass) {
            tally.passed_by.insert(nation.clone());
        } else {
            tally.inconclusive_by.insert(nation.clone());
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::statement::Suite;

    const NOW: Timestamp = Timestamp::from_unix(1_790_000_000);

    fn attestation(nation: &str, suite: &str, verdict: Verdict, issued: i64) -> Attestation {
        Attestation {
            nation: Nation::new(nation).unwrap(),
            release: Digest::of(b"m"),
            suite: Suite { name: suite.to_owned(), digest: None },
            results: Vec::new(),
            verdict,
            summary: String::new(),
            issued: NOW.plus(issued),
            valid_until: NOW.plus(1000),
        }
    }

    fn count(all: &[Attestation]) -> [Vec<String>; 3] {
        let kept = in_force(all, &Digest::of(b"m"), NOW);
        let tally = tally(kept.iter().map(|it| (&it.nation, it.verdict)), &Nation::new("alba").unwrap());
        [tally.passed_by, tally.failed_by, tally.inconclusive_by]
            .map(|nations| nations.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_nation_counts_once_and_a_fail_outweighs_its_passes() {
        let pass = |nation, suite| attestation(nation, suite, Verdict::Pass, -10);
        let none: Vec<String> = Vec::new();
        assert_eq!(count(&[pass("borea", "a"), pass("borea", "b")])[0], ["borea"]);
        let mixed = [pass("borea", "a"), attestation("borea", "b", Verdict::Fail, -20)];
        assert_eq!(count(&mixed), [none.clone(), vec!["borea".to_owned()], none.clone()]);
        // The producer's own praise counts for nothing, its own warning counts.
        assert_eq!(count(&[pass("alba", "a")]), [none.clone(), none.clone(), none.clone()]);
        assert_eq!(count(&[attestation("alba", "a", Verdict::Fail, -1)])[1], ["alba"]);
        assert_eq!(count(&[attestation("cora", "a", Verdict::Inconclusive, -1)])[2], ["cora"]);
    }

    #[test]
    fn the_later_word_replaces_the_earlier_even_once_it_has_expired() {
        let old = attestation("borea", "a", Verdict::Pass, -100);
        let mut new = attestation("borea", "a", Verdict::Fail, -50);
        assert_eq!(count(&[new.clone(), old.clone()])[1], ["borea"]);
        assert_eq!(count(&[old.clone(), new.clone()])[1], ["borea"]);
        new.valid_until = NOW;
        assert!(count(&[old.clone(), new]).iter().all(Vec::is_empty), "what was replaced stays replaced");
        let mut same = old.clone();
        same.verdict = Verdict::Inconclusive;
        assert_eq!(count(&[same.clone(), old.clone()])[2], ["borea"]);
        assert_eq!(count(&[old.clone(), same])[2], ["borea"]);
        let mut other = old;
        other.release = Digest::of(b"another");
        assert!(count(&[other]).iter().all(Vec::is_empty));
    }
}
