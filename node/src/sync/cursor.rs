//! How far each peer's feed was read, and under which trust.

use libp2p::PeerId;
use registry::statement::Standing;
use registry::store::{Store, StoreError};

/// How far a peer's feed was read: kept as a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Which feed of the peer.
    pub(super) epoch: [u8; 16],
    /// The trust at which it was read: a nation pinned later may have spoken before.
    pub(super) trust: [u8; 32],
    pub(super) after: u64,
}

impl Cursor {
    fn key(peer: &PeerId) -> String {
        format!("sync/peer/{}", peer.to_base58())
    }

    pub(super) fn load(store: &Store, peer: &PeerId) -> Option<Self> {
        let note: [u8; 56] = store.get_meta(&Self::key(peer))?.try_into().ok()?;
        let (epoch, rest) = note.split_first_chunk::<16>()?;
        let (trust, rest) = rest.split_first_chunk::<32>()?;
        let after = u64::from_le_bytes(rest.try_into().ok()?);
        Some(Self { epoch: *epoch, trust: *trust, after })
    }

    pub(super) fn save(&self, store: &Store, peer: &PeerId) -> Result<(), StoreError> {
        let mut note = self.epoch.to_vec();
        note.extend_from_slice(&self.trust);
        note.extend_from_slice(&self.after.to_le_bytes());
        store.put_meta(&Self::key(peer), &note)
    }
}

/// A short name of who is believed, and how: it changes when somebody is added, removed, suspended or active again, when a
/// root is replaced, and when the log shows where that root stands. What was passed over before may be believed then.
pub(super) fn trust_mark(store: &Store) -> Result<[u8; 32], StoreError> {
    let trust = store.trust();
    let mut hasher = blake3::Hasher::new();
    for (nation, member) in trust.members() {
        let ordered = store.rotation_is_ordered(nation)?;
        hasher.update(nation.as_str().as_bytes()).update(&[0]).update(member.fingerprint().as_bytes());
        // A nation in its first days is marked as ever, so that nothing is read twice after an upgrade.
        if member.root.version > 1 {
            hasher.update(&member.root.version.to_be_bytes()).update(&[u8::from(ordered)]);
        }
        if member.standing() != Standing::Active {
            hasher.update(member.standing().to_string().as_bytes());
        }
    }
    Ok(*hasher.finalize().as_bytes())
}
