//! Nations' logs, as a node lives with them: it appends to its own nation's where it holds the key, follows every pinned
//! nation's, cosigns allies' where it holds a witness key, and finds lies.
//!
//! ```text
//! book      what the store has of logs, in the words of this module
//! append    our own log: confirm that no ally knows more of it, append, have it cosigned, tell
//! follow    allies' logs: compare with each peer, fetch, verify, keep
//! witness   cosignatures: given to allies, and asked of them
//! dispute   evidence: found, verified, kept, handed on
//! client, serve   the two ends of `/steelyard/log/1`
//! rate      what a peer may ask how often
//! wait      a pull that comes before the log
//! view      what people are shown
//! ```

pub(crate) mod append;
pub(crate) mod book;
pub(crate) mod client;
pub(crate) mod dispute;
pub(crate) mod follow;
mod rate;
pub(crate) mod serve;
pub(crate) mod view;
pub(crate) mod wait;
pub(crate) mod witness;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use libp2p::PeerId;
use registry::key::SecretKey;
use registry::statement::{RoleName, Statement};
use registry::store::{Store, StoreError};
use registry::{Digest, Nation};
use tokio::sync::{Notify, watch};

use crate::config;
use crate::events::Event;
use crate::layout::Layout;
use crate::node::{Node, blocking};
use crate::wire::{LogAnswer, MAX_HEADS};
use rate::Allowances;

/// Everything about logs that is not in the store.
pub(crate) struct Logs {
    log_key: Option<SecretKey>,
    witness_key: Option<SecretKey>,
    /// Why a key that lies here is not used.
    unusable: Vec<String>,
    /// Who was heard to know more of our own log, and how much.
    ahead: Mutex<Option<(u64, Option<Nation>)>>,
    /// There may be something to append or to have cosigned.
    wake: Notify,
    /// Counts changes of any log, for whoever waits for one.
    changes: watch::Sender<u64>,
    turns: Mutex<HashMap<Nation, Arc<tokio::sync::Mutex<()>>>>,
    allowances: Mutex<Allowances>,
    /// The size of our log that each ally cosigned last, as far as it said so.
    cosigned: Mutex<HashMap<Nation, u64>>,
    /// What was gossiped last of our log: its size, and how many nations had cosigned it.
    told: Mutex<(u64, usize)>,
    /// What of our own waits to be logged.
    waiting: Mutex<book::Waiting>,
    /// What peers are shown of all logs, and after how many changes it was put together.
    heads: Mutex<Option<(u64, Arc<Vec<LogAnswer>>)>>,
    /// One checkpoint is cosigned at a time, so that what was vouched for last is also what is kept last.
    cosigning: tokio::sync::Mutex<()>,
    /// Peers that are being asked for a cosignature.
    asking: Mutex<HashSet<PeerId>>,
}

/// A peer is being asked for a cosignature, until this is dropped.
pub(crate) struct Asking<'a>(&'a Logs, PeerId);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.asking.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

impl Logs {
    /// The keys that lie in the home folder are used if the nation's root lists them.
    pub(crate) fn load(layout: &Layout, store: &Store, config: &config::Log) -> Self {
        let passphrase = Some(&config.passphrase_file).filter(|file| !file.is_empty());
        let passphrase = passphrase.map(|file| layout.home().join(file));
        let mut unusable = Vec::new();
        let mut key = |role: RoleName| {
            let path = layout.key(role);
            if !path.exists() {
                return None;
            }
            match book::usable(store, role, &path, passphrase.as_deref()) {
                Ok(key) => Some(key),
                Err(why) => {
                    tracing::error!("the {role} key is not used: {why}");
                    unusable.push(format!("the {role} key is not used: {why}"));
                    None
                }
            }
        };
        let (log_key, witness_key) = (key(RoleName::Log), key(RoleName::Witness));
        Self {
            log_key,
            witness_key,
            unusable,
            ahead: Mutex::default(),
            wake: Notify::new(),
            changes: watch::Sender::new(0),
            turns: Mutex::default(),
            allowances: Mutex::default(),
            cosigned: Mutex::default(),
            told: Mutex::default(),
            waiting: Mutex::default(),
            heads: Mutex::default(),
            cosigning: tokio::sync::Mutex::default(),
            asking: Mutex::default(),
        }
    }

    /// Whether this node appends to its nation's log.
    pub(crate) fn appends(&self) -> bool {
        self.log_key.is_some()
    }

    /// Whether it cosigns others' logs.
    pub(crate) fn witnesses(&self) -> bool {
        self.witness_key.is_some()
    }

