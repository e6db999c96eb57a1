//! Which chunks are asked of whom, and when: decisions only. (state, event, now) -> actions; no clock, no I/O.
//!
//! Files come in as their chunk maps arrive and are opened a few at a time, the shortest first. A file is cut into pieces
//! of about [`MAX_RANGE`](crate::wire::MAX_RANGE) bytes; a request is a run of missing chunks within one piece. The
//! rarest pieces go first; peers start at different places, so that mirrors which fetch the same release hold
//! different parts of it early. A peer's window follows its measured rate. At the end the slowest requests are
//! given to a second peer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::wire::{Have, MAX_RANGE, MAX_RANGE_CHUNKS};

/// A peer, numbered by the order in which it joined this transfer.
pub type PeerKey = u32;
/// A file, by its place in the release.
pub type FileKey = u32;
/// A request, numbered over the whole transfer.
pub type RequestId = u64;
/// Time since the transfer began.
pub type Now = Duration;

/// Files that are open at once: enough that small files do not wait for each other, few enough that each is soon done.
const MAX_OPEN: usize = 4;
/// Pieces looked at for one request. Beyond it the choice is a little worse, never wrong.
const SCAN: usize = 256;
/// A window holds what the peer brings in this time, so that a lost peer costs as much.
const WINDOW_TIME: f64 = 2.0;
/// Weight of the newest second in a peer's rate.
const RATE_WEIGHT: f64 = 0.3;
/// A request that is older than this may be given to a second peer when nothing else is left to ask for.
const DUPLICATE_AGE: Duration = Duration::from_millis(500);
/// Bytes that a peer with open requests must bring within the stall limit: less is a drip, not a slow line.
const MIN_PROGRESS: u64 = 32 * 1024;
/// Requests open with one peer at once, so that many short runs do not make a long queue.
const MAX_REQUESTS: usize = 64;
/// Between two questions about what an incomplete peer has by now.
const REFRESH: Duration = Duration::from_secs(2);

/// What a plan may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes asked of one peer at once.
    pub max_window: u64,
    /// Bytes asked of a peer whose rate is not known yet.
    pub first_window: u64,
    /// A peer that brings next to nothing for so long is dropped.
    pub stall: Duration,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A peer may be asked.
    Joined {
        /// The peer.
        peer: PeerKey,
        /// Whether it has everything.
        complete: bool,
    },
    /// What a peer has of a file.
    Available {
        /// The peer.
        peer: PeerKey,
        /// The file.
        file: FileKey,
        /// Which chunks.
        have: Have,
    },
    /// A file's chunk map is here.
    File {
        /// The file.
        file: FileKey,
        /// The length of each chunk, in bytes.
        lens: Vec<u32>,
    },
    /// A file was opened as asked.
    Opened {
        /// The file.
        file: FileKey,
        /// The chunks that are not here yet.
        missing: Vec<u32>,
    },
    /// A chunk was verified and kept.
    Chunk {
        /// By which request.
        request: RequestId,
        /// Which chunk.
        index: u32,
    },
    /// A request was answered to its end.
    Finished {
        /// The request.
        request: RequestId,
    },
    /// The peer does not have what was asked.
    Refused {
        /// The request.
        request: RequestId,
    },
    /// The peer is gone, or was found to be false.
    Lost {
        /// The peer.
        peer: PeerKey,
    },
    /// So many bytes came from a peer, verified or not.
    Bytes {
        /// The peer.
        peer: PeerKey,
        /// How many.
        bytes: u64,
    },
    /// Time passed; about once a second.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a file, then tell [`Event::Opened`].
    Open {
        /// The file.
        file: FileKey,
    },
    /// Ask what a peer has of a file, then tell [`Event::Available`].
    AskHave {
        /// The peer.
        peer: PeerKey,
        /// The file.
        file: FileKey,
    },
    /// Ask a peer for chunks.
    Fetch {
        /// The peer.
        peer: PeerKey,
        /// The request.
        request: RequestId,
        /// The file.
        file: FileKey,
        /// The first chunk.
        first: u32,
        /// How many.
        count: u32,
    },
    /// Leave a peer that is too slow to be of use.
    Leave {
        /// The peer.
        peer: PeerKey,
    },
    /// Every chunk of a file is here.
    Complete {
        /// The file.
        file: FileKey,
    },
}

