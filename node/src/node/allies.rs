//! What a node does with its allies: dialling them, asking them for news, telling them, finding who has what, and
//! letting go of those that are trusted no longer.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use libp2p::PeerId;
use registry::admit::Door;
use registry::statement::{Kind, Standing, Statement};
use registry::store::StoreError;
use registry::trust::Ending;
use registry::{Digest, Nation, Signed, Timestamp};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::{Node, blocking};
use crate::discovery::{self, AddressError};
use crate::events::Event;
use crate::gossip;
use crate::reach;
use crate::swarm::{Command, Notice};
use crate::transfer::Outside;

/// How often every peer's certificate is checked again: one that ended, or whose nation was removed, goes.
const RECHECK: Duration = Duration::from_secs(10);
/// Longest wait for a configured peer at a node's start, before somebody who asks peers is told that there are none.
const FIRST_PEER: Duration = Duration::from_secs(5);
/// Longest time that somebody who asks all peers waits for their news: a slow one brings its own later.
const NEWS: Duration = Duration::from_secs(5);
/// Longest wait for an answer of the provider table.
const PROVIDERS_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a peer could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address is no address, or its name does not resolve.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Nobody answered, or who did is not admitted.
    #[error("{address} could not be reached: {why}")]
    Failed {
        /// The address.
        address: String,
        /// Why.
        why: String,
    },
    /// There is no network.
    #[error("this node is offline; start it with its network")]
    Offline,
}

impl Node {
    /// Tells the allies of a statement that was accepted here: a recall in full, of everything else that there is news.
    /// A recall also stops our own transfers of what it hits, and our announcing of it.
    pub async fn announce(&self, digest: Digest) {
        let store = self.store().clone();
        let found = blocking(move || {
            let signed = store.statement(&digest)?;
            Ok::<_, StoreError>(signed.and_then(|signed| {
                let statement = signed.peek().ok()?;
                Some((signed, statement))
            }))
        });
        let (signed, statement) = match found.await {
            Ok(Some(found)) => found,
            Ok(None) => return,
            Err(error) => {
                tracing::error!("{digest} could not be read to announce it: {error}");
                return;
            }
        };
        crate::log::kept(self, statement.nation());
        match statement.kind() {
            Kind::Recall => self.recalled(&signed, &statement).await,
            Kind::Release => self.provide(digest).await,
            _ => {}
        }
        if let Some(network) = self.network()
            && let Some(message) = gossip::compose(self.store(), &signed, &statement)
        {
            network.send(Command::Publish(message)).await;
        }
    }

    /// What follows here from a recall that was stored: transfers and servers look again, providing ends.
    pub(crate) async fn recalled(&self, _signed: &Signed, statement: &Statement) {
        self.inner.generation.fetch_add(1, Ordering::AcqRel);
        self.inner.transfers.tell(Outside::Reconsider);
        if let Statement::Recall(recall) = statement
            && let Some(network) = self.network()
        {
            let key = discovery::provider_key(&recall.target.digest());
            network.send(Command::StopProviding(key)).await;
        }
    }

    /// Connects to `address`; answers the peer's identifier.
    pub async fn dial(&self, address: String) -> Result<String, DialError> {
        let Some(network) = self.network() else { return Err(DialError::Offline) };
        let (bare, peer) = discovery::split_peer(&address)?;
        if reach::is_circuit(&bare) {
            reach::approach(self, &bare).await?;
        }
        let addresses = discovery::resolve(&bare).await?;
        let mut why = "no address to dial".to_owned();
        // With a peer named, all addresses are one dial; without, one after the other.
        let groups: Vec<_> = if peer.is_some() {
            vec![addresses]
        } else {
            addresses.into_iter().map(|one| vec![one]).collect()
        };
        for addresses in groups {
            let (reply, answer) = oneshot::channel();
            network.send(Command::Dial { peer, addresses, reply }).await;
            match answer.await {
                Ok(Ok(peer)) => return Ok(peer.to_base58()),
                // The address is named already.
                Ok(Err(error)) => {
                    why = error.strip_prefix(&format!("{address}: ")).unwrap_or(&error).to_owned();
                }
                Err(_) => why = "the network has ended".to_owned(),
            }
        }
        Err(DialError::Failed { address, why })
    }

