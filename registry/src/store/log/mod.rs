//! The nations' logs as this node has them: a replica of each, the newest checkpoints with their cosignatures, and what
//! this node cosigned itself.
//!
//! ```text
//! family  key                              value
//! logs    nation 0 e number (u64)          the entry, 33 bytes
//! logs    nation 0 t level (u8) number     hash of a whole subtree
//! logs    nation 0 i payload digest        the entry's number (u64)
//! logs    nation 0 c size (u64)            a checkpoint's note
//! logs    nation 0 w                       size (u64) and root hash that this node cosigned last
//! logs    nation 0 x                       evidence that the log forked, as JSON
//! logs    nation 0 s size, two root hashes the same, of a fork that a person settled
//! ```
//!
//! A checkpoint is kept in one step with the entries that it covers, and nothing is handed out before that is durable.
//! What this node cosigns is compared and kept in one step under one lock, before it is answered.
//!
//! **Our own log.** The newest checkpoint of the own log also lies beside the index, in the file `log-checkpoint`: an index
//! that lost its end, or was restored from a backup without that file, is found to be behind. Where both were restored, only
//! the allies know: until they were asked ([`Store::confirm_log`]) nothing is appended.

mod append;
mod error;
mod extend;
mod kept;
mod read;
mod seen;
mod witness;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;

pub use append::{Appended, OwnLog};
pub use error::LogError;
pub use extend::Extended;
pub use read::LogState;
pub(crate) use read::better;
pub(super) use seen::Notes;

use self::seen::Seen;
use super::index::{Batch, Family, Index};
use super::record::{corrupt, nation_prefix, number};
use super::{Result, Store, StoreError, locked};
use crate::digest::Digest;
use crate::log::checkpoint::{Cosignatures, SignedCheckpoint, note_keys};
use crate::log::note::NoteKey;
use crate::log::tree::{self, Hash, Subtrees};
use crate::log::{ENTRY, statement_of};
use crate::reference::Nation;
use crate::statement::RoleName;
use crate::trust::Trust;

/// Most entries of one log that are followed: ten times the statements that are kept of a nation, about 150 MB of index.
pub const MAX_LOG_ENTRIES: u64 = 1 << 20;
/// Entries appended in one step, so that one takes a bounded time and memory.
pub const MAX_APPEND: usize = 4096;
/// Most checkpoints kept of one log: the newest, and earlier ones that more nations cosigned.
const MAX_CHECKPOINTS: usize = 16;

/// What is kept of a log under one letter.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Entry = b'e' as isize,
    Subtree = b't' as isize,
    Number = b'i' as isize,
    Checkpoint = b'c' as isize,
    Cosigned = b'w' as isize,
    Evidence = b'x' as isize,
    Settled = b's' as isize,
}

pub(super) fn key(nation: &Nation, part: Part, rest: &[u8]) -> Vec<u8> {
    let mut key = nation_prefix(nation);
    key.push(part as u8);
    key.extend_from_slice(rest);
    key
}

fn subtree_key(nation: &Nation, level: u8, index: u64) -> Vec<u8> {
    let mut rest = vec![level];
    rest.extend_from_slice(&index.to_be_bytes());
    key(nation, Part::Subtree, &rest)
}

/// The log keys of a nation that may have signed a checkpoint.
pub(super) fn log_keys(trust: &Trust, nation: &Nation) -> Vec<NoteKey> {
    trust.member(nation).map(|member| note_keys(&member.root, RoleName::Log)).unwrap_or_default()
}

/// The log keys of a nation that ever could sign: those that verify what was kept, whichever root held when it came. Keys
/// that a root took away sign no new checkpoint ([`log_keys`]).
pub(super) fn all_log_keys(trust: &Trust, nation: &Nation) -> Vec<NoteKey> {
    let Ok(member) = trust.member(nation) else { return Vec::new() };
    let mut keys: Vec<NoteKey> = Vec::new();
    for key in member.root.roots().flat_map(|root| note_keys(root, RoleName::Log)) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// The witness keys of every pinned nation.
pub(super) fn witness_keys(trust: &Trust) -> Vec<(Nation, Vec<NoteKey>)> {
    let keys = |root| note_keys(root, RoleName::Witness);
    trust.members().map(|(nation, member)| (nation.clone(), keys(&member.root))).collect()
}

/// Reads a nation's tree, with what is about to be added.
struct Tree<'a> {
    index: &'a Index,
    nation: &'a Nation,
    added: HashMap<(u8, u64), Hash>,
    /// The statements that are being added: the index doesn't know them yet.
    named: HashSet<Digest>,
}

impl Subtrees for Tree<'_> {
    type Error = StoreError;

    fn subtree(&self, level: u8, index: u64) -> Result<Hash> {
        if let Some(hash) = self.added.get(&(level, index)) {
            return Ok(*hash);
        }
        let found = self.index.get(Family::Logs, &subtree_key(self.nation, level, index))?;
        found.and_then(|hash| Hash::try_from(hash).ok()).ok_or_else(|| corrupt("a log's tree"))
    }
}

impl<'a> Tree<'a> {
    fn new(index: &'a Index, nation: &'a Nation) -> Self {
        Self { index, nation, added: HashMap::new(), named: HashSet::new() }
    }

