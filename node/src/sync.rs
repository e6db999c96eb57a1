//! `/steelyard/sync/1`: statements travel from feed to feed. Each node keeps how far it has read each peer's.
//!
//! The one who is asked leaves out what the asker's nation may not have; the one who asks believes nothing that its own
//! trust does not verify.

mod cursor;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::PeerId;
use registry::admit::Door;
use registry::publish::{self, Accepted, PublishError};
use registry::statement::Statement;
use registry::store::{Store, StoreError};
use registry::trust::{MembershipError, TrustError};
use registry::{Digest, Nation, Signed, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use cursor::{Cursor, trust_mark};

use crate::events::{Event, Events};
use crate::node::{Node, blocking};
use crate::swarm::streams::{Inbound, OpenError, Protocol};
use crate::wire::{
    ANSWER_TIMEOUT, FeedPage, FeedRequest, IDLE, MAX_PAGE, MAX_PAGES, MAX_REQUEST, MAX_STATEMENT, PAGE_BYTES,
    PIECE_TIMEOUT, WireError, read_frame, within, write_all,
};

/// The note that names this node's own feed.
const EPOCH: &str = "sync/epoch";
/// Statements read from the store at a time while a page is made.
const SCAN: usize = 256;
/// Statements looked at for one page, so that a feed full of what the asker may not have costs one answer a bounded time.
const MAX_SCAN: usize = 16 * SCAN;
/// Signatures that don't verify, in one synchronisation, after which it is given up.
const MAX_BAD: usize = 4;

/// Announcements that are followed up at once. What is beyond comes with the next regular synchronisation.
const MAX_FOLLOWED: usize = 32;

/// Why a synchronisation ended early.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("it sent {MAX_BAD} statements whose signatures are wrong")]
    Bad,
}

/// Where this node stands with every peer's feed.
pub(crate) struct Syncer {
    epoch: [u8; 16],
    /// One synchronisation with a peer at a time; a second one waits, a third has nothing to add.
    locks: Mutex<HashMap<PeerId, Arc<Turn>>>,
    followed: Arc<Semaphore>,
}

#[derive(Default)]
struct Turn {
    lock: tokio::sync::Mutex<()>,
    waiting: std::sync::atomic::AtomicBool,
}

impl Syncer {
    pub(crate) fn new(epoch: [u8; 16]) -> Self {
        Self { epoch, locks: Mutex::default(), followed: Arc::new(Semaphore::new(MAX_FOLLOWED)) }
    }

    /// The name of this store's feed, made at its first use.
    pub(crate) fn epoch(store: &Store) -> Result<[u8; 16], StoreError> {
        if let Some(epoch) = store.get_meta(EPOCH).and_then(|note| note.try_into().ok()) {
            return Ok(epoch);
        }
        let mut epoch = [0; 16];
        getrandom::fill(&mut epoch)
            .map_err(|error| StoreError::Index(format!("the system's random source failed: {error}")))?;
        store.put_meta(EPOCH, &epoch)?;
        Ok(epoch)
    }

    /// A place among the announcements that are followed up at once; `None` when there are too many.
    pub(crate) fn follow_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.followed).try_acquire_owned().ok()
    }

    fn turn(&self, peer: PeerId) -> Arc<Turn> {
        Arc::clone(self.locks.lock().unwrap_or_else(PoisonError::into_inner).entry(peer).or_default())
    }

    pub(crate) fn forget(&self, peer: &PeerId) {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }
}

/// Asks a peer for news in the background.
pub(crate) fn kick(node: &Node, peer: PeerId) {
    use std::sync::atomic::Ordering;
    let turn = node.inner().syncer.turn(peer);
    if turn.waiting.swap(true, Ordering::AcqRel) {
        // One waits already and will see what is new.
        return;
    }
    let node2 = node.clone();
    node.spawn("synchronisation", async move { sync_peer(&node2, peer).await });
}

/// Asks a peer for everything new and keeps what is believed. Answers how much was new.
pub(crate) async fn sync_peer(node: &Node, peer: PeerId) -> usize {
    use std::sync::atomic::Ordering;
    let turn = node.inner().syncer.turn(peer);
    let _turn = turn.lock.lock().await;
    turn.waiting.store(false, Ordering::Release);
    let read = pages(node, peer).await;
    // Also after a failure: who lies about statements may show the proof of another lie.
    crate::log::follow::with(node, peer).await;
    match read {
        Ok(new) => new,
        Err(error) => {
            match &error {
                SyncError::Bad => {
                    node.fault(&peer, "bad_statements", &format!("peer {peer}: {error}")).await;
                }
                SyncError::Wire(wire)
                    if !matches!(
                        wire,
                        WireError::Io(_) | WireError::Timeout { .. } | WireError::Truncated { .. }
                    ) =>
                {
                    node.fault(&peer, "protocol", &format!("peer {peer}: {error}")).await;
                }
                SyncError::Store(error) => tracing::error!(%peer, "synchronisation failed: {error}"),
                _ => tracing::debug!(%peer, "synchronisation ended early: {error}"),
            }
            0
        }
    }
}

