//! Which blob may lend its chunks to which.
//!
//! Taking chunks from a local blob must not carry bytes past the nations that they were releasable to. Whoever learned
//! the digests of a restricted model's chunks could otherwise name them in a release of its own: this node would fill
//! that release from the restricted blob, and serve it. So a blob lends only to blobs whose readers may all read it too,
//! or whose release has the same signer. What is not lent is fetched, like everything else.

use std::collections::{HashMap, HashSet};

use super::{MAX_FEED, Result, Store, locked};
use crate::digest::Digest;
use crate::reference::Nation;
use crate::statement::{Releasable, Statement};

/// Who may have a release.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Audience {
    producer: Nation,
    releasable: Releasable,
}

impl Audience {
    /// Whether everybody who may have `other` may have this too, or one nation answers for both.
    fn covers(&self, other: &Self) -> bool {
        if self.producer == other.producer || self.releasable == Releasable::All {
            return true;
        }
        let reads = |nation: &Nation| *nation == self.producer || self.releasable.allows(nation);
        match &other.releasable {
            Releasable::All => false,
            Releasable::Nations(nations) => reads(&other.producer) && nations.iter().all(reads),
        }
    }
}

/// The audiences of every blob that a known release names, followed along the feed. About 100 bytes a blob; filled when
/// it is first asked for.
#[derive(Debug, Default)]
pub(super) struct Audiences {
    /// The last statement looked at.
    seq: u64,
    /// The few that there are.
    known: Vec<Audience>,
    /// By number in `known`.
    of: HashMap<Digest, HashSet<u32>>,
}

impl Audiences {
    fn add(&mut self, producer: &Nation, releasable: &Releasable, blobs: impl Iterator<Item = Digest>) {
        let audience = Audience { producer: producer.clone(), releasable: releasable.clone() };
        let at = self.known.iter().position(|known| *known == audience).unwrap_or_else(|| {
            self.known.push(audience);
            self.known.len() - 1
        });
        for blob in blobs {
            // At most one audience for each statement, and those fit.
            self.of.entry(blob).or_default().insert(at as u32);
        }
    }

    fn of(&self, blob: &Digest) -> impl Iterator<Item = &Audience> {
        self.of.get(blob).into_iter().flatten().filter_map(|at| self.known.get(*at as usize))
    }
}

impl Store {
    /// Whether chunks of `from` may become part of `into`. What no release names yet can't be served to anybody, and so
    /// may take from everywhere and lends to nothing that is released.
    pub(super) fn may_lend(&self, from: &Digest, into: &Digest) -> Result<bool> {
        let mut audiences = locked(&self.inner.audiences);
        while audiences.seq < self.last_seq() {
            let page = self.feed(audiences.seq, MAX_FEED)?;
            let Some((last, _)) = page.last() else { break };
            for (_, signed) in &page {
                if let Statement::Release(release) = super::statements::peek(signed)? {
                    let blobs = release.files.iter().map(|file| file.blake3);
                    audiences.add(&release.model.nation, &release.releasable_to, blobs);
                }
            }
            audiences.seq = *last;
        }
        Ok(audiences.of(into).all(|reads| audiences.of(from).any(|lends| lends.covers(reads))))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn audience(producer: &str, nations: Option<&[&str]>) -> Audience {
        let nation = |name: &&str| Nation::new(name).unwrap();
        let releasable =
            nations.map_or(Releasable::All, |list| Releasable::Nations(list.iter().map(nation).collect()));
        Audience { producer: nation(&producer), releasable }
    }

    #[test]
    fn a_wider_audience_borrows_nothing() {
        let secret = audience("alba", Some(&["borea"]));
        assert!(!secret.covers(&audience("cora", Some(&["borea"]))));
        assert!(!secret.covers(&audience("borea", Some(&["alba", "cora"]))));
        assert!(!secret.covers(&audience("borea", None)));
        assert!(secret.covers(&audience("borea", Some(&["alba"]))));
        assert!(secret.covers(&audience("borea", Some(&[]))));
        // Its own producer decides.
        assert!(secret.covers(&audience("alba", None)));
        assert!(audience("alba", None).covers(&audience("cora", None)));
    }
}
