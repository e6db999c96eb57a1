//! Following: with each synchronisation a peer's heads are weighed against what this node has of the same logs.
//!
//! A smaller head must be what our own tree had at that size; a larger one is reached by fetching what we lack. Where both
//! can't be true the log lied, and whoever brought the other head brought the proof: evidence. What fits neither is the
//! peer's own fault.

use std::time::Duration;

use libp2p::PeerId;
use registry::Nation;
use registry::store::StoreError;

use super::book::{self, Extended, Weighed};
use super::client::{AskError, Client, Told};
use super::dispute;
use crate::node::{Node, blocking};
use crate::wire::WireError;

/// When peers are asked again for a log's growth that one of them announced and did not have itself yet.
const AGAIN: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(4)];

/// Longest time for a peer to bring what leads to its head: a few MiB, on a bad link.
const FETCH: Duration = Duration::from_secs(60);

/// Why following a peer ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Lie(String),
}

/// Compares every log with what a peer has of it; fetches what is new. Answers whether the peer was heard.
pub(crate) async fn with(node: &Node, peer: PeerId) -> bool {
    let heard = judged(node, &peer, all(node, peer).await).await.is_some();
    if heard {
        // It may be the ally whose word was missing, or a witness.
        node.logs().wake();
    }
    heard
}

/// Compares one log with what a peer has of it. Answers whether the peer was heard.
pub(crate) async fn one(node: &Node, peer: PeerId, nation: &Nation) -> bool {
    judged(node, &peer, only(node, peer, nation).await).await.is_some()
}

/// What a failure means for the peer.
async fn judged<T>(node: &Node, peer: &PeerId, result: Result<T, FollowError>) -> Option<T> {
    match result {
        Ok(value) => return Some(value),
        Err(FollowError::Ask(error)) if error.blames_peer() => {
            node.fault(peer, "protocol", &format!("peer {peer}: {error}")).await;
        }
        Err(FollowError::Lie(why)) => node.fault(peer, "bad_log", &format!("peer {peer}: {why}")).await,
        Err(FollowError::Store(error)) => tracing::error!(%peer, "following logs failed: {error}"),
        Err(FollowError::Ask(error)) => tracing::debug!(%peer, "following logs ended early: {error}"),
    }
    None
}

async fn all(node: &Node, peer: PeerId) -> Result<(), FollowError> {
    let mut client = Client::open(node, peer).await?;
    for told in client.heads().await? {
        hear(node, peer, &mut client, told).await?;
    }
    client.close().await;
    Ok(())
}

async fn only(node: &Node, peer: PeerId, nation: &Nation) -> Result<(), FollowError> {
    let mut client = Client::open(node, peer).await?;
    if let Some(told) = client.checkpoint(nation.clone()).await? {
        hear(node, peer, &mut client, told).await?;
    }
    client.close().await;
    Ok(())
}

/// Does what follows from one answer of a peer.
async fn hear(node: &Node, peer: PeerId, client: &mut Client, told: Told) -> Result<(), FollowError> {
    let note = match told {
        Told::Checkpoint(note) => note,
        Told::Evidence(json) => {
            if dispute::take(node, peer, json).await == Some(false) {
                return Err(FollowError::Lie(
                    "it sent evidence against a log that proves nothing".to_owned(),
                ));
            }
            return Ok(());
        }
    };
    let Some(nation) = book::nation_of(&note) else {
        return Err(FollowError::Lie("it sent a checkpoint that can't be read".to_owned()));
    };
    // Two peers that bring the same news are heard one after the other: the second has nothing to fetch.
    let turn = node.logs().turn(&nation);
    let _turn = turn.lock().await;
    let (store, weighed) = (node.store().clone(), note.clone());
    match blocking(move || book::weigh(&store, &weighed)).await? {
        Weighed::Foreign | Weighed::Disputed => Ok(()),
        Weighed::Known { changed } => {
            if changed {
                node.logs().changed();
            }
            Ok(())
        }
        Weighed::Bad(why) => Err(FollowError::Lie(format!("it sent a checkpoint of `{nation}` that {why}"))),
        Weighed::Fork(evidence) => {
            dispute::raise(node, Some(peer), evidence).await?;
            Ok(())
        }
        Weighed::Ahead { have, size } => {
            if node.logs().appends() && nation == node.store().own() {
                return Ok(super::append::behind(node, peer, note, size).await?);
            }
            let fetching = fetch(node, peer, client, &nation, note, (have, size));
            match tokio::time::timeout(FETCH, fetching).await {
                Ok(result) => result,
                // Others have the same entries, and wait for their turn.
                Err(_) => Err(WireError::Timeout { what: "the entries of a log", limit: FETCH }.into()),
            }
        }
    }
}

