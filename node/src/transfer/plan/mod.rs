//! Which chunks are asked of whom, and when: decisions only. (state, event, now) -> actions; no clock, no I/O.
//!
//! Files come in as their chunk maps arrive and are opened a few at a time, by rank. A file is cut into pieces of about
//! [`MAX_RANGE`](crate::wire::MAX_RANGE) bytes; a request is a run of missing chunks within one piece. The head of a file
//! goes first, since nothing can be read without it; then the rarest pieces. A peer that holds the whole release is asked
//! for what no other has, as long as those others keep up; peers start at different places, so that mirrors which fetch the
//! same release soon have something to give each other. A peer's window follows its measured rate and round trip. A silent
//! peer is choked and its work given to others; at the end the slowest requests are given to a second peer, and what
//! becomes needless is taken back. What somebody reads while it comes goes before all of this, in its order.

mod assign;
mod event;
mod file;
mod peer;
mod want;

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::{Have, News};

pub use event::{Action, Event, FileKey, Limits, Now, PeerKey, ReaderKey, RequestId};
use file::File;
use peer::{Health, Peer};
use want::Wants;

/// Files that are open at once: enough that small files do not wait for each other, few enough that each is soon done.
const MAX_OPEN: usize = 4;

#[derive(Debug)]
struct Request {
    peer: PeerKey,
    file: FileKey,
    first: u32,
    count: u32,
    bytes: u64,
    since: Now,
    /// Whether it repeats another, or is repeated by another.
    twice: bool,
}

/// The state of one transfer.
#[derive(Debug)]
pub struct Plan {
    limits: Limits,
    /// Files that are not opened yet, by rank.
    waiting: BTreeMap<(u64, FileKey), Vec<u32>>,
    opening: BTreeMap<FileKey, Vec<u32>>,
    files: BTreeMap<FileKey, File>,
    complete: BTreeSet<FileKey>,
    peers: BTreeMap<PeerKey, Peer>,
    requests: BTreeMap<RequestId, Request>,
    wants: Wants,
    next: RequestId,
    last_tick: Now,
}

