//! Signed notes ([C2SP signed-note](https://c2sp.org/signed-note)): a text and lines of signatures under it, and the timestamped
//! signatures of witnesses ([C2SP tlog-cosignature](https://c2sp.org/tlog-cosignature), version 1).

use std::collections::BTreeSet;
use std::fmt;

use data_encoding::{BASE64, HEXLOWER};
use sha2::{Digest as _, Sha256};

use crate::key::PublicKey;
use crate::timestamp::Timestamp;
use crate::trust::MAX_CLOCK_SKEW;

/// Longest note, in bytes: a checkpoint of four short lines and a line for each witness.
pub const MAX_NOTE: usize = 32 * 1024;
/// Most signature lines: one for each nation that can be pinned, and some for keys that change.
pub const MAX_SIGNATURES: usize = 160;
/// Longest key name, in bytes: `steelyard/` with a nation and `/witness`, and longer ones of others.
pub const MAX_KEY_NAME: usize = 256;

/// Latest time of a cosignature, in seconds since 1970: the last second of the year 9999, after which a time has no text.
const MAX_TIME: u64 = 253_402_300_799;

/// What begins a signature line.
const DASH: &str = "\u{2014} ";
/// The identifier of Ed25519 signatures.
const ED25519: u8 = 0x01;
/// The identifier of timestamped Ed25519 cosignatures.
const COSIGNATURE_V1: u8 = 0x04;

/// Why a text is no signed note.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Longer than any note that is read here.
    #[error("the note has {size} bytes, over the limit of {MAX_NOTE}")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// Not of the form.
    #[error("this is not a signed note: {0}")]
    Malformed(&'static str),
    /// More signature lines than are read here.
    #[error("the note has more than {MAX_SIGNATURES} signatures")]
    TooManySignatures,
    /// A verifier key's text is not of the form.
    #[error("`{0}` is not a note's verifier key: expected NAME+HASH+KEY")]
    Key(String),
}

fn malformed<T>(why: &'static str) -> Result<T, NoteError> {
    Err(NoteError::Malformed(why))
}

/// Whether `name` may name a key.
fn good_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_KEY_NAME
        && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

/// What a note's key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    /// The note as its own author: a log.
    Note,
    /// The note and a time: a witness.
    Cosignature,
}

impl KeyUse {
    const fn identifier(self) -> u8 {
        match self {
            Self::Note => ED25519,
            Self::Cosignature => COSIGNATURE_V1,
        }
    }
}

/// A public key with the name and the use under which it signs notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    usage: KeyUse,
    key: PublicKey,
}

impl NoteKey {
    /// The key `key` under `name`. A name is not empty and holds no white space and no `+`.
    pub fn new(name: &str, usage: KeyUse, key: PublicKey) -> Result<Self, NoteError> {
        if !good_name(name) {
            return malformed(
                "a key's name is not empty and holds no white space, control characters or plus sign",
            );
        }
        Ok(Self { name: name.to_owned(), usage, key })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four bytes of the SHA-256 of the name, a line feed, the identifier and the key.
    pub fn hash(&self) -> [u8; 4] {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(self.name.as_bytes())
            .chain_update([b'\n', self.usage.identifier()])
            .chain_update(self.key.to_bytes())
            .finalize()
            .into();
        [digest[0], digest[1], digest[2], digest[3]]
    }

    /// Reads `NAME+HASH+KEY`, as other tools write verifier keys.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let wrong = || NoteError::Key(crate::shorten(text));
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong());
        };
        let bytes = BASE64.decode(key.as_bytes()).map_err(|_| wrong())?;
        let (usage, public) = match bytes.split_first() {
            Some((&ED25519, rest)) => (KeyUse::Note, rest),
            Some((&COSIGNATURE_V1, rest)) => (KeyUse::Cosignature, rest),
            _ => return Err(wrong()),
        };
        let public: [u8; 32] = public.try_into().map_err(|_| wrong())?;
        let key = PublicKey::from_bytes(&public).map_err(|_| wrong())?;
        let read = Self::new(name, usage, key)?;
        if HEXLOWER.encode(&read.hash()) == hash { Ok(read) } else { Err(wrong()) }
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![self.usage.identifier()];
        key.extend_from_slice(&self.key.to_bytes());
        write!(f, "{}+{}+{}", self.name, HEXLOWER.encode(&self.hash()), BASE64.encode(&key))
    }
}

