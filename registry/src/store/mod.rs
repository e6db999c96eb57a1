//! The store: blobs as plain read-only files, and an index of them and of every statement believed here.
//!
//! ```text
//! HOME/layout        the version of this layout and nothing else
//! HOME/lock          held by the one process that owns the folder
//! HOME/blobs/ab/…    finished blobs, mode 0444, named by their digest; never written to again
//! HOME/partial/…     blobs being fetched, at their full length
//! HOME/tmp/…         files on their way in or out; emptied when the store opens
//! HOME/quarantine/…  files that were found damaged
//! HOME/log-checkpoint the newest checkpoint of the own log, apart from the index that could lose it
//! HOME/index/        RocksDB, see `index.rs`
//! ```
//!
//! **Durable before acknowledged.** A file is synced, then renamed into its folder, then the folder is synced, then the
//! index is written and its log synced. Only then does a call return. A crash in between leaves at worst a file that
//! the index does not know, which nobody was told about.
//!
//! **Keeping and collecting.** See `keep.rs` for why garbage collection may run beside pulls and publishing.
//!
//! All calls block; an asynchronous caller runs them on a thread for that. [`Store`] is cheap to clone.

mod admissions;
mod attestations;
mod audience;
mod bitmap;
mod blobs;
mod error;
mod gc;
mod index;
mod ingest;
mod keep;
mod log;
mod mirrored;
mod nations;
mod partial;
mod places;
mod quarantine;
mod record;
mod recover;
mod statements;
mod wal;

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

pub use admissions::{Admission, Pin};
pub use attestations::{MAX_ATTESTATIONS, MAX_SUITES};
pub use audience::Reader;
pub use bitmap::Bitmap;
pub use error::{StoreError, WriteError};
pub use gc::{GcReason, GcRelease, GcReport, PARTIAL_MAX_AGE};
pub use ingest::Ingested;
pub use keep::{HOLD, Lease};
pub use log::{Appended, Extended, LogError, LogState, MAX_APPEND, MAX_LOG_ENTRIES, OwnLog};
pub use mirrored::Mirrored;
pub use partial::{FLUSH_BYTES, FLUSH_EVERY, MAX_UNSYNCED, Partial, Reused};
pub use recover::{Recovery, Withdrawn};
pub use statements::{MAX_ANCESTORS, MAX_FEED, MAX_FEED_BYTES, MAX_RECALLS, MAX_STATEMENTS, Put};

pub(crate) use error::io;
pub(crate) use log::better;

use crate::digest::Digest;
use crate::envelope::Signed;
use crate::policy::Policy;
use crate::reference::Nation;
use crate::timestamp::Timestamp;
use crate::trust::Trust;
use index::{Family, Index};
use keep::Keeper;

/// The version of the layout that this program writes.
pub const LAYOUT: u64 = 1;
/// First word of the file `layout`.
const LAYOUT_WORD: &str = "steelyard-store";
/// The file `layout` is one short line; anything larger is something else.
const MAX_LAYOUT_FILE: u64 = 256;
/// Longest key of a note, in bytes.
pub const MAX_NOTE_KEY: usize = 256;
/// Longest note, in bytes: a cursor, an address, a small list.
pub const MAX_NOTE: usize = 64 * 1024;

/// Answers how many seconds ago enough allies were heard for models of a producer, where a lease is in use.
pub type LeaseAge = dyn Fn(&Nation) -> Option<i64> + Send + Sync;

type Result<T, E = StoreError> = std::result::Result<T, E>;

/// One node's store. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    home: PathBuf,
    own: Nation,
    trust: RwLock<Arc<Trust>>,
    policy: RwLock<Arc<Policy>>,
    /// How long ago this node heard from its allies, where it serves on a lease.
    lease_age: RwLock<Option<Arc<LeaseAge>>>,
    /// The number of the last statement; held while one is added, so that the feed has no gaps and no surprises.
    last: Mutex<u64>,
    keeper: Keeper,
    partials: Mutex<HashMap<Digest, Weak<partial::Inner>>>,
    audiences: Mutex<audience::Audiences>,
    /// Every recall as it was read last; forgotten when one is added.
    recalls: Mutex<Option<Arc<statements::Recalls>>>,
    recovery: Recovery,
    /// Held while a log is compared and changed, so that nothing is signed twice for one size.
    logging: Mutex<()>,
    own_log: Mutex<OwnLog>,
    /// Checkpoints whose signatures were checked.
    notes: Mutex<log::Notes>,
    // Fields are dropped in order: the index is closed before the lock is let go.
    index: Index,
    _lock: File,
}

/// What the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Finished blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs being fetched.
    pub partials: u64,
    /// Bytes set aside for them.
    pub partial_bytes: u64,
    /// Bytes free on the file system.
    pub disk_free: u64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("home", &self.inner.home).field("own", &self.inner.own).finish()
    }
}

