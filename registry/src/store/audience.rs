//! Which nation may be given which bytes.
//!
//! A release says who may have it, and names its blobs by their digests. A digest is no proof that whoever wrote it down
//! may have the bytes: who learned the digest of a restricted blob could name it in a release of its own, for everybody,
//! and a node that holds the blob would hand it out under that. So this node notes **under which release the bytes of a
//! blob came**: fetched from peers, who looked at that release's audience themselves; read from a folder by our own
//! nation; or carried in a bundle.
//!
//! - A nation may be given a blob when some release under which *all* of its bytes came lets that nation have it. Where
//!   parts came under several releases, each of them must.
//! - A release lets a nation have the blob when the nation is in its audience, or in that of another release of the same
//!   producer that names the blob: a producer may widen what is its own, nobody else may.
//! - Where nothing was noted, every producer that names the blob must let the nation have it.
//!
//! The same holds for chunks that are taken from one local blob into another: a blob lends only to a release whose whole
//! audience may have the blob. What is not lent is fetched, like everything else.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::index::{Batch, Family};
use super::record::corrupt;
use super::{MAX_FEED, Result, Store, locked};
use crate::digest::Digest;
use crate::reference::Nation;
use crate::statement::{Releasable, Statement};

/// First part of the keys in `meta`; the blob's and the release's digests follow, 32 bytes each.
const PREFIX: &[u8] = b"under/";
/// Some of the blob's bytes came under the release.
const PART: &[u8] = &[0];
/// All of them did.
const WHOLE: &[u8] = &[1];

/// Who is to be given something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader<'a> {
    /// One nation.
    Nation(&'a Nation),
    /// Whoever asks.
    Everybody,
}

/// Who may have a release.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Audience {
    producer: Nation,
    releasable: Releasable,
}

impl Audience {
    fn admits(&self, reader: Reader<'_>) -> bool {
        match reader {
            Reader::Nation(nation) => *nation == self.producer || self.releasable.allows(nation),
            Reader::Everybody => self.releasable == Releasable::All,
        }
    }

    /// Whether everybody who may have `other` may have this too, or one nation answers for both.
    fn covers(&self, other: &Self) -> bool {
        if self.producer == other.producer {
            return true;
        }
        match &other.releasable {
            Releasable::All => self.admits(Reader::Everybody),
            Releasable::Nations(nations) => {
                self.admits(Reader::Nation(&other.producer))
                    && nations.iter().all(|nation| self.admits(Reader::Nation(nation)))
            }
        }
    }
}

/// The audience of every known release, and those of every blob that one names, followed along the feed. About 150 bytes
/// a blob; filled when it is first asked for.
#[derive(Debug, Default)]
pub(super) struct Audiences {
    /// The last statement looked at.
    seq: u64,
    /// The few that there are.
    known: Vec<Audience>,
    /// By number in `known`.
    releases: HashMap<Digest, u32>,
    of: HashMap<Digest, HashSet<u32>>,
}

impl Audiences {
    fn add(
        &mut self,
        release: Digest,
        producer: &Nation,
        releasable: &Releasable,
        blobs: impl Iterator<Item = Digest>,
    ) {
        let audience = Audience { producer: producer.clone(), releasable: releasable.clone() };
        let at = self.known.iter().position(|known| *known == audience).unwrap_or_else(|| {
            self.known.push(audience);
            self.known.len() - 1
        });
        // At most one audience for each statement, and those fit.
        let at = at as u32;
        self.releases.insert(release, at);
        for blob in blobs {
            self.of.entry(blob).or_default().insert(at);
        }
    }

    fn of(&self, blob: &Digest) -> impl Iterator<Item = &Audience> {
        self.of.get(blob).into_iter().flatten().filter_map(|at| self.known.get(*at as usize))
    }

    fn release(&self, release: &Digest) -> Option<&Audience> {
        self.releases.get(release).and_then(|at| self.known.get(*at as usize))
    }

    /// Whether the producer of `source` lets those have the blob whom `meant` describes.
    fn lets(&self, blob: &Digest, source: &Audience, meant: &impl Fn(&Audience) -> bool) -> bool {
        meant(source) || self.of(blob).any(|other| other.producer == source.producer && meant(other))
    }

