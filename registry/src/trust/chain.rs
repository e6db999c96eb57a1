//! A nation's chain of roots: the first one pinned by people, each later one signed by the thresholds of both.

use super::{MAX_ROOTS, TrustError};
use crate::digest::Digest;
use crate::envelope::{EnvelopeError, Read, Signed, Verified};
use crate::statement::{Kind, RoleName, Root, Statement};

/// Reads a root out of a signed statement without believing it.
pub fn peek_root(signed: &Signed) -> Result<Root, TrustError> {
    match signed.peek().map_err(EnvelopeError::from)? {
        Statement::Root(root) => Ok(root),
        other => Err(TrustError::NotARoot(other.kind())),
    }
}

fn verify_by(signed: &Signed, root: &Root) -> Result<Verified<Root>, TrustError> {
    let verified = signed.verify(&root.role(RoleName::Root))?;
    verified
        .narrow(|statement| match statement {
            Statement::Root(root) => Some(root),
            _ => None,
        })
        .ok_or(TrustError::NotARoot(Kind::Root))
}

/// Verifies a nation's first root against the root role that it declares itself. That proves possession of the keys,
/// nothing more: only the fingerprint, compared by people, makes it that nation's.
pub fn self_signed_root(signed: &Signed) -> Result<Verified<Root>, TrustError> {
    let root = peek_root(signed)?;
    if root.version != 1 {
        return Err(TrustError::NotTheFirst(root.version));
    }
    verify_by(signed, &root)
}

/// Verifies a root as the one that follows `previous`: the next version of the same nation, which names its digest, signed
/// by the threshold of the root role of both. The one threshold check, twice.
pub fn next_root(previous: &Verified<Root>, signed: &Signed) -> Result<Verified<Root>, TrustError> {
    let root = peek_root(signed)?;
    let nation = previous.nation.clone();
    if root.nation != nation {
        return Err(TrustError::NotPinned(root.nation));
    }
    if previous.version.checked_add(1) != Some(root.version) {
        return Err(TrustError::RootSkipped { nation, have: previous.version, got: root.version });
    }
    // A root of a later version always names the one before: it would not have been read otherwise.
    let named = root.previous.unwrap_or(previous.digest());
    if named != previous.digest() {
        return Err(TrustError::RootPrevious {
            nation,
            version: root.version,
            have: previous.digest(),
            named,
        });
    }
    let old = verify_by(signed, previous)?;
    Ok(old.and_also(&verify_by(signed, &root)?))
}

/// The roots of one nation: the first one, pinned by people, and those that followed it. Read as the newest one.
#[derive(Debug, Clone)]
pub struct Chain {
    older: Vec<Verified<Root>>,
    current: Verified<Root>,
}

/// What offering a root to a chain comes to.
#[derive(Debug)]
pub(super) enum Offer {
    /// It is in the chain.
    Known(Verified<Root>),
    /// It is the next one, and was not added yet.
    Next(Verified<Root>),
}

impl Chain {
    pub(super) fn new(first: Verified<Root>) -> Self {
        Self { older: Vec::new(), current: first }
    }

    /// Every root, the first one first.
    pub fn roots(&self) -> impl DoubleEndedIterator<Item = &Verified<Root>> {
        self.older.iter().chain([&self.current])
    }

    /// The first root, which people pinned.
    pub fn first(&self) -> &Verified<Root> {
        self.older.first().unwrap_or(&self.current)
    }

    fn version(&self, version: u64) -> Option<&Verified<Root>> {
        self.roots().find(|root| root.version == version)
    }

    /// What `signed`, a root of the chain's nation, is to the chain. Nothing changes.
    pub(super) fn offer(&self, signed: &Signed) -> Result<Offer, TrustError> {
        let root = peek_root(signed)?;
        let (nation, digest) = (&self.current.nation, signed.digest());
        if root.version == 1 && digest != self.first().digest() {
            let (pinned, nation) = (self.first().digest(), nation.clone());
            return Err(TrustError::OtherRoot { nation, pinned, found: digest });
        }
        if let Some(known) = self.version(root.version).filter(|known| known.digest() == digest) {
            // Checked again: what comes may have other envelopes than what is kept.
            return Ok(Offer::Known(match self.version(root.version - 1) {
                Some(previous) => next_root(previous, signed)?,
                None => verify_by(signed, known)?,
            }));
        }
        let Some(previous) = self.version(root.version - 1) else {
            let (nation, have) = (nation.clone(), self.current.version);
            return Err(TrustError::RootSkipped { nation, have, got: root.version });
        };
        let next = next_root(previous, signed)?;
        if let Some(kept) = self.version(next.version) {
            // Both are signed by the thresholds, so it is the nation that said two things.
            return Err(TrustError::RootConflict {
                nation: nation.clone(),
                version: next.version,
                have: kept.digest(),
                found: next.digest(),
            });
        }
        if self.older.len() + 1 >= MAX_ROOTS {
            return Err(TrustError::TooManyRoots(nation.clone()));
        }
        Ok(Offer::Next(next))
    }

    /// Adds what [`Self::offer`] found to be next.
    pub(super) fn push(&mut self, next: Verified<Root>) {
        self.older.push(std::mem::replace(&mut self.current, next));
    }

    /// Believes a statement of the chain's nation by its newest root, or by the newest older one whose role `signed`
    /// satisfies, when its place in the nation's log lies before that of the root that took the keys away.
    ///
    /// `index` tells the proved place of a statement in the nation's log; it is asked only where an older root counts.
    /// `stands`: it was admitted while its keys were the present ones, and so is believed until the log shows the order.
    pub(super) fn verify<E: From<TrustError>>(
        &self,
        read: Read<'_>,
        role: RoleName,
        stands: bool,
        index: impl Fn(&Digest) -> Result<Option<u64>, E>,
    ) -> Result<Verified<Statement>, E> {
        let signed = read.signed();
        let refused = match read.verify(&self.current.role(role)) {
            Err(error @ EnvelopeError::Threshold { .. }) => error,
            other => return Ok(other.map_err(TrustError::from)?),
        };
        let mut after = &self.current;
        for older in self.older.iter().rev() {
            match signed.verify(&older.role(role)) {
                Ok(verified) => {
                    let (kind, nation, version) =
                        (verified.kind(), self.current.nation.clone(), after.version);
                    return match index(&after.digest())? {
                        Some(taken) if index(&verified.digest())?.is_some_and(|place| place < taken) => {
                            Ok(verified)
                        }
                        Some(_) => Err(TrustError::Superseded { kind, nation, version }.into()),
                        None if stands => Ok(verified),
                        None => Err(TrustError::Unordered { kind, nation, version }.into()),
                    };
                }
                Err(EnvelopeError::Threshold { .. }) => after = older,
                Err(error) => return Err(TrustError::from(error).into()),
            }
        }
        Err(TrustError::from(refused).into())
    }
}

impl std::ops::Deref for Chain {
    type Target = Verified<Root>;
    fn deref(&self) -> &Verified<Root> {
        &self.current
    }
}
