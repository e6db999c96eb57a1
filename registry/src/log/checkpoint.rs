//! Checkpoints ([C2SP tlog-checkpoint](https://c2sp.org/tlog-checkpoint)): a log's name, size and root hash as a signed note, and
//! which nations cosigned one.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64;

use super::note::{KeyUse, Note, NoteError, NoteKey, NoteSignature};
use super::tree::{Hash, empty_root};
use crate::key::SecretKey;
use crate::reference::Nation;
use crate::statement::{RoleName, Root};
use crate::timestamp::Timestamp;
use crate::trust::MAX_CLOCK_SKEW;

/// What the origin of a nation's log begins with.
const ORIGIN: &str = "steelyard/";
/// What the key name of a nation's witness ends with.
const WITNESS: &str = "/witness";
/// Most extension lines: this format has none, other logs a few.
const MAX_EXTENSIONS: usize = 16;

/// Why a note is no checkpoint that is believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not a signed note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Not of the form.
    #[error("this is not a checkpoint: {0}")]
    Malformed(&'static str),
    /// Another log's.
    #[error("the checkpoint is of the log `{found}`, not of `{expected}`")]
    Origin {
        /// The log that was expected.
        expected: String,
        /// The log that it names.
        found: String,
    },
    /// No key of the log signed it.
    #[error("no log key of `{0}` signed the checkpoint")]
    Unsigned(Nation),
}

/// The name of a nation's log, and of the key that signs its checkpoints.
pub fn origin(nation: &Nation) -> String {
    format!("{ORIGIN}{nation}")
}

/// The key name of a nation's witness.
pub fn witness_name(nation: &Nation) -> String {
    format!("{ORIGIN}{nation}{WITNESS}")
}

/// The nation whose log has this origin.
pub fn nation_of(origin: &str) -> Option<Nation> {
    origin.strip_prefix(ORIGIN).and_then(|name| Nation::new(name).ok())
}

/// The keys of a role of a root as those of notes.
pub fn note_keys(root: &Root, role: RoleName) -> Vec<NoteKey> {
    let (name, usage) = match role {
        RoleName::Witness => (witness_name(&root.nation), KeyUse::Cosignature),
        _ => (origin(&root.nation), KeyUse::Note),
    };
    let keys = root.role(role).keys;
    // The name of a nation can't be refused as a key's.
    keys.values().filter_map(|key| NoteKey::new(&name, usage, *key).ok()).collect()
}

/// A log's state at one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// How many entries it has.
    pub size: u64,
    /// The root hash over them.
    pub root: Hash,
}

impl Checkpoint {
    /// The state of a nation's log.
    pub fn new(nation: &Nation, size: u64, root: Hash) -> Self {
        Self { origin: origin(nation), size, root }
    }

    /// Reads a note's text: the origin, the size in decimal without leading zeros, the root hash in base64, and perhaps
    /// further lines that are not empty.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let wrong = |why| Err(CheckpointError::Malformed(why));
        let Some(body) = text.strip_suffix('\n') else { return wrong("its last line does not end") };
        let mut lines = body.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return wrong("it has fewer than three lines");
        };
        if origin.is_empty() {
            return wrong("its origin is empty");
        }
        if !size.bytes().all(|digit| digit.is_ascii_digit()) || (size.len() > 1 && size.starts_with('0')) {
            return wrong("its size is not a decimal without leading zeros");
        }
        let Ok(size) = size.parse() else { return wrong("its size is not a number of 64 bits") };
        // The signed sizes of other implementations end there, and so do proofs.
        if size > i64::MAX as u64 {
            return wrong("its size is beyond 2^63-1");
        }
        let Some(root) = BASE64.decode(root.as_bytes()).ok().and_then(|bytes| Hash::try_from(bytes).ok())
        else {
            return wrong("its root hash is not base64 of 32 bytes");
        };
        for (at, line) in lines.enumerate() {
            if line.is_empty() || at >= MAX_EXTENSIONS {
                return wrong("its further lines are empty or too many");
            }
        }
        if size == 0 && root != empty_root() {
            return wrong("a log without entries has another root hash");
        }
        Ok(Self { origin: origin.to_owned(), size, root })
    }

    /// The note's text.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(&self.root))
    }

    /// The checkpoint as a note, signed by the log's key.
    pub fn sign(&self, key: &SecretKey) -> Result<Note, NoteError> {
        let mut note = Note::new(self.text())?;
        note.sign(&self.origin, key)?;
        Ok(note)
    }
}

/// Who cosigned a checkpoint, and when.
pub type Cosignatures = BTreeMap<Nation, BTreeSet<Timestamp>>;

/// Who of them counts for a reader at `now`, each with the latest time that its clock can explain.
pub fn believed_at(cosignatures: &Cosignatures, now: Timestamp) -> BTreeMap<Nation, Timestamp> {
    let latest = now.plus(MAX_CLOCK_SKEW);
    let believed = |times: &BTreeSet<Timestamp>| times.range(..=latest).next_back().copied();
    cosignatures.iter().filter_map(|(nation, times)| Some((nation.clone(), believed(times)?))).collect()
}

