//! The listener of a worker, bound here: it outlives the process that serves on it, and a worker that takes another's place serves on
//! the same one.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A listener, until it is closed. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Listener(Arc<Mutex<Option<TcpListener>>>);

impl Listener {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self(Arc::new(Mutex::new(Some(listener))))
    }

    fn open(&self) -> MutexGuard<'_, Option<TcpListener>> {
        // Every change is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever connects from here on is turned away, and does not wait for nobody; unless another worker has it too.
    pub(super) fn close(&self) {
        *self.open() = None;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.open().is_none()
    }

    /// Listens again, after it was closed.
    pub(super) fn bind(&self, address: SocketAddr) -> io::Result<()> {
        let bound = TcpListener::bind(address)?;
        *self.open() = Some(bound);
        Ok(())
    }

    /// Its descriptor once more.
    pub(super) fn try_clone(&self) -> io::Result<TcpListener> {
        match &*self.open() {
            Some(listener) => listener.try_clone(),
            None => Err(io::Error::other("it has no listener any more")),
        }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.open().as_ref()?.local_addr().ok()
    }
}
