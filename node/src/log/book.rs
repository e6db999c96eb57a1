//! What the store has of logs, in the words of this module: notes and evidence as bytes, and what each comes to. Every
//! function here blocks.

mod cosign;
mod evidence;

use std::collections::BTreeSet;
use std::path::Path;

use registry::key::SecretKey;
use registry::log::checkpoint::{
    Checkpoint, CheckpointError, SignedCheckpoint, nation_of as origin_of, note_keys,
};
use registry::log::evidence::Evidence;
use registry::log::note::{Note, NoteKey};
use registry::log::tiles::{Tile, bundle, hashes};
use registry::log::tree::Hash;
use registry::log::{ENTRY, reached};
use registry::statement::{RoleName, Standing};
use registry::store::{self, LogError, Store, StoreError};
use registry::{Digest, Nation, Timestamp};

use self::cosign::vouched;
pub(crate) use self::cosign::{Cosigned, asked_about, cosign, request, take_cosignatures};
pub(crate) use self::evidence::{Claim, examine, keep_evidence, list_evidence, prove, read_evidence};
use crate::wire::LogAnswer;

/// Statements read from the feed at a time.
const FEED: usize = 256;

type Result<T> = std::result::Result<T, StoreError>;

/// The newest checkpoint of a log.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// Whose.
    pub(crate) nation: Nation,
    /// Entries.
    pub(crate) size: u64,
    /// The root hash.
    pub(crate) root: [u8; 32],
    /// The note, with its cosignatures.
    pub(crate) note: Vec<u8>,
    /// Who cosigned it.
    pub(crate) witnesses: BTreeSet<Nation>,
    /// Since when as many of them as the policy asks for had; nothing while fewer have.
    pub(crate) witnessed: Option<Timestamp>,
}

/// What somebody's checkpoint comes to beside our own copy of the log.
#[derive(Debug)]
pub(crate) enum Weighed {
    /// Not a nation or a key that is pinned here.
    Foreign,
    /// Evidence stands against this log already.
    Disputed,
    /// No honest node hands that on.
    Bad(String),
    /// It agrees with what is here; `changed` when it brought cosignatures.
    Known {
        /// Whether it brought something.
        changed: bool,
    },
    /// It is of a log that is longer than what is here.
    Ahead {
        /// Entries here.
        have: u64,
        /// Entries there.
        size: u64,
    },
    /// It can't be true together with what is here: evidence.
    Fork(Vec<u8>),
}

/// What entries came to.
#[derive(Debug)]
pub(crate) enum Extended {
    /// They are kept.
    Kept,
    /// They are not what the checkpoint signs.
    Wrong,
    /// They show that the log contradicts what this node cosigned: evidence.
    Fork(Vec<u8>),
}

/// What a store's failure is, apart from what is wrong with what came.
fn fault(error: LogError) -> std::result::Result<LogError, StoreError> {
    match error {
        LogError::Store(error) => Err(error),
        other => Ok(other),
    }
}

/// The key of a role that lies in a file, if our own root lists it.
pub(crate) fn usable(store: &Store, role: RoleName, path: &Path) -> std::result::Result<SecretKey, String> {
    let key = SecretKey::load(path).map_err(|error| error.to_string())?;
    let own = store.own();
    let trust = store.trust();
    let member = trust.member(&own).map_err(|error| error.to_string())?;
    if member.root.role(role).keys.contains_key(&key.id()) {
        return Ok(key);
    }
    Err(format!(
        "{} is not a {role} key of the root of `{own}`; put the right one in its place",
        path.display()
    ))
}

/// Every pinned nation, our own among them.
pub(crate) fn nations(store: &Store) -> Vec<Nation> {
    store.trust().members().map(|(nation, _)| nation.clone()).collect()
}

/// Every other nation that we hold for an ally.
pub(crate) fn allies(store: &Store) -> Vec<Nation> {
    let trust = store.trust();
    let active = trust.members().filter(|(_, member)| member.standing() == Standing::Active);
    active.map(|(nation, _)| nation.clone()).filter(|nation| nation != trust.own()).collect()
}

/// Those pinned nations that have a witness.
pub(crate) fn witnesses(store: &Store) -> Vec<Nation> {
    let trust = store.trust();
    let able = trust.members().filter(|(_, member)| !note_keys(&member.root, RoleName::Witness).is_empty());
    able.map(|(nation, _)| nation.clone()).collect()
}

/// The nation whose log a note names; nothing is believed.
pub(crate) fn nation_of(note: &[u8]) -> Option<Nation> {
    let note = Note::parse(note).ok()?;
    origin_of(&Checkpoint::parse(note.text()).ok()?.origin)
}

/// The digest in an entry, whatever its algorithm: one that is not known here names a statement that nobody knows.
pub(crate) fn digest_of(entry: &[u8; ENTRY]) -> Digest {
    let mut digest = [0; ENTRY - 1];
    digest.copy_from_slice(&entry[1..]);
    Digest::from_bytes(digest)
}