/// A checkpoint whose log signed it, with the note that says so. Only [`SignedCheckpoint::verify`] and
/// [`SignedCheckpoint::sign`] make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    nation: Nation,
    checkpoint: Checkpoint,
    note: Note,
}

impl SignedCheckpoint {
    /// Signs the state of `nation`'s log.
    pub fn sign(nation: &Nation, size: u64, root: Hash, key: &SecretKey) -> Result<Self, NoteError> {
        let checkpoint = Checkpoint::new(nation, size, root);
        let note = checkpoint.sign(key)?;
        Ok(Self { nation: nation.clone(), checkpoint, note })
    }

    /// Believes a note that one of the log keys in `keys` signed: those of every root of the nation, since what an
    /// earlier key signed is still what its log said then.
    pub fn verify(nation: &Nation, bytes: &[u8], keys: &[NoteKey]) -> Result<Self, CheckpointError> {
        let note = Note::parse(bytes)?;
        let checkpoint = Checkpoint::parse(note.text())?;
        let expected = origin(nation);
        if checkpoint.origin != expected {
            let found = crate::shorten(&checkpoint.origin);
            return Err(CheckpointError::Origin { expected, found });
        }
        if !keys.iter().any(|key| key.name() == expected && note.signed_by(key)) {
            return Err(CheckpointError::Unsigned(nation.clone()));
        }
        Ok(Self { nation: nation.clone(), checkpoint, note })
    }

    /// Whose log it is.
    pub fn nation(&self) -> &Nation {
        &self.nation
    }

    /// How many entries the log has.
    pub fn size(&self) -> u64 {
        self.checkpoint.size
    }

    /// The root hash.
    pub fn root(&self) -> &Hash {
        &self.checkpoint.root
    }

    /// The note.
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Adds a witness's lines; whether there was anything new.
    pub fn add_lines(&mut self, lines: &str) -> Result<bool, NoteError> {
        self.note.add_lines(lines)
    }

    /// Takes over the cosignatures of the same checkpoint as somebody else has it.
    pub fn merge(&mut self, other: &Self) -> Result<bool, NoteError> {
        if self.checkpoint != other.checkpoint {
            return Ok(false);
        }
        let mut added = false;
        for line in other.note.signatures() {
            added |= self.note.add_lines(&line.to_string())?;
        }
        Ok(added)
    }

    /// The nations whose witnesses cosigned it, each with the latest time at which one did, by the witness keys given
    /// for each nation. The log's own nation never counts.
    pub fn witnesses<'a>(
        &self,
        keys: impl IntoIterator<Item = (&'a Nation, &'a [NoteKey])>,
    ) -> BTreeMap<Nation, Timestamp> {
        let times = self.cosignatures(keys).into_iter();
        times.filter_map(|(nation, times)| Some((nation, *times.last()?))).collect()
    }

    /// The same as a reader at `now` counts them: a cosignature of a time more than [`MAX_CLOCK_SKEW`] seconds ahead is as
    /// if it weren't there, so that what comes next year doesn't hide what was cosigned yesterday.
    pub fn witnesses_at<'a>(
        &self,
        keys: impl IntoIterator<Item = (&'a Nation, &'a [NoteKey])>,
        now: Timestamp,
    ) -> BTreeMap<Nation, Timestamp> {
        believed_at(&self.cosignatures(keys), now)
    }

    /// The nations whose witnesses cosigned it, each with every time at which one did; the log's own never among them.
    pub fn cosignatures<'a>(
        &self,
        keys: impl IntoIterator<Item = (&'a Nation, &'a [NoteKey])>,
    ) -> Cosignatures {
        let mut found = Cosignatures::new();
        for (nation, keys) in keys.into_iter().filter(|(nation, _)| **nation != self.nation) {
            let name = witness_name(nation);
            let keys = keys.iter().filter(|key| key.name() == name);
            let times: BTreeSet<Timestamp> = keys.flat_map(|key| self.note.cosignatures_of(key)).collect();
            if !times.is_empty() {
                found.insert(nation.clone(), times);
            }
        }
        found
    }

    /// Drops cosignatures of times that the clock of a reader at `now` can't explain, so that they take nobody's place.
    pub fn drop_ahead(&mut self, now: Timestamp) {
        self.note.drop_ahead(now);
    }

    /// Keeps one line of each key of `keys`: the log's own signature, and a witness's newest cosignature. All else is
    /// dropped, so that nobody's noise is kept or passed on, and no witness fills the note with its own lines.
    pub fn prune(&mut self, keys: &[NoteKey]) {
        let mut kept: Vec<NoteSignature> = Vec::new();
        for key in keys {
            kept.extend(self.note.newest_of(key).filter(|line| !kept.contains(line)).cloned());
        }
        self.note.retain(|line| {
            // Each line once, even when it stood there twice.
            let at = kept.iter().position(|wanted| wanted == line);
            at.map(|at| kept.swap_remove(at)).is_some()
        });
    }
}
