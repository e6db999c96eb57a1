//! What an engine has done, in numbers that any thread may read.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper ends of the times to the first token that are told apart, in milliseconds.
const FIRST_TOKEN_MS: [u64; 12] = [10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 120_000];

/// The numbers of one queue and its engine.
#[derive(Debug, Default)]
pub struct Metrics {
    running: AtomicU64,
    waiting: AtomicU64,
    cells_used: AtomicU64,
    cells: AtomicU64,
    steps: AtomicU64,
    computed: AtomicU64,
    prompt: AtomicU64,
    reused: AtomicU64,
    finished: AtomicU64,
    failed: AtomicU64,
    left: AtomicU64,
    refused: AtomicU64,
    first: [AtomicU64; FIRST_TOKEN_MS.len()],
    first_count: AtomicU64,
    first_us: AtomicU64,
}

impl Metrics {
    /// A step computed so many tokens, of which so many were of prompts.
    pub(crate) fn step(&self, tokens: usize, prompt: usize) {
        self.steps.fetch_add(1, Relaxed);
        self.computed.fetch_add(tokens as u64, Relaxed);
        self.prompt.fetch_add(prompt as u64, Relaxed);
    }

    /// An answer began `after` it was asked for, and `reused` tokens of its prompt were there already.
    pub(crate) fn first_token(&self, after: Duration, reused: usize) {
        self.reused.fetch_add(reused as u64, Relaxed);
        self.first_count.fetch_add(1, Relaxed);
        self.first_us.fetch_add(u64::try_from(after.as_micros()).unwrap_or(u64::MAX), Relaxed);
        let bucket = FIRST_TOKEN_MS.iter().position(|end| after.as_millis() <= u128::from(*end));
        if let Some(bucket) = bucket.and_then(|bucket| self.first.get(bucket)) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    /// One request was answered.
    pub(crate) fn finished(&self) {
        self.finished.fetch_add(1, Relaxed);
    }

    /// One could not be answered.
    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// The asker of one left.
    pub(crate) fn left(&self) {
        self.left.fetch_add(1, Relaxed);
    }

    /// One was not taken.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// How it is now.
    pub(crate) fn now(&self, running: usize, waiting: usize, cells_used: usize, cells: usize) {
        self.running.store(running as u64, Relaxed);
        self.waiting.store(waiting as u64, Relaxed);
        self.cells_used.store(cells_used as u64, Relaxed);
        self.cells.store(cells as u64, Relaxed);
    }

    /// In Prometheus's text format. `generated` is what the queue counts.
    pub(crate) fn text(&self, generated: u64) -> String {
        let mut text = String::new();
        let mut put = |name: &str, kind: &str, help: &str, value: u64| {
            let name = format!("steelyard_worker_{name}");
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        };
        put("requests_running", "gauge", "Requests that are computed now.", self.running.load(Relaxed));
        put("requests_waiting", "gauge", "Requests that wait.", self.waiting.load(Relaxed));
        put(
            "cache_cells_used",
            "gauge",
            "Cells of the cache in use, kept beginnings included.",
            self.cells_used.load(Relaxed),
        );
        put("cache_cells", "gauge", "Cells of the cache.", self.cells.load(Relaxed));
        put("steps_total", "counter", "Passes over the weights.", self.steps.load(Relaxed));
        put("computed_tokens_total", "counter", "Tokens computed.", self.computed.load(Relaxed));
        put(
            "prompt_tokens_total",
            "counter",
            "Tokens of prompts computed, the last of each excepted.",
            self.prompt.load(Relaxed),
        );
        put(
            "cached_tokens_total",
            "counter",
            "Tokens of prompts that needed no computing.",
            self.reused.load(Relaxed),
        );
        put("generated_tokens_total", "counter", "Tokens generated.", generated);
        put(
            "requests_finished_total",
            "counter",
            "Requests that were answered.",
            self.finished.load(Relaxed),
        );
        put("requests_failed_total", "counter", "Requests that were broken off.", self.failed.load(Relaxed));
        put("requests_left_total", "counter", "Requests whose asker left.", self.left.load(Relaxed));
        put("requests_refused_total", "counter", "Requests that were not taken.", self.refused.load(Relaxed));
        self.histogram(&mut text);
        text
    }

    fn histogram(&self, text: &mut String) {
        let name = "steelyard_worker_first_token_seconds";
        let _ = write!(text, "# HELP {name} From the request to its first token.\n# TYPE {name} histogram\n");
        let mut sum = 0;
        for (end, count) in FIRST_TOKEN_MS.iter().zip(&self.first) {
            sum += count.load(Relaxed);
            let _ = writeln!(text, "{name}_bucket{{le=\"{}\"}} {sum}", *end as f64 / 1e3);
        }
        let count = self.first_count.load(Relaxed);
        let seconds = self.first_us.load(Relaxed) as f64 / 1e6;
        let _ = write!(
            text,
            "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {seconds}\n{name}_count {count}\n"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_token_is_in_its_bucket_and_those_above() {
        let metrics = Metrics::default();
        for ms in [5, 60, 60, 999_999] {
            metrics.first_token(Duration::from_millis(ms), 2);
        }
        let text = metrics.text(7);
        for line in [
            "first_token_seconds_bucket{le=\"0.01\"} 1",
            "first_token_seconds_bucket{le=\"0.1\"} 3",
            "first_token_seconds_bucket{le=\"+Inf\"} 4",
            "first_token_seconds_count 4",
            "cached_tokens_total 8",
            "generated_tokens_total 7",
        ] {
            assert!(text.contains(&format!("steelyard_worker_{line}\n")), "{line} in {text}");
        }
    }
}
