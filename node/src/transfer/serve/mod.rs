//! Serving `/steelyard/blob/1`: whether the peer's nation may have the release is decided before anything else; then
//! maps, availability and chunks, streamed from the disk a piece at a time.

mod answer;
mod encoded;
pub(super) mod lap;
mod maps;
mod pace;
mod queue;
mod source;
mod watch;

use std::sync::Arc;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::PeerId;
use registry::admit::{Door, Permission};
use registry::releasable;
use registry::statement::{Capability, Release};
use registry::store::{Store, StoreError};
use registry::{Digest, Nation, Timestamp};

use self::answer::Stream;
pub(crate) use self::maps::Maps;
pub(in crate::transfer) use self::pace::is_busy;
use self::queue::Queue;
pub(crate) use self::source::{Source, Sources, changed};
use crate::node::{Node, blocking};
use crate::swarm::streams::Inbound;
use crate::wire::{
    ANSWER_TIMEOUT, Answer, IDLE, MAX_REQUEST, Order, PIECE_TIMEOUT, Refusal, Request, WireError, read_frame,
    within, write_all,
};

/// Serves one stream to its end.
pub(crate) async fn serve(node: Node, inbound: Inbound) {
    let peer = inbound.peer;
    let Inbound { stream, slot, .. } = inbound;
    if let Err(error) = talk(&node, peer, stream).await {
        match error {
            WireError::Io(_) | WireError::Timeout { .. } | WireError::Truncated { .. } => {
                tracing::debug!(%peer, "a blob stream ended: {error}");
            }
            error => node.fault(&peer, "protocol", &format!("peer {peer}: {error}")).await,
        }
    }
    drop(slot);
}

async fn talk(node: &Node, peer: PeerId, stream: libp2p::Stream) -> Result<(), WireError> {
    let (mut reader, mut writer) = stream.split();
    let Some(standing) = node.book().standing(&peer) else { return Ok(()) };
    let first = within(ANSWER_TIMEOUT, "its first request", read_frame(&mut reader, "request", MAX_REQUEST));
    let Some((kind, body)) = first.await? else { return Ok(()) };
    let mut order = Order::default();
    let opening = Request::decode(kind, &body)?;
    order.check(&opening)?;
    let Request::Open { release: digest } = opening else { return Ok(()) };
    let Some(_permit) = node.serving_permit() else {
        return refuse(&mut writer, Refusal::Busy).await;
    };
    if !standing.may(Capability::Fetch) {
        return refuse(&mut writer, Refusal::NotAllowed).await;
    }
    let generation = node.generation();
    let opened = match open(node, digest, &standing.nation).await {
        Ok(opened) => opened,
        Err(refusal) => return refuse(&mut writer, refusal).await,
    };
    let complete = opened.complete;
    write_all(&mut writer, &Answer::Opened { complete }.encode()).await?;
    let asker = Asker { node: node.clone(), peer, nation: standing.nation, digest, generation, opened };
    let queue = Queue::default();
    let requests = read(&mut reader, &queue, order);
    let answers = answer(&mut writer, &queue, asker);
    // Whichever ends first: without a reader there are no requests, without a writer no answers.
    match futures::future::select(Box::pin(requests), Box::pin(answers)).await {
        futures::future::Either::Left((Ok(()), answers)) => answers.await,
        futures::future::Either::Left((Err(error), _)) => Err(error),
        futures::future::Either::Right((result, _)) => result,
    }
}

/// Reads requests ahead, so that one can be taken back before it is begun.
async fn read<R: AsyncRead + Unpin>(
    reader: &mut R,
    queue: &Queue,
    mut order: Order,
) -> Result<(), WireError> {
    let ended = queue.end_on_drop();
    loop {
        let mut next = Box::pin(read_frame(reader, "request", MAX_REQUEST));
        let frame = loop {
            match tokio::time::timeout(IDLE, &mut next).await {
                Ok(frame) => break frame?,
                // Whoever waits for answers need not ask; who has none to wait for must.
                Err(_) if queue.is_busy() => {}
                Err(_) => return Err(WireError::Timeout { what: "its next request", limit: IDLE }),
            }
        };
        let Some((kind, body)) = frame else { break };
        let request = Request::decode(kind, &body)?;
        order.check(&request)?;
        queue.push(request).await;
    }
    drop(ended);
    Ok(())
}

