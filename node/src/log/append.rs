//! Our own nation's log, at the one node that holds its key: statements wait until no ally is known to know more of the
//! log than this node does, and are then appended in batches, cosigned by allies, and told of.

use std::time::Duration;

use libp2p::PeerId;
use registry::Nation;
use registry::store::{OwnLog, StoreError};
use tokio::sync::oneshot;

use super::book::{self, Weighed};
use super::client::{Client, Told};
use super::{dispute, follow, witness};
use crate::error::{Code, Problem};
use crate::events::Event;
use crate::gossip;
use crate::node::{Node, blocking};
use crate::swarm::Command;

/// Statements that come within so long of each other are appended together, under one checkpoint.
const BATCH: Duration = Duration::from_millis(50);
/// How long after the node's start it waits for those allies that are not connected yet, once one is.
const SETTLE: Duration = Duration::from_secs(3);
/// Between two looks whether they are.
const SETTLE_CHECK: Duration = Duration::from_millis(50);
/// Longest wait for one ally's answer when it is asked what it knows of our log.
const CONFIRM: Duration = Duration::from_secs(10);
/// How long allies are waited for before they are told that the log has grown; cosignatures that come later are told again.
const FIRST_COSIGNATURES: Duration = Duration::from_millis(700);

/// Appends whenever there is something to append, until the node ends.
pub(super) async fn run(node: Node) {
    let every = Duration::from_secs(node.config().p2p.sync_secs.max(1));
    loop {
        if let Err(error) = turn(&node).await {
            tracing::error!("our log was not appended to: {error}");
        }
        tokio::select! {
            () = node.logs().wake.notified() => tokio::time::sleep(BATCH).await,
            () = tokio::time::sleep(every) => {}
        }
    }
}

async fn turn(node: &Node) -> Result<(), StoreError> {
    let own = node.store().own();
    let looking = node.clone();
    let (pending, disputed) = blocking(move || {
        let store = looking.store();
        Ok::<_, StoreError>((looking.logs().waiting(store)?.len(), book::is_disputed(store, &store.own())?))
    })
    .await?;
    if disputed || matches!(node.store().own_log(), OwnLog::Behind { .. }) {
        return Ok(());
    }
    if pending > 0 {
        if !confirm(node, &own).await? {
            return Ok(());
        }
        let turn = node.logs().turn(&own);
        let _turn = turn.lock().await;
        let appender = node.clone();
        let head = blocking(move || match &appender.logs().log_key {
            Some(key) => book::append(appender.store(), key),
            None => Ok(None),
        })
        .await?;
        if let Some(head) = head {
            tracing::info!(size = head.size, "our log has grown");
            node.logs().changed();
        }
    }
    cosigned(node, &own).await
}

/// Has the newest checkpoint cosigned by those allies that have not yet, and tells everybody. An ally that dawdles holds
/// up neither the others nor the next entries.
async fn cosigned(node: &Node, own: &Nation) -> Result<(), StoreError> {
    let (store, nation) = (node.store().clone(), own.clone());
    let Some(head) = blocking(move || book::head(&store, &nation)).await? else { return Ok(()) };
    let (done, first) = oneshot::channel::<()>();
    let (asking, nation) = (node.clone(), own.clone());
    node.spawn("cosignatures", async move {
        witness::gather(&asking, &head).await;
        drop(done);
        // Who was still being asked for an earlier head was passed over.
        if tell(&asking, &nation).await > head.size {
            asking.logs().wake();
        }
    });
    // An error says that all have answered.
    let _ = tokio::time::timeout(FIRST_COSIGNATURES, first).await;
    tell(node, own).await;
    Ok(())
}

/// Gossips our newest head, once for each state that it is in. Answers its size.
async fn tell(node: &Node, own: &Nation) -> u64 {
    let (store, nation) = (node.store().clone(), own.clone());
    let head = match blocking(move || book::head(&store, &nation)).await {
        Ok(Some(head)) => head,
        Ok(None) => return 0,
        Err(error) => {
            tracing::error!("our log could not be read to tell of it: {error}");
            return 0;
        }
    };
    if !node.logs().tell_once(head.size, head.witnesses.len()) {
        return head.size;
    }
    if let Some(network) = node.network()
        && let Some(message) = gossip::compose_growth(head.nation.clone(), head.size, head.witnesses.len())
    {
        network.send(Command::Publish(message)).await;
    }
    head.size
}

