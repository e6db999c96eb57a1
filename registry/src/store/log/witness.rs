//! Witnessing: compare, keep, cosign, in this order and under one lock.

use super::{Family, LogError, Part, key, log_keys};
use crate::key::SecretKey;
use crate::log::checkpoint::witness_name;
use crate::log::tree::Hash;
use crate::log::witness::{AddCheckpoint, Cosigned, Refusal, decide};
use crate::reference::Nation;
use crate::store::record::corrupt;
use crate::store::{Result, Store, locked};
use crate::timestamp::Timestamp;

impl Store {
    /// What this node cosigned last of a log.
    pub fn cosigned(&self, nation: &Nation) -> Result<Option<Cosigned>> {
        let Some(value) = self.inner.index.get(Family::Logs, &key(nation, Part::Cosigned, &[]))? else {
            return Ok(None);
        };
        let read = || {
            let (size, root) = value.split_first_chunk::<8>()?;
            Some(Cosigned { size: u64::from_be_bytes(*size), root: Hash::try_from(root).ok()? })
        };
        read().map(Some).ok_or_else(|| corrupt("what was cosigned"))
    }

    /// Cosigns what a log asks for, as this nation's witness: the signature lines, or why not. What was cosigned is
    /// durable before this returns. Our own log is not ours to witness.
    pub fn cosign(
        &self,
        request: &AddCheckpoint,
        signer: &SecretKey,
        now: Timestamp,
    ) -> Result<Result<String, Refusal>, LogError> {
        let nation = match request.nation() {
            Ok(nation) => nation,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let trust = self.trust();
        let keys = log_keys(&trust, &nation);
        if nation == self.inner.own || keys.is_empty() {
            return Ok(Err(Refusal::UnknownLog(nation.to_string())));
        }
        let _turn = locked(&self.inner.logging);
        if self.log_evidence(&nation)?.is_some() {
            return Err(LogError::Disputed(nation));
        }
        let before = self.cosigned(&nation)?;
        let checkpoint = match decide(request, &nation, &keys, before) {
            Ok(checkpoint) => checkpoint,
            Err(refusal) => return Ok(Err(refusal)),
        };
        // What we followed ourselves is as good as what we cosigned.
        if checkpoint.size() <= self.log_size(&nation)?
            && self.log_root(&nation, checkpoint.size())?.as_ref() != Some(checkpoint.root())
        {
            // What was cosigned last, as every 409 says: what this node follows is not the witness's state.
            return Ok(Err(Refusal::Fork { size: before.map_or(0, |before| before.size) }));
        }
        let mut value = checkpoint.size().to_be_bytes().to_vec();
        value.extend_from_slice(checkpoint.root());
        let mut batch = self.inner.index.batch();
        batch.put(Family::Logs, &key(&nation, Part::Cosigned, &[]), &value)?;
        batch.commit()?;
        let line = checkpoint.note().cosign(&witness_name(&self.inner.own), signer, now)?;
        Ok(Ok(line.to_string()))
    }

    /// Adds witnesses' lines to the newest checkpoint of our own log that has this size; whether anything was new.
    pub fn add_cosignatures(&self, nation: &Nation, size: u64, lines: &str) -> Result<bool, LogError> {
        let _turn = locked(&self.inner.logging);
        let found = self.checkpoints(nation)?.into_iter().find(|checkpoint| checkpoint.size() == size);
        let Some(mut checkpoint) = found else { return Ok(false) };
        let before = checkpoint.note().clone();
        if !checkpoint.add_lines(lines)? {
            return Ok(false);
        }
        let mut batch = self.inner.index.batch();
        let (kept, stays) = self.keep_checkpoint(&mut batch, nation, checkpoint)?;
        if !stays || *kept.note() == before {
            return Ok(false);
        }
        batch.commit()?;
        Ok(true)
    }
}