/// One signature line. Who made it is not believed before a key verified it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    name: String,
    hash: [u8; 4],
    signature: Vec<u8>,
}

impl NoteSignature {
    /// The name of the key that claims to have signed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The signature as a witness's: a time that a calendar has, and what signs it.
    fn cosignature(&self) -> Option<(u64, &[u8; 64])> {
        let (time, signature) = self.signature.split_first_chunk::<8>()?;
        let time = u64::from_be_bytes(*time);
        Some((time, signature.try_into().ok()?)).filter(|_| time <= MAX_TIME)
    }

    /// Reads one line without its line feed.
    fn parse(line: &str) -> Result<Self, NoteError> {
        let Some((name, text)) = line.strip_prefix(DASH).and_then(|rest| rest.split_once(' ')) else {
            return malformed("a signature line is a dash, a name and base64");
        };
        if !good_name(name) {
            return malformed("a signature line names no key");
        }
        let Ok(bytes) = BASE64.decode(text.as_bytes()) else { return malformed("a signature is not base64") };
        match bytes.split_first_chunk() {
            Some((hash, signature)) if !signature.is_empty() => {
                Ok(Self { name: name.to_owned(), hash: *hash, signature: signature.to_vec() })
            }
            _ => malformed("a signature is shorter than five bytes"),
        }
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.hash.to_vec();
        bytes.extend_from_slice(&self.signature);
        writeln!(f, "{DASH}{} {}", self.name, BASE64.encode(&bytes))
    }
}

