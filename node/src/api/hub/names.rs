//! What models there are, and which release a revision means. Kept beside the store, since a revision may be the beginning of
//! a digest, which no index finds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use registry::reference::DEFAULT_CHANNEL;
use registry::statement::Statement;
use registry::store::{MAX_FEED, Store, StoreError};
use registry::{ChannelName, Digest, Model, Nation, Timestamp, Version};

/// Digits of a commit: what the hub's clients take for one.
pub(super) use crate::git::COMMIT;
/// Fewest digits by which a release is found.
const SHORTEST: usize = 7;
/// What the hub's clients ask for when nobody named a revision.
pub(super) const MAIN: &str = "main";

/// The commit that a release is.
pub(in super::super) use crate::git::commit_of as commit;

/// One release of a model that our nation may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) release: Digest,
    pub(super) version: Version,
    pub(super) issued: Timestamp,
}

/// One model's names.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    /// The newest last.
    pub(super) releases: Vec<Entry>,
    pub(super) channels: BTreeSet<ChannelName>,
}

/// What a revision means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Release(Digest),
    Nothing,
    /// More than one release begins so.
    Several,
}

impl Names {
    /// The release that `revision` means; `channel` tells where a channel points.
    pub(super) fn find(&self, revision: &str, channel: impl Fn(&ChannelName) -> Option<Digest>) -> Meaning {
        let known = |release: &Digest| self.releases.iter().any(|entry| entry.release == *release);
        let of_channel = |name: &str| {
            let name = ChannelName::new(name).ok().filter(|name| self.channels.contains(name))?;
            channel(&name).filter(known)
        };
        let of_version = |name: &str| {
            let entry = self.releases.iter().find(|entry| entry.version.as_str() == name)?;
            Some(entry.release)
        };
        let found = match (revision.strip_prefix("refs/heads/"), revision.strip_prefix("refs/tags/")) {
            (Some(branch), _) => of_channel(branch).or_else(|| main(branch, &of_channel)),
            (_, Some(tag)) => of_version(tag),
            _ => {
                of_channel(revision).or_else(|| main(revision, &of_channel)).or_else(|| of_version(revision))
            }
        };
        match found {
            Some(release) => Meaning::Release(release),
            None => self.beginning(revision),
        }
    }

    /// The release whose digest begins so.
    fn beginning(&self, revision: &str) -> Meaning {
        let digits = revision.strip_prefix("b3:").unwrap_or(revision);
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if digits.len() < SHORTEST || !digits.chars().all(hex) {
            return Meaning::Nothing;
        }
        let mut found = self.releases.iter().filter(|entry| entry.release.to_hex().starts_with(digits));
        match (found.next(), found.next()) {
            (Some(entry), None) => Meaning::Release(entry.release),
            (None, _) => Meaning::Nothing,
            _ => Meaning::Several,
        }
    }

    /// The names as one would say them, for who asked for something else.
    pub(super) fn words(&self) -> String {
        let channels = self.channels.iter().map(ToString::to_string);
        let versions = self.releases.iter().rev().map(|entry| entry.version.to_string());
        channels.chain(versions).take(12).collect::<Vec<_>>().join(", ")
    }
}

/// `main` is the channel that a reference without one means.
fn main(revision: &str, of_channel: &impl Fn(&str) -> Option<Digest>) -> Option<Digest> {
    matches!(revision, MAIN | "HEAD").then(|| of_channel(DEFAULT_CHANNEL)).flatten()
}

#[derive(Debug, Default)]
struct State {
    /// The last statement that was looked at.
    seen: u64,
    models: BTreeMap<Model, Arc<Names>>,
}

/// Every model that our nation may have something of.
#[derive(Debug, Default)]
pub(super) struct Catalogue(Mutex<State>);

