//! How a seed hands out a release to several peers at once: each chunk once before any twice. Decisions only.
//!
//! To a single peer a seed says that it has everything. As soon as two watch, each is told of other chunks (its grants), so
//! that what one gets from the seed the others get from that one, and the seed's uplink carries every chunk once. A peer is
//! granted more as it takes what it was granted. When everything was given out, or when a peer makes no use of its grants, it
//! is told the whole truth, and asks for what it likes.
//!
//! Several seeds do not know of each other. Each begins at a place of its own, so that they carry different chunks for as long as
//! there are some; but the heads of the files, which are wanted first, all of them give out first.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::wire::{Have, News};

/// Time since the source came to be.
type Now = Duration;

/// Chunks beyond which a release is handed out without this: the books would cost more than they save.
pub(in crate::transfer) const MAX_LAP_CHUNKS: u64 = 1 << 20;
/// Least bytes granted ahead to each peer: two of the longest chunks.
const MIN_GRANT: u64 = 2 * 1024 * 1024;
/// A peer is granted ahead what it takes in this time: more than news take.
const GRANT_TIME: f64 = 0.5;
/// Bytes of one grant: one request.
const GRANT: u64 = 1024 * 1024;
/// A peer that takes nothing of its grants for so long is told everything: it has them already, or is too slow to matter.
const UNUSED: Duration = Duration::from_secs(2);
/// When the last grant was taken, what is on its way has so long before everybody is told everything.
const SETTLE: Duration = Duration::from_millis(1500);
/// Weight of the newest measure of a peer's rate.
const RATE_WEIGHT: f64 = 0.3;

/// A run of chunks of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transfer) struct Span {
    pub(in crate::transfer) file: u32,
    pub(in crate::transfer) first: u32,
    pub(in crate::transfer) count: u32,
}

/// A file as a lap sees it: how many chunks, and how long they are on average.
#[derive(Debug, Clone, Copy)]
pub(in crate::transfer) struct FileShape {
    pub(in crate::transfer) chunks: u32,
    pub(in crate::transfer) mean: u64,
}

#[derive(Debug, Default)]
struct Watcher {
    /// Told everything.
    free: bool,
    grants: VecDeque<Span>,
    /// Bytes of them.
    granted: u64,
    rate: f64,
    taken: u64,
    measured: Now,
    used: Now,
    news: Vec<News>,
}

/// Where the next grant is looked for: in the heads of the files first, then once around.
#[derive(Debug, Default)]
struct Cursor {
    /// Files whose heads were looked at.
    heads: u32,
    file: u32,
    chunk: u32,
    /// Chunks until it was around.
    left: u64,
}

impl Cursor {
    /// One that begins `start` / 2^64 into the release.
    fn new(files: &[FileShape], start: u64) -> Self {
        let left: u64 = files.iter().map(|file| u64::from(file.chunks)).sum();
        let mut chunk = ((u128::from(start) * u128::from(left)) >> 64) as u64;
        for (file, shape) in (0u32..).zip(files) {
            if chunk < u64::from(shape.chunks) {
                return Self { heads: 0, file, chunk: chunk as u32, left };
            }
            chunk -= u64::from(shape.chunks);
        }
        Self::default()
    }
}

/// The books of one release.
#[derive(Debug)]
pub(in crate::transfer) struct Lap<K: Ord + Copy> {
    files: Vec<FileShape>,
    /// By file, a bit for each chunk that was sent or granted.
    given: Vec<Vec<u64>>,
    cursor: Cursor,
    returned: Vec<Span>,
    watchers: BTreeMap<K, Watcher>,
    emptied: Option<Now>,
    over: bool,
}

impl<K: Ord + Copy> Lap<K> {
    /// Books that begin `start` / 2^64 into the release: a number of the seed's own.
    pub(in crate::transfer) fn new(files: Vec<FileShape>, start: u64) -> Self {
        let given = files.iter().map(|file| vec![0; (file.chunks as usize).div_ceil(64)]).collect();
        Self {
            cursor: Cursor::new(&files, start),
            files,
            given,
            returned: Vec::new(),
            watchers: BTreeMap::new(),
            emptied: None,
            over: false,
        }
    }

    /// Books that are closed: everybody is told everything.
    pub(in crate::transfer) fn closed() -> Self {
        Self { over: true, ..Self::new(Vec::new(), 0) }
    }

    /// Whether every chunk was given out.
    #[cfg(test)]
    pub(in crate::transfer) fn is_over(&self) -> bool {
        self.over
    }