/// Locks `mutex`. A thread that panicked while holding it can't have left it half changed: every change below is one
/// assignment or insertion.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Makes a store in `home` for a node of the nation whose root is `own`.
    ///
    /// The folder may exist, but must not hold a store. A creation that was interrupted is taken up again.
    pub fn create(home: &Path, own: &Signed, now: Timestamp) -> Result<Self> {
        Self::create_with(home, own, &[], now)
    }

    /// As [`Self::create`], with the roots that follow the first one.
    pub fn create_with(home: &Path, own: &Signed, later: &[Signed], now: Timestamp) -> Result<Self> {
        let fingerprint = own.digest();
        let root = crate::trust::self_signed_root(own)?;
        let mut trust = Trust::new(root.nation.clone());
        let member = trust.pin_chain(own, later, fingerprint, now)?;

        if home.join("layout").exists() {
            return Err(StoreError::Exists { home: home.to_owned() });
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(home)
            .map_err(io("could not create", home))?;
        let lock = take_lock(home)?;
        make_folders(home)?;
        let index = Index::open(&home.join("index"), true)?;
        let mut batch = index.batch();
        // An interrupted creation may have been for another nation.
        for entry in index.scan(Family::Nations, &[])? {
            batch.delete(Family::Nations, &entry?.0)?;
        }
        batch.put(Family::Meta, b"own", root.nation.as_str().as_bytes())?;
        nations::put(&mut batch, own, &root.nation, now)?;
        for root in member.root.roots().skip(1) {
            nations::put_later(&mut batch, root)?;
        }
        batch.commit()?;
        drop((index, lock));
        // Last, so that only a complete store is taken for one.
        let path = home.join("layout");
        let mut file = tempfile::NamedTempFile::new_in(home).map_err(io("could not create", &path))?;
        writeln!(file, "{LAYOUT_WORD} {LAYOUT}")
            .and_then(|()| file.as_file().sync_all())
            .map_err(io("could not write", &path))?;
        file.persist(&path).map_err(|error| io("could not create", &path)(error.error))?;
        sync_folder(home)?;
        if let Some(parent) = home.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_folder(parent)?;
        }
        let store = Self::open(home)?;
        for signed in later {
            store.put_statement(&store.verify::<StoreError>(signed, now)?)?;
        }
        Ok(store)
    }

    /// Opens the store in `home`. One process at a time may; what a crash left behind is put right and reported in
    /// [`Self::recovery`].
    pub fn open(home: &Path) -> Result<Self> {
        check_layout(home)?;
        let lock = take_lock(home)?;
        make_folders(home)?;
        let index = Index::open(&home.join("index"), false)?;
        let own = nations::own(&index)?;
        let trust = nations::load(&index, own.clone())?;
        let last = statements::last(&index)?;
        let recovery = recover::run(home, &index)?;
        let inner = Inner {
            home: home.to_owned(),
            own,
            trust: RwLock::new(Arc::new(trust)),
            // A node puts that of its settings in its place.
            policy: RwLock::new(Policy::shipped(0)),
            lease_age: RwLock::default(),
            last: Mutex::new(last),
            keeper: Keeper::default(),
            partials: Mutex::default(),
            audiences: Mutex::default(),
            recalls: Mutex::default(),
            recovery,
            logging: Mutex::default(),
            own_log: Mutex::new(OwnLog::Unconfirmed),
            notes: Mutex::default(),
            index,
            _lock: lock,
        };
        let store = Self { inner: Arc::new(inner) };
        *locked(&store.inner.own_log) = store.look_at_own_log()?;
        store.reconsider_said()?;
        Ok(store)
    }

    /// The folder.
    pub fn home(&self) -> &Path {
        &self.inner.home
    }

    /// This node's nation.
    pub fn own(&self) -> Nation {
        self.inner.own.clone()
    }

    /// The policy by which decisions are made from now on; the shipped one until somebody sets another.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.inner.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets the policy; it holds from the next decision on. It is not kept: whoever opens the store sets it again.
    pub fn set_policy(&self, policy: Arc<Policy>) {
        *self.inner.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// Seconds since enough allies were heard for models of `producer`; nothing where no lease is in use, or nobody told.
    pub fn lease_age(&self, producer: &Nation) -> Option<i64> {
        let asked = self.inner.lease_age.read().unwrap_or_else(PoisonError::into_inner).clone();
        asked.and_then(|age| age(producer))
    }

    /// Tells from whom the age of a lease is learnt; it is asked for each decision.
    pub fn set_lease_age(&self, age: Arc<LeaseAge>) {
        *self.inner.lease_age.write().unwrap_or_else(PoisonError::into_inner) = Some(age);
    }

    /// What opening the store found and put right.
    pub fn recovery(&self) -> &Recovery {
        &self.inner.recovery
    }

    /// What the store holds, and what is free beside it.
    pub fn usage(&self) -> Result<Usage> {
        let mut usage = Usage { blobs: 0, bytes: 0, partials: 0, partial_bytes: 0, disk_free: 0 };
        for entry in self.inner.index.scan(Family::Blobs, &[])? {
            usage.blobs += 1;
            usage.bytes += record::BlobRecord::decode(&entry?.1)?.size;
        }
        for (_, partial) in partial::records(&self.inner.index)? {
            usage.partials += 1;
            usage.partial_bytes += partial.size;
        }
        let home = self.home();
        let disk = rustix::fs::statvfs(home).map_err(|error| io("could not look at", home)(error.into()))?;
        usage.disk_free = disk.f_bavail.saturating_mul(disk.f_frsize);
        Ok(usage)
    }

    /// A note that the node keeps for itself, such as how far it has read a peer's feed. Nothing when it can't be read,
    /// which is logged: a note must be something that can be found out again.
    pub fn get_meta(&self, key: &str) -> Option<Vec<u8>> {
        match self.inner.index.get(Family::Meta, note_key(key).as_bytes()) {
            Ok(value) => value,
            Err(error) => {
                tracing::error!(key, %error, "a note can't be read");
                None
            }
        }
    }

    /// Keeps a note; durable on return. At most [`MAX_NOTE_KEY`] and [`MAX_NOTE`] bytes.
    pub fn put_meta(&self, key: &str, value: &[u8]) -> Result<()> {
        let too_large = |limit| Err(StoreError::NoteTooLarge { key: crate::shorten(key), limit });
        if key.len() > MAX_NOTE_KEY {
            return too_large(MAX_NOTE_KEY);
        }
        if value.len() > MAX_NOTE {
            return too_large(MAX_NOTE);
        }
        let mut batch = self.inner.index.batch();
        batch.put(Family::Meta, note_key(key).as_bytes(), value)?;
        batch.commit()
    }

    /// A new temporary file of the store, removed when dropped.
    fn temporary(&self, prefix: &str) -> Result<tempfile::NamedTempFile> {
        let folder = self.home().join("tmp");
        tempfile::Builder::new()
            .prefix(prefix)
            .tempfile_in(&folder)
            .map_err(io("could not create a file in", &folder))
    }
}