impl Catalogue {
    /// Takes up what is new, then answers. Blocks.
    fn with<T>(&self, store: &Store, read: impl FnOnce(&State) -> T) -> Result<T, StoreError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.seen < store.last_seq() {
            let own = store.own();
            loop {
                let page = store.feed(state.seen, MAX_FEED)?;
                let Some((last, _)) = page.last() else { break };
                state.seen = *last;
                for (_, signed) in page {
                    if let Ok(statement) = signed.peek() {
                        state.take(&own, signed.digest(), statement);
                    }
                }
            }
        }
        Ok(read(&state))
    }

    /// The names of one model.
    pub(super) fn model(&self, store: &Store, model: &Model) -> Result<Option<Arc<Names>>, StoreError> {
        self.with(store, |state| state.models.get(model).filter(|names| !names.releases.is_empty()).cloned())
    }

    /// Models after `after`, by name, of which `wanted` says yes: at most `limit`, each with its names.
    pub(super) fn models(
        &self,
        store: &Store,
        after: Option<&Model>,
        limit: usize,
        wanted: impl Fn(&Model) -> bool,
    ) -> Result<Vec<(Model, Arc<Names>)>, StoreError> {
        use std::ops::Bound;
        self.with(store, |state| {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let models = state.models.range::<Model, _>((from, Bound::Unbounded));
            let models = models.filter(|(model, names)| !names.releases.is_empty() && wanted(model));
            models.take(limit).map(|(model, names)| (model.clone(), names.clone())).collect()
        })
    }
}

impl State {
    fn take(&mut self, own: &Nation, digest: Digest, statement: Statement) {
        match statement {
            Statement::Release(release) if release.releasable_to(own) => {
                let entry = Entry { release: digest, version: release.version, issued: release.issued };
                let names = Arc::make_mut(self.models.entry(release.model).or_default());
                let releases = &mut names.releases;
                let at = releases.partition_point(|known| known.issued <= entry.issued);
                releases.insert(at, entry);
            }
            Statement::Channel(channel) => {
                Arc::make_mut(self.models.entry(channel.model).or_default()).channels.insert(channel.channel);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn digest(byte: u8, last: u8) -> Digest {
        let mut bytes = [byte; 32];
        bytes[31] = last;
        Digest::from_bytes(bytes)
    }

    fn names() -> Names {
        let entry = |release, version: &str| Entry {
            release,
            version: Version::new(version).unwrap(),
            issued: Timestamp::from_unix(0),
        };
        Names {
            releases: vec![
                entry(digest(0xab, 1), "1.0"),
                entry(digest(0xab, 2), "2.0"),
                entry(digest(0xcd, 3), "beta"),
            ],
            channels: ["stable", "beta"].map(|name| ChannelName::new(name).unwrap()).into(),
        }
    }

    #[test]
    fn revisions_are_channels_versions_and_digests() {
        let channel = |name: &ChannelName| match name.as_str() {
            "stable" => Some(digest(0xab, 2)),
            "beta" => Some(digest(0xab, 1)),
            _ => None,
        };
        let find = |revision: &str| names().find(revision, channel);
        let release = |byte, last| Meaning::Release(digest(byte, last));
        assert_eq!(find("main"), release(0xab, 2));
        assert_eq!(find("HEAD"), release(0xab, 2));
        assert_eq!(find("refs/heads/main"), release(0xab, 2));
        assert_eq!(find("1.0"), release(0xab, 1));
        assert_eq!(find("refs/tags/1.0"), release(0xab, 1));
        // A channel goes before a version of the same name, unless it is said which.
        assert_eq!(find("beta"), release(0xab, 1));
        assert_eq!(find("refs/tags/beta"), release(0xcd, 3));
        assert_eq!(find(&"cd".repeat(20)), release(0xcd, 3));
        assert_eq!(find("cdcdcdc"), release(0xcd, 3));
        assert_eq!(find(&digest(0xab, 1).to_string()), release(0xab, 1));
        assert_eq!(find(&"ab".repeat(20)), Meaning::Several);
        for nothing in
            ["", "cdcdcd", "CDCDCDCD", "none", "refs/pr/1", "../main", &"0".repeat(40), &"cd".repeat(40)]
        {
            assert_eq!(find(nothing), Meaning::Nothing, "{nothing}");
        }
        let nowhere = names().find("main", |_| None);
        assert_eq!(nowhere, Meaning::Nothing);
    }
}
