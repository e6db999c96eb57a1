//! The side that is asked: pages of what the asker's nation may have.

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use registry::admit::Door;
use registry::store::{Store, StoreError};
use registry::{Nation, Timestamp};

use crate::node::{Node, blocking};
use crate::swarm::streams::Inbound;
use crate::wire::{
    FeedPage, FeedRequest, IDLE, MAX_PAGE, MAX_REQUEST, PAGE_BYTES, PIECE_TIMEOUT, WireError, read_frame,
    within, write_all,
};

/// Statements read from the store at a time while a page is made.
const SCAN: usize = 256;
/// Statements looked at for one page, so that a feed full of what the asker may not have costs one answer a bounded time.
const MAX_SCAN: usize = 16 * SCAN;
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
            if door.may_learn(&signed, nation)? {
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
