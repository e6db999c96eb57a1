//! Time passes: the plan is told, and the world sees how far it is.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use registry::store::Partial;
use tokio::time::Instant;

use super::Running;
use super::sources::{ALONE, ALONE_AT_FIRST};
use crate::events::{PeerShare, PeerState};
use crate::transfer::PullError;
use crate::transfer::plan::{Event as Happened, PeerKey};

/// Weight of the newest sample in the rates shown.
const RATE_WEIGHT: f64 = 0.2;
/// Shortest time, in seconds, over which a rate is measured.
const SAMPLE: f64 = 0.05;

/// What was shown last.
pub(super) struct Shown {
    rate: f64,
    done: u64,
    at: Instant,
    /// Each peer's verified bytes.
    peers: BTreeMap<String, u64>,
}

impl Default for Shown {
    fn default() -> Self {
        Self { rate: 0.0, done: 0, at: Instant::now(), peers: BTreeMap::new() }
    }
}

impl Shown {
    /// Bytes were found here: they do not count as fast ones.
    pub(super) fn known(&mut self, bytes: u64) {
        self.done += bytes;
    }
}

impl Running<'_> {
    pub(super) fn on_tick(&mut self) -> Result<(), PullError> {
        self.tell_what_came()?;
        self.happened(Happened::Tick)?;
        self.show();
        let joined = self.sources.peers.values().any(|peer| peer.joined);
        let waiting = self.plan.is_stuck() || !self.wanted_maps.is_empty();
        let alone = waiting && (!joined || self.plan.is_stuck());
        if !alone && self.verifying.is_empty() {
            self.sources.alone_since = None;
        }
        self.look_for_peers(alone || (waiting && self.sources.peers.len() < 2));
        if !alone {
            return Ok(());
        }
        let since = *self.sources.alone_since.get_or_insert_with(Instant::now);
        let limit = if self.sources.ever_joined { ALONE } else { ALONE_AT_FIRST };
        if since.elapsed() < limit { Ok(()) } else { Err(self.nobody()) }
    }

    fn tell_what_came(&mut self) -> Result<(), PullError> {
        let received: Vec<(PeerKey, u64)> = self
            .sources
            .peers
            .iter_mut()
            .filter_map(|(key, peer)| {
                let all = peer.received.load(Ordering::Relaxed);
                let new = all.saturating_sub(peer.seen);
                peer.seen = all;
                (new > 0).then_some((*key, new))
            })
            .collect();
        let wire: u64 = received.iter().map(|(_, bytes)| bytes).sum();
        for (key, bytes) in received {
            if let Some(share) = self.sources.share(key) {
                share.bytes_wire += bytes;
            }
            self.happened(Happened::Bytes { peer: key, bytes })?;
        }
        if wire > 0 {
            self.transfer.update(|info| info.bytes_wire += wire);
        }
        let known: Vec<(PeerKey, libp2p::PeerId)> =
            self.sources.peers.iter().map(|(key, peer)| (*key, peer.id)).collect();
        for (key, id) in known {
            if let Some(time) = self.node.book().round_trip(&id) {
                self.happened(Happened::RoundTrip { peer: key, time })?;
            }
        }
        Ok(())
    }

    /// Shows the world how far it is.
    pub(super) fn show(&mut self) {
        let here: u64 = self.partials.values().map(Partial::bytes_done).sum();
        let done = self.bytes_whole + here;
        let verified = self.bytes_whole + self.partials.values().map(Partial::bytes_hashed).sum::<u64>();
        let passed = self.shown.at.elapsed().as_secs_f64();
        if passed > SAMPLE {
            let latest = done.saturating_sub(self.shown.done) as f64 / passed;
            self.shown.rate += (latest - self.shown.rate) * RATE_WEIGHT;
            (self.shown.done, self.shown.at) = (done, Instant::now());
            self.show_peers(passed);
        }
        let rate = self.shown.rate as u64;
        let useful = |share: &&PeerShare| share.chunks + share.bad_chunks > 0;
        let shares: Vec<PeerShare> = self.sources.shares.values().filter(useful).cloned().collect();
        let now = self.transfer.info();
        if (now.bytes_done, now.bytes_verified, now.rate) != (done, verified, rate) || now.peers != shares {
            self.transfer.update(|info| {
                info.bytes_done = done;
                info.bytes_verified = verified;
                info.rate = rate;
                info.peers = shares;
            });
        }
    }

    fn show_peers(&mut self, passed: f64) {
        let keys: Vec<PeerKey> = self.sources.peers.keys().copied().collect();
        for key in keys {
            let standing = self.plan.standing(key);
            let Some(share) = self.sources.share(key) else { continue };
            let before = self.shown.peers.insert(share.peer_id.clone(), share.bytes).unwrap_or(share.bytes);
            let latest = share.bytes.saturating_sub(before) as f64 / passed;
            share.rate = (share.rate as f64 + (latest - share.rate as f64) * RATE_WEIGHT) as u64;
            share.state = match standing {
                Some((_, true)) => PeerState::Choked,
                Some((true, false)) => PeerState::Active,
                _ => PeerState::Idle,
            };
        }
    }
}
