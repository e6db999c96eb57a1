//! Reading logs: checkpoints, entries, tiles and proofs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::seen::Seen;
use super::{Family, Part, Tree, all_log_keys, key, log_keys};
use crate::digest::Digest;
use crate::log::checkpoint::{SignedCheckpoint, believed_at};
use crate::log::note::NoteKey;
use crate::log::proof::LogProof;
use crate::log::tiles::{TILE_HEIGHT, TILE_WIDTH, Tile};
use crate::log::tree::{self, Hash, Subtrees};
use crate::log::{Count, ENTRY, Logged, reached};
use crate::reference::Nation;
use crate::store::record::corrupt;
use crate::store::{Result, Store};
use crate::timestamp::Timestamp;

/// 9999-12-31T23:59:59Z, after which no cosignature is made.
const LAST_SECOND: i64 = 253_402_300_799;
/// Most entries read at once.
pub(super) const MAX_READ: u64 = 8192;

/// How a log stands here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogState {
    /// Whose log.
    pub nation: Nation,
    /// Entries here.
    pub size: u64,
    /// The nations that cosigned the newest checkpoint.
    pub witnesses: Vec<Nation>,
    /// The largest size that some nation cosigned.
    pub witnessed: u64,
    /// Whether evidence of a fork stands against it.
    pub disputed: bool,
}

/// That which more nations cosigned, and the first of two that are alike.
pub(crate) fn better(one: Option<Logged>, other: Option<Logged>) -> Option<Logged> {
    match (one, other) {
        (Some(one), Some(other)) if other.witnesses.len() > one.witnesses.len() => Some(other),
        (one, other) => one.or(other),
    }
}

impl Store {
    /// The newest checkpoint of a log.
    pub fn log_checkpoint(&self, nation: &Nation) -> Result<Option<SignedCheckpoint>> {
        Ok(self.checkpoints(nation)?.pop())
    }

    /// Every checkpoint kept of a log, the newest first: an earlier one may have more cosignatures.
    pub fn log_checkpoints(&self, nation: &Nation) -> Result<Vec<SignedCheckpoint>> {
        let mut checkpoints = self.checkpoints(nation)?;
        checkpoints.reverse();
        Ok(checkpoints)
    }

    /// How many entries of a log are here.
    pub fn log_size(&self, nation: &Nation) -> Result<u64> {
        self.log_len(nation)
    }

    /// How every log that is followed stands.
    pub fn logs(&self) -> Result<Vec<LogState>> {
        let trust = self.trust();
        let mut states = Vec::new();
        for (nation, _) in trust.members() {
            let seen = self.seen(nation)?;
            let witnesses = seen.last().map(|newest| newest.cosignatures.keys().cloned().collect());
            let witnessed = seen.iter().filter(|one| !one.cosignatures.is_empty());
            states.push(LogState {
                nation: nation.clone(),
                size: self.log_len(nation)?,
                witnesses: witnesses.unwrap_or_default(),
                witnessed: witnessed.map(|one| one.checkpoint.size()).max().unwrap_or(0),
                disputed: self.log_evidence(nation)?.is_some(),
            });
        }
        Ok(states)
    }

    /// The entries from number `from` up to `to`, that one excluded; fewer where the log ends, at most 8192.
    pub fn log_entries(&self, nation: &Nation, from: u64, to: u64) -> Result<Vec<[u8; ENTRY]>> {
        let to = to.min(self.log_len(nation)?).min(from.saturating_add(MAX_READ));
        let prefix = key(nation, Part::Entry, &[]);
        let start = key(nation, Part::Entry, &from.to_be_bytes());
        let mut entries = Vec::new();
        for entry in self.inner.index.scan_from(Family::Logs, &start)? {
            let (key, value) = entry?;
            if entries.len() as u64 >= to.saturating_sub(from) || !key.starts_with(&prefix) {
                break;
            }
            entries.push(<[u8; ENTRY]>::try_from(&value[..]).map_err(|_| corrupt("a log's entry"))?);
        }
        Ok(entries)
    }

    /// The hashes of a tile; nothing when the log doesn't have it.
    pub fn log_tile(&self, nation: &Nation, tile: Tile) -> Result<Option<Vec<Hash>>> {
        let Some(level) = tile.level.filter(|_| tile.exists(self.log_len(nation).unwrap_or(0))) else {
            return Ok(None);
        };
        let tree = Tree::new(&self.inner.index, nation);
        let start = tile.index * TILE_WIDTH;
        let hashes = (start..start + tile.width).map(|index| tree.subtree(level * TILE_HEIGHT, index));
        hashes.collect::<Result<_>>().map(Some)
    }