    /// Whether the bytes of `blob` that came under `sources` may go to those whom `meant` describes.
    fn allow(&self, blob: &Digest, sources: &Sources, meant: impl Fn(&Audience) -> bool) -> bool {
        // A release that is not known any more lets nobody have anything.
        let lets =
            |release: &Digest| self.release(release).is_some_and(|source| self.lets(blob, source, &meant));
        if sources.is_empty() {
            let mut named = self.of(blob).peekable();
            return named.peek().is_some() && named.all(|source| self.lets(blob, source, &meant));
        }
        sources.whole.iter().any(lets) || (!sources.part.is_empty() && sources.part.iter().all(lets))
    }
}

/// The releases under which a blob's bytes came.
#[derive(Debug, Default)]
struct Sources {
    whole: BTreeSet<Digest>,
    part: BTreeSet<Digest>,
}

impl Sources {
    fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.part.is_empty()
    }
}

fn prefix(blob: &Digest) -> Vec<u8> {
    [PREFIX, blob.as_bytes()].concat()
}

fn key(blob: &Digest, release: &Digest) -> Vec<u8> {
    [PREFIX, blob.as_bytes(), release.as_bytes()].concat()
}

impl Store {
    fn with_audiences<T>(&self, ask: impl FnOnce(&Audiences) -> Result<T>) -> Result<T> {
        let mut audiences = locked(&self.inner.audiences);
        while audiences.seq < self.last_seq() {
            let page = self.feed(audiences.seq, MAX_FEED)?;
            let Some((last, _)) = page.last() else { break };
            for (_, signed) in &page {
                if let Statement::Release(release) = super::statements::peek(signed)? {
                    let blobs = release.files.iter().map(|file| file.blake3);
                    let (nation, releasable) = (&release.model.nation, &release.releasable_to);
                    audiences.add(signed.digest(), nation, releasable, blobs);
                }
            }
            audiences.seq = *last;
        }
        ask(&audiences)
    }

    fn sources(&self, blob: &Digest) -> Result<Sources> {
        let mut sources = Sources::default();
        let prefix = prefix(blob);
        for entry in self.inner.index.scan(Family::Meta, &prefix)? {
            let (key, value) = entry?;
            let release =
                super::record::digest(key.get(prefix.len()..).unwrap_or_default(), "a blob's source")?;
            match &*value {
                PART => sources.part.insert(release),
                WHOLE => sources.whole.insert(release),
                _ => return Err(corrupt("a blob's source")),
            };
        }
        Ok(sources)
    }

    /// Whether `reader` may be given the bytes of `blob`, or its chunk map, by what is known of how they came here. That
    /// the release under which it is asked for is releasable to the reader is another question
    /// ([`crate::releasable`] asks both).
    pub fn may_give(&self, blob: &Digest, reader: Reader<'_>) -> Result<bool> {
        let sources = self.sources(blob)?;
        self.with_audiences(|audiences| {
            Ok(audiences.allow(blob, &sources, |audience| audience.admits(reader)))
        })
    }

    /// Whether any of the bytes of `blob` are here.
    pub fn has_some(&self, blob: &Digest) -> Result<bool> {
        Ok(self.has_blob(blob) || self.partial_record(blob)? || !self.sources(blob)?.is_empty())
    }

    /// Notes that all bytes of these blobs came under `release`; durable on return.
    pub(crate) fn came_under(&self, release: &Digest, blobs: impl IntoIterator<Item = Digest>) -> Result<()> {
        let mut batch = self.inner.index.batch();
        for blob in blobs {
            batch.put(Family::Meta, &key(&blob, release), WHOLE)?;
        }
        if batch.len() == 0 { Ok(()) } else { batch.commit() }
    }

    /// Notes that bytes of `blob` come under `release`, before the first of them is kept: what is written later is not
    /// durable before this is.
    pub(super) fn comes_under(&self, blob: &Digest, release: &Digest) -> Result<()> {
        let key = key(blob, release);
        if self.inner.index.get(Family::Meta, &key)?.is_some() {
            return Ok(());
        }
        let mut batch = self.inner.index.batch();
        batch.put(Family::Meta, &key, PART)?;
        batch.commit_lazily()
    }

    /// A blob that came in parts is whole: when they came under one release, all of it came under that.
    pub(super) fn came_whole(&self, batch: &mut Batch<'_>, blob: &Digest) -> Result<()> {
        let sources = self.sources(blob)?;
        let mut part = sources.part.iter();
        if let (Some(release), None) = (part.next(), part.next()) {
            batch.put(Family::Meta, &key(blob, release), WHOLE)?;
        }
        Ok(())
    }

