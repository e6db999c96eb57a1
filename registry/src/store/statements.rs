//! Statements: what was signed and believed, in the order in which it arrived.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::index::{Batch, Family, Index};
use super::record::{self, ChannelRecord, StatementRecord, corrupt};
use super::{Result, Store, StoreError, locked};
use crate::digest::Digest;
use crate::envelope::{Signed, Verified};
use crate::policy::{Ancestor, Ancestors};
use crate::reference::{ChannelName, Model, Nation, Reference};
use crate::statement::{Channel, Kind, Recall, Release, Statement};
use crate::trust::TrustError;

/// Most releases and channel statements kept of one nation: a release a minute for two months.
pub const MAX_STATEMENTS: u64 = 100_000;
/// Most recalls kept of one nation. All are read for each decision.
pub const MAX_RECALLS: u64 = 16_384;
/// Most membership statements kept of our own nation: some thirty about each nation that can be pinned.
const MAX_MEMBERSHIPS: u64 = 16_384;
/// Most statements that one call to [`Store::feed`] returns.
pub const MAX_FEED: usize = 1024;
/// Bytes after which [`Store::feed`] stops, so that a page of large releases does not fill the memory.
pub const MAX_FEED_BYTES: usize = 16 * 1024 * 1024;
/// Most ancestors that are looked at for one release: far more than any lineage in use, and a bound on a hostile one.
pub const MAX_ANCESTORS: usize = 4096;

/// Every recall, by nation and sequence, with where those of each target are among them.
pub(super) struct Recalls {
    all: Vec<(Digest, Recall)>,
    by_target: HashMap<Digest, Vec<usize>>,
}

/// Where a statement stands in the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put {
    /// Its number by arrival; the first is 1.
    pub seq: u64,
    /// Whether it was not here before.
    pub new: bool,
}

/// The number of the last statement.
pub(super) fn last(index: &Index) -> Result<u64> {
    index.last(Family::Feed)?.map_or(Ok(0), |(key, _)| record::number(&key, "the feed"))
}

/// The blobs and chunk maps of a release.
pub(super) fn blobs_of(release: &Release) -> impl Iterator<Item = Digest> + '_ {
    release.files.iter().flat_map(|file| [file.blake3, file.chunk_map])
}

impl Store {
    /// Keeps a statement that was believed; durable on return.
    ///
    /// Only the envelopes whose signatures count are kept. The same payload again adds the signatures that are new. A
    /// channel's sequence never goes back; one that repeats the sequence and the release kept changes nothing.
    pub fn put_statement(&self, statement: &Verified<Statement>) -> Result<Put> {
        let digest = statement.digest();
        let mut last = locked(&self.inner.last);
        let index = &self.inner.index;
        if let Some(mut known) = self.statement_record(&digest)? {
            if known.signed.merge(&statement.proven()) {
                let mut batch = index.batch();
                batch.put(Family::Statements, digest.as_bytes(), &known.encode()?)?;
                batch.commit()?;
            }
            return Ok(Put { seq: known.seq, new: false });
        }
        let record = StatementRecord { seq: *last + 1, kind: statement.kind(), signed: statement.proven() };
        let mut batch = index.batch();
        batch.put(Family::Statements, digest.as_bytes(), &record.encode()?)?;
        batch.put(Family::Feed, &record.seq.to_be_bytes(), digest.as_bytes())?;
        let mut blobs = Vec::new();
        let mut change = None;
        match statement.get() {
            Statement::Release(release) => {
                self.index_release(&mut batch, digest, release)?;
                blobs.extend(blobs_of(release));
            }
            Statement::Channel(channel) => {
                if let Some(known) = self.index_channel(&mut batch, digest, channel)? {
                    let kept =
                        self.statement_record(&known)?.ok_or_else(|| corrupt("a channel's statement"))?;
                    return Ok(Put { seq: kept.seq, new: false });
                }
                // Its release has become one to keep.
                blobs.extend(self.release(&channel.release)?.iter().flat_map(blobs_of));
            }
            Statement::Recall(recall) => {
                let key = record::recall_key(&recall.nation, recall.sequence, &digest);
                batch.put(Family::Recalls, &key, recall.target.digest().as_bytes())?;
                self.count(&mut batch, "recalls", &recall.nation, MAX_RECALLS)?;
            }
            Statement::Root(root) => {
                change = Some(self.change_root(&mut batch, statement.signed(), root)?);
            }
            Statement::Membership(membership) => {
                self.count(&mut batch, "memberships", &membership.nation, MAX_MEMBERSHIPS)?;
                change = Some(self.change_membership(&mut batch, digest, membership)?);
            }
            Statement::Attestation(attestation) => self.index_attestation(&mut batch, digest, attestation)?,
            other @ Statement::Node(_) => return Err(StoreError::Kind(other.kind())),
        }
        self.inner.keeper.keeping(blobs, || batch.commit())?;
        if statement.kind() == Kind::Recall {
            // Whoever read them before this line read what was acknowledged then; from now on they are read anew.
            *locked(&self.inner.recalls) = None;
        }
        if let Some(change) = change {
            change.done();
        }
        *last = record.seq;
        drop(last);
        if matches!(statement.get(), Statement::Root(root) if root.nation == self.inner.own) {
            self.reconsider_said()?;
        }
        Ok(Put { seq: record.seq, new: true })
    }

