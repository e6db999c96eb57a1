//! The values of the index, byte for byte as `index.rs` lists them.

use super::error::StoreError;
use crate::digest::Digest;
use crate::envelope::Signed;
use crate::reference::{ChannelName, Model, Nation, Version};
use crate::statement::{Kind, Standing};
use crate::timestamp::Timestamp;
use crate::trust::Said;

/// Reads fixed-size parts off a value.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    fn short(&self) -> StoreError {
        corrupt(self.what)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn digest(&mut self) -> Result<Digest, StoreError> {
        self.take().map(Digest::from_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, StoreError> {
        self.take().map(u64::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, StoreError> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, StoreError> {
        self.take().map(|[byte]| byte)
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, StoreError> {
        self.take().map(|bytes| Timestamp::from_unix(i64::from_be_bytes(bytes)))
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }
}

pub(super) fn corrupt(what: &'static str) -> StoreError {
    StoreError::Corrupt(format!("the record of {what} can't be read"))
}

/// A digest that is a whole key or value.
pub(super) fn digest(bytes: &[u8], what: &'static str) -> Result<Digest, StoreError> {
    <[u8; 32]>::try_from(bytes).map(Digest::from_bytes).map_err(|_| corrupt(what))
}

/// A number that is a whole key or value.
pub(super) fn number(bytes: &[u8], what: &'static str) -> Result<u64, StoreError> {
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| corrupt(what))
}

/// Prefix of the keys of everything of `model`.
fn model_prefix(model: &Model) -> Vec<u8> {
    let mut key = model.nation.as_str().as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(model.name.as_str().as_bytes());
    key.push(0);
    key
}

pub(super) fn channel_key(model: &Model, channel: &ChannelName) -> Vec<u8> {
    let mut key = model_prefix(model);
    key.extend_from_slice(channel.as_str().as_bytes());
    key
}

pub(super) fn version_key(model: &Model, version: &Version) -> Vec<u8> {
    let mut key = model_prefix(model);
    key.extend_from_slice(version.as_str().as_bytes());
    key
}

pub(super) fn nation_prefix(nation: &Nation) -> Vec<u8> {
    let mut key = nation.as_str().as_bytes().to_vec();
    key.push(0);
    key
}

pub(super) fn recall_key(nation: &Nation, sequence: u64, digest: &Digest) -> Vec<u8> {
    let mut key = nation_prefix(nation);
    key.extend_from_slice(&sequence.to_be_bytes());
    key.extend_from_slice(digest.as_bytes());
    key
}

/// The sequence in the key of a recall of `nation`.
pub(super) fn recall_sequence(key: &[u8], nation: &Nation) -> Option<u64> {
    key.get(nation.as_str().len() + 1..)
        .and_then(|rest| rest.first_chunk())
        .map(|bytes| u64::from_be_bytes(*bytes))
}

/// The payload digest in the key of a recall.
pub(super) fn recall_digest(key: &[u8]) -> Result<Digest, StoreError> {
    key.last_chunk().map(|bytes| Digest::from_bytes(*bytes)).ok_or_else(|| corrupt("a recall"))
}

/// A statement as it is kept.
pub(super) struct StatementRecord {
    pub(super) seq: u64,
    pub(super) kind: Kind,
    pub(super) signed: Signed,
}

const KINDS: [(u8, Kind); 6] = [
    (1, Kind::Root),
    (3, Kind::Release),
    (4, Kind::Channel),
    (5, Kind::Recall),
    (6, Kind::Attestation),
    (7, Kind::Membership),
];

impl StatementRecord {
    pub(super) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let (code, _) =
            KINDS.iter().find(|(_, kind)| *kind == self.kind).ok_or(StoreError::Kind(self.kind))?;
        let mut out = self.seq.to_be_bytes().to_vec();
        out.push(*code);
        out.extend_from_slice(&self.signed.to_json());
        Ok(out)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes, "a statement");
        let seq = reader.u64()?;
        let code = reader.u8()?;
        let (_, kind) =
            KINDS.iter().find(|(known, _)| *known == code).ok_or_else(|| corrupt("a statement"))?;
        Ok(Self { seq, kind: *kind, signed: Signed::parse(reader.rest())? })
    }
}

/// Where a channel stands.
pub(super) struct ChannelRecord {
    pub(super) sequence: u64,
    pub(super) release: Digest,
    pub(super) statement: Digest,
}

impl ChannelRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        [&self.sequence.to_be_bytes()[..], self.release.as_bytes(), self.statement.as_bytes()].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes, "a channel");
        Ok(Self { sequence: reader.u64()?, release: reader.digest()?, statement: reader.digest()? })
    }
}

const STANDINGS: [(u8, Standing); 4] =
    [(1, Standing::Invited), (2, Standing::Active), (3, Standing::Suspended), (4, Standing::Departed)];

/// What was said last of a nation, as a value.
pub(super) fn said_to(said: &Said) -> Vec<u8> {
    let code = STANDINGS.iter().find(|(_, standing)| *standing == said.standing).map_or(0, |(code, _)| *code);
    [&said.sequence.to_be_bytes()[..], &[code], said.fingerprint.as_bytes(), said.statement.as_bytes()]
        .concat()
}

