//! What a node's mirror rules brought, which is neither a person's pin nor a channel's: the rules keep it, and the rules
//! let it go.
//!
//! A release that was let go is not kept by its channel any more either, else the disk would fill with what the rules
//! have no room for. That holds until somebody fetches it again: its next admission takes the mark away.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::gc::GcReport;
use super::index::{Batch, Family};
use super::record::{corrupt, decode_dated, encode_dated};
use super::statements::blobs_of;
use super::{Result, Store, StoreError};
use crate::digest::Digest;
use crate::timestamp::Timestamp;

/// First part of the keys in `meta`; the release's digest in hexadecimal follows.
const PREFIX: &str = "mirror/";

/// A release that a mirror rule brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrored {
    /// The release.
    pub release: Digest,
    /// Since when.
    pub at: Timestamp,
    /// The rule, by its name.
    pub rule: String,
    /// Whether it is kept; `false` once it was let go.
    pub kept: bool,
}

#[derive(Serialize, Deserialize)]
struct Value {
    rule: String,
    kept: bool,
}

fn key(release: &Digest) -> String {
    format!("{PREFIX}{}", release.to_hex())
}

fn decode(release: Digest, value: &[u8]) -> Result<Mirrored> {
    let (at, json) = decode_dated(value, "a mirrored release")?;
    let Value { rule, kept } = serde_json::from_slice(json).map_err(|_| corrupt("a mirrored release"))?;
    Ok(Mirrored { release, at, rule, kept })
}

impl Store {
    /// Everything that mirror rules brought, and what was let go of it since and not fetched again, by release.
    pub fn mirrored(&self) -> Result<Vec<Mirrored>> {
        let mut found = Vec::new();
        for entry in self.inner.index.scan(Family::Meta, PREFIX.as_bytes())? {
            let (key, value) = entry?;
            let hex = key.get(PREFIX.len()..).and_then(|hex| std::str::from_utf8(hex).ok());
            let release = hex.and_then(|hex| Digest::from_hex(hex).ok());
            found.push(decode(release.ok_or_else(|| corrupt("a mirrored release"))?, &value)?);
        }
        Ok(found)
    }

    /// Notes that a rule keeps a release; durable on return. To be called before it is fetched, so that nothing of it is
    /// collected in between. The time of the first call stays.
    pub fn keep_mirrored(&self, release: &Digest, rule: &str) -> Result<()> {
        let known = self.release(release)?.ok_or(StoreError::NoRelease(*release))?;
        let at = self.mirror_record(release)?.filter(|known| known.kept).map(|known| known.at);
        let value = Value { rule: rule.to_owned(), kept: true };
        self.inner.keeper.keeping(blobs_of(&known), || {
            let mut batch = self.inner.index.batch();
            self.put_mirrored(&mut batch, release, at.unwrap_or_else(Timestamp::now), &value)?;
            batch.commit()
        })
    }

    /// Lets go of a release that a rule brought: its admission ends, and those of its blobs go that no pin, no channel,
    /// no lease and no other admitted release needs. Nothing happens (`None`) when it was not mirrored, is pinned, or is
    /// being used (served, exported, fetched).
    pub fn let_go(&self, release: &Digest) -> Result<Option<GcReport>> {
        let Some(record) = self.mirror_record(release)?.filter(|record| record.kept) else { return Ok(None) };
        let Some(known) = self.release(release)? else { return Ok(None) };
        let mut others: HashSet<Digest> = HashSet::new();
        for admission in self.admissions()?.into_iter().filter(|other| other.release != *release) {
            others.extend(self.release(&admission.release)?.iter().flat_map(blobs_of));
        }
        let leased = self.inner.keeper.leased();
        let in_use = |digest: &Digest| {
            digest == release || (!others.contains(digest) && blobs_of(&known).any(|blob| blob == *digest))
        };
        if leased.iter().any(in_use) || self.pins()?.iter().any(|pin| pin.release == *release) {
            return Ok(None);
        }
        self.withdraw_admission(release)?;
        let mut batch = self.inner.index.batch();
        let value = Value { rule: record.rule, kept: false };
        self.put_mirrored(&mut batch, release, Timestamp::now(), &value)?;
        batch.commit()?;
        self.collect_only(blobs_of(&known).collect(), others).map(Some)
    }

    fn mirror_record(&self, release: &Digest) -> Result<Option<Mirrored>> {
        let value = self.inner.index.get(Family::Meta, key(release).as_bytes())?;
        value.map(|value| decode(*release, &value)).transpose()
    }

    fn put_mirrored(
        &self,
        batch: &mut Batch<'_>,
        release: &Digest,
        at: Timestamp,
        value: &Value,
    ) -> Result<()> {
        let json = serde_json::to_vec(value).map_err(|_| corrupt("a mirrored release"))?;
        batch.put(Family::Meta, key(release).as_bytes(), &encode_dated(at, &json))
    }

    /// Takes the mark of having been let go away, together with what `batch` changes.
    pub(super) fn wanted_again(&self, batch: &mut Batch<'_>, release: &Digest) -> Result<()> {
        match self.mirror_record(release)? {
            Some(record) if !record.kept => batch.delete(Family::Meta, key(release).as_bytes()),
            _ => Ok(()),
        }
    }
}