async fn pages(node: &Node, peer: PeerId) -> Result<usize, SyncError> {
    let Some(network) = node.network() else { return Ok(0) };
    let mut stream = network.streams.open(peer, Protocol::Sync).await?;
    let store = node.store().clone();
    let mark = blocking(move || trust_mark(&store)).await?;
    let known = Cursor::load(node.store(), &peer);
    let mut after = known.filter(|cursor| cursor.trust == mark).map_or(0, |cursor| cursor.after);
    let mut epoch = known.map(|cursor| cursor.epoch);
    let (mut new, mut bad) = (0, 0);
    for _ in 0..MAX_PAGES {
        // Before the request leaves: what the answer holds was so then, or later.
        let asked = node.leases().now();
        let request = FeedRequest { after, limit: MAX_PAGE };
        write_all(&mut stream, &request.encode()).await?;
        let (page, statements) = read_page(&mut stream).await?;
        if epoch.is_some_and(|epoch| epoch != page.epoch) && after > 0 {
            // The peer's store was made anew: its numbers begin again.
            (after, epoch) = (0, Some(page.epoch));
            continue;
        }
        epoch = Some(page.epoch);
        if page.next < after {
            return Err(WireError::Value { what: "feed page", rule: "its numbers go backwards" }.into());
        }
        let outcome = take(node, peer, statements).await?;
        new += outcome.new;
        bad += outcome.bad;
        if outcome.later {
            // A clock that is behind, for instance: this page is asked for again next time.
            return Ok(new);
        }
        let moved = page.next > after;
        after = page.next;
        if moved {
            let (store, cursor) = (node.store().clone(), Cursor { epoch: page.epoch, trust: mark, after });
            blocking(move || cursor.save(&store, &peer)).await?;
        }
        if bad >= MAX_BAD {
            return Err(SyncError::Bad);
        }
        if !page.more && bad == 0 {
            // All that this ally knew is known here.
            if let Some(standing) = node.book().standing(&peer) {
                node.leases().heard(standing.nation, asked);
            }
        }
        if !page.more || !moved {
            break;
        }
    }
    let _ = within(ANSWER_TIMEOUT, "closing", async { Ok(stream.close().await?) }).await;
    Ok(new)
}

async fn read_page<R: AsyncRead + Unpin>(reader: &mut R) -> Result<(FeedPage, Vec<Vec<u8>>), WireError> {
    let head = within(ANSWER_TIMEOUT, "a page of statements", read_frame(reader, "feed page", MAX_REQUEST));
    let Some((kind, body)) = head.await? else { return Err(WireError::Truncated { what: "feed page" }) };
    let page = FeedPage::decode(kind, &body)?;
    let mut statements = Vec::new();
    let mut bytes = 0;
    for _ in 0..page.count {
        // Every page but one that holds a single statement stays within its limit.
        let limit = if statements.is_empty() { MAX_STATEMENT } else { 2 * PAGE_BYTES - bytes };
        let entry = within(PIECE_TIMEOUT * 4, "a statement", read_frame(reader, "statement", limit));
        let Some((kind, body)) = entry.await? else { return Err(WireError::Truncated { what: "statement" }) };
        if kind != crate::wire::ENTRY {
            return Err(WireError::Type(kind));
        }
        bytes += body.len();
        statements.push(body);
        if bytes > 2 * PAGE_BYTES && page.count > 1 {
            return Err(WireError::TooLarge {
                what: "feed page",
                len: bytes as u64,
                limit: 2 * PAGE_BYTES as u64,
            });
        }
    }
    Ok((page, statements))
}

#[derive(Debug, Default)]
struct Outcome {
    new: usize,
    bad: usize,
    later: bool,
}

enum Learned {
    New(Box<(Accepted, Signed, Statement)>),
    Known,
    /// Not for us: a nation that is not pinned, a version or kind that we don't know, an older channel.
    Passed,
    Bad(String),
    Later,
    Conflict(String),
}

/// What one statement from a peer comes to.
fn learn(store: &Store, bytes: &[u8]) -> Result<Learned, StoreError> {
    let signed = match Signed::parse(bytes) {
        Ok(signed) => signed,
        Err(error) => return Ok(Learned::Bad(error.to_string())),
    };
    let Ok(statement) = signed.peek() else {
        // Perhaps a newer version's.
        return Ok(Learned::Passed);
    };
    if let Some(known) = store.statement(&signed.digest())?
        && known.envelopes().len() >= signed.envelopes().len()
    {
        return Ok(Learned::Known);
    }
    match publish::learn(store, &signed, Timestamp::now()) {
        Ok(accepted) if accepted.new => Ok(Learned::New(Box::new((accepted, signed, statement)))),
        Ok(_) => Ok(Learned::Known),
        Err(error) => judge(error),
    }
}

