//! Proofs that came by hand, for a node that follows no log: what a bundle proved stays proved.

use super::super::index::Family;
use super::{log_keys, witness_keys};
use crate::digest::Digest;
use crate::log::checkpoint::believed_at;
use crate::log::proof::LogProof;
use crate::log::{Count, Logged};
use crate::reference::Nation;
use crate::store::{Result, Store, StoreError, locked};

/// First part of the keys in `meta`; the statement's digest follows.
const PREFIX: &[u8] = b"proof/";

fn key(statement: &Digest) -> Vec<u8> {
    [PREFIX, statement.as_bytes()].concat()
}

impl Store {
    /// What `proof` proves of a statement of `nation` by the keys that are trusted now; or why it proves nothing.
    pub(crate) fn proves(
        &self,
        nation: &Nation,
        statement: &Digest,
        proof: &LogProof,
        count: Count,
    ) -> Result<Result<Logged, String>> {
        let trust = self.trust();
        let checkpoint = match proof.places(statement, nation, &log_keys(&trust, nation)) {
            Ok(checkpoint) => checkpoint,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if self.log_evidence(nation)?.is_some() {
            return Ok(Err(format!(
                "the log of `{nation}` was proved to lie and nobody has settled that yet; look at `steelyard evidence ls`"
            )));
        }
        if self.log_root(nation, checkpoint.size())?.is_some_and(|root| root != *checkpoint.root()) {
            return Ok(Err(format!(
                "its checkpoint contradicts what this node has of the log of `{nation}`, which signed two histories; speak with its people"
            )));
        }
        let witnesses = witness_keys(&trust);
        let pairs = witnesses.iter().map(|(nation, keys)| (nation, keys.as_slice()));
        let by = checkpoint.witnesses_at(pairs, count.now);
        Ok(Ok(proof.logged(&checkpoint, by, count.quorum)))
    }

    /// Keeps a proof, unless the one that is here has as many witnesses or it proves nothing; durable on return.
    pub(crate) fn keep_proof(
        &self,
        nation: &Nation,
        statement: &Digest,
        proof: &LogProof,
        count: Count,
    ) -> Result<()> {
        let Ok(new) = self.proves(nation, statement, proof, count)? else { return Ok(()) };
        let known = self.kept_proof(nation, statement, count)?;
        if known.is_some_and(|known| {
            (known.witnesses.len(), known.witnessed) >= (new.witnesses.len(), new.witnessed)
        }) {
            return Ok(());
        }
        let mut batch = self.inner.index.batch();
        batch.put(Family::Meta, &key(statement), &proof.to_text())?;
        batch.commit()
    }

    /// What the proof that was kept proves. Like a checkpoint that was kept, it stays believed when a later root names
    /// another log key.
    pub(super) fn kept_proof(
        &self,
        nation: &Nation,
        statement: &Digest,
        count: Count,
    ) -> Result<Option<Logged>> {
        let Some(value) = self.inner.index.get(Family::Meta, &key(statement))? else { return Ok(None) };
        let corrupt = |_| StoreError::Corrupt("the record of a log proof can't be read".to_owned());
        let proof = LogProof::parse(&value).map_err(corrupt)?;
        let seen = locked(&self.inner.notes).see(&self.trust(), nation, &proof.note);
        let Some(seen) = seen.filter(|seen| proof.holds(statement, &seen.checkpoint).is_ok()) else {
            return Ok(None);
        };
        Ok(Some(proof.logged(&seen.checkpoint, believed_at(&seen.cosignatures, count.now), count.quorum)))
    }

    /// The proof of a statement's place, by this node's copy of the log, else as it was kept.
    pub(crate) fn any_proof(&self, nation: &Nation, statement: &Digest) -> Result<Option<LogProof>> {
        if let Some(proof) = self.log_proof(nation, statement)? {
            return Ok(Some(proof));
        }
        let value = self.inner.index.get(Family::Meta, &key(statement))?;
        Ok(value.and_then(|value| LogProof::parse(&value).ok()))
    }
}
