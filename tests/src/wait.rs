//! Waiting for conditions, with a limit.

use std::time::{Duration, Instant};

/// How long most conditions may take. Generous: the machine that runs the tests may have two busy cores.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at a condition: short beside everything that is waited for, long beside a context switch.
const STEP: Duration = Duration::from_millis(20);

/// Polls `condition` until it yields a value, for at most [`LIMIT`]; panics with `what` when it does not.
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(LIMIT, what, condition)
}

/// Polls `condition` until it yields a value, for at most `limit`; panics with `what` when it does not.
pub fn within<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        std::thread::sleep(STEP);
    }
}

/// Whether a process is over, reaped or not.
pub fn has_ended(pid: u64) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}
