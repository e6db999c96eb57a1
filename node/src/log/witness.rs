//! Cosignatures: given to allies' logs, and asked of allies for ours.

use libp2p::PeerId;
use registry::store::StoreError;
use registry::{Nation, Timestamp};

use super::book::{self, Cosigned, Head};
use super::client::{AskError, Client};
use super::{dispute, follow};
use crate::node::{Node, blocking};
use crate::wire::LogRefusal;

/// Cosigns a checkpoint if it continues what was cosigned last; what is now cosigned is durable before this returns.
/// `from` is the peer that asked, if it was one.
pub(crate) async fn cosign(
    node: &Node,
    from: Option<PeerId>,
    body: Vec<u8>,
) -> Result<Result<Vec<u8>, (LogRefusal, u64)>, StoreError> {
    if !node.logs().witnesses() {
        return Ok(Err((LogRefusal::NoWitness, 0)));
    }
    let Some(nation) = book::asked_about(&body) else { return Ok(Err((LogRefusal::Malformed, 0))) };
    if node.store().trust().member(&nation).is_err() {
        return Ok(Err((LogRefusal::Unknown, 0)));
    }
    let witness = node.clone();
    let guard = node.logs().cosigning.lock().await;
    let cosigned = blocking(move || match &witness.logs().witness_key {
        Some(key) => book::cosign(witness.store(), key, &body, Timestamp::now()),
        None => Ok(Cosigned::Refused(LogRefusal::NoWitness, 0)),
    });
    let cosigned = cosigned.await?;
    drop(guard);
    match cosigned {
        Cosigned::Lines { lines, nation, size } => {
            node.logs().changed();
            let (store, own) = (node.store().clone(), nation.clone());
            let here = blocking(move || book::head(&store, &own)).await?.map_or(0, |head| head.size);
            if let Some(peer) = from
                && here < size
            {
                // What was vouched for is fetched at once: this node may be the only one that can show it later.
                let follower = node.clone();
                node.spawn("log", async move { follow::one(&follower, peer, &nation).await });
            }
            Ok(Ok(lines))
        }
        Cosigned::Refused(why, size) => {
            if let (LogRefusal::BadProof, Some(peer)) = (why, from) {
                // Its head is signed and does not fit what was cosigned: its entries will tell who is wrong.
                let follower = node.clone();
                node.spawn("log", async move { follow::one(&follower, peer, &nation).await });
            }
            Ok(Err((why, size)))
        }
        Cosigned::Fork(evidence) => {
            dispute::raise(node, from, evidence).await?;
            Ok(Err((LogRefusal::Disputed, 0)))
        }
    }
}

/// Asks one node of each connected ally that has not cosigned `head` yet.
pub(super) async fn gather(node: &Node, head: &Head) {
    let allies = book::allies(node.store());
    let missing = allies.into_iter().filter(|ally| !head.witnesses.contains(ally));
    let connected = node.book().connected();
    let asked = missing.map(|ally| {
        let peers: Vec<PeerId> =
            connected.iter().filter(|(_, nation)| *nation == ally).map(|(peer, _)| *peer).collect();
        async move {
            for peer in peers {
                // One question at a time to each; what is new meanwhile is asked when that one is answered.
                let Some(_asking) = node.logs().begin_asking(peer) else { continue };
                match ask(node, peer, &ally, head).await {
                    Ok(true) => return,
                    Ok(false) => {}
                    Err(error) => tracing::debug!(%peer, nation = %ally, "no cosignature: {error}"),
                }
            }
        }
    });
    futures::future::join_all(asked).await;
}

/// Why an ally did not cosign.
#[derive(Debug, thiserror::Error)]
enum GatherError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Asks one peer; whether it cosigned.
async fn ask(node: &Node, peer: PeerId, ally: &Nation, head: &Head) -> Result<bool, GatherError> {
    let mut client = Client::open(node, peer).await?;
    // Where it stands is known from last time, or from its first answer.
    let mut old = node.logs().cosigned_before(ally);
    for _ in 0..2 {
        let (store, asked) = (node.store().clone(), head.clone());
        let Some(body) = blocking(move || book::request(&store, &asked, old)).await? else {
            return Ok(false);
        };
        match client.cosign(body).await {
            Ok(lines) => {
                let (store, asked, ally2) = (node.store().clone(), head.clone(), ally.clone());
                let kept = blocking(move || book::take_cosignatures(&store, &asked, &ally2, &lines)).await?;
                if kept {
                    node.logs().remember_cosigned(ally, head.size);
                    node.logs().changed();
                } else {
                    let why = format!(
                        "peer {peer} sent a cosignature that does not verify, or is of a time that this node's clock can't explain"
                    );
                    node.fault(&peer, "bad_cosignature", &why).await;
                }
                client.close().await;
                return Ok(kept);
            }
            Err(AskError::Refused { why: LogRefusal::Conflict, size }) if size > head.size => {
                // It must show what it cosigned; a number alone stops nobody.
                client.close().await;
                follow::one(node, peer, &head.nation).await;
                return Ok(false);
            }
            Err(AskError::Refused { why: LogRefusal::Conflict, size }) if size != old => {
                node.logs().remember_cosigned(ally, size);
                old = size;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}