impl Plan {
    /// A plan without files or peers.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: BTreeMap::new(),
            opening: BTreeMap::new(),
            files: BTreeMap::new(),
            complete: BTreeSet::new(),
            peers: BTreeMap::new(),
            requests: BTreeMap::new(),
            wants: Wants::default(),
            next: 0,
            last_tick: Now::ZERO,
        }
    }

    /// Files whose every chunk is here.
    pub fn complete(&self) -> &BTreeSet<FileKey> {
        &self.complete
    }

    /// Whether there is something to fetch and nobody of whom it could be asked.
    pub fn is_stuck(&self) -> bool {
        self.opening.is_empty() && self.requests.is_empty() && self.files.values().any(|file| file.left > 0)
    }

    /// Whether a peer is asked for something, and whether it is choked.
    pub fn standing(&self, peer: PeerKey) -> Option<(bool, bool)> {
        self.peers.get(&peer).map(|peer| (peer.requests > 0, peer.choked))
    }

    /// Takes what happened and answers what is to be done.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Joined { peer, seed } => {
                self.peers.insert(peer, Peer::new(seed, now));
            }
            Event::Available { peer, news } => self.available(peer, &news),
            Event::RoundTrip { peer, time } => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.round_trip(time);
                }
            }
            Event::File { file, rank, lens } => {
                // Before all ranks is the place of what somebody reads.
                let rank = if self.wants.has(file) { 0 } else { rank.saturating_add(1) };
                self.waiting.insert((rank, file), lens);
            }
            Event::Opened { file, missing } => self.opened(file, &missing, &mut actions),
            Event::Damaged { file, lens, missing } => self.damaged(file, lens, &missing),
            Event::Chunk { file, index } => self.chunk(file, index, &mut actions),
            Event::Finished { request } => self.end(request),
            Event::Refused { request } => self.refused(request),
            Event::Lost { peer } => self.lose(peer),
            Event::Bytes { peer, bytes } => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.brought(bytes, now);
                }
            }
            Event::Wanted { reader, file, first, count } => self.want(reader, file, first, count),
            Event::Unwanted { reader } => self.wants.remove(reader),
            Event::Tick => {
                self.tick(now, &mut actions);
                self.hasten(now, &mut actions);
            }
        }
        self.open(&mut actions);
        self.assign(now, &mut actions);
        actions
    }

    fn available(&mut self, key: PeerKey, news: &News) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.told(news);
        match (news.file, &news.have) {
            (Some(file), Have::Runs(runs)) if !news.replaces => self.look_at(key, file, runs),
            (Some(file), _) => self.look(key, file),
            (None, _) => {
                let files: Vec<FileKey> = self.files.keys().copied().collect();
                files.into_iter().for_each(|file| self.look(key, file));
            }
        }
    }

    /// The same for a few more chunks.
    fn look_at(&mut self, key: PeerKey, file_key: FileKey, runs: &[(u32, u32)]) {
        let (Some(peer), Some(file)) = (self.peers.get_mut(&key), self.files.get(&file_key)) else { return };
        if peer.has_all(file_key) {
            return;
        }
        let useful = peer.useful.entry(file_key).or_default();
        for &(first, count) in runs {
            // Both ends lie within the file, or no piece is found.
            let pieces = file.piece_of(first)..=file.piece_of(first.saturating_add(count.saturating_sub(1)));
            useful.extend(file.pending.range(pieces).copied());
        }
    }

    /// Finds the pieces of a file for which a peer is of use.
    fn look(&mut self, key: PeerKey, file_key: FileKey) {
        let (Some(peer), Some(file)) = (self.peers.get_mut(&key), self.files.get(&file_key)) else { return };
        if peer.has_all(file_key) {
            peer.useful.remove(&file_key);
            return;
        }
        let has = |piece: &u32| file.piece(*piece).any(|chunk| peer.has(file_key, chunk));
        let useful: BTreeSet<u32> = file.pending.iter().copied().filter(has).collect();
        peer.useful.insert(file_key, useful);
    }

    fn opened(&mut self, key: FileKey, missing: &[u32], actions: &mut Vec<Action>) {
        let Some(lens) = self.opening.remove(&key) else { return };
        let file = File::new(lens, missing);
        let done = file.left == 0;
        self.files.insert(key, file);
        if done {
            self.finish(key, actions);
        } else {
            let peers: Vec<PeerKey> = self.peers.keys().copied().collect();
            peers.into_iter().for_each(|peer| self.look(peer, key));
        }
    }

    /// What the disk lost is fetched again, also of a file that was complete.
    fn damaged(&mut self, key: FileKey, lens: Vec<u32>, missing: &[u32]) {
        self.complete.remove(&key);
        let file = self.files.entry(key).or_insert_with(|| File::new(lens, &[]));
        missing.iter().for_each(|&chunk| file.lose(chunk));
        let peers: Vec<PeerKey> = self.peers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.look(peer, key));
    }

    fn chunk(&mut self, key: FileKey, index: u32, actions: &mut Vec<Action>) {
        let Some(file) = self.files.get_mut(&key) else { return };
        if !file.keep(index) {
            return;
        }
        self.settle(key, index);
        let Some(file) = self.files.get(&key) else { return };
        self.wants.came(key, file);
        if file.left == 0 {
            self.finish(key, actions);
        }
        self.take_back(key, index, actions);
    }

    /// Where nothing of a chunk's piece is left to ask for, nobody looks at it again.
    fn settle(&mut self, key: FileKey, chunk: u32) {
        let Some(file) = self.files.get(&key) else { return };
        let piece = file.piece_of(chunk);
        if !file.pending.contains(&piece) {
            for peer in self.peers.values_mut() {
                if let Some(useful) = peer.useful.get_mut(&key) {
                    useful.remove(&piece);
                }
            }
        }
    }

    fn finish(&mut self, file: FileKey, actions: &mut Vec<Action>) {
        self.files.remove(&file);
        self.complete.insert(file);
        self.peers.values_mut().for_each(|peer| peer.forget_file(file));
        actions.push(Action::Complete { file });
    }

    /// A request is over, however: what it did not bring is missing again.
    fn end(&mut self, id: RequestId) {
        let Some(request) = self.requests.remove(&id) else { return };
        if let Some(peer) = self.peers.get_mut(&request.peer) {
            peer.answered(request.bytes);
        }
        let Some(file) = self.files.get_mut(&request.file) else { return };
        for piece in file.give_back(request.first, request.count) {
            for peer in self.peers.values_mut() {
                if !peer.has_all(request.file) && file.piece(piece).any(|chunk| peer.has(request.file, chunk))
                {
                    peer.useful.entry(request.file).or_default().insert(piece);
                }
            }
        }
    }

    /// What the peer has is less than it said.
    fn refused(&mut self, id: RequestId) {
        if let Some(request) = self.requests.get(&id)
            && let Some(peer) = self.peers.get_mut(&request.peer)
        {
            peer.lied(request.file);
        }
        self.end(id);
    }

    fn lose(&mut self, key: PeerKey) {
        // First the peer, so that what it held is not found useful any more.
        self.peers.remove(&key);
        for id in self.requests_of(key) {
            self.end(id);
        }
    }

    fn requests_of(&self, key: PeerKey) -> Vec<RequestId> {
        self.requests.iter().filter(|(_, request)| request.peer == key).map(|(id, _)| *id).collect()
    }

    fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        let passed = now.saturating_sub(self.last_tick).as_secs_f64().max(0.001);
        self.last_tick = now;
        let mut unwell = Vec::new();
        for (key, peer) in &mut self.peers {
            match peer.tick(passed, now, self.limits.stall) {
                Health::Well => {}
                Health::Silent => {
                    peer.choked = true;
                    unwell.push((*key, false));
                }
                Health::Stalled => unwell.push((*key, true)),
            }
        }
        for (key, stalled) in unwell {
            if stalled {
                self.lose(key);
                actions.push(Action::Leave { peer: key });
            } else {
                for request in self.requests_of(key) {
                    self.end(request);
                    actions.push(Action::Cancel { peer: key, request });
                }
            }
        }
    }

    fn open(&mut self, actions: &mut Vec<Action>) {
        while let Some((&(rank, file), _)) = self.waiting.first_key_value() {
            let most = if rank == 0 { want::MAX_WANTED_OPEN } else { MAX_OPEN };
            if self.files.len() + self.opening.len() >= most {
                return;
            }
            let Some(lens) = self.waiting.remove(&(rank, file)) else { return };
            self.opening.insert(file, lens);
            actions.push(Action::Open { file });
        }
    }
}