fn as_head(store: &Store, checkpoint: &SignedCheckpoint) -> Head {
    let trust = store.trust();
    let keys: Vec<(Nation, Vec<NoteKey>)> = trust
        .members()
        .map(|(nation, member)| (nation.clone(), note_keys(&member.root, RoleName::Witness)))
        .collect();
    let pairs = keys.iter().map(|(nation, keys)| (nation, keys.as_slice()));
    let found = checkpoint.witnesses_at(pairs, Timestamp::now());
    Head {
        nation: checkpoint.nation().clone(),
        size: checkpoint.size(),
        root: *checkpoint.root(),
        note: checkpoint.note().to_string().into_bytes(),
        witnessed: reached(&found, store.policy().witnesses()),
        witnesses: found.into_keys().collect(),
    }
}

/// The newest checkpoint of a log that is here.
pub(crate) fn head(store: &Store, nation: &Nation) -> Result<Option<Head>> {
    Ok(store.log_checkpoint(nation)?.map(|checkpoint| as_head(store, &checkpoint)))
}

/// What peers are shown of a log: evidence, or the newest checkpoint. That may be one that this node cosigned and has
/// not the entries of yet: a log that lost its end must hear of it.
pub(crate) fn shown(store: &Store, nation: &Nation) -> Result<Option<LogAnswer>> {
    if let Some(evidence) = store.log_evidence(nation)? {
        return Ok(Some(LogAnswer::Evidence(evidence)));
    }
    let here = store.log_checkpoint(nation)?;
    let cosigned = vouched(store, nation);
    let newest = match (here, cosigned) {
        (Some(here), Some(cosigned)) if here.size() >= cosigned.size() => Some(here),
        (here, None) => here,
        (_, cosigned) => cosigned,
    };
    Ok(newest.map(|checkpoint| LogAnswer::Checkpoint(checkpoint.note().to_string().into_bytes())))
}

/// A smaller checkpoint of a log that more nations cosigned than its newest, if there is one: it covers older entries better.
pub(crate) fn better_witnessed(store: &Store, nation: &Nation) -> Result<Option<LogAnswer>> {
    if store.log_evidence(nation)?.is_some() {
        return Ok(None);
    }
    let mut all = store.log_checkpoints(nation)?.into_iter().map(|checkpoint| as_head(store, &checkpoint));
    let Some(newest) = all.next() else { return Ok(None) };
    let best = all.max_by_key(|head| head.witnesses.len());
    let best = best.filter(|head| head.witnesses.len() > newest.witnesses.len());
    Ok(best.map(|head| LogAnswer::Checkpoint(head.note)))
}

/// Entries of a log; none where it is not that long here.
pub(crate) fn entries(store: &Store, nation: &Nation, from: u64, to: u64) -> Result<Vec<[u8; ENTRY]>> {
    store.log_entries(nation, from, to)
}

/// The root hash at one size and the proof from there to another.
pub(crate) fn proof(store: &Store, nation: &Nation, old: u64, new: u64) -> Result<Option<(Hash, Vec<Hash>)>> {
    let (Some(root), Some(proof)) = (store.log_root(nation, old)?, store.log_consistency(nation, old, new)?)
    else {
        return Ok(None);
    };
    Ok(Some((root, proof)))
}

/// A tile by its path behind `tile/`.
pub(crate) fn tile(store: &Store, nation: &Nation, path: &str) -> Result<Option<Vec<u8>>> {
    let Some(tile) = Tile::parse(&format!("tile/{path}")) else { return Ok(None) };
    if tile.level.is_some() {
        return Ok(store.log_tile(nation, tile)?.map(|found| hashes(&found)));
    }
    if !tile.exists(store.log_size(nation)?) {
        return Ok(None);
    }
    let from = tile.index * registry::log::tiles::TILE_WIDTH;
    let entries = store.log_entries(nation, from, from + tile.width)?;
    Ok(Some(bundle(entries.iter().map(|entry| entry.as_slice()))))
}

/// Believes a note as a checkpoint of a log. Cosignatures of a time that our clock can't explain are left out: kept, they
/// would stand in the place of good ones.
fn read(store: &Store, nation: &Nation, note: &[u8]) -> std::result::Result<SignedCheckpoint, LogError> {
    let mut checkpoint = store.read_checkpoint(nation, note)?;
    checkpoint.drop_ahead(Timestamp::now());
    Ok(checkpoint)
}