    fn index_release(&self, batch: &mut Batch<'_>, digest: Digest, release: &Release) -> Result<()> {
        let key = record::version_key(&release.model, &release.version);
        if let Some(have) = self.inner.index.get(Family::Releases, &key)? {
            return Err(StoreError::VersionConflict {
                version: Box::new(Reference::Version(release.model.clone(), release.version.clone())),
                have: record::digest(&have, "a release")?,
                got: digest,
            });
        }
        batch.put(Family::Releases, &key, digest.as_bytes())?;
        self.count(batch, "statements", &release.model.nation, MAX_STATEMENTS)
    }

    /// Moves a channel; the statement kept already where this one says the same.
    fn index_channel(
        &self,
        batch: &mut Batch<'_>,
        digest: Digest,
        channel: &Channel,
    ) -> Result<Option<Digest>> {
        let key = record::channel_key(&channel.model, &channel.channel);
        let named = || Box::new(Reference::Channel(channel.model.clone(), channel.channel.clone()));
        let kept = self.standing_channel(&channel.model, &channel.channel)?;
        if let Some(kept) = &kept {
            if channel.sequence < kept.sequence {
                return Err(StoreError::ChannelDowngrade {
                    channel: named(),
                    have: kept.sequence,
                    got: channel.sequence,
                });
            }
            if channel.sequence == kept.sequence {
                if channel.release == kept.release {
                    return Ok(Some(kept.statement));
                }
                return Err(StoreError::ChannelConflict {
                    channel: named(),
                    sequence: kept.sequence,
                    have: kept.release,
                    got: channel.release,
                });
            }
        }
        let record =
            ChannelRecord { sequence: channel.sequence, release: channel.release, statement: digest };
        if let Some(kept) = kept {
            batch.put(Family::Meta, &before_key(&key), kept.statement.as_bytes())?;
        }
        batch.put(Family::Channels, &key, &record.encode())?;
        self.count(batch, "statements", &channel.model.nation, MAX_STATEMENTS)?;
        Ok(None)
    }

    /// What a channel said before it said what it says now.
    pub fn channel_before(&self, model: &Model, channel: &ChannelName) -> Result<Option<Channel>> {
        let key = before_key(&record::channel_key(model, channel));
        let Some(value) = self.inner.index.get(Family::Meta, &key)? else { return Ok(None) };
        match self.believed(&record::digest(&value, "a channel")?)? {
            Statement::Channel(channel) => Ok(Some(channel)),
            _ => Err(corrupt("a channel")),
        }
    }