    /// Adds entries from number `size` on to the tree and to `batch`.
    fn add(&mut self, batch: &mut Batch<'_>, size: u64, entries: &[[u8; ENTRY]]) -> Result<()> {
        for (at, entry) in (size..).zip(entries) {
            let hashes = tree::completed(self, at, tree::leaf_hash(entry))?;
            for (level, hash) in (0u8..).zip(hashes) {
                let index = at >> level;
                batch.put(Family::Logs, &subtree_key(self.nation, level, index), &hash)?;
                self.added.insert((level, index), hash);
            }
            batch.put(Family::Logs, &key(self.nation, Part::Entry, &at.to_be_bytes()), entry)?;
            // The first of two equal entries is the statement's place.
            if let Some(digest) = statement_of(entry) {
                let key = key(self.nation, Part::Number, digest.as_bytes());
                if self.named.insert(digest) && self.index.get(Family::Logs, &key)?.is_none() {
                    batch.put(Family::Logs, &key, &at.to_be_bytes())?;
                }
            }
        }
        Ok(())
    }
}

/// A tree in memory, of somebody else's entries.
struct MemoryTree(HashMap<(u8, u64), Hash>);

impl Subtrees for MemoryTree {
    type Error = Infallible;

    fn subtree(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
        // All that are asked for were added; another hash leads to another root, never to a wrong belief.
        Ok(self.0.get(&(level, index)).copied().unwrap_or_default())
    }
}

impl MemoryTree {
    fn of(entries: &[[u8; ENTRY]]) -> Self {
        let mut tree = Self(HashMap::new());
        for (at, entry) in (0u64..).zip(entries) {
            let Ok(hashes) = tree::completed(&tree, at, tree::leaf_hash(entry));
            for (level, hash) in (0u8..).zip(hashes) {
                tree.0.insert((level, at >> level), hash);
            }
        }
        tree
    }
}

impl Store {
    /// The checkpoints kept of a log, the newest last. Their signatures were checked when they were kept, and are again.
    fn checkpoints(&self, nation: &Nation) -> Result<Vec<SignedCheckpoint>> {
        Ok(self.seen(nation)?.into_iter().map(|seen| seen.checkpoint.clone()).collect())
    }

    /// The same with their cosignatures, which are checked once for each reading of trust.
    fn seen(&self, nation: &Nation) -> Result<Vec<Arc<Seen>>> {
        let trust = self.trust();
        let prefix = key(nation, Part::Checkpoint, &[]);
        let mut found = Vec::new();
        for entry in self.inner.index.scan(Family::Logs, &prefix)? {
            let (_, note) = entry?;
            // One whose key is no longer known is not shown; it stays, since the nation may be pinned again.
            found.extend(locked(&self.inner.notes).see(&trust, nation, &note));
        }
        Ok(found)
    }

    /// How many entries are here: what the newest checkpoint covers.
    fn log_len(&self, nation: &Nation) -> Result<u64> {
        let prefix = key(nation, Part::Checkpoint, &[]);
        let mut size = 0;
        for entry in self.inner.index.scan(Family::Logs, &prefix)? {
            let (key, _) = entry?;
            size = number(key.get(prefix.len()..).unwrap_or_default(), "a log's checkpoint")?;
        }
        Ok(size)
    }

    /// The keys whose lines in a checkpoint of `nation`'s log mean anything here: the log's own and every witness's.
    fn note_keys(&self, nation: &Nation) -> Vec<NoteKey> {
        let trust = self.trust();
        let mut keys = all_log_keys(&trust, nation);
        keys.extend(witness_keys(&trust).into_iter().flat_map(|(_, keys)| keys));
        keys
    }

    /// Puts a checkpoint without its noise into `batch`, unless a later one covers all that it covers; says whether. What it
    /// makes worthless itself is dropped: an earlier one that no other nation cosigned, and the earliest when there are many.
    /// So the newest always stays, and nobody can fill the store with old ones.
    fn keep_checkpoint(
        &self,
        batch: &mut Batch<'_>,
        nation: &Nation,
        mut checkpoint: SignedCheckpoint,
    ) -> Result<(SignedCheckpoint, bool)> {
        checkpoint.prune(&self.note_keys(nation));
        let witnesses = witness_keys(&self.trust());
        let pairs = witnesses.iter().map(|(nation, keys)| (nation, keys.as_slice()));
        let who = |found: &Cosignatures| found.keys().cloned().collect::<BTreeSet<Nation>>();
        let here = self.seen(nation)?;
        let mut all: BTreeMap<u64, BTreeSet<Nation>> =
            here.iter().map(|one| (one.checkpoint.size(), who(&one.cosignatures))).collect();
        all.insert(checkpoint.size(), who(&checkpoint.cosignatures(pairs)));
        let (mut later, mut stays) = (Vec::<BTreeSet<Nation>>::new(), false);
        for (size, nations) in all.into_iter().rev() {
            let place = key(nation, Part::Checkpoint, &size.to_be_bytes());
            if later.len() >= MAX_CHECKPOINTS || later.iter().any(|by| by.is_superset(&nations)) {
                batch.delete(Family::Logs, &place)?;
                continue;
            }
            later.push(nations);
            if size == checkpoint.size() {
                batch.put(Family::Logs, &place, checkpoint.note().to_string().as_bytes())?;
                stays = true;
            }
        }
        Ok((checkpoint, stays))
    }

    /// The number of a statement in its nation's log.
    pub(in crate::store) fn log_number(&self, nation: &Nation, statement: &Digest) -> Result<Option<u64>> {
        let value = self.inner.index.get(Family::Logs, &key(nation, Part::Number, statement.as_bytes()))?;
        value.map(|value| number(&value, "a log's entry")).transpose()
    }
}
