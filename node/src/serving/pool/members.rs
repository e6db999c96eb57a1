//! The models of a pool: their names, what they mean at the moment, and whether they may be served.

use std::net::SocketAddr;

use registry::statement::Release;
use registry::store::Store;
use registry::{Digest, Model, Reference, Version};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::ApiError;
use super::plan::{Event, Gone, Key, Manner, Reason, Refusal, State as Stage, Why};
use super::{LOADING, MAX_MEMBERS, Pool, PoolInfo, ServingError, Wanted, load};
use crate::serving::start::blocking;

/// Longest name of a model that an error repeats.
const SHOWN: usize = 200;
/// Endings of files that are weights.
const WEIGHTS: [&str; 2] = [".gguf", ".safetensors"];

/// A model of a pool.
pub(super) struct Member {
    pub(super) reference: Reference,
    pub(super) model: Model,
    /// What is loaded, or would be.
    pub(super) release: Digest,
    pub(super) version: Version,
    pub(super) worker: Option<u64>,
    /// Where its worker answers, while it does.
    pub(super) address: Option<SocketAddr>,
    pub(super) loads: u64,
    pub(super) unloads: u64,
    /// Why it was not loaded last.
    pub(super) error: Option<String>,
    /// Ends its worker.
    pub(super) stop: CancellationToken,
}

impl Member {
    fn is_named(&self, name: &str) -> bool {
        name == self.model.to_string()
            || name == format!("{}@{}", self.model, self.version)
            || name == self.release.to_string()
    }
}

/// Bytes that a release needs at least: those of its weights, of one kind where it has two.
fn weights(release: &Release) -> u64 {
    let of = |ending: &str| -> u64 {
        let files = release.files.iter().filter(|file| file.path.to_ascii_lowercase().ends_with(ending));
        files.map(|file| file.size).fold(0, u64::saturating_add)
    };
    let kinds = WEIGHTS.iter().map(|ending| of(ending)).filter(|bytes| *bytes > 0);
    kinds.min().unwrap_or_else(|| release.size())
}

fn known(store: &Store, release: &Digest) -> Option<Release> {
    store.release(release).ok().flatten()
}

impl Pool {
    /// Adds a model; it is loaded when somebody asks for it.
    pub fn add(&self, wanted: Wanted) -> Result<(), ServingError> {
        let Wanted { reference, release, model, version } = wanted;
        if self.0.settings.follow && !matches!(reference, Reference::Channel(..)) {
            return Err(ServingError::Members(format!(
                "`{reference}` names one release, which never moves, and this pool follows channels; name one, such as `{model}:stable`"
            )));
        }
        let store = &self.0.workers.shared.store;
        let weights = known(store, &release).map_or(0, |release| weights(&release));
        let member = {
            let mut state = self.state();
            if state.members.len() >= MAX_MEMBERS {
                return Err(ServingError::Members(format!("a pool has {MAX_MEMBERS} models at most")));
            }
            if state.members.values().any(|it| it.model == model && it.version == version) {
                return Err(ServingError::Members(format!("`{model}@{version}` is in the pool already")));
            }
            state.last_member += 1;
            let key = state.last_member;
            let member = Member {
                reference,
                model,
                release,
                version,
                worker: None,
                address: None,
                loads: 0,
                unloads: 0,
                error: None,
                stop: CancellationToken::new(),
            };
            state.members.insert(key, member);
            // Before anybody else tells the plan something: it forgets members that the plan does not know.
            state.plan.handle(Event::Added { member: key, weights }, self.now());
            key
        };
        tracing::debug!(pool = self.0.id, member, "a pool has another model");
        self.tell(Event::Tick);
        Ok(())
    }

    /// The member that people call `name`: as it was named, or as requests name it.
    pub fn member(&self, name: &str) -> Result<u32, ServingError> {
        let state = self.state();
        let members = || state.members.iter();
        let spelled = name.parse::<Reference>().map(|reference| reference.to_string());
        let by_reference = members().find(|(_, it)| {
            let own = it.reference.to_string();
            own == name || spelled.as_ref().is_ok_and(|spelled| own == *spelled)
        });
        let found = by_reference.or_else(|| members().find(|(_, it)| it.is_named(name)));
        found.map(|(key, _)| *key).ok_or_else(|| {
            let shown: String = name.chars().take(SHOWN).collect();
            let all: Vec<String> = members().map(|(_, it)| it.reference.to_string()).collect();
            ServingError::Members(format!(
                "`{shown}` is not in pool {}, which has {}",
                self.0.id,
                if all.is_empty() { "no model".to_owned() } else { all.join(", ") }
            ))
        })
    }

    /// The member that a request for `asked` means.
    pub(super) async fn find(&self, asked: Option<&str>) -> Result<Key, ApiError> {
        match self.find_known(asked) {
            // A version or a digest may have become that of a channel meanwhile.
            Err(error) if error.is_unknown_model() && asked.is_some_and(|it| it.contains(['@', ':'])) => {
                self.look_again().await;
                self.find_known(asked)
            }
            found => found,
        }
    }

    /// Looks what every member means now that is not loaded.
    pub async fn look_again(&self) {
        let keys: Vec<Key> = self.state().members.keys().copied().collect();
        for key in keys {
            // What can't be resolved keeps its name.
            let _ = self.look_up(key).await;
        }
    }

