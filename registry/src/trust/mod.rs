//! Nations and their pinned roots: the one door through which a foreign statement becomes believed.
//!
//! There is no root above the nations. A nation is pinned by the fingerprint of its first root, which people compare
//! over another way; its later roots follow from that one (`chain`). Each nation holds the others in a standing of its own
//! choice (`membership`). Pure: the time comes in as an argument, the store keeps the state (`specs/02-envelope-and-statements.md`).

mod chain;
mod ending;
mod error;
pub mod membership;
mod spoken;

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::envelope::{EnvelopeError, Signed, Verified};
use crate::key::KeyId;
use crate::reference::Nation;
use crate::statement::{Kind, Membership, NodeCertificate, RoleName, Root, Standing, Statement};
use crate::timestamp::Timestamp;

pub use chain::{Chain, next_root, peek_root, self_signed_root};
pub use ending::Ending;
pub use error::TrustError;
pub use membership::{MembershipError, Said};
pub use spoken::spoken;

use chain::Offer;

/// How far a signer's clock may run ahead of ours, in seconds.
pub const MAX_CLOCK_SKEW: i64 = 600;
/// Most nations that one node pins: there are fewer than 200 states.
pub const MAX_MEMBERS: usize = 512;
/// Most roots of one nation: one each month for ten years. All may be tried for one old statement.
pub const MAX_ROOTS: usize = 128;

/// A pinned nation.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its roots; they are read as the newest one.
    pub root: Chain,
    /// When it was pinned here.
    pub pinned: Timestamp,
    /// What our own nation said of it last.
    said: Option<Said>,
}

impl Member {
    /// What people compare: the digest of the first root's payload.
    pub fn fingerprint(&self) -> Digest {
        self.root.first().digest()
    }

    /// In which standing our own nation holds it. Active where it said nothing: somebody pinned it here.
    pub fn standing(&self) -> Standing {
        self.said.map_or(Standing::Active, |said| said.standing)
    }

    /// What our own nation said of it last.
    pub fn said(&self) -> Option<&Said> {
        self.said.as_ref()
    }

    /// The newest root whose role `role` these signers satisfy: that under which a verified statement is believed.
    pub fn root_of(&self, role: RoleName, signers: &[KeyId]) -> Option<&Verified<Root>> {
        self.root.roots().rev().find(|root| {
            let role = root.role(role);
            signers.iter().filter(|id| role.keys.contains_key(id)).count() >= role.threshold.max(1)
        })
    }
}

/// Every nation pinned by this node, its own among them.
#[derive(Debug, Clone)]
pub struct Trust {
    own: Nation,
    members: BTreeMap<Nation, Member>,
    /// Our own nation's last word on others, whether or not they are pinned here.
    said: BTreeMap<Nation, Said>,
}

/// Nothing is known of any log.
fn unlogged(_: &Digest) -> Result<Option<u64>, TrustError> {
    Ok(None)
}

impl Trust {
    /// The trust of a node of `own`, with nobody pinned yet.
    pub fn new(own: Nation) -> Self {
        Self { own, members: BTreeMap::new(), said: BTreeMap::new() }
    }

    /// This node's nation.
    pub fn own(&self) -> &Nation {
        &self.own
    }

    /// The pinned nations in order.
    pub fn members(&self) -> impl Iterator<Item = (&Nation, &Member)> {
        self.members.iter()
    }

    /// The member `nation`.
    pub fn member(&self, nation: &Nation) -> Result<&Member, TrustError> {
        self.members.get(nation).ok_or_else(|| TrustError::NotPinned(nation.clone()))
    }

    /// What our own nation said last of `nation`, which need not be pinned here.
    pub fn said(&self, nation: &Nation) -> Option<&Said> {
        self.said.get(nation)
    }

    /// The same of every nation of which it said something, in order.
    pub fn memberships(&self) -> impl Iterator<Item = (&Nation, &Said)> {
        self.said.iter()
    }

    /// Pins the nation of `signed`, whose fingerprint a person compared. Pinning the same root twice changes nothing.
    pub fn pin(
        &mut self,
        signed: &Signed,
        fingerprint: Digest,
        now: Timestamp,
    ) -> Result<&Member, TrustError> {
        self.pin_chain(signed, &[], fingerprint, now)
    }

    /// Pins a nation by its first root and takes the roots that follow it, in their order. It is the newest one that must
    /// not have ended.
    pub fn pin_chain(
        &mut self,
        first: &Signed,
        later: &[Signed],
        fingerprint: Digest,
        now: Timestamp,
    ) -> Result<&Member, TrustError> {
        let root = self_signed_root(first)?;
        let nation = root.nation.clone();
        if root.digest() != fingerprint {
            return Err(TrustError::Fingerprint { nation, expected: fingerprint, found: root.digest() });
        }
        not_ahead(Kind::Root, &nation, root.issued, now)?;
        let mut after = self.clone();
        after.restore(root, now)?;
        for signed in later {
            after.rotate(signed, now)?;
        }
        let expired = after.member(&nation)?.root.expires;
        if expired <= now {
            return Err(TrustError::RootExpired { nation, expired });
        }
        *self = after;
        self.member(&nation)
    }