    /// There is something to do, perhaps.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// A log changed: it grew, or more nations cosigned it.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Tells of changes from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// One at a time works on one log.
    pub(crate) fn turn(&self, nation: &Nation) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(nation.clone()).or_default())
    }

    /// Whether a peer may ask for something that costs so much now.
    pub(crate) fn allow(&self, peer: &PeerId, cost: f64, now: Instant) -> bool {
        self.allowances.lock().unwrap_or_else(PoisonError::into_inner).take(&peer.to_base58(), cost, now)
    }

    /// The same for whoever speaks HTTP, all of them together.
    pub(crate) fn allow_http(&self, cost: f64, now: Instant) -> bool {
        self.allowances.lock().unwrap_or_else(PoisonError::into_inner).take("http", cost, now)
    }

    /// Who was heard to know more of our own log, and how much.
    fn ahead(&self) -> Option<(u64, Option<Nation>)> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note of that; whether it is news.
    fn note_ahead(&self, size: u64, nation: Option<Nation>) -> bool {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let news = ahead.as_ref().is_none_or(|(known, _)| *known < size);
        if news {
            *ahead = Some((size, nation));
        }
        news
    }

    fn cosigned_before(&self, ally: &Nation) -> u64 {
        self.cosigned.lock().unwrap_or_else(PoisonError::into_inner).get(ally).copied().unwrap_or(0)
    }

    fn remember_cosigned(&self, ally: &Nation, size: u64) {
        self.cosigned.lock().unwrap_or_else(PoisonError::into_inner).insert(ally.clone(), size);
    }

    /// Statements of our own that wait to be logged, oldest first. Blocks.
    pub(crate) fn waiting(&self, store: &Store) -> Result<Vec<Digest>, StoreError> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.look(store).map(<[Digest]>::to_vec)
    }

    /// What peers are shown of all logs; put together once for each change, since every signature is verified. Blocks.
    pub(crate) fn heads(&self, store: &Store) -> Result<Arc<Vec<LogAnswer>>, StoreError> {
        // Taken before anything is read: a change meanwhile makes it stale, not wrong.
        let changes = *self.changes.borrow();
        let mut kept = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, heads)) = &*kept
            && *at == changes
        {
            return Ok(Arc::clone(heads));
        }
        let mut heads = Vec::new();
        for nation in book::nations(store) {
            heads.extend(book::shown(store, &nation)?);
            heads.extend(book::better_witnessed(store, &nation)?);
        }
        // Two for each nation at most, and there are not more than that.
        heads.truncate(MAX_HEADS.into());
        let heads = Arc::new(heads);
        *kept = Some((changes, Arc::clone(&heads)));
        Ok(heads)
    }

    /// Takes the turn to ask a peer for a cosignature; nothing while it is asked already.
    fn begin_asking(&self, peer: PeerId) -> Option<Asking<'_>> {
        let new = self.asking.lock().unwrap_or_else(PoisonError::into_inner).insert(peer);
        new.then(|| Asking(self, peer))
    }

    /// Our own log begins again: what is to be logged, and what allies cosigned, is found out anew.
    pub(crate) fn begin_again(&self) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = book::Waiting::default();
        self.cosigned.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = (0, 0);
    }

    /// Whether our log is to be told of in this state; the same state is told of once.
    fn tell_once(&self, size: u64, witnesses: usize) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *told, (size, witnesses)) != (size, witnesses)
    }
}

/// Starts what runs all the time.
pub(crate) fn run(node: &Node) {
    if node.logs().appends() {
        node.spawn("log", append::run(node.clone()));
    }
}

/// A statement of our own nation was kept: it belongs into the log.
pub(crate) fn kept(node: &Node, nation: &Nation) {
    if *nation == node.store().own() {
        node.logs().wake();
    }
}

/// A peer brought a statement that was new here. One in our own name that another nation's node had first deserves a look:
/// it was signed without this node.
pub(crate) async fn brought(node: &Node, peer: &PeerId, statement: &Statement, digest: Digest) {
    let own = node.store().own();
    kept(node, statement.nation());
    let from = node.book().nation(peer);
    let Some(from) = from.filter(|from| *from != own && *statement.nation() == own) else { return };
    let message = format!(
        "a {} in our name, {digest}, came from a node of `{from}` and was not known here: if nobody of us signed it elsewhere, a key is stolen; `steelyard log monitor` lists all that was signed in our name",
        statement.kind()
    );
    tracing::warn!(%peer, "{message}");
    let (store, note) = (node.store().clone(), from.to_string());
    let noted = blocking(move || store.put_meta(&view::elsewhere_key(&digest), note.as_bytes())).await;
    if let Err(error) = noted {
        tracing::error!("that could not be noted: {error}");
    }
    let (code, peer) = ("signed-elsewhere".to_owned(), Some(peer.to_base58()));
    node.events().send(Event::Alert { code, message, peer, nation: Some(from) });
}
