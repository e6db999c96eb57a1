//! The pinned nations: kept in the index, with the whole trust in memory.

use std::sync::{Arc, PoisonError};

use super::index::{Batch, Family, Index};
use super::record::{corrupt, decode_dated, encode_dated};
use super::{Result, Store};
use crate::digest::Digest;
use crate::envelope::Signed;
use crate::reference::Nation;
use crate::timestamp::Timestamp;
use crate::trust::{Member, Trust, self_signed_root};

/// Notes a nation's root.
pub(super) fn put(batch: &mut Batch<'_>, root: &Signed, nation: &Nation, pinned: Timestamp) -> Result<()> {
    batch.put(Family::Nations, nation.as_str().as_bytes(), &encode_dated(pinned, &root.to_json()))
}

/// The nation that the store belongs to.
pub(super) fn own(index: &Index) -> Result<Nation> {
    index
        .get(Family::Meta, b"own")?
        .and_then(|name| String::from_utf8(name).ok())
        .and_then(|name| Nation::new(&name).ok())
        .ok_or_else(|| corrupt("this node's nation"))
}

/// Every pinned nation, each root's signatures checked again.
pub(super) fn load(index: &Index, own: Nation) -> Result<Trust> {
    let mut trust = Trust::new(own);
    for entry in index.scan(Family::Nations, &[])? {
        let (_, value) = entry?;
        let (pinned, root) = decode_dated(&value, "a nation")?;
        trust.restore(self_signed_root(&Signed::parse(root)?)?, pinned)?;
    }
    trust.member(trust.own())?;
    Ok(trust)
}

impl Store {
    /// Every pinned nation, as it is now; later changes do not show in it.
    pub fn trust(&self) -> Arc<Trust> {
        self.inner.trust.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Pins the nation whose root is `signed` and whose `fingerprint` a person compared. Durable on return.
    pub fn pin_nation(&self, signed: &Signed, fingerprint: Digest, now: Timestamp) -> Result<Member> {
        let mut current = self.inner.trust.write().unwrap_or_else(PoisonError::into_inner);
        let mut trust = Trust::clone(&current);
        let member = trust.pin(signed, fingerprint, now)?.clone();
        let mut batch = self.inner.index.batch();
        // What was pinned before keeps its date.
        put(&mut batch, &member.root.proven(), &member.root.nation, member.pinned)?;
        batch.commit()?;
        *current = Arc::new(trust);
        Ok(member)
    }

    /// Forgets a nation: nothing new of it is believed. Its statements and what was admitted stay. Durable on return.
    pub fn unpin_nation(&self, nation: &Nation) -> Result<()> {
        let mut current = self.inner.trust.write().unwrap_or_else(PoisonError::into_inner);
        let mut trust = Trust::clone(&current);
        trust.unpin(nation)?;
        let mut batch = self.inner.index.batch();
        batch.delete(Family::Nations, nation.as_str().as_bytes())?;
        batch.commit()?;
        *current = Arc::new(trust);
        Ok(())
    }
}
