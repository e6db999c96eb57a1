//! Reads from the store what the decision needs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use registry::policy::Action;
use registry::store::{Mirrored, Store, StoreError};
use registry::{Digest, Timestamp, admit};

use super::decide::{Attempt, Fact, World};
use super::rule::{Lineage, Rule};

/// Everything that `rules` may want and everything that they brought. Blocks.
pub(super) fn gather(
    store: &Store,
    rules: &[Rule],
    attempts: &HashMap<Digest, Attempt>,
    now: Timestamp,
) -> Result<World, StoreError> {
    let releases: BTreeMap<Digest, _> = store.releases()?.into_iter().collect();
    let mut channels: HashMap<Digest, Vec<_>> = HashMap::new();
    for (_, channel) in store.channels()? {
        // A channel can't name another model's release.
        if releases.get(&channel.release).is_some_and(|release| release.model == channel.model) {
            channels.entry(channel.release).or_default().push(channel.channel);
        }
    }
    let admitted: BTreeSet<Digest> = store
        .admissions()?
        .into_iter()
        .filter(|admission| admission.decision.allowed)
        .map(|admission| admission.release)
        .collect();
    let pinned: BTreeSet<Digest> = store.pins()?.into_iter().map(|pin| pin.release).collect();
    let mirrored: BTreeSet<Digest> =
        store.mirrored()?.into_iter().filter(|it| it.kept).map(|Mirrored { release, .. }| release).collect();
    let lineage = rules.iter().any(|rule| rule.lineage != Lineage::None);
    let mut facts = BTreeMap::new();
    for (digest, release) in releases {
        let named = rules.iter().any(|rule| rule.names(&release.model));
        let is_mirrored = mirrored.contains(&digest);
        if !named && !lineage && !is_mirrored {
            continue;
        }
        let here = admitted.contains(&digest);
        let ancestors =
            if lineage { store.ancestors(&digest)?.into_keys().collect() } else { BTreeSet::new() };
        let refused = if here { None } else { refusal(store, &digest, now)? };
        facts.insert(
            digest,
            Fact {
                size: release.size(),
                model: release.model,
                version: release.version,
                issued: release.issued,
                channels: channels.remove(&digest).unwrap_or_default(),
                ancestors,
                here,
                mirrored: is_mirrored,
                pinned: pinned.contains(&digest),
                refused,
                attempt: attempts.get(&digest).cloned(),
            },
        );
    }
    let disk_free = store.usage()?.disk_free;
    Ok(World { facts, disk_free, now })
}

/// Why the policy would refuse a release, as far as that can be said without its bytes: to be mirrored, or to be admitted
/// once it is here.
fn refusal(store: &Store, release: &Digest, now: Timestamp) -> Result<Option<String>, StoreError> {
    let facts = match admit::facts(store, &store.own(), release, now) {
        Ok((_, facts)) => facts,
        Err(admit::AdmitError::Store(error)) => return Err(error),
        Err(error) => return Ok(Some(error.to_string())),
    };
    let policy = store.policy();
    for action in [Action::Mirror, Action::Admit] {
        let decision = policy.decide(action, &facts);
        if !decision.allowed {
            let why: Vec<String> =
                decision.refusals().map(|check| format!("{}: {}", check.rule, check.detail)).collect();
            return Ok(Some(why.join("; ")));
        }
    }
    Ok(None)
}