/// A signed note as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl Note {
    /// A note of `text`, which ends with a line feed, without signatures yet.
    pub fn new(text: String) -> Result<Self, NoteError> {
        if !text.ends_with('\n') || text.ends_with("\n\n") || !good_text(&text) {
            return malformed(
                "a note's text is lines without control characters, the last of them not empty",
            );
        }
        Ok(Self { text, signatures: Vec::new() })
    }

    /// Reads a note with at least one signature.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE {
            return Err(NoteError::TooLarge { size: bytes.len() });
        }
        let Ok(all) = std::str::from_utf8(bytes) else { return malformed("it is not UTF-8") };
        // The last empty line parts text and signatures: a text may hold empty lines itself.
        let Some(at) = all.rfind("\n\n") else { return malformed("no empty line parts text and signatures") };
        let (text, rest) = all.split_at(at + 1);
        let rest = &rest[1..];
        if !good_text(text) {
            return malformed("its text holds control characters");
        }
        let Some(lines) = rest.strip_suffix('\n') else { return malformed("no signature line ends it") };
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            if signatures.len() >= MAX_SIGNATURES {
                return Err(NoteError::TooManySignatures);
            }
            signatures.push(NoteSignature::parse(line)?);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The text that is signed, its last line feed included.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds signature lines as a witness answers them; a line that is there already is not added twice.
    pub fn add_lines(&mut self, lines: &str) -> Result<bool, NoteError> {
        let Some(lines) = lines.strip_suffix('\n') else {
            return malformed("signature lines end with a line feed");
        };
        let mut added = false;
        for line in lines.split('\n').take(MAX_SIGNATURES + 1) {
            let signature = NoteSignature::parse(line)?;
            if self.signatures.contains(&signature) {
                continue;
            }
            if self.signatures.len() >= MAX_SIGNATURES {
                return Err(NoteError::TooManySignatures);
            }
            self.signatures.push(signature);
            added = true;
        }
        Ok(added)
    }

    /// Drops the signatures that `keep` does not want.
    pub fn retain(&mut self, keep: impl FnMut(&NoteSignature) -> bool) {
        self.signatures.retain(keep);
    }

    /// Whether `key` signed this note itself, without a time.
    pub fn signed_by(&self, key: &NoteKey) -> bool {
        key.usage == KeyUse::Note && self.newest_of(key).is_some()
    }

    /// The latest time at which the witness `key` says that it cosigned; nothing when it did not. A time that no calendar
    /// has is as if it weren't there.
    pub fn cosigned_by(&self, key: &NoteKey) -> Option<Timestamp> {
        let (time, _) = self.newest_of(key)?.cosignature().filter(|_| key.usage == KeyUse::Cosignature)?;
        i64::try_from(time).ok().map(Timestamp::from_unix)
    }

    /// Every time at which the witness `key` says that it cosigned.
    pub fn cosignatures_of(&self, key: &NoteKey) -> BTreeSet<Timestamp> {
        let witness = Some(key).filter(|key| key.usage == KeyUse::Cosignature);
        let times = witness.into_iter().flat_map(|key| self.cosigning(key)).map(|(time, _)| time);
        times.filter_map(|time| i64::try_from(time).ok()).map(Timestamp::from_unix).collect()
    }

    /// Drops every line that can be a cosignature and is of a later time than the clock of a reader at `now` can explain.
    pub fn drop_ahead(&mut self, now: Timestamp) {
        let latest = u64::try_from(now.plus(MAX_CLOCK_SKEW).unix()).unwrap_or(0);
        // A log's own signature is shorter: it has no time.
        self.signatures.retain(|line| line.cosignature().is_none_or(|(time, _)| time <= latest));
    }

    /// The line by which `key` signed; of a witness's several the one with the latest time.
    pub fn newest_of<'a>(&'a self, key: &NoteKey) -> Option<&'a NoteSignature> {
        match key.usage {
            KeyUse::Note => self.of(key).find(|line| {
                <&[u8; 64]>::try_from(line.signature.as_slice())
                    .is_ok_and(|signature| key.key.verify(self.text.as_bytes(), signature))
            }),
            KeyUse::Cosignature => self.cosigning(key).max_by_key(|(time, _)| *time).map(|(_, line)| line),
        }
    }

    /// The lines by which `key` cosigned, with their times.
    fn cosigning<'a>(&'a self, key: &NoteKey) -> impl Iterator<Item = (u64, &'a NoteSignature)> {
        self.of(key).filter_map(|line| {
            let (time, signature) = line.cosignature()?;
            let message = cosignature_message(time, &self.text);
            key.key.verify(message.as_bytes(), signature).then_some((time, line))
        })
    }

    fn of<'a>(&'a self, key: &NoteKey) -> impl Iterator<Item = &'a NoteSignature> {
        let hash = key.hash();
        self.signatures.iter().filter(move |line| line.name == key.name && line.hash == hash)
    }

    /// Signs the note itself.
    pub fn sign(&mut self, name: &str, key: &crate::key::SecretKey) -> Result<(), NoteError> {
        let public = NoteKey::new(name, KeyUse::Note, key.public())?;
        let signature = key.sign(self.text.as_bytes()).to_vec();
        self.signatures.push(NoteSignature { name: public.name.clone(), hash: public.hash(), signature });
        Ok(())
    }

    /// A witness's cosignature at `now`, as a line. A time before 1970 becomes 1970.
    pub fn cosign(
        &self,
        name: &str,
        key: &crate::key::SecretKey,
        now: Timestamp,
    ) -> Result<NoteSignature, NoteError> {
        let public = NoteKey::new(name, KeyUse::Cosignature, key.public())?;
        let seconds = u64::try_from(now.unix()).unwrap_or(0);
        let mut signature = seconds.to_be_bytes().to_vec();
        signature.extend_from_slice(&key.sign(cosignature_message(seconds, &self.text).as_bytes()));
        Ok(NoteSignature { name: public.name.clone(), hash: public.hash(), signature })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| line.fmt(f))
    }
}

fn good_text(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\n')
}

fn cosignature_message(seconds: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}
