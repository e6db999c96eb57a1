//! Continuous batching, the deciding half: which tokens of which requests are computed next, and where in the cache.
//!
//! No clock, no engine, no channel: requests come in by [`Schedule::push`], each [`Schedule::step`] says what to do with
//! the cache ([`Move`]) and what to compute ([`Entry`]), and what came of it is told by [`Schedule::token`] and
//! [`Schedule::finish`].
//!
//! - One cache of cells is shared by all. A request that has ended leaves its tokens behind ([`Holder::Kept`]), and a
//!   later one that begins alike shares them instead of computing them again. What was used longest ago makes room; how
//!   many are kept follows from what they are good for ([`keeping`]).
//! - A step computes one token for each answer that is under way, and with the rest of its budget parts of prompts.
//! - The next request is that of the caller who has had least ([`callers`]). A caller who is far ahead of one that waits
//!   gives up a place: its youngest answer waits, and goes on later where it was.
//! - Where the cache is full the youngest answer gives up its cells and is computed again later from its tokens. The
//!   oldest never does; a request that fits into the empty cache therefore ends, and no answer is ever cut by others.
//! - What an adapter computed is of no use to the model without it, nor to another: each shares with its own kind. An engine
//!   that applies one adapter at a time computes those of one kind for some steps, then those of the next ([`lanes`]).

mod callers;
mod cells;
mod keeping;
mod lanes;
mod sharing;
mod step;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;

use std::collections::BTreeMap;

use callers::Callers;
use cells::Cells;
use keeping::Keeping;
use sharing::common;

use super::{Caller, Token};

pub(crate) use step::{Entry, Limits, Move, Step};

/// A request's number.
pub(crate) type Id = u64;
/// Which weights compute a request: the model's own (0), or those with the adapter of this number.
pub(crate) type Lane = u32;

/// A request waits for one at work that is about to compute so many more tokens of the same beginning.
const WORTH_WAITING: usize = 32;
/// Cells that must stay free for each answer at work when another begins: else the newcomer would soon be sent away again.
const RESERVE: usize = 32;
/// How far (in prompt tokens, as [`callers`] counts) a caller may be ahead of one that waits before it gives up a place.
const AHEAD: u64 = 256;
/// An answer that goes on gets at least so many tokens further before it makes way: what was computed for it may have to
/// be computed again each time.
const TURN: usize = 32;
/// Steps that one lane has while others wait, where an engine computes one at a time: changing it costs about as much as a
/// step of a small model.
const LANE_TURN: usize = 8;

/// Who has a sequence of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Nobody,
    /// A request at work.
    Request(Id),
    /// Nobody, but what is in it may be of use; last used in this step.
    Kept(u64),
}

#[derive(Debug)]
struct Sequence {
    holder: Holder,
    /// What is computed, and the cells of it.
    tokens: Vec<Token>,
    cells: Vec<u32>,
    /// What computed them.
    lane: Lane,
    /// Whether all of it is still there: an engine with a sliding window may have let go of the beginning.
    whole: bool,
}

#[derive(Debug)]
struct Request {
    caller: Caller,
    lane: Lane,
    /// The prompt, and the answer so far.
    tokens: Vec<Token>,
    prompt: usize,
    sequence: Option<usize>,
    /// Counts up: the one that began to run last is the youngest.
    begun: u64,
    /// How many tokens it had then.
    had: usize,
    /// How many tokens its caller was charged for: those that are computed again cost nobody anything.
    charged: usize,
    /// Tokens of the prompt that were there already when it first ran.
    reused: Option<usize>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Schedule {
    limits: Limits,
    cells: Cells,
    sequences: Vec<Sequence>,
    requests: BTreeMap<Id, Request>,
    callers: Callers,
    keeping: Keeping,
    /// The lane that is computed where only one can be, and for how many steps it has been.
    turn: (Lane, usize),
    clock: u64,
    moves: Vec<Move>,
}

impl Schedule {
    /// An empty cache.
    pub(crate) fn new(limits: Limits) -> Self {
        let empty = || Sequence {
            holder: Holder::Nobody,
            tokens: Vec::new(),
            cells: Vec::new(),
            lane: 0,
            whole: true,
        };
        let kept = if limits.share { limits.kept } else { 0 };
        Self {
            limits,
            cells: Cells::new(limits.cells),
            sequences: std::iter::repeat_with(empty).take(limits.running + kept).collect(),
            requests: BTreeMap::new(),
            callers: Callers::default(),
            keeping: Keeping::new(kept),
            turn: (0, 0),
            clock: 0,
            moves: Vec::new(),
        }
    }