/// A chunk's state: asked of nobody, of so many peers, or here.
const MISSING: u8 = 0;
const HERE: u8 = u8::MAX;

#[derive(Debug)]
struct File {
    lens: Vec<u32>,
    state: Vec<u8>,
    left: usize,
    /// First chunk of each piece, and one past the last.
    bounds: Vec<u32>,
    /// Pieces with a chunk that nobody was asked for.
    pending: BTreeSet<u32>,
}

impl File {
    fn new(lens: Vec<u32>, missing: &[u32]) -> Self {
        let mut bounds = vec![0];
        let (mut bytes, mut count) = (0u64, 0u32);
        for (index, len) in lens.iter().enumerate() {
            if bytes + u64::from(*len) > MAX_RANGE || count >= MAX_RANGE_CHUNKS {
                bounds.push(index as u32);
                (bytes, count) = (0, 0);
            }
            bytes += u64::from(*len);
            count += 1;
        }
        bounds.push(lens.len() as u32);
        let mut file =
            Self { state: vec![HERE; lens.len()], lens, left: 0, bounds, pending: BTreeSet::new() };
        for &index in missing {
            if let Some(state) = file.state.get_mut(index as usize)
                && *state == HERE
            {
                *state = MISSING;
                file.left += 1;
                file.pending.insert(file.piece_of(index));
            }
        }
        file
    }

    fn piece_of(&self, chunk: u32) -> u32 {
        (self.bounds.partition_point(|&first| first <= chunk).saturating_sub(1)) as u32
    }

    fn piece(&self, piece: u32) -> std::ops::Range<u32> {
        let at = |i: usize| self.bounds.get(i).copied().unwrap_or_default();
        at(piece as usize)..at(piece as usize + 1)
    }

    fn is_missing(&self, chunk: u32) -> bool {
        self.state.get(chunk as usize) == Some(&MISSING)
    }

    fn len(&self, chunk: u32) -> u64 {
        self.lens.get(chunk as usize).copied().unwrap_or_default().into()
    }

    /// The first run of chunks in `piece` that are missing and that `has`, at most `budget` bytes but at least one chunk.
    fn run(&self, piece: u32, has: impl Fn(u32) -> bool, budget: u64) -> Option<(u32, u32, u64)> {
        let mut range = self.piece(piece);
        let first = range.find(|&chunk| self.is_missing(chunk) && has(chunk))?;
        let (mut end, mut bytes) = (first + 1, self.len(first));
        for chunk in range {
            if !self.is_missing(chunk) || !has(chunk) || bytes + self.len(chunk) > budget {
                break;
            }
            bytes += self.len(chunk);
            end = chunk + 1;
        }
        Some((first, end - first, bytes))
    }

    fn ask(&mut self, first: u32, count: u32) {
        for chunk in first..first + count {
            if let Some(state) = self.state.get_mut(chunk as usize)
                && *state < HERE - 1
            {
                *state += 1;
            }
        }
        let piece = self.piece_of(first);
        if !self.piece(piece).any(|chunk| self.is_missing(chunk)) {
            self.pending.remove(&piece);
        }
    }

    fn give_back(&mut self, first: u32, count: u32) {
        for chunk in first..first + count {
            let piece = self.piece_of(chunk);
            if let Some(state) = self.state.get_mut(chunk as usize)
                && *state != HERE
                && *state != MISSING
            {
                *state -= 1;
                if *state == MISSING {
                    self.pending.insert(piece);
                }
            }
        }
    }

    /// Whether that chunk was new.
    fn keep(&mut self, chunk: u32) -> bool {
        match self.state.get_mut(chunk as usize) {
            Some(state) if *state != HERE => {
                let was_missing = *state == MISSING;
                *state = HERE;
                self.left -= 1;
                if was_missing {
                    let piece = self.piece_of(chunk);
                    if !self.piece(piece).any(|chunk| self.is_missing(chunk)) {
                        self.pending.remove(&piece);
                    }
                }
                true
            }
            _ => false,
        }
    }
}

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

