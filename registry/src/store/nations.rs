//! The pinned nations with their roots, and what our own nation says of others: kept in the index, with the whole trust in
//! memory.

use std::sync::{Arc, PoisonError, RwLockWriteGuard};

use super::index::{Batch, Family, Index};
use super::record::{corrupt, decode_dated, encode_dated, nation_prefix, said_from, said_to};
use super::statements::peek;
use super::{MAX_FEED, Result, Store, StoreError};
use crate::digest::Digest;
use crate::envelope::{EnvelopeError, Signed, Verified};
use crate::reference::Nation;
use crate::statement::{Membership, Root, Statement};
use crate::timestamp::Timestamp;
use crate::trust::{Member, Said, Trust, TrustError, peek_root, self_signed_root};

/// Prefix of the notes of what was said of each nation.
const SAID: &str = "membership/";

/// Notes a nation's first root.
pub(super) fn put(batch: &mut Batch<'_>, root: &Signed, nation: &Nation, pinned: Timestamp) -> Result<()> {
    batch.put(Family::Nations, nation.as_str().as_bytes(), &encode_dated(pinned, &root.to_json()))
}

/// Notes one of its later roots.
pub(super) fn put_later(batch: &mut Batch<'_>, root: &Verified<Root>) -> Result<()> {
    let mut key = nation_prefix(&root.nation);
    key.extend_from_slice(&root.version.to_be_bytes());
    batch.put(Family::Nations, &key, &encode_dated(root.issued, &root.proven().to_json()))
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
        let (key, value) = entry?;
        let (pinned, root) = decode_dated(&value, "a nation")?;
        let signed = Signed::parse(root)?;
        if !key.contains(&0) {
            trust.restore(self_signed_root(&signed)?, pinned)?;
        } else if trust.member(&peek_root(&signed)?.nation).is_ok() {
            // Keys sort so that each comes behind the one before it. Of a nation that was let go, they wait for its return.
            trust.rotate(&signed, pinned)?;
        }
    }
    for entry in index.scan(Family::Meta, SAID.as_bytes())? {
        let (key, value) = entry?;
        let name = key.get(SAID.len()..).and_then(|name| std::str::from_utf8(name).ok());
        let member = name.and_then(|name| Nation::new(name).ok()).ok_or_else(|| corrupt("a membership"))?;
        trust.restore_said(member, said_from(&value)?);
    }
    trust.member(trust.own())?;
    Ok(trust)
}

/// A change of trust that was written into a batch, and holds in memory once that is durable.
pub(super) struct Change<'a> {
    current: RwLockWriteGuard<'a, Arc<Trust>>,
    after: Trust,
}

impl Change<'_> {
    /// The batch is durable.
    pub(super) fn done(mut self) {
        *self.current = Arc::new(self.after);
    }
}

impl Store {
    /// Every pinned nation, as it is now; later changes do not show in it.
    pub fn trust(&self) -> Arc<Trust> {
        self.inner.trust.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Believes a new statement, with what its nation's log proves here ([`Trust::verify_at`]).
    pub fn verify<E>(&self, signed: &Signed, now: Timestamp) -> std::result::Result<Verified<Statement>, E>
    where
        E: From<TrustError> + From<StoreError>,
    {
        let nation = signed.peek().map_err(EnvelopeError::from).map_err(TrustError::from)?.nation().clone();
        self.trust().verify_at(signed, now, |digest| Ok(self.log_number(&nation, digest)?))
    }

    /// Believes a statement that was kept, as an admission needs it ([`Trust::verify_kept`]).
    pub fn verify_kept<E>(
        &self,
        signed: &Signed,
        now: Timestamp,
    ) -> std::result::Result<Verified<Statement>, E>
    where
        E: From<TrustError> + From<StoreError>,
    {
        let admitted = self.admission(&signed.digest())?.is_some();
        let nation = signed.peek().map_err(EnvelopeError::from).map_err(TrustError::from)?.nation().clone();
        self.trust().verify_kept(signed, now, admitted, |digest| Ok(self.log_number(&nation, digest)?))
    }

    /// Whether the log shows where the newest root of `nation` stands: what its older keys signed can then be ordered.
    pub fn rotation_is_ordered(&self, nation: &Nation) -> Result<bool> {
        let trust = self.trust();
        let root = &trust.member(nation)?.root;
        Ok(root.version == 1 || self.log_number(nation, &root.digest())?.is_some())
    }

    /// Pins the nation whose root is `signed` and whose `fingerprint` a person compared. Durable on return.
    pub fn pin_nation(&self, signed: &Signed, fingerprint: Digest, now: Timestamp) -> Result<Member> {
        self.pin_chain(signed, &[], fingerprint, now)
    }

    /// Pins a nation by its first root, with the roots that follow it in their order. Later roots that were known when it was
    /// let go hold again. Durable on return.
    pub fn pin_chain(
        &self,
        first: &Signed,
        later: &[Signed],
        fingerprint: Digest,
        now: Timestamp,
    ) -> Result<Member> {
        let mut current = self.inner.trust.write().unwrap_or_else(PoisonError::into_inner);
        let mut trust = Trust::clone(&current);
        let nation = peek_root(first)?.nation;
        let mut chain = self.later_roots(&nation)?;
        chain.extend_from_slice(later);
        // What waits here may belong to another first root; what was handed over must fit.
        if matches!(
            trust.clone().pin_chain(first, &chain, fingerprint, now),
            Err(TrustError::RootPrevious { .. })
        ) {
            chain = later.to_vec();
        }
        let member = trust.pin_chain(first, &chain, fingerprint, now)?.clone();
        let mut batch = self.inner.index.batch();
        // What was pinned before keeps its date.
        put(&mut batch, &member.root.first().proven(), &nation, member.pinned)?;
        for root in member.root.roots().skip(1) {
            put_later(&mut batch, root)?;
        }
        batch.commit()?;
        *current = Arc::new(trust);
        drop(current);
        // So that the feed passes them on.
        for root in member.root.roots().skip(1) {
            self.put_statement(&root.clone().into_statement())?;
        }
        Ok(member)
    }

    fn later_roots(&self, nation: &Nation) -> Result<Vec<Signed>> {
        let mut roots = Vec::new();
        for entry in self.inner.index.scan(Family::Nations, &nation_prefix(nation))? {
            let (_, value) = entry?;
            roots.push(Signed::parse(decode_dated(&value, "a nation")?.1)?);
        }
        Ok(roots)
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

    /// Writes what a root changes in trust into `batch`.
    pub(super) fn change_root(
        &self,
        batch: &mut Batch<'_>,
        signed: &Signed,
        root: &Root,
    ) -> Result<Change<'_>> {
        let mut change = self.change();
        if change.after.rotate(signed, root.issued)? {
            put_later(batch, &change.after.member(&root.nation)?.root)?;
        }
        Ok(change)
    }

    /// Writes what a membership statement changes in trust into `batch`.
    pub(super) fn change_membership(
        &self,
        batch: &mut Batch<'_>,
        digest: Digest,
        membership: &Membership,
    ) -> Result<Change<'_>> {
        let mut change = self.change();
        change.after.take(membership, digest)?;
        if let Some(said) = change.after.said(&membership.member) {
            let key = format!("{SAID}{}", membership.member);
            batch.put(Family::Meta, key.as_bytes(), &said_to(said))?;
        }
        Ok(change)
    }