    /// The release that a channel was rolled back from: its signer moved it to one that was signed earlier. Only the last
    /// move counts, and only where both releases are known.
    pub fn rolled_back_from(&self, channel: &Channel) -> Result<Option<(Digest, Release)>> {
        let Some(before) = self.channel_before(&channel.model, &channel.channel)? else { return Ok(None) };
        let (Some(left), Some(now)) = (self.release(&before.release)?, self.release(&channel.release)?)
        else {
            return Ok(None);
        };
        let back = before.release != channel.release && now.issued < left.issued;
        Ok(back.then_some((before.release, left)))
    }

    /// Counts one more statement of `nation`, unless it has said too much.
    pub(super) fn count(
        &self,
        batch: &mut Batch<'_>,
        what: &'static str,
        nation: &Nation,
        limit: u64,
    ) -> Result<()> {
        let key = format!("count/{what}/{nation}");
        let count = match self.inner.index.get(Family::Meta, key.as_bytes())? {
            Some(value) => record::number(&value, "a nation's count")?,
            None => 0,
        };
        if count >= limit {
            return Err(StoreError::TooMany { what, nation: nation.clone(), limit });
        }
        batch.put(Family::Meta, key.as_bytes(), &(count + 1).to_be_bytes())
    }

    pub(super) fn statement_record(&self, digest: &Digest) -> Result<Option<StatementRecord>> {
        let value = self.inner.index.get(Family::Statements, digest.as_bytes())?;
        value.map(|value| StatementRecord::decode(&value)).transpose()
    }

    fn channel_record(&self, model: &Model, channel: &ChannelName) -> Result<Option<ChannelRecord>> {
        let value = self.inner.index.get(Family::Channels, &record::channel_key(model, channel))?;
        value.map(|value| ChannelRecord::decode(&value)).transpose()
    }

    /// The statement whose payload has this digest. Its signatures counted when it was kept; whoever relies on it again
    /// verifies it against the trust of that moment, as `admit` does.
    pub fn statement(&self, digest: &Digest) -> Result<Option<Signed>> {
        Ok(self.statement_record(digest)?.map(|record| record.signed))
    }

    /// The release with this digest, as it was when it was kept (see [`Self::statement`]).
    pub fn release(&self, digest: &Digest) -> Result<Option<Release>> {
        Ok(self.signed_release(digest)?.map(|(release, _)| release))
    }

    /// The release with this digest and who signed it, read once.
    pub fn signed_release(&self, digest: &Digest) -> Result<Option<(Release, Signed)>> {
        match self.statement_record(digest)? {
            Some(record) if record.kind == Kind::Release => match peek(&record.signed)? {
                Statement::Release(release) => Ok(Some((release, record.signed))),
                _ => Err(corrupt("a release")),
            },
            _ => Ok(None),
        }
    }

    /// Up to `limit` statements (at most [`MAX_FEED`], about [`MAX_FEED_BYTES`] in all) that arrived after number
    /// `after`, in the order of their arrival.
    pub fn feed(&self, after: u64, limit: usize) -> Result<Vec<(u64, Signed)>> {
        let mut page = Vec::new();
        let mut bytes = 0;
        for entry in self.inner.index.scan_from(Family::Feed, &after.saturating_add(1).to_be_bytes())? {
            if page.len() >= limit.min(MAX_FEED) || bytes >= MAX_FEED_BYTES {
                break;
            }
            let (key, value) = entry?;
            let digest = record::digest(&value, "the feed")?;
            let record = self.statement_record(&digest)?.ok_or_else(|| corrupt("a statement of the feed"))?;
            bytes += record.signed.payload().len();
            page.push((record::number(&key, "the feed")?, record.signed));
        }
        Ok(page)
    }

    /// The number of the last statement that arrived; 0 when there is none.
    pub fn last_seq(&self) -> u64 {
        *locked(&self.inner.last)
    }