async fn answer<W: AsyncWrite + Unpin>(writer: &mut W, queue: &Queue, asker: Asker) -> Result<(), WireError> {
    let mut stream = Stream::new(writer, asker);
    while let Some((request, cancelled)) = queue.next().await {
        if let Some(refusal) = stream.asker.still_allowed().await {
            return refuse(stream.writer, refusal).await;
        }
        match request {
            _ if cancelled => stream.refuse(Refusal::Cancelled).await?,
            Request::Watch => {
                let watching = Box::pin(watch::watch(stream.writer, &mut stream.asker));
                // Whoever watches asks nothing more; when the stream's other half closes, it is over.
                return match futures::future::select(watching, Box::pin(queue.ended())).await {
                    futures::future::Either::Left((result, _)) => result,
                    futures::future::Either::Right(((), _)) => Ok(()),
                };
            }
            request => stream.answer(request).await?,
        }
        queue.done();
    }
    Ok(())
}

async fn refuse<W: AsyncWrite + Unpin>(writer: &mut W, refusal: Refusal) -> Result<(), WireError> {
    write_all(writer, &Answer::Refused(refusal).encode()).await?;
    within(PIECE_TIMEOUT, "closing", async { Ok(writer.close().await?) }).await
}

/// A release that may be served, and what of it is here.
struct Opened {
    release: Arc<Release>,
    complete: bool,
    source: Arc<Source>,
}

async fn open(node: &Node, digest: Digest, nation: &Nation) -> Result<Opened, Refusal> {
    let (node, nation) = (node.clone(), nation.clone());
    let looked = blocking(move || {
        let store = node.store();
        let release = match permission(store, &digest, &nation)? {
            Ok(release) => release,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let complete = release.files.iter().all(|file| store.has_blob(&file.blake3));
        let held = node.sources().get(&digest).is_some();
        let begun = complete
            || held
            || release
                .files
                .iter()
                .any(|file| store.has_blob(&file.blake3) || store.partial_chunks(&file.blake3).is_some());
        if !begun {
            return Ok(Err(Refusal::NotFound));
        }
        let shapes = match complete && !held {
            true => source::shapes(store, &release)?,
            false => None,
        };
        let source = node.sources().get_or(digest, || match complete {
            true => Source::seed(shapes, &node.own_peer(), &digest),
            false => Source::growing(),
        });
        Ok::<_, StoreError>(Ok(Opened { release: Arc::new(release), complete, source }))
    });
    looked.await.unwrap_or_else(|error| {
        tracing::error!("a release could not be looked up to serve it: {error}");
        Err(Refusal::Missing)
    })
}

/// Whether a node of `nation` may have the release from us: it and what is here of its bytes are releasable to that nation
/// ([`registry::releasable`]), it is not recalled for us, and our policy lets it go there. What is not for it, it is not told to
/// exist, and our policy is not its to read.
pub fn permission(
    store: &Store,
    digest: &Digest,
    nation: &Nation,
) -> Result<Result<Release, Refusal>, StoreError> {
    let Some((release, signed)) = store.signed_release(digest)? else { return Ok(Err(Refusal::NotFound)) };
    if let Err(withheld) = releasable::release_known(store, &release, nation)? {
        tracing::debug!(%digest, %nation, "not served: {withheld}");
        return Ok(Err(Refusal::NotFound));
    }
    let door = Door::open(store, Timestamp::now())?;
    Ok(match door.may_have_this(*digest, &release, &signed, nation)? {
        Permission::Allowed => Ok(release),
        Permission::Recalled => Err(Refusal::Recalled),
        Permission::Unknown | Permission::NotReleasable | Permission::Refused(_) => Err(Refusal::NotFound),
    })
}

/// Who asks on a stream, and for what.
struct Asker {
    node: Node,
    peer: PeerId,
    nation: Nation,
    digest: Digest,
    /// The state of recalls and trust at which the peer was found to be allowed.
    generation: u64,
    opened: Opened,
}

impl Asker {
    /// Looks again after every recall and every change of trust.
    async fn still_allowed(&mut self) -> Option<Refusal> {
        let generation = self.node.generation();
        if generation == self.generation {
            return None;
        }
        let (store, digest, nation) = (self.node.store().clone(), self.digest, self.nation.clone());
        let looked = blocking(move || {
            if releasable::ally(&store, &nation).is_err() {
                return Ok(Err(Refusal::NotFound));
            }
            permission(&store, &digest, &nation)
        });
        match looked.await {
            Ok(Ok(_)) => {
                self.generation = generation;
                None
            }
            Ok(Err(refusal)) => Some(refusal),
            Err(error) => {
                tracing::error!("a release could not be looked up to serve it: {error}");
                Some(Refusal::Missing)
            }
        }
    }
}
