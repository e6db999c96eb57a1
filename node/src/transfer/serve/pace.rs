//! Whether it pays to encode: measured, chunk by chunk.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Weight of the newest measure.
const WEIGHT: f64 = 0.2;
/// Encoding must take less than this share of the time that sending the plain bytes takes.
const MARGIN: f64 = 0.7;
/// Encoding and decoding of one byte, in nanoseconds, before it was measured: about 1 GB/s.
const FIRST_GUESS: f64 = 1.0;
/// Layouts that do not shrink are tried again after so many bytes: the next tensor may be another.
const TRY_AGAIN: u64 = 64 * 1024 * 1024;
/// From this share of busy processors on, encoding takes from others what it gives to the line.
const BUSY: f64 = 0.9;
/// Between two looks at the processors.
const LOOK: Duration = Duration::from_millis(500);

/// What was measured on one stream.
#[derive(Debug)]
pub(super) struct Pace {
    /// Nanoseconds that a byte on the wire takes; unknown at first.
    send: Option<f64>,
    /// Nanoseconds that encoding a byte takes.
    encode: f64,
    /// Bytes that will go plain, because those before them did not shrink.
    plain: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { send: None, encode: FIRST_GUESS, plain: 0 }
    }
}

impl Pace {
    /// So many bytes took so long to send.
    pub(super) fn sent(&mut self, bytes: u64, time: Duration) {
        if bytes > 0 {
            let latest = time.as_nanos() as f64 / bytes as f64;
            self.send = Some(self.send.map_or(latest, |send| send + (latest - send) * WEIGHT));
        }
        self.plain = self.plain.saturating_sub(bytes);
    }

    /// Encoding so many bytes took so long, and whether it made them fewer.
    pub(super) fn encoded(&mut self, bytes: u64, time: Duration, shrank: bool) {
        if bytes > 0 {
            let latest = time.as_nanos() as f64 / bytes as f64;
            self.encode += (latest - self.encode) * WEIGHT;
        }
        if !shrank {
            self.plain = TRY_AGAIN;
        }
    }

    /// Whether the next chunks come sooner when they are encoded: the line is slower than the processor.
    pub(super) fn gains(&self) -> bool {
        self.plain == 0 && self.send.is_some_and(|send| self.encode < send * MARGIN)
    }
}

struct Sample {
    at: Instant,
    busy: u64,
    all: u64,
    share: f64,
}

/// Whether this machine's processors have nothing to spare.
pub(in crate::transfer) fn is_busy() -> bool {
    static LAST: Mutex<Option<Sample>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(last) = last.as_ref().filter(|last| last.at.elapsed() < LOOK) {
        return last.share >= BUSY;
    }
    // Where the system does not tell, the processors count as free.
    let Some((busy, all)) = std::fs::read_to_string("/proc/stat").ok().and_then(|stat| times(&stat)) else {
        return false;
    };
    let share = last.as_ref().map_or(0.0, |last| {
        busy.saturating_sub(last.busy) as f64 / all.saturating_sub(last.all).max(1) as f64
    });
    *last = Some(Sample { at: Instant::now(), busy, all, share });
    share >= BUSY
}

/// Busy and all time of all processors, from the first line of proc_stat(5).
fn times(stat: &str) -> Option<(u64, u64)> {
    let fields: Vec<u64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    let all: u64 = fields.iter().take(8).sum();
    // The fourth and fifth: idle, and idle while the disk worked.
    let idle: u64 = fields.iter().skip(3).take(2).sum();
    (fields.len() >= 5).then_some((all - idle, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn nothing_is_encoded_before_the_line_was_measured_and_a_fast_line_gets_plain_bytes() {
        let mut pace = Pace::default();
        assert!(!pace.gains());
        pace.sent(MIB, Duration::from_micros(200));
        assert!(!pace.gains(), "5 GB/s");
        (0..50).for_each(|_| pace.sent(MIB, Duration::from_millis(80)));
        assert!(pace.gains(), "12.5 MB/s");
    }

    #[test]
    fn what_does_not_shrink_is_tried_again_much_later() {
        let mut pace = Pace::default();
        pace.sent(MIB, Duration::from_millis(100));
        pace.encoded(MIB, Duration::from_millis(1), false);
        assert!(pace.plain > 0);
        for _ in 0..TRY_AGAIN / MIB {
            pace.sent(MIB, Duration::from_millis(100));
        }
        assert_eq!(pace.plain, 0);
    }

    #[test]
    fn the_first_line_of_proc_stat() {
        assert_eq!(times("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3"), Some((150, 1000)));
        assert_eq!(times("cpu 1 2"), None);
        assert_eq!(times(""), None);
    }
}