    /// Every release known, by model and version.
    pub fn releases(&self) -> Result<Vec<(Digest, Release)>> {
        let mut releases = Vec::new();
        for entry in self.inner.index.scan(Family::Releases, &[])? {
            let digest = record::digest(&entry?.1, "a release")?;
            let release = self.release(&digest)?.ok_or_else(|| corrupt("a release"))?;
            releases.push((digest, release));
        }
        Ok(releases)
    }

    /// Every channel's current statement, by model and channel, with the statement's digest.
    pub fn channels(&self) -> Result<Vec<(Digest, Channel)>> {
        let mut channels = Vec::new();
        for entry in self.inner.index.scan(Family::Channels, &[])? {
            let digest = ChannelRecord::decode(&entry?.1)?.statement;
            match self.believed(&digest)? {
                Statement::Channel(channel) => channels.push((digest, channel)),
                _ => return Err(corrupt("a channel")),
            }
        }
        Ok(channels)
    }

    /// Every recall, by nation and sequence, with the statement's digest.
    pub fn recalls(&self) -> Result<Vec<(Digest, Recall)>> {
        Ok(self.all_recalls()?.all.clone())
    }

    /// Those that name `release` or what it derives from, with the statement's digest; whether one binds is another question.
    pub(crate) fn recalls_about(
        &self,
        release: &Digest,
        ancestors: &Ancestors,
    ) -> Result<Vec<(Digest, Recall)>> {
        let recalls = self.all_recalls()?;
        let named = [release].into_iter().chain(ancestors.keys().filter(|ancestor| *ancestor != release));
        let places = named.filter_map(|target| recalls.by_target.get(target)).flatten();
        Ok(places.filter_map(|place| recalls.all.get(*place)).cloned().collect())
    }

    fn all_recalls(&self) -> Result<Arc<Recalls>> {
        // Every decision asks for some of them, and reading one takes longer than a whole decision.
        let mut kept = locked(&self.inner.recalls);
        if let Some(recalls) = &*kept {
            return Ok(Arc::clone(recalls));
        }
        let mut recalls = Vec::new();
        for entry in self.inner.index.scan(Family::Recalls, &[])? {
            let digest = record::recall_digest(&entry?.0)?;
            match self.believed(&digest)? {
                Statement::Recall(recall) => recalls.push((digest, recall)),
                _ => return Err(corrupt("a recall")),
            }
        }
        let mut by_target: HashMap<Digest, Vec<usize>> = HashMap::new();
        for (place, (_, recall)) in recalls.iter().enumerate() {
            by_target.entry(recall.target.digest()).or_default().push(place);
        }
        let recalls = Arc::new(Recalls { all: recalls, by_target });
        *kept = Some(Arc::clone(&recalls));
        Ok(recalls)
    }

    fn believed(&self, digest: &Digest) -> Result<Statement> {
        let record = self.statement_record(digest)?.ok_or_else(|| corrupt("a statement"))?;
        peek(&record.signed)
    }

    /// The release that `reference` means here and now. The release itself may not be known yet when a channel points
    /// to it. A channel that points to another model's release is an error: its signer can't rename what others made.
    pub fn resolve(&self, reference: &Reference) -> Result<Option<Digest>> {
        match reference {
            Reference::Channel(model, channel) => {
                let Some(ChannelRecord { release, .. }) = self.channel_record(model, channel)? else {
                    return Ok(None);
                };
                match self.release(&release)? {
                    Some(known) if known.model != *model => Err(StoreError::OtherModel {
                        channel: Box::new(reference.clone()),
                        release,
                        model: Box::new(known.model),
                    }),
                    _ => Ok(Some(release)),
                }
            }
            Reference::Version(model, version) => {
                let value = self.inner.index.get(Family::Releases, &record::version_key(model, version))?;
                value.map(|value| record::digest(&value, "a release")).transpose()
            }
            Reference::Digest(digest) => {
                let known = self.statement_record(digest)?.is_some_and(|record| record.kind == Kind::Release);
                Ok(known.then_some(*digest))
            }
        }
    }