#[derive(Debug)]
struct Peer {
    complete: bool,
    have: BTreeMap<FileKey, Have>,
    asked: BTreeMap<FileKey, Now>,
    /// Files about which a question is open.
    asking: BTreeSet<FileKey>,
    in_flight: u64,
    requests: usize,
    /// Bytes a second; `None` until measured.
    rate: Option<f64>,
    second: u64,
    /// Bytes since `mark`, for the stall check.
    progress: u64,
    mark: Now,
    /// Where it looks next in each file.
    cursor: BTreeMap<FileKey, u32>,
}

impl Peer {
    fn has(&self, file: FileKey, chunk: u32) -> bool {
        self.complete || self.have.get(&file).is_some_and(|have| have.has(chunk))
    }

    fn window(&self, limits: &Limits) -> u64 {
        match self.rate {
            None => limits.first_window,
            // From 0 up to far beyond the limit: the cast saturates.
            Some(rate) => ((rate * WINDOW_TIME) as u64).clamp(MAX_RANGE / 4, limits.max_window),
        }
    }
}

/// The state of one transfer.
#[derive(Debug)]
pub struct Plan {
    limits: Limits,
    waiting: VecDeque<(u64, FileKey)>,
    lens: BTreeMap<FileKey, Vec<u32>>,
    opening: BTreeSet<FileKey>,
    files: BTreeMap<FileKey, File>,
    complete: BTreeSet<FileKey>,
    peers: BTreeMap<PeerKey, Peer>,
    requests: BTreeMap<RequestId, Request>,
    next: RequestId,
    last_tick: Now,
}

impl Plan {
    /// A plan without files or peers.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: VecDeque::new(),
            lens: BTreeMap::new(),
            opening: BTreeSet::new(),
            files: BTreeMap::new(),
            complete: BTreeSet::new(),
            peers: BTreeMap::new(),
            requests: BTreeMap::new(),
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