    /// Connects to a peer at the addresses that discovery knows.
    pub(crate) async fn dial_peer(&self, peer: PeerId) {
        let Some(network) = self.network() else { return };
        let (reply, answer) = oneshot::channel();
        network.send(Command::Dial { peer: Some(peer), addresses: Vec::new(), reply }).await;
        if let Ok(Err(why)) = answer.await {
            tracing::debug!(%peer, "a provider could not be reached: {why}");
        }
    }

    /// Peers that the provider table names for a release.
    pub(crate) async fn providers(&self, release: Digest) -> Vec<PeerId> {
        let Some(network) = self.network() else { return Vec::new() };
        let (reply, answer) = oneshot::channel();
        network.send(Command::Providers { key: discovery::provider_key(&release), reply }).await;
        tokio::time::timeout(PROVIDERS_TIMEOUT, answer).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Announces that a release is whole here. Only releases for everybody: the table is open to every peer, and that
    /// somebody has a restricted one is told to none but those who may have it.
    pub(crate) async fn provide(&self, release: Digest) {
        let Some(network) = self.network() else { return };
        let store = self.store().clone();
        let fit = blocking(move || {
            let Some((found, signed)) = store.signed_release(&release)? else { return Ok(false) };
            let door = Door::open(&store, Timestamp::now())?;
            let whole = found.files.iter().all(|file| store.has_blob(&file.blake3));
            Ok::<_, StoreError>(
                whole
                    && registry::releasable::to_everybody(&store, &found)?
                    && door.may_be_announced_this(release, &found, &signed)?
                    && registry::admit::binding_recall(&store, &release)?.is_none(),
            )
        });
        if matches!(fit.await, Ok(true)) {
            network.send(Command::Provide(discovery::provider_key(&release))).await;
        }
    }

    /// The table forgets when its keepers restart, and so does ours when we do: everything is announced at the start.
    pub(super) async fn provide_all(self) {
        let store = self.store().clone();
        match blocking(move || store.releases()).await {
            Ok(releases) => {
                for (digest, _) in releases {
                    self.provide(digest).await;
                }
            }
            Err(error) => tracing::error!("releases could not be listed to announce them: {error}"),
        }
    }

    /// Asks every connected peer for news; answers how many were asked. Right after the start it waits a moment for the
    /// first configured peer.
    pub async fn sync_now(&self) -> usize {
        self.wait_for_first_peer().await;
        let peers = self.inner.book.connected();
        let all = peers.iter().map(|(peer, _)| crate::sync::sync_peer(self, *peer));
        if tokio::time::timeout(NEWS, futures::future::join_all(all)).await.is_err() {
            tracing::debug!("not every peer brought its news within {} s", NEWS.as_secs());
        }
        peers.len()
    }

    async fn wait_for_first_peer(&self) {
        if !self.is_online() || self.config().p2p.peers.is_empty() || self.inner.first_wait.get().is_some() {
            return;
        }
        let mut events = self.events().subscribe();
        while self.inner.book.connected().is_empty() {
            let left = FIRST_PEER.saturating_sub(self.inner.started.elapsed());
            let up = async {
                loop {
                    match events.recv().await {
                        Ok(Event::PeerUp { .. }) | Err(_) => return,
                        Ok(_) => {}
                    }
                }
            };
            if left.is_zero() || tokio::time::timeout(left, up).await.is_err() {
                break;
            }
        }
        let _ = self.inner.first_wait.set(());
    }

    /// What follows from a root or a membership statement that was stored: whoever serves looks again, and every connected
    /// peer's certificate is checked against the trust of now.
    pub async fn trust_changed(&self, statement: &Statement) {
        let (nation, pinned) = match statement {
            Statement::Root(root) => (root.nation.clone(), true),
            Statement::Membership(said) => (said.member.clone(), said.standing == Standing::Active),
            _ => return,
        };
        self.inner.generation.fetch_add(1, Ordering::AcqRel);
        self.inner.transfers.tell(Outside::Reconsider);
        self.recheck_peers().await;
        if self.store().trust().member(&nation).is_ok() {
            // Active again: dialled and asked for news, as after it was pinned.
            self.events().send(Event::Trust { nation, pinned });
        }
    }

    /// Disconnects every peer whose certificate is no longer believed.
    async fn recheck_peers(&self) {
        let trust = self.store().trust();
        for (peer, why) in self.inner.book.unbelieved(&trust, Timestamp::now()) {
            tracing::warn!(%peer, "disconnected: {why}");
            if let Some(network) = self.network() {
                network.send(Command::Disconnect(peer)).await;
            }
        }
    }

    /// Says of each nation's root once how near its end is, and again when it comes nearer.
    fn warn_of_endings(&self, told: &mut BTreeMap<Nation, Ending>) {
        let (trust, now) = (self.store().trust(), Timestamp::now());
        for (nation, member) in trust.members().filter(|(_, member)| member.standing() == Standing::Active) {
            let (expires, ending) = (member.root.expires, Ending::of(member.root.expires, now));
            if ending == told.insert(nation.clone(), ending).unwrap_or_default() {
                continue;
            }
            let message = match ending {
                Ending::Far => continue,
                Ending::Ended => {
                    format!("the root of `{nation}` ended at {expires}: nothing new of it is believed")
                }
                _ => format!(
                    "the root of `{nation}` ends at {expires}; its people should sign the next one before"
                ),
            };
            tracing::warn!(%nation, %expires, ?ending, "{message}");
            let alert = Event::Alert {
                code: "root_ending".to_owned(),
                message,
                peer: None,
                nation: Some(nation.clone()),
            };
            self.events().send(alert);
        }
    }

    /// Closes every connection with a nation's nodes.
    pub async fn disconnect_nation(&self, nation: &Nation) {
        self.inner.generation.fetch_add(1, Ordering::AcqRel);
        let Some(network) = self.network() else { return };
        for (peer, other) in self.inner.book.connected() {
            if other == *nation {
                network.send(Command::Disconnect(peer)).await;
            }
        }
    }

    /// A peer did what no honest peer does.
    pub(crate) async fn fault(&self, peer: &PeerId, code: &str, message: &str) {
        if self.inner.book.fault(peer, code, message)
            && let Some(network) = self.network()
        {
            tracing::warn!(%peer, "disconnected after too many faults");
            network.send(Command::Disconnect(*peer)).await;
        }
    }

    pub(super) async fn watch_notices(self, mut notices: mpsc::Receiver<Notice>) {
        while let Some(notice) = notices.recv().await {
            match notice {
                Notice::Up(peer) => {
                    self.inner.transfers.tell(Outside::Up(peer));
                    crate::sync::kick(&self, peer);
                }
                Notice::Down(peer) => self.inner.syncer.forget(&peer),
                Notice::Gossip { id, from, data } => {
                    let node = self.clone();
                    self.spawn("gossip", async move {
                        let verdict = gossip::receive(&node, from, &data).await;
                        if let Some(network) = node.network() {
                            network.send(Command::Judge { id, from, verdict }).await;
                        }
                    });
                }
            }
        }
    }

    /// Follows changes of trust: new members are asked for news, removed ones disconnected; so are peers whose
    /// certificate has ended.
    pub(super) async fn watch_trust(self) {
        let mut events = self.events().subscribe();
        let mut tick = tokio::time::interval(RECHECK);
        let mut told = BTreeMap::new();
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Ok(Event::Trust { nation, pinned }) => {
                        self.inner.generation.fetch_add(1, Ordering::AcqRel);
                        if pinned {
                            let node = self.clone();
                            self.spawn("synchronisation", async move { node.sync_now().await });
                        } else {
                            self.disconnect_nation(&nation).await;
                        }
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                _ = tick.tick() => {
                    self.recheck_peers().await;
                    self.warn_of_endings(&mut told);
                }
            }
        }
    }

    pub(super) async fn sync_regularly(self) {
        let mut tick = tokio::time::interval(Duration::from_secs(self.config().p2p.sync_secs.max(1)));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            for (peer, _) in self.inner.book.connected() {
                crate::sync::kick(&self, peer);
            }
        }
    }
}
