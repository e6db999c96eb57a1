//! Our own log: what waits to be appended, appending it, and whether it is whole.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Family, LogError, MAX_APPEND, MAX_LOG_ENTRIES, Part, Tree, all_log_keys, key};
use crate::digest::Digest;
use crate::key::SecretKey;
use crate::log::checkpoint::{SignedCheckpoint, note_keys};
use crate::log::note::MAX_NOTE;
use crate::log::tree::{self, Hash};
use crate::log::{ENTRY, entry, tree::empty_root};
use crate::statement::RoleName;
use crate::store::{MAX_FEED, Result, Store, StoreError, io, locked, sync_folder};

/// The newest checkpoint of the own log, beside the index.
const FILE: &str = "log-checkpoint";
/// The note that says up to which number of the feed everything of our own is in the log.
const CURSOR: &[u8] = b"log/cursor";

/// Whether this node's own log may be appended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum OwnLog {
    /// No ally was asked yet, in this process, whether it knows a longer log.
    Unconfirmed,
    /// Whole, as far as anybody knows.
    Confirmed,
    /// It signed a longer log than it has.
    Behind {
        /// Entries signed.
        known: u64,
    },
}

/// What was appended.
#[derive(Debug, Clone)]
pub struct Appended {
    /// The statements, in the order of their numbers.
    pub statements: Vec<Digest>,
    /// The number of the first.
    pub first: u64,
    /// The checkpoint that covers them.
    pub checkpoint: SignedCheckpoint,
}

impl Store {
    fn checkpoint_file(&self) -> PathBuf {
        self.home().join(FILE)
    }

    /// How the own log stands when the store opens.
    pub(in crate::store) fn look_at_own_log(&self) -> Result<OwnLog> {
        let known = self.read_checkpoint_file()?;
        let state = known.as_ref().map_or(Ok(OwnLog::Unconfirmed), |known| self.compare_own(known))?;
        // A crash between the index and the file, or a store without one: what the index has may have been shown.
        if let (OwnLog::Unconfirmed, Some(newest)) = (state, self.log_checkpoint(&self.own())?)
            && known.is_none_or(|known| known.size() < newest.size())
        {
            self.write_checkpoint_file(&newest)?;
        }
        Ok(state)
    }

