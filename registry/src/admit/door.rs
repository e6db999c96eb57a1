//! What leaves: the one question that every door asks before a statement, a chunk map, a chunk or a "yes, I have it" goes to
//! a node of another nation.

use std::sync::Arc;

use crate::digest::Digest;
use crate::envelope::Signed;
use crate::policy::{Action, Decision, Facts, Policy, RULE_RECALLED};
use crate::reference::Nation;
use crate::statement::{Recall, Releasable, Release, Standing};
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

/// A reading of trust, policy and recalls at one moment, for a question or for a page of them.
#[derive(Debug)]
pub struct Door<'a> {
    store: &'a Store,
    policy: Arc<Policy>,
    trust: Arc<Trust>,
    recalls: Vec<Recall>,
    now: Timestamp,
}

impl<'a> Door<'a> {
    /// Reads what the answers at `now` rest on.
    pub fn open(store: &'a Store, now: Timestamp) -> Result<Self, StoreError> {
        Ok(Self {
            store,
            policy: store.policy(),
            trust: store.trust(),
            recalls: store.recalls()?.into_iter().map(|(_, recall)| recall).collect(),
            now,
        })
    }

    /// Whether a node of `nation` may have the release `digest` from us.
    pub fn may_have(&self, digest: &Digest, nation: &Nation) -> Result<Permission, StoreError> {
        let (Some(release), Some(signed)) = (self.store.release(digest)?, self.store.statement(digest)?)
        else {
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
        let (Some(release), Some(signed)) = (self.store.release(digest)?, self.store.statement(digest)?)
        else {
            return Ok(false);
        };
        if release.releasable_to != Releasable::All {
            return Ok(false);
        }
        let active = self.trust.members().filter(|(_, member)| member.standing() == Standing::Active);
        for (nation, _) in active {
            if !self.may_have_this(*digest, &release, &signed, nation)?.allows_statement() {
                return Ok(false);
            }
        }
        Ok(true)
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
        let ancestors = self.store.ancestors_of(release.derived_from.iter().map(|base| base.release))?;
        let attestations = super::attestations(self.store, &digest, self.now)?;
        let logged = self.store.logged(&digest)?;
        let signers: Vec<_> = signed.envelopes().iter().map(crate::envelope::Envelope::key).collect();
        let evidence = crate::policy::Parts {
            digest,
            release,
            signers: &signers,
            recalls: &self.recalls,
            ancestors: &ancestors,
            unsafe_files: &[],
            logged: logged.as_ref(),
            attestations: &attestations,
            admitted: self.store.admission(&digest)?.is_some(),
            lease_age: None,
        };
        Ok(Facts::of(&evidence, nation, &self.trust, self.policy.witnesses(), self.now))
    }
}
