//! Checkpoints whose signatures were checked once. A note, its keys and what they prove of it never change, so it is checked
//! again only when trust does: a decision about a release would otherwise verify up to sixteen notes with a line of each ally.

use std::collections::HashMap;
use std::sync::Arc;

use super::{all_log_keys, witness_keys};
use crate::digest::Digest;
use crate::log::checkpoint::{Cosignatures, SignedCheckpoint};
use crate::reference::Nation;
use crate::trust::Trust;

/// Most notes that are remembered: those of 64 nations with all their earlier checkpoints. A note has some hundred bytes for
/// each of its witnesses, and at most 32 KiB.
const MAX_SEEN: usize = 1024;

/// A checkpoint that its log signed, and who cosigned it by the witness keys of the same trust.
#[derive(Debug)]
pub(in crate::store) struct Seen {
    pub(super) checkpoint: SignedCheckpoint,
    pub(super) cosignatures: Cosignatures,
}

/// What was checked under one reading of trust.
#[derive(Default)]
pub(in crate::store) struct Notes {
    trust: Option<Arc<Trust>>,
    seen: HashMap<(Nation, Digest), Option<Arc<Seen>>>,
}

impl Notes {
    /// The note as a checkpoint of `nation`'s log by the log keys of all its roots; nothing where none of them signed it.
    pub(super) fn see(&mut self, trust: &Arc<Trust>, nation: &Nation, note: &[u8]) -> Option<Arc<Seen>> {
        // Keys came or went: nothing of before counts.
        if !self.trust.as_ref().is_some_and(|known| Arc::ptr_eq(known, trust)) {
            self.seen.clear();
            self.trust = Some(Arc::clone(trust));
        }
        let name = (nation.clone(), Digest::of(note));
        if let Some(known) = self.seen.get(&name) {
            return known.clone();
        }
        if self.seen.len() >= MAX_SEEN {
            self.seen.clear();
        }
        let checkpoint = SignedCheckpoint::verify(nation, note, &all_log_keys(trust, nation)).ok();
        let seen = checkpoint.map(|checkpoint| {
            let keys = witness_keys(trust);
            let pairs = keys.iter().map(|(nation, keys)| (nation, keys.as_slice()));
            Arc::new(Seen { cosignatures: checkpoint.cosignatures(pairs), checkpoint })
        });
        self.seen.insert(name, seen.clone());
        seen
    }
}
