//! One peer: what it has, how fast it is, what it was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{FileKey, Limits, Now};
use crate::wire::{Have, News};

/// Weight of the newest tick in a peer's rate.
const RATE_WEIGHT: f64 = 0.3;
/// A window holds what the peer brings in this time beyond two round trips, so that the line is never empty and a lost peer
/// costs little.
const WINDOW_TIME: Duration = Duration::from_millis(500);
/// Smallest window: with chunks of 1 MiB one that comes and one that is asked for.
const MIN_WINDOW: u64 = 3 * 512 * 1024;
/// Longest round trip that is believed.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(5);
/// A peer from which nothing came for so long while it was asked is choked: others are asked for the same.
const SILENT: Duration = Duration::from_secs(3);
/// Bytes that a peer with open requests must bring within the stall limit: less is a drip, not a slow line.
const MIN_PROGRESS: u64 = 32 * 1024;

/// Which chunks of a file a peer has.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    all: bool,
    bits: Vec<u8>,
}

impl Held {
    pub(super) fn has(&self, chunk: u32) -> bool {
        self.all || self.bits.get(chunk as usize / 8).is_some_and(|byte| byte >> (chunk % 8) & 1 == 1)
    }

    /// Adds what was told; the sender checked it against the length of the file.
    fn add(&mut self, have: &Have) {
        match have {
            Have::Nothing => {}
            Have::Everything => *self = Self { all: true, bits: Vec::new() },
            Have::Some(more) => {
                self.grow(more.len());
                self.bits.iter_mut().zip(more).for_each(|(bits, more)| *bits |= more);
            }
            Have::Runs(runs) => {
                for &(first, count) in runs {
                    let end = first as usize + count as usize;
                    self.grow(end.div_ceil(8));
                    (first as usize..end).for_each(|chunk| {
                        if let Some(byte) = self.bits.get_mut(chunk / 8) {
                            *byte |= 1 << (chunk % 8);
                        }
                    });
                }
            }
        }
    }

    fn grow(&mut self, bytes: usize) {
        if self.bits.len() < bytes && !self.all {
            self.bits.resize(bytes, 0);
        }
    }
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) seed: bool,
    /// Whether it has every chunk of every file.
    all: bool,
    have: BTreeMap<FileKey, Held>,
    /// Pieces that hold a chunk that it has and that was pending when it was last looked at; not kept where it has all.
    pub(super) useful: BTreeMap<FileKey, BTreeSet<u32>>,
    pub(super) in_flight: u64,
    pub(super) requests: usize,
    /// Bytes a second; `None` until measured.
    pub(super) rate: Option<f64>,
    second: u64,
    round_trip: Duration,
    /// Bytes since `mark`, for the stall check.
    progress: u64,
    mark: Now,
    /// When the last byte came, or the first request was made of it after a rest.
    heard: Now,
    pub(super) choked: bool,
    /// Where it looks next in each file.
    pub(super) cursor: BTreeMap<FileKey, u32>,
}

impl Peer {
    pub(super) fn new(seed: bool, now: Now) -> Self {
        Self {
            seed,
            all: false,
            have: BTreeMap::new(),
            useful: BTreeMap::new(),
            in_flight: 0,
            requests: 0,
            rate: None,
            second: 0,
            round_trip: Duration::ZERO,
            progress: 0,
            mark: now,
            heard: now,
            choked: false,
            cursor: BTreeMap::new(),
        }
    }

    pub(super) fn has(&self, file: FileKey, chunk: u32) -> bool {
        self.all || self.have.get(&file).is_some_and(|held| held.has(chunk))
    }

    /// Whether it has the whole file, so that every pending piece of it is useful.
    pub(super) fn has_all(&self, file: FileKey) -> bool {
        self.all || self.have.get(&file).is_some_and(|held| held.all)
    }

    pub(super) fn told(&mut self, news: &News) {
        match news.file {
            None => {
                if news.replaces {
                    self.have.clear();
                    self.useful.clear();
                    self.all = false;
                }
                self.all |= news.have == Have::Everything;
            }
            Some(file) => {
                if news.replaces {
                    self.have.remove(&file);
                    self.useful.remove(&file);
                }
                self.have.entry(file).or_default().add(&news.have);
            }
        }
    }

    /// It refused what it had told of: nothing of that file is believed before it tells anew.
    pub(super) fn lied(&mut self, file: FileKey) {
        self.all = false;
        self.have.remove(&file);
        self.useful.remove(&file);
    }

    pub(super) fn forget_file(&mut self, file: FileKey) {
        self.useful.remove(&file);
        self.cursor.remove(&file);
    }

    pub(super) fn round_trip(&mut self, time: Duration) {
        self.round_trip = time.min(MAX_ROUND_TRIP);
    }

    pub(super) fn window(&self, limits: &Limits) -> u64 {
        if self.choked {
            return 1;
        }
        let time = WINDOW_TIME + 2 * self.round_trip;
        match self.rate {
            None => limits.first_window,
            // From 0 up to far beyond the limit: the cast saturates.
            Some(rate) => ((rate * time.as_secs_f64()) as u64)
                .clamp(MIN_WINDOW.min(limits.max_window), limits.max_window),
        }
    }

    /// The share of its window that is in use; from 1 on it is full.
    pub(super) fn fill(&self, limits: &Limits) -> f64 {
        self.in_flight as f64 / self.window(limits) as f64
    }

    /// How long it needs for what it was asked for.
    pub(super) fn backlog(&self) -> Duration {
        match self.rate {
            Some(rate) if rate > 1.0 => {
                Duration::from_secs_f64((self.in_flight as f64 / rate).min(MAX_BACKLOG.as_secs_f64()))
            }
            _ => MAX_BACKLOG,
        }
    }

    pub(super) fn asked(&mut self, bytes: u64, now: Now) {
        // A choked peer is being tried: its time runs on.
        if self.requests == 0 && !self.choked {
            (self.mark, self.heard, self.progress) = (now, now, 0);
        }
        self.in_flight += bytes;
        self.requests += 1;
    }

    pub(super) fn answered(&mut self, bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.requests = self.requests.saturating_sub(1);
    }

    pub(super) fn brought(&mut self, bytes: u64, now: Now) {
        self.second += bytes;
        self.progress += bytes;
        self.heard = now;
        self.choked = false;
        if self.progress >= MIN_PROGRESS {
            self.progress = 0;
            self.mark = now;
        }
    }

    /// Takes the time that passed into the rate. Answers what is wrong with it.
    pub(super) fn tick(&mut self, passed: f64, now: Now, stall: Duration) -> Health {
        if self.requests == 0 {
            self.second = 0;
            if !self.choked {
                self.mark = now;
                return Health::Well;
            }
        } else {
            let latest = self.second as f64 / passed;
            self.second = 0;
            self.rate = Some(match self.rate {
                None if latest == 0.0 => return self.patience(now, stall),
                None => latest,
                Some(rate) => rate + (latest - rate) * RATE_WEIGHT,
            });
        }
        self.patience(now, stall)
    }

    fn patience(&self, now: Now, stall: Duration) -> Health {
        if now.saturating_sub(self.mark) >= stall {
            Health::Stalled
        } else if self.requests > 0 && !self.choked && now.saturating_sub(self.heard) >= SILENT {
            Health::Silent
        } else {
            Health::Well
        }
    }
}

/// Longest time that a backlog is taken to need.
const MAX_BACKLOG: Duration = Duration::from_secs(60);

/// How a peer does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Health {
    Well,
    /// Nothing came for a while.
    Silent,
    /// Next to nothing came for too long.
    Stalled,
}