    /// Takes what happened and answers what is to be done.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Joined { peer, complete } => self.join(peer, complete, now),
            Event::Available { peer, file, have } => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.asking.remove(&file);
                    peer.have.insert(file, have);
                }
            }
            Event::File { file, lens } => {
                let bytes = lens.iter().map(|len| u64::from(*len)).sum();
                let at = self.waiting.partition_point(|(other, _)| *other <= bytes);
                self.waiting.insert(at, (bytes, file));
                self.lens.insert(file, lens);
            }
            Event::Opened { file, missing } => {
                self.opening.remove(&file);
                if let Some(lens) = self.lens.remove(&file) {
                    let opened = File::new(lens, &missing);
                    let done = opened.left == 0;
                    self.files.insert(file, opened);
                    if done {
                        self.finish(file, &mut actions);
                    }
                }
            }
            Event::Chunk { request, index } => self.chunk(request, index, &mut actions),
            Event::Finished { request } => self.end(request),
            Event::Refused { request } => self.refused(request),
            Event::Lost { peer } => self.lose(peer),
            Event::Bytes { peer, bytes } => self.bytes(peer, bytes, now),
            Event::Tick => self.tick(now, &mut actions),
        }
        self.open(&mut actions);
        self.ask(now, &mut actions);
        self.assign(now, &mut actions);
        actions
    }

    fn join(&mut self, key: PeerKey, complete: bool, now: Now) {
        let peer = Peer {
            complete,
            have: BTreeMap::new(),
            asked: BTreeMap::new(),
            asking: BTreeSet::new(),
            in_flight: 0,
            requests: 0,
            rate: None,
            second: 0,
            progress: 0,
            mark: now,
            cursor: BTreeMap::new(),
        };
        self.peers.insert(key, peer);
    }

    fn chunk(&mut self, request: RequestId, index: u32, actions: &mut Vec<Action>) {
        let Some(file) = self.requests.get(&request).map(|request| request.file) else { return };
        let Some(state) = self.files.get_mut(&file) else { return };
        if state.keep(index) && state.left == 0 {
            self.finish(file, actions);
        }
    }

    fn finish(&mut self, file: FileKey, actions: &mut Vec<Action>) {
        self.files.remove(&file);
        self.complete.insert(file);
        for peer in self.peers.values_mut() {
            peer.have.remove(&file);
            peer.asked.remove(&file);
            peer.cursor.remove(&file);
        }
        actions.push(Action::Complete { file });
    }

    /// A request is over, however: what it did not bring is missing again.
    fn end(&mut self, id: RequestId) {
        let Some(request) = self.requests.remove(&id) else { return };
        if let Some(file) = self.files.get_mut(&request.file) {
            let missing_before = file.left;
            file.give_back(request.first, request.count);
            debug_assert_eq!(missing_before, file.left);
        }
        if let Some(peer) = self.peers.get_mut(&request.peer) {
            peer.in_flight = peer.in_flight.saturating_sub(request.bytes);
            peer.requests = peer.requests.saturating_sub(1);
        }
    }

    /// What the peer has is less than it said: it gets nothing more of that file before it was asked again.
    fn refused(&mut self, id: RequestId) {
        if let Some(request) = self.requests.get(&id)
            && let Some(peer) = self.peers.get_mut(&request.peer)
        {
            peer.complete = false;
            peer.have.remove(&request.file);
        }
        self.end(id);
    }

    fn lose(&mut self, key: PeerKey) {
        let theirs: Vec<RequestId> =
            self.requests.iter().filter(|(_, request)| request.peer == key).map(|(id, _)| *id).collect();
        for id in theirs {
            self.end(id);
        }
        self.peers.remove(&key);
    }

    fn bytes(&mut self, key: PeerKey, bytes: u64, now: Now) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.second += bytes;
        peer.progress += bytes;
        if peer.progress >= MIN_PROGRESS {
            peer.progress = 0;
            peer.mark = now;
        }
    }

    fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        let passed = now.saturating_sub(self.last_tick).as_secs_f64().max(0.001);
        self.last_tick = now;
        let mut slow = Vec::new();
        for (key, peer) in &mut self.peers {
            if peer.requests == 0 {
                peer.mark = now;
                peer.second = 0;
                continue;
            }
            let latest = peer.second as f64 / passed;
            peer.second = 0;
            peer.rate = Some(match peer.rate {
                None => latest,
                Some(rate) => rate + (latest - rate) * RATE_WEIGHT,
            });
            if now.saturating_sub(peer.mark) >= self.limits.stall {
                slow.push(*key);
            }
        }
        for key in slow {
            self.lose(key);
            actions.push(Action::Leave { peer: key });
        }
    }

    fn open(&mut self, actions: &mut Vec<Action>) {
        while self.files.len() + self.opening.len() < MAX_OPEN {
            let Some((_, file)) = self.waiting.pop_front() else { return };
            self.opening.insert(file);
            actions.push(Action::Open { file });
        }
    }

    /// Asks incomplete peers what they have of the open files, again from time to time: it grows.
    fn ask(&mut self, now: Now, actions: &mut Vec<Action>) {
        for (key, peer) in self.peers.iter_mut().filter(|(_, peer)| !peer.complete) {
            for (file, state) in &self.files {
                let due = peer.asked.get(file).is_none_or(|at| now.saturating_sub(*at) >= REFRESH);
                let all = peer.have.get(file) == Some(&Have::Everything);
                if due && !all && !state.pending.is_empty() && peer.asking.insert(*file) {
                    peer.asked.insert(*file, now);
                    actions.push(Action::AskHave { peer: *key, file: *file });
                }
            }
        }
    }

    /// Gives every peer work while its window has room, the emptiest window first.
    fn assign(&mut self, now: Now, actions: &mut Vec<Action>) {
        let mut idle: BTreeSet<PeerKey> = self.peers.keys().copied().collect();
        while let Some(key) = self.emptiest(&idle) {
            match self.choose(key).or_else(|| self.repeat(key, now)) {
                Some((file, first, count, bytes, twice)) => {
                    let id = self.next;
                    self.next += 1;
                    if let Some(state) = self.files.get_mut(&file) {
                        state.ask(first, count);
                    }
                    if let Some(peer) = self.peers.get_mut(&key) {
                        if peer.requests == 0 {
                            (peer.mark, peer.progress) = (now, 0);
                        }
                        peer.in_flight += bytes;
                        peer.requests += 1;
                    }
                    let request = Request { peer: key, file, first, count, bytes, since: now, twice };
                    self.requests.insert(id, request);
                    actions.push(Action::Fetch { peer: key, request: id, file, first, count });
                }
                None => {
                    idle.remove(&key);
                }
            }
        }
    }

    /// Of `peers`, the one with the smallest share of its window in flight, if that is below the whole.
    fn emptiest(&self, peers: &BTreeSet<PeerKey>) -> Option<PeerKey> {
        let fill = |key: &PeerKey| {
            let peer = self.peers.get(key)?;
            let fill = peer.in_flight as f64 / peer.window(&self.limits) as f64;
            (fill < 1.0 && peer.requests < MAX_REQUESTS).then_some((fill, *key))
        };
        peers.iter().filter_map(fill).min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, key)| key)
    }

    fn choose(&mut self, key: PeerKey) -> Option<(FileKey, u32, u32, u64, bool)> {
        let peer = self.peers.get(&key)?;
        let budget = MAX_RANGE.min(peer.window(&self.limits) / 2);
        let others: Vec<&Peer> = self.peers.values().filter(|other| !other.complete).collect();
        for (file_key, file) in &self.files {
            let pieces = file.bounds.len() as u32 - 1;
            let start = peer.cursor.get(file_key).copied().unwrap_or_else(|| spread(key, pieces));
            let mut best: Option<(usize, u32, (u32, u32, u64))> = None;
            for &piece in file.pending.range(start..).chain(file.pending.range(..start)).take(SCAN) {
                let Some(run) = file.run(piece, |chunk| peer.has(*file_key, chunk), budget) else { continue };
                // Peers that have everything count alike for every piece.
                let rarity = others.iter().filter(|other| other.has(*file_key, run.0)).count();
                if best.as_ref().is_none_or(|(least, _, _)| rarity < *least) {
                    best = Some((rarity, piece, run));
                }
                if rarity <= usize::from(!peer.complete) {
                    break;
                }
            }
            if let Some((_, piece, (first, count, bytes))) = best {
                let file_key = *file_key;
                if let Some(peer) = self.peers.get_mut(&key) {
                    peer.cursor.insert(file_key, piece);
                }
                return Some((file_key, first, count, bytes, false));
            }
        }
        None
    }

    /// When nothing is left to ask for: what another peer has been asked for longest.
    fn repeat(&mut self, key: PeerKey, now: Now) -> Option<(FileKey, u32, u32, u64, bool)> {
        let peer = self.peers.get(&key)?;
        // One at a time: a fast peer takes over a slow one's requests as it finishes each.
        if peer.requests > 0 || self.files.values().any(|file| !file.pending.is_empty()) {
            return None;
        }
        let oldest = self.requests.iter().filter(|(_, request)| {
            request.peer != key && !request.twice && now.saturating_sub(request.since) >= DUPLICATE_AGE
        });
        let mut oldest: Vec<(Now, RequestId)> = oldest.map(|(id, request)| (request.since, *id)).collect();
        oldest.sort_unstable();
        for (_, id) in oldest.into_iter().take(SCAN) {
            let Some(request) = self.requests.get(&id) else { continue };
            let Some(file) = self.files.get(&request.file) else { continue };
            let wanted = |chunk: &u32| file.state.get(*chunk as usize).is_some_and(|state| *state != HERE);
            let mut range = request.first..request.first + request.count;
            let Some(first) = range.find(wanted) else { continue };
            let end = range.rfind(wanted).map_or(first + 1, |last| last + 1);
            if !(first..end).all(|chunk| peer.has(request.file, chunk)) {
                continue;
            }
            let bytes = (first..end).map(|chunk| file.len(chunk)).sum();
            let found = (request.file, first, end - first, bytes, true);
            if let Some(request) = self.requests.get_mut(&id) {
                request.twice = true;
            }
            return Some(found);
        }
        None
    }
}

/// Where peer `key` begins in a file of `pieces`: 0, 1/2, 1/4, 3/4, 1/8, … so that any number of peers are far apart.
fn spread(key: PeerKey, pieces: u32) -> u32 {
    ((u64::from(key.reverse_bits()) * u64::from(pieces)) >> 32) as u32
}
