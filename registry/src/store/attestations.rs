//! Attestations by the release that they speak about. Of each nation and suite the index names the one that replaces the
//! others; the replaced ones stay among the statements, since they were said.

use super::index::{Batch, Family};
use super::record::{self, corrupt};
use super::statements::peek;
use super::{Result, Store, StoreError};
use crate::digest::Digest;
use crate::envelope::Signed;
use crate::reference::Nation;
use crate::statement::{Attestation, Statement};

/// Most attestations kept of one nation, replaced ones included: a hundred releases a day for nearly three years.
pub const MAX_ATTESTATIONS: u64 = 100_000;
/// Most suites of one nation about one release that are kept. All are verified again for each decision.
pub const MAX_SUITES: usize = 64;

/// Prefix of the keys of what a nation says about a release.
fn nation_prefix(release: &Digest, nation: &Nation) -> Vec<u8> {
    let mut key = release.as_bytes().to_vec();
    key.extend_from_slice(nation.as_str().as_bytes());
    key.push(0);
    key
}

fn key(attestation: &Attestation) -> Vec<u8> {
    let mut key = nation_prefix(&attestation.release, &attestation.nation);
    key.extend_from_slice(Digest::of(attestation.suite.name.as_bytes()).as_bytes());
    key
}

impl Store {
    /// Names `attestation` as the one in force, unless a later one of its nation and suite is here.
    pub(super) fn index_attestation(
        &self,
        batch: &mut Batch<'_>,
        digest: Digest,
        attestation: &Attestation,
    ) -> Result<()> {
        let key = key(attestation);
        let index = &self.inner.index;
        match index.get(Family::Attestations, &key)? {
            Some(value) => {
                let known = self.attestation(&record::digest(&value, "an attestation")?)?;
                if attestation.replaces(&known) {
                    batch.put(Family::Attestations, &key, digest.as_bytes())?;
                }
            }
            None => {
                let prefix = nation_prefix(&attestation.release, &attestation.nation);
                let suites = index.scan(Family::Attestations, &prefix)?.take(MAX_SUITES).count();
                if suites >= MAX_SUITES {
                    return Err(StoreError::TooMany {
                        what: "suites about one release",
                        nation: attestation.nation.clone(),
                        limit: MAX_SUITES as u64,
                    });
                }
                batch.put(Family::Attestations, &key, digest.as_bytes())?;
            }
        }
        self.count(batch, "attestations", &attestation.nation, MAX_ATTESTATIONS)
    }

    /// What is said about `release`, of each nation and suite the one that replaces the others, with the statement's
    /// digest; expired ones too.
    pub fn attestations(&self, release: &Digest) -> Result<Vec<(Digest, Attestation)>> {
        let mut attestations = Vec::new();
        for entry in self.inner.index.scan(Family::Attestations, release.as_bytes())? {
            let digest = record::digest(&entry?.1, "an attestation")?;
            attestations.push((digest, self.attestation(&digest)?));
        }
        Ok(attestations)
    }

    /// The statements that say something about `release` now, as they travel.
    pub(crate) fn attested(&self, release: &Digest) -> Result<Vec<Signed>> {
        let mut attested = Vec::new();
        for entry in self.inner.index.scan(Family::Attestations, release.as_bytes())? {
            let digest = record::digest(&entry?.1, "an attestation")?;
            attested.push(self.statement(&digest)?.ok_or_else(|| corrupt("an attestation"))?);
        }
        Ok(attested)
    }

    fn attestation(&self, digest: &Digest) -> Result<Attestation> {
        let record = self.statement_record(digest)?.ok_or_else(|| corrupt("an attestation"))?;
        match peek(&record.signed)? {
            Statement::Attestation(attestation) => Ok(attestation),
            _ => Err(corrupt("an attestation")),
        }
    }
}