    /// A peer watches.
    pub(in crate::transfer) fn join(&mut self, key: K, now: Now) {
        let watcher = Watcher { used: now, measured: now, ..Watcher::default() };
        self.watchers.insert(key, watcher);
        if self.over || self.watchers.len() == 1 {
            self.free(key);
            return;
        }
        if self.watchers.len() == 2 {
            self.restrict(now);
        }
        self.grant(now);
    }

    /// A peer watches no more: its grants go to others.
    pub(in crate::transfer) fn leave(&mut self, key: K, now: Now) {
        let Some(watcher) = self.watchers.remove(&key) else { return };
        for span in watcher.grants {
            self.set(span, false);
            self.returned.push(span);
            self.emptied = None;
        }
        let left: Vec<K> = self.watchers.keys().copied().collect();
        if let [only] = left[..] {
            self.free(only);
        }
        self.grant(now);
    }

    /// Chunks are about to be sent to a peer, watching or not.
    pub(in crate::transfer) fn served(&mut self, key: K, span: Span, bytes: u64, now: Now) {
        if self.over {
            return;
        }
        self.set(span, true);
        if let Some(watcher) = self.watchers.get_mut(&key) {
            watcher.used = now;
            watcher.taken += bytes;
            watcher.take(span, &self.files);
        }
        self.grant(now);
    }

    /// Something that a peer asked for is on its way to it: it need not ask for more meanwhile.
    pub(in crate::transfer) fn active(&mut self, key: &K, now: Now) {
        if let Some(watcher) = self.watchers.get_mut(key) {
            watcher.used = now;
        }
    }

    /// Time passed.
    pub(in crate::transfer) fn tick(&mut self, now: Now) {
        if self.over {
            return;
        }
        let unused: Vec<K> =
            self.watchers.iter_mut().filter_map(|(key, watcher)| watcher.tick(now).then_some(*key)).collect();
        unused.into_iter().for_each(|key| self.free(key));
        self.grant(now);
        if self.watchers.values().any(|watcher| !watcher.grants.is_empty()) {
            self.emptied = None;
        }
        if self.emptied.is_some_and(|since| now.saturating_sub(since) >= SETTLE) {
            self.over = true;
            let all: Vec<K> = self.watchers.keys().copied().collect();
            all.into_iter().for_each(|key| self.free(key));
        }
    }

    /// What a peer is to be told.
    pub(in crate::transfer) fn news(&mut self, key: &K) -> Vec<News> {
        self.watchers.get_mut(key).map(|watcher| std::mem::take(&mut watcher.news)).unwrap_or_default()
    }

    fn free(&mut self, key: K) {
        if let Some(watcher) = self.watchers.get_mut(&key)
            && !watcher.free
        {
            watcher.free = true;
            watcher.granted = 0;
            // What it was granted and did not take may go to others too.
            let spans: Vec<Span> = watcher.grants.drain(..).collect();
            watcher.news.push(News { file: None, replaces: false, have: Have::Everything });
            if !self.over {
                for span in spans {
                    self.set(span, false);
                    self.returned.push(span);
                }
            }
        }
    }

    /// From telling everything to grants: whoever was alone goes on with what it was sent.
    fn restrict(&mut self, now: Now) {
        for watcher in self.watchers.values_mut() {
            watcher.used = now;
            if std::mem::take(&mut watcher.free) {
                watcher.news.push(News { file: None, replaces: true, have: Have::Nothing });
            }
        }
    }

    /// Gives those that run short something of what nobody was given.
    fn grant(&mut self, now: Now) {
        if self.over {
            return;
        }
        loop {
            let neediest = self
                .watchers
                .iter()
                .filter(|(_, watcher)| !watcher.free && watcher.granted < watcher.wanted())
                .min_by_key(|(_, watcher)| watcher.granted)
                .map(|(key, _)| *key);
            let Some(key) = neediest else { return };
            let Some(span) = self.next_span() else {
                self.emptied.get_or_insert(now);
                return;
            };
            self.set(span, true);
            let bytes = self.bytes(span);
            if let Some(watcher) = self.watchers.get_mut(&key) {
                if watcher.granted == 0 {
                    watcher.used = now;
                }
                watcher.granted += bytes;
                watcher.grants.push_back(span);
                let have = Have::Runs(vec![(span.first, span.count)]);
                watcher.tell(News { file: Some(span.file), replaces: false, have });
            }
        }
    }

