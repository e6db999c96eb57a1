//! Who is asked for what.

use std::collections::BTreeSet;
use std::time::Duration;

use super::file::{File, Run};
use super::peer::Peer;
use super::{Action, FileKey, Now, PeerKey, Plan, Request, RequestId};
use crate::wire::MAX_RANGE;

/// Pieces looked at for one request. Beyond it the choice is a little worse, never wrong.
pub(super) const SCAN: usize = 512;
/// Requests open with one peer at once, so that many short runs do not make a long queue.
pub(super) const MAX_REQUESTS: usize = 64;
/// A request may be given to a second peer when nothing else is left to ask for, and when it is older than this and than twice
/// what the first peer's backlog should have taken.
pub(super) const DUPLICATE_AGE: Duration = Duration::from_millis(750);
/// A seed is asked for what another peer has too when that one is busy for so long.
const SEED_HELPS: Duration = Duration::from_secs(2);
/// The share of a window that one request takes, so that several are always on their way.
pub(super) const REQUESTS_A_WINDOW: u64 = 4;

/// What a peer is to be asked for.
pub(super) struct Choice {
    pub(super) file: FileKey,
    pub(super) run: Run,
    /// Whether another peer was asked for it too.
    pub(super) twice: bool,
}

impl Plan {
    /// Gives every peer work while its window has room, the emptiest window first.
    pub(super) fn assign(&mut self, now: Now, actions: &mut Vec<Action>) {
        let mut idle: BTreeSet<PeerKey> = self.peers.keys().copied().collect();
        while let Some(key) = self.emptiest(&idle) {
            let choice = self.choose_wanted(key).or_else(|| self.choose(key));
            match choice.or_else(|| self.repeat(key, now)) {
                Some(choice) => actions.push(self.request(key, choice, now)),
                None => {
                    idle.remove(&key);
                }
            }
        }
    }

    pub(super) fn request(&mut self, peer: PeerKey, choice: Choice, now: Now) -> Action {
        let Choice { file, run: Run { first, count, bytes }, twice } = choice;
        let request = self.next;
        self.next += 1;
        if let Some(state) = self.files.get_mut(&file) {
            state.ask(first, count);
        }
        self.settle(file, first);
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.asked(bytes, now);
        }
        self.requests.insert(request, Request { peer, file, first, count, bytes, since: now, twice });
        Action::Fetch { peer, request, file, first, count }
    }

    /// Of `peers`, the one with the smallest share of its window in flight, if that is below the whole.
    fn emptiest(&self, peers: &BTreeSet<PeerKey>) -> Option<PeerKey> {
        let fill = |key: &PeerKey| {
            let peer = self.peers.get(key)?;
            let fill = peer.fill(&self.limits);
            (fill < 1.0 && peer.requests < MAX_REQUESTS).then_some((fill, *key))
        };
        peers.iter().filter_map(fill).min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, key)| key)
    }

    fn choose(&mut self, key: PeerKey) -> Option<Choice> {
        let peer = self.peers.get(&key)?;
        let budget = MAX_RANGE.min(peer.window(&self.limits) / REQUESTS_A_WINDOW);
        let others: Vec<&Peer> = self
            .peers
            .iter()
            .filter(|(other, peer)| **other != key && !peer.seed)
            .map(|(_, peer)| peer)
            .collect();
        let search = Search { peer, others: &others, budget, limits: &self.limits };
        let mut found = None;
        for (file_key, file) in &self.files {
            let start = match peer.cursor.get(file_key) {
                _ if self.limits.in_order => 0,
                Some(cursor) => *cursor,
                None => spread(key, file.pieces()),
            };
            if let Some((piece, run)) = search.file(*file_key, file, start) {
                found = Some((*file_key, piece, run));
                break;
            }
        }
        let (file, piece, run) = found?;
        self.peers.get_mut(&key)?.cursor.insert(file, piece);
        Some(Choice { file, run, twice: false })
    }

    /// When nothing is left to ask for: what another peer has been asked for longest.
    fn repeat(&mut self, key: PeerKey, now: Now) -> Option<Choice> {
        let peer = self.peers.get(&key)?;
        // One at a time: a fast peer takes over a slow one's requests as it finishes each.
        if peer.requests > 0 || peer.choked {
            return None;
        }
        let due = |request: &Request| {
            let backlog = self.peers.get(&request.peer).map_or(Duration::ZERO, Peer::backlog);
            now.saturating_sub(request.since) >= DUPLICATE_AGE + 2 * backlog
        };
        let open =
            self.requests.iter().filter(|(_, request)| request.peer != key && !request.twice && due(request));
        let mut oldest: Vec<(Now, RequestId)> = open.map(|(id, request)| (request.since, *id)).collect();
        oldest.sort_unstable();
        for (_, id) in oldest.into_iter().take(SCAN) {
            let Some(request) = self.requests.get(&id) else { continue };
            let Some(file) = self.files.get(&request.file) else { continue };
            let Some(run) = file.rest(request.first..request.first + request.count) else { continue };
            if !(run.first..run.first + run.count).all(|chunk| peer.has(request.file, chunk)) {
                continue;
            }
            let file = request.file;
            if let Some(request) = self.requests.get_mut(&id) {
                request.twice = true;
            }
            return Some(Choice { file, run, twice: true });
        }
        None
    }

    /// A chunk came: requests that were made twice and hold nothing else any more are taken back.
    pub(super) fn take_back(&mut self, key: FileKey, index: u32, actions: &mut Vec<Action>) {
        let file = self.files.get(&key);
        let needless = |request: &Request| {
            request.twice
                && request.file == key
                && (request.first..request.first + request.count).contains(&index)
                && file.is_none_or(|file| file.rest(request.first..request.first + request.count).is_none())
        };
        let over: Vec<(RequestId, PeerKey)> = self
            .requests
            .iter()
            .filter(|(_, request)| needless(request))
            .map(|(id, request)| (*id, request.peer))
            .collect();
        for (request, peer) in over {
            self.end(request);
            actions.push(Action::Cancel { peer, request });
        }
    }
}

