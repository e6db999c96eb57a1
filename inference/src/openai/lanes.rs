//! Whom a request is for: the model itself, or one of the adapters that go with it.

use registry::digest::Digest;
use serde_json::{Value, json};

use super::{ApiError, App, Identity};
use crate::engine::Job;
use crate::halt::{Cause, Halt};

/// Most characters of a model's name that an error says again.
const SHOWN: usize = 200;

/// An adapter.
pub(super) struct Adapted {
    identity: Identity,
    name: String,
    /// Set when it may not be served any more.
    halt: Halt,
}

/// The release of the adapter that an answer was computed with, if it was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WithAdapter(pub(crate) Option<Digest>);

impl App {
    /// The adapters that go with the model, in the order of the engine's. Only the first call counts.
    pub fn adapted(&self, adapters: Vec<(Identity, Halt)>) {
        let adapted = |(identity, halt): (Identity, Halt)| {
            let name = identity.model.to_string();
            Adapted { identity, name, halt }
        };
        if self.0.adapters.set(adapters.into_iter().map(adapted).collect()).is_err() {
            tracing::warn!("there are adapters already");
        }
    }

    fn adapters(&self) -> &[Adapted] {
        self.0.adapters.get().map_or(&[], Vec::as_slice)
    }

    fn adapter(&self) -> Option<&Adapted> {
        self.adapters().get((self.1 as usize).checked_sub(1)?)
    }

    /// What this is for, by its name.
    pub(super) fn model(&self) -> &str {
        self.adapter().map_or(&self.0.name, |adapter| &adapter.name)
    }

    /// What this is for.
    pub(super) fn identity(&self) -> &Identity {
        self.adapter().map_or(&self.0.identity, |adapter| &adapter.identity)
    }

    /// Why the adapter that this is for may not be served any more, if it is for one.
    pub(super) fn withdrawn(&self) -> Option<Cause> {
        self.adapter().and_then(|adapter| adapter.halt.cause())
    }

    /// Waits until what this is for may not be served any more.
    pub(super) async fn ended(&self) -> Cause {
        match self.adapter() {
            None => self.halt().wait().await,
            Some(adapter) => tokio::select! {
                biased;
                cause = self.halt().wait() => cause,
                cause = adapter.halt.wait() => cause,
            },
        }
    }

    /// The same interface for what a request names: by name, with its version, or by the release's digest. No name is the model itself.
    pub(super) fn chosen(&self, asked: Option<&str>) -> Result<Self, ApiError> {
        let Some(asked) = asked else { return Ok(self.clone()) };
        let all = (0..).take(1 + self.adapters().len()).map(|lane| Self(self.0.clone(), lane));
        let mut fitting = all.filter(|app| app.identity().is_called(asked));
        let Some(chosen) = fitting.next() else {
            let asked: String = asked.chars().take(SHOWN).collect();
            let names: Vec<&str> = self.adapters().iter().map(|adapter| adapter.name.as_str()).collect();
            return Err(ApiError::no_such_model(&asked, self.model(), &names));
        };
        // Several versions of one adapter have one name, and none is meant by it. The model's own name means the model.
        match fitting.next().filter(|_| chosen.1 > 0) {
            Some(other) => {
                Err(ApiError::ambiguous(asked, &chosen.identity().full(), &other.identity().full()))
            }
            None => Ok(chosen),
        }
    }

    /// The adapters that may be asked for, as the models' list shows them.
    pub(super) fn shown_adapters(&self) -> impl Iterator<Item = Self> + '_ {
        let all = (1..).take(self.adapters().len()).map(|lane| Self(self.0.clone(), lane));
        all.filter(|app| app.withdrawn().is_none())
    }

    /// Each adapter and how it stands.
    pub(super) fn adapters_health(&self) -> Vec<Value> {
        let state = |Adapted { identity, name, halt }: &Adapted| {
            let cause = halt.cause();
            let status = cause.as_ref().map_or("ok", |_| "withdrawn");
            json!({ "model": name, "release": identity.release, "status": status, "why": cause.map(|cause| cause.reason) })
        };
        self.adapters().iter().map(state).collect()
    }

    /// For whoever signs what was answered.
    pub(super) fn with_adapter(&self) -> WithAdapter {
        WithAdapter(self.adapter().map(|adapter| adapter.identity.release))
    }

    /// Says of a job whom it is for.
    pub(super) fn mark(&self, job: &mut Job) {
        job.lane = self.1;
        job.halt = self.adapter().map(|adapter| adapter.halt.clone());
    }
}

impl Identity {
    /// With its version.
    fn full(&self) -> String {
        format!("{}@{}", self.model, self.version)
    }

    fn is_called(&self, asked: &str) -> bool {
        asked == self.model.to_string() || asked == self.full() || asked == self.release.to_string()
    }
}