    /// Puts back a first root that was pinned before, as the store does when it opens: an expired one stays visible.
    pub fn restore(&mut self, root: Verified<Root>, pinned: Timestamp) -> Result<&Member, TrustError> {
        let nation = root.nation.clone();
        if let Some(member) = self.members.get(&nation)
            && member.fingerprint() != root.digest()
        {
            return Err(TrustError::OtherRoot { nation, pinned: member.fingerprint(), found: root.digest() });
        }
        if !self.members.contains_key(&nation) && self.members.len() >= MAX_MEMBERS {
            return Err(TrustError::TooMany);
        }
        let said = self.said.get(&nation).copied();
        if let Some(said) = said.filter(|said| said.fingerprint != root.digest() && extends(said.standing)) {
            let pinned = root.digest();
            return Err(
                MembershipError::Fingerprint { member: nation, named: said.fingerprint, pinned }.into()
            );
        }
        Ok(self.members.entry(nation).or_insert(Member { root: Chain::new(root), pinned, said }))
    }

    /// Takes the next root of a pinned nation; whether it was not known. From now on it alone decides about new statements.
    ///
    /// A root that has ended is taken too: a later one may follow it, and until then nothing new is believed.
    pub fn rotate(&mut self, signed: &Signed, now: Timestamp) -> Result<bool, TrustError> {
        let root = peek_root(signed)?;
        let member =
            self.members.get_mut(&root.nation).ok_or_else(|| TrustError::NotPinned(root.nation.clone()))?;
        match member.root.offer(signed)? {
            Offer::Known(_) => Ok(false),
            Offer::Next(next) => {
                not_ahead(Kind::Root, &root.nation, next.issued, now)?;
                member.root.push(next);
                Ok(true)
            }
        }
    }

    /// Takes what our own nation says of another one; whether it was not known.
    pub fn take(&mut self, membership: &Membership, digest: Digest) -> Result<bool, TrustError> {
        let said = self.next_word(membership, digest)?;
        let member = &membership.member;
        if let Some(entry) = self.members.get_mut(member) {
            entry.said = Some(said);
        }
        let before = self.said.insert(member.clone(), said);
        Ok(before != Some(said))
    }

    /// What [`Self::take`] would note. Nothing changes.
    fn next_word(&self, membership: &Membership, digest: Digest) -> Result<Said, TrustError> {
        let Membership { nation, member, fingerprint, .. } = membership;
        if *nation != self.own {
            let (nation, member) = (nation.clone(), member.clone());
            return Err(MembershipError::Foreign { nation, member }.into());
        }
        if let Some(pinned) = self.members.get(member).map(Member::fingerprint)
            && pinned != *fingerprint
            && extends(membership.standing)
        {
            let (member, named) = (member.clone(), *fingerprint);
            return Err(MembershipError::Fingerprint { member, named, pinned }.into());
        }
        Ok(membership::step(self.said.get(member), membership, digest)?)
    }

    /// Puts back what was said before, as the store does when it opens.
    pub fn restore_said(&mut self, member: Nation, said: Said) {
        if let Some(entry) = self.members.get_mut(&member) {
            entry.said = Some(said);
        }
        self.said.insert(member, said);
    }

    /// Goes back to what was said before, or to nothing: what was said last was signed with keys that were taken away.
    pub fn take_back(&mut self, member: &Nation, before: Option<Said>) {
        if let Some(entry) = self.members.get_mut(member) {
            entry.said = before;
        }
        match before {
            Some(said) => self.said.insert(member.clone(), said),
            None => self.said.remove(member),
        };
    }

    /// Forgets a nation. What was admitted before stays admitted; nothing new of it is believed.
    pub fn unpin(&mut self, nation: &Nation) -> Result<Member, TrustError> {
        if *nation == self.own {
            return Err(TrustError::Own(nation.clone()));
        }
        self.members.remove(nation).ok_or_else(|| TrustError::NotPinned(nation.clone()))
    }

    /// Believes a statement of which no place in a log is known (see [`Self::verify_at`]).
    pub fn verify(&self, signed: &Signed, now: Timestamp) -> Result<Verified<Statement>, TrustError> {
        self.verify_at(signed, now, unlogged)
    }

