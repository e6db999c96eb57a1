//! Records of decisions: which releases are admitted, and which a person pinned.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::index::Family;
use super::record::{corrupt, decode_dated, digest, encode_dated};
use super::statements::blobs_of;
use super::{Result, Store, StoreError};
use crate::digest::Digest;
use crate::policy::Decision;
use crate::timestamp::Timestamp;

/// A release that was admitted, with the decision that this rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The release.
    pub release: Digest,
    /// When it was admitted last.
    pub at: Timestamp,
    /// Every rule's answer then.
    pub decision: Decision,
}

/// A release that a person wants to keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The release.
    pub release: Digest,
    /// When it was pinned.
    pub at: Timestamp,
    /// Why; may be empty.
    pub reason: String,
}

impl Store {
    /// Every admission that stands, by release.
    pub fn admissions(&self) -> Result<Vec<Admission>> {
        let mut admissions = Vec::new();
        for entry in self.inner.index.scan(Family::Admissions, &[])? {
            let (key, value) = entry?;
            admissions.push(decode(digest(&key, "an admission")?, &value)?);
        }
        Ok(admissions)
    }

    /// The admission of `release`, when it stands.
    pub fn admission(&self, release: &Digest) -> Result<Option<Admission>> {
        let value = self.inner.index.get(Family::Admissions, release.as_bytes())?;
        value.map(|value| decode(*release, &value)).transpose()
    }

    /// Whether an admission of `release` stands.
    pub(crate) fn is_admitted(&self, release: &Digest) -> Result<bool> {
        Ok(self.inner.index.get(Family::Admissions, release.as_bytes())?.is_some())
    }

    /// Records an admission and ends the holds of the release's blobs, in one step; durable on return.
    pub(crate) fn put_admission(
        &self,
        release: &Digest,
        at: Timestamp,
        decision: &Decision,
        blobs: &[Digest],
    ) -> Result<()> {
        let json = serde_json::to_vec(decision).map_err(|_| corrupt("an admission"))?;
        self.inner.keeper.keeping(blobs.iter().copied(), || {
            let mut batch = self.inner.index.batch();
            batch.put(Family::Admissions, release.as_bytes(), &encode_dated(at, &json))?;
            self.wanted_again(&mut batch, release)?;
            self.end_holds(&mut batch, blobs)?;
            batch.commit()
        })
    }

    /// Withdraws an admission, whether or not there was one; durable on return.
    pub(crate) fn withdraw_admission(&self, release: &Digest) -> Result<bool> {
        let there = self.inner.index.get(Family::Admissions, release.as_bytes())?.is_some();
        if there {
            let mut batch = self.inner.index.batch();
            batch.delete(Family::Admissions, release.as_bytes())?;
            batch.commit()?;
        }
        Ok(there)
    }

    /// Withdraws the admission of each release that needs one of `blobs`.
    pub(crate) fn withdraw_users(&self, blobs: &BTreeSet<Digest>) -> Result<Vec<Digest>> {
        let mut withdrawn = Vec::new();
        for Admission { release, .. } in self.admissions()? {
            let uses = match self.release(&release)? {
                Some(release) => blobs_of(&release).any(|blob| blobs.contains(&blob)),
                None => true,
            };
            if uses && self.withdraw_admission(&release)? {
                withdrawn.push(release);
            }
        }
        Ok(withdrawn)
    }

    /// Keeps a release and its blobs from being collected; durable on return. Pinning again replaces the reason.
    pub fn pin(&self, release: &Digest, reason: &str) -> Result<()> {
        let known = self.release(release)?.ok_or(StoreError::NoRelease(*release))?;
        let value = encode_dated(Timestamp::now(), reason.as_bytes());
        self.inner.keeper.keeping(blobs_of(&known), || {
            let mut batch = self.inner.index.batch();
            batch.put(Family::Pins, release.as_bytes(), &value)?;
            batch.commit()
        })
    }

    /// Takes a pin back; whether there was one.
    pub fn unpin(&self, release: &Digest) -> Result<bool> {
        let there = self.inner.index.get(Family::Pins, release.as_bytes())?.is_some();
        if there {
            let mut batch = self.inner.index.batch();
            batch.delete(Family::Pins, release.as_bytes())?;
            batch.commit()?;
        }
        Ok(there)
    }

    /// Every pin, by release.
    pub fn pins(&self) -> Result<Vec<Pin>> {
        let mut pins = Vec::new();
        for entry in self.inner.index.scan(Family::Pins, &[])? {
            let (key, value) = entry?;
            let (at, reason) = decode_dated(&value, "a pin")?;
            let reason = String::from_utf8_lossy(reason).into_owned();
            pins.push(Pin { release: digest(&key, "a pin")?, at, reason });
        }
        Ok(pins)
    }
}

fn decode(release: Digest, value: &[u8]) -> Result<Admission> {
    let (at, json) = decode_dated(value, "an admission")?;
    let decision = serde_json::from_slice(json).map_err(|_| corrupt("an admission"))?;
    Ok(Admission { release, at, decision })
}