    fn next_span(&mut self) -> Option<Span> {
        while let Some(span) = self.returned.pop() {
            // It may have been sent to somebody who asked for it all the same.
            if !self.is_given(span.file, span.first) {
                return Some(span);
            }
        }
        while let Some(span) =
            self.files.get(self.cursor.heads as usize).map(|_| self.span(self.cursor.heads, 0))
        {
            self.cursor.heads += 1;
            if span.is_some() {
                return span;
            }
        }
        while self.cursor.left > 0 {
            let (file, chunk) = (self.cursor.file, self.cursor.chunk);
            if self.files.get(file as usize).is_none_or(|shape| chunk >= shape.chunks) {
                (self.cursor.file, self.cursor.chunk) = ((file + 1) % self.files.len() as u32, 0);
                continue;
            }
            let span = self.span(file, chunk);
            let passed = span.map_or(1, |span| span.count);
            self.cursor.chunk += passed;
            self.cursor.left = self.cursor.left.saturating_sub(u64::from(passed));
            if span.is_some() {
                return span;
            }
        }
        None
    }

    /// What nobody was given, from this chunk on: one grant at most.
    fn span(&self, file: u32, first: u32) -> Option<Span> {
        let shape = self.files.get(file as usize)?;
        let most = (GRANT / shape.mean.max(1)).clamp(1, u64::from(crate::wire::MAX_RANGE_CHUNKS)) as u32;
        let room = most.min(shape.chunks.saturating_sub(first));
        let count = (0..room).take_while(|i| !self.is_given(file, first + i)).count() as u32;
        (count > 0).then_some(Span { file, first, count })
    }

    fn bytes(&self, span: Span) -> u64 {
        self.files.get(span.file as usize).map_or(0, |shape| shape.mean * u64::from(span.count))
    }

    fn is_given(&self, file: u32, chunk: u32) -> bool {
        let word = self.given.get(file as usize).and_then(|words| words.get(chunk as usize / 64));
        word.is_none_or(|word| word >> (chunk % 64) & 1 == 1)
    }

    fn set(&mut self, span: Span, given: bool) {
        let Some(words) = self.given.get_mut(span.file as usize) else { return };
        for chunk in span.first..span.first.saturating_add(span.count) {
            let Some(word) = words.get_mut(chunk as usize / 64) else { return };
            match given {
                true => *word |= 1 << (chunk % 64),
                false => *word &= !(1 << (chunk % 64)),
            }
        }
    }
}

impl Watcher {
    fn wanted(&self) -> u64 {
        MIN_GRANT.max((self.rate * GRANT_TIME) as u64)
    }

    /// Takes `span` off the grants.
    fn take(&mut self, span: Span, files: &[FileShape]) {
        let mean = files.get(span.file as usize).map_or(0, |shape| shape.mean);
        let end = span.first.saturating_add(span.count);
        let mut rest = VecDeque::new();
        let mut granted = 0;
        for grant in self.grants.drain(..) {
            let grant_end = grant.first + grant.count;
            if grant.file != span.file || grant_end <= span.first || grant.first >= end {
                granted += files.get(grant.file as usize).map_or(0, |s| s.mean) * u64::from(grant.count);
                rest.push_back(grant);
                continue;
            }
            for (first, last) in [(grant.first, span.first.min(grant_end)), (end.max(grant.first), grant_end)]
            {
                if first < last {
                    rest.push_back(Span { file: grant.file, first, count: last - first });
                    granted += mean * u64::from(last - first);
                }
            }
        }
        (self.grants, self.granted) = (rest, granted);
    }

    /// Measures; whether its grants lie unused.
    fn tick(&mut self, now: Now) -> bool {
        let passed = now.saturating_sub(self.measured).as_secs_f64();
        if passed >= 0.25 {
            let latest = self.taken as f64 / passed;
            self.rate += (latest - self.rate) * RATE_WEIGHT;
            (self.taken, self.measured) = (0, now);
        }
        !self.free && !self.grants.is_empty() && now.saturating_sub(self.used) >= UNUSED
    }

    /// Puts runs of one file together, so that the list stays short.
    fn tell(&mut self, news: News) {
        if let (Some(News { file, replaces: false, have: Have::Runs(last) }), Have::Runs(more)) =
            (self.news.last_mut(), &news.have)
            && *file == news.file
            && last.len() < crate::wire::MAX_RUNS
        {
            last.extend_from_slice(more);
            return;
        }
        self.news.push(news);
    }
}

#[cfg(test)]
mod tests;
