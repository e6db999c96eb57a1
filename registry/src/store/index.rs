//! The index: RocksDB, opened so that what was acknowledged is either there or its loss is an error.
//!
//! ```text
//! family      key                                      value
//! meta        text                                     text or bytes: `own`, `count/…`, `note/KEY`, `mirror/RELEASE`,
//!                                                      `under/` and blob and release digests (`audience.rs`);
//!                                                      `before/` and a channel's key: payload digest;
//!                                                      `proof/` and payload digest: a log proof that came by hand
//! meta        `membership/` nation                     sequence (u64), standing (u8), fingerprint, payload digest
//! nations     nation                                   pinned (i64), the first root as JSON
//! nations     nation 0 version (u64)                   issued (i64), a later root as JSON
//! statements  payload digest                           arrival (u64), kind (u8), the envelopes as JSON
//! feed        arrival (u64)                            payload digest
//! releases    nation 0 name 0 version                  release digest
//! channels    nation 0 name 0 channel                  sequence (u64), release digest, payload digest
//! recalls     nation 0 sequence (u64) payload digest   digest of the release that is its target
//! attestations  release digest, nation 0, suite digest  payload digest of the one in force
//! blobs       blob digest                              size (u64), map digest or zeros, held until (i64), added (i64)
//! chunks      chunk digest, blob digest                offset (u64), length (u32)
//! chunks      chunk digest                             blob digest, offset (u64), length (u32): as written before
//! partials    blob digest 0                            map digest, size (u64), chunks (u32), created, touched (i64)
//! partials    blob digest 1 page (u32)                 bitmap of the page's 4096 chunks (512 bytes)
//! admissions  release digest                           at (i64), the decision as JSON
//! pins        release digest                           at (i64), the reason as text
//! logs        nation 0 letter rest                     see `log/mod.rs`
//! ```
//!
//! Digests are their 32 bytes, numbers are big-endian so that keys sort by them, and no name contains a zero byte.
//! `chunks` is a hint: an entry may outlive its blob, so whoever uses one looks for the blob and checks the bytes
//! (`places.rs`).
//!
//! **Recovery.** RocksDB's default stops at the first bad record of its log and forgets what follows, so acknowledged
//! writes can vanish silently. `TolerateCorruptedTailRecords` accepts only a record cut short at the very end of the
//! log, which is what a crash in the middle of a write leaves behind and which nobody was told about, because every
//! acknowledgement waits for the log's fsync; a wrong checksum refuses to open. `AbsoluteConsistency` would refuse such
//! a cut record too, and so every other power failure. A damaged length in the log's last block passes for a cut record,
//! though; `wal.rs` tells the two apart before RocksDB reads the log. What none of this sees is a log file that somebody
//! removed as a whole while it was the last one.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode, Direction,
    IteratorMode, LogLevel, Options, SliceTransform, WriteBatch, WriteOptions,
};

use super::error::StoreError;
use super::wal;

/// Cache for blocks, filters and table indexes of all families together: the index of 1 TB of weights is about 100 MB,
/// and what is looked up often is a small part of it.
const CACHE: usize = 16 * 1024 * 1024;
/// Unwritten data of one family before it goes to a table file.
const WRITE_BUFFER: usize = 1024 * 1024;
/// Unwritten data of all families together.
const WRITE_BUFFERS: usize = 8 * 1024 * 1024;
/// Log of unwritten data before old parts of it are let go.
const MAX_WAL: u64 = 32 * 1024 * 1024;
/// Table files kept open at once.
const MAX_OPEN_FILES: i32 = 128;
/// Bits of filter for each key: one look-up in a hundred reads a table in vain.
const BLOOM_BITS: f64 = 10.0;
/// The part of a key of `chunks` that its filters know: the chunk's digest. Most chunks of a new model are nowhere, and
/// that should be known without reading a table.
const CHUNK_PREFIX: usize = 32;

/// A family of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Meta,
    Nations,
    Statements,
    Feed,
    Releases,
    Channels,
    Recalls,
    Attestations,
    Blobs,
    Chunks,
    Partials,
    Admissions,
    Pins,
    Logs,
}

impl Family {
    const ALL: [Self; 14] = [
        Self::Meta,
        Self::Nations,
        Self::Statements,
        Self::Feed,
        Self::Releases,
        Self::Channels,
        Self::Recalls,
        Self::Attestations,
        Self::Blobs,
        Self::Chunks,
        Self::Partials,
        Self::Admissions,
        Self::Pins,
        Self::Logs,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Nations => "nations",
            Self::Statements => "statements",
            Self::Feed => "feed",
            Self::Releases => "releases",
            Self::Channels => "channels",
            Self::Recalls => "recalls",
            Self::Attestations => "attestations",
            Self::Blobs => "blobs",
            Self::Chunks => "chunks",
            Self::Partials => "partials",
            Self::Admissions => "admissions",
            Self::Pins => "pins",
            Self::Logs => "logs",
        }
    }
}

