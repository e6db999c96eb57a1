//! Asking a live worker to try its walls.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use registry::serving::{Attempt, MAX_ATTEMPTS, Proving};
use tokio::sync::{mpsc, oneshot};

use super::{ServingError, Workers};
use crate::events::{WorkerInfo, WorkerState};

/// All attempts together take some milliseconds; where none is refused, some wait for an answer from a network.
const PATIENCE: Duration = Duration::from_secs(20);
/// An address outside that belongs to nobody (RFC 5737).
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Key files that a worker tries to read, of those that lie in the node's folder.
const KEY_FILES: usize = 8;

/// Somebody waits for a proof.
pub(super) struct Asked {
    proving: Proving,
    answer: oneshot::Sender<Vec<Attempt>>,
}

/// What one process was asked and has not answered yet.
#[derive(Default)]
pub(super) struct Proofs {
    last: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Vec<Attempt>>>,
}

impl Proofs {
    pub(super) fn ask(&mut self, asked: Asked) -> Proving {
        // Whoever asked may have left.
        self.waiting.retain(|_, answer| !answer.is_closed());
        self.last += 1;
        self.waiting.insert(self.last, asked.answer);
        Proving { id: self.last, ..asked.proving }
    }

    pub(super) fn answer(&mut self, id: u64, mut attempts: Vec<Attempt>) {
        attempts.truncate(MAX_ATTEMPTS);
        if let Some(answer) = self.waiting.remove(&id) {
            let _ = answer.send(attempts);
        }
    }
}

impl Workers {
    /// Has worker `id`, which must be ready, try to break out; what came of every attempt, and the worker as it is after it.
    pub async fn prove(&self, id: u64) -> Result<(WorkerInfo, Vec<Attempt>), ServingError> {
        let (ask, watched) = {
            let table = self.table();
            let entry = table.workers.get(&id).ok_or(ServingError::NotFound(id))?;
            (entry.ask.clone(), entry.info.subscribe())
        };
        let state = watched.borrow().state;
        if state != WorkerState::Ready {
            return Err(ServingError::NotReady(id));
        }
        let (answer, answered) = oneshot::channel();
        let sent = ask.try_send(Asked { proving: self.proving(), answer });
        match sent {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(ServingError::Proving(id)),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(ServingError::NotFound(id)),
        }
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(attempts)) => {
                let info = watched.borrow().clone();
                Ok((info, attempts))
            }
            // It was asked already, is gone, or hangs: nothing is proved.
            _ => Err(ServingError::Unproved(id)),
        }
    }

    /// What a worker has no business with here.
    fn proving(&self) -> Proving {
        let layout = &self.shared.layout;
        let keys = fs::read_dir(layout.keys()).into_iter().flatten().flatten();
        let mut read: Vec<PathBuf> = keys.map(|entry| entry.path()).take(KEY_FILES).collect();
        read.sort();
        read.insert(0, layout.keys());
        read.push(layout.config());
        let connect = vec![SocketAddr::from((OUTSIDE, 443)), SocketAddr::from((Ipv6Addr::LOCALHOST, 443))];
        Proving { id: 0, node: std::process::id(), connect, read, write: layout.home().to_owned() }
    }
}
