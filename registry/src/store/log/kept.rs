//! Proofs that came by hand, for a node that follows no log: what a bundle proved stays proved.

use super::super::index::Family;
use super::{log_keys, witness_keys};
use crate::digest::Digest;
use crate::log::Logged;
use crate::log::proof::LogProof;
use crate::reference::Nation;
use crate::store::{Result, Store, StoreError};

/// First part of the keys in `meta`; the statement's digest follows.
const PREFIX: &[u8] = b"proof/";

fn key(statement: &Digest) -> Vec<u8> {
    [PREFIX, statement.as_bytes()].concat()
}

impl Store {
    /// What `proof` proves of a statement of `nation` by the keys that are trusted now; nothing when it proves nothing.
    pub(crate) fn proves(&self, nation: &Nation, statement: &Digest, proof: &LogProof) -> Option<Logged> {
        let trust = self.trust();
        let witnesses = witness_keys(&trust);
        let witnesses = witnesses.iter().map(|(nation, keys)| (nation, keys.as_slice()));
        proof.verify(statement, nation, &log_keys(&trust, nation), witnesses).ok()
    }

    /// Keeps a proof that was verified, unless the one that is here has as many witnesses; durable on return.
    pub(crate) fn keep_proof(&self, nation: &Nation, statement: &Digest, proof: &LogProof) -> Result<()> {
        let Some(new) = self.proves(nation, statement, proof) else { return Ok(()) };
        let known = self.kept_proof(nation, statement)?;
        if known.is_some_and(|known| {
            (known.witnesses.len(), known.witnessed) >= (new.witnesses.len(), new.witnessed)
        }) {
            return Ok(());
        }
        let mut batch = self.inner.index.batch();
        batch.put(Family::Meta, &key(statement), &proof.to_text())?;
        batch.commit()
    }

    /// What the proof that was kept proves, by the keys that are trusted now.
    pub(super) fn kept_proof(&self, nation: &Nation, statement: &Digest) -> Result<Option<Logged>> {
        let Some(value) = self.inner.index.get(Family::Meta, &key(statement))? else { return Ok(None) };
        let corrupt = |_| StoreError::Corrupt("the record of a log proof can't be read".to_owned());
        let proof = LogProof::parse(&value).map_err(corrupt)?;
        Ok(self.proves(nation, statement, &proof))
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
