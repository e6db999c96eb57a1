//! Evidence: two heads of one log that can't both be true, signed by that log. It is portable: whoever has the nation's
//! root verifies it, offline. Once it is kept, nothing more of that log is accepted or cosigned until a person decides.

use libp2p::PeerId;
use registry::store::StoreError;

use super::book::{self, Claim};
use crate::events::Event;
use crate::gossip;
use crate::node::{Node, blocking};
use crate::swarm::Command;
use crate::wire::MAX_EVIDENCE;

/// Takes evidence that a peer handed over. `None`: not for us (its nation is not pinned here); `Some(false)`: it proves
/// nothing, and no honest peer hands it on.
pub(crate) async fn take(node: &Node, peer: PeerId, json: Vec<u8>) -> Option<bool> {
    if json.len() > MAX_EVIDENCE {
        return Some(false);
    }
    let (store, claim) = (node.store().clone(), json.clone());
    match blocking(move || Ok::<_, StoreError>(book::examine(&store, &claim))).await {
        Ok(Claim::Foreign) => None,
        Ok(Claim::False(why)) => {
            tracing::warn!(%peer, "evidence that proves nothing: {why}");
            Some(false)
        }
        Ok(Claim::Proven) => match raise(node, Some(peer), json).await {
            Ok(()) => Some(true),
            Err(error) => {
                tracing::error!("evidence could not be kept: {error}");
                None
            }
        },
        Err(error) => {
            tracing::error!("evidence could not be looked at: {error}");
            None
        }
    }
}

/// Keeps evidence that was verified here, tells people, and hands it on. Nothing happens where as much is known already.
pub(crate) async fn raise(node: &Node, peer: Option<PeerId>, evidence: Vec<u8>) -> Result<(), StoreError> {
    let (store, kept) = (node.store().clone(), evidence.clone());
    let Some(kept) = blocking(move || book::keep_evidence(&store, &kept)).await? else { return Ok(()) };
    let message = format!(
        "the log of `{}` lies: {}; nothing more of it is accepted or cosigned here; the proof is {} (`steelyard evidence show`); speak with its people",
        kept.nation,
        kept.summary,
        kept.path.display()
    );
    tracing::error!("{message}");
    node.events().send(Event::Alert {
        code: "log-evidence".to_owned(),
        message,
        peer: peer.map(|peer| peer.to_base58()),
        nation: Some(kept.nation),
    });
    node.logs().changed();
    if let Some(network) = node.network()
        && let Some(message) = gossip::compose_evidence(&evidence)
    {
        network.send(Command::Publish(message)).await;
    }
    Ok(())
}