/// A look for what one peer should be asked for.
struct Search<'a> {
    peer: &'a Peer,
    /// The other peers that do not hold the whole release.
    others: &'a [&'a Peer],
    budget: u64,
    limits: &'a super::Limits,
}

impl Search<'_> {
    fn file(&self, key: FileKey, file: &File, start: u32) -> Option<(u32, Run)> {
        let pieces = match self.peer.has_all(key) {
            true => Some(&file.pending),
            false => self.peer.useful.get(&key),
        }?;
        // Nothing can be read without the head of the file.
        let head = pieces.range(..1).chain(pieces.range(start.max(1)..)).chain(pieces.range(1..start.max(1)));
        let mut best: Option<(usize, u32, Run)> = None;
        for &piece in head.take(SCAN) {
            let wanted = |chunk| self.peer.has(key, chunk) && self.is_for_us(key, chunk);
            let Some(run) = file.run(piece, wanted, self.budget) else { continue };
            if piece == 0 || self.limits.in_order {
                return Some((piece, run));
            }
            let rarity = self.others.iter().filter(|other| other.has(key, run.first)).count();
            if best.as_ref().is_none_or(|(least, _, _)| rarity < *least) {
                best = Some((rarity, piece, run));
            }
            if rarity == 0 {
                break;
            }
        }
        best.map(|(_, piece, run)| (piece, run))
    }

    /// A seed is left to those who need what nobody else has, while one of the others that have a chunk can soon bring it.
    fn is_for_us(&self, key: FileKey, chunk: u32) -> bool {
        let can_bring = |other: &&Peer| {
            !other.choked
                && (other.fill(self.limits) < 1.0 || other.backlog() < SEED_HELPS)
                && other.has(key, chunk)
        };
        !self.peer.seed || !self.others.iter().any(can_bring)
    }
}

/// Where peer `key` begins in a file of `pieces`: 0, 1/2, 1/4, 3/4, 1/8, … so that any number of peers are far apart.
fn spread(key: PeerKey, pieces: u32) -> u32 {
    ((u64::from(key.reverse_bits()) * u64::from(pieces)) >> 32) as u32
}
