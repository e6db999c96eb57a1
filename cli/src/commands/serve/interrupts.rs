//! What ends a command that goes on until somebody has had enough.

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// Ctrl-C, SIGTERM, or a terminal that was closed.
pub(crate) struct Interrupts(Vec<tokio::signal::unix::Signal>);

impl Interrupts {
    pub(crate) fn new() -> Result<Self, Failure> {
        let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate()];
        if !hangup_is_ignored() {
            kinds.push(SignalKind::hangup());
        }
        Ok(Self(kinds.into_iter().map(signal).collect::<Result<_, _>>()?))
    }

    pub(crate) async fn next(&mut self) {
        let each = self.0.iter_mut().map(|signal| Box::pin(signal.recv()));
        futures::future::select_all(each).await;
    }
}

/// Whether whoever started this (`nohup`) wants it to outlive the terminal. A signal that is listened for is ignored no
/// more, so it must be known before.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The lowest bit is signal 1, SIGHUP.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