/// Weighs somebody's checkpoint against what is here, and keeps the cosignatures that it brings.
pub(crate) fn weigh(store: &Store, note: &[u8]) -> Result<Weighed> {
    let Some(nation) = nation_of(note) else { return Ok(Weighed::Bad("it can't be read".to_owned())) };
    if store.trust().member(&nation).is_err() {
        return Ok(Weighed::Foreign);
    }
    let checkpoint = match read(store, &nation, note) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            return Ok(match fault(error)? {
                // Its holder may have pinned another root, or know a later one.
                LogError::Checkpoint(CheckpointError::Unsigned(_)) => Weighed::Foreign,
                other => Weighed::Bad(other.to_string()),
            });
        }
    };
    let have = store.log_size(&nation)?;
    if checkpoint.size() > have {
        if store.log_evidence(&nation)?.is_some() {
            return Ok(Weighed::Disputed);
        }
        return Ok(Weighed::Ahead { have, size: checkpoint.size() });
    }
    match store.extend_log(&checkpoint, &[]) {
        Ok(outcome) => Ok(Weighed::Known { changed: outcome != store::Extended::Known }),
        Err(error) => Ok(match fault(error)? {
            LogError::Fork { evidence, .. } => Weighed::Fork(evidence.to_json()),
            LogError::Disputed(_) => Weighed::Disputed,
            other => {
                // What is here can't be compared, which is not the peer's fault.
                tracing::warn!(%nation, "a checkpoint was passed over: {other}");
                Weighed::Foreign
            }
        }),
    }
}

/// Keeps the entries that lead from what is here to a checkpoint.
pub(crate) fn extend(store: &Store, note: &[u8], entries: &[[u8; ENTRY]]) -> Result<Extended> {
    let Some(nation) = nation_of(note) else { return Ok(Extended::Wrong) };
    let extended = read(store, &nation, note).and_then(|checkpoint| store.extend_log(&checkpoint, entries));
    match extended {
        Ok(_) => {}
        Err(error) => {
            return Ok(match fault(error)? {
                LogError::Fork { evidence, .. } => Extended::Fork(evidence.to_json()),
                _ => Extended::Wrong,
            });
        }
    }
    // What this node vouched for must lie on the way.
    if let Some(vouched) = vouched(store, &nation)
        && vouched.size() <= store.log_size(&nation)?
        && let Weighed::Fork(evidence) = weigh(store, vouched.note().to_string().as_bytes())?
    {
        return Ok(Extended::Fork(evidence));
    }
    Ok(Extended::Kept)
}

/// Evidence from a larger checkpoint, the root hash that its tree has at the size that is here, and the proof from there;
/// nothing when that proves no lie.
pub(crate) fn accuse(
    store: &Store,
    nation: &Nation,
    note: &[u8],
    (root, proof): &([u8; 32], Vec<[u8; 32]>),
) -> Result<Option<Vec<u8>>> {
    let (Some(ours), Ok(theirs)) = (store.log_checkpoint(nation)?, store.read_checkpoint(nation, note))
    else {
        return Ok(None);
    };
    if ours.size() >= theirs.size() {
        return Ok(None);
    }
    let evidence = Evidence::of_prefix(&ours, &theirs, root, proof);
    Ok(evidence.verify(&store.log_keys(nation)).ok().map(|_| evidence.to_json()))
}

/// Statements of our own that wait to be logged, as far as the feed was looked through.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    after: u64,
    found: Vec<Digest>,
}

impl Waiting {
    /// Looks through what is new in the feed; what waits, oldest first. Each statement is read once in a process.
    pub(crate) fn look(&mut self, store: &Store) -> Result<&[Digest]> {
        let own = store.own();
        loop {
            let page = store.feed(self.after, FEED)?;
            if page.is_empty() {
                break;
            }
            for (seq, signed) in page {
                self.after = seq;
                if signed.peek().is_ok_and(|statement| *statement.nation() == own) {
                    self.found.push(signed.digest());
                }
            }
        }
        let mut failed = None;
        self.found.retain(|digest| match store.logged_in(&own, digest) {
            Ok(logged) => logged.is_none(),
            Err(error) => {
                failed = Some(error);
                true
            }
        });
        failed.map_or(Ok(&self.found), Err)
    }
}

/// Appends everything that waits; the newest checkpoint if anything was appended.
pub(crate) fn append(store: &Store, key: &SecretKey) -> Result<Option<Head>> {
    let mut newest = None;
    loop {
        match store.append_log(key) {
            Ok(Some(appended)) => newest = Some(as_head(store, &appended.checkpoint)),
            Ok(None) => return Ok(newest),
            Err(error) => {
                let error = fault(error)?;
                tracing::error!("our log was not appended to: {error}");
                return Ok(newest);
            }
        }
    }
}

/// Takes note of a checkpoint of our own log that somebody else has.
pub(crate) fn heard_of_ours(store: &Store, note: &[u8]) -> Result<()> {
    match store.read_checkpoint(&store.own(), note) {
        Ok(checkpoint) => store.heard_of_own_log(&checkpoint).map(|_| ()),
        Err(error) => fault(error).map(|_| ()),
    }
}

/// Whether evidence stands against a log.
pub(crate) fn is_disputed(store: &Store, nation: &Nation) -> Result<bool> {
    Ok(store.log_evidence(nation)?.is_some())
}
