//! Following a log: entries and checkpoints that somebody brought, taken only when they continue what is here.

use super::{Family, LogError, MAX_LOG_ENTRIES, MemoryTree, Part, Tree, all_log_keys, key, log_keys};
use crate::log::ENTRY;
use crate::log::checkpoint::SignedCheckpoint;
use crate::log::evidence::{Evidence, Fork};
use crate::log::tree;
use crate::reference::Nation;
use crate::store::{Result, Store, locked};

/// What taking a checkpoint came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extended {
    /// The log has grown to this size.
    Grown(u64),
    /// The size is known; there were new cosignatures.
    Cosigned,
    /// Nothing new.
    Known,
}

/// Where a settled fork stands: by the size and the two root hashes, in their order, that its nation signed for it.
fn settled_key(fork: &Fork) -> Vec<u8> {
    let (first, second) =
        if fork.one <= fork.other { (fork.one, fork.other) } else { (fork.other, fork.one) };
    let rest = [&fork.size.to_be_bytes()[..], &first, &second].concat();
    key(&fork.nation, Part::Settled, &rest)
}

impl Store {
    /// Believes a note as a checkpoint of `nation`'s log.
    pub fn read_checkpoint(&self, nation: &Nation, note: &[u8]) -> Result<SignedCheckpoint, LogError> {
        Ok(SignedCheckpoint::verify(nation, note, &log_keys(&self.trust(), nation))?)
    }

    /// Takes a checkpoint and the entries from the number of entries here up to its size; durable on return. For a
    /// checkpoint of a size that is here already there are none.
    pub fn extend_log(
        &self,
        checkpoint: &SignedCheckpoint,
        entries: &[[u8; ENTRY]],
    ) -> Result<Extended, LogError> {
        let _turn = locked(&self.inner.logging);
        let nation = checkpoint.nation();
        if self.log_evidence(nation)?.is_some() {
            return Err(LogError::Disputed(nation.clone()));
        }
        let here = self.log_len(nation)?;
        let size = checkpoint.size();
        if size > MAX_LOG_ENTRIES {
            return Err(LogError::TooLong { nation: nation.clone(), size, limit: MAX_LOG_ENTRIES });
        }
        if size <= here {
            return self.compare(checkpoint);
        }
        if entries.len() as u64 != size - here {
            return Err(LogError::Entries(nation.clone()));
        }
        let mut tree = Tree::new(&self.inner.index, nation);
        let mut batch = self.inner.index.batch();
        tree.add(&mut batch, here, entries)?;
        if tree::root(&tree, size)? != *checkpoint.root() {
            return Err(LogError::Entries(nation.clone()));
        }
        let (kept, _) = self.keep_checkpoint(&mut batch, nation, checkpoint.clone())?;
        batch.commit()?;
        if *nation == self.inner.own {
            self.recovered(&kept)?;
            self.own_log_grew(entries)?;
        }
        Ok(Extended::Grown(size))
    }

    /// A checkpoint of a size that is here: the same one with perhaps more cosignatures, or a fork.
    fn compare(&self, checkpoint: &SignedCheckpoint) -> Result<Extended, LogError> {
        let (nation, size) = (checkpoint.nation(), checkpoint.size());
        let tree = Tree::new(&self.inner.index, nation);
        let root = tree::root(&tree, size)?;
        let kept = self.checkpoints(nation)?;
        if root != *checkpoint.root() {
            let equal = kept.iter().find(|known| known.size() == size);
            let evidence = match (equal, kept.last()) {
                (Some(known), _) => Evidence::of_equal(known, checkpoint),
                (None, Some(newest)) => {
                    let proof = tree::consistency(&tree, size, newest.size())?.unwrap_or_default();
                    Evidence::of_prefix(checkpoint, newest, &root, &proof)
                }
                // Entries without a believed checkpoint: its key is no longer known.
                (None, None) => return Err(LogError::Entries(nation.clone())),
            };
            return Err(LogError::Fork { nation: nation.clone(), shown: size, evidence: Box::new(evidence) });
        }
        let known = kept.into_iter().find(|known| known.size() == size);
        let before = known.as_ref().map(|known| known.note().clone());
        // Without its noise, so that none of it takes the room of cosignatures.
        let mut theirs = checkpoint.clone();
        theirs.prune(&self.note_keys(nation));
        let mut merged = known.unwrap_or_else(|| theirs.clone());
        merged.merge(&theirs)?;
        let mut batch = self.inner.index.batch();
        let (merged, stays) = self.keep_checkpoint(&mut batch, nation, merged)?;
        if !stays || before.as_ref() == Some(merged.note()) {
            return Ok(Extended::Known);
        }
        batch.commit()?;
        Ok(Extended::Cosigned)
    }

