//! Weights that are served are hashed again from time to time: a page that was given up for want of memory comes back from
//! the disk, and nobody looks at it then.
//!
//! The reading goes through the same descriptors and so through the same pages that the engine has mapped, at a bounded rate
//! and the lowest priority. What an engine copied (into a GPU, or into another layout) is not looked at again.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use registry::serving::{Rehash, StopCode};

use super::hash::{BLOCK, locate};
use super::{GateError, Opened, VerifiedFile};
use crate::halt::{Cause, Halt};

/// How often it is looked whether the worker stops.
const LOOK: Duration = Duration::from_millis(200);
/// The lowest priority that a thread can have.
const LOWEST: i32 = 19;

/// Starts the thread that hashes `files` every so often and stops the worker when one is not what was admitted.
pub fn start<'a>(
    files: impl Iterator<Item = &'a VerifiedFile>,
    how: Rehash,
    halt: Halt,
) -> std::io::Result<()> {
    if how.every_secs == 0 {
        return Ok(());
    }
    let files: Vec<Opened> = files.map(|file| file.0.try_clone()).collect::<std::io::Result<_>>()?;
    std::thread::Builder::new().name("rehash".to_owned()).spawn(move || watch(&files, how, &halt)).map(drop)
}

fn watch(files: &[Opened], how: Rehash, halt: &Halt) {
    // Serving goes on as well without it.
    let _ = rustix::process::setpriority_process(None, LOWEST);
    let every = Duration::from_secs(how.every_secs);
    while pause(every, halt) {
        let begun = Instant::now();
        for file in files {
            match again(file, how.mib_per_sec, halt) {
                Ok(()) => {}
                Err(GateError::Halted { .. }) => return,
                Err(error) => {
                    tracing::error!(%error, "the weights are damaged while they are served");
                    halt.set(Cause { code: StopCode::Damaged, reason: error.to_string() });
                    return;
                }
            }
        }
        tracing::debug!(seconds = begun.elapsed().as_secs(), "the weights are what they were");
    }
}

/// Waits; false when the worker stops meanwhile.
fn pause(time: Duration, halt: &Halt) -> bool {
    let end = Instant::now() + time;
    while !halt.is_set() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(LOOK));
    }
    false
}

/// Hashes one file once more, not faster than so many MiB a second.
fn again(file: &Opened, mib_per_sec: u32, halt: &Halt) -> Result<(), GateError> {
    let mut hasher = registry::digest::DigestHasher::default();
    let mut buffer = vec![0; BLOCK as usize];
    let begun = Instant::now();
    let mut offset = 0;
    while offset < file.size {
        let len = BLOCK.min(file.size - offset);
        let bytes = buffer.get_mut(..len as usize).unwrap_or_default();
        file.file.read_exact_at(bytes, offset).map_err(|error| file.unreadable(error))?;
        hasher.update(bytes);
        offset += len;
        let due = Duration::from_secs_f64(offset as f64 / f64::from(mib_per_sec.max(1)) / BLOCK as f64);
        if !pause(due.saturating_sub(begun.elapsed()), halt) {
            return Err(GateError::Halted { path: file.path.clone() });
        }
    }
    let found = hasher.finish();
    if found == file.blob {
        return Ok(());
    }
    let place = locate(file, halt)?;
    Err(GateError::HashMismatch { path: file.path.clone(), expected: file.blob, found, place })
}