fn judge(error: PublishError) -> Result<Learned, StoreError> {
    match error {
        PublishError::Trust(TrustError::FromTheFuture { .. }) => Ok(Learned::Later),
        PublishError::Trust(TrustError::Envelope(error)) => Ok(Learned::Bad(error.to_string())),
        // Both are signed by whoever may: the nation said two things.
        PublishError::Trust(
            error @ (TrustError::RootConflict { .. }
            | TrustError::Membership(
                MembershipError::Conflict { .. } | MembershipError::Fingerprint { .. },
            )),
        ) => Ok(Learned::Conflict(error.to_string())),
        PublishError::Store(
            error @ (StoreError::ChannelConflict { .. } | StoreError::VersionConflict { .. }),
        ) => Ok(Learned::Conflict(error.to_string())),
        PublishError::Store(
            StoreError::ChannelDowngrade { .. } | StoreError::Kind(_) | StoreError::TooMany { .. },
        ) => Ok(Learned::Passed),
        PublishError::Store(error) => Err(error),
        _ => Ok(Learned::Passed),
    }
}

async fn take(node: &Node, peer: PeerId, statements: Vec<Vec<u8>>) -> Result<Outcome, SyncError> {
    if statements.is_empty() {
        return Ok(Outcome::default());
    }
    let store = node.store().clone();
    let learned: Vec<Learned> =
        blocking(move || statements.iter().map(|bytes| learn(&store, bytes)).collect::<Result<_, _>>())
            .await?;
    let mut outcome = Outcome::default();
    for learned in learned {
        match learned {
            Learned::New(new) => {
                let (accepted, signed, statement) = *new;
                outcome.new += 1;
                tell(node, &peer, &accepted, &signed, &statement).await;
            }
            Learned::Known | Learned::Passed => {}
            Learned::Bad(why) => {
                outcome.bad += 1;
                let message = format!("peer {peer} sent a statement that does not verify: {why}");
                node.fault(&peer, "bad_statement", &message).await;
            }
            Learned::Later => outcome.later = true,
            Learned::Conflict(why) => conflict(node.events(), &peer, why),
        }
    }
    Ok(outcome)
}

fn conflict(events: &Events, peer: &PeerId, message: String) {
    tracing::warn!(%peer, "{message}");
    events.send(Event::Alert {
        code: "conflict".to_owned(),
        message,
        peer: Some(peer.to_base58()),
        nation: None,
    });
}

/// Tells of a statement that a peer brought, and does what follows from it.
async fn tell(node: &Node, peer: &PeerId, accepted: &Accepted, signed: &Signed, statement: &Statement) {
    let nation = statement.nation().clone();
    tracing::info!(digest = %accepted.digest, kind = %accepted.kind, %nation, "a new statement");
    node.events().send(Event::Statement { digest: accepted.digest, kind: accepted.kind, nation });
    if let Statement::Channel(channel) = statement {
        let (store, channel) = (node.store().clone(), channel.clone());
        let told = blocking(move || Ok::<_, StoreError>(Event::channel(&store, channel))).await;
        told.into_iter().for_each(|event| node.events().send(event));
    }
    crate::log::brought(node, peer, statement, accepted.digest).await;
    if let Statement::Recall(recall) = statement {
        node.events().send(Event::Recall {
            digest: accepted.digest,
            nation: recall.nation.clone(),
            target: recall.target,
            severity: recall.severity,
            reason: recall.reason.clone(),
        });
        // Before anything else: what is served and fetched stops. Then it is passed on; gossip knows what it has seen.
        node.recalled(signed, statement).await;
        node.announce(accepted.digest).await;
    }
    if matches!(statement, Statement::Root(_) | Statement::Membership(_)) {
        node.trust_changed(statement).await;
        node.announce(accepted.digest).await;
    }
}

/// Takes a statement that came by gossip. `None`: it is not for us.
pub(crate) async fn take_gossiped(node: &Node, peer: PeerId, bytes: Vec<u8>) -> Option<bool> {
    let store = node.store().clone();
    match blocking(move || learn(&store, &bytes)).await {
        Ok(Learned::New(new)) => {
            let (accepted, signed, statement) = *new;
            tell(node, &peer, &accepted, &signed, &statement).await;
            Some(true)
        }
        Ok(Learned::Known) => Some(true),
        Ok(Learned::Passed | Learned::Later) => None,
        Ok(Learned::Conflict(why)) => {
            conflict(node.events(), &peer, why);
            None
        }
        Ok(Learned::Bad(_)) => Some(false),
        Err(error) => {
            tracing::error!("a gossiped statement could not be kept: {error}");
            None
        }
    }
}