    /// Looks whether a checkpoint contradicts the log here, given all entries of the log that it signs from the first
    /// on: evidence when it does.
    pub fn prove_fork(
        &self,
        checkpoint: &SignedCheckpoint,
        entries: &[[u8; ENTRY]],
    ) -> Result<Option<Evidence>, LogError> {
        let nation = checkpoint.nation();
        let Some(newest) = self.checkpoints(nation)?.pop() else { return Ok(None) };
        let size = checkpoint.size();
        let theirs = MemoryTree::of(entries);
        let Ok(root) = tree::root(&theirs, size);
        if entries.len() as u64 != size || root != *checkpoint.root() {
            return Err(LogError::Entries(nation.clone()));
        }
        if newest.size() > size {
            return match self.compare(checkpoint) {
                Err(LogError::Fork { evidence, .. }) => Ok(Some(*evidence)),
                other => other.map(|_| None),
            };
        }
        let Ok(prefix) = tree::root(&theirs, newest.size());
        if prefix == *newest.root() {
            return Ok(None);
        }
        if newest.size() == size {
            return Ok(Some(Evidence::of_equal(&newest, checkpoint)));
        }
        let Ok(proof) = tree::consistency(&theirs, newest.size(), size);
        Ok(Some(Evidence::of_prefix(&newest, checkpoint, &prefix, &proof.unwrap_or_default())))
    }

    /// Keeps evidence that a log forked, once it is verified; from then on nothing more of that log is taken. Durable on
    /// return. Whether it was new.
    pub fn dispute_log(&self, evidence: &Evidence) -> Result<(Fork, bool), LogError> {
        let keys = all_log_keys(&self.trust(), &evidence.nation);
        let fork = evidence.verify(&keys).map_err(|error| match error {
            crate::log::evidence::EvidenceError::Checkpoint(error) => LogError::Checkpoint(error),
            crate::log::evidence::EvidenceError::Proof(error) => LogError::Proof(error),
            _ => LogError::Entries(evidence.nation.clone()),
        })?;
        let _turn = locked(&self.inner.logging);
        if self.log_evidence(&evidence.nation)?.is_some() || self.is_settled(&fork)? {
            return Ok((fork, false));
        }
        let mut batch = self.inner.index.batch();
        batch.put(Family::Logs, &Self::evidence_key(&evidence.nation), &evidence.to_json())?;
        batch.commit()?;
        Ok((fork, true))
    }

    /// The evidence that stands against a log.
    pub fn log_evidence(&self, nation: &Nation) -> Result<Option<Vec<u8>>> {
        self.inner.index.get(Family::Logs, &Self::evidence_key(nation))
    }

    /// A person decided: the log is followed again from what is here. Whether anything stood against it.
    pub fn settle_log(&self, nation: &Nation) -> Result<bool> {
        let _turn = locked(&self.inner.logging);
        let Some(json) = self.log_evidence(nation)? else { return Ok(false) };
        let mut batch = self.inner.index.batch();
        batch.delete(Family::Logs, &Self::evidence_key(nation))?;
        // Evidence whose keys are no longer known here can't come back as proven either.
        if let Some(fork) = self.proven(&json) {
            batch.put(Family::Logs, &settled_key(&fork), &json)?;
        }
        batch.commit()?;
        Ok(true)
    }

    /// The forks of a log that a person settled, each with its evidence.
    pub fn settled_forks(&self, nation: &Nation) -> Result<Vec<(Fork, Vec<u8>)>> {
        let mut settled = Vec::new();
        for entry in self.inner.index.scan(Family::Logs, &key(nation, Part::Settled, &[]))? {
            let json = entry?.1;
            settled.extend(self.proven(&json).map(|fork| (fork, json.to_vec())));
        }
        Ok(settled)
    }

    /// Whether a person settled a fork. Its evidence comes back from whoever has it, perhaps with other cosignatures under the
    /// same two histories; what was decided about those stays decided. Another fork of the same log is another matter.
    fn is_settled(&self, fork: &Fork) -> Result<bool> {
        Ok(self.inner.index.get(Family::Logs, &settled_key(fork))?.is_some())
    }

    /// What evidence that is kept here proves.
    fn proven(&self, json: &[u8]) -> Option<Fork> {
        let evidence = Evidence::parse(json).ok()?;
        evidence.verify(&all_log_keys(&self.trust(), &evidence.nation)).ok()
    }
}
