//! The one order that everything in the worker obeys: stop.

use std::sync::Arc;

use registry::serving::StopCode;
use tokio::sync::watch;

/// Why the worker stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Recalled, or only asked to stop.
    pub code: StopCode,
    /// Why, for people; running requests are answered with it.
    pub reason: String,
}

/// Set once, from any thread; read by the hashing, the loading, the engine between two tokens, and every
/// request.
#[derive(Debug, Clone)]
pub struct Halt(Arc<watch::Sender<Option<Cause>>>);

impl Default for Halt {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Halt {
    /// Orders the stop. A recall replaces a mere request; otherwise the first cause stands.
    pub fn set(&self, cause: Cause) {
        self.0.send_if_modified(|current| {
            let stands = current
                .as_ref()
                .is_some_and(|old| old.code == StopCode::Recalled || cause.code == StopCode::Requested);
            if !stands {
                *current = Some(cause);
            }
            !stands
        });
    }

    /// Why to stop, once that was ordered.
    pub fn cause(&self) -> Option<Cause> {
        self.0.borrow().clone()
    }

    /// Whether the stop was ordered. Cheap enough to ask at each token and each block of a file.
    pub fn is_set(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits for the order.
    pub async fn wait(&self) -> Cause {
        let mut watching = self.0.subscribe();
        loop {
            if let Some(cause) = watching.borrow_and_update().clone() {
                return cause;
            }
            if watching.changed().await.is_err() {
                // Unreachable while `self` holds the sender; waiting for ever is the safe reading of it.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(code: StopCode) -> Cause {
        Cause { code, reason: "because".to_owned() }
    }

    #[tokio::test]
    async fn a_recall_replaces_a_request_and_nothing_replaces_a_recall() {
        let halt = Halt::default();
        assert!(!halt.is_set());
        halt.set(cause(StopCode::Requested));
        assert_eq!(halt.wait().await.code, StopCode::Requested);
        halt.set(cause(StopCode::Recalled));
        halt.set(cause(StopCode::Requested));
        assert_eq!(halt.wait().await.code, StopCode::Recalled);
    }
}
