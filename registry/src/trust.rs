//! Nations and their pinned roots: the one door through which a foreign statement becomes believed.
//!
//! There is no root above the nations. A nation is pinned by the fingerprint of its first root, which people compare
//! over another way. Pure: the time comes in as an argument, the store keeps the state.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::envelope::{EnvelopeError, Signed, Verified};
use crate::reference::Nation;
use crate::statement::{Kind, NodeCertificate, RoleName, Root, Statement};
use crate::timestamp::Timestamp;

/// How far a signer's clock may run ahead of ours, in seconds.
pub const MAX_CLOCK_SKEW: i64 = 600;
/// A root or certificate that ends within so many seconds is worth a warning.
pub const EXPIRY_WARNING: i64 = 30 * crate::timestamp::DAY;
/// Most nations that one node pins: there are fewer than 200 states.
pub const MAX_MEMBERS: usize = 512;

/// Why a statement or a root is not believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The nation is not pinned here.
    #[error(
        "the nation `{0}` is not pinned here; if you mean to trust it, compare its fingerprint with its people and run `steelyard trust add`"
    )]
    NotPinned(Nation),
    /// Its root has ended.
    #[error(
        "the root of `{nation}` expired at {expired}; nothing new is believed under it; ask the people of `{nation}` for its new nation file, then run `steelyard trust rm {nation}` and `steelyard trust add`"
    )]
    RootExpired {
        /// The nation.
        nation: Nation,
        /// When it ended.
        expired: Timestamp,
    },
    /// The fingerprint given is another's.
    #[error(
        "the root of `{nation}` has the fingerprint {found}, not {expected}: do not trust it, ask that nation's people"
    )]
    Fingerprint {
        /// The nation that the root claims.
        nation: Nation,
        /// What the person gave.
        expected: Digest,
        /// What the root has.
        found: Digest,
    },
    /// Another root is pinned already.
    #[error(
        "`{nation}` is pinned with the root {pinned}, and this is another one, {found}; `steelyard trust rm {nation}` first if you mean to replace it"
    )]
    OtherRoot {
        /// The nation.
        nation: Nation,
        /// The fingerprint pinned.
        pinned: Digest,
        /// The fingerprint offered.
        found: Digest,
    },
    /// A root was expected.
    #[error("this is a {0}, not a nation's root")]
    NotARoot(Kind),
    /// A first root was expected.
    #[error("a nation is pinned by version 1 of its root; this is version {0}")]
    NotTheFirst(u64),
    /// A node certificate was expected.
    #[error("this is a {0}, not a node certificate")]
    NotACertificate(Kind),
    /// The certificate is for another peer.
    #[error("the node certificate of `{nation}` names peer {named}, but the connection is with {peer}")]
    OtherPeer {
        /// The nation.
        nation: Nation,
        /// The peer in the certificate.
        named: String,
        /// The peer connected.
        peer: String,
    },
    /// The certificate has ended.
    #[error("the certificate of node {peer} of `{nation}` expired at {expired}; its operator must renew it")]
    CertificateExpired {
        /// The nation.
        nation: Nation,
        /// The peer.
        peer: String,
        /// When it ended.
        expired: Timestamp,
    },
    /// Issued later than now.
    #[error("the {kind} of `{nation}` was issued at {issued}, which is in the future; check both clocks")]
    FromTheFuture {
        /// What it is.
        kind: Kind,
        /// The nation.
        nation: Nation,
        /// When it says it was issued.
        issued: Timestamp,
    },
    /// Too many nations.
    #[error("{MAX_MEMBERS} nations are pinned already; remove one with `steelyard trust rm`")]
    TooMany,
    /// Our own nation cannot be removed.
    #[error("`{0}` is this node's own nation and can't be removed")]
    Own(Nation),
    /// The envelope or its signatures were refused.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
}