    /// What the release derives from, over any number of generations, each with its producer where it is known here.
    /// At most [`MAX_ANCESTORS`], the nearest first.
    pub fn ancestors(&self, release: &Digest) -> Result<Ancestors> {
        let bases = self.release(release)?.map(|release| release.derived_from).unwrap_or_default();
        self.ancestors_of(bases.iter().map(|base| base.release))
    }

    /// These bases and what they derive from (see [`Self::ancestors`]).
    pub(crate) fn ancestors_of(&self, bases: impl Iterator<Item = Digest>) -> Result<Ancestors> {
        let mut found = Ancestors::new();
        let mut queue: VecDeque<Digest> = bases.collect();
        while let Some(digest) = queue.pop_front() {
            if found.contains_key(&digest) {
                continue;
            }
            if found.len() >= MAX_ANCESTORS {
                tracing::warn!(limit = MAX_ANCESTORS, "a lineage is longer than what is looked at");
                break;
            }
            let base = self.release(&digest)?;
            queue.extend(base.iter().flat_map(|base| base.derived_from.iter().map(|edge| edge.release)));
            let known =
                base.map(|base| Ancestor { producer: base.model.nation, releasable_to: base.releasable_to });
            found.insert(digest, known);
        }
        Ok(found)
    }

    /// The sequence that the next statement of this channel must have at least.
    pub fn next_channel_sequence(&self, model: &Model, channel: &ChannelName) -> Result<u64> {
        Ok(self.standing_channel(model, channel)?.map_or(1, |record| record.sequence.saturating_add(1)))
    }

    /// Where a channel stands for whoever would move it. A statement that a rotation took out of trust (a thief's, with the
    /// highest sequence that there is) does not stand in the way of the nation's next one; the best of the others does.
    fn standing_channel(&self, model: &Model, channel: &ChannelName) -> Result<Option<ChannelRecord>> {
        let Some(kept) = self.channel_record(model, channel)? else { return Ok(None) };
        if !self.is_superseded(&kept.statement)? {
            return Ok(Some(kept));
        }
        let (mut best, mut after) = (None::<ChannelRecord>, 0);
        loop {
            let page = self.feed(after, MAX_FEED)?;
            let Some((last, _)) = page.last() else { return Ok(best) };
            after = *last;
            for (_, signed) in page {
                let Statement::Channel(found) = peek(&signed)? else { continue };
                let statement = signed.digest();
                let better = best.as_ref().is_none_or(|best| best.sequence < found.sequence);
                let same = found.model == *model && found.channel == *channel;
                if same && better && !self.is_superseded(&statement)? {
                    best =
                        Some(ChannelRecord { sequence: found.sequence, release: found.release, statement });
                }
            }
        }
    }

    /// Whether the log shows that a kept statement was signed with keys that a root had taken away before.
    pub(super) fn is_superseded(&self, statement: &Digest) -> Result<bool> {
        let Some(signed) = self.statement(statement)? else { return Ok(false) };
        let issued = peek(&signed)?.issued();
        match self.verify_kept::<StoreError>(&signed, issued) {
            Err(StoreError::Trust(TrustError::Superseded { .. })) => Ok(true),
            Err(error @ (StoreError::Index(_) | StoreError::Corrupt(_))) => Err(error),
            _ => Ok(false),
        }
    }

    /// The sequence that the next recall of this nation should have.
    pub fn next_recall_sequence(&self, nation: &Nation) -> Result<u64> {
        let prefix = record::nation_prefix(nation);
        let mut next = 1;
        for entry in self.inner.index.scan(Family::Recalls, &prefix)? {
            let sequence = record::recall_sequence(&entry?.0, nation).ok_or_else(|| corrupt("a recall"))?;
            next = sequence.saturating_add(1);
        }
        Ok(next)
    }
}

/// Where what a channel said before stands.
fn before_key(channel: &[u8]) -> Vec<u8> {
    [b"before/", channel].concat()
}

pub(super) fn peek(signed: &Signed) -> Result<Statement> {
    Ok(signed.peek().map_err(crate::envelope::EnvelopeError::from)?)
}