    fn find_known(&self, asked: Option<&str>) -> Result<Key, ApiError> {
        let state = self.state();
        let name = |key: &Key| state.members.get(key).map(|it| format!("{}@{}", it.model, it.version));
        let Some(asked) = asked else {
            let mut keys = state.members.keys();
            return match (keys.next(), keys.next()) {
                (Some(only), None) => Ok(*only),
                _ => Err(ApiError::no_model(&state.names())),
            };
        };
        let found: Vec<Key> =
            state.members.iter().filter(|(_, it)| it.is_named(asked)).map(|(key, _)| *key).collect();
        match found[..] {
            [one] => Ok(one),
            [] => {
                let shown: String = asked.chars().take(SHOWN).collect();
                Err(ApiError::no_such_model(&shown, &state.names()))
            }
            _ => {
                let several: Vec<String> = found.iter().filter_map(name).collect();
                Err(ApiError::several(asked, &several))
            }
        }
    }

    /// The release that a member means now.
    pub(super) async fn look_up(&self, key: Key) -> Result<Digest, Gone> {
        let missing = || Gone::Failed(Reason::new(Why::Load, "it is no model of the pool any more"));
        let reference = self.state().members.get(&key).map(|it| it.reference.clone()).ok_or_else(missing)?;
        let store = self.0.workers.shared.store.clone();
        let wanted = reference.clone();
        let found = blocking(move || {
            let release = store.resolve(&wanted).map_err(|error| error.to_string())?;
            Ok::<_, String>(release.and_then(|release| Some((release, known(&store, &release)?))))
        });
        let unknown = |words: String| Gone::Failed(Reason::new(Why::Load, words));
        let found = found.await.map_err(|error| load::refused(&error))?.map_err(unknown)?;
        let (release, statement) =
            found.ok_or_else(|| unknown(format!("`{reference}` is not known here")))?;
        let changed = {
            let mut state = self.state();
            let member = state.members.get_mut(&key).ok_or_else(missing)?;
            let changed = member.release != release && member.worker.is_none();
            if changed {
                (member.release, member.version) = (release, statement.version.clone());
            }
            changed
        };
        if changed {
            self.tell(Event::Other { member: key, weights: weights(&statement) });
        }
        Ok(release)
    }

    /// Whether a member may be served, before anything is unloaded for it.
    pub(super) async fn may_serve(&self, key: Key) -> Result<(), Refusal> {
        let is_out = self.state().plan.show(key).is_some_and(|shown| shown.state == Stage::Out);
        if !is_out {
            return Ok(());
        }
        let allowed = match self.look_up(key).await {
            Ok(release) => {
                self.0.workers.admit(release).await.map(drop).map_err(|error| load::refused(&error))
            }
            Err(how) => Err(how),
        };
        match allowed {
            Ok(()) => Ok(()),
            Err(Gone::Stopped) => Err(Refusal::Removed),
            Err(Gone::Crowded) => Err(Refusal::NoRoom),
            Err(Gone::Small(why) | Gone::Failed(why) | Gone::Refused(why)) => {
                if let Some(member) = self.state().members.get_mut(&key) {
                    member.error = Some(why.words.clone());
                }
                Err(Refusal::Reason(why))
            }
        }
    }

    /// Loads as many members as have room, in their order.
    pub async fn load_all(&self) -> Result<(), ServingError> {
        let keys: Vec<Key> = self.state().members.keys().copied().collect();
        for key in keys {
            match self.asked_for(key, Manner::IfRoom).await {
                Ok(()) | Err(Refusal::NoRoom) => {}
                Err(why) => return Err(self.not_loaded(key, &why)),
            }
        }
        Ok(())
    }

    /// Loads a member, whatever failed before, and makes room for it.
    pub async fn load_member(&self, key: u32) -> Result<(), ServingError> {
        self.asked_for(key, Manner::Person).await.map_err(|why| self.not_loaded(key, &why))
    }

    async fn asked_for(&self, key: Key, manner: Manner) -> Result<(), Refusal> {
        self.may_serve(key).await?;
        self.enter(key, manner, Instant::now() + LOADING).await.map(drop)
    }

    fn not_loaded(&self, key: Key, why: &Refusal) -> ServingError {
        let name =
            self.state().members.get(&key).map_or_else(|| "it".to_owned(), |it| it.reference.to_string());
        let words = ApiError::refused(why, &name).message;
        match why {
            Refusal::Reason(reason) if reason.why != Why::Load => ServingError::Refused(words),
            _ => ServingError::Unloaded(words),
        }
    }

    /// Unloads a member when its requests have ended, and waits until it is gone. It stays a member.
    pub async fn unload_member(&self, key: u32) {
        self.tell(Event::Unload { member: key });
        self.until_out(key).await;
    }

    /// Unloads a member in the same way, and forgets it.
    pub async fn remove(&self, key: u32) -> PoolInfo {
        self.tell(Event::Removed { member: key });
        self.until_out(key).await;
        self.info()
    }

    /// Waits until a member's worker is gone, or somebody has it loaded again.
    async fn until_out(&self, key: Key) {
        let mut changed = self.0.changed.subscribe();
        loop {
            let goes = self.state().plan.show(key).is_some_and(|shown| {
                shown.state == Stage::Stopping || (shown.state == Stage::Ready && shown.gives_way)
            });
            if !goes || changed.changed().await.is_err() || self.0.closing.is_cancelled() {
                return;
            }
        }
    }
}

impl super::State {
    /// The names by which requests may ask.
    pub(super) fn names(&self) -> Vec<String> {
        self.members.keys().filter_map(|key| self.name(*key)).collect()
    }

    /// The name of one member: its model, with the version where several have the same.
    pub(super) fn name(&self, key: Key) -> Option<String> {
        let member = self.members.get(&key)?;
        let alike = self.members.values().filter(|it| it.model == member.model).count();
        let Member { model, version, .. } = member;
        Some(if alike > 1 { format!("{model}@{version}") } else { model.to_string() })
    }
}
