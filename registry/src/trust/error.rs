//! Why a statement, a root or a change of standing is not believed.

use crate::digest::Digest;
use crate::envelope::EnvelopeError;
use crate::reference::Nation;
use crate::statement::{Kind, Standing};
use crate::timestamp::Timestamp;

use super::{MAX_MEMBERS, MAX_ROOTS};

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
        "the root of `{nation}` expired at {expired}; nothing new is believed under it until its people sign the next one: `steelyard root rotate`, `root sign`, `root publish`"
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
    /// Another first root is pinned already.
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
    /// Versions are missing in between.
    #[error(
        "this is version {got} of the root of `{nation}`, but version {have} is the newest known here; get the versions between from an ally or from its nation file"
    )]
    RootSkipped {
        /// The nation.
        nation: Nation,
        /// The newest version known.
        have: u64,
        /// The version offered.
        got: u64,
    },
    /// It names another root before it.
    #[error(
        "version {version} of the root of `{nation}` follows {named}, but version {} is {have} here: it belongs to another chain; ask that nation's people",
        .version - 1
    )]
    RootPrevious {
        /// The nation.
        nation: Nation,
        /// The version offered.
        version: u64,
        /// The root that is kept under the version before.
        have: Digest,
        /// The root that it names.
        named: Digest,
    },
    /// Two roots of one version, both signed by the thresholds: somebody signed twice, or keys are stolen.
    #[error(
        "`{nation}` signed two roots of version {version}: {have} is kept, {found} is refused; speak with its people at once: its root keys may be in other hands"
    )]
    RootConflict {
        /// The nation.
        nation: Nation,
        /// The version of both.
        version: u64,
        /// The root kept.
        have: Digest,
        /// The root offered.
        found: Digest,
    },
    /// The chain is too long.
    #[error(
        "`{0}` has had {MAX_ROOTS} roots, which is the limit; it must begin a new chain and be pinned anew"
    )]
    TooManyRoots(Nation),
    /// Signed by keys that a later root removed, and not proved to be older than that.
    #[error(
        "the {kind} of `{nation}` is signed by keys that version {version} of its root took away, and no log proves that it came before; ask its people to sign it with their present keys"
    )]
    Superseded {
        /// What it is.
        kind: Kind,
        /// The nation.
        nation: Nation,
        /// The first version of the root that no longer has the keys.
        version: u64,
    },
    /// Signed by keys that a later root took away, and the log does not show yet when that was.
    #[error(
        "the {kind} of `{nation}` is signed by keys that version {version} of its root took away, and its log does not show here yet which came first; it is looked at again when the log was read"
    )]
    Unordered {
        /// What it is.
        kind: Kind,
        /// The nation.
        nation: Nation,
        /// The first version of the root that no longer has the keys.
        version: u64,
    },
    /// The nation's standing allows no such thing.
    #[error("nothing new of `{nation}` is believed: it is {standing} here{}", advice(.nation, *.standing))]
    NotActive {
        /// The nation.
        nation: Nation,
        /// Its standing.
        standing: Standing,
    },
    /// A membership statement that does not follow from the one before.
    #[error(transparent)]
    Membership(#[from] super::MembershipError),
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

fn advice(nation: &Nation, standing: Standing) -> String {
    match standing {
        Standing::Active => String::new(),
        Standing::Invited | Standing::Suspended => {
            format!("; `steelyard trust activate {nation}` changes that")
        }
        Standing::Departed => {
            format!("; only a new invitation changes that: `steelyard trust invite {nation}`")
        }
    }
}