/// Whether anything may be appended: no ally that was asked knows more of our log, or something else, and one was asked.
async fn confirm(node: &Node, own: &Nation) -> Result<bool, StoreError> {
    if node.store().own_log() == OwnLog::Confirmed {
        return Ok(true);
    }
    let allies = book::allies(node.store());
    let connected = || {
        let connected = node.book().connected();
        allies.iter().filter(|ally| connected.iter().any(|(_, nation)| nation == *ally)).count()
    };
    let mut heard = 0;
    if !allies.is_empty() {
        while (1..allies.len()).contains(&connected()) && node.age() < SETTLE {
            tokio::time::sleep(SETTLE_CHECK).await;
        }
        let nations = follow::ask_all(node, own, CONFIRM).await;
        heard = allies.iter().filter(|ally| nations.contains(ally)).count();
        // A witness may have cosigned more than it keeps yet: it says so when it is asked for what we have.
        let (store, nation) = (node.store().clone(), own.clone());
        if let Some(head) = blocking(move || book::head(&store, &nation)).await? {
            let _ = tokio::time::timeout(CONFIRM, witness::gather(node, &head)).await;
        }
    }
    let (store, nation) = (node.store().clone(), own.clone());
    if blocking(move || book::is_disputed(&store, &nation)).await? {
        return Ok(false);
    }
    let asked = heard > 0 || allies.is_empty() || node.config().log.standalone;
    Ok(asked && node.store().confirm_log() == OwnLog::Confirmed)
}

/// A peer has a checkpoint of our log beyond what this node has: nothing is appended until a person looked.
pub(super) async fn behind(node: &Node, peer: PeerId, note: Vec<u8>, size: u64) -> Result<(), StoreError> {
    let store = node.store().clone();
    blocking(move || book::heard_of_ours(&store, &note)).await?;
    let nation = node.book().nation(&peer);
    if !node.logs().note_ahead(size, nation.clone()) {
        return Ok(());
    }
    let message = behind_text(size, nation.as_ref());
    tracing::error!(%peer, "{message}");
    let peer = Some(peer.to_base58());
    node.events().send(Event::Alert { code: "log-behind".to_owned(), message, peer, nation });
    node.logs().changed();
    Ok(())
}

/// What people are told of it.
pub(super) fn behind_text(size: u64, nation: Option<&Nation>) -> String {
    let who =
        nation.map_or("this node's own last checkpoint".to_owned(), |nation| format!("a node of `{nation}`"));
    format!(
        "{who} knows {size} entries of our log, more than lie here: this node was restored from a backup, or another one appends too; nothing is appended until `steelyard log recover` has fetched what is missing"
    )
}

/// What a recovery came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recovered {
    /// Entries before.
    pub(crate) from: u64,
    /// Entries after.
    pub(crate) to: u64,
    /// Peers that were asked.
    pub(crate) asked: usize,
}

/// Fetches from connected peers what they know of our log and this node does not, and lets appending go on.
pub(crate) async fn recover(node: &Node) -> Result<Recovered, Problem> {
    let own = node.store().own();
    let size = || {
        let (store, own) = (node.store().clone(), own.clone());
        async move {
            Ok::<_, Problem>(blocking(move || book::head(&store, &own)).await?.map_or(0, |head| head.size))
        }
    };
    let from = size().await?;
    let peers = node.book().connected();
    let mut asked = 0;
    for (peer, _) in &peers {
        match tokio::time::timeout(CONFIRM * 6, recover_from(node, *peer, &own)).await {
            Ok(Ok(())) => asked += 1,
            Ok(Err(error)) => tracing::warn!(%peer, "nothing was recovered from it: {error}"),
            Err(_) => tracing::warn!(%peer, "nothing was recovered from it: it took too long"),
        }
    }
    if asked == 0 {
        return Err(Problem::new(Code::Network, "no ally could be asked what it knows of our log")
            .hint("connect with one; `steelyard peers` shows which are"));
    }
    let (store, named) = (node.store().clone(), own.clone());
    if blocking(move || book::is_disputed(&store, &named)).await? {
        return Err(Problem::new(
            Code::Conflict,
            "our log says two things that can't both be true: this node, or another with the same key, appended after it was restored from a backup",
        )
        .hint("`steelyard evidence ls` shows what; allies hold the log for a lie until their people decide"));
    }
    let to = size().await?;
    if let OwnLog::Behind { known } = node.store().own_log() {
        return Err(Problem::new(
            Code::Conflict,
            format!("this node signed {known} entries of our log, and no ally that is connected has them all: {to} are here"),
        )
        .hint("connect with the allies that cosigned last, and try again"));
    }
    node.logs().wake();
    // What was signed comes with the statements themselves, as far as allies may have them.
    for (peer, _) in peers {
        crate::sync::kick(node, peer);
    }
    Ok(Recovered { from, to, asked })
}

async fn recover_from(node: &Node, peer: PeerId, own: &Nation) -> Result<(), follow::FollowError> {
    let mut client = Client::open(node, peer).await?;
    let Some(Told::Checkpoint(note)) = client.checkpoint(own.clone()).await? else { return Ok(()) };
    let turn = node.logs().turn(own);
    let _turn = turn.lock().await;
    let (store, weighed) = (node.store().clone(), note.clone());
    match blocking(move || book::weigh(&store, &weighed)).await? {
        Weighed::Ahead { have, size } => {
            follow::fetch(node, peer, &mut client, own, note, (have, size)).await?
        }
        Weighed::Fork(evidence) => dispute::raise(node, Some(peer), evidence).await?,
        _ => {}
    }
    client.close().await;
    Ok(())
}
