//! Telling a peer what there is, now and as it grows.

use std::time::Duration;

use futures::AsyncWrite;
use registry::store::StoreError;

use super::source::{Next, Position, picture};
use super::{Asker, refuse};
use crate::node::blocking;
use crate::wire::{Answer, News, Refusal, WireError, write_all};

/// Shortest time between two frames, so that chunks which come in a burst are told of together.
const NEWS_EVERY: Duration = Duration::from_millis(40);
/// Longest time without looking: a release that is recalled meanwhile, grants that nobody takes.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Tells until the peer goes away or may not have the release any more.
pub(super) async fn watch<W: AsyncWrite + Unpin>(writer: &mut W, asker: &mut Asker) -> Result<(), WireError> {
    let source = std::sync::Arc::clone(&asker.opened.source);
    let _watching = source.watch(asker.peer);
    let mut changes = source.changes();
    let mut position = Position::default();
    loop {
        if let Some(refusal) = asker.still_allowed().await {
            return refuse(writer, refusal).await;
        }
        source.tick();
        let news = match source.next(&asker.peer, &mut position) {
            Next::News(news) => news,
            Next::Picture => match whole(asker).await {
                Ok(news) => news,
                Err(error) => {
                    tracing::error!("what there is of a release could not be looked up: {error}");
                    return refuse(writer, Refusal::Missing).await;
                }
            },
        };
        let mut frames = Vec::new();
        for news in news {
            frames.extend(Answer::News(news).encode());
        }
        if !frames.is_empty() {
            write_all(writer, &frames).await?;
        }
        tokio::time::sleep(NEWS_EVERY).await;
        // The source lives as long as it is held here, so the sender does too.
        let _ = tokio::time::timeout(LOOK_EVERY, changes.changed()).await;
    }
}

async fn whole(asker: &Asker) -> Result<Vec<News>, StoreError> {
    let (store, release) = (asker.node.store().clone(), std::sync::Arc::clone(&asker.opened.release));
    blocking(move || picture(&store, &release)).await
}
