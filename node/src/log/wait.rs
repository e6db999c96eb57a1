//! A pull that comes just after a publication waits a moment for the release's entry and its cosignatures.

use std::time::{Duration, Instant};

use registry::store::StoreError;
use registry::{Digest, Timestamp};

use super::follow;
use crate::node::{Node, blocking};

/// The policy's rule that asks for an entry in the log and for witnesses.
const RULE: &str = "logged";
/// How long the entry and cosignatures are waited for, when nothing else is missing: some rounds of witnesses.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for one ally's answer.
const ASK: Duration = Duration::from_secs(2);
/// Between two rounds of asking.
const PAUSE: Duration = Duration::from_millis(250);

/// Asks allies for what they have of the log, for as long as the log alone is what the policy misses, within limits.
pub(crate) async fn for_policy(node: &Node, release: Digest) {
    let until = Instant::now() + PATIENCE;
    let mut changes = node.logs().watch();
    loop {
        let store = node.store().clone();
        let looked = blocking(move || {
            let Some(found) = store.release(&release)? else { return Ok(None) };
            let decided = registry::admit::decide(&store, &release, Timestamp::now()).ok();
            Ok::<_, StoreError>(decided.map(|(_, decision)| (found.model.nation, decision)))
        });
        let Ok(Some((nation, decision))) = looked.await else { return };
        let mut refusals = decision.refusals().peekable();
        if refusals.peek().is_none() || refusals.any(|check| check.rule != RULE) {
            return;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || !node.is_online() {
            return;
        }
        follow::ask_all(node, &nation, ASK.min(left)).await;
        // An error says that the node ends.
        let _ = tokio::time::timeout(PAUSE.min(left), changes.changed()).await;
    }
}