/// Serves a feed stream.
pub(crate) async fn serve(node: Node, inbound: Inbound) {
    let Inbound { peer, stream, slot } = inbound;
    let Some(standing) = node.book().standing(&peer) else { return };
    let (mut reader, mut writer) = stream.split();
    if let Err(error) = answer(&node, &standing.nation, &mut reader, &mut writer).await {
        match error {
            WireError::Io(_) | WireError::Timeout { .. } | WireError::Truncated { .. } => {
                tracing::debug!(%peer, "a feed stream ended: {error}");
            }
            error => node.fault(&peer, "protocol", &format!("peer {peer}: {error}")).await,
        }
    }
    drop(slot);
}

async fn answer<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    node: &Node,
    nation: &Nation,
    reader: &mut R,
    writer: &mut W,
) -> Result<(), WireError> {
    loop {
        let next = within(IDLE, "its next request", read_frame(reader, "feed request", MAX_REQUEST));
        let Some((kind, body)) = next.await? else {
            return within(PIECE_TIMEOUT, "closing", async { Ok(writer.close().await?) }).await;
        };
        let request = FeedRequest::decode(kind, &body)?;
        let Some(_permit) = node.feed_permit().await else { return Ok(()) };
        let (store, nation, epoch) = (node.store().clone(), nation.clone(), node.inner().syncer.epoch);
        let page = match blocking(move || {
            let epoch = feed_name(epoch, &store);
            make_page(&store, &nation, epoch, request)
        })
        .await
        {
            Ok(page) => page,
            Err(error) => {
                tracing::error!("a feed could not be read: {error}");
                return Ok(());
            }
        };
        let (head, statements) = page;
        write_all(writer, &head.encode()).await?;
        for statement in statements {
            write_all(writer, &crate::wire::header(crate::wire::ENTRY, statement.len() as u32)).await?;
            write_all(writer, &statement).await?;
        }
    }
}

/// The feed's name to those who read it: another one under another policy, so that whoever was not told of something asks
/// again from the beginning.
fn feed_name(epoch: [u8; 16], store: &Store) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&epoch).update(store.policy().digest().as_bytes());
    let mut name = [0; 16];
    hasher.finalize_xof().fill(&mut name);
    name
}

/// A page of what `nation` may have.
pub fn make_page(
    store: &Store,
    nation: &Nation,
    epoch: [u8; 16],
    request: FeedRequest,
) -> Result<(FeedPage, Vec<Vec<u8>>), StoreError> {
    let door = Door::open(store, Timestamp::now())?;
    let (mut after, mut bytes, mut scanned) = (request.after, 0, 0);
    let mut statements: Vec<Vec<u8>> = Vec::new();
    let mut more = false;
    'page: loop {
        let entries = store.feed(after, SCAN)?;
        if entries.is_empty() {
            break;
        }
        for (seq, signed) in entries {
            scanned += 1;
            if may_have(store, &door, nation, &signed)? {
                let json = signed.to_json();
                if !statements.is_empty() && bytes + json.len() > PAGE_BYTES {
                    more = true;
                    break 'page;
                }
                bytes += json.len();
                statements.push(json);
            }
            after = seq;
            if statements.len() >= usize::from(request.limit.min(MAX_PAGE)) {
                more = true;
                break 'page;
            }
        }
        if scanned >= MAX_SCAN {
            more = true;
            break;
        }
    }
    // A cursor beyond the end (of another store, say) is answered with the end, and the epoch tells why.
    let next = after.max(request.after);
    Ok((FeedPage { epoch, next, more, count: statements.len() as u16 }, statements))
}

/// Whether a nation may learn of a statement: what [`registry::releasable`] keeps back is kept back whatever the policy says;
/// of a release, of a channel that points to it and of what is attested about it, the policy decides too.
fn may_have(store: &Store, door: &Door<'_>, nation: &Nation, signed: &Signed) -> Result<bool, StoreError> {
    let Ok(statement) = signed.peek() else { return Ok(false) };
    if !registry::releasable::statement(store, &statement, nation)? {
        return Ok(false);
    }
    let about = |release: &Digest| Ok::<_, StoreError>(door.may_have(release, nation)?.allows_statement());
    match &statement {
        Statement::Release(found) => {
            Ok(door.may_have_this(signed.digest(), found, signed, nation)?.allows_statement())
        }
        Statement::Channel(channel) => Ok(channel.model.nation == *nation || about(&channel.release)?),
        Statement::Attestation(attestation) => {
            Ok(attestation.nation == *nation || about(&attestation.release)?)
        }
        Statement::Recall(_) | Statement::Root(_) | Statement::Membership(_) | Statement::Node(_) => Ok(true),
    }
}