    /// Looks again at what our own nation said of others once its log shows where its newest root stands: a statement by a
    /// thief, whose keys that root took away, gives way to the last one that is still believed, whatever its sequence. Returns
    /// the nations whose standing that concerns. Durable on return.
    pub(super) fn reconsider_said(&self) -> Result<Vec<Nation>> {
        let trust = self.trust();
        let Ok(own) = trust.member(trust.own()) else { return Ok(Vec::new()) };
        if own.root.version == 1 || self.log_number(trust.own(), &own.root.digest())?.is_none() {
            return Ok(Vec::new());
        }
        let mut changed = Vec::new();
        for (member, said) in trust.memberships() {
            if self.is_superseded(&said.statement)? {
                changed.push((member.clone(), said.statement, self.said_before(member)?));
            }
        }
        if changed.is_empty() {
            return Ok(Vec::new());
        }
        let mut change = self.change();
        let mut batch = self.inner.index.batch();
        // What was said anew meanwhile stands.
        changed.retain(|(member, last, _)| {
            change.after.said(member).is_some_and(|said| said.statement == *last)
        });
        for (member, last, before) in &changed {
            let key = format!("{SAID}{member}");
            match before {
                Some(said) => batch.put(Family::Meta, key.as_bytes(), &said_to(said))?,
                None => batch.delete(Family::Meta, key.as_bytes())?,
            }
            change.after.take_back(member, *before);
            tracing::warn!(%member, statement = %last, "what was said of this nation with keys that were taken away counts no more");
        }
        batch.commit()?;
        change.done();
        Ok(changed.into_iter().map(|(member, _, _)| member).collect())
    }

    /// The last thing said of `member` that is still believed.
    fn said_before(&self, member: &Nation) -> Result<Option<Said>> {
        let (own, mut best, mut after) = (self.own(), None::<Said>, 0);
        loop {
            let page = self.feed(after, MAX_FEED)?;
            let Some((last, _)) = page.last() else { return Ok(best) };
            after = *last;
            for (_, signed) in page {
                let Statement::Membership(found) = peek(&signed)? else { continue };
                let about = found.nation == own && found.member == *member;
                let Membership { standing, sequence, fingerprint, .. } = found;
                let statement = signed.digest();
                let better = best.is_none_or(|best| best.sequence < sequence);
                if about && better && !self.is_superseded(&statement)? {
                    best = Some(Said { standing, sequence, fingerprint, statement });
                }
            }
        }
    }

    fn change(&self) -> Change<'_> {
        let current = self.inner.trust.write().unwrap_or_else(PoisonError::into_inner);
        let after = Trust::clone(&current);
        Change { current, after }
    }

    /// The sequence that our own nation's next statement about `member` should have.
    pub fn next_membership_sequence(&self, member: &Nation) -> u64 {
        self.trust().said(member).map_or(1, |said| said.sequence.saturating_add(1))
    }
}