    /// Sequences of the cache that are made use of.
    pub(crate) fn sequences(limits: &Limits) -> usize {
        limits.running + if limits.share { limits.kept } else { 0 }
    }

    /// A new request. Prompt and answer together must fit into the cache, which is for the asker to see to.
    pub(crate) fn push(&mut self, id: Id, caller: Caller, lane: Lane, prompt: Vec<Token>) {
        let length = prompt.len();
        let request = Request {
            caller,
            lane,
            tokens: prompt,
            prompt: length,
            sequence: None,
            begun: 0,
            had: 0,
            charged: 0,
            reused: None,
        };
        self.requests.insert(id, request);
        self.callers.wait(caller, id, false);
    }

    /// The next token of an answer was chosen; the answer goes on.
    pub(crate) fn token(&mut self, id: Id, token: Token) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.tokens.push(token);
        }
    }

    /// A request has ended, well or not. What was computed for it is kept for others.
    pub(crate) fn finish(&mut self, id: Id) {
        let Some(request) = self.requests.remove(&id) else { return };
        match request.sequence {
            None => self.callers.leave(request.caller, id),
            Some(sequence) => {
                self.callers.rest(request.caller);
                self.keep(sequence);
                self.let_go();
            }
        }
    }

    /// Prompt tokens of `id` that needed no computing.
    pub(crate) fn reused(&self, id: Id) -> usize {
        self.requests.get(&id).and_then(|request| request.reused).unwrap_or(0)
    }

    /// Whether there is nothing to do.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.callers.waiting()
    }

    /// Requests at work.
    pub(crate) fn running(&self) -> usize {
        self.requests.values().filter(|request| request.sequence.is_some()).count()
    }

    /// Cells in use, and all of them.
    pub(crate) fn cells(&self) -> (usize, usize) {
        (self.cells.used(), self.cells.capacity())
    }

    /// Sequences that may be shared as they are: for an engine that lets go of old tokens to check.
    pub(crate) fn shareable(&self) -> impl Iterator<Item = usize> + '_ {
        let of_use = |sequence: &Sequence| sequence.whole && !sequence.tokens.is_empty();
        self.sequences.iter().enumerate().filter(move |(_, sequence)| of_use(sequence)).map(|(at, _)| at)
    }

    /// The beginning of `sequence` is gone: it is not shared any more.
    pub(crate) fn not_whole(&mut self, sequence: usize) {
        self.sequences[sequence].whole = false;
        if matches!(self.sequences[sequence].holder, Holder::Kept(_)) {
            self.clear(sequence);
        }
    }

    /// The engine could not compute the last step, and nothing of the cache is left: all that ran waits again.
    pub(crate) fn lost(&mut self) {
        for sequence in 0..self.sequences.len() {
            if let Holder::Request(id) = self.sequences[sequence].holder {
                self.send_back(id);
            }
            self.clear(sequence);
        }
    }

    /// What to do now.
    pub(crate) fn step(&mut self) -> Step {
        self.clock += 1;
        while self.admit() {}
        if self.make_way() {
            self.admit();
        }
        let mut entries = Vec::new();
        // One lane's requests may all have to make way: the next ones' can go on then.
        for lane in lanes::turns(self) {
            self.answers(lane, &mut entries);
            // Those of other lanes wait for this step, too.
            let answers = !entries.is_empty() || self.at_work().any(|(id, _)| self.left(id) == 1);
            let budget = if answers { self.limits.mixed } else { self.limits.batch };
            let budget = budget.min(self.limits.batch.saturating_sub(entries.len()));
            self.prompts(lane, &mut entries, budget);
            if !entries.is_empty() {
                break;
            }
        }
        Step { moves: std::mem::take(&mut self.moves), entries }
    }

    /// Lets the youngest answer of a caller who is far ahead of one that waits, wait itself; whether there was one.
    fn make_way(&mut self) -> bool {
        let Some((caller, _)) = self.next() else { return false };
        let limit = self.callers.served(caller).saturating_add(AHEAD);
        let ahead = self.at_work().filter(|(_, request)| {
            request.tokens.len() >= request.had + TURN && self.callers.served(request.caller) > limit
        });
        let most = ahead.max_by_key(|(_, request)| (self.callers.served(request.caller), request.begun));
        let Some(id) = most.map(|(id, _)| id) else { return false };
        self.pause(id);
        true
    }

    /// The request that should begin next; one that waits for another's beginning lets the next caller's go first.
    fn next(&self) -> Option<(Caller, Id)> {
        self.callers.next().into_iter().find(|(_, id)| !self.is_coming(*id))
    }

    fn at_work(&self) -> impl Iterator<Item = (Id, &Request)> {
        self.requests
            .iter()
            .filter(|(_, request)| request.sequence.is_some())
            .map(|(id, request)| (*id, request))
    }

    /// Begins one request that waits; whether there was one that could.
    fn admit(&mut self) -> bool {
        if self.running() >= self.limits.running {
            return false;
        }
        let Some((caller, id)) = self.next() else { return false };
        let Some(request) = self.requests.get(&id) else { return false };
        let (source, shared) = self.best(request);
        let needed = request.tokens.len() - shared + 1;
        let reserve = if self.running() == 0 { 0 } else { RESERVE * (self.running() + 1) };
        if self.running() > 0 && self.obtainable(source) < needed + reserve {
            return false;
        }
        if !self.make_room(needed + reserve, source) {
            // Alone it fits, but not beside all of what it shares with.
            if let Some(source) = source {
                self.cut(source, shared);
            }
            self.make_room(needed, source);
        }
        let sequence = self.place(source, shared);
        self.begin(id, caller, sequence, shared);
        true
    }

    /// Frees cells until `needed` are free, of kept sequences other than `source`; whether that was enough.
    fn make_room(&mut self, needed: usize, source: Option<usize>) -> bool {
        while self.cells.free() < needed {
            let Some(oldest) = self.oldest_kept(source) else { return false };
            self.clear(oldest);
        }
        true
    }

    /// Cells that are free or would be without any kept sequence but `source`.
    fn obtainable(&self, source: Option<usize>) -> usize {
        let kept = self.kept().filter(|(_, at)| Some(*at) != source);
        self.cells.free() + self.cells.only_of(kept.map(|(_, at)| self.sequences[at].cells.as_slice()))
    }

    /// A sequence that holds the first `shared` tokens of `source` and no more.
    fn place(&mut self, source: Option<usize>, shared: usize) -> usize {
        let free = self.sequences.iter().position(|sequence| sequence.holder == Holder::Nobody);
        // There are as many sequences as may run, so one that does not run is there.
        let sequence = free.or_else(|| self.oldest_kept(source)).or(source).unwrap_or(0);
        if Some(sequence) == source {
            self.cut(sequence, shared);
            return sequence;
        }
        self.clear(sequence);
        if let Some(from) = source {
            let shared_cells = self.sequences[from].cells[..shared].to_vec();
            self.cells.share(&shared_cells);
            let tokens = self.sequences[from].tokens[..shared].to_vec();
            let to = &mut self.sequences[sequence];
            (to.tokens, to.cells) = (tokens, shared_cells);
            self.moves.push(Move::Share { from, to: sequence, length: shared });
            if let Holder::Kept(used) = &mut self.sequences[from].holder {
                *used = self.clock;
            }
        }
        sequence
    }

    fn begin(&mut self, id: Id, caller: Caller, sequence: usize, shared: usize) {
        self.sequences[sequence].holder = Holder::Request(id);
        self.note_beginning(id, shared);
        self.callers.run(caller);
        self.callers.leave(caller, id);
        let begun = self.requests.values().map(|request| request.begun).max().unwrap_or(0) + 1;
        if let Some(request) = self.requests.get_mut(&id) {
            self.sequences[sequence].lane = request.lane;
            request.sequence = Some(sequence);
            request.begun = begun;
            request.had = request.tokens.len();
            let prompt = request.prompt;
            request.reused.get_or_insert(shared.min(prompt));
        }
    }

    /// The next token of each answer, the oldest first.
    fn answers(&mut self, lane: Option<Lane>, entries: &mut Vec<Entry>) {
        for id in self.in_order(lane, |left| left == 1, |_| 0) {
            if entries.len() >= self.limits.batch || !self.find_cell(id) {
                continue;
            }
            // Finding the cell may have sent it away itself.
            self.put(id, 1, entries);
        }
    }

    /// Parts of prompts, at most `budget` tokens; those of the caller who had least come first.
    fn prompts(&mut self, lane: Option<Lane>, entries: &mut Vec<Entry>, mut budget: usize) {
        for id in self.in_order(lane, |left| left > 1, |caller| self.callers.served(caller)) {
            let left = self.left(id);
            self.make_room(left.min(budget), None);
            // A full cache is for answers to sort out; without any, the oldest takes what it needs.
            let mut count = left.min(budget).min(self.cells.free());
            if count == 0 && budget > 0 && entries.is_empty() && self.find_cell(id) {
                count = left.min(budget).min(self.cells.free());
            }
            self.put(id, count, entries);
            budget -= count.min(budget);
        }
    }

    /// Requests of `lane` at work with as many tokens left to compute as is `wanted`, by their caller's `rank`, then the oldest
    /// first.
    fn in_order(
        &self,
        lane: Option<Lane>,
        wanted: impl Fn(usize) -> bool,
        rank: impl Fn(Caller) -> u64,
    ) -> Vec<Id> {
        let here = self
            .at_work()
            .filter(|(id, request)| lane.is_none_or(|lane| request.lane == lane) && wanted(self.left(*id)));
        let mut ids: Vec<_> = here.map(|(id, request)| (rank(request.caller), request.begun, id)).collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, _, id)| id).collect()
    }

    /// Tokens of a request at work that are not computed yet.
    fn left(&self, id: Id) -> usize {
        let Some(request) = self.requests.get(&id) else { return 0 };
        let Some(sequence) = request.sequence else { return 0 };
        request.tokens.len() - self.sequences[sequence].tokens.len()
    }

    /// Makes room for one token of `id`; sends younger requests away where nothing else helps, and `id` itself where there is
    /// none younger.
    fn find_cell(&mut self, id: Id) -> bool {
        while !self.make_room(1, None) {
            let youngest = self.at_work().max_by_key(|(_, request)| request.begun).map(|(id, _)| id);
            let Some(youngest) = youngest else { return false };
            let sequence = self.requests.get(&youngest).and_then(|request| request.sequence);
            self.send_back(youngest);
            if let Some(sequence) = sequence {
                self.clear(sequence);
            }
            if youngest == id {
                return false;
            }
        }
        self.requests.get(&id).is_some_and(|request| request.sequence.is_some())
    }

    /// Adds the next `count` tokens of `id`.
    fn put(&mut self, id: Id, count: usize, entries: &mut Vec<Entry>) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let Some(at) = request.sequence else { return };
        let (sequence, lane) = (&mut self.sequences[at], request.lane);
        let from = sequence.tokens.len();
        for (position, token) in request.tokens.iter().enumerate().skip(from).take(count) {
            let Some(cell) = self.cells.take() else { break };
            sequence.cells.push(cell);
            sequence.tokens.push(*token);
            let last = position + 1 == request.tokens.len();
            entries.push(Entry { id, lane, sequence: at, token: *token, position, last });
        }
        let (done, charged) = (sequence.tokens.len(), request.charged.max(from));
        let new = done.saturating_sub(charged);
        let prompt = request.prompt.saturating_sub(charged).min(new);
        request.charged = done.max(request.charged);
        self.callers.charge(request.caller, prompt, new - prompt);
    }

    /// Lets a request at work wait; what is computed is kept as long as nobody needs the room.
    fn pause(&mut self, id: Id) {
        let sequence = self.requests.get(&id).and_then(|request| request.sequence);
        self.send_back(id);
        if let Some(sequence) = sequence {
            self.keep(sequence);
        }
    }

    fn send_back(&mut self, id: Id) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.sequence = None;
        self.callers.wait(request.caller, id, true);
        self.callers.rest(request.caller);
    }

    fn clear(&mut self, sequence: usize) {
        self.cut(sequence, 0);
        self.sequences[sequence].holder = Holder::Nobody;
        self.sequences[sequence].whole = true;
    }

    fn cut(&mut self, sequence: usize, length: usize) {
        let cut = &mut self.sequences[sequence];
        if cut.tokens.len() > length {
            cut.tokens.truncate(length);
            self.cells.release(cut.cells.drain(length..));
            self.moves.push(Move::Cut { sequence, length });
        }
    }
}