fn note_key(key: &str) -> String {
    format!("note/{key}")
}

/// Where the file of a blob lies, or would, in the store at `home`.
pub fn blob_path(home: &Path, blob: &Digest) -> PathBuf {
    let hex = blob.to_hex();
    home.join("blobs").join(&hex[..2]).join(hex)
}

/// The path of the file of a blob that is being fetched.
fn partial_path(home: &Path, blob: &Digest) -> PathBuf {
    home.join("partial").join(blob.to_hex())
}

fn check_layout(home: &Path) -> Result<()> {
    use std::io::Read;
    let path = home.join("layout");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(StoreError::NotAHome { home: home.to_owned() });
        }
        Err(error) => return Err(io("could not open", &path)(error)),
    };
    let mut text = String::new();
    file.take(MAX_LAYOUT_FILE).read_to_string(&mut text).map_err(io("could not read", &path))?;
    let version = text.strip_prefix(LAYOUT_WORD).and_then(|rest| rest.trim().parse::<u64>().ok());
    match version {
        Some(LAYOUT) => Ok(()),
        Some(found) if found > LAYOUT => {
            Err(StoreError::Newer { home: home.to_owned(), found, known: LAYOUT })
        }
        _ => Err(StoreError::Layout { path }),
    }
}

fn take_lock(home: &Path) -> Result<File> {
    let path = home.join("lock");
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io("could not open", &path))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Busy { home: home.to_owned() }),
        Err(error) => Err(io("could not lock", &path)(error.into())),
    }
}

/// Makes the folders that are missing, all 256 of the blobs among them, so that a blob's folder needs no care later.
fn make_folders(home: &Path) -> Result<()> {
    let make = |path: PathBuf| match fs::create_dir(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(io("could not create", &path)(error)),
    };
    let mut made = false;
    for name in ["blobs", "partial", "tmp", "quarantine"] {
        made |= make(home.join(name))?;
    }
    let blobs = home.join("blobs");
    let mut made_inside = false;
    for byte in 0..=u8::MAX {
        made_inside |= make(blobs.join(format!("{byte:02x}")))?;
    }
    if made_inside {
        sync_folder(&blobs)?;
    }
    if made {
        sync_folder(home)?;
    }
    Ok(())
}

/// Makes the entries of a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(io("could not sync", path))
}
