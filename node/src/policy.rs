//! The policy file: read at the start, and again whenever it changes while the node runs.
//!
//! A file that can't be loaded at the start stops the start: a node must not run by other rules than its operator wrote. A
//! running node keeps the last policy that could be loaded, says so in an alert, and takes up the next good one by itself.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use registry::policy::{MAX_POLICY, Policy, PolicyError};

use crate::config::{Config, PolicySettings};
use crate::events::Event;
use crate::node::Node;
use crate::transfer::Outside;

/// How often the file is looked at. A look is one call to the system.
const LOOK: Duration = Duration::from_secs(1);
/// The alert's code.
const ALERT: &str = "policy";

/// Why a policy file is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It can't be read.
    #[error(
        "the policy file {path} can't be read: {source}; mend it or change `policy.file` in the settings"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no UTF-8.
    #[error("the policy file {path} is not UTF-8 text")]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// It does not stand the check.
    #[error(transparent)]
    Refused(#[from] PolicyError),
}

/// The policy file of these settings.
pub fn path(config: &Config) -> Option<PathBuf> {
    let file = &config.policy.file;
    (!file.is_empty()).then(|| config.home.join(file))
}

/// Reads a policy file; nothing longer than a policy may be.
pub fn read(path: &Path) -> Result<String, LoadError> {
    let io = |source| LoadError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(MAX_POLICY as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    String::from_utf8(bytes).map_err(|_| LoadError::NotText { path: path.to_owned() })
}

/// The policy that `settings` and the text of their file come to.
pub fn compose(settings: &PolicySettings, name: &str, text: &str) -> Result<Policy, PolicyError> {
    Policy::own(name, text, !settings.shipped, settings.witnesses)
}

/// Loads the policy of these settings.
pub fn load(config: &Config) -> Result<Arc<Policy>, LoadError> {
    match path(config) {
        None => Ok(Policy::shipped(config.policy.witnesses)),
        Some(path) => {
            let text = read(&path)?;
            Ok(Arc::new(compose(&config.policy, &path.display().to_string(), &text)?))
        }
    }
}

/// What tells one state of the file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark(Option<(SystemTime, u64, u64)>);

fn mark(path: &Path) -> Mark {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).ok();
    Mark(meta.and_then(|meta| Some((meta.modified().ok()?, meta.len(), meta.ino()))))
}

/// Follows the file until the node stops.
pub(crate) async fn watch(node: Node) {
    let Some(path) = path(node.config()) else { return };
    // Not the state at the start: it may have changed since it was loaded, and loading it once more is harmless.
    let mut seen = None;
    let mut clock = tokio::time::interval(LOOK);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let now = mark(&path);
        if seen == Some(now) {
            continue;
        }
        seen = Some(now);
        let config = node.config().clone();
        match tokio::task::spawn_blocking(move || load(&config)).await {
            Ok(Ok(policy)) => take(&node, policy),
            Ok(Err(error)) => alert(&node, &error),
            Err(error) => tracing::error!("the policy could not be loaded: {error}"),
        }
    }
}

/// Makes a policy the one in force. Whoever was allowed something is asked again.
fn take(node: &Node, policy: Arc<Policy>) {
    let (digest, rules) = (policy.digest(), policy.rules().len());
    if node.inner().set_policy_error(None) {
        tracing::info!("the policy file is in order again");
    }
    if node.store().policy().digest() == digest {
        return;
    }
    node.store().set_policy(policy);
    tracing::info!(%digest, rules, "a new policy is in force");
    node.inner().generation.fetch_add(1, Ordering::AcqRel);
    node.transfers_state().tell(Outside::Reconsider);
    node.events().send(Event::Policy { digest, rules });
}

fn alert(node: &Node, error: &LoadError) {
    let message = format!("{error}. The policy before it stays in force");
    tracing::error!("{message}");
    node.inner().set_policy_error(Some(error.to_string()));
    node.events().send(Event::Alert { code: ALERT.to_owned(), message, peer: None, nation: None });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_is_added_to_the_shipped_rules_or_stands_alone() {
        let home = tempfile::tempdir().unwrap();
        let mut config = Config::new(home.path());
        let shipped = load(&config).unwrap().rules().len();
        config.policy.file = "policy.cedar".to_owned();
        assert!(matches!(load(&config), Err(LoadError::Io { .. })));
        let file = home.path().join("policy.cedar");
        std::fs::write(&file, "@id(\"mine\") permit (principal, action, resource);").unwrap();
        assert_eq!(load(&config).unwrap().rules().len(), shipped + 1);
        config.policy.shipped = false;
        assert_eq!(load(&config).unwrap().rules().len(), 1);
        std::fs::write(&file, "@id(\"mine\")\npermit (principal, action resource);").unwrap();
        let error = load(&config).unwrap_err().to_string();
        assert!(error.contains("policy.cedar") && error.contains("2:"), "{error}");
        std::fs::write(&file, b"\xff").unwrap();
        assert!(matches!(load(&config), Err(LoadError::NotText { .. })));
    }
}
