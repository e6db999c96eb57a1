//! The worker's standard output: one JSON [`Report`] a line.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use registry::serving::Report;

/// Shortest time between two reports of progress: enough for a progress bar, few enough to read in a log.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Writes reports, from any thread, whole lines at a time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reporter {
    last_progress: Arc<Mutex<Option<Instant>>>,
}

impl Reporter {
    /// Writes one report at once. A supervisor that no longer reads is noticed by the end of the input, not
    /// here.
    pub(crate) fn send(&self, report: &Report) {
        let Ok(mut line) = serde_json::to_string(report) else { return };
        line.push('\n');
        let mut out = std::io::stdout().lock();
        if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
            tracing::debug!("nobody reads the reports any more");
        }
    }

    /// Reports how far hashing is, unless it did so just now.
    pub(crate) fn verifying(&self, bytes_done: u64, bytes_total: u64) {
        let mut last = self.last_progress.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL) || bytes_done == bytes_total;
        if due {
            *last = Some(Instant::now());
            self.send(&Report::Verifying { bytes_done, bytes_total });
        }
    }
}