/// A pinned nation.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its root.
    pub root: Verified<Root>,
    /// When it was pinned here.
    pub pinned: Timestamp,
}

impl Member {
    /// What people compare: the digest of the first root's payload.
    pub fn fingerprint(&self) -> Digest {
        self.root.digest()
    }
}

/// Verifies a nation's first root against the root role that it declares itself. That proves possession of the keys,
/// nothing more: only the fingerprint, compared by people, makes it that nation's.
pub fn self_signed_root(signed: &Signed) -> Result<Verified<Root>, TrustError> {
    let root = match signed.peek().map_err(EnvelopeError::from)? {
        Statement::Root(root) => root,
        other => return Err(TrustError::NotARoot(other.kind())),
    };
    if root.version != 1 {
        return Err(TrustError::NotTheFirst(root.version));
    }
    let verified = signed.verify(&root.role(RoleName::Root))?;
    verified
        .narrow(|statement| match statement {
            Statement::Root(root) => Some(root),
            _ => None,
        })
        .ok_or(TrustError::NotARoot(Kind::Root))
}

/// Every nation pinned by this node, its own among them.
#[derive(Debug, Clone)]
pub struct Trust {
    own: Nation,
    members: BTreeMap<Nation, Member>,
}

impl Trust {
    /// The trust of a node of `own`, with nobody pinned yet.
    pub fn new(own: Nation) -> Self {
        Self { own, members: BTreeMap::new() }
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

    /// Pins the nation of `signed`, whose fingerprint a person compared. Pinning the same root twice changes nothing.
    pub fn pin(
        &mut self,
        signed: &Signed,
        fingerprint: Digest,
        now: Timestamp,
    ) -> Result<&Member, TrustError> {
        let root = self_signed_root(signed)?;
        let nation = root.nation.clone();
        if root.digest() != fingerprint {
            return Err(TrustError::Fingerprint { nation, expected: fingerprint, found: root.digest() });
        }
        if root.expires <= now {
            return Err(TrustError::RootExpired { nation, expired: root.expires });
        }
        if root.issued > now.plus(MAX_CLOCK_SKEW) {
            return Err(TrustError::FromTheFuture { kind: Kind::Root, nation, issued: root.issued });
        }
        self.restore(root, now)
    }

    /// Puts back a root that was pinned before, as the store does when it opens: an expired one stays visible.
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
        Ok(self.members.entry(nation).or_insert(Member { root, pinned }))
    }

    /// Forgets a nation. What was admitted before stays admitted; nothing new of it is believed.
    pub fn unpin(&mut self, nation: &Nation) -> Result<Member, TrustError> {
        if *nation == self.own {
            return Err(TrustError::Own(nation.clone()));
        }
        self.members.remove(nation).ok_or_else(|| TrustError::NotPinned(nation.clone()))
    }

    /// Believes a statement: its nation is pinned, its root has not ended, the role's threshold signed it.
    ///
    /// A recall is believed under an expired root too: it can only take something out of service.
    pub fn verify(&self, signed: &Signed, now: Timestamp) -> Result<Verified<Statement>, TrustError> {
        let statement = signed.peek().map_err(EnvelopeError::from)?;
        let nation = statement.nation();
        let kind = statement.kind();
        let member = self.member(nation)?;
        if kind == Kind::Root {
            let found = signed.digest();
            if found != member.fingerprint() {
                return Err(TrustError::OtherRoot {
                    nation: nation.clone(),
                    pinned: member.fingerprint(),
                    found,
                });
            }
        }
        if member.root.expires <= now && kind != Kind::Recall {
            return Err(TrustError::RootExpired { nation: nation.clone(), expired: member.root.expires });
        }
        let issued = statement.issued();
        if issued > now.plus(MAX_CLOCK_SKEW) {
            return Err(TrustError::FromTheFuture { kind, nation: nation.clone(), issued });
        }
        Ok(signed.verify(&member.root.role(statement.role()))?)
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