    /// None of the parts that came of a blob are here any more.
    pub(super) fn forget_parts(&self, blob: &Digest) -> Result<()> {
        let part = self.sources(blob)?.part;
        if part.is_empty() {
            return Ok(());
        }
        let mut batch = self.inner.index.batch();
        for release in part {
            batch.delete(Family::Meta, &key(blob, &release))?;
        }
        batch.commit()
    }

    /// The blob goes, and what was noted of it.
    pub(super) fn forget_sources(&self, batch: &mut Batch<'_>, blob: &Digest) -> Result<()> {
        let sources = self.sources(blob)?;
        for release in sources.whole.iter().chain(&sources.part) {
            batch.delete(Family::Meta, &key(blob, release))?;
        }
        Ok(())
    }

    /// Whether chunks of `from` may become part of `into`, which is fetched under `release`, or under any that names it
    /// where none is given. What no release names yet can't be served to anybody, and so may take from everywhere and
    /// lends to nothing that is released.
    pub(super) fn may_lend(&self, from: &Digest, into: &Digest, release: Option<Digest>) -> Result<bool> {
        let sources = self.sources(from)?;
        self.with_audiences(|audiences| {
            let lends = |reads: &Audience| audiences.allow(from, &sources, |audience| audience.covers(reads));
            Ok(match release.map(|release| audiences.release(&release)) {
                Some(reads) => reads.is_some_and(lends),
                None => audiences.of(into).all(lends),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn nation(name: &str) -> Nation {
        Nation::new(name).unwrap()
    }

    fn audience(producer: &str, nations: Option<&[&str]>) -> Audience {
        let list = |list: &[&str]| Releasable::Nations(list.iter().map(|name| nation(name)).collect());
        Audience { producer: nation(producer), releasable: nations.map_or(Releasable::All, list) }
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

    /// What `readers` may have of one blob that releases name and under which it came.
    fn given(releases: &[(&str, Option<&[&str]>)], whole: &[usize], part: &[usize], to: &str) -> bool {
        let blob = Digest::of(b"blob");
        let name = |at: usize| Digest::of(&[at as u8]);
        let mut audiences = Audiences::default();
        for (at, (producer, nations)) in releases.iter().enumerate() {
            let Audience { producer, releasable } = audience(producer, *nations);
            audiences.add(name(at), &producer, &releasable, [blob].into_iter());
        }
        let set = |of: &[usize]| of.iter().map(|at| name(*at)).collect();
        let sources = Sources { whole: set(whole), part: set(part) };
        let to = nation(to);
        audiences.allow(&blob, &sources, |audience| audience.admits(Reader::Nation(&to)))
    }

    #[test]
    fn naming_a_blob_widens_nothing() {
        let releases = [("alba", Some(&["borea"][..])), ("cora", None)];
        assert!(given(&releases, &[0], &[], "borea"));
        assert!(given(&releases, &[0], &[], "alba"));
        assert!(!given(&releases, &[0], &[], "cora"));
        assert!(!given(&releases, &[0], &[], "dora"));
        // Its bytes did come under cora's release too, from whoever serves that.
        assert!(given(&releases, &[0, 1], &[], "dora"));
        // Unknown: nobody is given what one of its producers withholds.
        assert!(!given(&releases, &[], &[], "dora"));
        assert!(given(&releases, &[], &[], "borea"));
    }

    #[test]
    fn a_narrow_release_by_another_takes_nothing_away() {
        let releases = [("alba", None), ("dora", Some(&[][..]))];
        assert!(given(&releases, &[0], &[], "borea"));
        assert!(!given(&releases, &[1], &[], "borea"));
        assert!(given(&releases, &[0], &[1], "borea"));
    }

    #[test]
    fn parts_are_given_to_those_whom_each_source_admits() {
        let releases = [("alba", Some(&["borea", "dora"][..])), ("cora", Some(&["borea"][..]))];
        assert!(given(&releases, &[], &[0, 1], "borea"));
        assert!(!given(&releases, &[], &[0, 1], "dora"));
        assert!(given(&releases, &[], &[0], "dora"));
    }

    #[test]
    fn its_producer_may_widen() {
        let releases = [("alba", Some(&["borea"][..])), ("alba", None)];
        assert!(given(&releases, &[0], &[], "dora"));
    }
}
