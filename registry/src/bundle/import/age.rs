//! How old a bundle is, and what it proves about its producer's log.

use serde::{Deserialize, Serialize};

use super::{Bundle, BundleError};
use crate::envelope::Verified;
use crate::log::{Count, Logged};
use crate::reference::Nation;
use crate::statement::Release;
use crate::timestamp::Timestamp;

/// How it is taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImportOptions {
    /// Oldest bundle that is taken, in seconds since it was made or, where it proves more, since it was witnessed. Recalls
    /// made later than that are unknown to whoever takes it.
    pub max_age: Option<i64>,
    /// How many trusted nations must have cosigned the checkpoint of the producer's log in it, so that its age is more than
    /// what its maker says.
    pub witnesses: u32,
}

/// Up to where a bundle knows its producer's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Entries of the log.
    pub size: u64,
    /// Trusted nations that cosigned it, the producer never among them.
    pub witnesses: Vec<Nation>,
    /// Since when as many of them as are asked for had cosigned it; nothing while fewer have.
    pub witnessed: Option<Timestamp>,
}

impl Bundle<'_> {
    /// How cosignatures count: for as many nations as the import asks for, and for no fewer than the policy does.
    pub(super) fn count(&self) -> Count {
        let count = self.store.count_at(self.now);
        Count { quorum: count.quorum.max(self.options.witnesses), ..count }
    }

    /// Verifies the proofs of the producer's statements, before anything is judged by them: one that is there must hold.
    pub(super) fn prove(&mut self, release: &Verified<Release>) -> Result<(), BundleError> {
        let nation = release.model.nation.clone();
        let others = self.others.iter().filter(|other| *other.nation() == nation).map(Verified::digest);
        for statement in others.chain([release.digest()]) {
            let Some(proof) = self.proofs.get(&statement) else { continue };
            let logged = match self.store.proves(&nation, &statement, proof, self.count())? {
                Ok(logged) => logged,
                Err(why) => return Err(BundleError::Proof { statement, why }),
            };
            if statement == release.digest() {
                self.logged = Some(logged.clone());
            }
            let newer = self.checkpoint.as_ref().is_none_or(|known| {
                (logged.witnesses.len(), logged.witnessed, logged.size)
                    > (known.witnesses.len(), known.witnessed, known.size)
            });
            if newer {
                let Logged { size, witnesses, witnessed, .. } = logged;
                self.checkpoint =
                    Some(Checkpoint { size, witnesses: witnesses.into_iter().collect(), witnessed });
            }
        }
        Ok(())
    }

    /// How old what it says about recalls is, in seconds: since it was made, by its maker's clock, or since allies witnessed
    /// its log, whichever is longer ago.
    fn age(&self) -> Option<i64> {
        let since = |at: Timestamp| self.now.unix().saturating_sub(at.unix());
        let made = since(self.header.as_ref()?.made?);
        let witnessed = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.witnessed).map(since);
        Some(witnessed.map_or(made, |witnessed| witnessed.max(made)))
    }

    pub(super) fn not_stale(&self) -> Result<(), BundleError> {
        let stale = |why| Err(BundleError::Stale { why });
        let cosigned = self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.witnesses.len());
        if cosigned < self.options.witnesses as usize {
            let needed = self.options.witnesses;
            return stale(format!(
                "the checkpoint of its log is cosigned by {cosigned} nation(s) that are trusted here, and {needed} are asked for"
            ));
        }
        let Some(max_age) = self.options.max_age else { return Ok(()) };
        match self.age() {
            None => stale("it is of version 1 and does not say when it was made".to_owned()),
            Some(age) if age < -crate::trust::MAX_CLOCK_SKEW => {
                stale("it was made in the future, by its maker's clock; check both clocks".to_owned())
            }
            Some(age) if age > max_age => stale(format!("it is {age} s old, over the {max_age} s allowed")),
            Some(_) => Ok(()),
        }
    }
}
