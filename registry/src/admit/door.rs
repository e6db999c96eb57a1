//! What leaves: the one question that every door asks before a statement, a chunk map, a chunk or a "yes, I have it" goes to
//! a node of another nation.

use std::sync::Arc;

use crate::digest::Digest;
use crate::envelope::Signed;
use crate::policy::{Action, Decision, Facts, Policy, RULE_RECALLED};
use crate::reference::Nation;
use crate::releasable;
use crate::statement::{Recall, Releasable, Release, Standing, Statement};
use crate::store::{Store, StoreError};
use crate::timestamp::Timestamp;
use crate::trust::Trust;

/// Whether a nation may have a release from us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permission {
    /// It is not known here.
    Unknown,
    /// The release does not name the nation. To whoever asks this is the same as [`Self::Unknown`].
    NotReleasable,
    /// It is recalled for us: nobody gets its bytes, but that it exists is no secret to whoever it is releasable to.
    Recalled,
    /// A rule of our policy refuses. To whoever asks this is the same as [`Self::Unknown`].
    Refused(Decision),
    /// Yes.
    Allowed,
}

impl Permission {
    /// Whether the nation may have the bytes.
    pub fn allows_content(&self) -> bool {
        matches!(self, Self::Allowed)
    }

    /// Whether the nation may know of the release: it must also learn that one is recalled.
    pub fn allows_statement(&self) -> bool {
        matches!(self, Self::Allowed | Self::Recalled)
    }
}

/// A reading of trust and policy at one moment, for a question or for a page of them.
#[derive(Debug)]
pub struct Door<'a> {
    store: &'a Store,
    policy: Arc<Policy>,
    trust: Arc<Trust>,
    now: Timestamp,
}

impl<'a> Door<'a> {
    /// Reads what the answers at `now` rest on.
    pub fn open(store: &'a Store, now: Timestamp) -> Result<Self, StoreError> {
        Ok(Self { store, policy: store.policy(), trust: store.trust(), now })
    }

    /// Whether a node of `nation` may have the release `digest` from us.
    pub fn may_have(&self, digest: &Digest, nation: &Nation) -> Result<Permission, StoreError> {
        let Some((release, signed)) = self.store.signed_release(digest)? else {
            return Ok(Permission::Unknown);
        };
        self.may_have_this(*digest, &release, &signed, nation)
    }

    /// As [`Self::may_have`], for a release that was read already.
    pub fn may_have_this(
        &self,
        digest: Digest,
        release: &Release,
        signed: &Signed,
        nation: &Nation,
    ) -> Result<Permission, StoreError> {
        // In code and first, whatever the policy says.
        if !release.releasable_to(nation) {
            return Ok(Permission::NotReleasable);
        }
        let facts = self.facts(digest, release, signed, nation)?;
        let decision = self.policy.decide(Action::Release, &facts);
        let refusing: Vec<&str> = decision.refusals().map(|check| check.rule.as_str()).collect();
        Ok(match refusing.as_slice() {
            [] => Permission::Allowed,
            [RULE_RECALLED] => Permission::Recalled,
            _ => Permission::Refused(decision),
        })
    }

    /// Whether every active ally may have it, so that it may be named where all of them listen. Nobody talks to the others.
    pub fn may_be_announced(&self, digest: &Digest) -> Result<bool, StoreError> {
        match self.store.signed_release(digest)? {
            Some((release, signed)) => self.may_be_announced_this(*digest, &release, &signed),
            None => Ok(false),
        }
    }

    /// As [`Self::may_be_announced`], for a release that was read already.
    pub fn may_be_announced_this(
        &self,
        digest: Digest,
        release: &Release,
        signed: &Signed,
    ) -> Result<bool, StoreError> {
        if release.releasable_to != Releasable::All {
            return Ok(false);
        }
        let active = self.trust.members().filter(|(_, member)| member.standing() == Standing::Active);
        for (nation, _) in active {
            if !self.may_have_this(digest, release, signed, nation)?.allows_statement() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a node of `nation` may learn of a statement: what [`releasable::statement`] keeps back is kept back whatever
    /// the policy says; of a release, of a channel that points to it and of what is attested about it, the policy decides too.
    pub fn may_learn(&self, signed: &Signed, nation: &Nation) -> Result<bool, StoreError> {
        let Ok(statement) = signed.peek() else { return Ok(false) };
        if !releasable::statement(self.store, &statement, nation)? {
            return Ok(false);
        }
        let about =
            |release: &Digest| Ok::<_, StoreError>(self.may_have(release, nation)?.allows_statement());
        match &statement {
            Statement::Release(found) => {
                Ok(self.may_have_this(signed.digest(), found, signed, nation)?.allows_statement())
            }
            Statement::Channel(channel) => Ok(channel.model.nation == *nation || about(&channel.release)?),
            Statement::Attestation(attestation) => {
                Ok(attestation.nation == *nation || about(&attestation.release)?)
            }
            Statement::Recall(_) | Statement::Root(_) | Statement::Membership(_) | Statement::Node(_) => {
                Ok(true)
            }
        }
    }

    /// The facts without what only an admission needs: the content is not looked at, and the signatures counted when the
    /// statement was kept.
    fn facts(
        &self,
        digest: Digest,
        release: &Release,
        signed: &Signed,
        nation: &Nation,
    ) -> Result<Facts, StoreError> {
        // Read for each answer: a recall that came since the door was opened counts too.
        let ancestors = self.store.ancestors_of(release.derived_from.iter().map(|base| base.release))?;
        let recalls = self.store.recalls_about(&digest, &ancestors)?;
        let recalls: Vec<Recall> = recalls.into_iter().map(|(_, recall)| recall).collect();
        let attestations = super::attestations(self.store, &digest, self.now)?;
        let logged = self.store.logged(&digest, self.now)?;
        let signers: Vec<_> = signed.envelopes().iter().map(crate::envelope::Envelope::key).collect();
        let evidence = crate::policy::Parts {
            digest,
            release,
            signers: &signers,
            recalls: &recalls,
            ancestors: &ancestors,
            unsafe_files: &[],
            logged: logged.as_ref(),
            attestations: &attestations,
            admitted: self.store.admission(&digest)?.is_some(),
            lease_age: self.store.lease_age(&release.model.nation),
        };
        Ok(Facts::of(&evidence, nation, &self.trust, self.policy.witnesses(), self.now))
    }
}
