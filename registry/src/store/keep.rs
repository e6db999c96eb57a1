//! What garbage collection must leave alone.
//!
//! **Roots.** A blob is kept while something needs it: a pinned release, one that a mirror rule keeps (`mirrored.rs`), the
//! release that a channel points to now, a transfer (its chunk map), or a [`Lease`]. Blobs on their way in are not yet needed by anything: a publisher ingests
//! files minutes before a person signs the release, a pull finishes blob after blob before the release is admitted. So
//! each new blob is *held*: its record carries a time before which it is not collected ([`HOLD`]). Ingesting a blob that
//! is here already renews that. When the release is accepted or admitted, the hold ends and the roots decide.
//!
//! **Beside pulls and publishing.** Collection marks everything that the roots reach, then sweeps the rest. In between
//! the world changes: a channel moves to a release whose blobs were garbage, a pull finds a blob present and skips it.
//! As in a concurrent collector with a write barrier, each such change *shades* what it makes reachable while a
//! collection runs, under one lock with the change itself:
//!
//! - [`Keeper::keeping`]: a pin, a statement, the end of a hold. Either it was done before the collection began, so that
//!   marking sees it, or it shades its blobs, so that the sweep leaves them.
//! - [`Store::lease`]: the same. A pull takes a lease on its release *before* it asks which blobs are here.
//! - [`Keeper::collecting`]: the sweep takes the lock for a few blobs at a time, and looks again at shades, leases and
//!   holds before it removes the records and moves the files away. Nobody can adopt a blob in between.
//! - [`Keeper::exclusive`]: a file enters `blobs/` and its record the index in one step, so that the sweep never takes
//!   a file for an orphan that is only about to be recorded.
//!
//! Lock order: the feed, then this lock. Nothing under it waits for anything but the disk.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

use super::{Result, Store, locked, statements};
use crate::digest::Digest;
use crate::timestamp::DAY;

/// How long, in seconds, a blob that entered is kept although nothing refers to it: a person may take a day to sign.
pub const HOLD: i64 = DAY;

#[derive(Default)]
struct State {
    /// How many leases name a digest, of a release or of a blob.
    leases: HashMap<Digest, usize>,
    /// While a collection runs: what became reachable since it began.
    shaded: Option<HashSet<Digest>>,
}

#[derive(Default)]
pub(super) struct Keeper {
    state: Mutex<State>,
    /// Held by the one collection that runs.
    collection: Mutex<()>,
}

/// A running collection; shading ends with it.
pub(super) struct Collection<'a> {
    keeper: &'a Keeper,
    _one: MutexGuard<'a, ()>,
}

impl Drop for Collection<'_> {
    fn drop(&mut self) {
        locked(&self.keeper.state).shaded = None;
    }
}

impl Keeper {
    /// Makes a change that makes `blobs` reachable.
    pub(super) fn keeping<T>(
        &self,
        blobs: impl IntoIterator<Item = Digest>,
        change: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let mut state = locked(&self.state);
        if let Some(shaded) = &mut state.shaded {
            shaded.extend(blobs);
        }
        change()
    }

    /// Does something during which no blob is collected.
    pub(super) fn exclusive<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let _state = locked(&self.state);
        act()
    }

    /// Begins a collection, after the one that runs has ended.
    pub(super) fn begin(&self) -> Collection<'_> {
        let one = locked(&self.collection);
        locked(&self.state).shaded = Some(HashSet::new());
        Collection { keeper: self, _one: one }
    }

    /// Every digest that a lease names.
    pub(super) fn leased(&self) -> Vec<Digest> {
        locked(&self.state).leases.keys().copied().collect()
    }

    /// Removes those of `blobs` by `remove` that are not needed after all.
    pub(super) fn collecting<T>(
        &self,
        blobs: &[Digest],
        remove: impl FnOnce(Vec<Digest>) -> Result<T>,
    ) -> Result<T> {
        let state = locked(&self.state);
        let needed = |blob: &Digest| {
            state.leases.contains_key(blob)
                || state.shaded.as_ref().is_some_and(|shaded| shaded.contains(blob))
        };
        remove(blobs.iter().filter(|blob| !needed(blob)).copied().collect())
    }
}

/// Keeps blobs from being collected until it is dropped. It lives in this process only.
pub struct Lease {
    store: Store,
    digests: Vec<Digest>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = locked(&self.store.inner.keeper.state);
        for digest in &self.digests {
            if let Some(count) = state.leases.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    state.leases.remove(digest);
                }
            }
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lease").field(&self.digests).finish()
    }
}

impl Store {
    /// Keeps these from being collected until the lease is dropped: blobs by their digest, and by the digest of a
    /// release all its blobs and chunk maps, those too that arrive later.
    pub fn lease(&self, digests: impl IntoIterator<Item = Digest>) -> Lease {
        let digests: Vec<Digest> = digests.into_iter().collect();
        let keeper = &self.inner.keeper;
        let mut state = locked(&keeper.state);
        for digest in &digests {
            *state.leases.entry(*digest).or_default() += 1;
        }
        if let Some(shaded) = &mut state.shaded {
            for digest in &digests {
                shaded.insert(*digest);
                match self.release(digest) {
                    Ok(release) => shaded.extend(release.iter().flat_map(statements::blobs_of)),
                    // The sweep fails on the same record before it removes anything of this release.
                    Err(error) => tracing::error!(%digest, %error, "a leased release can't be read"),
                }
            }
        }
        drop(state);
        Lease { store: self.clone(), digests }
    }
}
