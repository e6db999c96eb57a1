//! What somebody reads while it comes: asked for before everything else, in its order, by turns where several read.

use std::collections::BTreeMap;
use std::time::Duration;

use super::assign::{Choice, DUPLICATE_AGE, MAX_REQUESTS, REQUESTS_A_WINDOW, SCAN};
use super::file::File;
use super::peer::Peer;
use super::{Action, FileKey, Now, PeerKey, Plan, ReaderKey, RequestId};

/// Readers that are heeded at once; what further ones read comes in its turn, as without readers.
const MAX_WANTS: usize = 256;
/// Files open at once, those that somebody reads among them.
pub(super) const MAX_WANTED_OPEN: usize = 16;
/// Bytes of one request for a reader, but at least one chunk: short, so that several peers bring what comes next together.
const WANTED_RUN: u64 = 1024 * 1024;
/// Longest time beyond [`DUPLICATE_AGE`] for which a reader waits for one peer before another is asked for the same: well
/// under the ten seconds after which clients give up.
const HASTEN: Duration = Duration::from_secs(2);

/// What one reader wants: the chunks from `first`, which is not here yet, up to `end`.
#[derive(Debug, Clone, Copy)]
struct Want {
    file: FileKey,
    first: u32,
    end: u32,
}

/// What all readers want.
#[derive(Debug, Default)]
pub(super) struct Wants {
    all: BTreeMap<ReaderKey, Want>,
    /// Whose turn was last.
    turn: ReaderKey,
}

impl Wants {
    pub(super) fn remove(&mut self, reader: ReaderKey) {
        self.all.remove(&reader);
    }

    pub(super) fn has(&self, file: FileKey) -> bool {
        self.all.values().any(|want| want.file == file)
    }

    /// A chunk of `file` came: readers of it want what follows.
    pub(super) fn came(&mut self, key: FileKey, file: &File) {
        for want in self.all.values_mut().filter(|want| want.file == key) {
            while want.first < want.end && file.is_here(want.first) {
                want.first += 1;
            }
        }
    }

    /// Every want, the one after the last turn first.
    fn by_turns(&self) -> impl Iterator<Item = (ReaderKey, Want)> + '_ {
        let after = self.turn.saturating_add(1);
        let wants = self.all.range(after..).chain(self.all.range(..after));
        wants.map(|(reader, want)| (*reader, *want))
    }
}

impl Plan {
    pub(super) fn want(&mut self, reader: ReaderKey, file: FileKey, first: u32, count: u32) {
        if self.wants.all.len() >= MAX_WANTS && !self.wants.all.contains_key(&reader) {
            return;
        }
        let want = Want { file, first, end: first.saturating_add(count) };
        self.wants.all.insert(reader, want);
        if let Some(file) = self.files.get(&want.file) {
            self.wants.came(want.file, file);
        }
        let waiting = self.waiting.keys().find(|(rank, waits)| *waits == file && *rank > 0).copied();
        if let Some(lens) = waiting.and_then(|key| self.waiting.remove(&key)) {
            self.waiting.insert((0, file), lens);
        }
    }

    /// What a peer should be asked for because somebody reads it.
    pub(super) fn choose_wanted(&mut self, key: PeerKey) -> Option<Choice> {
        let peer = self.peers.get(&key)?;
        // One that is silent is tried with what nobody waits for, where another can be asked.
        if self.wants.all.is_empty() || (peer.choked && self.peers.values().any(|other| !other.choked)) {
            return None;
        }
        let budget = WANTED_RUN.min(peer.window(&self.limits) / REQUESTS_A_WINDOW);
        let (reader, choice) = self
            .wants
            .by_turns()
            .find_map(|(reader, want)| Some((reader, self.next_of(peer, want, budget)?)))?;
        self.wants.turn = reader;
        Some(choice)
    }

    fn next_of(&self, peer: &Peer, want: Want, budget: u64) -> Option<Choice> {
        let file = self.files.get(&want.file).filter(|_| want.first < want.end)?;
        let pieces = match peer.has_all(want.file) {
            true => Some(&file.pending),
            false => peer.useful.get(&want.file),
        }?;
        let fits = |chunk| (want.first..want.end).contains(&chunk) && peer.has(want.file, chunk);
        let span = file.piece_of(want.first)..=file.piece_of(want.end - 1);
        let run = pieces.range(span).take(SCAN).find_map(|&piece| file.run(piece, fits, budget))?;
        Some(Choice { file: want.file, run, twice: false })
    }

    /// Asks a second peer for what a reader has waited for too long.
    pub(super) fn hasten(&mut self, now: Now, actions: &mut Vec<Action>) {
        let heads: Vec<(FileKey, u32)> =
            self.wants.all.values().map(|want| (want.file, want.first)).collect();
        for (file, head) in heads {
            let Some((id, helper)) = self.late(file, head, now) else { continue };
            let rest = self.requests.get(&id).map(|request| request.first..request.first + request.count);
            let Some(run) = rest.and_then(|rest| self.files.get(&file)?.rest(rest)) else { continue };
            if let Some(request) = self.requests.get_mut(&id) {
                request.twice = true;
            }
            actions.push(self.request(helper, Choice { file, run, twice: true }, now));
        }
    }

    /// The request that a chunk is waited for in for too long, and the least busy of the peers that could help.
    fn late(&self, file: FileKey, chunk: u32, now: Now) -> Option<(RequestId, PeerKey)> {
        let holds = |first: u32, count: u32| (first..first + count).contains(&chunk);
        let (id, request) = self
            .requests
            .iter()
            .find(|(_, request)| request.file == file && holds(request.first, request.count))?;
        let backlog = self.peers.get(&request.peer).map_or(Duration::ZERO, Peer::backlog);
        let patience = DUPLICATE_AGE + (2 * backlog).min(HASTEN);
        if request.twice || now.saturating_sub(request.since) < patience {
            return None;
        }
        let able = |(key, peer): &(&PeerKey, &Peer)| {
            let all = || (request.first..request.first + request.count).all(|chunk| peer.has(file, chunk));
            **key != request.peer && !peer.choked && peer.requests < MAX_REQUESTS && all()
        };
        let fill = |peer: &Peer| peer.fill(&self.limits);
        let helper = self.peers.iter().filter(able).min_by(|a, b| fill(a.1).total_cmp(&fill(b.1)))?;
        Some((*id, *helper.0))
    }
}