/// The inverse of [`said_to`].
pub(super) fn said_from(bytes: &[u8]) -> Result<Said, StoreError> {
    let mut reader = Reader::new(bytes, "a membership");
    let sequence = reader.u64()?;
    let code = reader.u8()?;
    let standing =
        STANDINGS.iter().find(|(known, _)| *known == code).ok_or_else(|| corrupt("a membership"))?.1;
    Ok(Said { standing, sequence, fingerprint: reader.digest()?, statement: reader.digest()? })
}

const NONE: [u8; 32] = [0; 32];

/// A blob that is here.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlobRecord {
    pub(super) size: u64,
    /// Its chunk map's digest; a chunk map itself has none.
    pub(super) map: Option<Digest>,
    /// Until then garbage collection leaves it alone, whether or not anything refers to it.
    pub(super) held_until: Timestamp,
    pub(super) added: Timestamp,
}

impl BlobRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let map = self.map.as_ref().map_or(&NONE, Digest::as_bytes);
        let mut out = self.size.to_be_bytes().to_vec();
        out.extend_from_slice(map);
        out.extend_from_slice(&self.held_until.unix().to_be_bytes());
        out.extend_from_slice(&self.added.unix().to_be_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes, "a blob");
        let size = reader.u64()?;
        let map = Some(reader.digest()?).filter(|digest| digest.as_bytes() != &NONE);
        Ok(Self { size, map, held_until: reader.time()?, added: reader.time()? })
    }
}

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) blob: Digest,
    pub(super) offset: u64,
    pub(super) len: u32,
}

impl Place {
    /// The key: the chunk, then the blob, so that a chunk has a place in each blob that holds it.
    pub(super) fn key(chunk: &Digest, blob: &Digest) -> [u8; 64] {
        let mut key = [0; 64];
        key[..32].copy_from_slice(chunk.as_bytes());
        key[32..].copy_from_slice(blob.as_bytes());
        key
    }

    pub(super) fn value(&self) -> [u8; 12] {
        let mut value = [0; 12];
        value[..8].copy_from_slice(&self.offset.to_be_bytes());
        value[8..].copy_from_slice(&self.len.to_be_bytes());
        value
    }

    /// Reads an entry; nothing for one of an unknown shape, since the whole family is a hint. Stores made before a chunk
    /// could have several places named the blob in the value.
    pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value, "a chunk's place");
        let blob = match key.get(32..)? {
            [] => reader.digest().ok()?,
            blob => digest(blob, "a chunk's place").ok()?,
        };
        Some(Self { blob, offset: reader.u64().ok()?, len: reader.u32().ok()? })
    }
}

/// A blob that is being fetched.
#[derive(Debug, Clone, Copy)]
pub(super) struct PartialRecord {
    pub(super) map: Digest,
    pub(super) size: u64,
    pub(super) chunks: u32,
    pub(super) created: Timestamp,
    /// When its journal was last written.
    pub(super) touched: Timestamp,
}

impl PartialRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        [
            &self.map.as_bytes()[..],
            &self.size.to_be_bytes(),
            &self.chunks.to_be_bytes(),
            &self.created.unix().to_be_bytes(),
            &self.touched.unix().to_be_bytes(),
        ]
        .concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes, "a transfer");
        Ok(Self {
            map: reader.digest()?,
            size: reader.u64()?,
            chunks: reader.u32()?,
            created: reader.time()?,
            touched: reader.time()?,
        })
    }
}

pub(super) fn partial_key(blob: &Digest) -> [u8; 33] {
    let mut key = [0; 33];
    key[..32].copy_from_slice(blob.as_bytes());
    key
}

pub(super) fn page_prefix(blob: &Digest) -> [u8; 33] {
    let mut key = partial_key(blob);
    key[32] = 1;
    key
}

pub(super) fn page_key(blob: &Digest, page: u32) -> [u8; 37] {
    let mut key = [0; 37];
    key[..33].copy_from_slice(&page_prefix(blob));
    key[33..].copy_from_slice(&page.to_be_bytes());
    key
}

/// Pages that were written but not synced.
pub(super) fn note_prefix(blob: &Digest) -> [u8; 33] {
    let mut key = partial_key(blob);
    key[32] = 2;
    key
}

pub(super) fn note_key(blob: &Digest, page: u32) -> [u8; 37] {
    let mut key = page_key(blob, page);
    key[32] = 2;
    key
}

/// Something with the time when it was noted, such as a pin and its reason.
pub(super) fn encode_dated(at: Timestamp, content: &[u8]) -> Vec<u8> {
    [&at.unix().to_be_bytes()[..], content].concat()
}

/// The inverse of [`encode_dated`].
pub(super) fn decode_dated<'a>(
    bytes: &'a [u8],
    what: &'static str,
) -> Result<(Timestamp, &'a [u8]), StoreError> {
    let mut reader = Reader::new(bytes, what);
    let at = reader.time()?;
    Ok((at, reader.rest()))
}
