//! One file's chunks: which are here, which were asked of somebody.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::wire::{MAX_RANGE, MAX_RANGE_CHUNKS};

/// A chunk's state: asked of nobody, of so many peers, or here.
const MISSING: u8 = 0;
const HERE: u8 = u8::MAX;

/// A run of chunks and its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) bytes: u64,
}

#[derive(Debug)]
pub(super) struct File {
    lens: Vec<u32>,
    state: Vec<u8>,
    /// Chunks that are not here.
    pub(super) left: usize,
    /// First chunk of each piece, and one past the last. A piece is the most that one request may ask for.
    bounds: Vec<u32>,
    /// Pieces with a chunk that nobody was asked for.
    pub(super) pending: BTreeSet<u32>,
}

impl File {
    pub(super) fn new(lens: Vec<u32>, missing: &[u32]) -> Self {
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
            file.lose(index);
        }
        file
    }

    /// A chunk that was here is not.
    pub(super) fn lose(&mut self, index: u32) {
        if let Some(state) = self.state.get_mut(index as usize)
            && *state == HERE
        {
            *state = MISSING;
            self.left += 1;
            self.pending.insert(self.piece_of(index));
        }
    }

    pub(super) fn pieces(&self) -> u32 {
        self.bounds.len().saturating_sub(1) as u32
    }

    pub(super) fn piece_of(&self, chunk: u32) -> u32 {
        (self.bounds.partition_point(|&first| first <= chunk).saturating_sub(1)) as u32
    }

    pub(super) fn piece(&self, piece: u32) -> Range<u32> {
        let at = |i: usize| self.bounds.get(i).copied().unwrap_or_default();
        at(piece as usize)..at(piece as usize + 1)
    }

    pub(super) fn is_missing(&self, chunk: u32) -> bool {
        self.state.get(chunk as usize) == Some(&MISSING)
    }

    pub(super) fn is_here(&self, chunk: u32) -> bool {
        self.state.get(chunk as usize) == Some(&HERE)
    }

    pub(super) fn len(&self, chunk: u32) -> u64 {
        self.lens.get(chunk as usize).copied().unwrap_or_default().into()
    }

    /// The first run of chunks in `piece` that are missing and `wanted`, at most `budget` bytes but at least one chunk.
    pub(super) fn run(&self, piece: u32, wanted: impl Fn(u32) -> bool, budget: u64) -> Option<Run> {
        let mut range = self.piece(piece);
        let first = range.find(|&chunk| self.is_missing(chunk) && wanted(chunk))?;
        let mut run = Run { first, count: 1, bytes: self.len(first) };
        for chunk in range {
            if !self.is_missing(chunk) || !wanted(chunk) || run.bytes + self.len(chunk) > budget {
                break;
            }
            run.bytes += self.len(chunk);
            run.count += 1;
        }
        Some(run)
    }

    /// What is not here of `range`, as one run from its first such chunk to its last.
    pub(super) fn rest(&self, range: Range<u32>) -> Option<Run> {
        let first = range.clone().find(|&chunk| !self.is_here(chunk))?;
        let last = range.rev().find(|&chunk| !self.is_here(chunk))?;
        Some(Run { first, count: last - first + 1, bytes: (first..=last).map(|chunk| self.len(chunk)).sum() })
    }

    pub(super) fn ask(&mut self, first: u32, count: u32) {
        for chunk in first..first + count {
            if let Some(state) = self.state.get_mut(chunk as usize)
                && *state < HERE - 1
            {
                *state += 1;
            }
        }
        self.settle(self.piece_of(first));
    }

    /// A request for these is over: what nobody else was asked for is missing again. Answers the pieces that are pending anew.
    pub(super) fn give_back(&mut self, first: u32, count: u32) -> BTreeSet<u32> {
        let mut again = BTreeSet::new();
        for chunk in first..first + count {
            if let Some(state) = self.state.get_mut(chunk as usize)
                && *state != HERE
                && *state != MISSING
            {
                *state -= 1;
                if *state == MISSING {
                    again.insert(self.piece_of(chunk));
                }
            }
        }
        self.pending.extend(&again);
        again
    }

    /// Whether that chunk was new.
    pub(super) fn keep(&mut self, chunk: u32) -> bool {
        match self.state.get_mut(chunk as usize) {
            Some(state) if *state != HERE => {
                *state = HERE;
                self.left -= 1;
                self.settle(self.piece_of(chunk));
                true
            }
            _ => false,
        }
    }

    fn settle(&mut self, piece: u32) {
        if !self.piece(piece).any(|chunk| self.is_missing(chunk)) {
            self.pending.remove(&piece);
        }
    }
}