    /// The checkpoint in the file; nothing when there is none, or none that our log key signed.
    fn read_checkpoint_file(&self) -> Result<Option<SignedCheckpoint>> {
        let path = self.checkpoint_file();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("could not open", &path)(error)),
        };
        let mut note = Vec::new();
        file.take(MAX_NOTE as u64 + 1).read_to_end(&mut note).map_err(io("could not read", &path))?;
        let own = self.own();
        let read = SignedCheckpoint::verify(&own, &note, &all_log_keys(&self.trust(), &own));
        if let Err(error) = &read {
            tracing::warn!("{}: {error}; allies will be asked instead", path.display());
        }
        Ok(read.ok())
    }

    /// How the own log stands against a checkpoint that our key signed.
    fn compare_own(&self, known: &SignedCheckpoint) -> Result<OwnLog> {
        let own = self.own();
        let size = self.log_len(&own)?;
        let behind = Ok(OwnLog::Behind { known: known.size() });
        if known.size() > size {
            return behind;
        }
        let root = tree::root(&Tree::new(&self.inner.index, &own), known.size())?;
        if root == *known.root() { Ok(OwnLog::Unconfirmed) } else { behind }
    }

    /// Whether the own log may be appended to.
    pub fn own_log(&self) -> OwnLog {
        *locked(&self.inner.own_log)
    }

    /// Says that allies were asked and know nothing of ours that is not here, or that there is nobody to ask. A log that
    /// is behind stays so.
    pub fn confirm_log(&self) -> OwnLog {
        let mut state = locked(&self.inner.own_log);
        if *state == OwnLog::Unconfirmed {
            *state = OwnLog::Confirmed;
        }
        *state
    }

    /// Takes note of a checkpoint of our own log that somebody else has: a longer one, or one that we don't remember,
    /// stops appending. A longer one is remembered durably, so that it does so after a restart without that ally too.
    pub fn heard_of_own_log(&self, known: &SignedCheckpoint) -> Result<OwnLog> {
        let _turn = locked(&self.inner.logging);
        let found = self.compare_own(known)?;
        let mut state = locked(&self.inner.own_log);
        if let OwnLog::Behind { known: size } = found {
            let remembered = match *state {
                OwnLog::Behind { known } => known,
                _ => self.log_len(&self.own())?,
            };
            if size > remembered {
                self.write_checkpoint_file(known)?;
            }
            // The longest that is missing is what has to come back.
            *state = OwnLog::Behind { known: size.max(remembered) };
        }
        Ok(*state)
    }

    /// After entries were recovered: whether that was all.
    pub(super) fn recovered(&self, checkpoint: &SignedCheckpoint) -> Result<()> {
        let mut state = locked(&self.inner.own_log);
        if let OwnLog::Behind { known } = *state {
            if checkpoint.size() < known {
                // The file goes on telling of the longest that was signed.
                return Ok(());
            }
            *state = OwnLog::Unconfirmed;
        }
        drop(state);
        self.write_checkpoint_file(checkpoint)
    }

    /// Statements of our own nation that are kept and not in its log yet, oldest first, at most [`MAX_APPEND`]; and the
    /// number of the feed up to which that is all.
    fn waiting(&self) -> Result<(Vec<Digest>, u64)> {
        let cursor = self.inner.index.get(Family::Meta, CURSOR)?;
        let mut after = cursor.map_or(Ok(0), |value| super::number(&value, "the log's cursor"))?;
        let own = self.own();
        let mut waiting = Vec::new();
        loop {
            let page = self.feed(after, MAX_FEED)?;
            if page.is_empty() {
                return Ok((waiting, after));
            }
            for (seq, signed) in page {
                let statement = crate::store::statements::peek(&signed)?;
                let digest = signed.digest();
                if *statement.nation() == own && self.log_number(&own, &digest)?.is_none() {
                    if waiting.len() >= MAX_APPEND {
                        return Ok((waiting, after));
                    }
                    waiting.push(digest);
                }
                after = seq;
            }
        }
    }

    /// Statements of our own nation that are kept and not in its log yet, oldest first.
    pub fn pending_log(&self) -> Result<Vec<Digest>> {
        Ok(self.waiting()?.0)
    }

    /// Appends what waits, signs the checkpoint and keeps both in one step; durable on return. Nothing where nothing
    /// waits. At most [`MAX_APPEND`] at a time.
    pub fn append_log(&self, signer: &SecretKey) -> Result<Option<Appended>, LogError> {
        let _turn = locked(&self.inner.logging);
        let own = self.own();
        let trust = self.trust();
        let root = &trust.member(&own).map_err(StoreError::from)?.root;
        if !root.role(RoleName::Log).keys.contains_key(&signer.id())
            || note_keys(root, RoleName::Log).is_empty()
        {
            return Err(LogError::Key);
        }
        if self.log_evidence(&own)?.is_some() {
            return Err(LogError::Disputed(own));
        }
        let size = self.log_len(&own)?;
        match self.own_log() {
            OwnLog::Confirmed => {}
            OwnLog::Unconfirmed => return Err(LogError::Unconfirmed),
            OwnLog::Behind { known } => return Err(LogError::Behind { have: size, known }),
        }
        let (statements, cursor) = self.waiting()?;
        if statements.is_empty() {
            return Ok(None);
        }
        let new_size = size + statements.len() as u64;
        if new_size > MAX_LOG_ENTRIES {
            return Err(LogError::TooLong { nation: own, size: new_size, limit: MAX_LOG_ENTRIES });
        }
        let entries: Vec<_> = statements.iter().map(entry).collect();
        let mut tree = Tree::new(&self.inner.index, &own);
        let mut batch = self.inner.index.batch();
        tree.add(&mut batch, size, &entries)?;
        let checkpoint = SignedCheckpoint::sign(&own, new_size, tree::root(&tree, new_size)?, signer)?;
        let (checkpoint, _) = self.keep_checkpoint(&mut batch, &own, checkpoint)?;
        batch.put(Family::Meta, CURSOR, &cursor.to_be_bytes())?;
        batch.commit()?;
        self.write_checkpoint_file(&checkpoint)?;
        self.own_log_grew(&entries)?;
        Ok(Some(Appended { statements, first: size, checkpoint }))
    }

    /// What follows from entries of our own log: a root among them shows the order of all that was signed before and after.
    pub(super) fn own_log_grew(&self, entries: &[[u8; ENTRY]]) -> Result<()> {
        let own = self.own();
        let newest = self.trust().member(&own).map(|member| member.root.digest());
        if newest.is_ok_and(|root| entries.contains(&entry(&root))) {
            self.reconsider_said()?;
        }
        Ok(())
    }

    fn write_checkpoint_file(&self, checkpoint: &SignedCheckpoint) -> Result<()> {
        let path = self.checkpoint_file();
        let mut file = tempfile::NamedTempFile::new_in(self.home()).map_err(io("could not create", &path))?;
        file.write_all(checkpoint.note().to_string().as_bytes())
            .and_then(|()| file.as_file().sync_all())
            .map_err(io("could not write", &path))?;
        file.persist(&path).map_err(|error| io("could not create", &path)(error.error))?;
        sync_folder(self.home())
    }

    /// The root hash of a log at an earlier or its present size.
    pub fn log_root(&self, nation: &crate::Nation, size: u64) -> Result<Option<Hash>> {
        if size == 0 {
            return Ok(Some(empty_root()));
        }
        if size > self.log_len(nation)? {
            return Ok(None);
        }
        tree::root(&Tree::new(&self.inner.index, nation), size).map(Some)
    }

    /// Forgets what a log was followed up to; only tests and `steelyard log settle` need it.
    pub(super) fn evidence_key(nation: &crate::Nation) -> Vec<u8> {
        key(nation, Part::Evidence, &[])
    }
}
