//! Notices whoever opens weights for writing, before a byte is changed.
//!
//! A read lease (fcntl(2), `F_SETLEASE`) makes the kernel stop such an `open`, and every `truncate`, until the lease is given
//! up or `/proc/sys/fs/lease-break-time` has passed (45 seconds), and sends the holder SIGIO. The worker stops serving and
//! ends well within that time. A lease is refused while somebody has the file open for writing already, so nobody can have
//! begun before. Some network file systems have no leases; then only hashing again finds a change.

use std::io;
use std::os::fd::AsFd;

use registry::serving::StopCode;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{GateError, Opened};
use crate::halt::{Cause, Halt};
use crate::sealed::{lease_is_being_broken, take_read_lease};

/// Hears of writers. SIGIO ends a process that does not listen for it, so this comes before any lease.
#[derive(Debug)]
pub struct Ear(Signal);

impl Ear {
    /// Listens from now on. Call it within a Tokio runtime.
    pub fn new() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::io())?))
    }

    /// Stops the worker when somebody opens one of `files` for writing.
    pub async fn listen(mut self, files: Vec<Opened>, halt: Halt) {
        while self.0.recv().await.is_some() {
            let breaking = |file: &&Opened| lease_is_being_broken(file.as_fd()).unwrap_or(false);
            if let Some(file) = files.iter().find(breaking) {
                let reason = format!(
                    "another process opens `{}` ({}) for writing. Nothing may write to the store: find what does, then run `steelyard verify`",
                    file.path, file.blob
                );
                tracing::error!(%reason, "the weights are about to change");
                halt.set(Cause { code: StopCode::Damaged, reason });
            }
        }
    }
}

/// Takes a lease on each of `files`; the same descriptors, for [`Ear::listen`].
pub fn hold(files: &[Opened]) -> Result<Vec<Opened>, GateError> {
    let mut held = Vec::with_capacity(files.len());
    for file in files {
        match take_read_lease(file.as_fd()) {
            Ok(()) => held.push(file.try_clone().map_err(|error| file.unreadable(error))?),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(GateError::OpenForWriting { path: file.path.clone(), blob: file.blob });
            }
            Err(error) => {
                tracing::warn!(path = file.path, %error, "this file system has no leases; a change is found only by hashing again");
            }
        }
    }
    Ok(held)
}