    /// Believes a new statement: its nation is pinned and active, its newest root has not ended, the role's threshold signed it.
    ///
    /// What only an older root's role satisfies is believed when its place in the nation's log lies before that of the root
    /// that removed the keys; `index` tells the proved place of a statement, by its digest. A recall is believed under an
    /// expired root and of a nation that is no longer active: it can only take something out of service. So is the next
    /// root, by which a nation takes trust from stolen keys.
    pub fn verify_at<E: From<TrustError>>(
        &self,
        signed: &Signed,
        now: Timestamp,
        index: impl Fn(&Digest) -> Result<Option<u64>, E>,
    ) -> Result<Verified<Statement>, E> {
        let read = signed.read().map_err(EnvelopeError::from).map_err(TrustError::from)?;
        let statement = read.statement();
        let member = self.member(statement.nation())?;
        let (kind, standing) = (statement.kind(), member.standing());
        let outlives = matches!(kind, Kind::Recall | Kind::Root);
        let heard = match standing {
            Standing::Active => true,
            Standing::Invited => false,
            Standing::Suspended | Standing::Departed => outlives,
        };
        if !heard {
            return Err(TrustError::NotActive { nation: statement.nation().clone(), standing }.into());
        }
        if member.root.expires <= now && !outlives {
            let (nation, expired) = (statement.nation().clone(), member.root.expires);
            return Err(TrustError::RootExpired { nation, expired }.into());
        }
        not_ahead(kind, statement.nation(), statement.issued(), now)?;
        let role = statement.role();
        if matches!(statement, Statement::Root(_)) {
            return match member.root.offer(signed)? {
                Offer::Known(root) | Offer::Next(root) => Ok(root.into_statement()),
            };
        }
        let verified = member.root.verify(read, role, false, index)?;
        if let Statement::Membership(membership) = verified.get() {
            self.next_word(membership, verified.digest())?;
        }
        Ok(verified)
    }

    /// Believes a statement that was kept while its nation was active, as an admission needs it: signatures and log order are
    /// checked again, and the standing is left to whoever decides ([`Member::standing`]). The root of a nation that is no
    /// longer active may have ended: a departed ally's next root will never come.
    ///
    /// `admitted`: an admission of it is on record. It then stands after a rotation until the log shows that it came later.
    pub fn verify_kept<E: From<TrustError>>(
        &self,
        signed: &Signed,
        now: Timestamp,
        admitted: bool,
        index: impl Fn(&Digest) -> Result<Option<u64>, E>,
    ) -> Result<Verified<Statement>, E> {
        let read = signed.read().map_err(EnvelopeError::from).map_err(TrustError::from)?;
        let statement = read.statement();
        let (nation, kind, role) = (statement.nation(), statement.kind(), statement.role());
        let member = self.member(nation)?;
        match member.standing() {
            Standing::Invited => {
                return Err(
                    TrustError::NotActive { nation: nation.clone(), standing: Standing::Invited }.into()
                );
            }
            Standing::Active if member.root.expires <= now => {
                let (nation, expired) = (nation.clone(), member.root.expires);
                return Err(TrustError::RootExpired { nation, expired }.into());
            }
            Standing::Active | Standing::Suspended | Standing::Departed => {}
        }
        not_ahead(kind, nation, statement.issued(), now)?;
        member.root.verify(read, role, admitted, index)
    }

    /// Believes that `peer` is a node of a pinned nation.
    pub fn verify_node(
        &self,
        signed: &Signed,
        peer: &str,
        now: Timestamp,
    ) -> Result<Verified<NodeCertificate>, TrustError> {
        let verified = self.verify(signed, now)?;
        let kind = verified.kind();
        let certificate = verified
            .narrow(|statement| match statement {
                Statement::Node(node) => Some(node),
                _ => None,
            })
            .ok_or(TrustError::NotACertificate(kind))?;
        let nation = certificate.nation.clone();
        if certificate.peer_id != peer {
            let named = certificate.peer_id.clone();
            return Err(TrustError::OtherPeer { nation, named, peer: peer.to_owned() });
        }
        if certificate.expires <= now {
            return Err(TrustError::CertificateExpired {
                nation,
                peer: peer.to_owned(),
                expired: certificate.expires,
            });
        }
        Ok(certificate)
    }
}

/// Whether a standing gives trust, so that the fingerprint must be the right one. What takes trust away does so in any case.
const fn extends(standing: Standing) -> bool {
    matches!(standing, Standing::Invited | Standing::Active)
}

fn not_ahead(kind: Kind, nation: &Nation, issued: Timestamp, now: Timestamp) -> Result<(), TrustError> {
    if issued > now.plus(MAX_CLOCK_SKEW) {
        return Err(TrustError::FromTheFuture { kind, nation: nation.clone(), issued });
    }
    Ok(())
}