    /// The proof that the log of size `new` continues that of size `old`; nothing where there is none.
    pub fn log_consistency(&self, nation: &Nation, old: u64, new: u64) -> Result<Option<Vec<Hash>>> {
        if new > self.log_len(nation)? {
            return Ok(None);
        }
        if old == 0 {
            return Ok(Some(Vec::new()));
        }
        tree::consistency(&Tree::new(&self.inner.index, nation), old, new)
    }

    /// What is proved at `now` about a statement's place in its nation's log: by the checkpoint that covers it and that most
    /// nations cosigned, in this node's copy of the log or as a bundle proved it. Nothing when the statement isn't known
    /// here, or not in the log.
    pub fn logged(&self, statement: &Digest, now: Timestamp) -> Result<Option<Logged>> {
        let Some(record) = self.statement_record(statement)? else { return Ok(None) };
        let nation = crate::store::statements::peek(&record.signed)?.nation().clone();
        self.logged_of(&nation, statement, now)
    }

    /// As [`Self::logged`], for a statement of a nation that is known already.
    pub(crate) fn logged_of(
        &self,
        nation: &Nation,
        statement: &Digest,
        now: Timestamp,
    ) -> Result<Option<Logged>> {
        let count = self.count_at(now);
        let here = self.best(nation, statement, count)?.map(|(logged, _)| logged);
        // Both are of one log: where its copy here contradicted what was brought, that was not kept.
        Ok(better(here, self.kept_proof(nation, statement, count)?))
    }

    /// Where a statement stands in its nation's log, whether or not the statement itself is here. Who cosigned is counted
    /// whatever the time: for whoever asks whether it is there at all.
    pub fn logged_in(&self, nation: &Nation, statement: &Digest) -> Result<Option<Logged>> {
        let ever = Count { quorum: 1, now: Timestamp::from_unix(LAST_SECOND) };
        match self.best(nation, statement, ever)? {
            Some((logged, _)) => Ok(Some(logged)),
            // Where no log is followed, what a bundle proved counts.
            None => self.kept_proof(nation, statement, ever),
        }
    }

    /// How this node counts cosignatures: the policy says how many nations it asks for.
    pub(crate) fn count_at(&self, now: Timestamp) -> Count {
        Count { quorum: self.policy().witnesses(), now }
    }

    /// The proof of a statement's place, for somebody without this store.
    pub fn log_proof(&self, nation: &Nation, statement: &Digest) -> Result<Option<LogProof>> {
        let ever = Count { quorum: 1, now: Timestamp::from_unix(LAST_SECOND) };
        let Some((logged, seen)) = self.best(nation, statement, ever)? else { return Ok(None) };
        let tree = Tree::new(&self.inner.index, nation);
        let path = tree::inclusion(&tree, logged.index, seen.checkpoint.size())?;
        let note = seen.checkpoint.note().to_string().into_bytes();
        Ok(path.map(|path| LogProof { index: logged.index, path, note }))
    }

    fn best(&self, nation: &Nation, statement: &Digest, count: Count) -> Result<Option<(Logged, Arc<Seen>)>> {
        let Some(index) = self.log_number(nation, statement)? else { return Ok(None) };
        let mut best: Option<(Logged, Arc<Seen>)> = None;
        for seen in self.seen(nation)?.into_iter().filter(|one| one.checkpoint.size() > index) {
            let found = believed_at(&seen.cosignatures, count.now);
            if best.as_ref().is_none_or(|(known, _)| found.len() >= known.witnesses.len()) {
                let (size, witnessed) = (seen.checkpoint.size(), reached(&found, count.quorum));
                let witnesses = found.into_keys().collect();
                best = Some((Logged { index, size, witnesses, witnessed }, seen));
            }
        }
        Ok(best)
    }

    /// The log keys of every root of a nation: what an earlier key signed is still what its log said then.
    pub fn log_keys(&self, nation: &Nation) -> Vec<NoteKey> {
        all_log_keys(&self.trust(), nation)
    }

    /// The log keys of a nation by which its checkpoints are believed here, as verifier keys of notes.
    pub fn log_verifiers(&self, nation: &Nation) -> Vec<String> {
        log_keys(&self.trust(), nation).iter().map(ToString::to_string).collect()
    }
}