/// A key and its value.
pub(super) type Entry = (Box<[u8]>, Box<[u8]>);

/// The open index.
pub(super) struct Index {
    db: DB,
}

impl Index {
    /// Opens the index in `path`, or makes it when `create`.
    pub(super) fn open(path: &Path, create: bool) -> Result<Self, StoreError> {
        if !create {
            wal::check(path)?;
        }
        let cache = Cache::new_lru_cache(CACHE);
        let tables = |whole_keys| {
            let mut tables = BlockBasedOptions::default();
            tables.set_block_cache(&cache);
            tables.set_cache_index_and_filter_blocks(true);
            tables.set_bloom_filter(BLOOM_BITS, false);
            tables.set_whole_key_filtering(whole_keys);
            tables
        };

        let mut options = Options::default();
        options.create_if_missing(create);
        // A store of an earlier version lacks the families that came since.
        options.create_missing_column_families(true);
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_paranoid_checks(true);
        // A log file that is missing as a whole is refused too.
        options.set_track_and_verify_wals_in_manifest(true);
        options.set_db_write_buffer_size(WRITE_BUFFERS);
        options.set_max_total_wal_size(MAX_WAL);
        options.set_max_open_files(MAX_OPEN_FILES);
        options.set_max_background_jobs(2);
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(1024 * 1024);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        let families = ["default"].into_iter().chain(Family::ALL.into_iter().map(Family::name)).map(|name| {
            let mut family = Options::default();
            family.set_write_buffer_size(WRITE_BUFFER);
            let by_prefix = name == Family::Chunks.name();
            family.set_block_based_table_factory(&tables(!by_prefix));
            if by_prefix {
                family.set_prefix_extractor(SliceTransform::create_fixed_prefix(CHUNK_PREFIX));
            }
            ColumnFamilyDescriptor::new(name, family)
        });
        Ok(Self { db: DB::open_cf_descriptors(&options, path, families)? })
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, StoreError> {
        self.db
            .cf_handle(family.name())
            .ok_or_else(|| StoreError::Corrupt(format!("the family `{}` is missing", family.name())))
    }

    /// The value of `key`.
    pub(super) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get_cf(self.family(family)?, key)?)
    }

    /// Every entry whose key begins with `prefix`, in the order of the keys.
    pub(super) fn scan<'a>(
        &'a self,
        family: Family,
        prefix: &'a [u8],
    ) -> Result<impl Iterator<Item = Result<Entry, StoreError>> + 'a, StoreError> {
        let entries = self.scan_from(family, prefix)?;
        Ok(entries.take_while(move |entry| match entry {
            Ok((key, _)) => key.starts_with(prefix),
            Err(_) => true,
        }))
    }

    /// Every entry from `start` on, in the order of the keys.
    pub(super) fn scan_from(
        &self,
        family: Family,
        start: &[u8],
    ) -> Result<impl Iterator<Item = Result<Entry, StoreError>> + '_, StoreError> {
        let mode = IteratorMode::From(start, Direction::Forward);
        Ok(self.db.iterator_cf(self.family(family)?, mode).map(|entry| Ok(entry?)))
    }

    /// The entry with the highest key.
    pub(super) fn last(&self, family: Family) -> Result<Option<Entry>, StoreError> {
        Ok(self.db.iterator_cf(self.family(family)?, IteratorMode::End).next().transpose()?)
    }

    /// A group of changes that happen together or not at all.
    pub(super) fn batch(&self) -> Batch<'_> {
        Batch { index: self, changes: WriteBatch::default() }
    }
}

/// A group of changes that happen together or not at all.
pub(super) struct Batch<'a> {
    index: &'a Index,
    changes: WriteBatch,
}

impl Batch<'_> {
    /// Sets `key` to `value`.
    pub(super) fn put(&mut self, family: Family, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.changes.put_cf(self.index.family(family)?, key, value);
        Ok(())
    }

    /// Removes `key`.
    pub(super) fn delete(&mut self, family: Family, key: &[u8]) -> Result<(), StoreError> {
        self.changes.delete_cf(self.index.family(family)?, key);
        Ok(())
    }

    /// Removes every key that begins with `prefix`, which ends below the highest byte, as one change however many there are.
    pub(super) fn delete_prefix(&mut self, family: Family, prefix: &[u8]) -> Result<(), StoreError> {
        let mut end = prefix.to_vec();
        if let Some(last) = end.last_mut() {
            *last = last.saturating_add(1);
        }
        self.changes.delete_range_cf(self.index.family(family)?, prefix, &end);
        Ok(())
    }

    /// How many changes there are.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Makes the changes; they are durable on return.
    pub(super) fn commit(self) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        Ok(self.index.db.write_opt(self.changes, &options)?)
    }

    /// Makes the changes; they become durable with the next [`Self::commit`], since the log keeps their order.
    pub(super) fn commit_lazily(self) -> Result<(), StoreError> {
        Ok(self.index.db.write_opt(self.changes, &WriteOptions::default())?)
    }
}