/// Fetches what leads to a larger head, and keeps it if it does.
pub(crate) async fn fetch(
    node: &Node,
    peer: PeerId,
    client: &mut Client,
    nation: &Nation,
    note: Vec<u8>,
    (have, size): (u64, u64),
) -> Result<(), FollowError> {
    let entries = match client.entries(nation, have, size).await {
        Ok(entries) => entries,
        // Perhaps it has the head by way of a cosignature, and not the entries yet.
        Err(AskError::Refused { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let (store, head) = (node.store().clone(), note.clone());
    match blocking(move || book::extend(&store, &head, &entries)).await? {
        Extended::Kept => {
            tracing::debug!(%peer, %nation, size, "a log has grown");
            node.logs().changed();
            return Ok(());
        }
        Extended::Fork(evidence) => {
            dispute::raise(node, Some(peer), evidence).await?;
            return Ok(());
        }
        Extended::Wrong => {}
    }
    // Our entries and the peer's together are not what the log signed: one of the two changed them, or the log has
    // another beginning there. The peer must be able to show which.
    let lie = || {
        FollowError::Lie(format!(
            "the entries that it sent of the log of `{nation}` are not those of its head"
        ))
    };
    if have == 0 {
        return Err(lie());
    }
    let proof = match client.proof(nation, have, size).await {
        Ok(proof) => proof,
        Err(AskError::Refused { .. }) => return Err(lie()),
        Err(error) => return Err(error.into()),
    };
    let (store, nation2) = (node.store().clone(), nation.clone());
    match blocking(move || book::accuse(&store, &nation2, &note, &proof)).await? {
        Some(evidence) => {
            dispute::raise(node, Some(peer), evidence).await?;
            Ok(())
        }
        None => Err(lie()),
    }
}

/// Follows up an announcement that a log has grown, or was cosigned.
pub(crate) async fn grown(node: &Node, from: PeerId, nation: Nation, size: u64, cosigned: usize) {
    let here = || {
        let (store, nation) = (node.store().clone(), nation.clone());
        async move {
            let head = blocking(move || book::head(&store, &nation)).await;
            matches!(head, Ok(Some(head)) if head.size > size || head.size == size && head.witnesses.len() >= cosigned)
        }
    };
    if here().await {
        return;
    }
    let Some(_permit) = node.inner().syncer.follow_permit() else { return };
    one(node, from, &nation).await;
    for pause in AGAIN {
        if here().await {
            return;
        }
        tokio::time::sleep(pause).await;
        for (peer, _) in node.book().connected() {
            one(node, peer, &nation).await;
            if here().await {
                return;
            }
        }
    }
}

/// Asks every connected peer about one log at once, for at most `limit`; answers who was heard.
pub(crate) async fn ask_all(node: &Node, nation: &Nation, limit: Duration) -> Vec<Nation> {
    let asked = node.book().connected().into_iter().map(|(peer, other)| async move {
        let heard = tokio::time::timeout(limit, one(node, peer, nation)).await;
        matches!(heard, Ok(true)).then_some(other)
    });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

/// Keeps the wire's errors apart from the store's.
impl From<WireError> for FollowError {
    fn from(error: WireError) -> Self {
        Self::Ask(error.into())
    }
}
